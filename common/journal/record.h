// SPDX-License-Identifier: Apache-2.0
// The journal: the only way up from an attempt's processes to the daemon (durability.md,
// "Journals"). One JSON object a line, {"seq":N,"at":MICROS,"type":T,...}, at most 64 KiB, seq
// strictly increasing by 1 from 1, the first record a header. `runner.jsonl` is the runner's,
// `rank-N.jsonl` a rank's (mft-data writes rank-0.jsonl).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "common/base/json.h"
#include "common/base/status.h"

namespace mft {

inline constexpr int kJournalVersion = 1;
inline constexpr size_t kMaxRecordBytes = 64 * 1024;
inline constexpr int kRunnerRank = -1;

// Identity of this build: daemon, runner and worker of one attempt must agree.
std::string_view BuildId();

struct HeaderRecord {  // "header"
  int version = kJournalVersion;
  std::string attempt_id;
  int rank = 0;
  std::string boot_id;
  std::string build;
};

struct PhaseRecord {  // "phase"
  std::string phase;  // kPhase* below
  std::string detail;
};
inline constexpr std::string_view kPhaseStarting = "starting";
inline constexpr std::string_view kPhaseValidating = "validating data";
inline constexpr std::string_view kPhaseTokenizing = "tokenizing data";
inline constexpr std::string_view kPhaseLoading = "loading model";
inline constexpr std::string_view kPhaseResuming = "resuming";
inline constexpr std::string_view kPhaseTraining = "training";  // the job is RUNNING from here on
inline constexpr std::string_view kPhaseEvaluating = "evaluating";
inline constexpr std::string_view kPhaseSaving = "saving";
inline constexpr std::string_view kPhaseDiskFull = "waiting for disk space";

struct ResumeRecord {  // "resume": where a training attempt begins, after its scan of the
                       // checkpoints
  int64_t from_step = 0;
};

struct StepRecord {  // "step", rank 0 only; fields as mft.v1.Step
  int64_t step = 0, max_steps = 0;
  double loss = 0, perplexity = 0, learning_rate = 0, beta1 = 0, grad_norm = 0;
  int64_t loss_tokens = 0, tokens = 0;
  double step_seconds = 0, tokens_per_second = 0, mean_tokens_per_second = 0, eta_seconds = 0;
  int64_t peak_memory_bytes = 0, memory_bytes = 0;
  bool nonfinite = false, skipped = false;
  // Mixture of experts only: share of the step's tokens of each expert, and how uneven it is
  // (worker/train/expert_load.h).
  std::vector<double> expert_share;
  std::optional<double> expert_imbalance;
};

struct EvalRecord {  // "eval"
  int64_t step = 0;
  double eval_loss = 0, perplexity = 0, train_loss = 0;
  int64_t loss_tokens = 0;
  double seconds = 0;
};

struct CheckpointRecord {  // "checkpoint": synced, written after the checkpoint is durable
  int64_t step = 0;
  std::string path;
  int64_t size_bytes = 0;
  double seconds = 0;
  std::vector<std::string> removed;
};

struct MessageRecord {  // "message"
  std::string level;    // info | warning | error
  std::string text;
};

struct DataPreparedRecord {  // "data_prepared"
  int64_t samples = 0, tokens = 0, loss_tokens = 0, eval_samples = 0, problems = 0;
  double steps_per_epoch = 0, epochs = 0;
  std::string cache;  // directory of the token cache
};

// How a process of the attempt ended, in its own words. "final": a rank's last record, synced.
struct FinalRecord {
  std::string outcome;  // done | stopped (checkpoint written if it could be) | failed
  int64_t step = 0;
  int code = 0;        // mft::Code of a failure
  std::string reason;  // UPPER_SNAKE_CASE, e.g. VALIDATION_FAILED, NONFINITE_LOSS, DISK_FULL
  std::string message;
};

// The reason of a rank that ends since another one is gone or does not answer: a consequence.
inline constexpr std::string_view kReasonRankLost = "RANK_LOST";

struct RankExit {
  int rank = 0;
  int exit_code = -1;  // -1: ended by `signal`
  int signal = 0;
  std::optional<FinalRecord> final;
};

// The runner's last record, synced: the attempt's result.
struct ResultRecord {   // "result"
  std::string outcome;  // done | stopped | failed | killed (grace period or time limit ran out)
  std::vector<RankExit> ranks;
  int first_failed = -1;  // rank that failed first, -1: none
  int code = 0;
  std::string reason;
  std::string message;  // why, in one sentence
};

using RecordBody = std::variant<HeaderRecord,
                                PhaseRecord,
                                ResumeRecord,
                                StepRecord,
                                EvalRecord,
                                CheckpointRecord,
                                MessageRecord,
                                DataPreparedRecord,
                                FinalRecord,
                                ResultRecord>;

struct Record {
  int64_t seq = 0;
  int64_t at_micros = 0;  // wall clock
  RecordBody body;
};

std::string_view RecordTypeName(const RecordBody& body);  // "step"

// One line without the newline. Non-finite numbers are written as "NaN", "Infinity", "-Infinity"
// strings. A record that would be too long has its longest text cut.
std::string EncodeRecord(const Record& record);
// INVALID_ARGUMENT names what is wrong with the line.
Result<Record> DecodeRecord(std::string_view line);

}  // namespace mft
