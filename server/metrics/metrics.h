// SPDX-License-Identifier: Apache-2.0
// /metrics: rendered from the snapshot and from what the events told, at scrape time. A scrape
// takes no lock of the scheduler.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "common/base/clock.h"
#include "common/base/status.h"
#include "mft/v1/job.pb.h"
#include "server/events/snapshot.h"

namespace mft::server {

struct MetricsOptions {
  std::string address;    // HOST:PORT; port 0 takes a free one
  std::string state_dir;  // for the free disk
  std::function<SnapshotPtr()> snapshot;
  std::function<int()> num_streams;
  const Clock* clock = nullptr;  // nullptr: SystemClock()
};

// A job's series go away 15 minutes after its end. Threads: OnEvent on the control thread, never
// blocks; the rest by one owner.
class Metrics {
 public:
  explicit Metrics(MetricsOptions options);
  ~Metrics();
  // Serves /metrics. ALREADY_EXISTS where the port is taken.
  Status Start();
  void OnEvent(const v1::JobEvent& event);
  const std::string& address() const;  // HOST:PORT, with the port that was taken
  // What a scrape answers, for tests.
  std::string Render() const;

 private:
  class Impl;
  std::shared_ptr<Impl> impl_;  // shared_ptr: prometheus-cpp keeps a weak one
};

}  // namespace mft::server
