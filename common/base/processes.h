// SPDX-License-Identifier: Apache-2.0
// The processes of an attempt, found by the random id in their environment (MFT_ATTEMPT), held by
// pidfds. Pids are reused and sessions can be left; neither is trusted.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/files.h"
#include "common/base/status.h"

namespace mft {

inline constexpr std::string_view kAttemptVariable = "MFT_ATTEMPT";

struct AttemptProcess {
  int pid = 0;
  int parent_pid = 0;
  int64_t start_ticks = 0;  // /proc/PID/stat, field 22
  UniqueFd pidfd;
};

// What exec and posix_spawn take: pointers into `strings`, which must outlive them, then nullptr.
std::vector<char*> ExecPointers(std::vector<std::string>& strings);

// Invalid if there is no such process.
UniqueFd OpenPidfd(int pid);

// The process `pid` if it is one of the attempt's.
std::optional<AttemptProcess> OpenAttemptProcess(int pid, const std::string& attempt_id);

// Every process of this user that is no zombie and has MFT_ATTEMPT=`attempt_id`. Empty id: none.
std::vector<AttemptProcess> FindAttemptProcesses(const std::string& attempt_id);

// Field 22 of /proc/PID/stat; 0 if there is no such process.
int64_t StartTicks(int pid);

// Sends SIGKILL to every process of the attempt but `except_pid`; returns how many there were. Call
// again until it was 0 twice: the environment of a process in the middle of its exec cannot be
// read.
int KillAttemptProcesses(const std::string& attempt_id, int except_pid = 0);

// A process that is gone is no error.
Status SendSignal(const AttemptProcess& process, int signal);

// Collects the exit status of a child of ours that has ended; harmless for others' children.
void ReapIfChild(const UniqueFd& pidfd);

}  // namespace mft
