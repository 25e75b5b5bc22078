// SPDX-License-Identifier: Apache-2.0
// Work that may take long, on a thread of its own: run_dir may lie on a slow or hanging file
// system, Slurm's programs wait for its controller, and the control thread waits for nobody.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

namespace mft::server {

// Threads: Push from any thread; the work runs one after the other on this one.
class DiskThread {
 public:
  DiskThread() = default;
  ~DiskThread() { Stop(); }
  DiskThread(const DiskThread&) = delete;
  DiskThread& operator=(const DiskThread&) = delete;

  void Start();
  void Push(std::function<void()> work);
  void Stop();  // finishes what is queued; idempotent

 private:
  void Run();

  std::thread thread_;
  std::mutex mutex_;  // guards what follows
  std::condition_variable wake_;
  std::deque<std::function<void()>> queue_;
  bool stopping_ = false;
};

}  // namespace mft::server
