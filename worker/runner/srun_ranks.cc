// SPDX-License-Identifier: Apache-2.0
#include "worker/runner/srun_ranks.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>

#include "common/base/log.h"
#include "common/base/strings.h"
#include "common/journal/record.h"
#include "worker/runner/child_process.h"
#include "worker/runner/rank_command.h"
#include "worker/runner/rank_log.h"
#include "worker/runner/rank_words.h"

namespace mft::runner {

namespace {

constexpr int64_t kSecond = 1'000'000;
constexpr int64_t kStepKillMicros = 2 * kSecond;
constexpr int64_t kSrunKillMicros = 5 * kSecond;
constexpr size_t kMaxLine = size_t{64} << 10;  // of what is no word

// Our end is close-on-exec, else srun would hold it and never see the end of the stream.
Status MakeStreams(UniqueFd& ours, UniqueFd& srun_in, UniqueFd& words, UniqueFd& srun_out) {
  std::array<int, 2> ends{};
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) {
    return ErrnoStatus(errno, "a socket to srun");
  }
  ours = UniqueFd(ends[0]);
  srun_in = UniqueFd(ends[1]);
  if (pipe2(ends.data(), O_CLOEXEC) != 0) {
    return ErrnoStatus(errno, "a pipe from srun");
  }
  words = UniqueFd(ends[0]);
  srun_out = UniqueFd(ends[1]);
  return fcntl(words.get(), F_SETFL, O_NONBLOCK) == 0 ? Status::Ok()
                                                      : ErrnoStatus(errno, "the pipe from srun");
}

}  // namespace

std::vector<std::string> SrunArguments(const AttemptFile& attempt,
                                       const std::string& dir,
                                       const std::string& bin_dir) {
  const int nodes = (attempt.ranks + attempt.ranks_per_node - 1) / attempt.ranks_per_node;
  std::vector<std::string> words;
  if (attempt.srun.find('/') == std::string::npos) {
    words.emplace_back("/usr/bin/env");  // looks in PATH
  }
  words.insert(words.end(),
               {attempt.srun,
                StrCat("--nodes=", nodes),
                StrCat("--ntasks=", attempt.ranks),
                StrCat("--ntasks-per-node=", attempt.ranks_per_node),
                StrCat("--cpus-per-task=", attempt.threads),
                "--distribution=block",
                "--export=ALL",
                "--mpi=none",
                "--input=all",
                "--output=all",
                "--error=all",
                // The runner decides what the end of a rank means for the others.
                "--kill-on-bad-exit=0",
                "--wait=0",
                JoinPath(bin_dir, "mft-runner"),
                "rank",
                "--attempt-dir",
                dir,
                "--bin-dir",
                bin_dir});
  return words;
}

std::vector<std::pair<std::string, std::string>> SrunVariables(const AttemptFile& attempt) {
  std::vector<std::pair<std::string, std::string>> variables = RankVariables(attempt);
  variables.insert(variables.end(), {{"WORLD_SIZE", ""}, {"MASTER_ADDR", ""}, {"MASTER_PORT", ""}});
  return variables;
}

SrunRanks::SrunRanks(AttemptFile attempt, std::string dir, std::string bin_dir)
    : attempt_(std::move(attempt)),
      dir_(std::move(dir)),
      bin_dir_(std::move(bin_dir)),
      log_path_(JoinPath(dir_, "srun.log")),
      alive_(static_cast<size_t>(attempt_.ranks), false) {}

Status SrunRanks::StartSrun() {
  UniqueFd srun_in, srun_out;
  MFT_RETURN_IF_ERROR(MakeStreams(commands_, srun_in, words_, srun_out));
  // It outlives us by the moment in which the keepers hear, through it, that we are dead.
  MFT_ASSIGN_OR_RETURN(srun_,
                       StartChild({.arguments = SrunArguments(attempt_, dir_, bin_dir_),
                                   .variables = SrunVariables(attempt_),
                                   .log_path = log_path_,
                                   .stdin_fd = srun_in.get(),
                                   .stdout_fd = srun_out.get(),
                                   .outlives_us = true}));
  return Status::Ok();
}

