// SPDX-License-Identifier: Apache-2.0
#include "server/exec/slurm_job.h"

#include <stdlib.h>
#include <sys/stat.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/base/files.h"
#include "common/base/strings.h"
#include "server/exec/slurm_client.h"
#include "tests/support/temp_dir.h"

namespace mft::server {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;

const std::string kId = "0123456789abcdef0123456789abcdef";
const std::string kOther = "ffffffffffffffffffffffffffffffff";

SlurmRequest Request() {
  return {.attempt_dir = "/state/jobs/j/attempts/0001",
          .attempt_id = kId,
          .runner = "/opt/mft/mft-runner",
          .secret_path = "",
          .comment = "mftd job j attempt 1",
          .cuda = false,
          .ranks = 2,
          .ranks_per_node = 0,
          .threads = 4,
          .grace_ms = 130'000,
          .time_limit_ms = 0,
          .low_priority = false};
}

TEST(SlurmJob, AsksForWhatTheAttemptNeeds) {
  const std::vector<std::string> words = SbatchArguments({}, Request(), "/s.sh");
  EXPECT_THAT(words,
              ElementsAre("--parsable",
                          "--nodes=1",
                          "--ntasks=2",
                          "--cpus-per-task=4",
                          "--job-name=mft-" + kId,
                          "--comment=mftd job j attempt 1",
                          "--chdir=/state/jobs/j/attempts/0001",
                          "--output=/state/jobs/j/attempts/0001/runner.log",
                          "--error=/state/jobs/j/attempts/0001/runner.log",
                          "--open-mode=append",
                          "--export=ALL",
                          "--no-requeue",
                          "--signal=B:TERM@130",
                          "/s.sh"));
}

TEST(SlurmJob, AsksForTheNodesThatTheRanksNeed) {
  SlurmConfig config;
  config.memory_gib = 64;
  SlurmRequest request = Request();
  request.cuda = true;
  request.ranks = 7;
  request.ranks_per_node = 4;
  std::vector<std::string> words = SbatchArguments(config, request, "/s.sh");
  words.resize(7);
  EXPECT_THAT(words,
              ElementsAre("--parsable",
                          "--nodes=2",
                          "--ntasks=7",
                          "--ntasks-per-node=4",
                          "--cpus-per-task=4",
                          "--gres=gpu:4",
                          "--mem=256G"));
}

TEST(SlurmJob, AddsGpusMemoryAndTheSitesOwnWords) {
  SlurmConfig config;
  config.partition = "gpu";
  config.account = "nlp";
  config.qos = "high";
  config.gres = "gpu:h100";
  config.memory_gib = 64;
  config.arguments = {"--constraint=nvlink"};
  SlurmRequest request = Request();
  request.cuda = true;
  request.low_priority = true;
  const std::vector<std::string> words = SbatchArguments(config, request, "/s.sh");
  for (const char* word : {"--gres=gpu:h100:2",
                           "--mem=128G",
                           "--partition=gpu",
                           "--account=nlp",
                           "--qos=high",
                           "--nice",
                           "--constraint=nvlink"}) {
    EXPECT_THAT(words, Contains(word));
  }
}

TEST(SlurmJob, TheSiteMayOverrideResourcesButNotTheName) {
  SlurmConfig config;
  config.arguments = {"--ntasks=1", "--job-name=mine", "--requeue"};
  const std::vector<std::string> words = SbatchArguments(config, Request(), "/s.sh");
  const auto at = [&words](const std::string& word) {
    return std::find(words.begin(), words.end(), word) - words.begin();
  };
  EXPECT_LT(at("--ntasks=2"), at("--ntasks=1")) << "sbatch takes the last";
  EXPECT_LT(at("--job-name=mine"), at("--job-name=mft-" + kId));
  EXPECT_LT(at("--requeue"), at("--no-requeue"));
}

TEST(SlurmJob, SlurmsLimitLiesBehindTheRunnersOwn) {
  SlurmRequest request = Request();
  EXPECT_THAT(SbatchArguments({}, request, "/s.sh"), Not(Contains(StartsWith("--time="))));
  request.time_limit_ms = 600'000;
  // 600 s, 130 s of grace before the end, two minutes to start and for Slurm's rounding.
  EXPECT_THAT(SbatchArguments({}, request, "/s.sh"), Contains("--time=15"));
  request.grace_ms = 100'000'000;
  EXPECT_THAT(SbatchArguments({}, request, "/s.sh"), Contains("--signal=B:TERM@65535"));
}

TEST(SlurmJob, SlurmDoesNotReplaceAnythingInPaths) {
  SlurmRequest request = Request();
  request.attempt_dir = "/state/100%j";
  EXPECT_THAT(SbatchArguments({}, request, "/s.sh"), Contains("--output=/state/100%%j/runner.log"));
}

TEST(SlurmJob, TheScriptBecomesTheRunner) {
  EXPECT_EQ(SlurmScript(Request()),
            "#!/bin/sh\n# Written by mftd, run by Slurm.\nexport MFT_ATTEMPT='" + kId +
                "'\nexec '/opt/mft/mft-runner' --attempt-dir '/state/jobs/j/attempts/0001'\n");
}

// A shell is the judge.
TEST(SlurmJob, HostilePathsStayOneWord) {
  const testing::TempDir temp;
  const std::string dir = temp.File("a $(touch pwned) 'b' \"c\" `d`;e");
  ASSERT_TRUE(MakeDirs(dir).ok());
  const std::string runner = JoinPath(dir, "mft-runner");
  ASSERT_TRUE(
      WriteFileAtomic(
          runner, "#!/bin/sh\nprintf '%s\\n' \"$@\" > \"$2/said\"; cat <&3 >> \"$2/said\"\n", 0755)
          .ok());
  SlurmRequest request = Request();
  request.attempt_dir = dir;
  request.runner = runner;
  request.secret_path = JoinPath(dir, "the key");
  ASSERT_TRUE(WriteFileAtomic(request.secret_path, "s3cret").ok());
  const std::string script = temp.Write("s.sh", SlurmScript(request));
  ASSERT_EQ(system(StrCat("cd ", temp.File("."), " && sh s.sh").c_str()), 0);
  EXPECT_EQ(ReadFile(JoinPath(dir, "said")).value(),
            StrCat("--attempt-dir\n", dir, "\n--secret-fd\n3\ns3cret"));
  EXPECT_FALSE(PathExists(temp.File("pwned")));
  EXPECT_FALSE(PathExists(JoinPath(dir, "pwned")));
}

TEST(SlurmJob, ReadsTheAnswerOfSbatch) {
  EXPECT_EQ(*ParseSbatch("17\n"), "17");
  EXPECT_EQ(*ParseSbatch("17;cluster\n"), "17");
  for (const char* bad : {"", "\n", "Submitted batch job 17", "17x", "-1", "; 17", "\xff\xfe"}) {
    EXPECT_FALSE(ParseSbatch(bad).ok()) << bad;
  }
}

TEST(SlurmJob, ReadsTheQueue) {
  const SlurmJobs jobs = ParseSqueue(
      StrCat("7|RUNNING|mft-", kId, "|n[1-2]|None\n", "8|PENDING|mft-", kOther, "||(Priority)\n"));
  ASSERT_EQ(jobs.size(), 2u);
  EXPECT_EQ(jobs.at(kId), (SlurmJob{"7", "RUNNING", "None", "n[1-2]"}));
  EXPECT_EQ(jobs.at(kOther), (SlurmJob{"8", "PENDING", "(Priority)", ""}));
}

TEST(SlurmJob, SkipsLinesThatAreNoAttempts) {
  EXPECT_THAT(ParseSqueue(""), IsEmpty());
  const std::string hostile = StrCat("7|RUNNING|bash|n1|None\n|RUNNING|mft-",
                                     kId,
                                     "|n1|None\n7||mft-",
                                     kId,
                                     "|n1|None\nx7|RUNNING|mft-",
                                     kId,
                                     "|n1|None\n7|RUNNING|mft-",
                                     kId,
                                     "0|n1|None\n7|RUNNING|mft-",
                                     kId.substr(1),
                                     "|n1|None\n7|RUNNING|mft-",
                                     "0123456789ABCDEF0123456789ABCDEF|n1|None\n7|RUNNING|mft-",
                                     kId,
                                     "\n7|RUNNING|a|mft-",
                                     kId,
                                     "|n1|None\nslurm_load_jobs error: none\n||||\n|\n\xff\xfe|");
  EXPECT_THAT(ParseSqueue(hostile), IsEmpty());
}

TEST(SlurmJob, KeepsAReasonWithBarsAndDropsWhatCannotBePrinted) {
  const SlurmJobs jobs =
      ParseSqueue(StrCat("7|PENDING|mft-", kId, "||Req|Node\xff", std::string(300, 'x')));
  ASSERT_EQ(jobs.size(), 1u);
  EXPECT_THAT(jobs.at(kId).reason, AllOf(StartsWith("Req|Node\xEF\xBF\xBD"), HasSubstr("...")));
}

TEST(SlurmJob, OfTwoJobsWithOneNameTheOneThatLivesCounts) {
  const std::string over = StrCat("7|CANCELLED|mft-", kId, "||None\n");
  const std::string alive = StrCat("8|RUNNING|mft-", kId, "|n|None\n");
  EXPECT_EQ(ParseSqueue(over + alive).at(kId).id, "8");
  EXPECT_EQ(ParseSqueue(alive + over).at(kId).id, "8");
}

TEST(SlurmJob, OnlyKnownFinalStatesAreOver) {
  for (const char* state : {"COMPLETED",
                            "CANCELLED",
                            "FAILED",
                            "TIMEOUT",
                            "NODE_FAIL",
                            "PREEMPTED",
                            "BOOT_FAIL",
                            "DEADLINE",
                            "OUT_OF_MEMORY",
                            "REVOKED"}) {
    EXPECT_EQ(LifeOf(state), SlurmLife::kOver) << state;
  }
  for (const char* state : {"PENDING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT"}) {
    EXPECT_EQ(LifeOf(state), SlurmLife::kWaiting) << state;
  }
  for (const char* state : {"RUNNING",
                            "COMPLETING",
                            "CONFIGURING",
                            "SUSPENDED",
                            "STOPPED",
                            "STAGE_OUT",
                            "SIGNALING",
                            "A_STATE_OF_NEXT_YEAR",
                            ""}) {
    EXPECT_EQ(LifeOf(state), SlurmLife::kAlive) << state;
  }
}

TEST(SlurmJob, SignalsNameTheAttemptToo) {
  const std::string name = "--name=mft-" + kId;
  EXPECT_THAT(ScancelArguments(SlurmSignal::kTerminate, kId, "7"),
              ElementsAre(name, "--batch", "--signal=TERM", "7"));
  EXPECT_THAT(ScancelArguments(SlurmSignal::kCheckpoint, kId, "7"),
              ElementsAre(name, "--batch", "--signal=USR1", "7"));
  EXPECT_THAT(ScancelArguments(SlurmSignal::kDequeue, kId, "7"),
              ElementsAre(name, "--state=PENDING", "7"));
  EXPECT_THAT(ScancelArguments(SlurmSignal::kKill, kId, "7"),
              ElementsAre(name, "--full", "--signal=KILL", "7"));
}

class SlurmClientTest : public ::testing::Test {
 protected:
  void Program(const std::string& name, const std::string& body) {
    const std::string path = temp_.Write(name, "#!/bin/sh\n" + body);
    ASSERT_EQ(chmod(path.c_str(), 0755), 0);
  }
  SlurmClient Client() {
    SlurmConfig config;
    config.bin_dir = temp_.File(".");
    return SlurmClient(config);
  }
  testing::TempDir temp_;
  std::stop_source stop_;
};

TEST_F(SlurmClientTest, MissingProgramsAreNamed) {
  Program("sbatch", "exit 0");
  Program("squeue", "exit 0");
  const Status missing = Client().CheckPrograms();
  EXPECT_EQ(missing.code(), Code::kNotFound);
  EXPECT_THAT(missing.message(), HasSubstr("scancel"));
  Program("scancel", "exit 0");
  EXPECT_TRUE(Client().CheckPrograms().ok());
}

TEST_F(SlurmClientTest, SubmitsAScriptOfTheAttempt) {
  Program("sbatch", "for last; do :; done; cat \"$last\" > \"$(dirname \"$0\")/script\"; echo 42");
  SlurmRequest request = Request();
  request.attempt_dir = temp_.File("attempt");
  ASSERT_TRUE(MakeDirs(request.attempt_dir).ok());
  const Result<std::string> id = Client().Submit(request, stop_.get_token());
  ASSERT_TRUE(id.ok()) << id.status().ToString();
  EXPECT_EQ(*id, "42");
  EXPECT_EQ(ReadFile(temp_.File("script")).value(), SlurmScript(request));
}

TEST_F(SlurmClientTest, AFailureSaysWhatTheProgramSaid) {
  Program("squeue", "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1");
  const Result<SlurmJobs> jobs = Client().List(stop_.get_token());
  EXPECT_EQ(jobs.status().code(), Code::kUnavailable);
  EXPECT_THAT(jobs.status().message(),
              AllOf(HasSubstr("squeue"), HasSubstr("Unable to contact slurm controller")));
}

}  // namespace
}  // namespace mft::server
