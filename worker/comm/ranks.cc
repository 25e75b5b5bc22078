// SPDX-License-Identifier: Apache-2.0
// A communicator of several ranks: calls are agreed on, counted, and fail for good; how the bytes
// move is the transport's business.
#include <algorithm>
#include <array>
#include <string>
#include <utility>
#include <vector>

#include "common/base/strings.h"
#include "worker/comm/communicator.h"
#include "worker/comm/rank_watch.h"
#include "worker/comm/shared_segment.h"
#include "worker/comm/tcp_meeting.h"
#include "worker/comm/transport.h"

namespace mft {

namespace {

constexpr size_t kLine = 64;

std::string Describe(const CallHeader& header) {
  constexpr std::array kNames = {
      "sum of floats", "sum of doubles", "gathering", "broadcast", "barrier"};
  const auto call = static_cast<size_t>(header.call);
  const std::string name = call < kNames.size() ? kNames[call] : "unknown";
  return StrCat(header.number,
                " (",
                name,
                header.call == Call::kBroadcast ? StrCat(" from rank ", header.root) : "",
                ", ",
                header.bytes,
                " bytes)");
}

// What a rank has of the others. Nothing of it moves: transports and watch refer to it.
class Group {
 public:
  Group(const RankOptions& options,
        std::unique_ptr<RankWatch> watch,
        std::vector<RankLink> links,
        std::unique_ptr<SharedSegment> segment)
      : options_(options),
        links_(std::move(links)),
        segment_(std::move(segment)),
        watch_(std::move(watch)) {
    const size_t bytes = SharedChannelBytes(options.world_size);
    for (size_t i = 0; i < kDataChannels.size(); ++i) {
      transports_[i] =
          segment_ == nullptr
              ? MakeTcpTransport(options.rank, links_, kDataChannels[i])
              : MakeSharedMemoryTransport(
                    options.rank, options.world_size, segment_->bytes().subspan(i * bytes, bytes));
    }
    watch_->OnLost([this] { Break(); });
  }
  ~Group() {
    watch_->Leave();  // first: nobody is to be missed
    Break();
  }
  Group(const Group&) = delete;
  Group& operator=(const Group&) = delete;

  const RankOptions& options() const { return options_; }
  RankWatch& watch() { return *watch_; }
  Transport& transport(Channel channel) { return *transports_[static_cast<size_t>(channel)]; }

 private:
  void Break() {
    for (const auto& transport : transports_) {
      transport->Break();
    }
  }

  const RankOptions options_;
  const std::vector<RankLink> links_;
  const std::unique_ptr<SharedSegment> segment_;
  std::array<std::unique_ptr<Transport>, kDataChannels.size()> transports_;
  const std::unique_ptr<RankWatch> watch_;
};

// The calls of one channel.
class RankCommunicator : public Communicator {
 public:
  RankCommunicator(Group& group, Channel channel)
      : group_(group), transport_(group.transport(channel)), channel_(channel) {}

  int64_t rank() const override { return group_.options().rank; }
  int64_t world_size() const override { return group_.options().world_size; }
  void SetPlace(int64_t step, std::string_view phase) override {
    group_.watch().SetPlace(step, phase);
  }

  Status AllReduceSum(std::span<float> values) override {
    return Exchange(
        Call::kSumFloat, 0, values.size_bytes(), [&] { return transport_.Sum(values); });
  }
  Status AllReduceSum(std::span<double> values) override {
    return Exchange(
        Call::kSumDouble, 0, values.size_bytes(), [&] { return transport_.Sum(values); });
  }
  Status Barrier() override {
    return Exchange(Call::kBarrier, 0, 0, [] { return Status::Ok(); });
  }
  Status AllGather(std::span<std::byte> bytes) override {
    std::vector<std::span<std::byte>> parts;
    for (int64_t from = 0; from < world_size(); ++from) {
      const Part part = PartOf(bytes.size(), from, world_size());
      parts.push_back(bytes.subspan(part.begin, part.size));
    }
    return Exchange(Call::kGather, 0, bytes.size(), [&] { return transport_.Spread(parts); });
  }
  Status Broadcast(std::span<std::byte> bytes, int64_t root) override {
    if (root < 0 || root >= world_size()) {
      return InvalidArgument(StrCat("broadcast from rank ", root, " of ", world_size()));
    }
    std::vector<std::span<std::byte>> parts(static_cast<size_t>(world_size()));
    parts[static_cast<size_t>(root)] = bytes;
    return Exchange(Call::kBroadcast, root, bytes.size(), [&] { return transport_.Spread(parts); });
  }

  Communicator& background() override { return *this; }
  Status failure() override {
    if (failure_.reason() == kReasonRankLost) {
      group_.watch().Notice();
    }
    return failure_;
  }

