// SPDX-License-Identifier: Apache-2.0
// The real mft-track beside fake ranks, with a client that only writes down what it is told
// (tests/worker/track/fakes). Failing, hanging or dying, it costs the job nothing.
#include <csignal>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/base/json.h"
#include "tests/worker/runner/runner_fixture.h"

namespace mft::runner {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

class TrackersTest : public RunnerTest {
 protected:
  TrackersTest() {
    attempt_.trackers = {"wandb"};
    std::filesystem::create_directories(run_dir_);
    environment_ = {{"PYTHONPATH", MFT_FAKE_CLIENTS}, {"FAKE_TRACKER", calls_path_}};
    environment_["PYTHONDONTWRITEBYTECODE"] = "1";
    environment_["WANDB_API_KEY"] = "";
  }

  std::vector<Json> Calls(const std::string& name) {
    std::vector<Json> calls;
    const auto text = ReadFile(calls_path_);
    for (const std::string& line : Split(text.ok() ? *text : "", '\n')) {
      const auto call = ParseJson(line);
      if (call.ok() && StringOr(*call, "call", "") == name) {
        calls.push_back(*call);
      }
    }
    return calls;
  }
  std::vector<int64_t> SentSteps() {
    std::vector<int64_t> steps;
    for (const Json& call : Calls("log")) {
      steps.push_back(IntOr(call, "step", 0));
    }
    return steps;
  }
  // What the runner told people.
  std::vector<std::string> Messages() {
    std::vector<std::string> texts;
    bool more = PathExists(attempt_dir_ + "/runner.jsonl");
    JournalTailer tailer(attempt_dir_ + "/runner.jsonl", {});
    while (more) {
      const auto items = tailer.Read(1 << 20, &more);
      for (const TailedItem& item : items.ok() ? *items : std::vector<TailedItem>()) {
        const auto* record = std::get_if<Record>(&item.item);
        if (record != nullptr && std::holds_alternative<MessageRecord>(record->body)) {
          texts.push_back(std::get<MessageRecord>(record->body).text);
        }
      }
    }
    return texts;
  }

