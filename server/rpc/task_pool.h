// SPDX-License-Identifier: Apache-2.0
// Threads for work that blocks (database, files), so that gRPC's own threads and the control thread
// never do.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <stop_token>
#include <thread>
#include <vector>

namespace mft::server {

// Threads: Post from any thread.
class TaskPool {
 public:
  static constexpr size_t kMaxTasks = 10'000;

  explicit TaskPool(int threads);
  ~TaskPool() { Shutdown(); }
  TaskPool(const TaskPool&) = delete;
  TaskPool& operator=(const TaskPool&) = delete;

  // False when the pool is shut down or kMaxTasks wait: the task will not run.
  bool Post(std::function<void()> task);
  // Runs what waits, then ends the threads. Idempotent.
  void Shutdown();

 private:
  void Run();

  std::mutex mutex_;  // guards what follows
  std::condition_variable wake_;
  std::deque<std::function<void()>> tasks_;
  bool stopping_ = false;
  std::vector<std::jthread> threads_;
};

// Calls its listeners about once a second: bookmarks, followed log files. Threads: safe from any
// thread.
class Ticker {
 public:
  // False: the listener is done and will not be called again. Must not block.
  using Listener = std::function<bool()>;

  explicit Ticker(int period_ms);
  void Add(Listener listener);

 private:
  void Run(const std::stop_token& stop);

  const int period_ms_;
  std::mutex mutex_;  // guards what follows
  std::condition_variable_any wake_;
  std::vector<Listener> listeners_;
  std::jthread thread_;  // last: it uses everything above
};

}  // namespace mft::server
