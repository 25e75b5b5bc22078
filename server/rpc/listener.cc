// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/listener.h"

#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <filesystem>

#include "common/base/strings.h"
#include "server/exec/patient_lock.h"

namespace mft::server {

namespace {
constexpr size_t kMaxSocketPath = sizeof(sockaddr_un::sun_path) - 1;

Status CheckOwner(const std::string& directory) {
  struct stat info {};
  if (lstat(directory.c_str(), &info) != 0) {
    return ErrnoStatus(errno, directory);
  }
  if (!S_ISDIR(info.st_mode) || (info.st_uid != geteuid() && info.st_uid != 0)) {
    return PermissionDenied(StrCat(directory,
                                   ": is no directory of this user (uid ",
                                   geteuid(),
                                   "); choose another --listen"));
  }
  return Status::Ok();
}

Result<Listener> ClaimSocket(const std::string& path) {
  if (path.empty() || path[0] != '/') {
    return InvalidArgument(StrCat("--listen unix:", path, ": the path must be absolute"));
  }
  if (path.size() > kMaxSocketPath) {
    return InvalidArgument(StrCat("--listen unix:",
                                  path,
                                  ": a socket path may have ",
                                  kMaxSocketPath,
                                  " bytes, this one has ",
                                  path.size()));
  }
  const std::string directory = std::filesystem::path(path).parent_path().string();
  MFT_RETURN_IF_ERROR(MakeDirs(directory, 0700));
  MFT_RETURN_IF_ERROR(CheckOwner(directory));
  MFT_ASSIGN_OR_RETURN(UniqueFd lock, LockFilePatiently(path + ".lock"));
  if (!lock.valid()) {
    return Status(Code::kFailedPrecondition,
                  "SOCKET_IN_USE",
                  StrCat(path, ": another mftd listens there (it holds ", path, ".lock)"));
  }
  if (unlink(path.c_str()) != 0 && errno != ENOENT) {
    return ErrnoStatus(errno, StrCat("removing the stale socket ", path));
  }
  return Listener{
      .address = "unix:" + path, .is_unix = true, .path = path, .lock = std::move(lock)};
}

Result<Listener> ClaimLoopback(const std::string& listen) {
  const size_t colon = listen.rfind(':');
  int port = -1;
  const bool has_port =
      colon != std::string::npos &&
      std::from_chars(listen.data() + colon + 1, listen.data() + listen.size(), port).ptr ==
          listen.data() + listen.size();
  if (!has_port || port < 0 || port > 65535) {
    return InvalidArgument(StrCat("--listen ", listen, ": must be unix:PATH or HOST:PORT"));
  }
  const std::string host = listen.substr(0, colon);
  if (host != "127.0.0.1" && host != "localhost" && host != "[::1]") {
    return InvalidArgument(StrCat("--listen ",
                                  listen,
                                  ": this version listens on the loopback only (127.0.0.1, "
                                  "localhost, [::1]), because it has no TLS"));
  }
  return Listener{.address = listen, .is_unix = false, .path = {}, .lock = {}};
}
}  // namespace

std::string DefaultListenAddress() {
  const char* runtime = std::getenv("XDG_RUNTIME_DIR");
  return runtime != nullptr && *runtime != '\0'
             ? StrCat("unix:", runtime, "/mftd/mftd.sock")
             : StrCat("unix:/tmp/mftd-", geteuid(), "/mftd.sock");
}

Result<Listener> ClaimListener(const std::string& listen) {
  constexpr std::string_view kUnix = "unix:";
  return listen.starts_with(kUnix) ? ClaimSocket(listen.substr(kUnix.size()))
                                   : ClaimLoopback(listen);
}

}  // namespace mft::server
