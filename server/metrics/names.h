// SPDX-License-Identifier: Apache-2.0
// Names and help texts of every metric, once. README.md's table mirrors them; a test counts.
#pragma once

#include <array>
#include <string_view>

namespace mft::server::metric {

struct Metric {
  std::string_view name;
  std::string_view help;
};

inline constexpr Metric kBuildInfo{"mftd_build_info", "Build of the daemon, always 1."};
inline constexpr Metric kReady{"mftd_ready",
                               "1 once running attempts were found again and jobs are scheduled."};
inline constexpr Metric kJobs{"mftd_jobs", "Jobs known to the daemon, by state."};
inline constexpr Metric kJobsFinished{
    "mftd_jobs_finished_total", "Jobs that ended since the daemon started, by result and reason."};
inline constexpr Metric kJobInfo{"mftd_job_info", "Facts about a live job, always 1."};
inline constexpr Metric kQueueWait{"mftd_queue_longest_wait_seconds",
                                   "Longest wait of a job that has not run yet."};
inline constexpr Metric kJobStep{"mftd_job_step", "Last optimizer step of a job."};
inline constexpr Metric kJobStepsPlanned{"mftd_job_steps_planned",
                                         "Optimizer steps that a job will make."};
inline constexpr Metric kJobLoss{"mftd_job_loss",
                                 "Cross entropy per loss token, in nats, by split."};
inline constexpr Metric kJobPerplexity{"mftd_job_perplexity", "e to the loss, by split."};
inline constexpr Metric kJobLearningRate{"mftd_job_learning_rate",
                                         "Learning rate of the last step."};
inline constexpr Metric kJobGradNorm{"mftd_job_grad_norm",
                                     "Gradient norm of the last step, before clipping."};
inline constexpr Metric kJobExpertImbalance{
    "mftd_job_expert_imbalance",
    "Load of the busiest expert / the mean, of the most uneven layer; mixture-of-experts models."};
inline constexpr Metric kJobTokens{"mftd_job_tokens_total",
                                   "Training tokens of all ranks since the daemon started."};
inline constexpr Metric kJobStepDuration{"mftd_job_step_duration_seconds", "Duration of a step."};
inline constexpr Metric kJobLastStep{"mftd_job_last_step_timestamp_seconds",
                                     "When the last step ended."};
inline constexpr Metric kJobLastCheckpoint{"mftd_job_last_checkpoint_timestamp_seconds",
                                           "When the last checkpoint was published."};
inline constexpr Metric kJobCheckpointBytes{"mftd_job_checkpoint_bytes",
                                            "Size of the last checkpoint."};
inline constexpr Metric kJobNonfinite{"mftd_job_nonfinite_total",
                                      "Steps whose loss or gradient was not finite."};
inline constexpr Metric kJobRestarts{"mftd_job_restarts_total", "Attempts after the first."};
inline constexpr Metric kEventStreams{"mftd_event_streams",
                                      "Open streams of events, logs and chats."};
inline constexpr Metric kStoreCommits{"mftd_store_commits_total", "Commits to the database."};
inline constexpr Metric kStoreCommitSeconds{"mftd_store_commit_seconds_total",
                                            "Time spent in commits."};
inline constexpr Metric kStoreErrors{"mftd_store_errors_total", "Commits refused by a full disk."};
inline constexpr Metric kAdopted{"mftd_adopted_attempts_total",
                                 "Running attempts found again at the start."};
inline constexpr Metric kEvents{"mftd_events_total", "Events stored since the daemon started."};
inline constexpr Metric kCaches{"mftd_token_caches", "Token caches kept for jobs to come."};
inline constexpr Metric kCacheBytes{"mftd_token_cache_bytes", "Size of all token caches."};
inline constexpr Metric kCachesRemoved{"mftd_token_caches_removed_total",
                                       "Token caches removed to keep cache_gib."};
inline constexpr Metric kCacheBytesRemoved{"mftd_token_cache_removed_bytes_total",
                                           "Size of the token caches removed to keep cache_gib."};
inline constexpr Metric kDiskFree{"mftd_disk_free_bytes", "Free disk of the state directory."};
inline constexpr Metric kGpuState{"mftd_gpu_state",
                                  "1 for the state that a GPU is in, 0 for the others."};

inline constexpr std::array kAll = {kBuildInfo,
                                    kReady,
                                    kJobs,
                                    kJobsFinished,
                                    kJobInfo,
                                    kQueueWait,
                                    kJobStep,
                                    kJobStepsPlanned,
                                    kJobLoss,
                                    kJobPerplexity,
                                    kJobLearningRate,
                                    kJobGradNorm,
                                    kJobExpertImbalance,
                                    kJobTokens,
                                    kJobStepDuration,
                                    kJobLastStep,
                                    kJobLastCheckpoint,
                                    kJobCheckpointBytes,
                                    kJobNonfinite,
                                    kJobRestarts,
                                    kEventStreams,
                                    kStoreCommits,
                                    kStoreCommitSeconds,
                                    kStoreErrors,
                                    kAdopted,
                                    kEvents,
                                    kDiskFree,
                                    kGpuState};

}  // namespace mft::server::metric
