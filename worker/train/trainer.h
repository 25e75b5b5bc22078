// SPDX-License-Identifier: Apache-2.0
// The training loop.
#pragma once

#include <cstdint>
#include <string>

#include "common/journal/record.h"
#include "worker/train/expert_load.h"
#include "worker/train/reporter.h"
#include "worker/train/session.h"
#include "worker/train/stop_signals.h"

namespace mft {

inline constexpr std::string_view kReasonNonfinite = "NONFINITE_LOSS";
inline constexpr std::string_view kReasonEarlyStop = "EARLY_STOP";  // of a run that is done

// Every rank runs one, and all take the same decisions (ranks.h); rank 0 alone writes files.
// Threads: one at a time. Throws StatusError, and what LibTorch throws. Everything it is given must
// outlive it.
class StopWatch;

class Trainer {
 public:
  Trainer(Session& session, Reporter& reporter, StopSignals& signals, const Clock& clock);

  // Trains from where the session stands to max_steps, or until a stop is requested or the
  // nonfinite policy ends it. What it returns is the rank's last word.
  FinalRecord Run();

 private:
  struct StepResult {
    double loss = 0;
    double grad_norm = 0;
    StepRates rates;
    int64_t loss_tokens = 0;
    int64_t tokens = 0;
    bool finite = true;
    double seconds = 0;
    ExpertLoad experts;
  };

  struct Requests {
    bool stop = false;
    bool checkpoint = false;
  };
  Requests AgreeOnRequests();
  StepResult TrainStep(int64_t step);
  void SumSmall(StepResult& result);
  void ReportStep(const StepResult& result, bool skipped);
  bool Evaluate();  // whether it is the best of the run
  void SaveCheckpoint();
  Status WriteCheckpoint(const StopWatch& watch);
  void AfterStep();
  FinalRecord EndOnNonfinite(const StepResult& result);
  FinalRecord Stop();
  FinalRecord End(std::string outcome, std::string reason, std::string message);
  FinalRecord Complete(bool trained);
  bool IsLast() const { return session_.IsComplete(); }

  Session& session_;
  Reporter& reporter_;
  StopSignals& signals_;
  const Clock& clock_;
  int64_t steps_done_ = 0;  // by this attempt
  int64_t tokens_done_ = 0;
  double train_seconds_ = 0;  // in steps alone: neither evaluation nor checkpoints
  int64_t skips_in_a_row_ = 0;
};

}  // namespace mft
