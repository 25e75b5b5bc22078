// SPDX-License-Identifier: Apache-2.0
// The frozen weights split among ranks: threads of this process, and processes where one dies.
#include <chrono>
#include <csignal>
#include <cstdio>
#include <ostream>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include <gtest/gtest.h>

#include "common/base/strings.h"
#include "tests/support/fixtures.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_model.h"
#include "tests/worker/comm/comm_testing.h"
#include "tests/worker/model/weight_testing.h"
#include "worker/comm/communicator.h"
#include "worker/model/status_error.h"
#include "worker/model/weight_source.h"

namespace mft {
namespace {

using testing::ExpectSameBlock;
using testing::Logits;
using testing::OnRanks;
using testing::TempDir;

std::shared_ptr<const ModelWeights> Open(const std::string& model) {
  return ModelWeights::Open(model, ReadModelParams(model).value()).value();
}

// A dense model in every format.
class Models {
 public:
  Models() {
    ModelParams params = testing::TinyParams(64);
    params.n_layers = 5;
    testing::WriteTinyModel(dir_.File("fp32"), params);
    testing::WriteRounded(dir_.File("fp32"), dir_.File("bf16"), DType::kBF16);
    testing::WriteRounded(dir_.File("fp32"), dir_.File("fp16"), DType::kF16);
  }
  std::vector<std::string> all() const {
    return {dir_.File("fp32"),
            dir_.File("bf16"),
            dir_.File("fp16"),
            testing::Fixture("train/moe/model"),
            testing::Fixture("train/dense-bf16/model")};
  }

