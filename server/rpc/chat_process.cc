// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/chat_process.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>

#include "common/base/strings.h"

extern char** environ;

namespace mft::server {

namespace {
constexpr size_t kMaxLineBytes = size_t{1} << 20;

struct Pipe {
  UniqueFd read, write;
};

Result<Pipe> MakePipe() {
  std::array<int, 2> fds{};
  if (pipe2(fds.data(), O_CLOEXEC) != 0) {
    return ErrnoStatus(errno, "pipe");
  }
  return Pipe{UniqueFd(fds[0]), UniqueFd(fds[1])};
}

// The daemon's environment, with the thread count of the slot.
std::vector<std::string> Environment(int cpu_threads) {
  std::vector<std::string> variables;
  for (char** variable = environ; *variable != nullptr; ++variable) {
    if (!std::string_view(*variable).starts_with("OMP_NUM_THREADS=")) {
      variables.emplace_back(*variable);
    }
  }
  variables.push_back(StrCat("OMP_NUM_THREADS=", cpu_threads));
  // As mft-runner sets it for training: threads that spin long at barriers starve the node's other work.
  if (std::getenv("GOMP_SPINCOUNT") == nullptr) {
    variables.emplace_back("GOMP_SPINCOUNT=2000");
  }
  return variables;
}

std::vector<char*> Pointers(std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  for (std::string& text : strings) {
    pointers.push_back(text.data());
  }
  pointers.push_back(nullptr);
  return pointers;
}
}  // namespace

Result<std::unique_ptr<ChatProcess>> ChatProcess::Start(const std::string& program,
                                                        const std::vector<std::string>& arguments,
                                                        int cpu_threads) {
  MFT_ASSIGN_OR_RETURN(Pipe in, MakePipe());
  MFT_ASSIGN_OR_RETURN(Pipe out, MakePipe());
  MFT_ASSIGN_OR_RETURN(Pipe error, MakePipe());
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, in.read.get(), STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, out.write.get(), STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, error.write.get(), STDERR_FILENO);
  posix_spawn_file_actions_addclosefrom_np(&actions, STDERR_FILENO + 1);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t none;
  sigemptyset(&none);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSID);
  std::vector<std::string> words = {program};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<std::string> environment = Environment(cpu_threads);
  pid_t pid = -1;
  const int failed = posix_spawn(&pid,
                                 program.c_str(),
                                 &actions,
                                 &attributes,
                                 Pointers(words).data(),
                                 Pointers(environment).data());
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  if (failed != 0) {
    return ErrnoStatus(failed, StrCat("starting ", program));
  }
  return std::unique_ptr<ChatProcess>(
      new ChatProcess(pid, std::move(in.write), std::move(out.read), std::move(error.read)));
}

ChatProcess::~ChatProcess() {
  Kill();
  while (waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
  }
}

void ChatProcess::Kill() {
  kill(pid_, SIGKILL);
}

Status ChatProcess::Send(const Json& request) {
  return WriteAll(in_.get(), DumpJson(request) + "\n", "mft-worker generate");
}

Result<Json> ChatProcess::Receive() {
  while (true) {
    const size_t newline = buffer_.find('\n');
    if (newline != std::string::npos) {
      const std::string line = buffer_.substr(0, newline);
      buffer_.erase(0, newline + 1);
      return ParseJson(line);
    }
    std::array<char, 4096> chunk{};
    const ssize_t got = read(out_.get(), chunk.data(), chunk.size());
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got <= 0 || buffer_.size() > kMaxLineBytes) {
      break;
    }
    buffer_.append(chunk.data(), static_cast<size_t>(got));
  }
  Kill();
  std::string text(4096, '\0');
  const ssize_t got = read(error_.get(), text.data(), text.size());
  text.resize(static_cast<size_t>(std::max<ssize_t>(got, 0)));
  const std::string_view trimmed = Trim(text);
  const std::string_view last =
      trimmed.substr(trimmed.rfind('\n') == std::string_view::npos ? 0 : trimmed.rfind('\n') + 1);
  return FailedPrecondition(
      StrCat("mft-worker generate ended", last.empty() ? "" : ": ", Printable(last, 1000)));
}

}  // namespace mft::server
