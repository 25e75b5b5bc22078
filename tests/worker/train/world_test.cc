// SPDX-License-Identifier: Apache-2.0
#include "worker/train/world.h"

#include <map>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace mft {
namespace {

using ::testing::HasSubstr;

Result<World> Read(std::map<std::string, std::string> variables) {
  return ReadWorld([&](const std::string& name) {
    const auto found = variables.find(name);
    return found == variables.end() ? std::nullopt : std::optional(found->second);
  });
}

TEST(ReadWorld, IsOneRankWhereNobodySaysOtherwise) {
  const World world = Read({}).value();
  EXPECT_EQ(world.rank, 0);
  EXPECT_EQ(world.size, 1);
  EXPECT_EQ(world.local_size, 1);
}

TEST(ReadWorld, TakesTorchrunsVariables) {
  const World world = Read({{"RANK", "5"},
                            {"WORLD_SIZE", "8"},
                            {"LOCAL_WORLD_SIZE", "4"},
                            {"MASTER_ADDR", "node1"},
                            {"MASTER_PORT", "29500"},
                            {"TORCHELASTIC_RUN_ID", "r1"},
                            {"SLURM_STEP_NUM_TASKS", "2"},
                            {"SLURM_PROCID", "1"}})
                          .value();
  EXPECT_EQ(world.rank, 5);
  EXPECT_EQ(world.size, 8);
  EXPECT_EQ(world.local_size, 4);
  EXPECT_EQ(world.master_address, "node1");
  EXPECT_EQ(world.master_port, 29500);
  EXPECT_EQ(world.run_id, "r1");
}

TEST(ReadWorld, TakesTheVariablesOfAStepOfSrun) {
  std::map<std::string, std::string> step = {{"SLURM_STEP_NUM_TASKS", "5"},
                                             {"SLURM_PROCID", "4"},
                                             {"SLURM_NODEID", "2"},
                                             {"SLURM_STEP_TASKS_PER_NODE", "2(x2),1"},
                                             {"SLURM_STEP_NODELIST", "gpu[07-09]"},
                                             {"SLURM_JOB_ID", "4711"},
                                             {"SLURM_STEP_ID", "0"}};
  World world = Read(step).value();
  EXPECT_EQ(world.rank, 4);
  EXPECT_EQ(world.size, 5);
  EXPECT_EQ(world.local_size, 1);
  EXPECT_EQ(world.master_address, "gpu07");
  EXPECT_GE(world.master_port, 20'000);
  EXPECT_LT(world.master_port, 32'000);
  EXPECT_EQ(world.run_id, "slurm-4711.0");
  const int port = world.master_port;
  step["SLURM_STEP_ID"] = "1";
  EXPECT_NE(Read(step).value().master_port, port);
  step["MASTER_PORT"] = "1234";
  step["MASTER_ADDR"] = "10.0.0.1";
  world = Read(step).value();
  EXPECT_EQ(world.master_port, 1234);
  EXPECT_EQ(world.master_address, "10.0.0.1");
}

TEST(ReadWorld, EmptyVariablesAreNotSaid) {
  const World world = Read({{"WORLD_SIZE", ""},
                            {"MASTER_ADDR", ""},
                            {"MASTER_PORT", ""},
                            {"SLURM_STEP_NUM_TASKS", "2"},
                            {"SLURM_PROCID", "1"},
                            {"SLURM_STEP_NODELIST", "n[1-2]"}})
                          .value();
  EXPECT_EQ(world.size, 2);
  EXPECT_EQ(world.master_address, "n1");
  EXPECT_GT(world.master_port, 1024);
}

// sbatch gives its script a rank too, and nobody else will come.
TEST(ReadWorld, ABatchScriptIsNoStep) {
  EXPECT_EQ(Read({{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "4"}}).value().size, 1);
}

TEST(ReadWorld, NamesWhatIsWrong) {
  const auto problem = [](std::map<std::string, std::string> variables) {
    const Status status = Read(std::move(variables)).status();
    EXPECT_EQ(status.code(), Code::kInvalidArgument);
    return status.message();
  };
  EXPECT_THAT(problem({{"WORLD_SIZE", "two"}}), HasSubstr("WORLD_SIZE must be a number"));
  EXPECT_THAT(problem({{"WORLD_SIZE", "0"}}), HasSubstr("not \"0\""));
  EXPECT_THAT(problem({{"WORLD_SIZE", "2"}}), HasSubstr("RANK is not set"));
  EXPECT_THAT(problem({{"WORLD_SIZE", "2"}, {"RANK", "2"}}), HasSubstr("from 0 to 1"));
  EXPECT_THAT(problem({{"SLURM_STEP_NUM_TASKS", "2"}}), HasSubstr("SLURM_PROCID is not set"));
  EXPECT_THAT(problem({{"MFT_RANK_TRANSPORT", "udp"}}), HasSubstr("must be tcp or shm"));
}

TEST(CheckMeetingPlace, NamesWhatIsMissing) {
  World world = Read({{"WORLD_SIZE", "2"}, {"RANK", "1"}}).value();
  EXPECT_THAT(CheckMeetingPlace(world).message(), HasSubstr("MASTER_ADDR is not set"));
  world.master_address = "h";
  EXPECT_THAT(CheckMeetingPlace(world).message(), HasSubstr("MASTER_PORT is not set"));
  world.master_port = 1;
  EXPECT_TRUE(CheckMeetingPlace(world).ok());
  EXPECT_TRUE(CheckMeetingPlace({}).ok());
}

TEST(FirstHost, OfANodelist) {
  EXPECT_EQ(FirstHost(""), "");
  EXPECT_EQ(FirstHost("a"), "a");
  EXPECT_EQ(FirstHost("a,b"), "a");
  EXPECT_EQ(FirstHost("node[03-05,9],other"), "node03");
  EXPECT_EQ(FirstHost("node[3,5]"), "node3");
  EXPECT_EQ(FirstHost("rack[1-2]-a,b"), "rack1-a");
  EXPECT_EQ(FirstHost("node["), "node");
}

TEST(TasksOfNode, CountsThroughRepetitions) {
  EXPECT_EQ(TasksOfNode("4", 0), 4);
  EXPECT_EQ(TasksOfNode("2(x3),1", 2), 2);
  EXPECT_EQ(TasksOfNode("2(x3),1", 3), 1);
  EXPECT_EQ(TasksOfNode("2(x3),1", 4), std::nullopt);
  for (const char* bad : {"", "x", "2(x", "2(x)", "2(x0)", "-1", "2(x3"}) {
    EXPECT_EQ(TasksOfNode(bad, 0), std::nullopt) << bad;
  }
}

}  // namespace
}  // namespace mft
