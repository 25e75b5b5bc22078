// SPDX-License-Identifier: Apache-2.0
#include "worker/comm/tcp_meeting.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <string>
#include <thread>
#include <utility>

#include "common/base/log.h"
#include "common/base/strings.h"
#include "common/journal/record.h"
#include "worker/comm/rendezvous.h"
#include "worker/comm/tcp_socket.h"

namespace mft {

namespace {

constexpr uint32_t kMagic = 0x3154464D;  // "MFT1"
constexpr std::chrono::milliseconds kHelloPatience(10'000);
constexpr std::chrono::milliseconds kFilePause(20);   // between two looks at the file
constexpr std::chrono::milliseconds kFileTrust(500);  // how long its address is tried

using Text = std::array<char, 128>;

struct Hello {
  uint32_t magic = kMagic;
  Channel channel = Channel::kMain;
  RankTransport transport = RankTransport::kAuto;
  int64_t rank = 0;
  int64_t world_size = 0;
  Text build{};
  Text token{};
};

struct Answer {
  uint32_t magic = kMagic;
  uint32_t refused = 0;
  Text why{};
};

Text ToText(std::string_view value) {
  Text text{};
  std::ranges::copy(value.substr(0, text.size() - 1), text.begin());
  return text;
}

std::string FromText(const Text& text) {
  return Printable({text.data(), strnlen(text.data(), text.size())}, text.size());
}

template <typename Message>
std::span<const std::byte> BytesOf(const Message& message) {
  return std::as_bytes(std::span(&message, 1));
}
template <typename Message>
std::span<std::byte> WritableBytesOf(Message& message) {
  return std::as_writable_bytes(std::span(&message, 1));
}

Deadline DeadlineOf(const RankOptions& options) {
  return std::chrono::steady_clock::now() + std::chrono::milliseconds(options.meet_ms);
}

Status DidNotMeet(const Status& status, const std::string& why) {
  return status.code() == Code::kDeadlineExceeded
             ? Status(Code::kDeadlineExceeded, "RANKS_DID_NOT_MEET", why)
             : status;
}

constexpr const char* kLoopback = "127.0.0.1";

// For messages: where the ranks were to meet.
std::string PlaceOf(const RankOptions& options) {
  return options.rendezvous_file.empty() ? StrCat(options.address, ":", options.port)
                                         : options.rendezvous_file;
}

// Sleeps a little. CANCELLED where `stop` says so, DEADLINE_EXCEEDED when it is time.
Status Pause(const RankOptions& options, Deadline deadline, const Status& why) {
  if (options.stop && options.stop()) {
    return Status(Code::kCancelled, "asked to stop");
  }
  if (std::chrono::steady_clock::now() >= deadline) {
    return Status(Code::kDeadlineExceeded, why.message());
  }
  std::this_thread::sleep_for(kFilePause);
  return Status::Ok();
}

// What the file says is read again and again: an earlier attempt may have left it, and its port be
// nobody's now.
Result<UniqueFd> ConnectByFile(const RankOptions& options, Deadline deadline) {
  for (;;) {
    const auto endpoint = ReadEndpoint(options.rendezvous_file, options.token);
    if (!endpoint.ok() && endpoint.status().code() != Code::kNotFound) {
      return endpoint.status();
    }
    Status why = endpoint.status();
    if (endpoint.ok()) {
      auto fd = ConnectToRank(endpoint->address,
                              endpoint->port,
                              std::min(deadline, std::chrono::steady_clock::now() + kFileTrust),
                              options.stop);
      why = fd.status();
      if (fd.ok() || why.code() != Code::kDeadlineExceeded) {
        return fd;
      }
    }
    MFT_RETURN_IF_ERROR(Pause(options, deadline, why));
  }
}

Result<UniqueFd> Visit(const RankOptions& options, Channel channel, Deadline deadline) {
  MFT_ASSIGN_OR_RETURN(UniqueFd fd,
                       options.rendezvous_file.empty()
                           ? ConnectToRank(options.address, options.port, deadline, options.stop)
                           : ConnectByFile(options, deadline));
  const Hello hello{.channel = channel,
                    .transport = options.transport,
                    .rank = options.rank,
                    .world_size = options.world_size,
                    .build = ToText(BuildId()),
                    .token = ToText(options.token)};
  MFT_RETURN_IF_ERROR(SendAll(fd.get(), BytesOf(hello)));
  Answer answer;
  // Rank 0 answers when it has come to us: it may be busy with others.
  MFT_RETURN_IF_ERROR(ReceiveAllWithin(
      fd.get(), WritableBytesOf(answer), std::chrono::milliseconds(options.meet_ms)));
  if (answer.magic != kMagic) {
    return FailedPrecondition(
        StrCat(PlaceOf(options), ": who listens there is no rank of this program"));
  }
  if (answer.refused != 0) {
    return FailedPrecondition(
        StrCat("rank 0 refused rank ", options.rank, ": ", FromText(answer.why)));
  }
  return fd;
}

class Host {
 public:
  explicit Host(const RankOptions& options) : options_(options) {
    for (int64_t rank = 1; rank < options.world_size; ++rank) {
      links_.push_back({.rank = rank});
    }
  }
  ~Host() {
    if (published_) {
      unlink(options_.rendezvous_file.c_str());  // nobody listens there any more
    }
  }
  Host(const Host&) = delete;
  Host& operator=(const Host&) = delete;

  Result<std::vector<RankLink>> Meet() {
    const Deadline deadline = DeadlineOf(options_);
    MFT_ASSIGN_OR_RETURN(const UniqueFd listener, Listen());
    while (!Missing().empty()) {
      auto visitor = AcceptRank(listener.get(), deadline, options_.stop);
      if (!visitor.ok()) {
        return DidNotMeet(visitor.status(),
                          StrCat("after ",
                                 options_.meet_ms / 1000,
                                 " s rank ",
                                 Join(Missing(), ", "),
                                 " of ",
                                 options_.world_size,
                                 " had not come to ",
                                 options_.address,
                                 ":",
                                 options_.port));
      }
      MFT_RETURN_IF_ERROR(Receive(std::move(*visitor)));
    }
    return std::move(links_);
  }

 private:
  Result<UniqueFd> Listen() {
    if (options_.rendezvous_file.empty()) {
      return ListenForRanks(options_.address, options_.port);
    }
    const std::string address = options_.address.empty() ? kLoopback : options_.address;
    MFT_ASSIGN_OR_RETURN(UniqueFd listener, ListenForRanks(address, 0));
    MFT_ASSIGN_OR_RETURN(const int port, PortOf(listener.get()));
    MFT_RETURN_IF_ERROR(PublishEndpoint(
        options_.rendezvous_file, options_.token, {.address = address, .port = port}));
    published_ = true;
    return listener;
  }

  std::vector<std::string> Missing() const {
    std::vector<std::string> missing;
    for (const RankLink& link : links_) {
      if (!std::ranges::all_of(link.fds, [](const UniqueFd& fd) { return fd.valid(); })) {
        missing.push_back(std::to_string(link.rank));
      }
    }
    return missing;
  }

  // An error ends the meeting; strangers do not.
  Status Receive(UniqueFd visitor) {
    Hello hello;
    const Status heard = ReceiveAllWithin(visitor.get(), WritableBytesOf(hello), kHelloPatience);
    if (!heard.ok() || hello.magic != kMagic ||
        FromText(hello.token) != FromText(ToText(options_.token))) {
      LogWarning("somebody who is no rank of this job came to the port of the ranks");
      return Refuse(visitor, "this is another job");
    }
    const Status known = Check(hello);
    if (!known.ok()) {
      MFT_RETURN_IF_ERROR(Refuse(visitor, known.message()));
      return known;
    }
    UniqueFd& fd = links_[static_cast<size_t>(hello.rank - 1)][hello.channel];
    fd = std::move(visitor);
    return SendAll(fd.get(), BytesOf(Answer{}));
  }

  Status Check(const Hello& hello) {
    if (FromText(hello.build) != FromText(ToText(BuildId()))) {
      return FailedPrecondition(StrCat(
          "rank ", hello.rank, " is of build ", FromText(hello.build), ", rank 0 of ", BuildId()));
    }
    if (hello.world_size != options_.world_size || hello.rank < 1 ||
        hello.rank >= options_.world_size) {
      return FailedPrecondition(StrCat("rank ",
                                       hello.rank,
                                       " was started as one of ",
                                       hello.world_size,
                                       " ranks, rank 0 as one of ",
                                       options_.world_size));
    }
    if (hello.transport != options_.transport) {
      return FailedPrecondition(StrCat("rank ",
                                       hello.rank,
                                       " was told to use the transport ",
                                       RankTransportName(hello.transport),
                                       ", rank 0 ",
                                       RankTransportName(options_.transport)));
    }
    if (static_cast<size_t>(hello.channel) >= kChannels.size() ||
        links_[static_cast<size_t>(hello.rank - 1)][hello.channel].valid()) {
      return FailedPrecondition(StrCat("rank ", hello.rank, " came twice"));
    }
    return Status::Ok();
  }

  static Status Refuse(const UniqueFd& visitor, const std::string& why) {
    // A visitor that is gone need not be told.
    static_cast<void>(SendAll(visitor.get(), BytesOf(Answer{.refused = 1, .why = ToText(why)})));
    return Status::Ok();
  }

  const RankOptions& options_;
  bool published_ = false;
  std::vector<RankLink> links_;
};

}  // namespace

Result<std::vector<RankLink>> MeetRanks(const RankOptions& options) {
  if (options.rank == 0) {
    return Host(options).Meet();
  }
  const Deadline deadline = DeadlineOf(options);
  std::vector<RankLink> links(1);
  for (const Channel channel : kChannels) {
    auto fd = Visit(options, channel, deadline);
    if (!fd.ok()) {
      return DidNotMeet(fd.status(),
                        StrCat("rank ",
                               options.rank,
                               " did not meet rank 0 at ",
                               PlaceOf(options),
                               " within ",
                               options.meet_ms / 1000,
                               " s: ",
                               fd.status().message()));
    }
    links[0][channel] = std::move(*fd);
  }
  return links;
}

}  // namespace mft
