// SPDX-License-Identifier: Apache-2.0
// Dynamic chunking of function-calling conversations (finetune-spec 2.7).
#pragma once

#include <vector>

#include "common/tokenizer/chat.h"

namespace mft {

// A conversation that trains its last assistant message only, and has k of them, gives k - 1
// shorter ones, longest first: cut behind the last but one assistant message, the one before, and
// so on. All others give none.
std::vector<Conversation> ChunkConversation(const Conversation& conversation);

}  // namespace mft
