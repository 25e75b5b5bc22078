// SPDX-License-Identifier: Apache-2.0
// Expected values: mistral-finetune's own packer and loader.
#include "common/dataset/reference_packer.h"

#include <map>
#include <string>

#include <gtest/gtest.h>

#include "common/base/files.h"
#include "common/base/strings.h"
#include "tests/support/cache_builder.h"
#include "tests/support/fixtures.h"
#include "tests/support/temp_dir.h"

namespace mft {
namespace {

using testing::BuildCache;
using testing::Fixture;
using testing::ReadJsonLines;
using testing::ReadSamples;
using testing::TempDir;
using testing::TestSample;

std::string MaskText(const std::vector<uint8_t>& mask) {
  std::string text;
  for (const uint8_t bit : mask) {
    text += bit != 0 ? '1' : '0';
  }
  return text;
}

std::vector<int64_t> Sizes(const MicroBatch& batch) {
  std::vector<int64_t> sizes;
  for (size_t i = 1; i < batch.cu_seqlens.size(); ++i) {
    sizes.push_back(batch.cu_seqlens[i] - batch.cu_seqlens[i - 1]);
  }
  return sizes;
}

void ExpectSame(const MicroBatch& batch, const Json& expected, const std::string& where) {
  EXPECT_EQ(batch.x, expected["x"].get<std::vector<int32_t>>()) << where;
  EXPECT_EQ(batch.y, expected["y"].get<std::vector<int32_t>>()) << where;
  EXPECT_EQ(MaskText(batch.mask), expected["mask"].get<std::string>()) << where;
  EXPECT_EQ(Sizes(batch), expected["sizes"].get<std::vector<int64_t>>()) << where;
}

// What mistral-finetune does with the rest of a source in evaluation; training never needs it.
void Pad(int64_t seq_len, MicroBatch& batch) {
  batch.x.resize(seq_len, 0);
  batch.y.resize(seq_len, 0);
  batch.mask.resize(seq_len, 0);
  batch.cu_seqlens.push_back(static_cast<int32_t>(seq_len));
}

std::vector<MicroBatch> PackFinite(const TokenCache& cache, int64_t seq_len, bool pad) {
  std::vector<MicroBatch> batches;
  ReferencePacker packer(seq_len);
  std::deque<Pack> full;
  for (int64_t i = 0; i < cache.sources()[0].samples; ++i) {
    packer.Add(*cache.sample(0, i), 0, i, full);
  }
  for (const Pack& pack : full) {
    EXPECT_TRUE(AppendRows(cache, pack, batches.emplace_back()).ok());
  }
  if (pad && packer.partial().loss_tokens > 0) {
    EXPECT_TRUE(AppendRows(cache, packer.partial(), batches.emplace_back()).ok());
    Pad(seq_len, batches.back());
  }
  return batches;
}

TEST(ReferencePacker, PacksTheUnitCasesAsTheReference) {
  const TempDir dir;
  for (const Json& unit : ReadJsonLines(Fixture("data/extended/packing_units.jsonl"))) {
    std::vector<TestSample> samples;
    for (const Json& sample : unit["samples"]) {
      samples.push_back({.tokens = sample["tokens"].get<std::vector<int32_t>>()});
      for (const char c : sample["mask"].get<std::string>()) {
        samples.back().mask.push_back(c == '1');
      }
    }
    const std::string name = StrCat("case ", unit["case"].get<int>());
    const auto cache = BuildCache(dir.File(name), {{.files = {samples}}});
    const auto batches =
        PackFinite(*cache, unit["seq_len"].get<int64_t>(), unit["finite"].get<bool>());
    const Json& expected = unit["sequences"];
    if (unit["finite"].get<bool>()) {
      ASSERT_EQ(batches.size(), expected.size()) << name;
    } else {
      ASSERT_GE(batches.size(), expected.size()) << name;
    }
    for (size_t i = 0; i < expected.size(); ++i) {
      ExpectSame(batches[i], expected[i], StrCat(name, ", sequence ", i));
    }
  }
}

class TrainFixture : public ::testing::TestWithParam<std::string> {
 protected:
  std::string File(const std::string& name) const {
    return Fixture("train/" + GetParam() + "/" + name);
  }
  Json config_ = Json::parse(*ReadFile(File("config.json")));
};

TEST_P(TrainFixture, UnshuffledBatchesAreThoseOfTheReference) {
  const TempDir dir;
  const auto cache = BuildCache(dir.File("key"), {{.files = {ReadSamples(File("data.jsonl"))}}});
  std::map<int, std::unique_ptr<Batcher>> ranks;
  std::map<int, std::vector<StepBatch>> steps;
  const auto microbatches = config_["num_microbatches"].get<int64_t>();
  for (const Json& expected : ReadJsonLines(File("batches.jsonl"))) {
    const int rank = expected["rank"].get<int>();
    const auto index = expected["index"].get<int64_t>();
    auto& batcher = ranks[rank];
    if (batcher == nullptr) {
      auto created = Batcher::Create(*cache,
                                     {.seq_len = config_["seq_len"].get<int64_t>(),
                                      .batch_size = config_["batch_size"].get<int64_t>(),
                                      .num_microbatches = microbatches,
                                      .world_size = config_["world"].get<int>(),
                                      .rank = rank,
                                      .packing = "reference",
                                      .shuffle_instruct = false});
      ASSERT_TRUE(created.ok()) << created.status().ToString();
      batcher = std::move(created).value();
    }
    const auto step = batcher->Step(index / microbatches + 1);
    ASSERT_TRUE(step.ok()) << step.status().ToString();
    ExpectSame(
        step->micro[index % microbatches], expected, StrCat("rank ", rank, " index ", index));
  }
}

using FinitePacking = TrainFixture;

TEST_P(FinitePacking, IsThatOfTheReference) {
  const TempDir dir;
  const auto cache = BuildCache(dir.File("key"), {{.files = {ReadSamples(File("data.jsonl"))}}});
  const auto batches = PackFinite(*cache, config_["seq_len"].get<int64_t>(), true);
  const auto expected = ReadJsonLines(File("eval_batches.jsonl"));
  ASSERT_EQ(batches.size(), expected.size());
  for (size_t i = 0; i < batches.size(); ++i) {
    ExpectSame(batches[i], expected[i], StrCat("index ", i));
  }
}

std::string CaseName(const ::testing::TestParamInfo<std::string>& param) {
  std::string name = param.param;
  for (char& c : name) {
    c = std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
  }
  return name;
}

INSTANTIATE_TEST_SUITE_P(Core,
                         TrainFixture,
                         ::testing::Values("dense", "dense-headdim", "two-ranks", "full", "moe"),
                         CaseName);
const auto kExtended = ::testing::Values("extended/dense-tiny",
                                         "extended/dense-headdim",
                                         "extended/dense-headdim-two-ranks",
                                         "extended/moe-tiny");
INSTANTIATE_TEST_SUITE_P(Extended, TrainFixture, kExtended, CaseName);
INSTANTIATE_TEST_SUITE_P(Extended, FinitePacking, kExtended, CaseName);

// The end-to-end loader of finetune-spec 9: five samples, seed 0, shuffled, two ranks, seq_len 24.
std::vector<TestSample> FiveQuestions() {
  std::vector<TestSample> samples;
  for (const int32_t digit : {29502, 29508, 29518, 29538, 29549}) {
    samples.push_back(
        {.tokens = {1, 3, 23246, 2242, 29473, digit, 4, 27075, 29473, digit, 29491, 2},
         .mask = {0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1}});
  }
  return samples;
}

TEST(ReferencePacking, ShufflesAsTheReference) {
  const TempDir dir;
  const auto cache = BuildCache(dir.File("key"), {{.files = {FiveQuestions()}}});
  auto batcher = Batcher::Create(*cache, {.seq_len = 24, .world_size = 2, .packing = "reference"});
  ASSERT_TRUE(batcher.ok());
  const auto first = (*batcher)->Step(1);
  ASSERT_TRUE(first.ok());
  const MicroBatch& batch = first->micro[0];
  EXPECT_EQ(Sizes(batch), (std::vector<int64_t>{11, 11, 2}));
  EXPECT_EQ(MaskText(batch.mask), "000000111110000001111111");
  EXPECT_EQ(batch.x[5], 29502) << "sample 0";
  EXPECT_EQ(batch.x[16], 29549) << "sample 4";
  EXPECT_EQ(batch.x[22], 4) << "tail of sample 2";
  EXPECT_EQ(Sizes((*batcher)->Step(2)->micro[0]), (std::vector<int64_t>{3, 11, 10}));
  EXPECT_EQ(Sizes((*batcher)->Step(3)->micro[0]), (std::vector<int64_t>{1, 11, 11, 1}));
}

TEST(ReferencePacking, DealsTheLinesOfEachFileToTheRanks) {
  const TempDir dir;
  // Two files of three lines; rank 1 of 2 gets line 1 of each, and what was chunked from it.
  const auto sample = [](int32_t id, SampleOrigin origin = {.line = -1}) {
    return TestSample{.tokens = {1, id}, .origin = origin};
  };
  const auto cache = BuildCache(
      dir.File("key"),
      {{.files = {{sample(10), sample(11), sample(12), sample(13, {.line = 1, .chunked = true})},
                  {sample(20), sample(21), sample(22)}}}});
  auto batcher = Batcher::Create(*cache,
                                 {.seq_len = 1,
                                  .world_size = 2,
                                  .rank = 1,
                                  .packing = "reference",
                                  .shuffle_instruct = false});
  ASSERT_TRUE(batcher.ok());
  std::vector<int32_t> targets;
  for (int step = 1; step <= 4; ++step) {
    targets.push_back((*batcher)->Step(step)->micro[0].y[0]);
  }
  EXPECT_EQ(targets, (std::vector<int32_t>{11, 13, 21, 11}));
}

}  // namespace
}  // namespace mft
