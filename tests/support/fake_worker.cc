// SPDX-License-Identifier: Apache-2.0
// Stands in for mft-worker and mft-data in tests of the runner and the daemon: writes the journal
// of a job that trains nothing, and misbehaves as told by the job's label `fake`
// (README.md).
#include <fcntl.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <charconv>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <thread>

#include "common/base/clock.h"
#include "common/base/files.h"
#include "common/base/json.h"
#include "common/base/log.h"
#include "common/base/strings.h"
#include "common/checkpoint/checkpoint_dir.h"
#include "common/journal/build.h"
#include "common/journal/heartbeat.h"
#include "common/journal/writer.h"

namespace mft::testing {

namespace {

struct Job {
  std::string run_dir;
  std::string job_id;
  std::string attempt_dir;
  std::string attempt_id;
  std::string cache_root;
  int attempt = 1;
  int rank = 0;
  int world_size = 1;
  std::map<std::string, std::string> fake;

  int64_t Number(const std::string& key, int64_t otherwise) const {
    const auto found = fake.find(key);
    int64_t value = otherwise;
    if (found != fake.end()) {
      const std::string& text = found->second;
      std::from_chars(text.data(), text.data() + text.size(), value);
    }
    return value;
  }
  bool Has(const std::string& key) const { return Number(key, 0) != 0; }
  std::string Text(const std::string& key, const std::string& otherwise) const {
    const auto found = fake.find(key);
    return found == fake.end() ? otherwise : found->second;
  }
};

int EnvironmentNumber(const char* name, int otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::atoi(text);
}

// "a=1,b=x": "prepare_a=1" is for mft-data, "a@2=1" for rank 2 only. `only_attempt` leaves nothing
// but the harmless keys in every other attempt.
std::map<std::string, std::string> ParseScript(const std::string& script,
                                               std::string_view kind,
                                               int rank,
                                               int attempt) {
  constexpr std::string_view kPreparePrefix = "prepare_";
  const std::string own_rank = StrCat("@", rank);
  std::map<std::string, std::string> values;
  for (const std::string& item : Split(script, ',')) {
    const size_t equals = item.find('=');
    std::string key = item.substr(0, equals);
    if (key.ends_with(own_rank)) {
      key.resize(key.size() - own_rank.size());
    }
    const bool for_prepare = key.starts_with(kPreparePrefix);
    if (key.find('@') == std::string::npos && for_prepare == (kind == "prepare")) {
      values[for_prepare ? key.substr(kPreparePrefix.size()) : key] =
          equals == std::string::npos ? "1" : item.substr(equals + 1);
    }
  }
  if (values.contains("only_attempt") && values["only_attempt"] != std::to_string(attempt)) {
    std::erase_if(values, [](const auto& entry) {
      return entry.first != "steps" && entry.first != "step_ms" && entry.first != "ckpt";
    });
  }
  return values;
}

Result<Json> ReadJsonFile(const std::string& path) {
  MFT_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  return ParseJson(text);
}

Result<Job> ReadJob(std::string_view kind,
                    const std::string& job_path,
                    const std::string& attempt_dir) {
  MFT_ASSIGN_OR_RETURN(const Json file, ReadJsonFile(job_path));
  MFT_ASSIGN_OR_RETURN(const Json attempt, ReadJsonFile(JoinPath(attempt_dir, "attempt.json")));
  Job job;
  job.attempt_dir = attempt_dir;
  job.attempt_id = StringOr(attempt, "attempt_id", "");
  job.attempt = static_cast<int>(IntOr(attempt, "attempt", 1));
  job.cache_root = StringOr(attempt, "cache_root", "");
  job.job_id = StringOr(file, "job_id", "");
  job.rank = EnvironmentNumber("RANK", EnvironmentNumber("SLURM_PROCID", 0));
  job.world_size = EnvironmentNumber("WORLD_SIZE", 1);
  const Json spec = file.value("spec", Json::object());
  job.run_dir = StringOr(spec, "run_dir", "");
  const Json labels = spec.value("mftd", Json::object()).value("labels", Json::object());
  job.fake = ParseScript(StringOr(labels, "fake", ""), kind, job.rank, job.attempt);
  if (!job.fake.contains("steps")) {
    job.fake["steps"] = std::to_string(IntOr(spec, "max_steps", 10));
  }
  return job;
}

// What a rank and a data preparation have in common.
class Fake {
 public:
  Fake(Job job, std::unique_ptr<JournalWriter> journal)
      : job_(std::move(job)), journal_(std::move(journal)) {}

