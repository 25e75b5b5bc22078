// SPDX-License-Identifier: Apache-2.0
// Live streams, so that a shutdown can finish every one of them: gRPC's Shutdown never returns
// while a callback RPC is open.
#pragma once

#include <functional>
#include <map>
#include <mutex>

#include <grpcpp/support/status.h>

namespace mft::server {

// Threads: safe from any thread.
class StreamRegistry {
 public:
  using Finish = std::function<void(const grpc::Status&)>;

  // Returns a key for Remove; 0 when the registry is closed: the stream must finish at once.
  uint64_t Add(Finish finish);
  void Remove(uint64_t key);
  // Finishes every stream, now and to come. Idempotent.
  void CloseAll(const grpc::Status& status);
  int size() const;

 private:
  mutable std::mutex mutex_;  // guards what follows
  std::map<uint64_t, Finish> streams_;
  uint64_t next_key_ = 1;
  bool closed_ = false;
};

}  // namespace mft::server
