// SPDX-License-Identifier: Apache-2.0
// How the instruct versions differ (formats.md 2.5), as one table.
#pragma once

#include <string_view>

#include "common/tokenizer/tokenizer.h"

namespace mft {

enum class SystemPlace {
  kFirstUser,  // before the text of the first message of the user
  kLastUser,   // of the last one
  kMessage     // [SYSTEM_PROMPT] text [/SYSTEM_PROMPT] after BOS
};

// Where [AVAILABLE_TOOLS] json [/AVAILABLE_TOOLS] stands.
enum class ToolsPlace { kNowhere, kLastUser, kFirstUser };

enum class CallForm {
  kNone,
  kList,        // [TOOL_CALLS] [{"name", "arguments"}]
  kListWithId,  // the same with "id"
  kNamed,       // [TOOL_CALLS] name [CALL_ID] id [ARGS] arguments, for each call
  kNamedNoId    // without [CALL_ID] id
};

enum class ResultForm {
  kNone,
  kNamedList,     // [TOOL_RESULTS] [{"name", "content"}] [/TOOL_RESULTS]
  kContentAndId,  // {"content", "call_id"}
  kIdAndContent,  // id [TOOL_CONTENT] content, as it is
  kContent        // content, as it is
};

struct ChatRules {
  bool control_tokens = true;  // false: [INST] and [/INST] are text, one segment with the message
  SystemPlace system = SystemPlace::kMessage;
  ToolsPlace tools = ToolsPlace::kLastUser;
  CallForm calls = CallForm::kNone;
  ResultForm results = ResultForm::kNone;
  bool forgets_tools = false;        // calls and results before the last user are left out
  bool strips_spaces = true;         // behind the assistant's text
  bool content_beside_calls = true;  // a message may have both, and must have one
  bool settings = false;             // [MODEL_SETTINGS] json [/MODEL_SETTINGS], first user
};

constexpr ChatRules RulesOf(TokenizerVersion version) {
  switch (version) {
    case TokenizerVersion::kV1:
      return {.control_tokens = false,
              .system = SystemPlace::kFirstUser,
              .tools = ToolsPlace::kNowhere,
              .strips_spaces = false,
              .content_beside_calls = false};
    case TokenizerVersion::kV2:
      return {.system = SystemPlace::kLastUser,
              .calls = CallForm::kList,
              .results = ResultForm::kNamedList,
              .forgets_tools = true,
              .content_beside_calls = false};
    case TokenizerVersion::kV3:
      return {.system = SystemPlace::kLastUser,
              .calls = CallForm::kListWithId,
              .results = ResultForm::kContentAndId,
              .content_beside_calls = false};
    case TokenizerVersion::kV7:
      return {.calls = CallForm::kListWithId, .results = ResultForm::kIdAndContent};
    case TokenizerVersion::kV11:
      return {.calls = CallForm::kNamed, .results = ResultForm::kIdAndContent};
    case TokenizerVersion::kV13:
    case TokenizerVersion::kV15:
      return {.tools = ToolsPlace::kFirstUser,
              .calls = CallForm::kNamedNoId,
              .results = ResultForm::kContent,
              .settings = version == TokenizerVersion::kV15};
  }
  return {};
}

}  // namespace mft
