// SPDX-License-Identifier: Apache-2.0
// What `mft-worker train` says of a token cache that it cannot train on: the daemon prepares the
// data again where the reason is DATA_CACHE_GONE (server/jobs/retry.cc).
#include <gtest/gtest.h>

#include "common/base/files.h"
#include "common/dataset/token_cache.h"
#include "common/dataset/token_cache_format.h"
#include "tests/support/temp_dir.h"
#include "tests/worker/train/train_run.h"

namespace mft {
namespace {

using testing::Ended;
using testing::TempDir;
using testing::TrainRun;

void ExpectGone(const TrainRun& run, const Ended& ended, Code code) {
  EXPECT_EQ(ended.exit_code, ExitCodeFor(code)) << ended.log;
  const auto finals = run.Records<FinalRecord>();
  ASSERT_EQ(finals.size(), 1U);
  EXPECT_EQ(finals[0].outcome, "failed");
  EXPECT_EQ(finals[0].code, static_cast<int>(code));
  EXPECT_EQ(finals[0].reason, "DATA_CACHE_GONE");
  EXPECT_NE(finals[0].message.find(run.data_cache), std::string::npos) << finals[0].message;
}

// Changes one bit of the file, so that a token becomes another one of the vocabulary.
void Damage(const TrainRun& run, size_t offset) {
  const std::string path = JoinPath(run.data_cache, token_cache_format::kFileName);
  std::string bytes = *ReadFile(path);
  bytes.at(offset) ^= 1;
  EXPECT_TRUE(WriteFileAtomic(path, bytes).ok());
}

TEST(DataCacheGone, IsSaidOfACacheThatIsNotThere) {
  TempDir dir;
  TrainRun run(dir.path() + "/run", "dense");
  run.data_cache = dir.File("evicted");
  const Ended ended = run.Run();
  ExpectGone(run, ended, Code::kNotFound);
}

TEST(DataCacheGone, IsSaidOfADamagedSampleBeforeItIsTrainedOn) {
  TempDir dir;
  for (const char* packing : {"reference", "whole"}) {
    TrainRun run(dir.path() + "/" + packing, "dense");
    run.spec.mftd.packing = packing;
    run.spec.no_eval = true;
    run.spec.max_steps = 50;  // every sample's turn comes
    Damage(run, sizeof(token_cache_format::Header) + 4);
    const Ended ended = run.Run();
    ExpectGone(run, ended, Code::kDataLoss);
    EXPECT_FALSE(PathExists(run.RunFile("checkpoints"))) << packing;
  }
}

TEST(DataCacheGone, IsSaidOfADamagedEvaluationSample) {
  TempDir dir;
  TrainRun run(dir.path() + "/run", "dense");
  const auto cache = TokenCache::Open(run.data_cache).value();
  ASSERT_TRUE(cache->VerifyIndex().ok());
  size_t training = 0;  // bytes of the training samples, which come first
  for (int64_t i = 0; i < cache->sources()[0].samples; ++i) {
    training += static_cast<size_t>((cache->info(0, i).length * 5 + 3) / 4 * 4);
  }
  Damage(run, sizeof(token_cache_format::Header) + training + 4);
  run.spec.no_eval = false;
  const Ended ended = run.Run();
  ExpectGone(run, ended, Code::kDataLoss);
  EXPECT_TRUE(run.Records<StepRecord>().empty());
}

}  // namespace
}  // namespace mft
