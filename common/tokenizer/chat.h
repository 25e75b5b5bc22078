// SPDX-License-Identifier: Apache-2.0
// Conversations (after parsing and validation) to tokens and loss mask, per instruct version
// (formats.md 2, finetune-spec 2.6).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "common/tokenizer/tokenizer.h"

namespace mft {

enum class Role { kSystem, kUser, kAssistant, kTool };

struct ToolCall {
  std::string id;  // "" is none ("null")
  std::string name;
  std::string arguments;  // as given; parsed as JSON where it parses
};

struct ChatMessage {
  Role role = Role::kUser;
  std::string content;
  std::vector<ToolCall> tool_calls;
  std::string tool_call_id;
  std::string name;
  bool train = true;  // weight is not 0
};

struct ToolDefinition {
  std::string name;
  std::string description;
  std::string parameters;  // JSON text in Python's json.dumps form, key order kept
};

struct Conversation {
  std::optional<std::string> system_prompt;
  std::vector<ChatMessage> messages;  // without system messages
  std::vector<ToolDefinition> tools;
  bool only_last = false;
  std::optional<std::string> reasoning_effort;  // v15: a model setting
};

struct EncodedSample {
  std::vector<int32_t> tokens;
  std::vector<uint8_t> mask;  // 1: predicting this token carries loss
};

// Every instruct version encodes; what one has no form for is INVALID_ARGUMENT (reason
// TokenizerException): tools under v1, or an assistant's message without content and calls from v7.

// Training form: the last message is the assistant's; ids of its tool calls are left out.
Result<EncodedSample> EncodeConversation(const Tokenizer& tokenizer,
                                         const Conversation& conversation);

// Generation form: the tokens up to where the assistant answers; the last message is the user's or
// a tool's.
Result<std::vector<int32_t>> EncodePrompt(const Tokenizer& tokenizer,
                                          const Conversation& conversation);

// What this version silently leaves out of a conversation that it can encode ("" nothing): a system
// prompt without a message of the user, tools under v1, settings before v15.
std::string LeftOut(const Tokenizer& tokenizer, const Conversation& conversation);

// BOS text EOS, all of it with loss.
EncodedSample EncodeText(const Tokenizer& tokenizer, std::string_view text);

}  // namespace mft
