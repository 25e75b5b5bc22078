// SPDX-License-Identifier: Apache-2.0
#include "tests/worker/data/run_mft_data.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/files.h"
#include "tests/support/temp_dir.h"

namespace mft::testing {

ProgramResult RunMftData(std::vector<std::string> arguments, const std::string& input) {
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
