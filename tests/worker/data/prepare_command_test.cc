// SPDX-License-Identifier: Apache-2.0
// The program mft-data as a runner starts it: arguments in, journal and exit code out.
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/base/files.h"
#include "common/config/job_file.h"
#include "common/dataset/token_cache.h"
#include "common/journal/record.h"
#include "tests/worker/data/prepare_fixture.h"

namespace mft {
namespace {

using ::testing::AllOf;
using testing::Fixture;
using ::testing::HasSubstr;
using testing::ReadJsonLines;
using ::testing::SizeIs;

constexpr char kPreTokenised[] = "{\"tokens\": [1, 5, 6, 2], \"mask\": [0, 0, 1, 1]}\n";

class MftData : public testing::PrepareFixture {
 protected:
  // Runs the program to its end; standard output and error land in the files "out" and "err".
  int Run(std::vector<std::string> arguments, bool stop_at_once = false) {
    arguments.insert(arguments.begin(), std::string(MFT_BIN_DIR) + "/mft-data");
    std::vector<char*> argv;
    for (std::string& argument : arguments) {
      argv.push_back(argument.data());
    }
    argv.push_back(nullptr);
    const std::string out = dir_.File("out");
    const std::string err = dir_.File("err");
    const pid_t child = fork();
    if (child == 0) {
      dup2(open(out.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644), STDOUT_FILENO);
      dup2(open(err.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644), STDERR_FILENO);
      sigset_t blocked;  // as a runner does
      sigemptyset(&blocked);
      sigaddset(&blocked, SIGTERM);
      sigaddset(&blocked, SIGUSR1);
      sigprocmask(SIG_BLOCK, &blocked, nullptr);
      raise(SIGUSR1);
      if (stop_at_once) {
        raise(SIGTERM);
      }
      execv(argv[0], argv.data());
      _exit(127);
    }
    int status = 0;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }

  std::vector<std::string> AttemptArguments() {
    EXPECT_TRUE(MakeDirs(dir_.File("prepare/0001")).ok());
    EXPECT_TRUE(WriteJobFile(dir_.File("job.json"), {.job_id = "j", .spec = spec_}).ok());
    EXPECT_TRUE(WriteAttemptFile(dir_.File("prepare/0001/attempt.json"),
                                 {.attempt = 1,
                                  .attempt_id = "id-1",
                                  .kind = AttemptKind::kPrepare,
                                  .threads = 2,
                                  .cache_root = dir_.File("cache")})
                    .ok());
    return {"prepare", "--job", dir_.File("job.json"), "--attempt-dir", dir_.File("prepare/0001")};
  }

  std::vector<Record> Journal() {
    std::vector<Record> records;
    for (const std::string& line : Split(*ReadFile(dir_.File("prepare/0001/rank-0.jsonl")), '\n')) {
      if (!line.empty()) {
        records.push_back(DecodeRecord(line).value());
      }
    }
    return records;
  }

  template <typename T>
  std::vector<T> Records() {
    std::vector<T> found;
    for (const Record& record : Journal()) {
      if (const T* body = std::get_if<T>(&record.body)) {
        found.push_back(*body);
      }
    }
    return found;
  }

