// SPDX-License-Identifier: Apache-2.0
// Stops a process in a function of its program, as a debugger does: no hook in the program is
// needed, and which thread runs when is no matter of chance. Linux on x86-64, with the breakpoints
// of the processor: the program's code stays as it is.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <functional>
#include <span>
#include <string>

#include "common/base/status.h"

namespace mft::testing {

struct Breakpoint {
  std::string function;  // beginning of its demangled name, e.g. "mft::GradNorm("; of one function
  int times = 1;         // it counts when the function is entered for the so manieth time
};

// Why processes cannot be debugged here (the machine's owner may forbid it); "" if they can.
std::string WhyNoDebugger();

// `pid`: a child that has stopped itself (SIGSTOP) and goes on to execute `program`. Lets it run
// until it has come to each breakpoint of `way` (four at most), in their order, on any of its
// threads; calls `reached`. The thread that has come to the last one is held there for `hold`,
// while all others run on; then `signal` is sent to the process: SIGSTOP, after which all its
// threads have stopped, or one that ends it. Returns when it was sent. NOT_FOUND: the program has
// no such function, or several; FAILED_PRECONDITION: the process ended first; DEADLINE_EXCEEDED: it
// did not come there in a minute. Threads: any number of them, each with processes of its own.
Result<std::chrono::steady_clock::time_point> SignalAt(pid_t pid,
                                                       const std::string& program,
                                                       std::span<const Breakpoint> way,
                                                       const std::function<void()>& reached,
                                                       std::chrono::milliseconds hold,
                                                       int signal);

}  // namespace mft::testing
