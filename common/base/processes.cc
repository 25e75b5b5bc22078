// SPDX-License-Identifier: Apache-2.0
#include "common/base/processes.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <csignal>

#include "common/base/strings.h"

namespace mft {

namespace {

constexpr size_t kMaxEnvironBytes = size_t{8} << 20;

struct ProcStat {
  char state = '?';
  int parent_pid = 0;
  int64_t start_ticks = 0;
};

// The command name may hold spaces and parentheses: fields count from behind the last ')'.
std::optional<ProcStat> ReadProcStat(int pid) {
  const Result<std::string> text = ReadFile(StrCat("/proc/", pid, "/stat"), size_t{1} << 16);
  if (!text.ok() || text->rfind(')') == std::string::npos) {
    return std::nullopt;
  }
  const std::string rest = text->substr(text->rfind(')') + 1);
  const std::vector<std::string> fields = Split(Trim(rest), ' ');
  constexpr size_t kState = 0, kParent = 1, kStartTime = 19;  // fields 3, 4 and 22 of proc(5)
  if (fields.size() <= kStartTime || fields[kState].size() != 1) {
    return std::nullopt;
  }
  ProcStat stat{.state = fields[kState][0], .parent_pid = 0, .start_ticks = 0};
  const std::string& parent = fields[kParent];
  const std::string& start = fields[kStartTime];
  std::from_chars(parent.data(), parent.data() + parent.size(), stat.parent_pid);
  std::from_chars(start.data(), start.data() + start.size(), stat.start_ticks);
  return stat;
}

bool HasAttemptId(int pid, const std::string& attempt_id) {
  // Another user's environment cannot be read, and a zombie has none: both are not ours to kill.
  const Result<std::string> environment =
      ReadFile(StrCat("/proc/", pid, "/environ"), kMaxEnvironBytes);
  if (!environment.ok()) {
    return false;
  }
  const std::string wanted = StrCat(kAttemptVariable, "=", attempt_id);
  size_t at = 0;
  while (at < environment->size()) {
    const size_t end = std::min(environment->find('\0', at), environment->size());
    if (std::string_view(*environment).substr(at, end - at) == wanted) {
      return true;
    }
    at = end + 1;
  }
  return false;
}

}  // namespace

// By number: glibc 2.36's <sys/pidfd.h> cannot be used from C++ (it lacks extern "C").
std::vector<char*> ExecPointers(std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  for (std::string& text : strings) {
    pointers.push_back(text.data());
  }
  pointers.push_back(nullptr);
  return pointers;
}

UniqueFd OpenPidfd(int pid) {
  return UniqueFd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
}

// The pidfd is opened first: what is read afterwards is about the process that it names, or that
// process is gone.
std::optional<AttemptProcess> OpenAttemptProcess(int pid, const std::string& attempt_id) {
  UniqueFd pidfd = OpenPidfd(pid);
  if (!pidfd.valid() || !HasAttemptId(pid, attempt_id)) {
    return std::nullopt;
  }
  const std::optional<ProcStat> stat = ReadProcStat(pid);
  if (!stat || stat->state == 'Z' || stat->state == 'X') {
    return std::nullopt;
  }
  return AttemptProcess{.pid = pid,
                        .parent_pid = stat->parent_pid,
                        .start_ticks = stat->start_ticks,
                        .pidfd = std::move(pidfd)};
}

std::vector<AttemptProcess> FindAttemptProcesses(const std::string& attempt_id) {
  std::vector<AttemptProcess> found;
  const Result<std::vector<std::string>> names = ListDir("/proc");
  if (attempt_id.empty() || !names.ok()) {
    return found;
  }
  for (const std::string& name : *names) {
    int pid = 0;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), pid);
    if (error != std::errc() || end != name.data() + name.size()) {
      continue;
    }
    if (std::optional<AttemptProcess> process = OpenAttemptProcess(pid, attempt_id)) {
      found.push_back(std::move(*process));
    }
  }
  return found;
}

int64_t StartTicks(int pid) {
  const std::optional<ProcStat> stat = ReadProcStat(pid);
  return stat ? stat->start_ticks : 0;
}

int KillAttemptProcesses(const std::string& attempt_id, int except_pid) {
  std::vector<AttemptProcess> all = FindAttemptProcesses(attempt_id);
  std::erase_if(all, [&](const AttemptProcess& process) { return process.pid == except_pid; });
  for (const AttemptProcess& process : all) {
    // EPERM or ESRCH: the next round finds out whether it is still there.
    static_cast<void>(SendSignal(process, SIGKILL));
  }
  return static_cast<int>(all.size());
}

Status SendSignal(const AttemptProcess& process, int signal) {
  if (syscall(SYS_pidfd_send_signal, process.pidfd.get(), signal, nullptr, 0) != 0 &&
      errno != ESRCH) {
    return ErrnoStatus(errno, StrCat("signal ", signal, " to process ", process.pid));
  }
  return Status::Ok();
}

void ReapIfChild(const UniqueFd& pidfd) {
  siginfo_t info{};
  // ECHILD for an adopted runner: its parent is somebody else.
  waitid(P_PIDFD, static_cast<id_t>(pidfd.get()), &info, WEXITED | WNOHANG);
}

}  // namespace mft
