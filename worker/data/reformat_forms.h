// SPDX-License-Identifier: Apache-2.0
// Shared by the files that convert one form each.
#pragma once

#include <string>
#include <string_view>

#include "worker/data/reformat.h"

namespace mft::data {

Result<Reformatted> FromMessages(const PyJson& sample, CallIds& ids);
// Glaive's and ShareGPT's: lists of {"from", "value"}.
Result<Reformatted> FromConversations(DataForm form, const PyJson& sample, CallIds& ids);
Result<Reformatted> FromPair(DataForm form, const PyJson& sample, CallIds& ids);

PyJson TextMessage(std::string_view role, std::string text);
// {"type": "function", "function": {"name", "description", "parameters"}}; what is missing or null
// of the last two is empty.
Result<PyJson> ToolOf(const PyJson& function);
// The member as a string, or "" where it is missing or null.
Result<std::string> TextOr(const PyJson& object, std::string_view key);
// A call's arguments as text: a string as it is, a value as JSON, nothing as {}.
std::string ArgumentsText(const PyJson* arguments);
// Takes off what follows the last message of the assistant, but for system messages, which may
// stand anywhere; a note says how many. Nothing stays where the assistant says nothing.
void EndWithAssistant(PyJson& messages, std::vector<LeftOutNote>& notes);
std::string RoleOf(const PyJson& message);

}  // namespace mft::data
