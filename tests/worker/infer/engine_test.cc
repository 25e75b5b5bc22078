// SPDX-License-Identifier: Apache-2.0
#include "worker/infer/engine.h"

#include <algorithm>

#include <gtest/gtest.h>

#include "common/base/files.h"
#include "common/base/strings.h"
#include "common/checkpoint/model_params.h"
#include "tests/support/fixtures.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_model.h"

namespace mft {
namespace {

using testing::Fixture;
using testing::TempDir;

const std::string kDense = Fixture("train/dense");
const std::string kAdapter = kDense + "/lora_init.safetensors";

std::unique_ptr<Engine> Open(EngineOptions options) {
  if (options.model_dir.empty()) {
    options.model_dir = kDense + "/model";
  }
  auto engine = Engine::Create(options);
  EXPECT_TRUE(engine.ok()) << engine.status().ToString();
  return std::move(engine).value();
}

Status Ignore(int32_t /*id*/) {
  return Status::Ok();
}

// The token that the whole context makes most likely, without a cache.
int32_t Next(Engine& engine, const std::vector<int32_t>& context) {
  const std::vector<float> logits = engine.Logits(context).value();
  const auto last = logits.end() - engine.params().vocab_size;
  return static_cast<int32_t>(std::max_element(last, logits.end()) - last);
}

class EngineOfModels : public ::testing::TestWithParam<const char*> {};

INSTANTIATE_TEST_SUITE_P(Fixtures, EngineOfModels, ::testing::Values("dense", "moe"));

TEST_P(EngineOfModels, GreedyAnswersAreTheArgmaxOfAFullForwardPassEachTime) {
  const std::string fixture = Fixture(StrCat("train/", GetParam()));
  const auto engine =
      Open({.model_dir = fixture + "/model", .adapter = fixture + "/lora_init.safetensors"});
  std::vector<int32_t> context = {1, 294, 436, 413, 394, 35};
  const auto answer = engine->Generate({.prompt = context, .max_tokens = 24}, Ignore);
  ASSERT_TRUE(answer.ok());
  ASSERT_EQ(answer->tokens.size(), 24U);
  for (const int32_t id : answer->tokens) {
    ASSERT_EQ(id, Next(*engine, context));
    context.push_back(id);
  }
}

TEST_P(EngineOfModels, ManyPromptsAtOnceGetTheAnswersThatEachGetsAlone) {
  const std::string fixture = Fixture(StrCat("train/", GetParam()));
  const EngineOptions options = {.model_dir = fixture + "/model",
                                 .adapter = fixture + "/lora_init.safetensors",
                                 .context_tokens = 64};
  const auto alone = Open(options);
  std::vector<std::vector<int32_t>> prompts;
  for (int32_t i = 0; i < 11; ++i) {
    prompts.emplace_back(static_cast<size_t>(1 + i * 5 % 13), 7 * i + 1);
    prompts.back()[0] = 1;
  }
  std::vector<Engine::Request> requests;
  for (size_t i = 0; i < prompts.size(); ++i) {
    requests.push_back({.prompt = prompts[i],
                        .max_tokens = static_cast<int64_t>(1 + i * 7 % 20),
                        .end_token = i % 3 == 0 ? 35 : -1,
                        .sampling = {.temperature = i % 2 == 0 ? 0 : 0.7, .seed = i}});
  }
  requests[4].prompt = {};  // refused; the others go on
  for (const int64_t conversations : {1, 3, 16}) {
    EngineOptions many = options;
    many.conversations = conversations;
    const auto engine = Open(many);
    std::vector<int> calls(prompts.size());
    const Status status = engine->GenerateAll(requests, [&](size_t i, Result<Completion> answer) {
      ++calls[i];
      const auto expected = alone->Generate(requests[i], Ignore);
      EXPECT_EQ(answer.status().ToString(), expected.status().ToString());
      if (answer.ok()) {
        EXPECT_EQ(answer->tokens, expected->tokens) << conversations << " at once, prompt " << i;
        EXPECT_EQ(answer->stopped, expected->stopped);
      }
      return Status::Ok();
    });
    EXPECT_TRUE(status.ok()) << status.ToString();
    EXPECT_EQ(calls, std::vector<int>(prompts.size(), 1));
  }
}

TEST(Engine, ManyPromptsEndWithTheFirstErrorOfTheCaller) {
  const auto engine = Open({.adapter = kAdapter, .context_tokens = 64, .conversations = 2});
  const std::vector<int32_t> prompt = {1, 2};
  const std::vector<Engine::Request> requests(5, {.prompt = prompt, .max_tokens = 3});
  int calls = 0;
  const Status status = engine->GenerateAll(requests, [&](size_t, const Result<Completion>&) {
    return ++calls == 2 ? Unavailable("gone") : Status::Ok();
  });
  EXPECT_EQ(status.code(), Code::kUnavailable);
  EXPECT_EQ(calls, 2);
  EXPECT_EQ(Engine::Create({.model_dir = kDense + "/model", .conversations = 0}).status().code(),
            Code::kInvalidArgument);
}

TEST(Engine, TheBaseBeneathTheAdapterIsTheBase) {
  const auto engine = Open({.adapter = kDense + "/final.token.safetensors"});
  const auto base = engine->WithoutAdapter();
  const std::vector<int32_t> tokens = {1, 5, 9, 77};
  EXPECT_EQ(base->Logits(tokens).value(), Open({})->Logits(tokens).value());
  EXPECT_NE(base->Logits(tokens).value(), engine->Logits(tokens).value());
}

TEST(Engine, LongPromptsInPiecesGiveTheSameAnswer) {
  // More tokens than are computed at once; the full pass is the model's own, in one piece.
  TempDir dir;
  testing::WriteTinyModel(dir.path(), testing::TinyParams(64));
  const auto engine = Open({.model_dir = dir.path(), .context_tokens = 1200});
  std::vector<int32_t> prompt(1100);
  for (size_t i = 0; i < prompt.size(); ++i) {
    prompt[i] = static_cast<int32_t>((i * 7 + i / 13) % 64);
  }
  const auto pieces = engine->Generate({.prompt = prompt, .max_tokens = 1}, Ignore);
  const auto weights = LoadResidentWeights(dir.path()).value();
  const LoraStore none(weights->params(), {.target_modules = {}, .training = false});
  Transformer whole(
      *weights, none, CpuKernels(), {.max_rows = 1200, .max_positions = 1200, .training = false});
  std::vector<float> logits(prompt.size() * 64);
  const std::vector<int32_t> cu_seqlens = {0, 1100};
  whole.AllLogits(prompt, cu_seqlens, logits);
  const auto last = logits.end() - 64;
  EXPECT_EQ(pieces->tokens.at(0), std::max_element(last, logits.end()) - last);
}

TEST(Engine, EachAnswerStartsAfresh) {
  const auto engine = Open({.adapter = kAdapter});
  const std::vector<int32_t> first = {1, 5, 9, 77};
  const std::vector<int32_t> second = {1, 300, 2, 8, 19};
  const auto before = engine->Generate({.prompt = first, .max_tokens = 8}, Ignore);
  EXPECT_TRUE(engine->Generate({.prompt = second, .max_tokens = 8}, Ignore).ok());
  EXPECT_EQ(engine->Generate({.prompt = first, .max_tokens = 8}, Ignore)->tokens, before->tokens);
}

TEST(Engine, StopsAtTheEndTokenAndAtTheLimits) {
  const auto engine = Open({.adapter = kAdapter, .context_tokens = 16});
  const std::vector<int32_t> prompt = {1, 294, 436, 413};
  const auto free_run = engine->Generate({.prompt = prompt, .max_tokens = 100}, Ignore);
  EXPECT_EQ(free_run->tokens.size(), 12U);  // the context is full
  EXPECT_FALSE(free_run->stopped);
  const auto stopped = engine->Generate(
      {.prompt = prompt, .max_tokens = 100, .end_token = free_run->tokens[3]}, Ignore);
  EXPECT_TRUE(stopped->stopped);
  EXPECT_LE(stopped->tokens.size(), 3U);
  int calls = 0;
  const auto broken = engine->Generate({.prompt = prompt, .max_tokens = 100}, [&](int32_t) {
    return ++calls == 2 ? Unavailable("gone") : Status::Ok();
  });
  EXPECT_EQ(broken.status().code(), Code::kUnavailable);
  EXPECT_EQ(calls, 2);
}

TEST(Engine, RefusesWhatItCannotAnswer) {
  const auto engine = Open({.context_tokens = 4});
  const auto code = [&](const std::vector<int32_t>& prompt) {
    return engine->Generate({.prompt = prompt}, Ignore).status().code();
  };
  EXPECT_EQ(code({}), Code::kInvalidArgument);
  EXPECT_EQ(code({1, 512}), Code::kInvalidArgument);
  EXPECT_EQ(code({-1}), Code::kInvalidArgument);
  EXPECT_EQ(code({1, 2, 3, 4}), Code::kInvalidArgument);
  EXPECT_EQ(Engine::Create({.model_dir = "/nowhere"}).status().code(), Code::kNotFound);
  const auto wrong =
      Engine::Create({.model_dir = kDense + "/model",
                      .adapter = Fixture("train/dense-headdim/lora_init.safetensors")});
  ASSERT_FALSE(wrong.ok());
  EXPECT_NE(wrong.status().message().find("lora_init.safetensors: layers.0"), std::string::npos)
      << wrong.status().message();
}

TEST(Engine, ScalingComesFromTheOptionThenTheCheckpointThenTheConvention) {
  TempDir dir;
  dir.Write("checkpoint/consolidated/lora.safetensors", ReadFile(kAdapter).value());
  const LoraParams lora{.rank = 4, .scaling = 0.75};
  const ModelParams params = ReadModelParams(kDense + "/model").value();
  dir.Write("checkpoint/consolidated/params.json", ModelParamsToJson(params, &lora));
  const std::string checkpoint = dir.File("checkpoint");
  EXPECT_EQ(Open({.adapter = checkpoint})->scaling(), 0.75);
  EXPECT_EQ(Open({.adapter = checkpoint + "/consolidated"})->scaling(), 0.75);
  EXPECT_EQ(Open({.adapter = checkpoint + "/consolidated/lora.safetensors"})->scaling(), 0.75);
  EXPECT_EQ(Open({.adapter = checkpoint, .scaling = 3.0})->scaling(), 3.0);
  EXPECT_EQ(Open({.adapter = kAdapter})->scaling(), 2.0);
  // The adapter counts.
  const std::vector<int32_t> tokens = {1, 294, 436};
  EXPECT_NE(Open({.adapter = checkpoint})->Logits(tokens).value(),
            Open({.adapter = kAdapter})->Logits(tokens).value());
  EXPECT_NE(Open({})->Logits(tokens).value(), Open({.adapter = kAdapter})->Logits(tokens).value());
}

}  // namespace
}  // namespace mft
