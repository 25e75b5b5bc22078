// SPDX-License-Identifier: Apache-2.0
#include "server/events/fan_out.h"

#include <algorithm>
#include <utility>

namespace mft::server {

FanOut::Subscription::Subscription(FanOut* fan_out, std::string job_id, uint64_t id)
    : fan_out_(fan_out), job_id_(std::move(job_id)), id_(id) {}

FanOut::Subscription::Subscription(Subscription&& other) noexcept
    : fan_out_(std::exchange(other.fan_out_, nullptr)),
      job_id_(std::move(other.job_id_)),
      id_(other.id_) {}

FanOut::Subscription& FanOut::Subscription::operator=(Subscription&& other) noexcept {
  std::swap(fan_out_, other.fan_out_);
  std::swap(job_id_, other.job_id_);
  std::swap(id_, other.id_);
  return *this;
}

FanOut::Subscription::~Subscription() {
  if (fan_out_ != nullptr) {
    fan_out_->Unsubscribe(job_id_, id_);
  }
}

FanOut::FanOut(size_t tail_bytes, size_t total_bytes)
    : tail_bytes_(tail_bytes), total_bytes_(total_bytes) {}

FanOut::Subscription FanOut::Subscribe(const std::string& job_id, Wake wake) {
  const std::lock_guard lock(mutex_);
  const uint64_t id = next_id_++;
  wakes_[job_id].emplace(id, std::make_shared<const Wake>(std::move(wake)));
  return {this, job_id, id};
}

void FanOut::Unsubscribe(const std::string& job_id, uint64_t id) {
  const std::lock_guard lock(mutex_);
  const auto it = wakes_.find(job_id);
  if (it == wakes_.end()) {
    return;
  }
  it->second.erase(id);
  if (it->second.empty()) {
    wakes_.erase(it);
  }
}

std::optional<std::vector<EventPtr>> FanOut::Read(const std::string& job_id,
                                                  int64_t after_sequence,
                                                  int max_events) const {
  const std::lock_guard lock(mutex_);
  const auto it = tails_.find(job_id);
  if (it == tails_.end()) {
    return std::nullopt;
  }
  const Tail& tail = it->second;
  if (after_sequence >= tail.last_sequence) {
    return std::vector<EventPtr>();
  }
  if (tail.events.empty() || tail.events.front()->sequence() > after_sequence + 1) {
    return std::nullopt;
  }
  const auto skip = static_cast<size_t>(after_sequence + 1 - tail.events.front()->sequence());
  const size_t count = std::min(tail.events.size() - skip, static_cast<size_t>(max_events));
  const auto first = tail.events.begin() + static_cast<std::ptrdiff_t>(skip);
  return std::vector<EventPtr>(first, first + static_cast<std::ptrdiff_t>(count));
}

void FanOut::AddListener(Listener listener) {
  listeners_.push_back(std::move(listener));
}

void FanOut::Publish(const std::string& job_id, std::span<const EventPtr> events, bool final) {
  if (events.empty()) {
    return;
  }
  std::vector<std::shared_ptr<const Wake>> wakes;
  {
    const std::lock_guard lock(mutex_);
    Tail& tail = tails_[job_id];
    for (const EventPtr& event : events) {
      const size_t size = event->ByteSizeLong();
      tail.events.push_back(event);
      tail.bytes += size;
      bytes_ += size;
    }
    tail.last_sequence = events.back()->sequence();
    tail.used = ++publishes_;
    TrimLocked(tail);
    if (const auto it = wakes_.find(job_id); it != wakes_.end()) {
      for (const auto& [id, wake] : it->second) {
        wakes.push_back(wake);
      }
    }
  }
  // Outside the lock: a wake takes locks of its own.
  for (const EventPtr& event : events) {
    for (const Listener& listener : listeners_) {
      listener(event);
    }
  }
  for (const auto& wake : wakes) {
    (*wake)(events.back()->sequence(), final);
  }
}

void FanOut::TrimLocked(Tail& current) {
  const auto pop = [this](Tail& tail) {
    const size_t size = tail.events.front()->ByteSizeLong();
    tail.events.pop_front();
    tail.bytes -= size;
    bytes_ -= size;
  };
  while (current.bytes > tail_bytes_ && current.events.size() > 1) {
    pop(current);
  }
  while (bytes_ > total_bytes_) {
    // The tail that was quiet longest goes whole: its readers have had the most time.
    const auto oldest =
        std::min_element(tails_.begin(), tails_.end(), [](const auto& a, const auto& b) {
          return std::pair(a.second.events.empty(), a.second.used) <
                 std::pair(b.second.events.empty(), b.second.used);
        });
    while (!oldest->second.events.empty()) {
      pop(oldest->second);
    }
  }
}

int FanOut::num_subscriptions() const {
  const std::lock_guard lock(mutex_);
  size_t count = 0;
  for (const auto& [job_id, wakes] : wakes_) {
    count += wakes.size();
  }
  return static_cast<int>(count);
}

}  // namespace mft::server
