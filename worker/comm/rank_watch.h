// SPDX-License-Identifier: Apache-2.0
// Signs of life between rank 0 and each other rank, on a thread and connections of their own: a
// rank that is computing for minutes gives them, one that is stopped or gone does not.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "common/base/files.h"
#include "common/base/status.h"

namespace mft {

struct WatchOptions {
  int64_t rank = 0;
  std::chrono::milliseconds beat{500};
  std::chrono::milliseconds silence{7'000};
  std::chrono::milliseconds leave{1'500};  // 0: never
};

// Where a rank was when it was last heard of.
struct RankPlace {
  int64_t rank = 0;
  int64_t step = 0;
  std::string phase = "starting";
};
// What every rank says of one that is lost: UNAVAILABLE (RANK_LOST).
Status RankIsGone(const RankPlace& place);
Status RankIsSilent(const RankPlace& place, std::chrono::milliseconds silence);

// Life: constructed, Start, a Watch for each rank as it comes, OnLost, Leave, destroyed. Threads:
// any, but Start, Leave and the destructor.
class RankWatch {
 public:
  explicit RankWatch(const WatchOptions& options);
  // The others miss this rank, if it has not left.
  ~RankWatch();
  RankWatch(const RankWatch&) = delete;
  RankWatch& operator=(const RankWatch&) = delete;
  void Start();
  // From here on `rank`, at the other end of `connection`, gives signs of life, or is lost.
  void Watch(int64_t rank, UniqueFd connection);
  // `wake` runs once, when a rank is lost, or here if one is: it wakes whoever waits for it. On any
  // thread; it must be able to run until the end of Leave.
  void OnLost(std::function<void()> wake);
  // Ends the watch with a good-bye.
  void Leave();

  void SetPlace(int64_t step, std::string_view phase);

  bool lost() const { return lost_.load(); }
  // Of the rank that was lost, or of one that has said good-bye while this one still calls it;
  // after a while without one, that `otherwise` happened.
  Status WhyLost(const Status& otherwise);
  // By the one who knows, and ends: the process is not ended any more by the watch.
  void Notice();

 private:
  struct Message {
    enum Kind : uint32_t { kBeat, kBye, kGone, kSilent } kind = kBeat;
    int32_t rank = 0;  // of whom it tells
    int64_t step = 0;
    char phase[48] = {};
  };
  struct Peer {
    int64_t rank = 0;
    UniqueFd fd;
    std::chrono::steady_clock::time_point heard;
    Message last;  // what it said last
    std::vector<std::byte> unread;
    bool left = false;  // it said good-bye
  };

  void Run();
  void EndThread();
  void Wake();
  void TakeNewPeers();
  void SendBeats();
  void Read(Peer& peer);
  void Take(Peer& peer, const Message& message);
  void CheckSilence(std::chrono::steady_clock::time_point now);
  void Tell(const Message& message);  // to every rank but the one that it is about
  static RankPlace PlaceOf(const Message& message);
  void Left(const Message& message);
  // `how` of `message.rank`: told to every other rank, then here.
  void Lost(const Message& message, Message::Kind how);
  void LeaveUnlessNoticed();
  Message Mine(Message::Kind kind);

  const WatchOptions options_;
  std::vector<Peer> peers_;  // of the thread
  UniqueFd wake_;            // eventfd: there are new peers, or this is the end
  std::thread thread_;
  std::atomic<bool> lost_ = false;

  std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  Message place_;
  Status why_;
  Status left_;  // the first good-bye
  std::vector<Peer> new_peers_;
  std::function<void()> on_lost_;
  bool noticed_ = false;
  bool ending_ = false;
};

}  // namespace mft
