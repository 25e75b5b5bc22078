// SPDX-License-Identifier: Apache-2.0
// The shape of a conversation: keys, types and aliases, in the reference's order of checks
// (finetune-spec 2.5, 1 to 7).
#include <array>
#include <cstdlib>

#include "common/dataset/sample_fields.h"

namespace mft::samples {

namespace {
std::string Keys(const PyJson& object) {
  std::string keys;
  for (const PyJson::Member& member : object.members) {
    keys += StrCat(keys.empty() ? "" : ", ", Printable(member.first, 40));
  }
  return Printable(keys, 200);
}

Result<std::string> StringMember(const PyJson& object,
                                 std::string_view key,
                                 const std::string& path) {
  const PyJson* member = object.Find(key);
  MFT_RETURN_IF_ERROR(ExpectString(member == nullptr ? PyJson() : *member, StrCat(path, ".", key)));
  return member->text;
}

Result<ToolDefinition> ParseTool(const PyJson& tool, const std::string& path) {
  const PyJson* function = tool.Find("function");
  if (function == nullptr) {
    return Problem("FunctionFormatError",
                   StrCat(path, ": a tool needs the key 'function'; it is ", Quote(tool)));
  }
  const std::string function_path = path + ".function";
  for (const char* key : {"name", "description", "parameters"}) {
    if (function->Find(key) == nullptr) {
      return Problem(
          "FunctionFormatError",
          StrCat(
              function_path, ": a function needs the key '", key, "'; it is ", Quote(*function)));
    }
  }
  const PyJson& parameters = *function->Find("parameters");
  if (!parameters.is(PyJson::Kind::kObject)) {
    return Problem("FunctionFormatError",
                   StrCat(function_path,
                          ".parameters: must be an object ({} for none), not ",
                          Quote(parameters)));
  }
  ToolDefinition definition;
  MFT_ASSIGN_OR_RETURN(definition.name, StringMember(*function, "name", function_path));
  MFT_ASSIGN_OR_RETURN(definition.description,
                       StringMember(*function, "description", function_path));
  definition.parameters = DumpPyJson(parameters);
  return definition;
}

Status ParseTools(const PyJson& object, Conversation& conversation) {
  const PyJson* available = object.Find("available_tools");
  const PyJson* tools = object.Find("tools");
  if (available != nullptr && tools != nullptr) {
    return Problem("ConversationFormatError", "has both 'tools' and 'available_tools'; keep one");
  }
  const bool is_available = available != nullptr;
  const PyJson* list = NotNull(object, is_available ? "available_tools" : "tools");
  if (list == nullptr) {
    return Status::Ok();
  }
  const std::string key = is_available ? "available_tools" : "tools";
  if (!list->is(PyJson::Kind::kList)) {
    return Problem("FunctionFormatError",
                   StrCat(key, ": must be a list of tools, not ", Quote(*list)));
  }
  for (size_t i = 0; i < list->items.size(); ++i) {
    MFT_ASSIGN_OR_RETURN(ToolDefinition tool, ParseTool(list->items[i], StrCat(key, "[", i, "]")));
    conversation.tools.push_back(std::move(tool));
  }
  // As the reference: an empty "available_tools" trains the last message only, an empty "tools"
  // does not.
  conversation.only_last |= is_available || !conversation.tools.empty();
  return Status::Ok();
}

Result<ToolCall> ParseCall(const PyJson& call, const std::string& path) {
  for (const char* key : {"id", "function"}) {
    if (call.Find(key) == nullptr) {
      return Problem("ToolCallFormatError",
                     StrCat(path, ": a tool call needs the key '", key, "'; it is ", Quote(call)));
    }
  }
  const PyJson& function = *call.Find("function");
  for (const char* key : {"name", "arguments"}) {
    if (function.Find(key) == nullptr) {
      return Problem("ToolCallFormatError",
                     StrCat(path, ".function: needs the key '", key, "'; it is ", Quote(function)));
    }
  }
  if (!function.Find("arguments")->is(PyJson::Kind::kString)) {
    return Problem("ToolCallFormatError",
                   StrCat(path,
                          ".function.arguments: must be a string that holds JSON, not ",
                          PyTypeName(*function.Find("arguments")),
                          " ",
                          Quote(*function.Find("arguments"))));
  }
  ToolCall parsed;
  parsed.arguments = function.Find("arguments")->text;
  MFT_ASSIGN_OR_RETURN(parsed.id, StringMember(call, "id", path));
  MFT_ASSIGN_OR_RETURN(parsed.name, StringMember(function, "name", path + ".function"));
  return parsed;
}

// pydantic's reading of a float: numbers, booleans and numbers in strings.
Result<double> ParseWeight(const PyJson& message, const std::string& path) {
  const PyJson* weight = NotNull(message, "weight");
  if (weight == nullptr) {
    return 1.0;
  }
  if (weight->is(PyJson::Kind::kBool)) {
    return weight->boolean ? 1.0 : 0.0;
  }
  const bool textual = weight->is(PyJson::Kind::kInt) || weight->is(PyJson::Kind::kFloat) ||
                       weight->is(PyJson::Kind::kString);
  const std::string text(textual ? Trim(weight->text) : "");
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (text.empty() || *end != '\0') {
    return Problem("ValidationError",
                   StrCat(path, ".weight: must be 0 or 1, not ", Quote(*weight)));
  }
  return value;
}

struct RoleEntry {
  std::string_view name;
  Role role;
};
constexpr std::array kRoles = {RoleEntry{"system", Role::kSystem},
                               RoleEntry{"user", Role::kUser},
                               RoleEntry{"assistant", Role::kAssistant},
                               RoleEntry{"tool", Role::kTool}};

class MessageParser {
 public:
  MessageParser(const PyJson& json, std::string path) : json_(json), path_(std::move(path)) {}

