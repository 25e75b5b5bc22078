// SPDX-License-Identifier: Apache-2.0
#include <sys/socket.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "common/base/strings.h"
#include "worker/comm/tcp_socket.h"
#include "worker/comm/transport.h"

namespace mft {

namespace {

constexpr size_t kPieceBytes = size_t{1} << 20;  // summed at a time: it stays in the cache

// Rank 0's answer to every rank's header.
struct Agreement {
  CallHeader first;   // rank 0's
  int64_t other = 0;  // the first rank that makes another call than that; 0: none does
  CallHeader others;
};

class TcpTransport final : public Transport {
 public:
  TcpTransport(int64_t rank, const std::vector<RankLink>& links, Channel channel)
      : rank_(rank), links_(links), channel_(channel) {}

  Status Agree(const CallHeader& mine) override {
    Agreement agreement{.first = mine};
    for (const RankLink& link : links_) {
      if (rank_ != 0) {
        MFT_RETURN_IF_ERROR(Send(link, std::as_bytes(std::span(&mine, 1))));
        MFT_RETURN_IF_ERROR(Receive(link, std::as_writable_bytes(std::span(&agreement, 1))));
        continue;
      }
      CallHeader theirs;
      MFT_RETURN_IF_ERROR(Receive(link, std::as_writable_bytes(std::span(&theirs, 1))));
      if (!(theirs == mine) && agreement.other == 0) {
        agreement.other = link.rank;
        agreement.others = theirs;
      }
    }
    for (const RankLink& link : links_) {
      MFT_RETURN_IF_ERROR(rank_ != 0 ? Status::Ok()
                                     : Send(link, std::as_bytes(std::span(&agreement, 1))));
    }
    return agreement.other == 0 ? Status::Ok()
                                : CallsDiffer(agreement.first, agreement.other, agreement.others);
  }

  Status Sum(std::span<float> values) override { return SumAll(values); }
  Status Sum(std::span<double> values) override { return SumAll(values); }

  Status Spread(std::span<const std::span<std::byte>> parts) override {
    for (const RankLink& link : links_) {
      MFT_RETURN_IF_ERROR(rank_ == 0 ? Receive(link, parts[static_cast<size_t>(link.rank)])
                                     : Send(link, parts[static_cast<size_t>(rank_)]));
    }
    for (const RankLink& link : links_) {
      for (size_t of = 0; of < parts.size(); ++of) {
        if (of != static_cast<size_t>(std::max(rank_, link.rank))) {  // who is not the hub
          MFT_RETURN_IF_ERROR(rank_ == 0 ? Send(link, parts[of]) : Receive(link, parts[of]));
        }
      }
    }
    return Status::Ok();
  }

  void Break() override {
    for (const RankLink& link : links_) {
      shutdown(link[channel_].get(), SHUT_RDWR);
    }
  }

 private:
  // In the order of the ranks, so that a sum's bits do not depend on who comes first.
  template <typename T>
  Status SumAll(std::span<T> values) {
    const auto bytes = std::as_writable_bytes(values);
    if (rank_ != 0) {
      MFT_RETURN_IF_ERROR(Send(links_[0], bytes));
      return Receive(links_[0], bytes);
    }
    piece_.resize(std::min(kPieceBytes, bytes.size()));
    for (const RankLink& link : links_) {
      for (size_t begin = 0; begin < bytes.size(); begin += kPieceBytes) {
        const auto piece = std::span(piece_).first(std::min(kPieceBytes, bytes.size() - begin));
        MFT_RETURN_IF_ERROR(Receive(link, piece));
        AddTerms(values.data() + begin / sizeof(T),
                 reinterpret_cast<const T*>(piece.data()),
                 piece.size() / sizeof(T));
      }
    }
    for (const RankLink& link : links_) {
      MFT_RETURN_IF_ERROR(Send(link, bytes));
    }
    return Status::Ok();
  }

  Status Send(const RankLink& link, std::span<const std::byte> bytes) const {
    return SendAll(link[channel_].get(), bytes).WithContext(StrCat("to rank ", link.rank));
  }
  Status Receive(const RankLink& link, std::span<std::byte> bytes) const {
    return ReceiveAll(link[channel_].get(), bytes).WithContext(StrCat("from rank ", link.rank));
  }

  const int64_t rank_;
  const std::vector<RankLink>& links_;
  const Channel channel_;
  std::vector<std::byte> piece_;
};

}  // namespace

std::unique_ptr<Transport> MakeTcpTransport(int64_t rank,
                                            const std::vector<RankLink>& links,
                                            Channel channel) {
  return std::make_unique<TcpTransport>(rank, links, channel);
}

}  // namespace mft
