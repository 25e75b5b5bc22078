// SPDX-License-Identifier: Apache-2.0
// Where the daemon listens (durability.md, "Listener").
#pragma once

#include <string>

#include "common/base/files.h"
#include "common/base/status.h"

namespace mft::server {

// $XDG_RUNTIME_DIR/mftd/mftd.sock, else /tmp/mftd-<uid>/mftd.sock, as "unix:PATH".
std::string DefaultListenAddress();

// A claimed address, ready for gRPC. The lock keeps a second daemon from unlinking a socket that is
// served.
struct Listener {
  std::string address;  // for AddListeningPort
  bool is_unix = false;
  std::string path;  // of the socket
  UniqueFd lock;
};

// unix:PATH: makes the directory (0700) if it is missing, takes PATH.lock, removes a stale socket.
// HOST:PORT: loopback only, since mutual TLS is not built. Errors: INVALID_ARGUMENT (form, 107
// bytes, foreign host), FAILED_PRECONDITION (SOCKET_IN_USE), PERMISSION_DENIED (directory of
// another user).
Result<Listener> ClaimListener(const std::string& listen);

}  // namespace mft::server
