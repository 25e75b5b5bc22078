// SPDX-License-Identifier: Apache-2.0
// Signals are the only way down: SIGTERM (and SIGINT, for stand-alone use) asks for a checkpoint
// and a stop, SIGUSR1 for a checkpoint. Both take effect at the next step boundary.
#pragma once

#include <chrono>

namespace mft {

// One per process. Threads: any.
class StopSignals {
 public:
  // Sets the handlers, then unblocks the signals: what the runner sent before is delivered now.
  StopSignals();
  ~StopSignals();  // restores the default actions
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  // Stays true once asked; repeats change nothing.
  bool stop_requested() const;
  // True once for any number of requests since the last call.
  bool TakeCheckpointRequest();
  // Sleeps for `duration`, or until a stop is requested.
  void SleepUnlessStopped(std::chrono::milliseconds duration) const;
};

}  // namespace mft
