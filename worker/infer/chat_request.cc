// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <utility>

#include "common/base/ids.h"
#include "common/base/json.h"
#include "common/base/strings.h"
#include "worker/infer/commands.h"

namespace mft {

namespace {
constexpr int64_t kMaxMaxTokens = 1 << 20;
constexpr double kMaxTemperature = 100;

Result<double> Number(
    const Json& json, std::string_view key, double otherwise, double min, double max) {
  const auto member = json.find(key);
  if (member == json.end() || member->is_null()) {
    return otherwise;
  }
  const double value = member->is_number() ? member->get<double>() : std::nan("");
  if (!(value >= min && value <= max)) {
    return InvalidArgument(StrCat(key,
                                  " must be a number from ",
                                  min,
                                  " to ",
                                  max,
                                  ", not ",
                                  Printable(DumpJson(*member), 60)));
  }
  return value;
}

Result<std::string> OptionalText(const Json& json, std::string_view key) {
  const auto member = json.find(key);
  if (member == json.end() || member->is_null()) {
    return std::string();
  }
  return GetString(json, key);
}

Result<Role> ParseRole(const std::string& name) {
  if (name == "user") {
    return Role::kUser;
  }
  if (name == "assistant") {
    return Role::kAssistant;
  }
  return InvalidArgument(
      StrCat("role must be user, assistant or system, not \"", Printable(name, 60), "\""));
}

// A leading message of the role system is the system prompt.
Status AddMessage(const Json& json, size_t index, Conversation& conversation) {
  MFT_ASSIGN_OR_RETURN(const std::string role, GetString(json, "role"));
  MFT_ASSIGN_OR_RETURN(std::string content, GetString(json, "content"));
  if (!IsValidUtf8(content)) {
    return InvalidArgument("content is not UTF-8");
  }
  if (role == "system") {
    if (index != 0 || conversation.system_prompt.has_value()) {
      return InvalidArgument("a system message must be the first, and the only one");
    }
    conversation.system_prompt = std::move(content);
    return Status::Ok();
  }
  ChatMessage message;
  MFT_ASSIGN_OR_RETURN(message.role, ParseRole(role));
  message.content = std::move(content);
  conversation.messages.push_back(std::move(message));
  return Status::Ok();
}

uint64_t RandomSeed() {
  return std::stoull(RandomHex(8), nullptr, 16);
}
}  // namespace

Result<ChatRequest> ParseChatRequest(const Json& json, const GenerateArgs& args) {
  if (!json.is_object()) {
    return InvalidArgument("a request is a JSON object");
  }
  ChatRequest request;
  MFT_ASSIGN_OR_RETURN(const std::string system_prompt, OptionalText(json, "system_prompt"));
  if (!system_prompt.empty()) {
    request.conversation.system_prompt = system_prompt;
  }
  const auto messages = json.find("messages");
  if (messages == json.end() || !messages->is_array() || messages->empty()) {
    return InvalidArgument("messages must be a list with at least one message");
  }
  for (size_t i = 0; i < messages->size(); ++i) {
    const Json& message = (*messages)[i];
    const Status status = message.is_object() ? AddMessage(message, i, request.conversation)
                                              : InvalidArgument("must be an object");
    MFT_RETURN_IF_ERROR(status.WithContext(StrCat("messages[", i, "]")));
  }
  if (request.conversation.messages.empty() ||
      request.conversation.messages.back().role != Role::kUser) {
    return InvalidArgument("the last message must be the user's");
  }
  MFT_ASSIGN_OR_RETURN(
      const double max_tokens,
      Number(json, "max_tokens", static_cast<double>(args.max_tokens), 1, kMaxMaxTokens));
  request.max_tokens = static_cast<int64_t>(max_tokens);
  MFT_ASSIGN_OR_RETURN(request.sampling.temperature,
                       Number(json, "temperature", args.temperature, 0, kMaxTemperature));
  MFT_ASSIGN_OR_RETURN(request.sampling.top_p, Number(json, "top_p", args.top_p, 0, 1));
  const auto seed = json.find("seed");
  if (seed != json.end() && !seed->is_null()) {
    if (!seed->is_number_integer()) {
      return InvalidArgument("seed must be an integer");
    }
    request.sampling.seed = seed->get<uint64_t>();
  } else {
    request.sampling.seed = args.seed.has_value() ? *args.seed : RandomSeed();
  }
  return request;
}

}  // namespace mft
