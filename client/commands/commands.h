// SPDX-License-Identifier: Apache-2.0
// The subcommands of mftctl. Each adds itself to the command line and, when chosen, stores the
// program's exit code.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include <CLI/App.hpp>
#include <google/protobuf/message.h>

#include "client/connection.h"
#include "common/base/status.h"

namespace mft::client {

// Exit codes beyond those of ExitCodeFor (design.md 4.1).
inline constexpr int kExitJobFailed = 10;
inline constexpr int kExitJobCancelled = 11;
inline constexpr int kExitStreamLost = 12;
inline constexpr int kExitInvalid = 3;

struct Context {
  std::string endpoint_flag;
  std::string output = "text";  // text | json
  int exit_code = 0;

  bool json() const { return output == "json"; }
  // Runs `body` with a connection; prints a failure as "mftctl: error: ..." and sets the exit code.
  void Run(const std::function<Result<int>(Connection&)>& body);
  // The same without a daemon.
  void RunLocal(const std::function<Result<int>()>& body);
};

// One line of proto JSON on stdout.
void PrintJson(const google::protobuf::Message& message);
// "mftctl: warning: ..." on stderr.
void PrintWarning(const std::string& message);

void AddSubmit(CLI::App& app, Context& context);
void AddValidate(CLI::App& app, Context& context);
void AddList(CLI::App& app, Context& context);
void AddDescribe(CLI::App& app, Context& context);
void AddLogs(CLI::App& app, Context& context);
void AddEvents(CLI::App& app, Context& context);
void AddCancel(CLI::App& app, Context& context);
void AddCheckpoints(CLI::App& app, Context& context);
void AddChat(CLI::App& app, Context& context);
void AddNode(CLI::App& app, Context& context);     // devices, version
void AddMissing(CLI::App& app, Context& context);  // commands of later versions: one clear error

}  // namespace mft::client
