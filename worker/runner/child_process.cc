// SPDX-License-Identifier: Apache-2.0
#include "worker/runner/child_process.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>

#include "common/base/files.h"
#include "common/base/processes.h"
#include "common/base/strings.h"

namespace mft::runner {

namespace {

constexpr int kExecFailed = 127;  // as a shell says it

std::vector<std::string> EnvironmentWith(
    const std::vector<std::pair<std::string, std::string>>& variables) {
  std::vector<std::string> environment;
  for (const auto& [name, value] : variables) {
    environment.push_back(StrCat(name, "=", value));
  }
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text(*entry);
    const std::string_view name = text.substr(0, text.find('='));
    const auto same = [name](const auto& variable) { return variable.first == name; };
    if (std::none_of(variables.begin(), variables.end(), same)) {
      environment.emplace_back(text);
    }
  }
  return environment;
}

// Prefers the ranks to the runner when memory runs out; a kernel without the file is fine.
void RaiseOomScore() {
  constexpr std::string_view kScore = "500";
  const UniqueFd fd(open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC));
  static_cast<void>(!write(fd.get(), kScore.data(), kScore.size()));
}

struct ChildSetup {
  char** argv;
  char** envp;
  int stdin_fd;
  int stdout_fd;
  int log_fd;
  int error_fd;  // closes on exec; gets errno if that fails
  pid_t parent;
  bool outlives_parent;
};

[[noreturn]] void RunChild(const ChildSetup& setup) {
  if (!setup.outlives_parent) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != setup.parent) {
      _exit(kExecFailed);  // the parent died before the line above
    }
  }
  RaiseOomScore();
  sigset_t blocked;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGTERM);
  sigaddset(&blocked, SIGUSR1);
  sigprocmask(SIG_SETMASK, &blocked, nullptr);
  if (dup2(setup.stdin_fd, STDIN_FILENO) >= 0 && dup2(setup.stdout_fd, STDOUT_FILENO) >= 0 &&
      dup2(setup.log_fd, STDERR_FILENO) >= 0) {
    execve(setup.argv[0], setup.argv, setup.envp);
  }
  const int error = errno;
  static_cast<void>(!write(setup.error_fd, &error, sizeof error));
  _exit(kExecFailed);
}

// The errno that the child wrote, or 0 when the pipe was closed by its exec.
int WaitForExec(int pipe_fd) {
  int error = 0;
  ssize_t got = 0;
  do {
    got = read(pipe_fd, &error, sizeof error);
  } while (got < 0 && errno == EINTR);
  return got == sizeof error ? error : 0;
}

}  // namespace

Result<pid_t> StartChild(const ChildCommand& command) {
  MFT_ASSIGN_OR_RETURN(const UniqueFd null, OpenFile("/dev/null", O_RDONLY));
  MFT_ASSIGN_OR_RETURN(const UniqueFd log,
                       OpenFile(command.log_path, O_WRONLY | O_CREAT | O_APPEND));
  std::vector<std::string> arguments = command.arguments;
  std::vector<std::string> environment = EnvironmentWith(command.variables);
  std::vector<char*> argv = ExecPointers(arguments);
  std::vector<char*> envp = ExecPointers(environment);
  std::array<int, 2> ends{};
  if (pipe2(ends.data(), O_CLOEXEC) != 0) {
    return ErrnoStatus(errno, StrCat("starting ", arguments[0]));
  }
  const UniqueFd read_end(ends[0]);
  UniqueFd write_end(ends[1]);
  const ChildSetup setup{.argv = argv.data(),
                         .envp = envp.data(),
                         .stdin_fd = command.stdin_fd >= 0 ? command.stdin_fd : null.get(),
                         .stdout_fd = command.stdout_fd >= 0 ? command.stdout_fd : log.get(),
                         .log_fd = log.get(),
                         .error_fd = write_end.get(),
                         .parent = getpid(),
                         .outlives_parent = command.outlives_us};
  const pid_t pid = fork();
  if (pid < 0) {
    return ErrnoStatus(errno, StrCat("starting ", arguments[0]));
  }
  if (pid == 0) {
    RunChild(setup);
  }
  write_end.reset();
  const int error = WaitForExec(read_end.get());
  if (error != 0) {
    waitpid(pid, nullptr, 0);
    return ErrnoStatus(error, StrCat("starting ", arguments[0]));
  }
  return pid;
}

}  // namespace mft::runner