  // Adds the message, or takes a system message's text, to `out`.
  Status Run(ParsedConversation& out) {
    MFT_RETURN_IF_ERROR(CheckKeys());
    switch (role_) {
      case Role::kSystem:
        return System(out.conversation);
      case Role::kAssistant:
        return Assistant(out);
      case Role::kUser:
      case Role::kTool:
        return UserOrTool(out);
    }
    return Internal("unknown role");
  }

 private:
  Status CheckKeys() {
    if (!json_.is(PyJson::Kind::kObject)) {
      return Problem("MessageFormatError",
                     StrCat(path_, ": a message must be an object, not ", Quote(json_)));
    }
    const PyJson* role = json_.Find("role");
    if (role == nullptr) {
      return Problem("MessageFormatError",
                     StrCat(path_, ": a message needs the key 'role'; it has only ", Keys(json_)));
    }
    const std::string shown =
        role->is(PyJson::Kind::kString) ? Printable(role->text, 40) : Quote(*role);
    if (json_.Find("content") != nullptr && json_.Find("text") != nullptr) {
      return Problem(
          "MessageFormatError",
          StrCat(path_, ": this ", shown, " message has both 'content' and 'text'; keep one"));
    }
    text_ =
        NotNull(json_, "content") != nullptr ? NotNull(json_, "content") : NotNull(json_, "text");
    if (text_ == nullptr && NotNull(json_, "tool_calls") == nullptr) {
      return Problem("MessageFormatError",
                     StrCat(path_,
                            ": this ",
                            shown,
                            " message needs 'content' or 'text'; it has only ",
                            Keys(json_)));
    }
    for (const RoleEntry& entry : kRoles) {
      if (role->is(PyJson::Kind::kString) && role->text == entry.name) {
        role_ = entry.role;
        return Status::Ok();
      }
    }
    return Problem("UnrecognizedRoleError",
                   StrCat(path_, ".role: ", shown, " is not one of system, user, assistant, tool"));
  }

  Status RequireText() {
    if (text_ == nullptr) {
      return Problem("AssertionError",
                     StrCat(path_,
                            ": this ",
                            RoleName(role_),
                            " message has no text; tool calls belong to the assistant"));
    }
    return ExpectString(*text_, path_ + (json_.Find("content") != nullptr ? ".content" : ".text"));
  }

  Status System(Conversation& conversation) {
    if (conversation.system_prompt) {
      return Problem("MessageFormatError",
                     StrCat(path_, ": a second system prompt; only one is allowed"));
    }
    MFT_RETURN_IF_ERROR(RequireText());
    conversation.system_prompt = text_->text;
    return Status::Ok();
  }

  Status UserOrTool(ParsedConversation& out) {
    ChatMessage message{.role = role_};
    const PyJson* id = json_.Find("tool_call_id");
    if (role_ == Role::kTool && id == nullptr) {
      return Problem(
          "MessageFormatError",
          StrCat(
              path_, ": a tool message needs the key 'tool_call_id'; it has only ", Keys(json_)));
    }
    MFT_RETURN_IF_ERROR(RequireText());
    message.content = text_->text;
    if (role_ == Role::kTool) {
      if (id->is(PyJson::Kind::kNull)) {
        return Problem("InvalidRequestException",
                       StrCat(path_, ".tool_call_id: must be the id of the call, not null"));
      }
      MFT_RETURN_IF_ERROR(ExpectString(*id, path_ + ".tool_call_id"));
      message.tool_call_id = id->text;
      MFT_RETURN_IF_ERROR(ToolName(message));
    }
    out.conversation.messages.push_back(std::move(message));
    out.weights.push_back(1);
    return Status::Ok();
  }