 private:
  TempDir dir_;
};

class ShardedWeights : public ::testing::TestWithParam<std::tuple<RankTransport, int64_t>> {
 protected:
  static void OnAll(const testing::RankWork& work) {
    OnRanks(std::get<0>(GetParam()), std::get<1>(GetParam()), work);
  }
};

INSTANTIATE_TEST_SUITE_P(All,
                         ShardedWeights,
                         ::testing::Combine(::testing::Values(RankTransport::kTcp,
                                                              RankTransport::kSharedMemory),
                                            ::testing::Values(1, 2, 3)),
                         [](const auto& param) {
                           return StrCat(testing::TestNameOf(std::get<0>(param.param)),
                                         std::get<1>(param.param));
                         });

// Steps as training takes them, evaluations, and blocks in no order at all.
void LookAtAll(WeightSource& sharded, WeightSource& resident) {
  const int64_t layers = resident.params().n_layers;
  const auto look = [&](int64_t block, Phase phase) {
    const BlockLease lease = sharded.Acquire(block, phase);
    ExpectSameBlock(*lease, *resident.Acquire(block, phase), resident.params().dim);
  };
  for (int step = 0; step < 3; ++step) {
    for (int64_t block = 0; block < layers; ++block) {
      look(block, Phase::kForward);
    }
    for (int64_t block = layers - 1; step < 2 && block >= 0; --block) {
      look(block, Phase::kBackward);
    }
  }
  for (int64_t i = 0; i < 50; ++i) {
    look(i * 7919 % 104729 % layers, i % 3 == 0 ? Phase::kBackward : Phase::kForward);
  }
}

TEST_P(ShardedWeights, AreThoseOfTheResidentSourceInEveryOrder) {
  const Models models;
  OnAll([&](Communicator& comm) {
    for (const std::string& model : models.all()) {
      SCOPED_TRACE(model);
      const auto resident = MakeResidentWeights(Open(model));
      const auto sharded = MakeShardedWeights(Open(model), comm);
      LookAtAll(*sharded, *resident);
    }
    EXPECT_TRUE(comm.background().Barrier().ok()) << "all ranks made the same calls";
  });
}

TEST_P(ShardedWeights, GiveTheLogitsOfTheOtherSources) {
  const Models models;
  for (const std::string& model : {models.all()[0], models.all()[1]}) {
    const std::vector<float> expected = Logits(*MakeResidentWeights(Open(model)));
    EXPECT_EQ(Logits(*MakeOffloadedWeights(Open(model))), expected);
    OnAll([&](Communicator& comm) {
      const auto sharded = MakeShardedWeights(Open(model), comm);
      EXPECT_EQ(Logits(*sharded), expected);
    });
  }
}

// Sums of the main thread go on beside the gathers; one rank has nothing to compute.
TEST_P(ShardedWeights, AreGatheredBesideSums) {
  const Models models;
  OnAll([&](Communicator& comm) {
    const auto resident = MakeResidentWeights(Open(models.all()[0]));
    const auto sharded = MakeShardedWeights(Open(models.all()[0]), comm);
    const int64_t layers = resident->params().n_layers;
    std::vector<float> values(10'000, 1.0F);
    for (int step = 0; step < 5; ++step) {
      if (comm.rank() == 0 && step % 2 == 1) {
        PassOverBlocks(*sharded, true);
      } else {
        for (int64_t at = 0; at < 2 * layers; ++at) {
          const bool forward = at < layers;
          const int64_t block = forward ? at : 2 * layers - 1 - at;
          const BlockLease lease =
              sharded->Acquire(block, forward ? Phase::kForward : Phase::kBackward);
          ExpectSameBlock(
              *lease, *resident->Acquire(block, Phase::kForward), resident->params().dim);
        }
      }
      ASSERT_TRUE(comm.AllReduceSum(std::span(values)).ok());
    }
  });
}

TEST(ShardedWeightsMemory, IsAPartOfTheBlocksTwoOfThemAndTheHead) {
  const TempDir dir;
  ModelParams params = testing::TinyParams(64);
  params.n_layers = 12;
  testing::WriteTinyModel(dir.path(), params);
  OnRanks(RankTransport::kSharedMemory, 2, [&](Communicator& comm) {
    const auto resident = MakeResidentWeights(Open(dir.path()));
    const auto sharded = MakeShardedWeights(Open(dir.path()), comm);
    const int64_t head = 2 * params.vocab_size * params.dim * 4;
    EXPECT_NEAR(static_cast<double>(sharded->resident_bytes() - head),
                static_cast<double>(resident->resident_bytes() - head) * (0.5 + 2.0 / 12),
                4096);
  });
}

struct LossCase {
  const char* name;
  int64_t lost;
  int signal;
};
void PrintTo(const LossCase& loss, std::ostream* out) {
  *out << loss.name;
}
class LostShards : public ::testing::TestWithParam<std::tuple<RankTransport, LossCase>> {};

INSTANTIATE_TEST_SUITE_P(
    All,
    LostShards,
    ::testing::Combine(::testing::Values(RankTransport::kTcp, RankTransport::kSharedMemory),
                       ::testing::Values(LossCase{"HubKilled", 0, SIGKILL},
                                         LossCase{"OtherKilled", 1, SIGKILL},
                                         LossCase{"OtherStopped", 2, SIGSTOP})),
    [](const auto& param) {
      return StrCat(testing::TestNameOf(std::get<0>(param.param)), std::get<1>(param.param).name);
    });

// Passes over the blocks until that fails; true where it fails as it must.
bool FailsNaming(int64_t lost, Communicator& comm, const std::string& model) {
  const auto sharded = MakeShardedWeights(Open(model), comm);
  try {
    for (;;) {
      PassOverBlocks(*sharded, true);
    }
  } catch (const StatusError& error) {
    std::fprintf(stderr, "rank %d: %s\n", static_cast<int>(comm.rank()), error.what());
    // Longer than the watch waits for somebody to know of it.
    std::this_thread::sleep_for(std::chrono::milliseconds(500));
    return error.status().reason() == kReasonRankLost &&
           error.status().message().starts_with(StrCat("rank ", lost, " "));
  }
}

TEST_P(LostShards, AreNamedByEveryOtherRank) {
  const auto [transport, loss] = GetParam();
  const Models models;
  const std::string model = models.all()[0];
  const testing::Meeting meeting;
  std::vector<pid_t> pids;
  for (int64_t rank = 0; rank < 3; ++rank) {
    RankOptions options = meeting.Options(rank, 3, transport);
    options.leave_ms = 200;
    pids.push_back(testing::StartRankProcess(options, [&, lost = loss.lost](Communicator& comm) {
      return FailsNaming(lost, comm, model) ? 0 : 97;
    }));
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(500));
  kill(pids[static_cast<size_t>(loss.lost)], loss.signal);
  const auto begin = std::chrono::steady_clock::now();
  for (int64_t rank = 0; rank < 3; ++rank) {
    if (rank != loss.lost) {
      EXPECT_EQ(testing::ExitCodeOf(pids[static_cast<size_t>(rank)]), 0) << "rank " << rank;
    }
  }
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(10));
  kill(pids[static_cast<size_t>(loss.lost)], SIGKILL);
  EXPECT_EQ(testing::ExitCodeOf(pids[static_cast<size_t>(loss.lost)]), 1000 + SIGKILL);
}

}  // namespace
}  // namespace mft