  int Prepare();
  int Train();

 private:
  int Finish(const FinalRecord& final, int exit_code);
  void Misbehave(int64_t step);
  void Checkpoint(int64_t step);
  void Step(int64_t step);
  void Write(RecordBody body) { LogIfError(journal_->Append(std::move(body)), "journal"); }
  void LeaveOrphan();
  // Takes a pending signal that is blocked, as the runner starts its ranks.
  static bool Took(int signal);

  Job job_;
  std::unique_ptr<JournalWriter> journal_;
};

bool Fake::Took(int signal) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, signal);
  const timespec none{};
  return sigtimedwait(&set, nullptr, &none) == signal;
}

int Fake::Finish(const FinalRecord& final, int exit_code) {
  if (!job_.Has("no_final")) {
    LogIfError(journal_->AppendSynced(final), "journal");
  }
  return exit_code;
}

// Leaves the session and the process tree; only its environment says whose it is.
void Fake::LeaveOrphan() {
  if (fork() == 0) {
    prctl(PR_SET_PDEATHSIG, 0);
    setsid();
    if (fork() == 0) {
      execl("/bin/sleep", "sleep", "600", nullptr);
    }
    _exit(0);
  }
}

void Fake::Misbehave(int64_t step) {
  if (step == job_.Number("crash_at", -1)) {
    raise(SIGABRT);
  }
  if (step == job_.Number("kill_at", -1)) {
    raise(SIGKILL);
  }
  if (step == job_.Number("exit_at", -1)) {
    std::fprintf(stderr, "fake worker leaves at step %ld\n", static_cast<long>(step));
    _exit(static_cast<int>(job_.Number("exit_code", 1)));
  }
  while (step == job_.Number("hang_at", -1)) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    if (!job_.Has("ignore_term") && Took(SIGTERM)) {
      _exit(Finish({.outcome = "stopped", .step = step}, 0));
    }
  }
}

void Fake::Checkpoint(int64_t step) {
  if (job_.rank != 0 || job_.run_dir.empty()) {
    return;
  }
  const auto bytes = PublishCheckpoint(
      job_.run_dir,
      {.step = step, .attempt = job_.attempt, .job_id = job_.job_id, .plan = Json::object()},
      [&](const std::string& directory) {
        return WriteFileAtomic(JoinPath(directory, "state/step"), std::to_string(step));
      });
  if (!bytes.ok()) {
    LogError(bytes.status().message());
    return;
  }
  LogIfError(journal_->AppendSynced(CheckpointRecord{.step = step,
                                                     .path = CheckpointDir(job_.run_dir, step),
                                                     .size_bytes = *bytes,
                                                     .seconds = 0.001,
                                                     .removed = {}}),
             "journal");
}

void Fake::Step(int64_t step) {
  const int64_t steps = job_.Number("steps", 10);
  const double loss = 4.0 / static_cast<double>(step);
  StepRecord record{.step = step, .max_steps = steps, .loss = loss};
  record.perplexity = std::exp(loss);
  record.learning_rate = 1e-4;
  record.beta1 = 0.9;
  record.grad_norm = 1.0;
  record.loss_tokens = 100;
  record.tokens = 128;
  record.step_seconds = static_cast<double>(job_.Number("step_ms", 1)) / 1e3;
  record.tokens_per_second = record.mean_tokens_per_second = 128 / (record.step_seconds + 1e-6);
  Write(record);
}

