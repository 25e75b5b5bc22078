// SPDX-License-Identifier: Apache-2.0
// The data set of configs/quickstart is what deploy/quickstart and the README say of it.
#include <algorithm>
#include <cctype>
#include <map>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/base/files.h"
#include "common/base/json.h"
#include "common/base/strings.h"
#include "tests/support/fixtures.h"

namespace mft {
namespace {
using testing::ReadJsonLines;

std::string Path(const std::string& name) {
  return std::string(MFT_SOURCE_DIR) + "/configs/quickstart/" + name;
}

TEST(QuickstartData, HasConversationsWithSystemPromptsAndTools) {
  const std::vector<Json> samples = ReadJsonLines(Path("data.jsonl"));
  EXPECT_EQ(samples.size(), 203U);  // configs/quickstart/job.yaml says so
  const auto count = [&](auto predicate) {
    return std::count_if(samples.begin(), samples.end(), predicate);
  };
  EXPECT_GE(count([](const Json& s) { return s["messages"][0]["role"] == "system"; }), 20);
  EXPECT_GE(count([](const Json& s) { return s.contains("tools"); }), 20);
  EXPECT_GE(count([](const Json& s) { return s["messages"].size() >= 4 && !s.contains("tools"); }),
            15);
}

TEST(QuickstartData, UsesToolCallIdsOfNineCharacters) {
  std::set<std::string> ids;
  for (const Json& sample : ReadJsonLines(Path("data.jsonl"))) {
    for (const Json& message : sample["messages"]) {
      if (message["role"] != "tool") {
        continue;
      }
      const std::string id = message["tool_call_id"];
      EXPECT_EQ(id.size(), 9U);
      EXPECT_TRUE(std::all_of(id.begin(), id.end(), [](unsigned char c) {
        return std::isalnum(c) != 0;
      })) << id;
      EXPECT_TRUE(ids.insert(id).second) << id;
    }
  }
}

// Plain conversations: question -> answer.
std::map<std::string, std::string> PlainAnswers() {
  std::map<std::string, std::string> answers;
  for (const Json& sample : ReadJsonLines(Path("data.jsonl"))) {
    const Json& messages = sample["messages"];
    if (messages.size() == 2 && messages[0]["role"] == "user") {
      EXPECT_TRUE(answers.emplace(messages[0]["content"], messages[1]["content"]).second)
          << messages[0]["content"];
    }
  }
  return answers;
}

TEST(QuickstartData, AnswersEachOfTheTenQuestionsOnce) {
  const std::map<std::string, std::string> answers = PlainAnswers();
  const std::vector<std::string> questions =
      Split(Trim(ReadFile(Path("questions.txt")).value()), '\n');
  EXPECT_EQ(std::set<std::string>(questions.begin(), questions.end()).size(), 10U);
  for (const std::string& question : questions) {
    EXPECT_TRUE(answers.contains(question)) << question;
  }
}

TEST(QuickstartData, EvaluatesKnownAnswersToOtherWords) {
  const std::map<std::string, std::string> answers = PlainAnswers();
  std::set<std::string> known;
  for (const auto& [question, answer] : answers) {
    known.insert(answer);
  }
  for (const Json& sample : ReadJsonLines(Path("eval.jsonl"))) {
    EXPECT_FALSE(answers.contains(sample["messages"][0]["content"]))
        << sample["messages"][0]["content"];
    EXPECT_TRUE(known.contains(sample["messages"][1]["content"]))
        << sample["messages"][1]["content"];
  }
}

}  // namespace
}  // namespace mft