std::vector<RankEnd> SrunRanks::Start() {
  if (const Status status = StartSrun(); !status.ok()) {
    words_.reset();
    return {{.rank = 0, .why = Status(status.code(), "START_FAILED", status.message())}};
  }
  alive_.assign(alive_.size(), true);
  LogInfo(StrCat("srun is process ", srun_, ", for ", attempt_.ranks, " ranks"));
  return {};
}

// Not more than a few bytes ever: they fit into the socket, read or not.
void SrunRanks::Say(char word) {
  if (send(commands_.get(), &word, 1, MSG_NOSIGNAL | MSG_DONTWAIT) != 1 && errno != EPIPE) {
    LogIfError(ErrnoStatus(errno, "srun's input"), "telling the ranks");
  }
}

void SrunRanks::Signal(int signal) {
  Say(signal == SIGTERM ? kWordStop : kWordCheckpoint);
}

void SrunRanks::Kill(int64_t now_micros) {
  if (!kill_began_micros_) {
    kill_began_micros_ = now_micros;
    Say(kWordKill);
  }
  const int64_t since = now_micros - *kill_began_micros_;
  const int signal = since < kStepKillMicros ? 0 : since < kSrunKillMicros ? SIGTERM : SIGKILL;
  if (srun_ > 0 && signal != srun_got_) {
    kill(srun_, signal);
    srun_got_ = signal;
  }
}

std::vector<RankEnd> SrunRanks::Heard() {
  if (!words_.valid()) {
    return {};
  }
  std::array<char, 4096> buffer{};
  ssize_t got = 0;
  while ((got = read(words_.get(), buffer.data(), buffer.size())) > 0) {
    unread_.append(buffer.data(), static_cast<size_t>(got));
  }
  if (got == 0) {
    words_.reset();
  }
  std::vector<RankEnd> ends;
  size_t begin = 0;
  for (size_t end = 0; (end = unread_.find('\n', begin)) != std::string::npos; begin = end + 1) {
    const std::string_view line = std::string_view(unread_).substr(begin, end - begin);
    const auto word = DecodeRankEnd(line);
    const auto rank = static_cast<size_t>(word ? word->rank : attempt_.ranks);
    if (rank >= alive_.size()) {
      LogInfo(StrCat("srun: ", Printable(line, 300)));
    } else if (alive_[rank]) {
      alive_[rank] = false;
      ends.push_back(*word);
    }
  }
  unread_.erase(0, begin);
  if (unread_.size() > kMaxLine) {
    unread_.clear();
  }
  return ends;
}

Status SrunRanks::WhyUnseen(int rank, int wait_status) const {
  const std::string said = LastLogLine(log_path_);
  const std::string tail = said.empty() ? "" : StrCat("; it said last: ", said);
  const std::string how = WIFSIGNALED(wait_status)
                              ? StrCat("was ended by signal ", WTERMSIG(wait_status))
                              : StrCat("ended with exit code ", WEXITSTATUS(wait_status));
  return PathExists(RankFile(dir_, rank, ".log"))
             ? Status(Code::kUnavailable,
                      std::string(kReasonRankLost),
                      StrCat("nobody saw how it ended; srun ", how, tail))
             : Status(Code::kUnavailable, "START_FAILED", StrCat("srun ", how, tail));
}

std::vector<RankEnd> SrunRanks::ChildEnded(pid_t pid, int wait_status) {
  if (pid != srun_) {
    return {};
  }
  srun_ = -1;
  std::vector<RankEnd> ends = Heard();  // what it wrote is in the pipe, whoever still holds that
  words_.reset();
  for (size_t i = 0; i < alive_.size(); ++i) {
    if (alive_[i]) {
      alive_[i] = false;
      const int rank = static_cast<int>(i);
      ends.push_back({.rank = rank,
                      .signal = kill_began_micros_ ? SIGKILL : 0,
                      .why = WhyUnseen(rank, wait_status)});
    }
  }
  return ends;
}

int SrunRanks::num_alive() const {
  return static_cast<int>(std::ranges::count(alive_, true));
}

}  // namespace mft::runner
