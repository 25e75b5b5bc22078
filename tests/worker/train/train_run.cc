// SPDX-License-Identifier: Apache-2.0
#include "tests/worker/train/train_run.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <thread>

#include "common/base/files.h"
#include "common/base/strings.h"
#include "common/checkpoint/checkpoint_dir.h"
#include "common/checkpoint/model_params.h"
#include "common/checkpoint/safetensors.h"
#include "common/config/job_file.h"
#include "common/journal/tailer.h"
#include "tests/support/cache_builder.h"
#include "tests/support/fixtures.h"

extern char** environ;

namespace mft::testing {

namespace {
constexpr std::string_view kAttemptId = "0123456789abcdef";

void Check(const Status& status) {
  MFT_CHECK(status.ok(), status.ToString());
}
}  // namespace

TrainRun::TrainRun(const std::string& directory, const std::string& fixture)
    : directory_(directory), fixture_dir_(Fixture("train/" + fixture)) {
  Check(MakeDirs(directory));
  const Json config = ParseJson(ReadFile(fixture_dir_ + "/config.json").value()).value();
  const std::vector<TestSample> samples = ReadSamples(fixture_dir_ + "/data.jsonl");
  BuildCache(directory + "/cache",
             {{.files = {samples}}, {.kind = SourceKind::kEval, .files = {samples}}},
             ReadModelParams(fixture_dir_ + "/model").value().vocab_size);
  data_cache = directory + "/cache";
  spec.model_id_or_path = fixture_dir_ + "/model";
  spec.run_dir = directory + "/run";
  spec.data.instruct_data = fixture_dir_ + "/data.jsonl";
  spec.data.eval_instruct_data = fixture_dir_ + "/data.jsonl";
  spec.data.instruct = {.shuffle = false, .dynamic_chunk_fn_call = false};
  spec.optim = {
      .lr = config["lr"], .weight_decay = config["weight_decay"], .pct_start = config["pct_start"]};
  spec.seed = config["seed"];
  spec.seq_len = config["seq_len"];
  spec.batch_size = config["batch_size"];
  spec.num_microbatches = config["num_microbatches"];
  spec.max_norm = config["max_norm"];
  spec.max_steps = config["max_steps"];
  ranks = config.value("world", 1);
  spec.lora.rank = config["lora"]["rank"];
  spec.lora.scaling = config["lora"]["scaling"];
  spec.mftd.name = "fixture";
  spec.mftd.device = "cpu";
  spec.mftd.precision = "fp32";
  spec.mftd.packing = "reference";
  spec.lora.enable = config["lora"]["enable"];
  if (spec.lora.enable) {
    spec.mftd.init_adapter = fixture_dir_ + "/lora_init.safetensors";
  } else {
    spec.save_adapters = false;
  }
}

void TrainRun::UseEvalSamples(const std::vector<TestSample>& samples) {
  data_cache = directory_ + "/cache-with-eval";
  BuildCache(data_cache,
             {{.files = {ReadSamples(fixture_dir_ + "/data.jsonl")}},
              {.kind = SourceKind::kEval, .files = {samples}}},
             ReadModelParams(fixture_dir_ + "/model").value().vocab_size);
}

std::string TrainRun::AttemptDir() const {
  return StrCat(directory_, "/job/attempts/", attempt_);
}

std::string TrainRun::Checkpoint(int64_t step) const {
  return CheckpointDir(spec.run_dir, step);
}

std::string TrainRun::TrainedFile(int64_t step) const {
  return StrCat(Checkpoint(step),
                "/consolidated/",
                spec.lora.enable ? "lora.safetensors" : "consolidated.safetensors");
}

void TrainRun::Start() {
  ++attempt_;
  Check(MakeDirs(AttemptDir()));
  JobFile job;
  job.job_id = "jfixture0000";
  job.spec = spec;
  Check(WriteJobFile(directory_ + "/job/job.json", job));
  AttemptFile attempt;
  attempt.attempt = attempt_;
  attempt.attempt_id = std::string(kAttemptId);
  attempt.ranks = ranks;
  attempt.threads = threads;
  attempt.device = device;
  attempt.data_cache = data_cache;
  Check(WriteAttemptFile(AttemptDir() + "/attempt.json", attempt));
  pids_.assign(static_cast<size_t>(ranks), -1);
  rlimit before{};
  MFT_CHECK(getrlimit(RLIMIT_DATA, &before) == 0, "getrlimit");
  rlimit limit = before;
  limit.rlim_cur = data_limit > 0 ? static_cast<rlim_t>(data_limit) : before.rlim_cur;
  MFT_CHECK(setrlimit(RLIMIT_DATA, &limit) == 0, "setrlimit");  // what we start inherits it
  for (int rank = 0; rank < ranks; ++rank) {
    StartRank(rank);
  }
  MFT_CHECK(setrlimit(RLIMIT_DATA, &before) == 0, "setrlimit");
}

void TrainRun::StartRank(int rank) {
  std::vector<std::string> variables = {
      StrCat("MFT_ATTEMPT=", kAttemptId), StrCat("RANK=", rank), StrCat("WORLD_SIZE=", ranks)};
  for (char** variable = environ; *variable != nullptr; ++variable) {
    variables.emplace_back(*variable);
  }
  for (const auto& [name, value] : environment) {
    variables.insert(variables.begin(), StrCat(name, "=", value));  // the first one counts
  }
  std::vector<std::string> arguments = {BinDir() + "/mft-worker",
                                        "train",
                                        "--job",
                                        directory_ + "/job/job.json",
                                        "--attempt-dir",
                                        AttemptDir()};
  if (rank == held) {
    arguments.insert(arguments.begin(), {"/bin/sh", "-c", "kill -STOP $$; exec \"$@\"", "held"});
  }
  std::vector<char*> argv;
  for (std::string& argument : arguments) {
    argv.push_back(argument.data());
  }
  argv.push_back(nullptr);
  std::vector<char*> envp;
  for (std::string& variable : variables) {
    envp.push_back(variable.data());
  }
  envp.push_back(nullptr);

  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  const std::string log = StrCat(AttemptDir(), "/rank-", rank, ".log");
  posix_spawn_file_actions_addopen(&actions, 2, log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t blocked;  // as the runner starts its ranks
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGTERM);
  sigaddset(&blocked, SIGUSR1);
  posix_spawnattr_setsigmask(&attributes, &blocked);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
  MFT_CHECK(posix_spawn(&pids_[static_cast<size_t>(rank)],
                        argv[0],
                        &actions,
                        &attributes,
                        argv.data(),
                        envp.data()) == 0,
            arguments[0]);
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
}

Ended TrainRun::Wait() {
  return WaitAll().front();
}

std::vector<Ended> TrainRun::WaitAll() {
  std::vector<Ended> all;
  for (int rank = 0; rank < ranks; ++rank) {
    int status = 0;
    MFT_CHECK(waitpid(pid(rank), &status, 0) == pid(rank), "waitpid");
    all.push_back({.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1,
                   .signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0,
                   .log = ReadFile(StrCat(AttemptDir(), "/rank-", rank, ".log")).value()});
  }
  pids_.clear();
  return all;
}

void TrainRun::Signal(int signal, int rank) const {
  MFT_CHECK(kill(pid(rank), signal) == 0, "kill");
}

bool TrainRun::WaitFor(const std::function<bool(const Record&)>& wanted) const {
  while (true) {
    siginfo_t info{};
    const bool ended =
        waitid(P_PID, static_cast<id_t>(pid()), &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
        info.si_pid == pid();
    for (const Record& record : Journal()) {
      if (wanted(record)) {
        return true;
      }
    }
    if (ended) {
      return false;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
}

std::vector<Record> TrainRun::Journal(int rank) const {
  JournalTailer tailer(StrCat(AttemptDir(), "/rank-", rank, ".jsonl"), {});
  std::vector<Record> records;
  for (bool more = true; more;) {
    const auto items = tailer.Read(size_t{1} << 20, &more);
    for (const TailedItem& item : items.value()) {
      MFT_CHECK(std::holds_alternative<Record>(item.item), "damaged journal");
      records.push_back(std::get<Record>(item.item));
    }
  }
  return records;
}

std::map<std::string, std::vector<float>> ReadTensors(const std::string& path) {
  std::map<std::string, std::vector<float>> tensors;
  const auto file = SafetensorsFile::Open(path).value();
  for (const TensorEntry& entry : file->tensors()) {
    MFT_CHECK(entry.dtype == DType::kF32, entry.name);
    std::vector<float>& values = tensors[entry.name];
    values.resize(entry.data.size() / sizeof(float));
    std::memcpy(values.data(), entry.data.data(), entry.data.size());
  }
  return tensors;
}

}  // namespace mft::testing
