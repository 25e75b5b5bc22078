// SPDX-License-Identifier: Apache-2.0
#include "tests/worker/data/run_mft_data.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "common/base/files.h"
#include "tests/support/temp_dir.h"

namespace mft::testing {

ProgramResult RunMftData(std::vector<std::string> arguments,
                         const std::string& input,
                         int stop_signal) {
  const TempDir dir;
  const std::string in = dir.Write("in", input);
  const std::string out = dir.File("out");
  const std::string err = dir.File("err");
  arguments.insert(arguments.begin(), std::string(MFT_BIN_DIR) + "/mft-data");
  std::vector<char*> argv;
  for (std::string& argument : arguments) {
    argv.push_back(argument.data());
  }
  argv.push_back(nullptr);
  const pid_t child = fork();
  if (child == 0) {
    dup2(open(in.c_str(), O_RDONLY), STDIN_FILENO);
    dup2(open(out.c_str(), O_WRONLY | O_CREAT, 0644), STDOUT_FILENO);
    dup2(open(err.c_str(), O_WRONLY | O_CREAT, 0644), STDERR_FILENO);
    if (stop_signal != 0) {
      sigset_t blocked;
      sigemptyset(&blocked);
      sigaddset(&blocked, stop_signal);
      sigprocmask(SIG_BLOCK, &blocked, nullptr);
      raise(stop_signal);
    }
    execv(argv[0], argv.data());
    _exit(127);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return {.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status),
          .out = ReadFile(out).value(),
          .err = ReadFile(err).value()};
}

}  // namespace mft::testing
