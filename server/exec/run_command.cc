// SPDX-License-Identifier: Apache-2.0
#include "server/exec/run_command.h"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>

#include "common/base/clock.h"
#include "common/base/files.h"
#include "common/base/processes.h"
#include "common/base/strings.h"
#include "server/exec/environment.h"

namespace mft::server {

namespace {

constexpr size_t kMaxOutputBytes = size_t{16} << 20;
constexpr int64_t kMicrosPerMilli = 1'000;
constexpr int64_t kStopMicros = 2'000'000;  // left to a command once the daemon stops
constexpr int64_t kSliceMs = 100;           // between two looks at the stop token
constexpr int kSignalled = 128;             // as a shell says it

struct Stream {
  UniqueFd fd;
  std::string text;
};

Result<Stream> MakeStream(UniqueFd& child_end) {
  std::array<int, 2> ends{};
  if (pipe2(ends.data(), O_CLOEXEC) != 0) {
    return ErrnoStatus(errno, "pipe");
  }
  child_end = UniqueFd(ends[1]);
  return Stream{.fd = UniqueFd(ends[0]), .text = ""};
}

// The child is in a process group of its own: what it starts is killed with it.
Result<pid_t> Spawn(std::vector<std::string>& arguments, const UniqueFd& out, const UniqueFd& err) {
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  posix_spawn_file_actions_init(&actions);
  posix_spawnattr_init(&attributes);
  int error = posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  error = error ? error : posix_spawn_file_actions_adddup2(&actions, out.get(), STDOUT_FILENO);
  error = error ? error : posix_spawn_file_actions_adddup2(&actions, err.get(), STDERR_FILENO);
  error = error ? error : posix_spawn_file_actions_addclosefrom_np(&actions, STDERR_FILENO + 1);
  sigset_t none, all;
  sigemptyset(&none);
  sigfillset(&all);
  error = error ? error : posix_spawnattr_setsigmask(&attributes, &none);
  error = error ? error : posix_spawnattr_setsigdefault(&attributes, &all);
  error = error ? error
                : posix_spawnattr_setflags(
                      &attributes,
                      POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  std::vector<std::string> environment = ChildEnvironment();
  pid_t pid = -1;
  error = error ? error
                : posix_spawnp(&pid,
                               arguments[0].c_str(),
                               &actions,
                               &attributes,
                               ExecPointers(arguments).data(),
                               ExecPointers(environment).data());
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  return error == 0 ? Result<pid_t>(pid) : ErrnoStatus(error, StrCat("starting ", arguments[0]));
}

// What is there now; closes the stream at its end.
Status ReadSome(Stream& stream) {
  std::array<char, 65536> chunk;
  const ssize_t got = read(stream.fd.get(), chunk.data(), chunk.size());
  if (got < 0 && errno != EINTR) {
    return ErrnoStatus(errno, "reading from a pipe");
  }
  if (got == 0) {
    stream.fd.reset();
  }
  stream.text.append(chunk.data(), static_cast<size_t>(std::max<ssize_t>(got, 0)));
  return stream.text.size() <= kMaxOutputBytes
             ? Status::Ok()
             : Status(Code::kResourceExhausted,
                      "",
                      StrCat("said more than ", FormatBytes(kMaxOutputBytes)));
}

// Until both streams and the process have ended. Errors leave the process to the caller.
Status Listen(const UniqueFd& pidfd,
              std::array<Stream*, 2> streams,
              int64_t deadline_ms,
              const std::stop_token& stop) {
  const Clock& clock = SystemClock();
  int64_t deadline = clock.BoottimeMicros() + deadline_ms * kMicrosPerMilli;
  bool ended = false;
  while (!ended || streams[0]->fd.valid() || streams[1]->fd.valid()) {
    const int64_t now = clock.BoottimeMicros();
    if (stop.stop_requested()) {
      deadline = std::min(deadline, now + kStopMicros);
    }
    if (now >= deadline) {
      return {Code::kDeadlineExceeded,
              "",
              stop.stop_requested() ? "was killed because the daemon stops"
                                    : StrCat("did not end within ", deadline_ms / 1'000, " s")};
    }
    // poll ignores the -1 of a stream that has ended.
    std::array<pollfd, 3> fds = {pollfd{ended ? -1 : pidfd.get(), POLLIN, 0},
                                 pollfd{streams[0]->fd.get(), POLLIN, 0},
                                 pollfd{streams[1]->fd.get(), POLLIN, 0}};
    const int64_t wait_ms = std::min(kSliceMs, (deadline - now) / kMicrosPerMilli + 1);
    if (poll(fds.data(), fds.size(), static_cast<int>(wait_ms)) < 0 && errno != EINTR) {
      return ErrnoStatus(errno, "poll");
    }
    ended = ended || fds[0].revents != 0;
    for (size_t i = 0; i < streams.size(); ++i) {
      if (fds[i + 1].revents != 0) {
        MFT_RETURN_IF_ERROR(ReadSome(*streams[i]));
      }
    }
  }
  return Status::Ok();
}

}  // namespace

Result<CommandOutput> RunCommand(std::vector<std::string> arguments,
                                 int64_t deadline_ms,
                                 const std::stop_token& stop) {
  UniqueFd child_out, child_err;
  MFT_ASSIGN_OR_RETURN(Stream out, MakeStream(child_out));
  MFT_ASSIGN_OR_RETURN(Stream err, MakeStream(child_err));
  MFT_ASSIGN_OR_RETURN(const pid_t pid, Spawn(arguments, child_out, child_err));
  child_out.reset();
  child_err.reset();
  const UniqueFd pidfd = OpenPidfd(pid);
  Status heard = pidfd.valid() ? Listen(pidfd, {&out, &err}, deadline_ms, stop)
                               : ErrnoStatus(errno, "pidfd_open");
  if (!heard.ok()) {
    kill(-pid, SIGKILL);  // our child until it is reaped: the number cannot be another's
  }
  int wait_status = 0;
  while (waitpid(pid, &wait_status, 0) < 0 && errno == EINTR) {
  }
  if (!heard.ok()) {
    return heard.WithContext(arguments[0]);
  }
  return CommandOutput{.exit_code = WIFSIGNALED(wait_status) ? kSignalled + WTERMSIG(wait_status)
                                                             : WEXITSTATUS(wait_status),
                       .out = std::move(out.text),
                       .err = std::move(err.text)};
}

}  // namespace mft::server
