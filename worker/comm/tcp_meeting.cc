// SPDX-License-Identifier: Apache-2.0
#include "worker/comm/tcp_meeting.h"

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
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
constexpr size_t kMostVisitors = 1'000;               // that have not said who they are
// The first one is watched from then on.
constexpr std::array kVisits = {Channel::kWatch, Channel::kMain, Channel::kBackground};

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
// nobody's now. Where this attempt's rank 0 has listened and does not any more, it is gone.
Result<UniqueFd> ConnectByFile(const RankOptions& options, Deadline deadline) {
  const std::chrono::milliseconds silence(options.silence_ms);
  auto heard = std::chrono::steady_clock::now();
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
      if (std::chrono::steady_clock::now() - heard > silence) {
        return Status(Code::kUnavailable,
                      std::string(kReasonRankLost),
                      StrCat(RankIsGone({.rank = 0}).message(), ": ", why.message()));
      }
    } else {
      heard = std::chrono::steady_clock::now();
    }
    MFT_RETURN_IF_ERROR(Pause(options, deadline, why));
  }
}

// What rank 0 answers. Once it is watched, the watch knows whether it lives.
Result<Answer> HearAnswer(const RankOptions& options, int fd, Channel channel, RankWatch& watch) {
  const bool watched = channel != kVisits.front();
  const std::chrono::milliseconds patience(watched ? options.meet_ms : options.silence_ms);
  Answer answer;
  const Status heard = ReceiveAllWithin(fd, WritableBytesOf(answer), patience, options.stop);
  if (heard.code() == Code::kUnavailable) {
    return watched ? watch.WhyLost(heard) : RankIsGone({.rank = 0});
  }
  if (heard.code() == Code::kDeadlineExceeded && !watched) {
    return RankIsSilent({.rank = 0}, patience);
  }
  MFT_RETURN_IF_ERROR(heard);
  return answer;
}

