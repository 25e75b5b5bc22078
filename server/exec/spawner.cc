// SPDX-License-Identifier: Apache-2.0
#include "server/exec/spawner.h"

#include <fcntl.h>
#include <spawn.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>

#include "common/base/processes.h"
#include "common/base/strings.h"
#include "server/exec/attempt_dir.h"
#include "server/exec/environment.h"

namespace mft::server {

namespace {

constexpr int kFirstLockFd = 3;  // in the runner: the attempt's lock, the GPUs', the secret
// Above every descriptor that the file actions write to, so that none is overwritten before it is
// copied.
constexpr int kFirstSourceFd = 512;

// posix_spawn's two argument objects.
class SpawnPlan {
 public:
  SpawnPlan() {
    posix_spawn_file_actions_init(&actions_);
    posix_spawnattr_init(&attributes_);
  }
  ~SpawnPlan() {
    posix_spawn_file_actions_destroy(&actions_);
    posix_spawnattr_destroy(&attributes_);
  }
  SpawnPlan(const SpawnPlan&) = delete;
  SpawnPlan& operator=(const SpawnPlan&) = delete;

  // 0, or the errno of what failed.
  int Descriptors(const std::string& log, const std::vector<UniqueFd>& inherited) {
    int next = kFirstLockFd;
    int error = posix_spawn_file_actions_addopen(&actions_, 0, "/dev/null", O_RDONLY, 0);
    error = error ? error
                  : posix_spawn_file_actions_addopen(
                        &actions_, 1, log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
    error = error ? error : posix_spawn_file_actions_adddup2(&actions_, 1, 2);
    for (const UniqueFd& fd : inherited) {
      error = error ? error : posix_spawn_file_actions_adddup2(&actions_, fd.get(), next++);
    }
    return error ? error : posix_spawn_file_actions_addclosefrom_np(&actions_, next);
  }

  int Signals() {
    sigset_t blocked, defaults;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGTERM);
    sigaddset(&blocked, SIGUSR1);
    sigfillset(&defaults);
    int error = posix_spawnattr_setsigmask(&attributes_, &blocked);
    error = error ? error : posix_spawnattr_setsigdefault(&attributes_, &defaults);
    return error ? error
                 : posix_spawnattr_setflags(
                       &attributes_,
                       POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  }

  const posix_spawn_file_actions_t* actions() const { return &actions_; }
  const posix_spawnattr_t* attributes() const { return &attributes_; }

 private:
  posix_spawn_file_actions_t actions_;
  posix_spawnattr_t attributes_;
};

// The attempt's lock, the GPUs' and last the secret if there is one, all with high numbers.
Result<std::vector<UniqueFd>> TakeInherited(SpawnOptions& options) {
  const std::string path = JoinPath(options.attempt_dir, kAttemptLockName);
  MFT_ASSIGN_OR_RETURN(UniqueFd lock, TryLockFile(path));
  if (!lock.valid()) {
    return Status(Code::kFailedPrecondition,
                  "ATTEMPT_LOCKED",
                  StrCat(path, ": is locked by another process"));
  }
  std::vector<UniqueFd> inherited = std::move(options.gpu_locks);
  inherited.insert(inherited.begin(), std::move(lock));
  if (options.secret.valid()) {
    inherited.push_back(std::move(options.secret));
  }
  for (UniqueFd& fd : inherited) {
    const int copy = fcntl(fd.get(), F_DUPFD_CLOEXEC, kFirstSourceFd);
    if (copy < 0) {
      return ErrnoStatus(errno, StrCat("copying the descriptor of ", path));
    }
    fd = UniqueFd(copy);
  }
  return inherited;
}

}  // namespace

Result<AttemptProcess> SpawnRunner(SpawnOptions options) {
  const bool has_secret = options.secret.valid();
  MFT_ASSIGN_OR_RETURN(const std::vector<UniqueFd> inherited, TakeInherited(options));
  SpawnPlan plan;
  int error = plan.Descriptors(JoinPath(options.attempt_dir, "runner.log"), inherited);
  error = error ? error : plan.Signals();
  if (error != 0) {
    return ErrnoStatus(error, StrCat("preparing to start ", options.runner));
  }
  std::vector<std::string> arguments = {options.runner,
                                        "--attempt-dir",
                                        options.attempt_dir,
                                        "--lock-fd",
                                        std::to_string(kFirstLockFd)};
  if (has_secret) {
    arguments.insert(
        arguments.end(),
        {"--secret-fd", std::to_string(kFirstLockFd + static_cast<int>(inherited.size()) - 1)});
  }
  std::vector<std::string> environment = ChildEnvironment();
  environment.push_back(StrCat(kAttemptVariable, "=", options.attempt_id));
  pid_t pid = 0;
  error = posix_spawn(&pid,
                      options.runner.c_str(),
                      plan.actions(),
                      plan.attributes(),
                      ExecPointers(arguments).data(),
                      ExecPointers(environment).data());
  if (error != 0) {
    return ErrnoStatus(error, StrCat("starting ", options.runner));
  }
  // Our child until it is reaped, which only the owner of this object does: the pid cannot be
  // another's.
  return AttemptProcess{
      .pid = pid, .parent_pid = getpid(), .start_ticks = StartTicks(pid), .pidfd = OpenPidfd(pid)};
}

}  // namespace mft::server
