// SPDX-License-Identifier: Apache-2.0
// OpenAI's form, old (functions, function_call) and new (tools, tool_calls).
#include <cstdint>
#include <utility>

#include "common/base/strings.h"
#include "common/dataset/sample_fields.h"
#include "worker/data/reformat_forms.h"

namespace mft::data {

namespace {
using samples::NotNull;
using samples::Quote;
using Kind = PyJson::Kind;

// json.dumps with ensure_ascii: what is not ASCII stands within strings only.
std::string AsciiJson(const PyJson& json) {
  constexpr std::string_view kHex = "0123456789abcdef";
  const std::string text = DumpPyJson(json);
  std::string out;
  const auto unit = [&](uint32_t value) {
    out += "\\u";
    for (int shift = 12; shift >= 0; shift -= 4) {
      out.push_back(kHex[value >> shift & 15]);
    }
  };
  for (size_t i = 0; i < text.size();) {
    const auto first = static_cast<uint8_t>(text[i]);
    const size_t length = first < 0x80 ? 1 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
    uint32_t code = length == 1 ? first : first & (0xFFU >> (length + 1));
    for (size_t j = 1; j < length; ++j) {
      code = code << 6 | (static_cast<uint8_t>(text[i + j]) & 0x3F);
    }
    i += length;
    if (code < 0x80) {
      out.push_back(static_cast<char>(code));
    } else if (code < 0x10000) {
      unit(code);
    } else {
      unit(0xD800 + ((code - 0x10000) >> 10));
      unit(0xDC00 + ((code - 0x10000) & 0x3FF));
    }
  }
  return out;
}

// "content" may be a list of parts; those of text are joined.
Result<PyJson> PlainText(const PyJson& content, const std::string& path) {
  if (!content.is(Kind::kList)) {
    return content;
  }
  std::string text;
  for (const PyJson& part : content.items) {
    const PyJson* type = part.Find("type");
    const PyJson* words = part.Find("text");
    if (type == nullptr || type->text != "text" || words == nullptr || !words->is(Kind::kString)) {
      return InvalidArgument(StrCat(path, ": a part that is no text: ", Quote(part)));
    }
    text += words->text;
  }
  return PyJson::String(text);
}

class MessagesConverter {
 public:
  explicit MessagesConverter(CallIds& ids) : ids_(ids) {}

  Result<Reformatted> Run(const PyJson& sample) {
    for (const auto& [key, value] : sample.members) {
      if (key == "functions") {
        continue;
      }
      if (key == "tools" && value.is(Kind::kList)) {
        MFT_ASSIGN_OR_RETURN(PyJson tools, Tools(value));
        result_.sample.Add(key, std::move(tools));
      } else if ((key == "messages" || key == "interactions") && value.is(Kind::kList)) {
        MFT_ASSIGN_OR_RETURN(PyJson messages, Messages(value, key));
        result_.sample.Add(key, std::move(messages));
      } else {
        result_.sample.Add(key, value);
      }
    }
    if (const PyJson* functions = NotNull(sample, "functions")) {
      PyJson tools = PyJson::List();
      for (const PyJson& function : functions->items) {
        PyJson tool = PyJson::Object();
        tool.Add("function", function);
        tools.items.push_back(std::move(tool));
      }
      MFT_ASSIGN_OR_RETURN(tools, Tools(tools));
      result_.sample.Add("tools", std::move(tools));
    }
    return std::move(result_);
  }

 private:
  // Functions without a description or parameters get empty ones.
  static Result<PyJson> Tools(const PyJson& tools) {
    PyJson ours = PyJson::List();
    for (const PyJson& tool : tools.items) {
      const PyJson* function = NotNull(tool, "function");
      const bool complete = function != nullptr && NotNull(*function, "description") != nullptr &&
                            NotNull(*function, "parameters") != nullptr;
      if (function == nullptr || complete) {
        ours.items.push_back(tool);
        continue;
      }
      MFT_ASSIGN_OR_RETURN(PyJson mended, ToolOf(*function));
      ours.items.push_back(std::move(mended));
    }
    return ours;
  }

  Result<PyJson> Messages(const PyJson& messages, const std::string& key) {
    messages_ = PyJson::List();
    for (size_t i = 0; i < messages.items.size(); ++i) {
      path_ = StrCat(key, "[", i, "]");
      if (!messages.items[i].is(Kind::kObject)) {
        return InvalidArgument(StrCat(path_, " is no message: ", Quote(messages.items[i])));
      }
      MFT_RETURN_IF_ERROR(Message(messages.items[i]));
    }
    EndWithAssistant(messages_, result_.notes);
    if (messages_.items.empty()) {
      return InvalidArgument("no answer of the assistant");
    }
    return std::move(messages_);
  }

