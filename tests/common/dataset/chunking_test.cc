// SPDX-License-Identifier: Apache-2.0
#include "common/dataset/chunking.h"

#include <string>
#include <string_view>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace mft {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

// One message a letter: u(ser), a(ssistant), t(ool).
Conversation Parse(std::string_view roles) {
  Conversation conversation = {
      .system_prompt = "s", .messages = {}, .tools = {}, .only_last = true};
  for (const char role : roles) {
    conversation.messages.push_back({.role = role == 'u'   ? Role::kUser
                                             : role == 'a' ? Role::kAssistant
                                                           : Role::kTool,
                                     .content = std::string(1, role),
                                     .tool_calls = {},
                                     .tool_call_id = {},
                                     .name = {}});
  }
  return conversation;
}

std::vector<std::string> Chunks(std::string_view roles) {
  std::vector<std::string> chunks;
  for (const Conversation& chunk : ChunkConversation(Parse(roles))) {
    std::string text;
    for (const ChatMessage& message : chunk.messages) {
      text += message.content;
    }
    chunks.push_back(text);
  }
  return chunks;
}

TEST(ChunkConversation, GivesAPrefixForEachEarlierAssistantMessage) {
  EXPECT_THAT(Chunks("uatauata"), ElementsAre("uataua", "uata", "ua"));
}

TEST(ChunkConversation, KeepsConsecutiveAssistantMessages) {
  EXPECT_THAT(Chunks("auaa"), ElementsAre("aua", "a"));
}

TEST(ChunkConversation, GivesNothingForOneAssistantMessage) {
  EXPECT_THAT(Chunks("uua"), IsEmpty());
  EXPECT_THAT(Chunks("uu"), IsEmpty());
}

TEST(ChunkConversation, LeavesConversationsThatTrainAllMessagesAlone) {
  Conversation conversation = Parse("uaua");
  conversation.only_last = false;
  EXPECT_THAT(ChunkConversation(conversation), IsEmpty());
}

TEST(ChunkConversation, CarriesTheRestOfTheConversationAlong) {
  Conversation conversation = Parse("uaua");
  conversation.tools = {{.name = "f", .description = "d", .parameters = "{}"}};
  const auto chunks = ChunkConversation(conversation);
  ASSERT_EQ(chunks.size(), 1u);
  EXPECT_EQ(chunks[0].system_prompt, "s");
  EXPECT_EQ(chunks[0].tools.size(), 1u);
  EXPECT_TRUE(chunks[0].only_last);
}

}  // namespace
}  // namespace mft