int Fake::Prepare() {
  Write(PhaseRecord{std::string(kPhaseValidating), ""});
  Misbehave(0);
  if (job_.Has("bad_data")) {
    const std::string message = "data.jsonl:3: the last message must be of the assistant";
    Write(MessageRecord{"error", message});
    return Finish({.outcome = "failed",
                   .step = 0,
                   .code = static_cast<int>(Code::kInvalidArgument),
                   .reason = "VALIDATION_FAILED",
                   .message = message},
                  ExitCodeFor(Code::kInvalidArgument));
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(job_.Number("ms", 0)));
  if (Took(SIGTERM)) {
    return Finish({.outcome = "stopped"}, 0);
  }
  const std::string cache = JoinPath(job_.cache_root, "fake");
  LogIfError(MakeDirs(cache), "token cache");
  LogIfError(journal_->AppendSynced(DataPreparedRecord{.samples = 200,
                                                       .tokens = 20'000,
                                                       .loss_tokens = 10'000,
                                                       .eval_samples = 0,
                                                       .problems = 0,
                                                       .steps_per_epoch = 10,
                                                       .epochs = 1,
                                                       .cache = cache}),
             "journal");
  return Finish({.outcome = "done"}, 0);
}

int Fake::Train() {
  const int64_t steps = job_.Number("steps", 10);
  const int64_t every = job_.Number("ckpt", 0);
  const std::vector<int64_t> saved = ListCheckpointSteps(job_.run_dir);
  const int64_t from = saved.empty() ? 0 : saved.back();
  HeartbeatWriter beat(JoinPath(job_.attempt_dir, StrCat("rank-", job_.rank, ".beat")));
  Write(PhaseRecord{std::string(kPhaseLoading), ""});
  if (job_.rank == 0) {
    Write(ResumeRecord{from});
  }
  Write(PhaseRecord{std::string(kPhaseTraining), ""});
  if (job_.Has("orphan")) {
    LeaveOrphan();
  }
  Misbehave(from);
  for (int64_t step = from + 1; step <= steps; ++step) {
    std::this_thread::sleep_for(std::chrono::milliseconds(job_.Number("step_ms", 1)));
    if (job_.rank == 0) {
      Step(step);
    }
    for (int64_t i = 0; i < job_.Number("flood", 0); ++i) {
      Write(MessageRecord{"info", std::string(1000, 'x')});
    }
    beat.Write({.step = step, .wall_micros = SystemClock().WallMicros(), .memory_bytes = 0});
    const bool stop = !job_.Has("ignore_term") && Took(SIGTERM);
    if (stop || step == steps || Took(SIGUSR1) || (every > 0 && step % every == 0)) {
      Checkpoint(step);
    }
    Misbehave(step);
    if (stop && step < steps) {
      return Finish({.outcome = "stopped", .step = step}, 0);
    }
  }
  if (job_.fake.contains("fail")) {
    return Finish({.outcome = "failed",
                   .step = steps,
                   .code = static_cast<int>(job_.Number("fail", 13)),
                   .reason = job_.Text("reason", "WORKER_FAILED"),
                   .message = "the fake worker fails as it was told"},
                  1);
  }
  return Finish({.outcome = "done", .step = steps}, static_cast<int>(job_.Number("done_exit", 0)));
}

int Main(int argc, char** argv) {
  SetLogProgram("fake-worker");
  std::string job_path, attempt_dir;
  for (int i = 2; i + 1 < argc; i += 2) {
    (std::string_view(argv[i]) == "--job" ? job_path : attempt_dir) = argv[i + 1];
  }
  auto job = ReadJob(argv[1], job_path, attempt_dir);
  if (!job.ok()) {
    LogError(job.status().message());
    return ExitCodeFor(job.status().code());
  }
  std::printf("fake worker %s, rank %d of %d\n", argv[1], job->rank, job->world_size);
  std::fflush(stdout);
  auto journal = JournalWriter::Open(JoinPath(attempt_dir, StrCat("rank-", job->rank, ".jsonl")),
                                     {.version = kJournalVersion,
                                      .attempt_id = job->attempt_id,
                                      .rank = job->rank,
                                      .boot_id = BootId(),
                                      .build = job->Text("build", std::string(BuildId()))});
  if (!journal.ok()) {
    LogError(journal.status().message());
    return 1;
  }
  const bool train = std::string_view(argv[1]) == "train";
  Fake fake(std::move(job).value(), std::move(journal).value());
  return train ? fake.Train() : fake.Prepare();
}

}  // namespace

}  // namespace mft::testing

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: fake_worker train|prepare --job JOB.json --attempt-dir DIR\n");
    return 2;
  }
  return mft::testing::Main(argc, argv);
}
