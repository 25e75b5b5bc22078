// SPDX-License-Identifier: Apache-2.0
#include "tests/support/debugger.h"

#include <cxxabi.h>
#include <elf.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "common/base/files.h"
#include "common/base/strings.h"

namespace mft::testing {

namespace {

using SteadyClock = std::chrono::steady_clock;

constexpr size_t kMostBreakpoints = 4;  // of the processor
constexpr std::chrono::milliseconds kPause(1);
constexpr std::chrono::seconds kPatience(60);
constexpr size_t kMostProgramBytes = size_t{1} << 30;

template <typename T>
T At(const std::string& file, uint64_t offset) {
  T value{};
  MFT_CHECK(offset + sizeof value <= file.size(), "a damaged program");
  std::memcpy(&value, file.data() + offset, sizeof value);
  return value;
}

std::string Demangled(const char* name) {
  int status = 0;
  const std::unique_ptr<char, decltype(&std::free)> text(
      abi::__cxa_demangle(name, nullptr, nullptr, &status), std::free);
  return status == 0 ? text.get() : name;
}

// "Sum" of "mft::(anonymous namespace)::Adder::Sum(int", which its mangled name has in it too.
std::string LastName(const std::string& function) {
  constexpr std::string_view kNamespace = "(anonymous namespace)";
  const size_t begin = function.find(kNamespace);
  const size_t end = function.find('(', begin == std::string::npos ? 0 : begin + kNamespace.size());
  const std::string name = function.substr(0, end);
  const size_t colon = name.rfind("::");
  return colon == std::string::npos ? name : name.substr(colon + 2);
}

struct Program {
  std::string path;
  std::string bytes;
  bool moves = false;  // it is loaded where the kernel likes
};

Result<Program> ReadProgram(const std::string& path) {
  Program program{.path = path, .bytes = {}};
  MFT_ASSIGN_OR_RETURN(program.bytes, ReadFile(path, kMostProgramBytes));
  program.moves = At<Elf64_Ehdr>(program.bytes, 0).e_type == ET_DYN;
  return program;
}

// Of the one function whose name begins with `function`, as the program's file says.
Result<uint64_t> AddressOf(const Program& program, const std::string& function) {
  const std::string last_name = LastName(function);
  std::set<uint64_t> found;
  const auto header = At<Elf64_Ehdr>(program.bytes, 0);
  const auto section = [&](size_t index) {
    return At<Elf64_Shdr>(program.bytes, header.e_shoff + index * header.e_shentsize);
  };
  for (size_t i = 0; i < header.e_shnum; ++i) {
    const Elf64_Shdr table = section(i);
    for (uint64_t at = 0; table.sh_type == SHT_SYMTAB && at < table.sh_size;
         at += sizeof(Elf64_Sym)) {
      const auto symbol = At<Elf64_Sym>(program.bytes, table.sh_offset + at);
      const char* const name =
          program.bytes.data() + section(table.sh_link).sh_offset + symbol.st_name;
      if (ELF64_ST_TYPE(symbol.st_info) != STT_FUNC || symbol.st_value == 0 ||
          std::strstr(name, last_name.c_str()) == nullptr) {
        continue;
      }
      const std::string demangled = Demangled(name);
      if (demangled.starts_with(function) && demangled.find("[clone") == std::string::npos) {
        found.insert(symbol.st_value);
      }
    }
  }
  if (found.size() != 1) {
    return NotFound(StrCat(
        program.path, " has ", found.size(), " functions whose name begins with ", function));
  }
  return *found.begin();
}

Result<uint64_t> LoadAddress(pid_t pid, const Program& program) {
  if (!program.moves) {
    return 0;
  }
  MFT_ASSIGN_OR_RETURN(const std::string maps, ReadFile(StrCat("/proc/", pid, "/maps")));
  for (const std::string_view line : Split(maps, '\n')) {
    uint64_t begin = 0;
    std::from_chars(line.data(), line.data() + line.size(), begin, 16);
    if (line.ends_with(program.path)) {
      return begin;  // the first one is of its beginning
    }
  }
  return NotFound(StrCat("process ", pid, " is not of ", program.path));
}

bool SetBreakpoints(pid_t thread, std::span<const uint64_t> addresses) {
  uint64_t enabled = 0;
  for (size_t i = 0; i < addresses.size(); ++i) {
    if (ptrace(PTRACE_POKEUSER, thread, offsetof(user, u_debugreg) + i * 8, addresses[i]) != 0) {
      return false;
    }
    enabled |= uint64_t{1} << (2 * i);  // for instructions that are executed
  }
  return ptrace(PTRACE_POKEUSER, thread, offsetof(user, u_debugreg) + 7 * 8, enabled) == 0;
}

uint64_t InstructionOf(pid_t thread) {
  user_regs_struct registers{};
  ptrace(PTRACE_GETREGS, thread, nullptr, &registers);
  return registers.rip;
}

char StateOf(pid_t pid, pid_t thread) {
  const auto stat = ReadFile(StrCat("/proc/", pid, "/task/", thread, "/stat"));
  const size_t end_of_name = stat.ok() ? stat->rfind(')') : std::string::npos;
  return end_of_name == std::string::npos ? '?' : (*stat)[end_of_name + 2];
}

std::vector<pid_t> ThreadsOf(pid_t pid) {
  std::vector<pid_t> threads;
  const auto names = ListDir(StrCat("/proc/", pid, "/task"));
  for (const std::string& name : names.ok() ? *names : std::vector<std::string>()) {
    threads.push_back(std::atoi(name.c_str()));
  }
  return threads;
}

class Debugged {
 public:
  Debugged(pid_t pid, const Program& program, std::span<const Breakpoint> way)
      : pid_(pid), program_(program), way_(way), deadline_(SteadyClock::now() + kPatience) {}