  std::string calls_path_ = dir_.File("calls.jsonl");
};

TEST_F(TrackersTest, SendEveryStepBeforeTheResult) {
  secret_ = dir_.Write("key", "s3cret\n");
  EXPECT_EQ(Run("steps=5", 2), 0);
  EXPECT_EQ(Outcome().outcome, "done");
  EXPECT_THAT(SentSteps(), ElementsAre(1, 2, 3, 4, 5));
  ASSERT_THAT(Calls("finish"), SizeIs(1));
  EXPECT_EQ(Calls("finish")[0]["exit_code"], 0);
  EXPECT_EQ(Calls("init")[0]["key"], "s3cret");
  EXPECT_THAT(Messages(), IsEmpty());
  EXPECT_TRUE(FindAttemptProcesses(attempt_.attempt_id).empty());
}

TEST_F(TrackersTest, TheKeyReachesNoOtherProcess) {
  secret_ = dir_.Write("key", "s3cret");
  Write("steps=1000000");
  Start();
  ASSERT_TRUE(Eventually([&] { return !SentSteps().empty() && Trains(0); }));
  for (const AttemptProcess& process : FindAttemptProcesses(attempt_.attempt_id)) {
    const std::string proc = StrCat("/proc/", process.pid);
    EXPECT_THAT(ReadFile(proc + "/environ").value(), Not(HasSubstr("s3cret")));
    EXPECT_THAT(ReadFile(proc + "/cmdline").value(), Not(HasSubstr("s3cret")));
    int keys = 0;
    for (const auto& entry : std::filesystem::directory_iterator(proc + "/fd")) {
      keys += std::filesystem::read_symlink(entry).filename() == "key" ? 1 : 0;
    }
    EXPECT_EQ(keys, process.pid == pid_ ? 1 : 0) << ReadFile(proc + "/cmdline").value();
  }
  kill(pid_, SIGTERM);
  EXPECT_EQ(Wait(), 0);
  EXPECT_EQ(Outcome().outcome, "stopped");
  EXPECT_EQ(SentSteps().back(), Outcome().ranks[0].final->step);
}

TEST_F(TrackersTest, AServiceThatFailsIsTriedAgainAndTheMetricsAreKept) {
  environment_["FAKE_FAILURE"] = "init:network";
  Write("steps=4,hang_at=3");
  Start();
  ASSERT_TRUE(Eventually([&] { return Messages().size() >= 2; }));
  kill(pid_, SIGTERM);
  EXPECT_EQ(Wait(), 0);
  EXPECT_EQ(Outcome().outcome, "stopped");
  EXPECT_THAT(
      Messages(),
      Contains("wandb: no route to the service; tried again in 1.0 s, the metrics are kept"));
  EXPECT_EQ(Messages().back(), "wandb: no route to the service; not all metrics were sent");
}

TEST_F(TrackersTest, OneThatWasKilledGoesOnWhereItWas) {
  environment_["FAKE_FAILURE"] = "log3:die";
  Write("steps=1000000,step_ms=5");
  Start();
  ASSERT_TRUE(Eventually([&] { return Messages().size() == 1; }));
  EXPECT_THAT(Messages()[0],
              AllOf(HasSubstr("ended by signal 9"), HasSubstr("tried again in 1.0 s")));
  kill(pid_, SIGTERM);
  EXPECT_EQ(Wait(), 0);
  EXPECT_EQ(Outcome().outcome, "stopped");
}

TEST_F(TrackersTest, ARefusedKeyIsToldOnceAndNotTriedAgain) {
  secret_ = dir_.Write("key", "s3cret");
  environment_["FAKE_FAILURE"] = "init:refused";
  EXPECT_EQ(Run("steps=5"), 0);
  EXPECT_EQ(Outcome().outcome, "done");
  EXPECT_THAT(Messages(),
              ElementsAre(AllOf(HasSubstr("wandb: the key *** is not valid"),
                                HasSubstr("sends nothing more"))));
  EXPECT_THAT(ReadFile(attempt_dir_ + "/track-wandb.log").value(), Not(HasSubstr("s3cret")));
}

TEST_F(TrackersTest, AServiceThatHangsHoldsUpNoStepAndTheStopOnlyForSeconds) {
  attempt_.grace_ms = 300;
  environment_["FAKE_FAILURE"] = "log2:hang";
  Write("steps=1000000");
  Start();
  ASSERT_TRUE(Eventually([&] { return JournalHas(0, "\"step\",\"step\":200,"); }));
  ASSERT_TRUE(Eventually([&] { return SentSteps().size() == 1; }));
  const auto begin = std::chrono::steady_clock::now();
  kill(pid_, SIGTERM);
  EXPECT_EQ(Wait(), 0);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(10));
  EXPECT_THAT(Messages(), Contains(HasSubstr("wandb: does not answer in time, not all metrics")));
  EXPECT_TRUE(FindAttemptProcesses(attempt_.attempt_id).empty());
}

TEST_F(TrackersTest, AMissingClientEndsThePreparationWithOneClearError) {
  attempt_.kind = AttemptKind::kPrepare;
  attempt_.trackers = {"wandb", "mlflow"};  // the second is not there
  EXPECT_EQ(Run(""), 0);
  const ResultRecord result = Outcome();
  EXPECT_EQ(result.outcome, "failed");
  EXPECT_EQ(result.code, static_cast<int>(Code::kInvalidArgument));
  EXPECT_EQ(result.reason, "TRACKER_UNAVAILABLE");
  EXPECT_THAT(
      result.message,
      AllOf(HasSubstr("pip install mlflow"), HasSubstr("set `mlflow.tracking_uri` to null")));
  EXPECT_FALSE(PathExists(attempt_dir_ + "/rank-0.jsonl"));
}

TEST_F(TrackersTest, AnInterpreterThatIsNotThereIsNamed) {
  attempt_.kind = AttemptKind::kPrepare;
  attempt_.tracker_python = "/nonexistent/python3";
  EXPECT_EQ(Run(""), 0);
  EXPECT_EQ(Outcome().outcome, "failed");
  EXPECT_THAT(Outcome().message,
              AllOf(HasSubstr("/nonexistent/python3"), HasSubstr("tracker_python")));
}

TEST_F(TrackersTest, APreparationOnlyLooksForTheClients) {
  attempt_.kind = AttemptKind::kPrepare;
  EXPECT_EQ(Run(""), 0);
  EXPECT_EQ(Outcome().outcome, "done");
  EXPECT_THAT(Calls("init"), IsEmpty());
}

}  // namespace
}  // namespace mft::runner
