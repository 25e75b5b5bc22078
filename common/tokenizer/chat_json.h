// SPDX-License-Identifier: Apache-2.0
// The JSON texts within instruct sequences, byte for byte as Python's json.dumps (formats.md 2.4).
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "common/base/json.h"
#include "common/base/status.h"
#include "common/tokenizer/chat.h"
#include "common/tokenizer/python_json.h"

namespace mft {

// What parses as JSON stands as such, anything else as a string; a value past the parser's limits
// is an error.
Result<PyJson> JsonOrText(const std::string& text);

// "" stands for none, as does "null".
bool HasId(const ToolCall& call);

Result<std::string> ToolsJson(const std::vector<ToolDefinition>& tools);
// `with_ids`: "id" of the calls that have one.
Result<std::string> CallsJson(const std::vector<ToolCall>& calls, bool with_ids);
Result<std::string> NamedResultJson(const ChatMessage& message);  // v2
Result<std::string> ResultJson(const ChatMessage& message);       // v3

// The settings that `builder` (Tokenizer::model_settings) makes of what was asked for; "" where
// there are none. INVALID_ARGUMENT names what is allowed.
Result<std::string> SettingsJson(const Json& builder, const std::optional<std::string>& reasoning);

}  // namespace mft
