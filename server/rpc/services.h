// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "server/control/control_loop.h"
#include "server/rpc/streams.h"
#include "server/rpc/task_pool.h"

namespace mft::server {

// What the services share. Everything outlives them.
struct ServiceContext {
  ControlLoop& loop;
  TaskPool& tasks;  // short blocking work
  TaskPool& chats;  // a thread for each conversation
  Ticker& ticker;
  StreamRegistry& streams;
  EventReader& reader;  // used on `reader_tasks` only, which has one thread
  TaskPool& reader_tasks;
  std::string program_dir;
  std::string owner;  // principal of every peer: the daemon's own user
  // For GetServerInfo.
  std::string state_dir;
  std::string listen;
  std::string metrics;
};

}  // namespace mft::server