Result<UniqueFd> Visit(const RankOptions& options,
                       Channel channel,
                       Deadline deadline,
                       RankWatch& watch) {
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
  // One that cannot be told does not answer either.
  static_cast<void>(SendAll(fd.get(), BytesOf(hello)));
  MFT_ASSIGN_OR_RETURN(const Answer answer, HearAnswer(options, fd.get(), channel, watch));
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
  Host(const RankOptions& options, RankWatch& watch) : options_(options), watch_(watch) {
    for (int64_t rank = 1; rank < options.world_size; ++rank) {
      links_.push_back({.rank = rank});
    }
    watched_.resize(links_.size());
  }

  Result<std::vector<RankLink>> Meet() {
    const Deadline deadline = DeadlineOf(options_);
    MFT_ASSIGN_OR_RETURN(const UniqueFd listener, Listen());
    while (!Missing().empty()) {
      if (std::chrono::steady_clock::now() >= deadline) {
        return DidNotMeet(Status(Code::kDeadlineExceeded, "no rank came"),
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
      MFT_RETURN_IF_ERROR(ReceiveVisitors(listener.get(), deadline));
    }
    if (!options_.rendezvous_file.empty()) {
      unlink(options_.rendezvous_file.c_str());  // nobody listens there any more
    }
    return std::move(links_);
  }

 private:
  struct Visitor {
    UniqueFd fd;
    Deadline patience;
    Hello hello;
    size_t heard = 0;  // bytes of it
  };

  Result<UniqueFd> Listen() {
    if (options_.rendezvous_file.empty()) {
      return ListenForRanks(options_.address, options_.port);
    }
    const std::string address = options_.address.empty() ? kLoopback : options_.address;
    MFT_ASSIGN_OR_RETURN(UniqueFd listener, ListenForRanks(address, 0));
    MFT_ASSIGN_OR_RETURN(const int port, PortOf(listener.get()));
    MFT_RETURN_IF_ERROR(PublishEndpoint(
        options_.rendezvous_file, options_.token, {.address = address, .port = port}));
    return listener;
  }

  std::vector<std::string> Missing() const {
    std::vector<std::string> missing;
    for (const RankLink& link : links_) {
      if (!std::ranges::all_of(kVisits, [&](Channel channel) { return HasCome(link, channel); })) {
        missing.push_back(std::to_string(link.rank));
      }
    }
    return missing;
  }
  bool HasCome(const RankLink& link, Channel channel) const {
    return channel == Channel::kWatch ? watched_[static_cast<size_t>(link.rank - 1)]
                                      : link[channel].valid();
  }

  // Waits for somebody to come or to say who he is. One that does not say it keeps nobody waiting.
  Status ReceiveVisitors(int listener, Deadline deadline) {
    const bool full = visitors_.size() >= kMostVisitors;
    std::vector<pollfd> entries = {{.fd = full ? -1 : listener, .events = POLLIN, .revents = 0}};
    for (const Visitor& visitor : visitors_) {
      entries.push_back({.fd = visitor.fd.get(), .events = POLLIN, .revents = 0});
      deadline = std::min(deadline, visitor.patience);
    }
    MFT_RETURN_IF_ERROR(WaitForAny(entries, deadline, options_.stop));
    std::vector<Visitor> silent;
    for (Visitor& visitor : std::exchange(visitors_, {})) {
      if (IsDone(visitor)) {
        MFT_RETURN_IF_ERROR(Receive(std::move(visitor)));
      } else {
        silent.push_back(std::move(visitor));
      }
    }
    visitors_ = std::move(silent);
    if (entries[0].revents != 0) {
      MFT_ASSIGN_OR_RETURN(UniqueFd fd, AcceptRank(listener, deadline, options_.stop));
      visitors_.push_back(
          {.fd = std::move(fd), .patience = std::chrono::steady_clock::now() + kHelloPatience});
    }
    return Status::Ok();
  }

  // Whether it has said all that it will say.
  static bool IsDone(Visitor& visitor) {
    const std::span<std::byte> rest = WritableBytesOf(visitor.hello).subspan(visitor.heard);
    const ssize_t got = recv(visitor.fd.get(), rest.data(), rest.size(), MSG_DONTWAIT);
    const bool ended = got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR);
    visitor.heard += static_cast<size_t>(std::max(got, ssize_t{0}));
    return ended || visitor.heard == sizeof(Hello) ||
           std::chrono::steady_clock::now() >= visitor.patience;
  }

  // An error ends the meeting; strangers do not.
  Status Receive(Visitor visitor) {
    const Hello& hello = visitor.hello;
    if (visitor.heard < sizeof(Hello) || hello.magic != kMagic ||
        FromText(hello.token) != FromText(ToText(options_.token))) {
      LogWarning("somebody who is no rank of this job came to the port of the ranks");
      return Refuse(visitor.fd, "this is another job");
    }
    const Status known = Check(hello);
    if (!known.ok()) {
      MFT_RETURN_IF_ERROR(Refuse(visitor.fd, known.message()));
      return known;
    }
    // One that cannot be told is gone, which the watch finds.
    static_cast<void>(SendAll(visitor.fd.get(), BytesOf(Answer{})));
    const auto index = static_cast<size_t>(hello.rank - 1);
    if (hello.channel == Channel::kWatch) {
      watched_[index] = true;
      watch_.Watch(hello.rank, std::move(visitor.fd));
    } else {
      links_[index][hello.channel] = std::move(visitor.fd);
    }
    return Status::Ok();
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
    if (std::ranges::find(kVisits, hello.channel) == kVisits.end() ||
        HasCome(links_[static_cast<size_t>(hello.rank - 1)], hello.channel)) {
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
  RankWatch& watch_;
  std::vector<RankLink> links_;
  std::vector<bool> watched_;  // by link
  std::vector<Visitor> visitors_;
};

}  // namespace

Result<std::vector<RankLink>> MeetRanks(const RankOptions& options, RankWatch& watch) {
  if (options.rank == 0) {
    return Host(options, watch).Meet();
  }
  const Deadline deadline = DeadlineOf(options);
  std::vector<RankLink> links(1);
  for (const Channel channel : kVisits) {
    auto fd = Visit(options, channel, deadline, watch);
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
    if (channel == Channel::kWatch) {
      watch.Watch(0, std::move(*fd));
    } else {
      links[0][channel] = std::move(*fd);
    }
  }
  return links;
}

}  // namespace mft
