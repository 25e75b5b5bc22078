// SPDX-License-Identifier: Apache-2.0
#include <sys/socket.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "common/base/strings.h"
#include "worker/comm/communicator.h"
#include "worker/comm/rank_watch.h"
#include "worker/comm/tcp_meeting.h"
#include "worker/comm/tcp_socket.h"

namespace mft {

namespace {

constexpr size_t kPieceBytes = size_t{1} << 20;  // summed at a time: it stays in the cache

enum class Call : uint32_t { kSumFloat, kSumDouble, kBroadcast, kBarrier };

// Before every exchange: ranks that do not make the same calls are found out, not summed up.
struct CallHeader {
  Call call = Call::kBarrier;
  uint32_t root = 0;
  uint64_t number = 0;  // of the call, from 1
  uint64_t bytes = 0;
  bool operator==(const CallHeader&) const = default;
};

class TcpCommunicator final : public Communicator {
 public:
  TcpCommunicator(const RankOptions& options, std::vector<RankLink> links)
      : options_(options),
        links_(std::move(links)),
        watch_({.rank = options.rank,
                .beat = std::chrono::milliseconds(options.beat_ms),
                .silence = std::chrono::milliseconds(options.silence_ms),
                .leave = std::chrono::milliseconds(options.leave_ms)},
               links_,
               [this] { BreakExchanges(); }) {
    watch_.Start();
  }

  int64_t rank() const override { return options_.rank; }
  int64_t world_size() const override { return options_.world_size; }
  void SetPlace(int64_t step, std::string_view phase) override { watch_.SetPlace(step, phase); }

  Status AllReduceSum(std::span<float> values) override {
    return Exchange(
        Call::kSumFloat, 0, std::as_writable_bytes(values), [&] { return Sum(values); });
  }
  Status AllReduceSum(std::span<double> values) override {
    return Exchange(
        Call::kSumDouble, 0, std::as_writable_bytes(values), [&] { return Sum(values); });
  }
  Status Barrier() override {
    return Exchange(Call::kBarrier, 0, {}, [] { return Status::Ok(); });
  }
  Status Broadcast(std::span<std::byte> bytes, int64_t root) override {
    if (root < 0 || root >= world_size()) {
      return InvalidArgument(StrCat("broadcast from rank ", root, " of ", world_size()));
    }
    return Exchange(Call::kBroadcast, root, bytes, [&]() -> Status {
      if (rank() == root && rank() != 0) {
        MFT_RETURN_IF_ERROR(SendAll(links_[0].data.get(), bytes));
      } else if (rank() == 0 && root != 0) {
        MFT_RETURN_IF_ERROR(ReceiveAll(links_[static_cast<size_t>(root - 1)].data.get(), bytes));
      }
      return FromHub(bytes, root);
    });
  }

 private:
  // Agrees on the call, then makes it.
  template <typename Work>
  Status Exchange(Call call, int64_t root, std::span<std::byte> bytes, const Work& work) {
    if (!failure_.ok()) {
      return failure_;
    }
    const CallHeader mine{.call = call,
                          .root = static_cast<uint32_t>(root),
                          .number = ++calls_,
                          .bytes = bytes.size()};
    Status status = Compare(mine);
    status = status.ok() ? work() : status;
    if (!status.ok()) {
      failure_ = status.code() == Code::kUnavailable ? watch_.WhyLost(status) : status;
    }
    return failure_;
  }

  // Every rank's header at rank 0, and rank 0's at every rank.
  Status Compare(const CallHeader& mine) {
    const auto bytes = std::as_bytes(std::span(&mine, 1));
    for (const RankLink& link : links_) {
      MFT_RETURN_IF_ERROR(rank() == 0 ? Status::Ok() : Send(link, bytes));
      CallHeader theirs;
      MFT_RETURN_IF_ERROR(Receive(link, std::as_writable_bytes(std::span(&theirs, 1))));
      if (!(theirs == mine)) {
        return Internal(StrCat("rank ",
                               rank(),
                               " makes call ",
                               Describe(mine),
                               ", rank ",
                               link.rank,
                               " call ",
                               Describe(theirs)));
      }
    }
    for (const RankLink& link : links_) {
      MFT_RETURN_IF_ERROR(rank() == 0 ? Send(link, bytes) : Status::Ok());
    }
    return Status::Ok();
  }
  static std::string Describe(const CallHeader& header) {
    return StrCat(header.number,
                  " (",
                  static_cast<uint32_t>(header.call),
                  ", ",
                  header.bytes,
                  " bytes, root ",
                  header.root,
                  ")");
  }

  // In the order of the ranks, so that a sum's bits do not depend on who comes first.
  template <typename T>
  Status Sum(std::span<T> values) {
    const auto bytes = std::as_writable_bytes(values);
    if (rank() != 0) {
      MFT_RETURN_IF_ERROR(Send(links_[0], bytes));
      return Receive(links_[0], bytes);
    }
    piece_.resize(std::min(kPieceBytes, bytes.size()));
    for (const RankLink& link : links_) {
      for (size_t begin = 0; begin < bytes.size(); begin += kPieceBytes) {
        const auto piece = std::span(piece_).first(std::min(kPieceBytes, bytes.size() - begin));
        MFT_RETURN_IF_ERROR(Receive(link, piece));
        const auto* theirs = reinterpret_cast<const T*>(piece.data());
        T* const ours = values.data() + begin / sizeof(T);
        for (size_t i = 0; i < piece.size() / sizeof(T); ++i) {
          ours[i] += theirs[i];
        }
      }
    }
    return FromHub(bytes, 0);
  }

  // What rank 0 has, on every rank but `except`, which has it.
  Status FromHub(std::span<std::byte> bytes, int64_t except) {
    if (rank() != 0) {
      return rank() == except ? Status::Ok() : Receive(links_[0], bytes);
    }
    for (const RankLink& link : links_) {
      MFT_RETURN_IF_ERROR(link.rank == except ? Status::Ok() : Send(link, bytes));
    }
    return Status::Ok();
  }

  static Status Send(const RankLink& link, std::span<const std::byte> bytes) {
    return SendAll(link.data.get(), bytes).WithContext(StrCat("to rank ", link.rank));
  }
  static Status Receive(const RankLink& link, std::span<std::byte> bytes) {
    return ReceiveAll(link.data.get(), bytes).WithContext(StrCat("from rank ", link.rank));
  }

  // On the watch's thread: whoever waits in an exchange goes on, with an error.
  void BreakExchanges() {
    for (const RankLink& link : links_) {
      shutdown(link.data.get(), SHUT_RDWR);
    }
  }

  const RankOptions options_;
  const std::vector<RankLink> links_;
  std::vector<std::byte> piece_;
  uint64_t calls_ = 0;
  Status failure_;
  RankWatch watch_;  // last: its thread uses the links
};

}  // namespace

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
  MFT_ASSIGN_OR_RETURN(std::vector<RankLink> links, MeetRanks(options));
  return std::unique_ptr<Communicator>(
      std::make_unique<TcpCommunicator>(options, std::move(links)));
}

}  // namespace mft