 private:
  // Agrees on the call, then makes it.
  template <typename Work>
  Status Exchange(Call call, int64_t root, size_t bytes, const Work& work) {
    if (failure_.ok()) {
      Status status = transport_.Agree(
          {.call = call, .root = static_cast<uint32_t>(root), .number = ++calls_, .bytes = bytes});
      status = status.ok() ? work() : status;
      if (status.code() == Code::kUnavailable) {
        if (channel_ == Channel::kMain) {
          group_.watch().Notice();
        }
        status = group_.watch().WhyLost(status);
      }
      failure_ = status;
    }
    return channel_ == Channel::kMain ? failure() : failure_;
  }

  Group& group_;
  Transport& transport_;
  const Channel channel_;
  uint64_t calls_ = 0;
  Status failure_;
};

class MainCommunicator final : public RankCommunicator {
 public:
  explicit MainCommunicator(std::unique_ptr<Group> group)
      : RankCommunicator(*group, Channel::kMain),
        background_(*group, Channel::kBackground),
        group_(std::move(group)) {}
  Communicator& background() override { return background_; }

 private:
  RankCommunicator background_;
  const std::unique_ptr<Group> group_;
};

struct Met {
  std::vector<RankLink> links;
  std::unique_ptr<SharedSegment> segment;
};

Result<Met> MeetAndShare(const RankOptions& options, RankWatch& watch) {
  Met met;
  MFT_ASSIGN_OR_RETURN(met.links, MeetRanks(options, watch));
  if (options.transport != RankTransport::kTcp) {
    auto segment = ShareMemory(
        options, met.links, kDataChannels.size() * SharedChannelBytes(options.world_size));
    if (segment.status().code() == Code::kUnavailable) {
      return watch.WhyLost(segment.status());
    }
    MFT_ASSIGN_OR_RETURN(met.segment, std::move(segment));
  }
  return met;
}

// A rank that is lost ends the meeting, as a request to stop does.
Result<Met> Meet(const RankOptions& options, RankWatch& watch) {
  const auto stop = [&] { return options.stop && options.stop(); };
  RankOptions watched = options;
  watched.stop = [&] { return stop() || watch.lost(); };
  auto met = MeetAndShare(watched, watch);
  const Status status = met.status();
  if (status.reason() != kReasonRankLost && status.code() != Code::kCancelled) {
    return met;
  }
  watch.Notice();
  if (stop()) {  // what the others are told too: they may have ended first
    return Status(Code::kCancelled, "asked to stop");
  }
  return status.code() == Code::kCancelled ? watch.WhyLost(status) : status;
}

}  // namespace

std::string_view RankTransportName(RankTransport transport) {
  switch (transport) {
    case RankTransport::kAuto:
      return "auto";
    case RankTransport::kTcp:
      return "tcp";
    case RankTransport::kSharedMemory:
      return "shared memory";
  }
  return "unknown";
}

Part PartOf(size_t size, int64_t rank, int64_t world_size) {
  const size_t lines = (size + kLine - 1) / kLine;
  const auto begin_of = [&](int64_t part) {
    return std::min(size,
                    lines * static_cast<size_t>(part) / static_cast<size_t>(world_size) * kLine);
  };
  return {.begin = begin_of(rank), .size = begin_of(rank + 1) - begin_of(rank)};
}

Status CallsDiffer(const CallHeader& first, int64_t rank, const CallHeader& other) {
  return Internal(StrCat("the ranks are out of step: rank 0 makes call ",
                         Describe(first),
                         ", rank ",
                         rank,
                         " call ",
                         Describe(other)));
}

Result<std::unique_ptr<Communicator>> MakeCommunicator(const RankOptions& options) {
  if (options.world_size < 1 || options.rank < 0 || options.rank >= options.world_size) {
    return InvalidArgument(StrCat("rank ", options.rank, " of ", options.world_size, " ranks"));
  }
  if (options.world_size == 1) {
    return MakeLocalCommunicator(0, 1);
  }
  if (options.rendezvous_file.empty() && (options.port < 1 || options.port > 65535)) {
    return InvalidArgument(StrCat("MASTER_PORT must be a port, not ", options.port));
  }
  auto watch = std::make_unique<RankWatch>(
      WatchOptions{.rank = options.rank,
                   .beat = std::chrono::milliseconds(options.beat_ms),
                   .silence = std::chrono::milliseconds(options.silence_ms),
                   .leave = std::chrono::milliseconds(options.leave_ms)});
  watch->Start();
  auto met = Meet(options, *watch);
  if (!met.ok()) {
    return met.status();
  }
  auto group = std::make_unique<Group>(
      options, std::move(watch), std::move(met->links), std::move(met->segment));
  return std::unique_ptr<Communicator>(std::make_unique<MainCommunicator>(std::move(group)));
}

}  // namespace mft
