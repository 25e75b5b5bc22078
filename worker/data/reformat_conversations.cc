// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <utility>

#include "common/base/strings.h"
#include "common/dataset/sample_fields.h"
#include "worker/data/reformat_forms.h"

namespace mft::data {

namespace {
using samples::NotNull;
using samples::Quote;
using Kind = PyJson::Kind;

enum class Speaker { kUnknown, kSystem, kUser, kAssistant, kCall, kResult };

struct SpeakerName {
  std::string_view name;
  Speaker speaker;
};
constexpr std::array kSpeakers = {SpeakerName{"system", Speaker::kSystem},
                                  SpeakerName{"human", Speaker::kUser},
                                  SpeakerName{"user", Speaker::kUser},
                                  SpeakerName{"gpt", Speaker::kAssistant},
                                  SpeakerName{"assistant", Speaker::kAssistant},
                                  SpeakerName{"chatgpt", Speaker::kAssistant},
                                  SpeakerName{"bing", Speaker::kAssistant},
                                  SpeakerName{"bard", Speaker::kAssistant},
                                  SpeakerName{"model", Speaker::kAssistant},
                                  SpeakerName{"function-call", Speaker::kCall},
                                  SpeakerName{"function_call", Speaker::kCall},
                                  SpeakerName{"function-response", Speaker::kResult},
                                  SpeakerName{"function_response", Speaker::kResult},
                                  SpeakerName{"observation", Speaker::kResult},
                                  SpeakerName{"tool", Speaker::kResult}};

Speaker SpeakerOf(std::string_view name) {
  const auto* found = std::find_if(
      kSpeakers.begin(), kSpeakers.end(), [&](const SpeakerName& s) { return s.name == name; });
  return found == kSpeakers.end() ? Speaker::kUnknown : found->speaker;
}

// The JSON objects that stand in a row in `text`, whatever is between them, as a list.
Result<PyJson> ObjectsInARow(std::string_view text) {
  PyJson list = PyJson::List();
  int depth = 0;
  bool in_string = false;
  size_t begin = 0;
  for (size_t i = 0; i < text.size() && depth >= 0; ++i) {
    const char c = text[i];
    if (in_string) {
      i += c == '\\' ? 1 : 0;
      in_string = c != '"';
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{') {
      begin = depth++ == 0 ? i : begin;
    } else if (c == '}' && --depth == 0) {
      MFT_ASSIGN_OR_RETURN(PyJsonParsed parsed, ParsePyJson(text.substr(begin, i + 1 - begin)));
      list.items.push_back(std::move(parsed.value));
    }
  }
  if (depth != 0 || list.items.empty()) {
    return InvalidArgument("the braces do not match");
  }
  return list;
}

// One object, a list of them, or objects in a row with lines broken anywhere, as Glaive has them.
Result<PyJson> ObjectList(const std::string& text, std::string_view what) {
  const auto parsed = ParsePyJson(text);
  PyJson value;
  if (parsed.ok()) {
    value = parsed->value;
  } else {
    std::string joined = text;
    std::erase(joined, '\n');
    auto repaired = ObjectsInARow(joined);
    if (!repaired.ok()) {
      return InvalidArgument(StrCat(what, " is no JSON: ", parsed.status().message()));
    }
    value = std::move(repaired).value();
  }
  if (value.is(Kind::kObject)) {
    PyJson list = PyJson::List();
    if (!value.members.empty()) {
      list.items.push_back(std::move(value));
    }
    return list;
  }
  if (!value.is(Kind::kList)) {
    return InvalidArgument(StrCat(what, " is neither an object nor a list: ", Quote(value)));
  }
  return value;
}

// The calls that a model wrote. Glaive's have their arguments in single quotes, which are escaped
// within: {"name": "f", "arguments": '{"k": "it\'s"}'}.
Result<PyJson> CallList(const std::string& text) {
  constexpr std::string_view kWhat = "the function call";
  const auto parsed = ParsePyJson(text);
  if (parsed.ok()) {
    return ObjectList(text, kWhat);
  }
  const size_t open = text.find('\'');
  const size_t close = text.rfind('\'');
  if (open < close) {
    // The quotes around the arguments of the only call.
    std::string inner;
    for (size_t i = open + 1; i < close; ++i) {
      i += text[i] == '\\' && text[i + 1] == '\'' ? 1 : 0;
      inner.push_back(text[i]);
    }
    const std::string one = StrCat(text.substr(0, open), inner, text.substr(close + 1));
    if (ParsePyJson(one).ok()) {
      return ObjectList(one, kWhat);
    }
    // Several calls: the reference's own repair.
    std::string several = text;
    std::erase(several, '\'');
    std::replace(several.begin(), several.end(), '\\', '\'');
    if (ParsePyJson(several).ok()) {
      return ObjectList(several, kWhat);
    }
  }
  return InvalidArgument(StrCat(kWhat, " is no JSON: ", parsed.status().message()));
}

class ConversationConverter {
 public:
  ConversationConverter(DataForm form, CallIds& ids) : form_(form), ids_(ids) {}

  Result<Reformatted> Run(const PyJson& sample) {
    const PyJson* turns = NotNull(sample, "conversations");
    if (turns == nullptr || !turns->is(Kind::kList)) {
      return InvalidArgument("conversations: must be a list");
    }
    MFT_ASSIGN_OR_RETURN(std::string system, TextOr(sample, "system"));
    if (!system.empty()) {
      messages_.items.push_back(TextMessage("system", std::move(system)));
    }
    for (size_t i = 0; i < turns->items.size(); ++i) {
      MFT_RETURN_IF_ERROR(Turn(turns->items[i]).WithContext(StrCat("conversations[", i, "]")));
    }
    EndWithAssistant(messages_, result_.notes);
    if (messages_.items.empty()) {
      return InvalidArgument("no answer of the assistant");
    }
    result_.sample.Add("messages", std::move(messages_));
    MFT_RETURN_IF_ERROR(Tools(sample));
    return std::move(result_);
  }

 private:
  Status Turn(const PyJson& turn) {
    MFT_ASSIGN_OR_RETURN(const std::string from,
                         TextOr(turn, turn.Find("from") != nullptr ? "from" : "role"));
    MFT_ASSIGN_OR_RETURN(std::string value,
                         TextOr(turn, turn.Find("value") != nullptr ? "value" : "content"));
    const Speaker speaker = SpeakerOf(from);
    if (speaker == Speaker::kUnknown && (form_ != DataForm::kGlaive || from.empty())) {
      return InvalidArgument(StrCat("\"", Printable(from, 40), "\" is no speaker of this form"));
    }
    if (speaker == Speaker::kUnknown) {
      result_.notes.push_back({StrCat("messages of \"", Printable(from, 40), "\"")});
      return Status::Ok();
    }
    if (speaker == Speaker::kResult) {
      return Answer(std::move(value));
    }
    if (!open_calls_.empty() && speaker != Speaker::kCall && answered_ > 0) {
      return InvalidArgument(StrCat(open_calls_.size(), " more calls than responses before it"));
    }
    open_calls_.clear();
    switch (speaker) {
      case Speaker::kCall:
        MFT_RETURN_IF_ERROR(Call(value));
        AddWeight(turn);
        return Status::Ok();
      case Speaker::kSystem:
        // What follows lists the tools, which stand apart.
        value = form_ == DataForm::kGlaive ? value.substr(0, value.find(" -")) : value;
        messages_.items.push_back(TextMessage("system", std::move(value)));
        return Status::Ok();
      case Speaker::kUser:
        messages_.items.push_back(TextMessage("user", std::move(value)));
        return Status::Ok();
      default:
        messages_.items.push_back(TextMessage("assistant", std::move(value)));
        AddWeight(turn);
        return Status::Ok();
    }
  }

  // 0: the newest message is not trained.
  void AddWeight(const PyJson& turn) {
    if (const PyJson* weight = NotNull(turn, "weight")) {
      messages_.items.back().Add("weight", *weight);
    }
  }

  Status Call(const std::string& value) {
    MFT_ASSIGN_OR_RETURN(const PyJson calls, CallList(value));
    PyJson list = PyJson::List();
    for (const PyJson& call : calls.items) {
      MFT_ASSIGN_OR_RETURN(std::string name, TextOr(call, "name"));
      if (name.empty()) {
        return InvalidArgument(StrCat("a call without a name: ", Quote(call)));
      }
      PyJson function = PyJson::Object();
      function.Add("name", PyJson::String(std::move(name)));
      function.Add("arguments", PyJson::String(ArgumentsText(call.Find("arguments"))));
      PyJson ours = PyJson::Object();
      open_calls_.push_back(ids_.Next());
      ours.Add("id", PyJson::String(open_calls_.back()));
      ours.Add("type", PyJson::String("function"));
      ours.Add("function", std::move(function));
      list.items.push_back(std::move(ours));
    }
    if (list.items.empty()) {
      return InvalidArgument("a function call that calls nothing");
    }
    answered_ = 0;
    PyJson message = PyJson::Object();
    message.Add("role", PyJson::String("assistant"));
    message.Add("tool_calls", std::move(list));
    messages_.items.push_back(std::move(message));
    return Status::Ok();
  }

  // Responses answer the calls in their order.
  Status Answer(std::string value) {
    if (open_calls_.empty()) {
      return InvalidArgument("a function response without a call before it");
    }
    ++answered_;
    PyJson message = TextMessage("tool", std::move(value));
    message.Add("tool_call_id", PyJson::String(open_calls_.front()));
    open_calls_.erase(open_calls_.begin());
    messages_.items.push_back(std::move(message));
    return Status::Ok();
  }

  Status Tools(const PyJson& sample) {
    const char* key = form_ == DataForm::kGlaive ? "function_description" : "tools";
    const PyJson* described = NotNull(sample, key);
    if (described == nullptr || (described->is(Kind::kString) && Trim(described->text).empty())) {
      return Status::Ok();
    }
    PyJson functions = *described;
    if (described->is(Kind::kString)) {
      MFT_ASSIGN_OR_RETURN(functions, ObjectList(described->text, key));
    }
    PyJson tools = PyJson::List();
    for (const PyJson& function : functions.items) {
      const PyJson* inner = NotNull(function, "function");
      MFT_ASSIGN_OR_RETURN(PyJson tool, ToolOf(inner != nullptr ? *inner : function));
      tools.items.push_back(std::move(tool));
    }
    if (!tools.items.empty()) {
      result_.sample.Add("tools", std::move(tools));
    }
    return Status::Ok();
  }

  const DataForm form_;
  CallIds& ids_;
  Reformatted result_{.sample = PyJson::Object()};
  PyJson messages_ = PyJson::List();
  std::vector<std::string> open_calls_;  // ids of the newest calls without a response
  size_t answered_ = 0;                  // of the newest calls
};
}  // namespace

Result<Reformatted> FromConversations(DataForm form, const PyJson& sample, CallIds& ids) {
  return ConversationConverter(form, ids).Run(sample);
}

}  // namespace mft::data
