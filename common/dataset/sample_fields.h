// SPDX-License-Identifier: Apache-2.0
// Shared by the files that parse and check samples.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/base/status.h"
#include "common/base/strings.h"
#include "common/tokenizer/chat.h"
#include "common/tokenizer/python_json.h"

namespace mft::samples {

inline constexpr size_t kQuotedBytes = 80;

// An error of the reference's class `name`.
inline Status Problem(std::string_view name, std::string message) {
  return {Code::kInvalidArgument, std::string(name), std::move(message)};
}

// The value as JSON, cut, for messages.
inline std::string Quote(const PyJson& value) {
  return Printable(DumpPyJson(value), kQuotedBytes);
}

// The member, or nullptr where it is missing or null.
inline const PyJson* NotNull(const PyJson& object, std::string_view key) {
  const PyJson* member = object.Find(key);
  return member == nullptr || member->is(PyJson::Kind::kNull) ? nullptr : member;
}

inline Status ExpectString(const PyJson& value, const std::string& path) {
  if (!value.is(PyJson::Kind::kString)) {
    return Problem("ValidationError",
                   StrCat(path, ": must be a string, not ", PyTypeName(value), " ", Quote(value)));
  }
  return Status::Ok();
}

std::string_view RoleName(Role role);

// conversation_parser.cc: steps 1 to 7 of finetune-spec 2.5. Keeps weights in `weights`, one a
// message (1 where there is none).
struct ParsedConversation {
  Conversation conversation;
  std::vector<double> weights;
};
Result<ParsedConversation> ParseConversation(const PyJson& object);

// conversation_check.cc: step 8, mistral-common's V3 request validator in finetuning mode.
Status CheckConversation(const ParsedConversation& parsed);

// json_schema.cc: whether `schema` is a JSON Schema (draft 7). The message says what is wrong.
Status CheckJsonSchema(const PyJson& schema);

}  // namespace mft::samples
