// SPDX-License-Identifier: Apache-2.0
#include "worker/comm/tcp_socket.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <thread>

#include "common/base/strings.h"

namespace mft {

namespace {

constexpr std::chrono::milliseconds kStopPoll(100);  // how often a waiting rank looks at `stop`
constexpr std::chrono::milliseconds kConnectPause(50);
constexpr int kBacklog = 1024;

struct Addresses {
  addrinfo* list = nullptr;
  ~Addresses() {
    if (list != nullptr) {
      freeaddrinfo(list);
    }
  }
};

Status Resolve(const std::string& address, int port, Addresses& addresses) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  const int error =
      getaddrinfo(address.c_str(), std::to_string(port).c_str(), &hints, &addresses.list);
  return error == 0 ? Status::Ok()
                    : Unavailable(StrCat("rank 0's host ", address, ": ", gai_strerror(error)));
}

bool IsLoopback(const sockaddr& address) {
  if (address.sa_family == AF_INET) {
    const auto& in = reinterpret_cast<const sockaddr_in&>(address);
    return ntohl(in.sin_addr.s_addr) == INADDR_LOOPBACK;
  }
  return address.sa_family == AF_INET6 &&
         IN6_IS_ADDR_LOOPBACK(&reinterpret_cast<const sockaddr_in6&>(address).sin6_addr);
}

// The same port of every interface.
void Widen(sockaddr& address) {
  if (address.sa_family == AF_INET) {
    reinterpret_cast<sockaddr_in&>(address).sin_addr.s_addr = htonl(INADDR_ANY);
  } else if (address.sa_family == AF_INET6) {
    reinterpret_cast<sockaddr_in6&>(address).sin6_addr = in6addr_any;
  }
}

void SendAtOnce(int fd) {
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

// False at the deadline; CANCELLED where `stop` says so.
Result<bool> WaitReadable(int fd, Deadline deadline, const std::function<bool()>& stop) {
  pollfd entry{.fd = fd, .events = POLLIN, .revents = 0};
  MFT_RETURN_IF_ERROR(WaitForAny(std::span(&entry, 1), deadline, stop));
  return entry.revents != 0;
}

Status Ended(int error, std::string_view what) {
  return Unavailable(error == 0 ? StrCat(what, ": the other end has closed the connection")
                                : StrCat(what, ": ", ErrnoStatus(error, "tcp").message()));
}

}  // namespace

Result<UniqueFd> ListenForRanks(const std::string& address, int port) {
  Addresses addresses;
  MFT_RETURN_IF_ERROR(Resolve(address, port, addresses));
  sockaddr& where = *addresses.list->ai_addr;
  if (!IsLoopback(where)) {
    Widen(where);
  }
  UniqueFd listener(socket(where.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int on = 1;
  setsockopt(listener.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(listener.get(), &where, addresses.list->ai_addrlen) != 0 ||
      listen(listener.get(), kBacklog) != 0) {
    return ErrnoStatus(errno, StrCat("listening for the other ranks on ", address, ":", port));
  }
  return listener;
}

Result<int> PortOf(int listener) {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  if (getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    return ErrnoStatus(errno, "getsockname");
  }
  return ntohs(address.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6&>(address).sin6_port
                                             : reinterpret_cast<sockaddr_in&>(address).sin_port);
}

Status WaitForAny(std::span<pollfd> entries, Deadline deadline, const std::function<bool()>& stop) {
  while (true) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
        deadline - std::chrono::steady_clock::now());
    if (left.count() <= 0) {
      return Status::Ok();
    }
    const int found =
        poll(entries.data(), entries.size(), static_cast<int>(std::min(left, kStopPoll).count()));
    if (found > 0) {
      return Status::Ok();
    }
    if (found < 0 && errno != EINTR) {
      return ErrnoStatus(errno, "poll");
    }
    if (stop && stop()) {
      return Status(Code::kCancelled, "asked to stop");
    }
  }
}

Result<UniqueFd> AcceptRank(int listener, Deadline deadline, const std::function<bool()>& stop) {
  while (true) {
    MFT_ASSIGN_OR_RETURN(const bool ready, WaitReadable(listener, deadline, stop));
    if (!ready) {
      return Status(Code::kDeadlineExceeded, "no rank came");
    }
    UniqueFd fd(accept4(listener, nullptr, nullptr, SOCK_CLOEXEC));
    if (fd.valid()) {
      SendAtOnce(fd.get());
      return fd;
    }
    if (errno != EINTR && errno != EAGAIN && errno != ECONNABORTED) {
      return ErrnoStatus(errno, "accepting a rank");
    }
  }
}

Result<UniqueFd> ConnectToRank(const std::string& address,
                               int port,
                               Deadline deadline,
                               const std::function<bool()>& stop) {
  std::string why = "nobody tried";
  while (true) {
    Addresses addresses;
    const Status resolved = Resolve(address, port, addresses);
    why = resolved.message();
    for (const addrinfo* each = addresses.list; each != nullptr; each = each->ai_next) {
      UniqueFd fd(socket(each->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
      if (connect(fd.get(), each->ai_addr, each->ai_addrlen) == 0) {
        SendAtOnce(fd.get());
        return fd;
      }
      why = ErrnoStatus(errno, StrCat(address, ":", port)).message();
    }
    if (stop && stop()) {
      return Status(Code::kCancelled, "asked to stop");
    }
    if (std::chrono::steady_clock::now() >= deadline) {
      return Status(Code::kDeadlineExceeded, StrCat("rank 0 cannot be reached: ", why));
    }
    std::this_thread::sleep_for(kConnectPause);
  }
}

Status SendAll(int fd, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent > 0) {
      bytes = bytes.subspan(static_cast<size_t>(sent));
    } else if (sent < 0 && errno != EINTR) {
      return Ended(errno, "sending");
    }
  }
  return Status::Ok();
}

Status ReceiveAll(int fd, std::span<std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t got = recv(fd, bytes.data(), bytes.size(), 0);
    if (got > 0) {
      bytes = bytes.subspan(static_cast<size_t>(got));
    } else if (got == 0 || errno != EINTR) {
      return Ended(got == 0 ? 0 : errno, "receiving");
    }
  }
  return Status::Ok();
}

Status ReceiveAllWithin(int fd,
                        std::span<std::byte> bytes,
                        std::chrono::milliseconds patience,
                        const std::function<bool()>& stop) {
  const Deadline deadline = std::chrono::steady_clock::now() + patience;
  while (!bytes.empty()) {
    MFT_ASSIGN_OR_RETURN(const bool ready, WaitReadable(fd, deadline, stop));
    if (!ready) {
      return Status(Code::kDeadlineExceeded, "nothing came");
    }
    const ssize_t got = recv(fd, bytes.data(), bytes.size(), MSG_DONTWAIT);
    if (got > 0) {
      bytes = bytes.subspan(static_cast<size_t>(got));
    } else if (got == 0 || (errno != EINTR && errno != EAGAIN)) {
      return Ended(got == 0 ? 0 : errno, "receiving");
    }
  }
  return Status::Ok();
}

}  // namespace mft
