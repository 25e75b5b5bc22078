// SPDX-License-Identifier: Apache-2.0
// A file of prompts, answered with the real tokenizers and a random model.
#include <random>
#include <sstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/base/files.h"
#include "common/base/json.h"
#include "common/base/strings.h"
#include "tests/support/fixtures.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_model.h"
#include "worker/export/adapter_export.h"
#include "worker/infer/commands.h"

namespace mft {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class Prompts : public ::testing::Test {
 protected:
  void UseModel(int64_t vocab, const std::string& tokenizer, const std::string& name) {
    const ModelParams params = testing::TinyParams(vocab);
    testing::WriteTinyModel(dir_.path(), params);
    dir_.Write(name, ReadFile(testing::TokenizerFile(tokenizer)).value());
  }
  void UseV3() {
    UseModel(32'768, "mistral_instruct_tokenizer_240323.model.v3", "tokenizer.model.v3");
  }

  GenerateArgs Args(const std::string& prompts) {
    GenerateArgs args;
    args.engine = {.model_dir = dir_.path()};
    args.batch_size = 3;
    args.max_tokens = 6;
    args.prompts = dir_.Write("prompts.jsonl", prompts);
    args.output = "json";
    return args;
  }
  static Status Run(const GenerateArgs& args, std::string& text) {
    std::ostringstream out;
    const Status status = RunPrompts(args, out);
    text = out.str();
    return status;
  }
  static std::vector<Json> Lines(const GenerateArgs& args) {
    std::string text;
    const Status status = Run(args, text);
    EXPECT_TRUE(status.ok()) << status.ToString();
    std::vector<Json> lines;
    for (const std::string& line : Split(Trim(text), '\n')) {
      lines.push_back(ParseJson(line).value());
    }
    return lines;
  }
  // What the interactive protocol answers.
  std::string Alone(const std::string& request, GenerateArgs args) {
    args.prompts.clear();
    std::istringstream in(request + "\n");
    std::ostringstream out;
    EXPECT_TRUE(RunGenerate(args, in, out).ok());
    std::string answer;
    for (const std::string& line : Split(Trim(out.str()), '\n')) {
      answer += StringOr(ParseJson(line).value(), "text", "");
    }
    return answer;
  }

  std::string RandomAdapter() {
    LoraStore store(testing::TinyParams(32'768),
                    {.rank = 4, .target_modules = {"wq", "w2"}, .training = false});
    std::mt19937 random(3);
    std::normal_distribution<float> normal;
    for (float& value : store.master()) {
      value = normal(random);
    }
    std::string path = dir_.File("lora.safetensors");
    EXPECT_TRUE(WriteParameters(path, store, DType::kF32).ok());
    return path;
  }

  testing::TempDir dir_;
};

const std::string kFile = R"("Hello, \"you\""
{"messages": [{"role": "system", "content": "Be short."}, {"role": "user", "content": "What?"}], "max_tokens": 3}

{"messages": [{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "2"}, {"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "It is 4."}]}
{"prompt": "x", "messages": [{"role": "user", "content": "Sampled"}], "temperature": 1.0, "seed": 7}
)";

TEST_F(Prompts, AreAnsweredInTheFilesOrderAsEachIsAlone) {
  UseV3();
  const GenerateArgs args = Args(kFile);
  const std::vector<Json> lines = Lines(args);
  ASSERT_EQ(lines.size(), 4U);
  EXPECT_EQ(lines[0]["line"], 1);
  EXPECT_EQ(lines[0]["prompt"], "Hello, \"you\"");
  EXPECT_EQ(lines[0]["base"]["text"],
            Alone(R"({"messages":[{"role":"user","content":"Hello, \"you\""}]})", args));
  EXPECT_EQ(lines[0]["base"]["completion_tokens"], 6);
  EXPECT_EQ(lines[0]["base"]["finish_reason"], "length");
  EXPECT_FALSE(lines[0].contains("reference"));
  EXPECT_EQ(lines[1]["base"]["completion_tokens"], 3);
  EXPECT_EQ(lines[2]["line"], 4);
  EXPECT_EQ(lines[2]["prompt"], "2+2?");
  EXPECT_EQ(lines[2]["reference"], "It is 4.");
  const std::string without_answer =
      R"({"messages":[{"role":"user","content":"1+1?"},{"role":"assistant","content":"2"},)"
      R"({"role":"user","content":"2+2?"}]})";
  EXPECT_EQ(lines[2]["base"]["text"], Alone(without_answer, args));
  EXPECT_EQ(
      lines[3]["base"]["text"],
      Alone(R"({"messages":[{"role":"user","content":"Sampled"}],"temperature":1.0,"seed":7})",
            args));
}

TEST_F(Prompts, TheBaseStandsBesideTheAdapter) {
  UseV3();
  GenerateArgs args = Args(kFile);
  args.engine.adapter = RandomAdapter();
  args.compare = true;
  const std::vector<Json> both = Lines(args);
  args.compare = false;
  const std::vector<Json> adapter = Lines(args);
  args.engine.adapter.clear();
  const std::vector<Json> base = Lines(args);
  int different = 0;
  for (size_t i = 0; i < both.size(); ++i) {
    EXPECT_EQ(both[i]["base"], base[i]["base"]);
    EXPECT_EQ(both[i]["adapter"], adapter[i]["adapter"]);
    EXPECT_FALSE(adapter[i].contains("base"));
    different += both[i]["adapter"]["text"] != both[i]["base"]["text"] ? 1 : 0;
  }
  EXPECT_GT(different, 0);
}

TEST_F(Prompts, AreReadableAsText) {
  UseV3();
  GenerateArgs args = Args(kFile);
  const std::string answer = Lines(args)[2]["base"]["text"];
  args.output = "text";
  std::string text;
  ASSERT_TRUE(Run(args, text).ok());
  EXPECT_THAT(text,
              HasSubstr(StrCat(
                  args.prompts, ":4: 2+2?\n  base:       ", answer, "\n  reference:  It is 4.\n")));
}

TEST_F(Prompts, EveryBadLineIsNamedBeforeTheModelIsOpened) {
  UseV3();
  ASSERT_EQ(std::remove(dir_.File("consolidated.safetensors").c_str()), 0);
  const GenerateArgs args = Args(
      "\"fine\"\nnonsense\n[]\n{\"text\": \"a\"}\n"
      "{\"messages\": [{\"role\": \"assistant\", \"content\": \"a\"}]}\n");
  std::string text;
  const Status status = Run(args, text);
  EXPECT_EQ(status.code(), Code::kInvalidArgument);
  EXPECT_THAT(status.message(),
              AllOf(HasSubstr("4 bad prompts"),
                    HasSubstr("prompts.jsonl:2: "),
                    HasSubstr("prompts.jsonl:3: a prompt is a JSON string"),
                    HasSubstr("prompts.jsonl:4: messages"),
                    HasSubstr("prompts.jsonl:5: ")));
  EXPECT_EQ(text, "");
  EXPECT_EQ(Run(Args("\n\n"), text).code(), Code::kInvalidArgument);
  GenerateArgs missing = Args("");
  missing.prompts = dir_.File("none");
  EXPECT_EQ(Run(missing, text).code(), Code::kNotFound);
  GenerateArgs nothing = Args("\"a\"\n");
  nothing.compare = true;
  EXPECT_THAT(Run(nothing, text).message(), HasSubstr("--compare needs --adapter"));
}

TEST_F(Prompts, OneThatIsLongerThanTheContextIsAnErrorOfItsOwn) {
  UseV3();
  GenerateArgs args = Args("\"short\"\n\"" + std::string(400, 'x') + " long\"\n\"end\"\n");
  args.engine.context_tokens = 24;
  std::string text;
  EXPECT_EQ(Run(args, text).code(), Code::kInvalidArgument);
  const auto lines = Split(Trim(text), '\n');
  ASSERT_EQ(lines.size(), 3U);
  EXPECT_THAT(lines[1], HasSubstr("the context 24"));
  EXPECT_TRUE(ParseJson(lines[2])->at("base").contains("text"));
}

TEST_F(Prompts, ATekkenModelAnswersToo) {
  UseModel(131'072, "tekken_240911.json", "tekken.json");
  const std::vector<Json> lines = Lines(Args(kFile));
  ASSERT_EQ(lines.size(), 4U);
  EXPECT_EQ(lines[0]["base"]["completion_tokens"], 6);
  EXPECT_EQ(lines[2]["reference"], "It is 4.");
  EXPECT_EQ(lines[0]["base"]["text"],
            Alone(R"({"messages":[{"role":"user","content":"Hello, \"you\""}]})", Args(kFile)));
}

}  // namespace
}  // namespace mft
