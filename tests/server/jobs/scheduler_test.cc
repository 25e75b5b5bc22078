// SPDX-License-Identifier: Apache-2.0
#include "server/jobs/scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace mft::server {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

WaitingJob Cpu(std::string id, int cores, int64_t created, std::string priority = "normal") {
  return {.job_id = std::move(id),
          .priority = std::move(priority),
          .created_micros = created,
          .kind = AttemptKind::kTrain,
          .needs = {.device = "cpu", .ranks = 1, .threads = cores, .cores = cores}};
}

WaitingJob Gpu(std::string id, int gpus, int64_t created) {
  return {.job_id = std::move(id),
          .priority = "normal",
          .created_micros = created,
          .kind = AttemptKind::kTrain,
          .needs = {.device = "cuda", .ranks = gpus, .threads = 1, .cores = 0}};
}

WaitingJob Prepare(std::string id, int64_t created) {
  return {.job_id = std::move(id),
          .priority = "normal",
          .created_micros = created,
          .kind = AttemptKind::kPrepare,
          .needs = {}};
}

std::vector<Lease> Gpus(int count) {
  std::vector<Lease> gpus;
  for (int i = 0; i < count; ++i) {
    gpus.push_back(
        {.id = "gpu:" + std::to_string(i), .uuid = "GPU-" + std::to_string(i), .cores = 0});
  }
  return gpus;
}

std::vector<std::string> Started(const Plan& plan) {
  std::vector<std::string> ids;
  for (const JobStart& start : plan.starts) {
    ids.push_back(start.job_id);
  }
  return ids;
}

TEST(Schedule, StartsHigherPriorityBeforeOlder) {
  const Plan plan =
      Schedule({Cpu("old", 2, 1), Cpu("low", 2, 0, "low"), Cpu("urgent", 2, 5, "urgent")},
               {.prepare_slots = 0, .cores = 4, .gpus = {}});
  EXPECT_THAT(Started(plan), ElementsAre("urgent", "old"));
  EXPECT_EQ(plan.waiting.at("low"), "next in line for 2 cores: 0 are free");
}

TEST(Schedule, ASmallJobDoesNotOvertakeALargeOneThatWaits) {
  const Plan plan = Schedule({Cpu("large", 4, 1), Cpu("small", 1, 2)},
                             {.prepare_slots = 0, .cores = 3, .gpus = {}});
  EXPECT_THAT(Started(plan), IsEmpty());
  EXPECT_EQ(plan.waiting.at("large"), "next in line for 4 cores: 3 are free");
  EXPECT_EQ(plan.waiting.at("small"), "waits for 1 core behind 1 job: 3 are free");
}

TEST(Schedule, GivesAllGpusOfAJobOrNone) {
  const Plan plan = Schedule({Gpu("four", 4, 1), Gpu("two", 2, 2)},
                             {.prepare_slots = 0, .cores = 8, .gpus = Gpus(3)});
  EXPECT_THAT(Started(plan), IsEmpty());
  const Plan next = Schedule({Gpu("two", 2, 2), Gpu("one", 1, 3)},
                             {.prepare_slots = 0, .cores = 8, .gpus = Gpus(3)});
  ASSERT_THAT(Started(next), ElementsAre("two", "one"));
  EXPECT_EQ(next.starts[0].leases, (std::vector<Lease>{Gpus(3)[0], Gpus(3)[1]}));
  EXPECT_EQ(next.starts[1].leases, (std::vector<Lease>{Gpus(3)[2]}));
}

TEST(Schedule, KindsOfDevicesDoNotHoldEachOtherBack) {
  const Plan plan = Schedule({Gpu("gpu", 1, 1), Cpu("cpu", 2, 2), Prepare("data", 3)},
                             {.prepare_slots = 1, .cores = 2, .gpus = {}});
  EXPECT_THAT(Started(plan), ElementsAre("cpu", "data"));
  EXPECT_TRUE(plan.starts[1].leases.empty());
}

TEST(Schedule, PreparationsHaveTheirOwnSlots) {
  const Plan plan = Schedule({Prepare("a", 1), Prepare("b", 2), Prepare("c", 3)},
                             {.prepare_slots = 2, .cores = 0, .gpus = {}});
  EXPECT_THAT(Started(plan), ElementsAre("a", "b"));
  EXPECT_EQ(plan.waiting.at("c"), "next in line for data preparation");
}

