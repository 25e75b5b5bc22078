// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/streams.h"

namespace mft::server {

uint64_t StreamRegistry::Add(Finish finish) {
  const std::lock_guard lock(mutex_);
  if (closed_) {
    return 0;
  }
  streams_[next_key_] = std::move(finish);
  return next_key_++;
}

void StreamRegistry::Remove(uint64_t key) {
  Finish dying;  // destroyed outside the lock: it may own the last reference to its stream
  const std::lock_guard lock(mutex_);
  const auto it = streams_.find(key);
  if (it != streams_.end()) {
    dying = std::move(it->second);
    streams_.erase(it);
  }
}

void StreamRegistry::CloseAll(const grpc::Status& status) {
  std::map<uint64_t, Finish> streams;
  {
    const std::lock_guard lock(mutex_);
    closed_ = true;
    streams.swap(streams_);
  }
  for (const auto& [key, finish] : streams) {
    finish(status);
  }
}

int StreamRegistry::size() const {
  const std::lock_guard lock(mutex_);
  return static_cast<int>(streams_.size());
}

}  // namespace mft::server