  std::string Err() { return *ReadFile(dir_.File("err")); }
};

TEST_F(MftData, PrepareWritesTheJournalOfAnAttempt) {
  spec_.data.instruct_data = dir_.Write("a.jsonl", kPreTokenised);
  ASSERT_EQ(Run(AttemptArguments()), 0) << Err();
  const std::vector<Record> journal = Journal();
  const auto* header = std::get_if<HeaderRecord>(&journal.front().body);
  ASSERT_NE(header, nullptr);
  EXPECT_EQ(header->attempt_id, "id-1");
  const auto* final = std::get_if<FinalRecord>(&journal.back().body);
  ASSERT_NE(final, nullptr);
  EXPECT_EQ(final->outcome, "done");
  const auto prepared = Records<DataPreparedRecord>();
  ASSERT_THAT(prepared, SizeIs(1));
  EXPECT_EQ(prepared[0].samples, 1);
  EXPECT_EQ(prepared[0].loss_tokens, 2);
  EXPECT_TRUE(TokenCache::Open(prepared[0].cache).ok());
  const auto phases = Records<PhaseRecord>();
  ASSERT_THAT(phases, SizeIs(2));
  EXPECT_EQ(phases[0].phase, kPhaseValidating);
  EXPECT_EQ(phases[1].phase, kPhaseTokenizing);
}

TEST_F(MftData, PrepareReportsTheFirstHundredProblemsAndTheirNumber) {
  std::string lines;
  for (int i = 0; i < 150; ++i) {
    lines += "{not json\n";
  }
  spec_.data.instruct_data = dir_.Write("a.jsonl", lines);
  EXPECT_EQ(Run(AttemptArguments()), 3);
  const auto messages = Records<MessageRecord>();
  ASSERT_THAT(messages, SizeIs(101));
  EXPECT_EQ(messages[0].level, "error");
  EXPECT_THAT(messages[99].text, HasSubstr("a.jsonl:100: "));
  EXPECT_THAT(messages[100].text, HasSubstr("50 more"));
  const auto final = Records<FinalRecord>();
  ASSERT_THAT(final, SizeIs(1));
  EXPECT_EQ(final[0].outcome, "failed");
  EXPECT_EQ(final[0].reason, "VALIDATION_FAILED");
  EXPECT_EQ(final[0].code, static_cast<int>(Code::kInvalidArgument));
  EXPECT_THAT(Err(), AllOf(HasSubstr("a.jsonl:1: "), HasSubstr("a.jsonl:150: ")));
}

TEST_F(MftData, PrepareStopsOnSigtermAndSaysSo) {
  spec_.data.instruct_data = dir_.Write("a.jsonl", kPreTokenised);
  EXPECT_EQ(Run(AttemptArguments(), /*stop_at_once=*/true), 0) << Err();
  const auto final = Records<FinalRecord>();
  ASSERT_THAT(final, SizeIs(1));
  EXPECT_EQ(final[0].outcome, "stopped");
  EXPECT_THAT(Records<DataPreparedRecord>(), SizeIs(0));
}

TEST_F(MftData, PrepareByHandPrintsTheDirectory) {
  const std::string data = dir_.Write("a.jsonl", kPreTokenised);
  const std::string config = dir_.Write("job.yaml",
                                        StrCat("data:\n  instruct_data: ",
                                               data,
                                               "\nmodel_id_or_path: ",
                                               dir_.File("model"),
                                               "\nrun_dir: ",
                                               dir_.File("run"),
                                               "\n"));
  ASSERT_EQ(Run({"prepare", "--config", config, "--out", dir_.File("cache")}), 0) << Err();
  EXPECT_EQ(*ReadFile(dir_.File("out")), dir_.File("cache") + "\n");
  EXPECT_EQ(Run({"prepare", "--config", config, "--out", dir_.File("other")}, true), 130);
}

TEST_F(MftData, WrongUseIsExitCodeTwo) {
  EXPECT_EQ(Run({}), 2);
  EXPECT_EQ(Run({"prepare"}), 2);
  EXPECT_EQ(Run({"prepare", "--config", "x"}), 2);
  EXPECT_EQ(Run({"prepare", "--config", "x", "--out", "y", "--job", "z"}), 2);
  EXPECT_EQ(Run({"batches", "--config", "x"}), 2);
}

TEST_F(MftData, AnUnreadableJobFileIsExitCodeThree) {
  const std::string config = dir_.Write("job.yaml", "sequence_length: 7\n");
  EXPECT_EQ(Run({"prepare", "--config", config, "--out", dir_.File("cache")}), 3);
  EXPECT_THAT(Err(), HasSubstr("sequence_length"));
}

TEST_F(MftData, BatchesNamesACacheThatIsNotThere) {
  spec_.data.instruct_data = Fixture("train/two-ranks/data.jsonl");
  AttemptArguments();
  EXPECT_EQ(Run({"batches",
                 "--config",
                 dir_.File("job.json"),
                 "--data-cache",
                 dir_.File("nowhere"),
                 "--world-size",
                 "1",
                 "--rank",
                 "0"}),
            ExitCodeFor(Code::kNotFound));
  EXPECT_THAT(Err(), HasSubstr(dir_.File("nowhere")));
}

TEST_F(MftData, BatchesPrintsWhatARankWillSee) {
  MakeModel(512);
  spec_.data.instruct_data = Fixture("train/two-ranks/data.jsonl");
  const Json config = Json::parse(*ReadFile(Fixture("train/two-ranks/config.json")));
  spec_.seq_len = config["seq_len"].get<int64_t>();
  spec_.num_microbatches = config["num_microbatches"].get<int64_t>();
  spec_.batch_size = config["batch_size"].get<int64_t>();
  spec_.mftd.packing = "reference";
  AttemptArguments();
  for (const int rank : {0, 1}) {
    ASSERT_EQ(Run({"batches",
                   "--config",
                   dir_.File("job.json"),
                   "--world-size",
                   "2",
                   "--rank",
                   std::to_string(rank),
                   "--limit",
                   "5"}),
              0)
        << Err();
    const auto lines = ReadJsonLines(dir_.File("out"));
    ASSERT_THAT(lines, SizeIs(5));
    for (const Json& expected : ReadJsonLines(Fixture("train/two-ranks/batches.jsonl"))) {
      const auto index = expected["index"].get<size_t>();
      if (expected["rank"] != rank || index >= lines.size()) {
        continue;
      }
      for (const char* key : {"rank", "index", "x", "y", "mask", "sizes"}) {
        EXPECT_EQ(lines[index][key], expected[key]) << key << " of " << index;
      }
    }
  }
}

}  // namespace
}  // namespace mft
