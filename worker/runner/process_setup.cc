// SPDX-License-Identifier: Apache-2.0
#include "worker/runner/process_setup.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>

#include "common/base/log.h"
#include "common/base/strings.h"

namespace mft::runner {

namespace {

Status SetOomScore(std::string_view score) {
  const std::string path = "/proc/self/oom_score_adj";
  MFT_ASSIGN_OR_RETURN(const UniqueFd fd, OpenFile(path, O_WRONLY));
  return WriteAll(fd.get(), score, path);
}

}  // namespace

void AdoptDescendants() {
  // The locks stay with this process: a rank that inherited one would keep the attempt alive.
  if (close_range(STDERR_FILENO + 1, ~0U, CLOSE_RANGE_CLOEXEC) != 0) {
    LogIfError(ErrnoStatus(errno, "close_range"), "keeping descriptors from the ranks");
  }
  if (prctl(PR_SET_CHILD_SUBREAPER, 1) != 0) {
    LogIfError(ErrnoStatus(errno, "PR_SET_CHILD_SUBREAPER"), "becoming the ranks' reaper");
  }
}

void BecomeRunner() {
  // Descriptors 0 to 2 must be something, or the next open() would become a rank's stdout.
  for (int fd = open("/dev/null", O_RDWR); fd >= 0; fd = open("/dev/null", O_RDWR)) {
    if (fd > STDERR_FILENO) {
      close(fd);
      break;
    }
  }
  AdoptDescendants();
  if (getsid(0) != getpid() && setsid() < 0) {
    LogInfo("started by hand: stays in the session of the terminal");
  }
  LogIfError(SetOomScore("0"), "setting the OOM score");
}

Result<UniqueFd> HoldLock(const std::string& path, int lock_fd) {
  if (lock_fd < 0) {
    MFT_ASSIGN_OR_RETURN(UniqueFd lock, TryLockFile(path));
    return lock.valid()
               ? Result<UniqueFd>(std::move(lock))
               : FailedPrecondition(StrCat(path, ": another runner of this attempt is alive"));
  }
  UniqueFd lock(lock_fd);
  struct stat held {
  }, wanted{};
  if (fstat(lock_fd, &held) != 0 || stat(path.c_str(), &wanted) != 0) {
    return ErrnoStatus(errno, StrCat("--lock-fd ", lock_fd, " for ", path));
  }
  if (held.st_dev != wanted.st_dev || held.st_ino != wanted.st_ino) {
    return FailedPrecondition(StrCat("--lock-fd ", lock_fd, " is not ", path));
  }
  // Ours already if it was inherited as it should be; then this changes nothing.
  if (flock(lock_fd, LOCK_EX | LOCK_NB) != 0) {
    return FailedPrecondition(StrCat(path, ": another runner of this attempt is alive"));
  }
  return lock;
}

Status Wakeup::Init() {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : {SIGTERM, SIGUSR1, SIGINT, SIGCHLD}) {
    sigaddset(&set, signal);
  }
  if (sigprocmask(SIG_BLOCK, &set, nullptr) != 0) {
    return ErrnoStatus(errno, "blocking signals");
  }
  signals_ = UniqueFd(signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC));
  timer_ = UniqueFd(timerfd_create(CLOCK_BOOTTIME, TFD_NONBLOCK | TFD_CLOEXEC));
  return signals_.valid() && timer_.valid() ? Status::Ok()
                                            : ErrnoStatus(errno, "signalfd and timerfd");
}

Result<std::vector<int>> Wakeup::Wait(std::optional<int64_t> deadline_micros, int fd) {
  constexpr int64_t kMicrosPerSecond = 1'000'000;
  itimerspec time{};  // all zero disarms; a time in the past fires at once, but zero may not be it
  if (deadline_micros) {
    const int64_t at = std::max<int64_t>(*deadline_micros, 1);
    time.it_value.tv_sec = at / kMicrosPerSecond;
    time.it_value.tv_nsec = at % kMicrosPerSecond * 1000;
  }
  if (timerfd_settime(timer_.get(), TFD_TIMER_ABSTIME, &time, nullptr) != 0) {
    return ErrnoStatus(errno, "timerfd_settime");
  }
  std::array<pollfd, 3> sources = {pollfd{signals_.get(), POLLIN, 0},
                                   pollfd{timer_.get(), POLLIN, 0},
                                   pollfd{fd, POLLIN, 0}};  // one that is -1 is skipped
  if (poll(sources.data(), sources.size(), -1) < 0 && errno != EINTR) {
    return ErrnoStatus(errno, "poll");
  }
  std::vector<int> signals;
  signalfd_siginfo info{};
  while (read(signals_.get(), &info, sizeof info) == sizeof info) {
    signals.push_back(static_cast<int>(info.ssi_signo));
  }
  return signals;
}

}  // namespace mft::runner
