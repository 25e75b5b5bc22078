// SPDX-License-Identifier: Apache-2.0
// The protocol of `mft-worker generate`, with the real v3 tokenizer and a random model.
#include <sstream>

#include <gtest/gtest.h>

#include "common/base/files.h"
#include "common/base/json.h"
#include "tests/support/fixtures.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_model.h"
#include "worker/infer/commands.h"

namespace mft {
namespace {

class Generate : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    dir_ = std::make_unique<testing::TempDir>();
    testing::WriteTinyModel(dir_->path(), testing::TinyParams(32'768));
    const std::string name = "mistral_instruct_tokenizer_240323.model.v3";
    dir_->Write("tokenizer.model.v3", ReadFile(testing::TokenizerFile(name)).value());
  }
  static void TearDownTestSuite() { dir_.reset(); }

  GenerateArgs Args() const {
    GenerateArgs args;
    args.engine = {.model_dir = dir_->path(), .context_tokens = 256};
    args.max_tokens = 6;
    return args;
  }
  std::vector<Json> Lines(const std::string& requests) const {
    std::istringstream in(requests);
    std::ostringstream out;
    const Status status = RunGenerate(Args(), in, out);
    EXPECT_TRUE(status.ok()) << status.ToString();
    std::istringstream text(out.str());
    std::vector<Json> lines;
    for (std::string line; std::getline(text, line);) {
      lines.push_back(ParseJson(line).value());
    }
    return lines;
  }

  static std::unique_ptr<testing::TempDir> dir_;
};
std::unique_ptr<testing::TempDir> Generate::dir_;

std::string TextOf(const std::vector<Json>& lines) {
  std::string text;
  for (const Json& line : lines) {
    text += StringOr(line, "text", "");
  }
  return text;
}

TEST_F(Generate, AnswersEachRequestAndEndsWithItsInput) {
  const std::string request = R"({"messages":[{"role":"user","content":"Hello"}],"max_tokens":5})";
  const auto lines = Lines(request + "\n\n" + request + "\n");
  ASSERT_GE(lines.size(), 3U);
  EXPECT_EQ(lines[0], Json({{"ready", true}}));
  std::vector<Json> done;
  for (const Json& line : lines) {
    if (line.contains("done")) {
      done.push_back(line);
    }
  }
  ASSERT_EQ(done.size(), 2U);
  EXPECT_EQ(done[0]["finish_reason"], "length");
  EXPECT_EQ(done[0]["completion_tokens"], 5);
  EXPECT_EQ(done[0]["prompt_tokens"], 4);  // <s> [INST] Hello [/INST]
  EXPECT_TRUE(done[0]["seconds"].is_number());
  EXPECT_EQ(lines.back(), done[1]);
}

TEST_F(Generate, SeedsDecideSampledAnswers) {
  const auto ask = [&](const std::string& more) {
    return TextOf(
        Lines(R"({"messages":[{"role":"user","content":"Hi"}],"temperature":1.5,)" + more + "}\n"));
  };
  EXPECT_EQ(ask("\"seed\":1"), ask("\"seed\":1"));
  EXPECT_NE(ask("\"seed\":1"), ask("\"seed\":2"));
  EXPECT_NE(ask("\"seed\":1"), ask("\"seed\":1,\"system_prompt\":\"Be brief.\""));
}

TEST_F(Generate, BadRequestsGetAnErrorAndTheNextAnAnswer) {
  const std::vector<std::string> bad = {
      "{",
      "[]",
      "{}",
      R"({"messages":[]})",
      R"({"messages":["x"]})",
      R"({"messages":[{"role":"user"}]})",
      R"({"messages":[{"role":"wizard","content":"x"}]})",
      R"({"messages":[{"role":"assistant","content":"x"}]})",
      R"({"messages":[{"role":"user","content":"x"}],"max_tokens":0})",
      R"({"messages":[{"role":"user","content":"x"}],"temperature":"hot"})",
      R"({"messages":[{"role":"user","content":"x"}],"top_p":2})",
      R"({"messages":[{"role":"user","content":"x"}],"seed":"s"})",
      R"({"messages":[{"role":"user","content":"x"},{"role":"system","content":"y"}]})",
  };
  std::string requests;
  for (const std::string& line : bad) {
    requests += line + "\n";
  }
  std::string words;
  for (int i = 0; i < 300; ++i) {
    words += "word ";
  }
  requests += R"({"messages":[{"role":"user","content":")" + words + "\"}]}\n";  // too long
  requests += R"({"messages":[{"role":"user","content":"x"}],"max_tokens":1})"
              "\n";
  const auto lines = Lines(requests);
  ASSERT_GE(lines.size(), bad.size() + 3);
  for (size_t i = 1; i <= bad.size() + 1; ++i) {
    ASSERT_TRUE(lines[i].contains("error")) << i << ": " << lines[i].dump();
    EXPECT_EQ(lines[i]["error"]["code"], "INVALID_ARGUMENT") << lines[i].dump();
    EXPECT_NE(lines[i]["error"]["message"], "");
  }
  EXPECT_EQ(lines.back()["done"], true);
}

TEST_F(Generate, OnePromptPrintsItsAnswer) {
  GenerateArgs args = Args();
  args.prompt = "Hello";
  std::istringstream in;
  std::ostringstream out;
  ASSERT_TRUE(RunGenerate(args, in, out).ok());
  EXPECT_EQ(out.str(),
            TextOf(Lines(R"({"messages":[{"role":"user","content":"Hello"}]})"
                         "\n")) +
                "\n");
}

TEST_F(Generate, LogitsLinesAnswerLists) {
  std::istringstream in("[1, 2]\n[]\n[\"x\"]\n");
  std::ostringstream out;
  ASSERT_TRUE(RunLogits(Args().engine, in, out).ok());
  std::istringstream text(out.str());
  std::string line;
  std::getline(text, line);
  const Json logits = ParseJson(line).value();
  ASSERT_EQ(logits["logits"].size(), 2U);
  EXPECT_EQ(logits["logits"][1].size(), 32'768U);
  std::getline(text, line);
  EXPECT_TRUE(ParseJson(line)->contains("error"));
  std::getline(text, line);
  EXPECT_TRUE(ParseJson(line)->contains("error"));
}

}  // namespace
}  // namespace mft