  Status Begin() {
    for (const Breakpoint& breakpoint : way_) {
      MFT_ASSIGN_OR_RETURN(const uint64_t address, AddressOf(program_, breakpoint.function));
      addresses_.push_back(address);
    }
    int status = 0;
    if (waitpid(pid_, &status, WUNTRACED) != pid_ || !WIFSTOPPED(status)) {
      return FailedPrecondition(StrCat("process ", pid_, " did not stop itself"));
    }
    if (ptrace(PTRACE_SEIZE, pid_, nullptr, PTRACE_O_TRACEEXEC | PTRACE_O_TRACECLONE) != 0) {
      return ErrnoStatus(errno, StrCat("ptrace, process ", pid_));
    }
    kill(pid_, SIGCONT);
    return Status::Ok();
  }

  // The thread that has come to the end of the way stays there.
  Status Follow() {
    while (held_ < 0) {
      if (SteadyClock::now() >= deadline_) {
        return Status(Code::kDeadlineExceeded, StrCat("it did not come to ", Next().function));
      }
      MFT_RETURN_IF_ERROR(HandleEvent());
    }
    return Status::Ok();
  }

  Status RunOthers(std::chrono::milliseconds duration) {
    for (const auto end = SteadyClock::now() + duration; SteadyClock::now() < end;) {
      MFT_RETURN_IF_ERROR(HandleEvent());
    }
    return Status::Ok();
  }

  // All threads are stopped by SIGSTOP, and traced no more.
  Status LetGoStopped() {
    MFT_RETURN_IF_ERROR(InterruptAll());
    Detach(held_, SIGSTOP);
    MFT_RETURN_IF_ERROR(WaitUntilStopped({held_}));
    const std::vector<pid_t> threads = ThreadsOf(pid_);
    for (const pid_t thread : threads) {
      if (thread != held_) {
        Detach(thread, 0);
      }
    }
    return WaitUntilStopped(threads);
  }

 private:
  struct Event {
    pid_t thread = 0;
    int status = 0;
  };

  const Breakpoint& Next() const { return way_[at_]; }

  // Of this thread's tracees alone. The end of the process itself is left for its parent to see.
  Result<std::optional<Event>> PollEvent() const {
    constexpr int kOfThread = __WALL | __WNOTHREAD;
    siginfo_t info{};
    waitid(P_ALL, 0, &info, WEXITED | WSTOPPED | WNOHANG | WNOWAIT | kOfThread);
    if (info.si_pid == 0) {
      std::this_thread::sleep_for(kPause);
      return std::optional<Event>();
    }
    if (info.si_pid == pid_ && info.si_code != CLD_TRAPPED && info.si_code != CLD_STOPPED) {
      return FailedPrecondition(StrCat("the process ended before it came to ", Next().function));
    }
    Event event{.thread = info.si_pid};
    waitpid(event.thread, &event.status, kOfThread);
    return std::optional(event);
  }

  // Waits a little for one.
  Status HandleEvent() {
    MFT_ASSIGN_OR_RETURN(const auto event, PollEvent());
    if (!event || !WIFSTOPPED(event->status)) {
      return Status::Ok();
    }
    const int stopped_by = WSTOPSIG(event->status);
    const int why = event->status >> 16;
    if (why == PTRACE_EVENT_EXEC) {
      MFT_ASSIGN_OR_RETURN(const uint64_t base, LoadAddress(pid_, program_));
      for (uint64_t& address : addresses_) {
        address += base;
      }
      executes_ = true;
    }
    if (executes_ && (why == PTRACE_EVENT_EXEC || why == PTRACE_EVENT_STOP) &&
        !SetBreakpoints(event->thread, addresses_)) {
      return ErrnoStatus(errno, "setting breakpoints");
    }
    const bool trap = why == 0 && stopped_by == SIGTRAP;
    if (trap && HasCome(event->thread)) {
      held_ = event->thread;
      return Status::Ok();
    }
    ptrace(PTRACE_CONT, event->thread, nullptr, why != 0 || trap ? 0 : stopped_by);
    return Status::Ok();
  }

