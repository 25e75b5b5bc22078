// SPDX-License-Identifier: Apache-2.0
// 1,000 bad lines of 25 kinds among 100,000 good ones: exactly these are reported, each with its
// line, its class and what is wrong, and what is left is accepted.
#include <map>
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/base/files.h"
#include "common/base/json.h"
#include "common/base/strings.h"
#include "common/config/job_file.h"
#include "tests/worker/data/prepare_fixture.h"
#include "tests/worker/data/run_mft_data.h"
#include "worker/data/line_encoder.h"

namespace mft {
namespace {

using ::testing::HasSubstr;

constexpr int kGoodLines = 100'000;
constexpr int kLinesOfAKind = 40;

struct Kind {
  std::string line;
  std::string problem_class;
  std::string part;  // of the message
};

std::string Chat(std::string_view messages, std::string_view more = "") {
  return StrCat(R"({"messages": [)", messages, "]", more, "}");
}

constexpr std::string_view kUser = R"({"role": "user", "content": "a"})";
constexpr std::string_view kAnswer = R"({"role": "assistant", "content": "b"})";

std::string Call(std::string_view id, std::string_view name, std::string_view arguments) {
  return StrCat(R"({"role": "assistant", "tool_calls": [{"id": ")",
                id,
                R"(", "function": {"name": ")",
                name,
                R"(", "arguments": )",
                arguments,
                "}}]}");
}

std::string Tool(std::string_view function) {
  return Chat(StrCat(kUser, ", ", kAnswer), StrCat(R"(, "tools": [)", function, "]"));
}

const std::vector<Kind>& Kinds() {
  static const auto* const kinds = new std::vector<Kind>{
      {R"({"messages": [{"role": "user", "content": "a")", "JSONDecodeError", "column 46"},
      {"", "JSONDecodeError", "blank line"},
      {"{\"messages\": [{\"role\": \"user\", \"content\": \"caf\xE9\"}]}",
       "EncodingError",
       "byte 47 of the line, 0xe9"},
      {StrCat("\xEF\xBB\xBF", Chat(StrCat(kUser, ", ", kAnswer))), "JSONDecodeError", "order mark"},
      {"[1, 2]", "JSONDecodeError", "must hold a JSON object, not list"},
      {R"({"messages": [], "messages": []})", "JSONDecodeError", "\"messages\" stands twice"},
      {StrCat(R"({"messages": )", std::string(500, '[')), "JSONDecodeError", "deeper than 200"},
      {Chat(R"({"role": "user", "content": "\ud83d"})"), "JSONDecodeError", "surrogate"},
      {R"({"prompt": "a", "completion": "b"})", "ConversationFormatError", "prompt, completion"},
      {R"({"messages": [], "interactions": []})", "ConversationFormatError", "keep one"},
      {Chat(R"({"content": "a"})"),
       "MessageFormatError",
       "messages[0]: a message needs the key 'role'"},
      {Chat(R"({"role": "user", "content": "a", "text": "b"})"), "MessageFormatError", "both"},
      {Chat(R"({"role": "user", "name": "n"})"), "MessageFormatError", "role, name"},
      {Chat(R"({"role": "narrator", "content": "a"})"), "UnrecognizedRoleError", "narrator"},
      {Chat(R"({"role": "user", "content": 5})"), "ValidationError", "must be a string, not int 5"},
      {Tool(R"({"type": "function"})"),
       "FunctionFormatError",
       "tools[0]: a tool needs the key 'function'"},
      {Chat(StrCat(kUser, ", ", Call("aaaaaaaaa", "f", "{}"))),
       "ToolCallFormatError",
       "not dict {}"},
      {Chat(StrCat(kUser, ", ", kAnswer, ", ", kUser)),
       "InvalidMessageStructureException",
       "last message"},
      {Chat(StrCat(
           kUser, R"(, {"role": "tool", "content": "1", "tool_call_id": "aaaaaaaaa"}, )", kAnswer)),
       "InvalidMessageStructureException",
       "unexpected role 'tool' after role 'user'"},
      {Chat(StrCat(kUser, ", ", Call("aaaaaaaaa", "f", "\"{}\""), ", ", kAnswer)),
       "InvalidMessageStructureException",
       "1 without a result"},
      {Chat(StrCat(kUser, R"(, {"role": "assistant", "content": "b", "weight": 2})")),
       "InvalidAssistantMessageException",
       "not 2"},
      {Chat(StrCat(kUser, ", ", Call("abc", "f", "\"{}\""))),
       "InvalidFunctionCallException",
       "\"abc\""},
      {Chat(StrCat(kUser, ", ", Call("aaaaaaaaa", "a b", "\"{}\""))),
       "InvalidFunctionCallException",
       "\"a b\""},
      {Tool(R"({"function": {"name": "f", "description": "d", "parameters": {"type": "banana"}}})"),
       "InvalidToolSchemaException",
       "banana"},
      {R"({"tokens": [1, 99999, 2]})", "TokensFormatError", "tokens[1] is 99999"},
  };
  return *kinds;
}

class BadLines : public testing::PrepareFixture {
 protected:
  // Writes the file and remembers which line is of which kind.
  std::string Generate() {
    std::vector<int> kinds(kGoodLines, -1);
    for (int i = 0; i < kLinesOfAKind * static_cast<int>(Kinds().size()); ++i) {
      kinds.push_back(i / kLinesOfAKind);
    }
    std::mt19937 random(7);  // NOLINT(cert-msc51-cpp): the same file every time
    for (size_t i = kinds.size() - 1; i > 0; --i) {
      std::swap(kinds[i], kinds[random() % (i + 1)]);
    }
    std::string text;
    for (size_t i = 0; i < kinds.size(); ++i) {
      if (kinds[i] >= 0) {
        bad_[static_cast<int64_t>(i) + 1] = kinds[i];
        text += Kinds()[kinds[i]].line;
      } else {
        text += StrCat(R"({"messages": [{"role": "user", "content": "What is )",
                       i,
                       R"( plus 1?"}, {"role": "assistant", "content": "It is )",
                       i + 1,
                       ".\"}]}");
      }
      text += '\n';
    }
    return dir_.Write("chats.jsonl", text);
  }

