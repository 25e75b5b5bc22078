// SPDX-License-Identifier: Apache-2.0
#include "common/tokenizer/chat.h"

#include "common/base/strings.h"
#include "common/tokenizer/chat_json.h"
#include "common/tokenizer/chat_rules.h"

namespace mft {

namespace {
constexpr size_t kNoMessage = static_cast<size_t>(-1);

Status TokenizerException(std::string message) {
  return {Code::kInvalidArgument, "TokenizerException", std::move(message)};
}

bool HasSystem(const Conversation& conversation) {
  return conversation.system_prompt.has_value() && !conversation.system_prompt->empty();
}

// The tokens of one conversation, by the rules of the tokenizer's version.
class Encoder {
 public:
  Encoder(const Tokenizer& tokenizer, const Conversation& conversation)
      : tokenizer_(tokenizer), rules_(RulesOf(tokenizer.version())), conversation_(conversation) {
    for (size_t i = 0; i < conversation.messages.size(); ++i) {
      if (conversation.messages[i].role == Role::kUser) {
        first_user_ = first_user_ == kNoMessage ? i : first_user_;
        last_user_ = i;
      }
    }
  }

  // `training`: the last message's calls lose their ids.
  Result<EncodedSample> Run(bool training) {
    sample_.tokens.push_back(tokenizer_.bos());
    if (rules_.system == SystemPlace::kMessage && conversation_.system_prompt) {
      MFT_RETURN_IF_ERROR(
          Bracketed("[SYSTEM_PROMPT]", *conversation_.system_prompt, "[/SYSTEM_PROMPT]"));
    }
    sample_.mask.assign(sample_.tokens.size(), 0);
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
    const bool forgotten = rules_.forgets_tools && last_user_ != kNoMessage && index < last_user_;
    switch (message.role) {
      case Role::kSystem:
        return Internal("a system message outside Conversation::system_prompt");
      case Role::kUser:
        return User(message, index);
      case Role::kTool:
        return forgotten ? Status::Ok() : ToolResult(message);
      case Role::kAssistant:
        return forgotten && !message.tool_calls.empty() ? Status::Ok()
                                                        : Assistant(message, keep_ids);
    }
    return Internal("unknown role");
  }

  Status Control(std::string_view name) {
    MFT_ASSIGN_OR_RETURN(const int32_t id, tokenizer_.SpecialToken(name));
    sample_.tokens.push_back(id);
    return Status::Ok();
  }

  void Text(std::string_view text) { tokenizer_.Encode(text, sample_.tokens); }

  Status Bracketed(std::string_view begin, std::string_view text, std::string_view end) {
    MFT_RETURN_IF_ERROR(Control(begin));
    Text(text);
    return Control(end);
  }

  Status User(const ChatMessage& message, size_t index) {
    const size_t tools_at = rules_.tools == ToolsPlace::kFirstUser ? first_user_ : last_user_;
    if (rules_.tools != ToolsPlace::kNowhere && index == tools_at && !conversation_.tools.empty()) {
      MFT_ASSIGN_OR_RETURN(const std::string tools, ToolsJson(conversation_.tools));
      MFT_RETURN_IF_ERROR(Bracketed("[AVAILABLE_TOOLS]", tools, "[/AVAILABLE_TOOLS]"));
    }
    if (rules_.settings && index == first_user_) {
      MFT_RETURN_IF_ERROR(Settings());
    }
    const size_t system_at = rules_.system == SystemPlace::kFirstUser  ? first_user_
                             : rules_.system == SystemPlace::kLastUser ? last_user_
                                                                       : kNoMessage;
    const std::string text = index == system_at && HasSystem(conversation_)
                                 ? StrCat(*conversation_.system_prompt, "\n\n", message.content)
                                 : message.content;
    if (!rules_.control_tokens) {
      Text(StrCat("[INST] ", text, " [/INST]"));
      return Status::Ok();
    }
    return Bracketed("[INST]", text, "[/INST]");
  }

  Status Settings() {
    MFT_ASSIGN_OR_RETURN(const std::string settings,
                         SettingsJson(tokenizer_.model_settings(), conversation_.reasoning_effort));
    return settings.empty() ? Status::Ok()
                            : Bracketed("[MODEL_SETTINGS]", settings, "[/MODEL_SETTINGS]");
  }

