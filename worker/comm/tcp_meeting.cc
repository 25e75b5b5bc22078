// SPDX-License-Identifier: Apache-2.0
#include "worker/comm/tcp_meeting.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <string>
#include <utility>

#include "common/base/log.h"
#include "common/base/strings.h"
#include "common/journal/record.h"
#include "worker/comm/tcp_socket.h"

namespace mft {

namespace {

constexpr uint32_t kMagic = 0x3154464D;  // "MFT1"
constexpr std::chrono::milliseconds kHelloPatience(10'000);

enum class Channel : uint32_t { kData, kWatch };

using Text = std::array<char, 128>;

struct Hello {
  uint32_t magic = kMagic;
  Channel channel = Channel::kData;
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

Deadline DeadlineOf(const TcpOptions& options) {
  return std::chrono::steady_clock::now() + std::chrono::milliseconds(options.meet_ms);
}

Status DidNotMeet(const Status& status, const std::string& why) {
  return status.code() == Code::kDeadlineExceeded
             ? Status(Code::kDeadlineExceeded, "RANKS_DID_NOT_MEET", why)
             : status;
}

Result<UniqueFd> Visit(const TcpOptions& options, Channel channel, Deadline deadline) {
  MFT_ASSIGN_OR_RETURN(UniqueFd fd,
                       ConnectToRank(options.address, options.port, deadline, options.stop));
  const Hello hello{.channel = channel,
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
        StrCat(options.address, ":", options.port, ": is no rank of this program"));
  }
  if (answer.refused != 0) {
    return FailedPrecondition(
        StrCat("rank 0 refused rank ", options.rank, ": ", FromText(answer.why)));
  }
  return fd;
}

class Host {
 public:
  explicit Host(const TcpOptions& options) : options_(options) {
    for (int64_t rank = 1; rank < options.world_size; ++rank) {
      links_.push_back({.rank = rank});
    }
  }

  Result<std::vector<RankLink>> Meet() {
    const Deadline deadline = DeadlineOf(options_);
    MFT_ASSIGN_OR_RETURN(const UniqueFd listener, ListenForRanks(options_.address, options_.port));
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
  std::vector<std::string> Missing() const {
    std::vector<std::string> missing;
    for (const RankLink& link : links_) {
      if (!link.data.valid() || !link.watch.valid()) {
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
    RankLink& link = links_[static_cast<size_t>(hello.rank - 1)];
    (hello.channel == Channel::kData ? link.data : link.watch) = std::move(visitor);
    UniqueFd& fd = hello.channel == Channel::kData ? link.data : link.watch;
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
    const RankLink& link = links_[static_cast<size_t>(hello.rank - 1)];
    if ((hello.channel == Channel::kData ? link.data : link.watch).valid()) {
      return FailedPrecondition(StrCat("rank ", hello.rank, " came twice"));
    }
    return Status::Ok();
  }

  static Status Refuse(const UniqueFd& visitor, const std::string& why) {
    // A visitor that is gone need not be told.
    static_cast<void>(SendAll(visitor.get(), BytesOf(Answer{.refused = 1, .why = ToText(why)})));
    return Status::Ok();
  }

  const TcpOptions& options_;
  std::vector<RankLink> links_;
};

}  // namespace

Result<std::vector<RankLink>> MeetRanks(const TcpOptions& options) {
  if (options.rank == 0) {
    return Host(options).Meet();
  }
  const Deadline deadline = DeadlineOf(options);
  std::vector<RankLink> links(1);
  for (const Channel channel : {Channel::kData, Channel::kWatch}) {
    auto fd = Visit(options, channel, deadline);
    if (!fd.ok()) {
      return DidNotMeet(fd.status(),
                        StrCat("rank ",
                               options.rank,
                               " did not meet rank 0 at ",
                               options.address,
                               ":",
                               options.port,
                               " within ",
                               options.meet_ms / 1000,
                               " s: ",
                               fd.status().message()));
    }
    (channel == Channel::kData ? links[0].data : links[0].watch) = std::move(*fd);
  }
  return links;
}

}  // namespace mft
