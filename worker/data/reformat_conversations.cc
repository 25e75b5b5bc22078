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

// One object, a list of them, or objects with blank lines between, as Glaive has them.
Result<PyJson> ObjectList(const std::string& text, std::string_view what) {
  auto parsed = ParsePyJson(text);
  if (!parsed.ok()) {
    std::string list = "[";
    for (size_t at = 0; at < text.size();) {
      const size_t gap = text.find("}\n\n", at);
      list += text.substr(at, gap == std::string::npos ? gap : gap + 1 - at);
      list += gap == std::string::npos ? "]" : ",";
      at = gap == std::string::npos ? text.size() : text.find_first_not_of('\n', gap + 1);
    }
    auto repaired = ParsePyJson(list);
    if (!repaired.ok()) {
      return InvalidArgument(StrCat(what, " is no JSON: ", parsed.status().message()));
    }
    parsed = std::move(repaired);
  }
  PyJson value = std::move(parsed->value);
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

// The calls that a model wrote. Glaive's have their arguments in single quotes, escaped within.
Result<PyJson> CallList(const std::string& text) {
  auto calls = ObjectList(text, "the function call");
  if (calls.ok()) {
    return calls;
  }
  std::string mended;
  for (const char c : text) {
    if (c != '\'') {
      mended.push_back(c == '\\' ? '\'' : c);
    }
  }
  auto again = ObjectList(mended, "the function call");
  return again.ok() ? std::move(again) : std::move(calls);
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
    MFT_ASSIGN_OR_RETURN(const std::string from, TextOr(turn, "from"));
    MFT_ASSIGN_OR_RETURN(std::string value, TextOr(turn, "value"));
    const Speaker speaker = SpeakerOf(from);
    if (speaker == Speaker::kUnknown) {
      result_.notes.push_back(StrCat("what \"", Printable(from, 40), "\" says is left out"));
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
        return Call(value);
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
        return Status::Ok();
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
      const PyJson* arguments = NotNull(call, "arguments");
      PyJson function = PyJson::Object();
      function.Add("name", PyJson::String(std::move(name)));
      function.Add("arguments",
                   arguments == nullptr           ? PyJson::String("{}")
                   : arguments->is(Kind::kString) ? *arguments
                                                  : PyJson::String(DumpPyJson(*arguments)));
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