TEST(NeedsOf, SharesTheCoresBetweenTheRanks) {
  JobSpec spec;
  spec.mftd.ranks = 2;
  const Result<Needs> needs = NeedsOf(spec, {.cores = 8, .gpus = 0});
  ASSERT_TRUE(needs.ok());
  EXPECT_EQ(needs->device, "cpu");
  EXPECT_EQ(needs->threads, 4);
  EXPECT_EQ(needs->cores, 8);
}

TEST(NeedsOf, AJobLargerThanTheNodeHoldsTheWholeNode) {
  JobSpec spec;
  spec.mftd.ranks = 4;
  spec.mftd.threads = 3;
  const Result<Needs> needs = NeedsOf(spec, {.cores = 2, .gpus = 0});
  ASSERT_TRUE(needs.ok());
  EXPECT_EQ(needs->threads, 3);
  EXPECT_EQ(needs->cores, 2);
}

TEST(NeedsOf, AutoTakesGpusWhereThereAreEnough) {
  JobSpec spec;
  spec.mftd.ranks = 2;
  EXPECT_EQ(NeedsOf(spec, {.cores = 8, .gpus = 2})->device, "cuda");
  EXPECT_EQ(NeedsOf(spec, {.cores = 8, .gpus = 1})->device, "cpu");
}

TEST(NeedsOf, DealsTheRanksOutEvenlyWhereOneNodeIsTooSmall) {
  JobSpec spec;
  spec.mftd.ranks = 6;
  const NodeCapacity node{.cores = 8, .gpus = 4, .ranks_per_node = 4};
  const Result<Needs> needs = NeedsOf(spec, node);
  ASSERT_TRUE(needs.ok());
  EXPECT_EQ(needs->device, "cuda");
  EXPECT_EQ(needs->ranks_per_node, 3);
  EXPECT_EQ(needs->threads, 2);
  spec.mftd.ranks = 4;
  EXPECT_EQ(NeedsOf(spec, node)->ranks_per_node, 0) << "they fit on one";
  EXPECT_EQ(NeedsOf(spec, {.cores = 8, .gpus = 4})->ranks_per_node, 0);
}

TEST(NeedsOf, CudaOnSeveralNodesCountsTheGpusOfOne) {
  JobSpec spec;
  spec.mftd.device = "cuda";
  spec.mftd.ranks = 8;
  const NodeCapacity node{.cores = 8, .gpus = 2, .ranks_per_node = 4};
  EXPECT_EQ(NeedsOf(spec, node).status().message(),
            "mftd.device is cuda and mftd.ranks is 8, 4 on each node, but a node has 2 GPUs");
}

TEST(NeedsOf, CudaWithoutEnoughGpusIsRefusedWithBothNumbers) {
  JobSpec spec;
  spec.mftd.device = "cuda";
  spec.mftd.ranks = 2;
  const Status status = NeedsOf(spec, {.cores = 8, .gpus = 1}).status();
  EXPECT_EQ(status.code(), Code::kResourceExhausted);
  EXPECT_EQ(status.reason(), "NOT_ENOUGH_DEVICES");
  EXPECT_EQ(status.message(), "mftd.device is cuda and mftd.ranks is 2, but the node has 1 GPU");
}

TEST(Schedule, AnOuterQueueTakesTrainingsWhateverTheNodeHas) {
  const Plan plan = Schedule({Cpu("third", 64, 3),
                              Gpu("second", 8, 2),
                              Cpu("first", 64, 5, "urgent"),
                              Prepare("data", 1),
                              Prepare("more", 2)},
                             {.prepare_slots = 1, .cores = 1, .gpus = {}, .outer_queue = 2});
  EXPECT_THAT(Started(plan), ElementsAre("first", "data", "second"));
  for (const JobStart& start : plan.starts) {
    EXPECT_THAT(start.leases, IsEmpty()) << start.job_id;
  }
  EXPECT_EQ(plan.waiting.at("third"), "next in line for a place in Slurm's queue");
  EXPECT_EQ(plan.waiting.count("more"), 1u);
}

}  // namespace
}  // namespace mft::server