  Json Validate(const std::string& data, std::vector<std::string> more = {}) {
    spec_.data.instruct_data = data;
    const std::string job = dir_.File("job.json");
    EXPECT_TRUE(WriteJobFile(job, {.job_id = "j", .spec = spec_}).ok());
    more.insert(more.begin(), {"validate", "--config", job, "-o", "json"});
    return Json::parse(testing::RunMftData(more).out);
  }

  std::map<int64_t, int> bad_;
};

TEST_F(BadLines, AreReportedExactlyAndTheCorrectedFileIsAccepted) {
  AddTokenizer();
  const std::string data = Generate();
  ASSERT_EQ(Kinds().size(), 25u);
  ASSERT_EQ(bad_.size(), 1000u);
  const Json report = Validate(data, {"--create-corrected"});
  EXPECT_EQ(report["num_problems"], 1000);
  ASSERT_EQ(report["problems"].size(), 1000u);
  auto expected = bad_.begin();
  for (const Json& problem : report["problems"]) {
    ASSERT_EQ(problem["line"], expected->first);
    const Kind& kind = Kinds()[expected->second];
    EXPECT_EQ(problem["file"], data);
    EXPECT_EQ(problem["class"], kind.problem_class) << kind.line;
    EXPECT_THAT(problem["message"].get<std::string>(), HasSubstr(kind.part)) << kind.line;
    ++expected;
  }
  EXPECT_EQ(report["sources"][0]["samples"], kGoodLines);
  EXPECT_EQ(report["corrected"], Json::array({data + ".corrected"}));
  const Json corrected = Validate(data + ".corrected");
  EXPECT_EQ(corrected["num_problems"], 0);
  EXPECT_EQ(corrected["problems"], Json::array());
  EXPECT_EQ(corrected["sources"][0]["lines"], kGoodLines);
  EXPECT_EQ(corrected["sources"][0]["tokens"], report["sources"][0]["tokens"]);
}

TEST(OverlongLine, IsAProblemThatShowsItsBeginning) {
  const data::LineEncoder encoder({.check_only = true});
  const auto encoded = encoder.Encode(
      SourceKind::kInstruct,
      {.number = 3, .text = "{\"messages\": " + std::string(100, 'x'), .too_long = true});
  ASSERT_EQ(encoded.problems.size(), 1u);
  EXPECT_EQ(encoded.problems[0].reason(), "LineTooLong");
  EXPECT_THAT(encoded.problems[0].message(),
              HasSubstr("64.0 MiB, it begins with {\"messages\": xxx"));
}

}  // namespace
}  // namespace mft
