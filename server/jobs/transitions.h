// SPDX-License-Identifier: Apache-2.0
// The states of a job, the legal steps between them, and the reasons that go with them: one list
// each. proto/mft/v1/job.proto mirrors the states; a test counts.
#pragma once

#include <array>
#include <optional>
#include <span>
#include <string_view>

namespace mft::server {

// Numbers and names are those of mft.v1.JobState.
enum class JobState {
  kQueued = 1,
  kValidating = 2,
  kValidated = 3,
  kStarting = 4,
  kRunning = 5,
  kPausing = 6,
  kPaused = 7,
  kRecovering = 8,
  kCancelling = 9,
  kSucceeded = 10,
  kFailed = 11,
  kCancelled = 12,
};

inline constexpr std::array kJobStates = {
    JobState::kQueued,
    JobState::kValidating,
    JobState::kValidated,
    JobState::kStarting,
    JobState::kRunning,
    JobState::kPausing,
    JobState::kPaused,
    JobState::kRecovering,
    JobState::kCancelling,
    JobState::kSucceeded,
    JobState::kFailed,
    JobState::kCancelled,
};

std::string_view JobStateName(JobState state);  // "QUEUED"
std::optional<JobState> ParseJobState(std::string_view name);
bool IsFinal(JobState state);
// True iff a job may go from one to the other. Final states lead nowhere; staying is no transition.
bool CanTransition(JobState from, JobState to);
std::span<const JobState> NextStates(JobState from);

// Reasons that the daemon itself gives. The set is open: a worker's own reason (NONFINITE_LOSS,
// DISK_FULL, ...) is passed on as it is.
namespace reason {
inline constexpr std::string_view kWaitingForPreparation = "WAITING_FOR_PREPARATION";  // QUEUED
inline constexpr std::string_view kPreparingData = "PREPARING_DATA";                   // VALIDATING
inline constexpr std::string_view kWaitingForDevices =
    "WAITING_FOR_DEVICES";  // VALIDATED; STARTING in Slurm's queue
inline constexpr std::string_view kStartingWorkers = "STARTING_WORKERS";  // STARTING
inline constexpr std::string_view kTraining = "TRAINING";                 // RUNNING
inline constexpr std::string_view kDiskFull = "DISK_FULL";                // RUNNING, PAUSED
inline constexpr std::string_view kAttemptLost = "ATTEMPT_LOST";          // RECOVERING, FAILED
inline constexpr std::string_view kInterrupted = "INTERRUPTED";           // RECOVERING
inline constexpr std::string_view kNodeRebooted = "NODE_REBOOTED";        // RECOVERING
inline constexpr std::string_view kWorkerFailed = "WORKER_FAILED";        // RECOVERING, FAILED
inline constexpr std::string_view kStartFailed = "START_FAILED";          // RECOVERING, FAILED
inline constexpr std::string_view kDataCacheGone = "DATA_CACHE_GONE";  // QUEUED, RECOVERING, FAILED
inline constexpr std::string_view kCancelRequested = "CANCEL_REQUESTED";    // CANCELLING, CANCELLED
inline constexpr std::string_view kPauseRequested = "PAUSE_REQUESTED";      // PAUSING, PAUSED
inline constexpr std::string_view kCompleted = "COMPLETED";                 // SUCCEEDED
inline constexpr std::string_view kValidationFailed = "VALIDATION_FAILED";  // FAILED
inline constexpr std::string_view kTimeLimitExceeded = "TIME_LIMIT_EXCEEDED";  // FAILED
inline constexpr std::string_view kNonfiniteLoss = "NONFINITE_LOSS";           // FAILED, PAUSED
inline constexpr std::string_view kNotEnoughMemory = "NOT_ENOUGH_MEMORY";      // FAILED
inline constexpr std::string_view kJobFileUnreadable = "JOB_FILE_UNREADABLE";  // FAILED

inline constexpr std::array kAll = {
    kWaitingForPreparation, kPreparingData,     kWaitingForDevices,
    kStartingWorkers,       kTraining,          kDiskFull,
    kAttemptLost,           kInterrupted,       kNodeRebooted,
    kWorkerFailed,          kStartFailed,       kDataCacheGone,
    kCancelRequested,       kPauseRequested,    kCompleted,
    kValidationFailed,      kTimeLimitExceeded, kNonfiniteLoss,
    kNotEnoughMemory,       kJobFileUnreadable,
};
}  // namespace reason

}  // namespace mft::server
