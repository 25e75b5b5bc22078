// SPDX-License-Identifier: Apache-2.0
#include "worker/runner/rank_keeper.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdlib>

#include "common/base/clock.h"
#include "common/base/files.h"
#include "common/base/log.h"
#include "common/base/processes.h"
#include "common/base/strings.h"
#include "common/config/job_file.h"
#include "worker/runner/child_process.h"
#include "worker/runner/process_setup.h"
#include "worker/runner/rank_command.h"
#include "worker/runner/rank_launcher.h"
#include "worker/runner/rank_log.h"
#include "worker/runner/rank_words.h"

namespace mft::runner {

namespace {

constexpr int64_t kScanMicros = 5'000;
constexpr int64_t kLeftoversMicros = 60'000'000;  // then Slurm has to kill them, with the job

Result<int> RankFromSlurm(int ranks) {
  const char* text = std::getenv("SLURM_PROCID");
  const std::string_view digits = text == nullptr ? "" : text;
  int rank = -1;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), rank);
  if (error != std::errc() || end != digits.data() + digits.size() || rank < 0 || rank >= ranks) {
    return InvalidArgument(StrCat("SLURM_PROCID must be a number from 0 to ",
                                  ranks - 1,
                                  ", not \"",
                                  Printable(digits, 80),
                                  "\": only srun starts the ranks of several nodes"));
  }
  return rank;
}

class Keeper {
 public:
  Keeper(AttemptFile attempt, std::string dir, int rank, Wakeup& wakeup)
      : attempt_(std::move(attempt)), dir_(std::move(dir)), wakeup_(wakeup), end_{.rank = rank} {}

  Status Run(const std::string& bin_dir) {
    const std::string log = RankFile(dir_, end_.rank, ".log");
    const auto pid = StartChild({.arguments = RankArguments(attempt_.kind, dir_, bin_dir),
                                 .variables = {},
                                 .log_path = log});
    if (!pid.ok()) {
      end_.why = Status(pid.status().code(), "START_FAILED", pid.status().message());
    } else {
      pid_ = *pid;
      LogInfo(StrCat("rank ", end_.rank, " is process ", pid_));
      MFT_RETURN_IF_ERROR(Watch(log));
      MFT_RETURN_IF_ERROR(KillLeftovers());
    }
    return WriteAll(STDOUT_FILENO, EncodeRankEnd(end_), "standard output");
  }

 private:
  Status Watch(const std::string& log) {
    const Clock& clock = SystemClock();
    while (pid_ > 0) {
      const int64_t check_at = clock.BoottimeMicros() + kLogCheckMicros;
      MFT_ASSIGN_OR_RETURN(const std::vector<int> signals, wakeup_.Wait(check_at, input_));
      for (const int signal : signals) {
        if (signal != SIGCHLD) {
          kill(pid_, signal == SIGINT ? SIGTERM : signal);  // not reaped: it is nobody else's pid
        }
      }
      Listen();
      Reap();
      LogIfError(LimitLog(log, kLogBytesKept), "limiting a log");
    }
    return Status::Ok();
  }

  void Listen() {
    std::array<char, 64> words{};
    const ssize_t got = input_ < 0 ? -1 : read(input_, words.data(), words.size());
    if (got < 0) {
      return;
    }
    for (const char word : std::string_view(words.data(), static_cast<size_t>(got))) {
      if (word == kWordStop || word == kWordCheckpoint) {
        kill(pid_, word == kWordStop ? SIGTERM : SIGUSR1);
      } else if (word == kWordKill) {
        kill(pid_, SIGKILL);
      }
    }
    if (got == 0) {
      LogInfo("the runner is gone: the rank is killed");
      input_ = -1;
      kill(pid_, SIGKILL);
    }
  }

  // The rank, and what it left behind: as its subreaper we inherit that. False: no child is left.
  bool Reap() {
    int wait_status = 0;
    pid_t pid = 0;
    while ((pid = waitpid(-1, &wait_status, WNOHANG)) > 0) {
      if (pid == pid_) {
        pid_ = -1;
        end_.exit_code = WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : -1;
        end_.signal = WIFSIGNALED(wait_status) ? WTERMSIG(wait_status) : 0;
      }
    }
    return pid == 0;
  }

  // Other ranks of the attempt may be on this node: only what is below this process is ours.
  Status KillLeftovers() {
    const Clock& clock = SystemClock();
    const int64_t give_up = clock.BoottimeMicros() + kLeftoversMicros;
    while (Reap() && clock.BoottimeMicros() < give_up) {
      for (const AttemptProcess& process : FindAttemptProcesses(attempt_.attempt_id)) {
        if (process.parent_pid == getpid()) {
          LogIfError(SendSignal(process, SIGKILL), "what the rank left behind");
        }
      }
      MFT_RETURN_IF_ERROR(wakeup_.Wait(clock.BoottimeMicros() + kScanMicros).status());
    }
    return Status::Ok();
  }

  AttemptFile attempt_;
  std::string dir_;
  Wakeup& wakeup_;
  RankEnd end_;
  pid_t pid_ = -1;            // -1: the rank has ended
  int input_ = STDIN_FILENO;  // -1: it has ended
};

}  // namespace

Status KeepRank(const std::string& attempt_dir, const std::string& bin_dir) {
  Wakeup wakeup;
  MFT_RETURN_IF_ERROR(wakeup.Init());
  AdoptDescendants();
  if (fcntl(STDIN_FILENO, F_SETFL, O_NONBLOCK) != 0) {
    return ErrnoStatus(errno, "standard input");
  }
  const std::string dir = AbsolutePath(attempt_dir);
  MFT_ASSIGN_OR_RETURN(AttemptFile attempt, ReadAttemptFile(JoinPath(dir, "attempt.json")));
  MFT_ASSIGN_OR_RETURN(const int rank, RankFromSlurm(attempt.ranks));
  return Keeper(std::move(attempt), dir, rank, wakeup).Run(bin_dir);
}

}  // namespace mft::runner