  // Whether this is the end of the way.
  bool HasCome(pid_t thread) {
    if (held_ >= 0 || InstructionOf(thread) != addresses_[at_] || ++times_ < Next().times) {
      return false;
    }
    if (at_ + 1 == way_.size()) {
      return true;
    }
    ++at_;
    times_ = 0;
    return false;
  }

  Status InterruptAll() {
    std::set<pid_t> stopped = {held_};
    for (const pid_t thread : ThreadsOf(pid_)) {
      if (thread != held_) {
        ptrace(PTRACE_INTERRUPT, thread, nullptr, nullptr);
      }
    }
    for (;;) {
      const std::vector<pid_t> threads = ThreadsOf(pid_);
      if (std::ranges::all_of(threads, [&](pid_t thread) { return stopped.contains(thread); })) {
        return Status::Ok();
      }
      if (SteadyClock::now() >= deadline_) {
        return Status(Code::kDeadlineExceeded, "its threads do not stop");
      }
      MFT_ASSIGN_OR_RETURN(const auto event, PollEvent());
      if (event && WIFSTOPPED(event->status)) {
        stopped.insert(event->thread);
      }
    }
  }

  static void Detach(pid_t thread, int signal) {
    SetBreakpoints(thread, {});
    ptrace(PTRACE_DETACH, thread, nullptr, signal);
  }

  Status WaitUntilStopped(const std::vector<pid_t>& threads) const {
    for (const pid_t thread : threads) {
      while (StateOf(pid_, thread) != 'T') {
        if (SteadyClock::now() >= deadline_) {
          return Status(Code::kDeadlineExceeded, StrCat("thread ", thread, " does not stop"));
        }
        std::this_thread::sleep_for(kPause);
      }
    }
    return Status::Ok();
  }

  const pid_t pid_;
  const Program& program_;
  const std::span<const Breakpoint> way_;
  const SteadyClock::time_point deadline_;
  std::vector<uint64_t> addresses_;  // of the way
  bool executes_ = false;            // the program
  size_t at_ = 0;                    // the breakpoint that it has not come to
  int times_ = 0;                    // how often it has
  pid_t held_ = -1;
};

[[gnu::noinline]] void Probe() {
  asm volatile("");
}

}  // namespace

std::string WhyNoDebugger() {
  const pid_t pid = fork();
  if (pid == 0) {
    if (ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) {
      _exit(errno);
    }
    raise(SIGSTOP);
    Probe();
    _exit(0);
  }
  const std::array addresses = {reinterpret_cast<uint64_t>(&Probe)};
  int status = 0;
  waitpid(pid, &status, __WALL);
  if (!WIFSTOPPED(status)) {
    return ErrnoStatus(WEXITSTATUS(status), "ptrace").message();
  }
  std::string why;
  if (!SetBreakpoints(pid, addresses)) {
    why = ErrnoStatus(errno, "breakpoints of the processor").message();
  } else {
    ptrace(PTRACE_CONT, pid, nullptr, nullptr);
    waitpid(pid, &status, __WALL);
    if (!WIFSTOPPED(status)) {
      return "the processor's breakpoints are not kept here";
    }
  }
  kill(pid, SIGKILL);
  waitpid(pid, &status, __WALL);
  return why;
}

Result<SteadyClock::time_point> SignalAt(pid_t pid,
                                         const std::string& program,
                                         std::span<const Breakpoint> way,
                                         const std::function<void()>& reached,
                                         std::chrono::milliseconds hold,
                                         int signal) {
  MFT_CHECK(!way.empty() && way.size() <= kMostBreakpoints, "one to four");
  MFT_ASSIGN_OR_RETURN(const Program read, ReadProgram(program));
  Debugged debugged(pid, read, way);
  MFT_RETURN_IF_ERROR(debugged.Begin());
  MFT_RETURN_IF_ERROR(debugged.Follow());
  reached();
  MFT_RETURN_IF_ERROR(debugged.RunOthers(hold));
  const auto begin = SteadyClock::now();
  MFT_RETURN_IF_ERROR(debugged.LetGoStopped());
  if (signal != SIGSTOP) {
    kill(pid, signal);
  }
  return begin;
}

}  // namespace mft::testing
