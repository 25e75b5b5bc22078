// SPDX-License-Identifier: Apache-2.0
// Ranks of one host, which read and write the same memory. A channel has a gate, a place for every
// rank's call, an area for every rank's data and one for results. A sum goes through it a window at
// a time: each rank puts its values into its area, adds up one slice of everybody's, and takes the
// other slices from the results.
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <climits>
#include <cstring>
#include <thread>
#include <utility>

#include "worker/comm/transport.h"

namespace mft {

namespace {

// Of a rank's area: small enough that a window of all ranks stays in the cache, large enough that
// waiting for each other is not what a sum takes.
constexpr size_t kAreaBytes = size_t{1} << 20;
constexpr size_t kTileBytes = size_t{8} << 10;
// Before a rank sleeps. Yielding, not spinning: the one it waits for may need this core.
constexpr int kYields = 50;

struct alignas(64) GateWords {
  uint32_t come = 0;              // ranks that wait
  alignas(64) uint32_t turn = 0;  // how often all have come, from bit 1 on; bit 0: broken
};
struct alignas(64) CallPlace {
  // Of even and odd calls: who is a call ahead does not write over what others still read.
  std::array<CallHeader, 2> headers;
};

std::atomic_ref<uint32_t> Atomic(uint32_t& word) {
  return std::atomic_ref(word);
}

// Not private to the process: other ranks are others.
void SleepWhile(uint32_t& word, uint32_t value) {
  syscall(SYS_futex, &word, FUTEX_WAIT, value, nullptr, nullptr, 0);
}
void WakeAll(uint32_t& word) {
  syscall(SYS_futex, &word, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

// Where all ranks wait for each other. What a rank wrote before it came is seen by all who pass.
class Gate {
 public:
  Gate(GateWords& words, int64_t world_size)
      : words_(words), world_size_(static_cast<uint32_t>(world_size)) {}

  Status Pass() {
    const uint32_t turn = Atomic(words_.turn).load(std::memory_order_acquire);
    if ((turn & kBroken) != 0) {
      return Broken();
    }
    if (Atomic(words_.come).fetch_add(1, std::memory_order_acq_rel) + 1 == world_size_) {
      Atomic(words_.come).store(0, std::memory_order_relaxed);
      Atomic(words_.turn).fetch_add(kTurn, std::memory_order_acq_rel);
      WakeAll(words_.turn);
      return Status::Ok();
    }
    for (int yields = 0;; ++yields) {
      const uint32_t now = Atomic(words_.turn).load(std::memory_order_acquire);
      if ((now & ~kBroken) != turn) {
        return Status::Ok();  // even if somebody has left since
      }
      if ((now & kBroken) != 0) {
        return Broken();
      }
      if (yields < kYields) {
        std::this_thread::yield();
      } else {
        SleepWhile(words_.turn, now);
      }
    }
  }

  void Break() {
    Atomic(words_.turn).fetch_or(kBroken, std::memory_order_acq_rel);
    WakeAll(words_.turn);
  }

 private:
  static constexpr uint32_t kBroken = 1;
  static constexpr uint32_t kTurn = 2;
  static Status Broken() { return Unavailable("a rank has closed the connection"); }

  GateWords& words_;
  const uint32_t world_size_;
};

class SharedMemoryTransport final : public Transport {
 public:
  SharedMemoryTransport(int64_t rank, int64_t world_size, std::span<std::byte> memory)
      : rank_(static_cast<size_t>(rank)),
        world_size_(static_cast<size_t>(world_size)),
        gate_(*reinterpret_cast<GateWords*>(memory.data()), world_size),
        places_(reinterpret_cast<CallPlace*>(memory.data() + sizeof(GateWords)), world_size_),
        areas_(memory.subspan(sizeof(GateWords) + places_.size_bytes())) {}

  Status Agree(const CallHeader& mine) override {
    const size_t parity = mine.number % 2;
    places_[rank_].headers[parity] = mine;
    MFT_RETURN_IF_ERROR(gate_.Pass());
    const CallHeader& first = places_[0].headers[parity];
    for (size_t other = 1; other < world_size_; ++other) {
      const CallHeader& theirs = places_[other].headers[parity];
      if (!(theirs == first)) {
        return CallsDiffer(first, static_cast<int64_t>(other), theirs);
      }
    }
    return Status::Ok();
  }

  Status Sum(std::span<float> values) override { return SumAll(values); }
  Status Sum(std::span<double> values) override { return SumAll(values); }

  // Through the two halves of the areas in turn: by the time that a half is written again, all have
  // come to the gate between, and so read it.
  Status Spread(std::span<const std::span<std::byte>> parts) override {
    constexpr size_t kHalf = kAreaBytes / 2;
    const auto piece = [&](size_t of, size_t window) {
      const size_t begin = std::min(parts[of].size(), window * kHalf);
      return parts[of].subspan(begin, std::min(kHalf, parts[of].size() - begin));
    };
    size_t longest = 0;
    for (const auto& part : parts) {
      longest = std::max(longest, part.size());
    }
    for (size_t window = 0; window * kHalf < longest; ++window) {
      const size_t half = window % 2 * kHalf;
      Copy(Area(rank_).data() + half, piece(rank_, window));
      MFT_RETURN_IF_ERROR(gate_.Pass());
      for (size_t of = 0; of < world_size_; ++of) {
        const auto to = piece(of, window);
        if (of != rank_) {
          Copy(to.data(), Area(of).subspan(half, to.size()));
        }
      }
    }
    return Status::Ok();
  }

  void Break() override { gate_.Break(); }

 private:
  std::span<std::byte> Area(size_t of) const { return areas_.subspan(of * kAreaBytes, kAreaBytes); }
  std::span<std::byte> Results() const { return Area(world_size_); }

  static void Copy(std::byte* to, std::span<const std::byte> from) {
    if (!from.empty()) {
      std::memcpy(to, from.data(), from.size());
    }
  }

  template <typename T>
  Status SumAll(std::span<T> values) {
    constexpr size_t kWindow = kAreaBytes / sizeof(T);
    for (size_t begin = 0; begin < values.size(); begin += kWindow) {
      const auto window = values.subspan(begin, std::min(kWindow, values.size() - begin));
      MFT_RETURN_IF_ERROR(SumWindow<T>(std::as_writable_bytes(window)));
    }
    return Status::Ok();
  }

  // The areas are written again after everybody has passed the second gate, and so read them; the
  // results after the next first one.
  template <typename T>
  Status SumWindow(std::span<std::byte> window) {
    const Part mine =
        PartOf(window.size(), static_cast<int64_t>(rank_), static_cast<int64_t>(world_size_));
    const size_t end = mine.begin + mine.size;
    Copy(Area(rank_).data(), window.first(mine.begin));
    Copy(Area(rank_).data() + end, window.subspan(end));
    MFT_RETURN_IF_ERROR(gate_.Pass());
    for (size_t at = mine.begin; at < end; at += kTileBytes) {
      AddTile<T>(window, at, std::min(kTileBytes, end - at));
    }
    MFT_RETURN_IF_ERROR(gate_.Pass());
    Copy(window.data(), Results().first(mine.begin));
    Copy(window.data() + end, Results().subspan(end, window.size() - end));
    return Status::Ok();
  }

  // In the order of the ranks; own values need not go through the area.
  template <typename T>
  void AddTile(std::span<std::byte> window, size_t at, size_t bytes) const {
    std::array<T, kTileBytes / sizeof(T)> sum;
    for (size_t of = 0; of < world_size_; ++of) {
      const std::byte* const terms = (of == rank_ ? window.data() : Area(of).data()) + at;
      if (of == 0) {
        std::memcpy(sum.data(), terms, bytes);
      } else {
        AddTerms(sum.data(), reinterpret_cast<const T*>(terms), bytes / sizeof(T));
      }
    }
    std::memcpy(window.data() + at, sum.data(), bytes);
    std::memcpy(Results().data() + at, sum.data(), bytes);
  }

  const size_t rank_;
  const size_t world_size_;
  Gate gate_;
  const std::span<CallPlace> places_;
  const std::span<std::byte> areas_;
};

}  // namespace

size_t SharedChannelBytes(int64_t world_size) {
  const auto ranks = static_cast<size_t>(world_size);
  const size_t bytes = sizeof(GateWords) + ranks * sizeof(CallPlace) + (ranks + 1) * kAreaBytes;
  return (bytes + 63) / 64 * 64;
}

std::unique_ptr<Transport> MakeSharedMemoryTransport(int64_t rank,
                                                     int64_t world_size,
                                                     std::span<std::byte> memory) {
  return std::make_unique<SharedMemoryTransport>(rank, world_size, memory);
}

}  // namespace mft
