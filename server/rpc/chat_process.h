// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include "common/base/files.h"
#include "common/base/json.h"
#include "common/base/status.h"

namespace mft::server {

// `mft-worker generate` over pipes: one JSON object a line each way. It ends with its standard
// input, so with the daemon too. Threads: Send and Receive by one thread; Kill from any.
class ChatProcess {
 public:
  static Result<std::unique_ptr<ChatProcess>> Start(const std::string& program,
                                                    const std::vector<std::string>& arguments,
                                                    int cpu_threads);
  ~ChatProcess();  // kills and reaps
  ChatProcess(const ChatProcess&) = delete;
  ChatProcess& operator=(const ChatProcess&) = delete;

  Status Send(const Json& request);
  // Blocks for the next line. UNAVAILABLE with the last line of its standard error when it ended.
  Result<Json> Receive();
  void Kill();

 private:
  ChatProcess(pid_t pid, UniqueFd in, UniqueFd out, UniqueFd error)
      : pid_(pid), in_(std::move(in)), out_(std::move(out)), error_(std::move(error)) {}

  pid_t pid_;
  UniqueFd in_, out_, error_;
  std::string buffer_;
};

}  // namespace mft::server
