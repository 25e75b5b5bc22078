// SPDX-License-Identifier: Apache-2.0
// What a run leaves for people and plots in run_dir: metrics.{train,eval}.jsonl and tb/
// (finetune-spec 4.9; keys in mistral-finetune's order, ours behind them).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "common/base/files.h"
#include "common/base/json.h"
#include "common/base/status.h"
#include "common/journal/record.h"
#include "worker/train/tensorboard.h"

namespace mft {

// Bytes of the two JSON Lines files. Part of a checkpoint's state: resuming cuts back to them.
struct MetricsLengths {
  int64_t train = 0;
  int64_t eval = 0;
};

// One line each, without newline. Numbers that are not finite are null.
Json TrainMetrics(const StepRecord& step, int64_t wall_micros);
Json EvalMetrics(const EvalRecord& eval, int64_t wall_micros);

// Threads: one at a time.
class MetricsLog {
 public:
  struct Options {
    std::string run_dir;
    int64_t wall_micros = 0;
    bool with_eval = true;    // false: no event file for evaluation
    int64_t resume_step = 0;  // the last step that counts; 0: none
    MetricsLengths lengths;   // to cut back to; longer files lose their tails
  };
  static Result<std::unique_ptr<MetricsLog>> Open(const Options& options);

  // The line is written when it returns or, on failure, nothing is: the call may be repeated. What
  // TensorBoard's files could not take is logged and lost.
  Status Train(const StepRecord& step, int64_t wall_micros);
  Status Eval(const EvalRecord& eval, int64_t wall_micros);

  MetricsLengths lengths() const { return {.train = train_.size, .eval = eval_.size}; }

 private:
  struct LineFile {
    std::string path;
    UniqueFd fd;
    int64_t size = 0;
  };
  MetricsLog() = default;
  static Result<LineFile> OpenLines(const std::string& path, int64_t length);
  static Status Append(LineFile& file, const Json& line);

  LineFile train_;
  LineFile eval_;
  std::unique_ptr<TensorBoardWriter> tb_train_;
  std::unique_ptr<TensorBoardWriter> tb_eval_;
};

}  // namespace mft