  Status ToolResult(const ChatMessage& message) {
    std::string json;
    switch (rules_.results) {
      case ResultForm::kNone:
        return NoTools();
      case ResultForm::kNamedList: {
        MFT_ASSIGN_OR_RETURN(json, NamedResultJson(message));
        return Bracketed("[TOOL_RESULTS]", json, "[/TOOL_RESULTS]");
      }
      case ResultForm::kContentAndId: {
        MFT_ASSIGN_OR_RETURN(json, ResultJson(message));
        return Bracketed("[TOOL_RESULTS]", json, "[/TOOL_RESULTS]");
      }
      case ResultForm::kIdAndContent:
        MFT_RETURN_IF_ERROR(Control("[TOOL_RESULTS]"));
        Text(message.tool_call_id);
        return Bracketed("[TOOL_CONTENT]", message.content, "[/TOOL_RESULTS]");
      case ResultForm::kContent:
        return Bracketed("[TOOL_RESULTS]", message.content, "[/TOOL_RESULTS]");
    }
    return Internal("unknown form of results");
  }

  Status Assistant(const ChatMessage& message, bool keep_ids) {
    const bool calls = !message.tool_calls.empty();
    if (rules_.content_beside_calls && !calls && message.content.empty()) {
      return TokenizerException("an assistant's message must have content or tool calls");
    }
    if (!calls || rules_.content_beside_calls) {
      std::string_view text = message.content;
      Text(rules_.strips_spaces ? text.substr(0, text.find_last_not_of(' ') + 1) : text);
    }
    if (calls) {
      MFT_RETURN_IF_ERROR(Calls(message.tool_calls, keep_ids));
    }
    sample_.tokens.push_back(tokenizer_.eos());
    return Status::Ok();
  }

  Status Calls(const std::vector<ToolCall>& calls, bool keep_ids) {
    switch (rules_.calls) {
      case CallForm::kNone:
        return NoTools();
      case CallForm::kList:
      case CallForm::kListWithId: {
        const bool with_ids = keep_ids && rules_.calls == CallForm::kListWithId;
        MFT_ASSIGN_OR_RETURN(const std::string json, CallsJson(calls, with_ids));
        MFT_RETURN_IF_ERROR(Control("[TOOL_CALLS]"));
        Text(json);
        return Status::Ok();
      }
      case CallForm::kNamed:
      case CallForm::kNamedNoId:
        for (const ToolCall& call : calls) {
          MFT_RETURN_IF_ERROR(NamedCall(call, keep_ids && rules_.calls == CallForm::kNamed));
        }
        return Status::Ok();
    }
    return Internal("unknown form of calls");
  }

  Status NamedCall(const ToolCall& call, bool with_id) {
    MFT_ASSIGN_OR_RETURN(const PyJson arguments, JsonOrText(call.arguments));
    MFT_RETURN_IF_ERROR(Control("[TOOL_CALLS]"));
    Text(call.name);
    if (with_id && HasId(call)) {
      MFT_RETURN_IF_ERROR(Control("[CALL_ID]"));
      Text(call.id);
    }
    MFT_RETURN_IF_ERROR(Control("[ARGS]"));
    Text(DumpPyJson(arguments));
    return Status::Ok();
  }

  Status NoTools() const {
    return TokenizerException(StrCat(TokenizerVersionName(tokenizer_.version()),
                                     " has no form for tool calls and results"));
  }

  const Tokenizer& tokenizer_;
  const ChatRules rules_;
  const Conversation& conversation_;
  size_t first_user_ = kNoMessage;
  size_t last_user_ = kNoMessage;
  EncodedSample sample_;
};
}  // namespace

Result<EncodedSample> EncodeConversation(const Tokenizer& tokenizer,
                                         const Conversation& conversation) {
  return Encoder(tokenizer, conversation).Run(true);
}

Result<std::vector<int32_t>> EncodePrompt(const Tokenizer& tokenizer,
                                          const Conversation& conversation) {
  if (conversation.messages.empty() || conversation.messages.back().role == Role::kAssistant) {
    return InvalidArgument("a prompt must end with a message of the user or a tool");
  }
  MFT_ASSIGN_OR_RETURN(EncodedSample sample, Encoder(tokenizer, conversation).Run(false));
  return std::move(sample.tokens);
}

std::string LeftOut(const Tokenizer& tokenizer, const Conversation& conversation) {
  const ChatRules rules = RulesOf(tokenizer.version());
  const std::string_view version = TokenizerVersionName(tokenizer.version());
  bool has_user = false;
  for (const ChatMessage& message : conversation.messages) {
    has_user |= message.role == Role::kUser;
  }
  if (rules.system != SystemPlace::kMessage && HasSystem(conversation) && !has_user) {
    return StrCat("the system prompt is left out: ",
                  version,
                  " puts it into a message of the user, and there is none");
  }
  if (!conversation.tools.empty() && (rules.tools == ToolsPlace::kNowhere || !has_user)) {
    return rules.tools == ToolsPlace::kNowhere
               ? StrCat("the tools are left out: ", version, " has no form for them")
               : std::string(
                     "the tools are left out: they stand before a message of the user, and there "
                     "is none");
  }
  if (conversation.reasoning_effort && !rules.settings) {
    return StrCat("reasoning_effort is left out: ", version, " has no settings");
  }
  return "";
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
