// SPDX-License-Identifier: Apache-2.0
#include "worker/data/prepare.h"

#include <chrono>
#include <filesystem>
#include <utility>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/base/files.h"
#include "common/dataset/token_cache.h"
#include "common/journal/record.h"
#include "tests/worker/data/prepare_fixture.h"

namespace mft {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

using PrepareData = testing::PrepareFixture;

constexpr char kPreTokenised[] = R"({"tokens": [1, 5, 6, 2], "mask": [0, 0, 1, 1]})";
constexpr char kChat[] =
    R"({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]})";

std::string Lines(int count, std::string_view line) {
  std::string text;
  for (int i = 0; i < count; ++i) {
    text += StrCat(line, "\n");
  }
  return text;
}

TEST_F(PrepareData, PreTokenisedSamplesNeedNoTokenizer) {
  spec_.data.instruct_data = dir_.Write("a.jsonl", Lines(3, kPreTokenised));
  spec_.seq_len = 3;
  spec_.max_steps = 30;
  const auto data = Prepare();
  ASSERT_TRUE(data.ok()) << data.status().ToString();
  EXPECT_EQ(data->samples, 3);
  EXPECT_EQ(data->tokens, 12);
  EXPECT_EQ(data->loss_tokens, 6);
  EXPECT_FALSE(data->reused);
  EXPECT_EQ(data->steps_per_epoch, 3);
  EXPECT_EQ(data->epochs, 10);
  EXPECT_THAT(observer_.phases, ElementsAre(kPhaseValidating, kPhaseTokenizing));
  EXPECT_THAT(observer_.warnings, IsEmpty());
  const auto cache = TokenCache::Open(data->directory);
  ASSERT_TRUE(cache.ok());
  ASSERT_TRUE((*cache)->VerifyIndex().ok());
  EXPECT_EQ(data->directory, dir_.File("cache/" + (*cache)->content_key()));
  EXPECT_THAT((*cache)->sample(0, 2)->tokens, ElementsAre(1, 5, 6, 2));
  EXPECT_THAT((*cache)->sample(0, 2)->mask, ElementsAre(0, 0, 1, 1));
}

TEST_F(PrepareData, ChatsAndTextsGoThroughTheModelsTokenizer) {
  AddTokenizer();
  spec_.data.data = dir_.Write("text.jsonl", R"({"text": "Hello world"})");
  spec_.data.instruct_data = dir_.Write("chat.jsonl", Lines(2, kChat)) + ":3";
  spec_.data.eval_instruct_data = dir_.Write("eval.jsonl", kChat);
  spec_.no_eval = false;
  const auto data = Prepare();
  ASSERT_TRUE(data.ok()) << data.status().ToString() << observer_.problems.size();
  EXPECT_EQ(data->samples, 3);
  EXPECT_EQ(data->eval_samples, 1);
  const auto cache = TokenCache::Open(data->directory);
  ASSERT_TRUE((*cache)->VerifyIndex().ok());
  ASSERT_EQ((*cache)->sources().size(), 3u);
  EXPECT_THAT((*cache)->sample(0, 0)->tokens, ElementsAre(1, 23325, 2294, 2));
  EXPECT_THAT((*cache)->sample(1, 1)->tokens, ElementsAre(1, 3, 16127, 4, 23325, 29576, 2));
  EXPECT_THAT((*cache)->sample(1, 1)->mask, ElementsAre(0, 0, 0, 0, 1, 1, 1));
  EXPECT_EQ((*cache)->sources()[1].weight, 3);
  EXPECT_EQ((*cache)->sources()[2].kind, SourceKind::kEval);
}

TEST_F(PrepareData, TheSecondTimeReusesTheCache) {
  spec_.data.instruct_data = dir_.Write("a.jsonl", Lines(3, kPreTokenised));
  const auto first = Prepare();
  ASSERT_TRUE(first.ok());
  spec_.data.instruct_data += ":7";  // a weight changes no sample
  const auto long_ago = std::filesystem::file_time_type::clock::now() - std::chrono::hours(100);
  std::filesystem::last_write_time(first->directory, long_ago);
  const auto second = Prepare();
  ASSERT_TRUE(second.ok());
  EXPECT_GT(std::filesystem::last_write_time(second->directory), long_ago + std::chrono::hours(99))
      << "caches are evicted by age: a use must show";
  EXPECT_TRUE(second->reused);
  EXPECT_EQ(second->directory, first->directory);
  EXPECT_EQ(second->samples, 3);
  dir_.Write("a.jsonl", Lines(4, kPreTokenised));
  const auto third = Prepare();
  ASSERT_TRUE(third.ok());
  EXPECT_FALSE(third->reused);
  EXPECT_NE(third->directory, first->directory);
}

// Whoever submits the same data again has to hear the same of it.
TEST_F(PrepareData, AReusedCacheRepeatsWhatWasSaidWhenItWasMade) {
  AddTokenizer();
  std::string chat = kChat;
  const std::string warned = chat.insert(1, R"("reasoning_effort": "high", )");
  spec_.data.instruct_data =
      dir_.Write("a.jsonl", StrCat(kChat, "\n", Lines(102, warned), kPreTokenised, "\n"));
  spec_.data.eval_instruct_data =
      dir_.Write("eval.jsonl", R"({"tokens": [1, 5, 6, 2], "mask": [1, 0, 0, 0]})");
  spec_.no_eval = false;
  spec_.seq_len = 5;
  ASSERT_TRUE(Prepare().ok());
  std::vector<std::string> said = std::exchange(observer_.warnings, {});
  ASSERT_EQ(said.size(), 104U);
  EXPECT_THAT(said[0], AllOf(HasSubstr("a.jsonl:2: "), HasSubstr("reasoning_effort")));
  EXPECT_THAT(said[102], HasSubstr("103 of 104 samples are longer than seq_len 5"));
  EXPECT_THAT(said[103], HasSubstr("to evaluate"));

  std::filesystem::rename(dir_.File("a.jsonl"), dir_.File("b.jsonl"));
  spec_.data.instruct_data = dir_.File("b.jsonl");
  const auto second = Prepare();
  ASSERT_TRUE(second.ok());
  EXPECT_TRUE(second->reused);
  for (std::string& text : said) {
    if (const size_t at = text.find("a.jsonl"); at != std::string::npos) {
      text[at] = 'b';
    }
  }
  said.erase(said.begin() + 100, said.begin() + 102);
  said.insert(said.begin() + 100, dir_.File("b.jsonl: 2 more warnings of single lines"));
  EXPECT_EQ(observer_.warnings, said);

  spec_.seq_len = 64;  // what depends on the job is judged for this job
  observer_.warnings.clear();
  ASSERT_TRUE(Prepare().ok());
  EXPECT_EQ(observer_.warnings.size(), 102U);
}

TEST_F(PrepareData, AReusedCacheWithoutATrainableTokenIsRefusedLikeANewOne) {
  spec_.data.instruct_data =
      dir_.Write("a.jsonl", StrCat(R"({"tokens": [1, 5], "mask": [1, 0]})", "\n", kPreTokenised));
  ASSERT_TRUE(Prepare().ok());
  spec_.mftd.packing = "reference";
  spec_.mftd.ranks = 2;
  const Status reused = Prepare().status();
  const std::vector<std::string> said = std::exchange(observer_.problems, {});
  EXPECT_EQ(reused.reason(), "VALIDATION_FAILED");
  EXPECT_THAT(said, ElementsAre(HasSubstr("gives rank 0 of 2")));
  ASSERT_TRUE(RemoveTree(dir_.File("cache")).ok());
  EXPECT_EQ(Prepare().status().message(), reused.message());
  EXPECT_EQ(observer_.problems, said);
  spec_.mftd.packing = "whole";  // deals packs out, not lines
  EXPECT_TRUE(Prepare().ok());
}

// One file under two names is two tokenizers: a SentencePiece file's version is in its name alone.
TEST_F(PrepareData, TheTokenizersVersionIsPartOfTheKey) {
  spec_.data.instruct_data = dir_.Write("a.jsonl", Lines(2, kChat));
  std::vector<std::string> prompts;
  for (const char* name : {"v3", "v2"}) {
    spec_.model_id_or_path = dir_.File(StrCat("model-", name));
    MakeModel(32768, spec_.model_id_or_path);
    std::filesystem::create_symlink(
        testing::TokenizerFile("mistral_instruct_tokenizer_240323.model.v3"),
        StrCat(spec_.model_id_or_path, "/tokenizer.model.", name));
    const auto data = Prepare();
    ASSERT_TRUE(data.ok()) << data.status().ToString();
    EXPECT_FALSE(data->reused) << name;
    prompts.push_back(data->directory);
  }
  EXPECT_NE(prompts[0], prompts[1]);
}

TEST_F(PrepareData, ADamagedCacheIsMadeAnew) {
  spec_.data.instruct_data = dir_.Write("a.jsonl", kPreTokenised);
  const auto first = Prepare();
  ASSERT_TRUE(first.ok());
  ASSERT_TRUE(WriteFileAtomic(first->directory + "/tokens.mft", "damaged").ok());
  const auto second = Prepare();
  ASSERT_TRUE(second.ok()) << second.status().ToString();
  EXPECT_FALSE(second->reused);
  EXPECT_TRUE(TokenCache::Open(second->directory).ok());
}

// What becomes of a job whose worker met such a sample and said DATA_CACHE_GONE.
TEST_F(PrepareData, ACacheWithADamagedSampleIsMadeAnew) {
  spec_.data.instruct_data = dir_.Write("a.jsonl", kPreTokenised);
  const auto first = Prepare();
  ASSERT_TRUE(first.ok());
  const std::string path = first->directory + "/tokens.mft";
  const std::string sound = *ReadFile(path);
  std::string damaged = sound;
  damaged[192 + 4] ^= 3;  // the sample's second id is 6, not 5
  ASSERT_TRUE(WriteFileAtomic(path, damaged).ok());
  const auto second = Prepare();
  ASSERT_TRUE(second.ok()) << second.status().ToString();
  EXPECT_FALSE(second->reused);
  EXPECT_THAT(observer_.warnings,
              ElementsAre(AllOf(HasSubstr(path), HasSubstr("sample 0"), HasSubstr("made again"))));
  EXPECT_EQ(*ReadFile(path), sound);
}

TEST_F(PrepareData, ReportsEveryProblemOfEveryFileAndPublishesNothing) {
  AddTokenizer();
  spec_.data.data = dir_.Write("text.jsonl", "{\"text\": \"x\"}\n{\"text\": 7}\n");
  spec_.data.instruct_data =
      dir_.Write("chat.jsonl", StrCat(kChat, "\n{not json\n", kChat, "\n[]\n"));
  spec_.data.eval_instruct_data =
      dir_.Write("eval.jsonl", R"({"messages": [{"role": "user", "content": "Hi"}]})");
  spec_.no_eval = false;
  const Status status = Prepare().status();
  EXPECT_EQ(status.code(), Code::kInvalidArgument);
  EXPECT_EQ(status.reason(), "VALIDATION_FAILED");
  EXPECT_THAT(status.message(), StartsWith("4 problems in the data; the first: "));
  EXPECT_THAT(observer_.problems,
              ElementsAre(StartsWith(dir_.File("text.jsonl:2: ")),
                          StartsWith(dir_.File("chat.jsonl:2: ")),
                          StartsWith(dir_.File("chat.jsonl:4: ")),
                          StartsWith(dir_.File("eval.jsonl:1: "))));
  EXPECT_THAT(*ListDir(dir_.File("cache")), IsEmpty());
}

TEST_F(PrepareData, SeveralThreadsGiveTheSameCache) {
  AddTokenizer();
  std::string text;
  for (int i = 0; i < 3000; ++i) {
    text += StrCat(R"({"messages": [{"role": "user", "content": "Question )",
                   i,
                   R"("}, {"role": "assistant", "content": "Answer )",
                   i * i,
                   "\"}]}\n");
  }
  spec_.data.instruct_data = dir_.Write("a.jsonl", text);
  const auto one = Prepare();
  ASSERT_TRUE(one.ok());
  const std::string bytes = *ReadFile(one->directory + "/tokens.mft");
  ASSERT_TRUE(RemoveTree(one->directory).ok());
  threads_ = 4;
  const auto four = Prepare();
  ASSERT_TRUE(four.ok());
  EXPECT_EQ(bytes, *ReadFile(four->directory + "/tokens.mft"));
}

