// SPDX-License-Identifier: Apache-2.0
#include "common/tokenizer/chat.h"

#include "common/base/strings.h"
#include "common/tokenizer/python_json.h"

namespace mft {

namespace {
// The control tokens of instruct v3 (formats.md 2.5), looked up by name: their ids differ between
// vocabularies.
struct ControlTokens {
  int32_t begin_inst, end_inst, tool_calls, begin_tools, end_tools, begin_results, end_results;

  static Result<ControlTokens> Of(const Tokenizer& tokenizer) {
    ControlTokens tokens{};
    MFT_ASSIGN_OR_RETURN(tokens.begin_inst, tokenizer.SpecialToken("[INST]"));
    MFT_ASSIGN_OR_RETURN(tokens.end_inst, tokenizer.SpecialToken("[/INST]"));
    MFT_ASSIGN_OR_RETURN(tokens.tool_calls, tokenizer.SpecialToken("[TOOL_CALLS]"));
    MFT_ASSIGN_OR_RETURN(tokens.begin_tools, tokenizer.SpecialToken("[AVAILABLE_TOOLS]"));
    MFT_ASSIGN_OR_RETURN(tokens.end_tools, tokenizer.SpecialToken("[/AVAILABLE_TOOLS]"));
    MFT_ASSIGN_OR_RETURN(tokens.begin_results, tokenizer.SpecialToken("[TOOL_RESULTS]"));
    MFT_ASSIGN_OR_RETURN(tokens.end_results, tokenizer.SpecialToken("[/TOOL_RESULTS]"));
    return tokens;
  }
};

// What parses as JSON stands as such, anything else as a string; a value past the parser's limits
// is an error.
Result<PyJson> JsonOrText(const std::string& text) {
  auto parsed = ParsePyJson(text);
  if (parsed.ok()) {
    return std::move(parsed->value);
  }
  if (parsed.status().code() == Code::kInvalidArgument) {
    return PyJson::String(text);
  }
  return Status(Code::kInvalidArgument, parsed.status().message());
}

class Encoder {
 public:
  Encoder(const Tokenizer& tokenizer,
          const ControlTokens& control,
          const Conversation& conversation)
      : tokenizer_(tokenizer), control_(control), conversation_(conversation) {
    for (size_t i = 0; i < conversation.messages.size(); ++i) {
      if (conversation.messages[i].role == Role::kUser) {
        last_user_ = i;
      }
    }
  }

  // `training`: the last message's calls lose their ids.
  Result<EncodedSample> Run(bool training) {
    sample_.tokens.push_back(tokenizer_.bos());
    sample_.mask.push_back(0);
    const auto& messages = conversation_.messages;
    for (size_t i = 0; i < messages.size(); ++i) {
      const bool last = i + 1 == messages.size();
      MFT_RETURN_IF_ERROR(Message(i, !(training && last)).WithContext(StrCat("message ", i)));
      const bool trains = messages[i].role == Role::kAssistant && messages[i].train &&
                          (last || !conversation_.only_last);
      sample_.mask.resize(sample_.tokens.size(), trains ? 1 : 0);
    }
    return std::move(sample_);
  }

 private:
  Status Message(size_t index, bool keep_ids) {
    const ChatMessage& message = conversation_.messages[index];
    switch (message.role) {
      case Role::kSystem:
        return Internal("a system message outside Conversation::system_prompt");
      case Role::kUser:
        return User(message, index == last_user_);
      case Role::kTool:
        return ToolResult(message);
      case Role::kAssistant:
        return Assistant(message, keep_ids);
    }
    return Internal("unknown role");
  }

  void Bracketed(int32_t begin, std::string_view text, int32_t end) {
    sample_.tokens.push_back(begin);
    tokenizer_.Encode(text, sample_.tokens);
    sample_.tokens.push_back(end);
  }

  Status User(const ChatMessage& message, bool last_user) {
    if (last_user && !conversation_.tools.empty()) {
      MFT_ASSIGN_OR_RETURN(const std::string tools, ToolsJson());
      Bracketed(control_.begin_tools, tools, control_.end_tools);
    }
    const bool with_system =
        last_user && conversation_.system_prompt && !conversation_.system_prompt->empty();
    Bracketed(control_.begin_inst,
              with_system ? StrCat(*conversation_.system_prompt, "\n\n", message.content)
                          : message.content,
              control_.end_inst);
    return Status::Ok();
  }

