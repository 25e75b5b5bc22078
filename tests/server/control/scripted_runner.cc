// SPDX-License-Identifier: Apache-2.0
// A drop-in for mft-runner that plays an attempt by itself: it writes the journals that a runner
// and its rank 0 would write, as the job's labels say. So the control loop is tested against real
// processes, in milliseconds.
//
//   prepare: ok | invalid | hang     step_ms: pause between steps (2)
//   fail: crash | permanent | die | stop    at step `fail_at`, in attempts up to `fail_attempts`
//   (1) ignore_term: true                SIGTERM has no effect
//
// Every step counts as a checkpoint: <run_dir>/step remembers it, and the next attempt goes on from
// there.
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>

#include "common/base/files.h"
#include "common/base/strings.h"
#include "common/config/job_file.h"
#include "common/journal/writer.h"

namespace {

using namespace mft;

class Play {
 public:
  Play(const std::string& dir, JobFile job, AttemptFile attempt)
      : job_(std::move(job)),
        attempt_(std::move(attempt)),
        runner_(Journal(dir + "/runner.jsonl", kRunnerRank)),
        rank_(Journal(dir + "/rank-0.jsonl", 0)) {}

  void Prepare() {
    const std::string how = Label("prepare", "ok");
    Say(PhaseRecord{std::string(kPhaseValidating), ""});
    while (how == "hang") {
      StopIfTold();
      Sleep(5);
    }
    if (how == "invalid") {
      Say(MessageRecord{"error",
                        "train.jsonl:3: a conversation must end with an assistant message"});
      End("failed", Code::kInvalidArgument, "VALIDATION_FAILED", "1 problem in the data");
    }
    const std::string cache = JoinPath(attempt_.cache_root, "0123abcd");
    Check(MakeDirs(cache));
    DataPreparedRecord data;
    data.samples = 7;
    data.tokens = 700;
    data.cache = cache;
    Say(data);
    End("done");
  }

  void Train() {
    const std::string step_path = JoinPath(job_.spec.run_dir, "step");
    const Result<std::string> saved = ReadFile(step_path);
    const int64_t from = saved.ok() ? std::atoll(saved->c_str()) : 0;
    Say(PhaseRecord{std::string(kPhaseLoading), ""});
    Say(ResumeRecord{from});
    Say(PhaseRecord{std::string(kPhaseTraining), ""});
    const bool fails = attempt_.attempt <= Number("fail_attempts", 1);
    for (int64_t step = from + 1; step <= job_.spec.max_steps; ++step) {
      StopIfTold();
      Sleep(Number("step_ms", 2));
      if (fails && step == Number("fail_at", 2)) {
        Fail(Label("fail", ""));
      }
      StepRecord record;
      record.step = step;
      record.max_steps = job_.spec.max_steps;
      record.loss = 1.0 / static_cast<double>(step);
      Say(record);
      Check(WriteFileAtomic(step_path, std::to_string(step)));
    }
    End("done");
  }

 private:
  static void Check(const Status& status) {
    if (!status.ok()) {
      std::fprintf(stderr, "%s\n", status.ToString().c_str());
      std::exit(1);
    }
  }
  static void Sleep(int64_t ms) { std::this_thread::sleep_for(std::chrono::milliseconds(ms)); }

  std::unique_ptr<JournalWriter> Journal(const std::string& path, int rank) {
    HeaderRecord header;
    header.attempt_id = attempt_.attempt_id;
    header.rank = rank;
    header.boot_id = BootId();
    header.build = BuildId();
    auto writer = JournalWriter::Open(path, header);
    Check(writer.status());
    return std::move(writer).value();
  }
  std::string Label(const std::string& key, const std::string& otherwise) const {
    const auto it = job_.spec.mftd.labels.find(key);
    return it == job_.spec.mftd.labels.end() ? otherwise : it->second;
  }
  int64_t Number(const std::string& key, int64_t otherwise) const {
    const std::string text = Label(key, "");
    return text.empty() ? otherwise : std::atoll(text.c_str());
  }
  void Say(RecordBody body) { Check(rank_->Append(std::move(body))); }

  void StopIfTold() {
    sigset_t pending;
    sigpending(&pending);
    if (sigismember(&pending, SIGTERM) == 1 && Label("ignore_term", "") != "true") {
      End("stopped");
    }
  }

  void Fail(const std::string& how) {
    if (how == "die") {
      kill(getpid(), SIGKILL);
    } else if (how == "crash") {
      End("failed", Code::kInternal, "", "rank 0 died of signal 11");
    } else if (how == "permanent") {
      End("failed", Code::kNotFound, "MODEL_NOT_FOUND", "there is no model");
    } else if (how == "no_cache") {
      End("failed", Code::kNotFound, "DATA_CACHE_GONE", "there is no token cache");
    } else if (how == "stop") {
      End("stopped");
    }
  }

  [[noreturn]] void End(std::string outcome,
                        Code code = Code::kOk,
                        std::string reason = "",
                        std::string message = "") {
    ResultRecord result;
    result.outcome = std::move(outcome);
    result.code = static_cast<int>(code);
    result.reason = std::move(reason);
    result.message = std::move(message);
    Check(runner_->AppendSynced(result));
    std::_Exit(0);
  }

  const JobFile job_;
  const AttemptFile attempt_;
  std::unique_ptr<JournalWriter> runner_;
  std::unique_ptr<JournalWriter> rank_;
};

// As the runner does that Slurm starts: the lock is its own to take, and an attempt runs only once.
bool TakeLock(const std::string& dir) {
  auto lock = TryLockFile(dir + "/lock");
  return lock.ok() && lock->release() >= 0 && !PathExists(dir + "/runner.jsonl");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5 && argc != 3) {
    return 2;
  }
  sigset_t blocked;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGTERM);
  sigprocmask(SIG_BLOCK, &blocked, nullptr);
  const std::string dir = argv[2];
  if (argc == 3 && !TakeLock(dir)) {
    std::fprintf(stderr, "%s: has a runner, or had one\n", dir.c_str());
    return 1;
  }
  auto attempt = ReadAttemptFile(dir + "/attempt.json");
  auto job = ReadJobFile(dir + "/../../job.json");
  if (!attempt.ok() || !job.ok()) {
    std::fprintf(
        stderr, "%s %s\n", attempt.status().ToString().c_str(), job.status().ToString().c_str());
    return 1;
  }
  const bool prepare = attempt->kind == AttemptKind::kPrepare;
  Play play(dir, std::move(job).value(), std::move(attempt).value());
  prepare ? play.Prepare() : play.Train();
  return 0;
}
