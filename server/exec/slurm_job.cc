// SPDX-License-Identifier: Apache-2.0
#include "server/exec/slurm_job.h"

#include <algorithm>
#include <array>
#include <span>

#include "common/base/files.h"
#include "common/base/processes.h"
#include "common/base/strings.h"

namespace mft::server {

namespace {

constexpr std::string_view kNamePrefix = "mft-";
constexpr size_t kAttemptIdSize = 32;          // hexadecimal digits
constexpr size_t kSqueueFields = 5;            // of SqueueArguments
constexpr int64_t kMaxSignalSeconds = 65'535;  // sbatch --signal
// sbatch --signal may come a minute early, limits are rounded to minutes, and a runner needs a
// moment to start: Slurm's limit must not come before the runner's own.
constexpr int64_t kLimitMarginSeconds = 120;

constexpr std::array<std::string_view, 5> kWaitingStates = {
    "PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT"};
constexpr std::array<std::string_view, 10> kFinalStates = {"BOOT_FAIL",
                                                           "CANCELLED",
                                                           "COMPLETED",
                                                           "DEADLINE",
                                                           "FAILED",
                                                           "NODE_FAIL",
                                                           "OUT_OF_MEMORY",
                                                           "PREEMPTED",
                                                           "REVOKED",
                                                           "TIMEOUT"};

bool Contains(const auto& list, std::string_view word) {
  return std::find(list.begin(), list.end(), word) != list.end();
}

bool IsDigits(std::string_view text) {
  return !text.empty() && text.find_first_not_of("0123456789") == std::string_view::npos;
}

bool IsAttemptId(std::string_view text) {
  return text.size() == kAttemptIdSize &&
         text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

// One word of a POSIX shell, whatever it holds.
std::string Quoted(std::string_view text) {
  std::string quoted = "'";
  for (const char c : text) {
    quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  }
  return quoted + "'";
}

// sbatch replaces %j and its like in file names.
std::string WithoutPatterns(std::string_view path) {
  std::string plain;
  for (const char c : path) {
    plain += c == '%' ? std::string("%%") : std::string(1, c);
  }
  return plain;
}

int64_t SecondsUp(int64_t ms) {
  return (ms + 999) / 1'000;
}

void AddIf(bool wanted, std::string word, std::vector<std::string>& words) {
  if (wanted) {
    words.push_back(std::move(word));
  }
}

}  // namespace

SlurmLife LifeOf(std::string_view state) {
  if (Contains(kWaitingStates, state)) {
    return SlurmLife::kWaiting;
  }
  return Contains(kFinalStates, state) ? SlurmLife::kOver : SlurmLife::kAlive;
}

std::string SlurmJobName(std::string_view attempt_id) {
  return StrCat(kNamePrefix, attempt_id);
}

std::string SlurmScript(const SlurmRequest& request) {
  std::string script = StrCat("#!/bin/sh\n# Written by mftd, run by Slurm.\nexport ",
                              kAttemptVariable,
                              "=",
                              Quoted(request.attempt_id),
                              "\nexec ",
                              Quoted(request.runner),
                              " --attempt-dir ",
                              Quoted(request.attempt_dir));
  if (!request.secret_path.empty()) {
    script += StrCat(" --secret-fd 3 3<", Quoted(request.secret_path));
  }
  return script + "\n";
}

std::vector<std::string> SbatchArguments(const SlurmConfig& config,
                                         const SlurmRequest& request,
                                         const std::string& script_path) {
  const bool spread = request.ranks_per_node > 0;
  const int per_node = spread ? request.ranks_per_node : request.ranks;
  const int nodes = (request.ranks + per_node - 1) / per_node;
  std::vector<std::string> words = {
      "--parsable", StrCat("--nodes=", nodes), StrCat("--ntasks=", request.ranks)};
  AddIf(spread, StrCat("--ntasks-per-node=", per_node), words);
  words.push_back(StrCat("--cpus-per-task=", request.threads));
  // Both are of one node.
  AddIf(request.cuda, StrCat("--gres=", config.gres, ":", per_node), words);
  AddIf(config.memory_gib > 0, StrCat("--mem=", config.memory_gib * per_node, "G"), words);
  AddIf(!config.partition.empty(), StrCat("--partition=", config.partition), words);
  AddIf(!config.account.empty(), StrCat("--account=", config.account), words);
  AddIf(!config.qos.empty(), StrCat("--qos=", config.qos), words);
  AddIf(request.low_priority, "--nice", words);
  const int64_t grace_seconds = SecondsUp(request.grace_ms);
  if (request.time_limit_ms > 0) {
    const int64_t limit = SecondsUp(request.time_limit_ms) + grace_seconds + kLimitMarginSeconds;
    words.push_back(StrCat("--time=", (limit + 59) / 60));  // minutes
  }
  words.insert(words.end(), config.arguments.begin(), config.arguments.end());
  const std::string log = WithoutPatterns(JoinPath(request.attempt_dir, "runner.log"));
  words.insert(words.end(),
               {StrCat("--job-name=", SlurmJobName(request.attempt_id)),
                StrCat("--comment=", request.comment),
                StrCat("--chdir=", request.attempt_dir),
                StrCat("--output=", log),
                StrCat("--error=", log),
                "--open-mode=append",
                "--export=ALL",
                "--no-requeue",
                StrCat("--signal=B:TERM@", std::min(grace_seconds, kMaxSignalSeconds)),
                script_path});
  return words;
}

Result<std::string> ParseSbatch(std::string_view out) {
  const std::string_view line = Trim(out);
  const std::string_view id = line.substr(0, line.find(';'));
  if (!IsDigits(id)) {
    return Internal(StrCat("sbatch answered \"", Printable(line, 200), "\" and no job id"));
  }
  return std::string(id);
}

// The reason is free text and comes last.
std::vector<std::string> SqueueArguments() {
  return {"--me", "--noheader", "--states=all", "--format=%A|%T|%j|%N|%r"};
}

SlurmJobs ParseSqueue(std::string_view out) {
  SlurmJobs jobs;
  for (const std::string& line : Split(out, '\n')) {
    std::vector<std::string> fields = Split(line, '|');
    if (fields.size() < kSqueueFields || !IsDigits(fields[0]) || fields[1].empty() ||
        !fields[2].starts_with(kNamePrefix)) {
      continue;
    }
    const std::string attempt_id = fields[2].substr(kNamePrefix.size());
    if (!IsAttemptId(attempt_id)) {
      continue;
    }
    const std::string reason = Join(std::span(fields).subspan(kSqueueFields - 1), "|");
    SlurmJob job{.id = fields[0],
                 .state = fields[1],
                 .reason = Printable(reason, 200),
                 .node = Printable(fields[3], 200)};
    const auto known = jobs.find(attempt_id);
    if (known == jobs.end() || LifeOf(known->second.state) == SlurmLife::kOver) {
      jobs[attempt_id] = std::move(job);
    }
  }
  return jobs;
}

std::vector<std::string> ScancelArguments(SlurmSignal signal,
                                          std::string_view attempt_id,
                                          std::string_view job_id) {
  std::vector<std::string> words = {StrCat("--name=", SlurmJobName(attempt_id))};
  switch (signal) {
    case SlurmSignal::kTerminate:
      words.insert(words.end(), {"--batch", "--signal=TERM"});
      break;
    case SlurmSignal::kCheckpoint:
      words.insert(words.end(), {"--batch", "--signal=USR1"});
      break;
    case SlurmSignal::kDequeue:
      words.emplace_back("--state=PENDING");
      break;
    case SlurmSignal::kKill:
      words.insert(words.end(), {"--full", "--signal=KILL"});
      break;
  }
  words.emplace_back(job_id);
  return words;
}

}  // namespace mft::server
