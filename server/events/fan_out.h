// SPDX-License-Identifier: Apache-2.0
// Live events: wakes subscribers after a commit and keeps the newest events in memory for them.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "mft/v1/job.pb.h"

namespace mft::server {

// shared_ptr: the tail and every stream that has yet to write an event share it.
using EventPtr = std::shared_ptr<const v1::JobEvent>;

// A subscriber holds no queue here: it is told that there is news, and reads on from the sequence
// that it has delivered, from this tail or, where the tail does not reach back, from an
// EventReader. So a slow reader costs nothing and loses nothing.
//
//   auto subscription = fan_out.Subscribe(job, wake);      // 1. first subscribe,
//   loop: events = fan_out.Read(job, delivered, 64);       // 2. then read until there is nothing
//   new
//         nullopt: EventReader::Read(job, delivered, 64)
//         empty: wait for wake
//
// Threads: every method is safe from any thread. Publish is the control thread's, after the commit.
class FanOut {
 public:
  // Called on the control thread: must not block or call back into FanOut. `last_sequence` is the
  // newest durable event of the job, `final` says that it is the terminal one.
  using Wake = std::function<void(int64_t last_sequence, bool final)>;
  // Called on the control thread for each event of every job, in order: metrics. Must not block.
  using Listener = std::function<void(const EventPtr&)>;

  // Ends the subscription when destroyed. A wake that is already under way may still arrive after
  // that, so `wake` must own (shared_ptr) whatever it touches.
  class Subscription {
   public:
    Subscription() = default;
    Subscription(FanOut* fan_out, std::string job_id, uint64_t id);
    Subscription(Subscription&& other) noexcept;
    Subscription& operator=(Subscription&& other) noexcept;
    ~Subscription();

   private:
    FanOut* fan_out_ = nullptr;
    std::string job_id_;
    uint64_t id_ = 0;
  };

  // `tail_bytes` bounds what is kept of each job, `total_bytes` of all jobs together.
  explicit FanOut(size_t tail_bytes = size_t{256} << 10, size_t total_bytes = size_t{16} << 20);

  // The FanOut must outlive the subscription.
  [[nodiscard]] Subscription Subscribe(const std::string& job_id, Wake wake);
  // Up to `max_events` events above `after_sequence`. Empty: there is nothing newer, a wake will
  // follow. nullopt: the memory does not reach back to there, read the database (which may have
  // nothing newer either).
  std::optional<std::vector<EventPtr>> Read(const std::string& job_id,
                                            int64_t after_sequence,
                                            int max_events) const;

  // Before the first Publish.
  void AddListener(Listener listener);
  // `events`: durable, of one job, in order, following those published before.
  void Publish(const std::string& job_id, std::span<const EventPtr> events, bool final);
  int num_subscriptions() const;

 private:
  struct Tail {
    std::deque<EventPtr> events;  // without gaps up to last_sequence
    int64_t last_sequence = 0;
    size_t bytes = 0;
    uint64_t used = 0;  // number of the newest Publish
  };
  void Unsubscribe(const std::string& job_id, uint64_t id);
  void TrimLocked(Tail& current);

  const size_t tail_bytes_;
  const size_t total_bytes_;
  std::vector<Listener> listeners_;  // constant once events flow

  mutable std::mutex mutex_;  // guards what follows
  std::map<std::string, Tail> tails_;
  std::map<std::string, std::map<uint64_t, std::shared_ptr<const Wake>>> wakes_;
  size_t bytes_ = 0;
  uint64_t publishes_ = 0;
  uint64_t next_id_ = 1;
};

}  // namespace mft::server