  Result<std::string> ToolsJson() const {
    PyJson list = PyJson::List();
    for (const ToolDefinition& tool : conversation_.tools) {
      MFT_ASSIGN_OR_RETURN(PyJsonParsed parameters, ParsePyJson(tool.parameters));
      PyJson function = PyJson::Object();
      function.Add("name", PyJson::String(tool.name));
      function.Add("description", PyJson::String(tool.description));
      function.Add("parameters", std::move(parameters.value));
      PyJson entry = PyJson::Object();
      entry.Add("type", PyJson::String("function"));
      entry.Add("function", std::move(function));
      list.items.push_back(std::move(entry));
    }
    return DumpPyJson(list);
  }

  Status ToolResult(const ChatMessage& message) {
    MFT_ASSIGN_OR_RETURN(PyJson content, JsonOrText(message.content));
    PyJson result = PyJson::Object();
    result.Add("content", std::move(content));
    result.Add("call_id", PyJson::String(message.tool_call_id));
    Bracketed(control_.begin_results, DumpPyJson(result), control_.end_results);
    return Status::Ok();
  }

  Status Assistant(const ChatMessage& message, bool keep_ids) {
    if (message.tool_calls.empty()) {
      std::string_view text = message.content;
      text = text.substr(0, text.find_last_not_of(' ') + 1);
      tokenizer_.Encode(text, sample_.tokens);
      sample_.tokens.push_back(tokenizer_.eos());
      return Status::Ok();
    }
    PyJson calls = PyJson::List();
    for (const ToolCall& call : message.tool_calls) {
      MFT_ASSIGN_OR_RETURN(PyJson arguments, JsonOrText(call.arguments));
      PyJson entry = PyJson::Object();
      entry.Add("name", PyJson::String(call.name));
      entry.Add("arguments", std::move(arguments));
      if (keep_ids && !call.id.empty() && call.id != "null") {
        entry.Add("id", PyJson::String(call.id));
      }
      calls.items.push_back(std::move(entry));
    }
    Bracketed(control_.tool_calls, DumpPyJson(calls), tokenizer_.eos());
    return Status::Ok();
  }

  const Tokenizer& tokenizer_;
  const ControlTokens& control_;
  const Conversation& conversation_;
  size_t last_user_ = static_cast<size_t>(-1);
  EncodedSample sample_;
};

Status CheckVersion(const Tokenizer& tokenizer) {
  if (tokenizer.version() != TokenizerVersion::kV3) {
    return Unimplemented(StrCat(tokenizer.path(),
                                ": conversations for tokenizer version ",
                                TokenizerVersionName(tokenizer.version()),
                                " cannot be encoded by this version; it encodes for v3"));
  }
  return Status::Ok();
}
}  // namespace

Result<EncodedSample> EncodeConversation(const Tokenizer& tokenizer,
                                         const Conversation& conversation) {
  MFT_RETURN_IF_ERROR(CheckVersion(tokenizer));
  MFT_ASSIGN_OR_RETURN(const ControlTokens control, ControlTokens::Of(tokenizer));
  return Encoder(tokenizer, control, conversation).Run(true);
}

Result<std::vector<int32_t>> EncodePrompt(const Tokenizer& tokenizer,
                                          const Conversation& conversation) {
  MFT_RETURN_IF_ERROR(CheckVersion(tokenizer));
  if (conversation.messages.empty() || conversation.messages.back().role == Role::kAssistant) {
    return InvalidArgument("a prompt must end with a message of the user or a tool");
  }
  MFT_ASSIGN_OR_RETURN(const ControlTokens control, ControlTokens::Of(tokenizer));
  MFT_ASSIGN_OR_RETURN(EncodedSample sample, Encoder(tokenizer, control, conversation).Run(false));
  return std::move(sample.tokens);
}

EncodedSample EncodeText(const Tokenizer& tokenizer, std::string_view text) {
  EncodedSample sample;
  sample.tokens.push_back(tokenizer.bos());
  tokenizer.Encode(text, sample.tokens);
  sample.tokens.push_back(tokenizer.eos());
  sample.mask.assign(sample.tokens.size(), 1);
  return sample;
}

}  // namespace mft
