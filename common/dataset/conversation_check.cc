// SPDX-License-Identifier: Apache-2.0
// mistral-common's V3 request validator in finetuning mode (finetune-spec 2.5, step 8;
// formats.md 2.2): structure first, then content, then tools; the first failure counts. Messages
// are counted without the system message.
#include <algorithm>

#include "common/dataset/sample_fields.h"

namespace mft::samples {

namespace {
bool IsWordCharacter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

bool IsCallId(std::string_view id) {
  return id.size() == 9 && std::all_of(id.begin(), id.end(), IsWordCharacter);
}

bool IsFunctionName(std::string_view name) {
  return !name.empty() && name.size() <= 64 && std::all_of(name.begin(), name.end(), [](char c) {
    return IsWordCharacter(c) || c == '_' || c == '-';
  });
}

Status CheckFunctionName(std::string_view name,
                         std::string_view error_class,
                         const std::string& place) {
  if (!IsFunctionName(name)) {
    return Problem(
        error_class,
        StrCat(place,
               ": function name \"",
               Printable(name, 80),
               "\" must be a-z, A-Z, 0-9, underscores and dashes, at most 64 characters"));
  }
  return Status::Ok();
}

Status CheckCallId(std::string_view id, std::string_view error_class, const std::string& place) {
  if (!IsCallId(id)) {
    return Problem(error_class,
                   StrCat(place,
                          ": tool call id \"",
                          Printable(id, 80),
                          "\" must be 9 characters of a-z, A-Z, 0-9"));
  }
  return Status::Ok();
}

Status CheckCall(const ToolCall& call, bool last_message, const std::string& place) {
  if (call.id != "null") {
    MFT_RETURN_IF_ERROR(CheckCallId(call.id, "InvalidFunctionCallException", place));
  } else if (!last_message) {
    return Problem("InvalidFunctionCallException",
                   StrCat(place, ": only calls of the last message may have the id \"null\""));
  }
  return CheckFunctionName(call.name, "InvalidFunctionCallException", place);
}

std::string Place(size_t index) {
  return StrCat("message ", index + 1);
}

Status CheckCalls(const std::vector<ChatMessage>& messages, size_t index) {
  for (const ToolCall& call : messages[index].tool_calls) {
    MFT_RETURN_IF_ERROR(CheckCall(call, index + 1 == messages.size(), Place(index)));
  }
  return Status::Ok();
}

Status CheckEnds(const std::vector<ChatMessage>& messages) {
  constexpr std::string_view kClass = "InvalidMessageStructureException";
  if (messages.empty()) {
    return Problem(
        kClass,
        "the conversation has no message besides the system prompt; it needs one of the user "
        "and one of the assistant");
  }
  const Role last = messages.back().role;
  if (messages.size() == 1 && last != Role::kUser) {
    return Problem(kClass,
                   StrCat("the conversation's only message is of the ",
                          RoleName(last),
                          "; it must start with a user message"));
  }
  if (last != Role::kAssistant) {
    return Problem(
        kClass,
        StrCat("the last message must be of the assistant, which is what is trained; it is of the ",
               RoleName(last)));
  }
  return CheckCalls(messages, messages.size() - 1);
}

bool MayFollow(Role previous, Role current) {
  switch (previous) {
    case Role::kSystem:
    case Role::kUser:
      return current == Role::kAssistant || current == Role::kUser;
    case Role::kAssistant:
      return current != Role::kSystem;
    case Role::kTool:
      return current == Role::kAssistant || current == Role::kTool;
  }
  return false;
}

Status CheckOrder(const std::vector<ChatMessage>& messages) {
  for (size_t i = 1; i < messages.size(); ++i) {
    if (!MayFollow(messages[i - 1].role, messages[i].role)) {
      return Problem("InvalidMessageStructureException",
                     StrCat(Place(i),
                            ": unexpected role '",
                            RoleName(messages[i].role),
                            "' after role '",
                            RoleName(messages[i - 1].role),
                            "'; ",
                            messages[i - 1].role == Role::kTool
                                ? "a tool result is followed by another or by the assistant"
                                : "a tool result follows the assistant's call"));
    }
  }
  return Status::Ok();
}

// Every call is answered before the assistant speaks again; calls of the last message may stay
// open. As in the reference the first message's calls are not counted.
Status CheckResults(const std::vector<ChatMessage>& messages) {
  int64_t open = 0;
  for (size_t i = 1; i < messages.size(); ++i) {
    if (messages[i].role == Role::kTool) {
      --open;
    } else if (messages[i].role == Role::kAssistant) {
      if (open != 0) {
        return Problem("InvalidMessageStructureException",
                       StrCat(Place(i),
                              ": not the same number of tool calls and results before it: ",
                              open > 0 ? open : -open,
                              open > 0 ? " without a result; add a tool message for each call"
                                       : " results too many; remove them"));
      }
      open = static_cast<int64_t>(messages[i].tool_calls.size());
    }
  }
  if (open < 0) {
    return Problem("InvalidMessageStructureException",
                   "more tool results than tool calls at the end; remove those without a call");
  }
  return Status::Ok();
}

Status CheckAssistant(const ParsedConversation& parsed, size_t index) {
  const auto& messages = parsed.conversation.messages;
  const ChatMessage& message = messages[index];
  if (message.content.empty() == message.tool_calls.empty()) {
    return Problem("InvalidAssistantMessageException",
                   StrCat(Place(index),
                          ": an assistant message must have either text or tool calls, ",
                          message.content.empty() ? "it has neither" : "it has both"));
  }
  if (parsed.weights[index] != 0 && parsed.weights[index] != 1) {
    return Problem("InvalidAssistantMessageException",
                   StrCat(Place(index), ": weight must be 0 or 1, not ", parsed.weights[index]));
  }
  return CheckCalls(messages, index);
}

Status CheckContent(const ParsedConversation& parsed) {
  const auto& messages = parsed.conversation.messages;
  for (size_t i = 0; i < messages.size(); ++i) {
    if (messages[i].role == Role::kAssistant) {
      MFT_RETURN_IF_ERROR(CheckAssistant(parsed, i));
    } else if (messages[i].role == Role::kTool) {
      if (!messages[i].name.empty()) {
        MFT_RETURN_IF_ERROR(
            CheckFunctionName(messages[i].name, "InvalidToolMessageException", Place(i)));
      }
      MFT_RETURN_IF_ERROR(
          CheckCallId(messages[i].tool_call_id, "InvalidToolMessageException", Place(i)));
    }
  }
  return Status::Ok();
}
}  // namespace

Status CheckConversation(const ParsedConversation& parsed) {
  const auto& messages = parsed.conversation.messages;
  MFT_RETURN_IF_ERROR(CheckEnds(messages));
  MFT_RETURN_IF_ERROR(CheckOrder(messages));
  MFT_RETURN_IF_ERROR(CheckResults(messages));
  MFT_RETURN_IF_ERROR(CheckContent(parsed));
  for (size_t i = 0; i < parsed.conversation.tools.size(); ++i) {
    const ToolDefinition& tool = parsed.conversation.tools[i];
    const std::string place = StrCat("tool ", i + 1);
    MFT_ASSIGN_OR_RETURN(const PyJsonParsed parameters, ParsePyJson(tool.parameters));
    const Status schema = CheckJsonSchema(parameters.value);
    if (!schema.ok()) {
      return Problem(
          "InvalidToolSchemaException",
          StrCat(
              place, " (", Printable(tool.name, 64), "): invalid tool schema: ", schema.message()));
    }
    MFT_RETURN_IF_ERROR(CheckFunctionName(tool.name, "InvalidToolException", place));
  }
  return Status::Ok();
}

}  // namespace mft::samples
