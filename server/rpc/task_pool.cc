// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/task_pool.h"

#include <chrono>
#include <iterator>

namespace mft::server {

TaskPool::TaskPool(int threads) {
  for (int i = 0; i < threads; ++i) {
    threads_.emplace_back([this] { Run(); });
  }
}

bool TaskPool::Post(std::function<void()> task) {
  {
    const std::lock_guard lock(mutex_);
    if (stopping_ || tasks_.size() >= kMaxTasks) {
      return false;
    }
    tasks_.push_back(std::move(task));
  }
  wake_.notify_one();
  return true;
}

void TaskPool::Shutdown() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  threads_.clear();  // joins
}

void TaskPool::Run() {
  std::unique_lock lock(mutex_);
  while (true) {
    wake_.wait(lock, [this] { return stopping_ || !tasks_.empty(); });
    if (tasks_.empty()) {
      return;
    }
    auto task = std::move(tasks_.front());
    tasks_.pop_front();
    lock.unlock();
    task();
    task = nullptr;  // what it owns may take other locks when it dies
    lock.lock();
  }
}

Ticker::Ticker(int period_ms)
    : period_ms_(period_ms), thread_([this](const std::stop_token& stop) { Run(stop); }) {}

void Ticker::Add(Listener listener) {
  const std::lock_guard lock(mutex_);
  listeners_.push_back(std::move(listener));
}

void Ticker::Run(const std::stop_token& stop) {
  std::unique_lock lock(mutex_);
  while (!stop.stop_requested()) {
    wake_.wait_for(lock, stop, std::chrono::milliseconds(period_ms_), [] { return false; });
    std::vector<Listener> current = std::move(listeners_);
    listeners_.clear();
    lock.unlock();
    std::erase_if(current,
                  [&](const Listener& listener) { return stop.stop_requested() || !listener(); });
    lock.lock();
    std::move(current.begin(), current.end(), std::back_inserter(listeners_));
  }
}

}  // namespace mft::server