  Status Message(const PyJson& message) {
    PyJson ours = PyJson::Object();
    std::string role = RoleOf(message);
    role = role == "function" ? "tool" : role == "developer" ? "system" : role;
    bool calls = false;
    bool text = false;
    for (const auto& [name, value] : message.members) {
      if (name == "role") {
        ours.Add(name, PyJson::String(role));
      } else if (name == "function_call") {
        if (!value.is(Kind::kNull)) {
          MFT_ASSIGN_OR_RETURN(PyJson list, OldCall(value));
          ours.Add("tool_calls", std::move(list));
          calls = true;
        }
      } else if (name == "tool_calls") {
        if (value.is(Kind::kList) && !value.items.empty()) {
          ours.Add(name, value);
          calls = true;
        }
      } else if (name == "tool_call_id" && value.is(Kind::kString)) {
        ours.Add(name, PyJson::String(ids_.For(value.text)));
      } else if (name == "content" || name == "text") {
        MFT_ASSIGN_OR_RETURN(PyJson plain, PlainText(value, path_));
        const bool empty = plain.is(Kind::kNull) || (plain.is(Kind::kString) && plain.text.empty());
        // A tool may answer nothing.
        const bool kept = !empty || (role == "tool" && plain.is(Kind::kString));
        text |= kept;
        if (kept) {
          ours.Add(name, std::move(plain));
        }
      } else {
        ours.Add(name, value);
      }
    }
    if (calls && text) {
      return InvalidArgument(StrCat(path_, ": has text beside its tool calls"));
    }
    if (!calls && !text) {
      return InvalidArgument(StrCat(path_, ": the message of role \"", role, "\" is empty"));
    }
    if (role == "tool") {
      MFT_RETURN_IF_ERROR(Answer(ours));
    } else {
      open_calls_.clear();
    }
    if (PyJson* list = FindMember(ours, "tool_calls")) {
      for (PyJson& call : list->items) {
        MFT_RETURN_IF_ERROR(Open(call));
      }
    }
    messages_.items.push_back(std::move(ours));
    return Status::Ok();
  }

  // A call of the newest answer, which results may name.
  struct OpenCall {
    std::string id;
    std::string name;
  };

  // Gives the call an id of our form.
  Status Open(PyJson& call) {
    PyJson* function = FindMember(call, "function");
    if (function == nullptr || !function->is(Kind::kObject)) {
      return InvalidArgument(StrCat(path_, ": a tool call without a function: ", Quote(call)));
    }
    MFT_ASSIGN_OR_RETURN(const std::string name, TextOr(*function, "name"));
    MFT_ASSIGN_OR_RETURN(const std::string theirs, TextOr(call, "id"));
    const std::string id = theirs.empty() ? ids_.Next() : ids_.For(theirs);
    SetMember(*function, "arguments", PyJson::String(ArgumentsText(function->Find("arguments"))));
    SetMember(call, "id", PyJson::String(id));  // last: it may move the other members
    open_calls_.push_back({id, name});
    return Status::Ok();
  }

  // A result names its call by id; where it has none, it answers the first open call of its name.
  Status Answer(PyJson& result) {
    MFT_ASSIGN_OR_RETURN(const std::string id, TextOr(result, "tool_call_id"));
    MFT_ASSIGN_OR_RETURN(const std::string name, TextOr(result, "name"));
    for (size_t i = 0; i < open_calls_.size(); ++i) {
      const OpenCall call = open_calls_[i];
      if (id.empty() ? name.empty() || name == call.name : id == call.id) {
        open_calls_.erase(open_calls_.begin() + static_cast<std::ptrdiff_t>(i));
        SetMember(result, "tool_call_id", PyJson::String(call.id));
        return Status::Ok();
      }
    }
    return InvalidArgument(StrCat(path_,
                                  ": a result of ",
                                  id.empty() ? StrCat("\"", name, "\"") : StrCat("call ", id),
                                  " that no call before it asks for"));
  }

  static PyJson* FindMember(PyJson& object, std::string_view key) {
    for (PyJson::Member& member : object.members) {
      if (member.first == key) {
        return &member.second;
      }
    }
    return nullptr;
  }
  static void SetMember(PyJson& object, std::string_view key, PyJson value) {
    if (PyJson* member = FindMember(object, key)) {
      *member = std::move(value);
    } else {
      object.Add(std::string(key), std::move(value));
    }
  }

  Result<PyJson> OldCall(const PyJson& call) {
    const auto parsed = ParsePyJson(ArgumentsText(call.Find("arguments")));
    if (!parsed.ok()) {
      return InvalidArgument(
          StrCat(path_, ": function_call.arguments are no JSON: ", parsed.status().message()));
    }
    PyJson function = call;
    SetMember(function, "arguments", PyJson::String(AsciiJson(parsed->value)));
    PyJson ours = PyJson::Object();
    ours.Add("function", std::move(function));
    PyJson list = PyJson::List();
    list.items.push_back(std::move(ours));
    return list;
  }

  CallIds& ids_;
  Reformatted result_{.sample = PyJson::Object()};
  PyJson messages_;
  std::string path_;  // of the message at work
  std::vector<OpenCall> open_calls_;
};
}  // namespace

Result<Reformatted> FromMessages(const PyJson& sample, CallIds& ids) {
  return MessagesConverter(ids).Run(sample);
}

}  // namespace mft::data