  // An empty name is refused by the checks that follow; none is "".
  Status ToolName(ChatMessage& message) {
    const PyJson* name = NotNull(json_, "name");
    if (name == nullptr) {
      return Status::Ok();
    }
    MFT_RETURN_IF_ERROR(ExpectString(*name, path_ + ".name"));
    if (name->text.empty()) {
      return Problem("InvalidToolMessageException",
                     StrCat(path_, ".name: is empty; leave it out or name the function"));
    }
    message.name = name->text;
    return Status::Ok();
  }

  Status Assistant(ParsedConversation& out) {
    ChatMessage message{.role = Role::kAssistant};
    const PyJson* calls = NotNull(json_, "tool_calls");
    if (calls != nullptr && !calls->is(PyJson::Kind::kList)) {
      return Problem("ToolCallFormatError",
                     StrCat(path_, ".tool_calls: must be a list of calls, not ", Quote(*calls)));
    }
    for (size_t i = 0; calls != nullptr && i < calls->items.size(); ++i) {
      MFT_ASSIGN_OR_RETURN(ToolCall call,
                           ParseCall(calls->items[i], StrCat(path_, ".tool_calls[", i, "]")));
      message.tool_calls.push_back(std::move(call));
    }
    if (text_ != nullptr) {
      MFT_RETURN_IF_ERROR(RequireText());
      message.content = text_->text;
    }
    MFT_ASSIGN_OR_RETURN(const double weight, ParseWeight(json_, path_));
    out.conversation.messages.push_back(std::move(message));
    out.weights.push_back(weight);
    return Status::Ok();
  }

  const PyJson& json_;
  std::string path_;
  const PyJson* text_ = nullptr;
  Role role_ = Role::kUser;
};

Result<const PyJson*> MessageList(const PyJson& object, std::string& key) {
  const PyJson* messages = object.Find("messages");
  const PyJson* interactions = object.Find("interactions");
  if (messages == nullptr && interactions == nullptr) {
    return Problem(
        "ConversationFormatError",
        StrCat("a conversation needs the key 'messages' (or 'interactions'); it has only ",
               Keys(object)));
  }
  if (messages != nullptr && interactions != nullptr) {
    return Problem("ConversationFormatError", "has both 'messages' and 'interactions'; keep one");
  }
  key = messages != nullptr ? "messages" : "interactions";
  return messages != nullptr ? messages : interactions;
}

Status ParseOnlyLast(const PyJson& object, Conversation& conversation) {
  const PyJson* only_last = NotNull(object, "only_last");
  if (only_last != nullptr && only_last->is(PyJson::Kind::kString)) {
    return Problem("ValidationError",
                   StrCat("only_last: must be true or false, not the string ", Quote(*only_last)));
  }
  conversation.only_last = only_last != nullptr && only_last->Truthy();
  return Status::Ok();
}
}  // namespace

std::string_view RoleName(Role role) {
  for (const RoleEntry& entry : kRoles) {
    if (entry.role == role) {
      return entry.name;
    }
  }
  return "?";
}

Result<ParsedConversation> ParseConversation(const PyJson& object) {
  ParsedConversation parsed;
  std::string key;
  MFT_ASSIGN_OR_RETURN(const PyJson* messages, MessageList(object, key));
  MFT_RETURN_IF_ERROR(ParseOnlyLast(object, parsed.conversation));
  MFT_RETURN_IF_ERROR(ParseTools(object, parsed.conversation));
  if (!messages->is(PyJson::Kind::kList)) {
    return Problem("AssertionError",
                   StrCat(key, ": must be a list of messages, not ", Quote(*messages)));
  }
  const PyJson* system_prompt = NotNull(object, "system_prompt");
  if (system_prompt != nullptr) {
    MFT_RETURN_IF_ERROR(ExpectString(*system_prompt, "system_prompt"));
    parsed.conversation.system_prompt = system_prompt->text;
  }
  if (const PyJson* effort = NotNull(object, "reasoning_effort")) {
    MFT_RETURN_IF_ERROR(ExpectString(*effort, "reasoning_effort"));
    parsed.conversation.reasoning_effort = effort->text;
  }
  for (size_t i = 0; i < messages->items.size(); ++i) {
    MFT_RETURN_IF_ERROR(MessageParser(messages->items[i], StrCat(key, "[", i, "]")).Run(parsed));
  }
  return parsed;
}

}  // namespace mft::samples