TEST_F(PrepareData, IdsOutsideTheVocabularyAreProblems) {
  MakeModel(6);
  spec_.data.instruct_data = dir_.Write("a.jsonl", kPreTokenised);
  EXPECT_EQ(Prepare().status().reason(), "VALIDATION_FAILED");
  EXPECT_THAT(observer_.problems, ElementsAre(AllOf(HasSubstr("a.jsonl:1: "), HasSubstr("6"))));
}

TEST_F(PrepareData, AChatWithoutTokenizerIsAProblemThatSaysSo) {
  spec_.data.instruct_data = dir_.Write("a.jsonl", kChat);
  EXPECT_EQ(Prepare().status().reason(), "VALIDATION_FAILED");
  EXPECT_THAT(observer_.problems,
              ElementsAre(AllOf(HasSubstr("a.jsonl:1: "), HasSubstr("tokenizer"))));
}

TEST_F(PrepareData, ATokenizerThatDoesNotFitTheModelIsRefused) {
  AddTokenizer();
  MakeModel(32000);
  spec_.data.instruct_data = dir_.Write("a.jsonl", kChat);
  const Status status = Prepare().status();
  EXPECT_EQ(status.code(), Code::kInvalidArgument);
  EXPECT_THAT(status.message(), AllOf(HasSubstr("32768"), HasSubstr("32000")));
}

