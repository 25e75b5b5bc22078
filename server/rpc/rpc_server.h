// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "server/control/control_loop.h"
#include "server/rpc/listener.h"

namespace mft::server {

struct RpcOptions {
  std::string listen;
  std::string program_dir;
  std::string state_dir;
  std::string metrics;  // as GetServerInfo tells it
};

// The gRPC server: JobService, NodeService, health, reflection.
// Life: Start -> Shutdown (idempotent). Threads: by one owner.
class RpcServer {
 public:
  // `loop` must outlive it. Errors: those of ClaimListener; ALREADY_EXISTS where the port is taken.
  static Result<std::unique_ptr<RpcServer>> Start(ControlLoop& loop, const RpcOptions& options);
  ~RpcServer();
  // Health goes to NOT_SERVING, streams end with UNAVAILABLE, calls get a few seconds.
  void Shutdown();
  const std::string& address() const;  // with the port that was taken for port 0
  int num_streams() const;

 private:
  class Impl;
  explicit RpcServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace mft::server
