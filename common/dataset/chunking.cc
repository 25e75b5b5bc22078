// SPDX-License-Identifier: Apache-2.0
#include "common/dataset/chunking.h"

#include <algorithm>

namespace mft {

std::vector<Conversation> ChunkConversation(const Conversation& conversation) {
  std::vector<Conversation> chunks;
  if (!conversation.only_last) {
    return chunks;
  }
  const auto is_assistant = [](const ChatMessage& message) {
    return message.role == Role::kAssistant;
  };
  Conversation rest = conversation;
  auto& messages = rest.messages;
  while (std::count_if(messages.begin(), messages.end(), is_assistant) > 1) {
    const auto pop_to_assistant = [&] {
      while (!is_assistant(messages.back())) {
        messages.pop_back();
      }
    };
    pop_to_assistant();
    messages.pop_back();
    pop_to_assistant();
    chunks.push_back(rest);
  }
  return chunks;
}

}  // namespace mft