TEST_F(PrepareData, DataWithoutATrainableTokenIsRefused) {
  spec_.data.instruct_data = dir_.Write("a.jsonl", R"({"tokens": [1, 5], "mask": [1, 0]})");
  const Status status = Prepare().status();
  EXPECT_EQ(status.reason(), "VALIDATION_FAILED");
  EXPECT_THAT(observer_.problems, ElementsAre(HasSubstr("to train on")));
}

TEST_F(PrepareData, OverlongSamplesAreReported) {
  spec_.data.instruct_data = dir_.Write("a.jsonl", Lines(2, kPreTokenised));
  spec_.seq_len = 2;
  ASSERT_TRUE(Prepare().ok());
  EXPECT_THAT(observer_.warnings,
              ElementsAre(HasSubstr("2 of 2 samples are longer than seq_len 2")));
}

TEST_F(PrepareData, EvaluationDataIsLeftOutUnlessTheJobEvaluates) {
  spec_.data.instruct_data = dir_.Write("a.jsonl", kPreTokenised);
  spec_.data.eval_instruct_data = dir_.File("missing.jsonl");
  EXPECT_TRUE(Prepare().ok());
  spec_.no_eval = false;
  EXPECT_EQ(Prepare().status().code(), Code::kNotFound);
}

TEST_F(PrepareData, AStopLeavesNothingBehind) {
  spec_.data.instruct_data = dir_.Write("a.jsonl", Lines(5000, kPreTokenised));
  observer_.stop_after = 4;  // hashing asks once or twice, then each block of lines
  EXPECT_EQ(Prepare().status().code(), Code::kCancelled);
  EXPECT_THAT(observer_.phases, Contains(kPhaseTokenizing));
  EXPECT_THAT(*ListDir(dir_.File("cache")), IsEmpty());
}

TEST_F(PrepareData, ByHandTheCacheGoesExactlyThere) {
  spec_.data.instruct_data = dir_.Write("a.jsonl", kPreTokenised);
  const auto data = data::PrepareData(
      {.spec = spec_, .cache_root = {}, .directory = dir_.File("out")}, observer_);
  ASSERT_TRUE(data.ok()) << data.status().ToString();
  EXPECT_EQ(data->directory, dir_.File("out"));
  EXPECT_TRUE(TokenCache::Open(dir_.File("out")).ok());
}

TEST_F(PrepareData, AMissingModelOrFileIsNamed) {
  spec_.data.instruct_data = dir_.File("gone.jsonl");
  EXPECT_THAT(Prepare().status().message(), HasSubstr("gone.jsonl"));
  spec_.model_id_or_path = dir_.File("no-model");
  EXPECT_THAT(Prepare().status().message(), HasSubstr("no-model"));
}

}  // namespace
}  // namespace mft
