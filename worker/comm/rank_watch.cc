// SPDX-License-Identifier: Apache-2.0
#include "worker/comm/rank_watch.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <iterator>
#include <utility>

#include "common/base/log.h"
#include "common/base/strings.h"
#include "common/journal/record.h"

namespace mft {

namespace {

using SteadyClock = std::chrono::steady_clock;

// How long a broken exchange waits for the watch to say whose end it was, beyond the silence that
// another rank may have noticed, and broken it for, before this one does.
constexpr std::chrono::milliseconds kCulpritPatience(2'000);
// A turn of the watch that came so much too late (this process did not run) is no silence of the
// others: time that nobody listened in does not count.
constexpr int kOwnStall = 3;

Status Culprit(const RankPlace& place, std::string_view what) {
  return {Code::kUnavailable,
          std::string(kReasonRankLost),
          StrCat("rank ", place.rank, what, "; it was at step ", place.step, ", ", place.phase)};
}

}  // namespace

Status RankIsGone(const RankPlace& place) {
  return Culprit(place, " is gone");
}

Status RankIsSilent(const RankPlace& place, std::chrono::milliseconds silence) {
  return Culprit(place,
                 StrCat(" has shown no sign of life for ",
                        FormatDuration(static_cast<double>(silence.count()) / 1e3)));
}

RankWatch::RankWatch(const WatchOptions& options)
    : options_(options), wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  SetPlace(0, RankPlace().phase);
}

void RankWatch::Start() {
  thread_ = std::thread([this] { Run(); });
}

void RankWatch::Watch(int64_t rank, UniqueFd connection) {
  Peer peer;
  peer.rank = rank;
  peer.fd = std::move(connection);
  peer.heard = SteadyClock::now();
  peer.last.rank = static_cast<int32_t>(rank);
  RankPlace().phase.copy(peer.last.phase, sizeof peer.last.phase - 1);
  {
    const std::lock_guard lock(mutex_);
    new_peers_.push_back(std::move(peer));
  }
  Wake();
}

void RankWatch::OnLost(std::function<void()> wake) {
  bool already = false;
  {
    const std::lock_guard lock(mutex_);
    on_lost_ = wake;
    already = lost();
  }
  if (already) {
    wake();
  }
}

void RankWatch::Wake() {
  const uint64_t one = 1;
  // An eventfd's counter never overflows here.
  static_cast<void>(!write(wake_.get(), &one, sizeof one));
}

void RankWatch::EndThread() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
    noticed_ = true;
  }
  changed_.notify_all();
  Wake();
  if (thread_.joinable()) {
    thread_.join();
  }
}

void RankWatch::Leave() {
  EndThread();
  TakeNewPeers();
  const Message bye = Mine(Message::kBye);
  for (const Peer& peer : peers_) {
    send(peer.fd.get(), &bye, sizeof bye, MSG_NOSIGNAL | MSG_DONTWAIT);
  }
}

RankWatch::~RankWatch() {
  EndThread();
}

void RankWatch::SetPlace(int64_t step, std::string_view phase) {
  const std::lock_guard lock(mutex_);
  place_.rank = static_cast<int32_t>(options_.rank);
  place_.step = step;
  std::memset(place_.phase, 0, sizeof place_.phase);
  std::memcpy(place_.phase, phase.data(), std::min(phase.size(), sizeof place_.phase - 1));
}

RankPlace RankWatch::PlaceOf(const Message& message) {
  return {.rank = message.rank,
          .step = message.step,
          .phase = Printable(message.phase, sizeof message.phase)};
}

RankWatch::Message RankWatch::Mine(Message::Kind kind) {
  const std::lock_guard lock(mutex_);
  Message message = place_;
  message.kind = kind;
  return message;
}

void RankWatch::Notice() {
  {
    const std::lock_guard lock(mutex_);
    noticed_ = true;
  }
  changed_.notify_all();
}

Status RankWatch::WhyLost(const Status& otherwise) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(
      lock, options_.silence + kCulpritPatience, [this] { return !why_.ok() || !left_.ok(); });
  if (!why_.ok()) {
    return why_;
  }
  return left_.ok() ? Status(Code::kUnavailable, std::string(kReasonRankLost), otherwise.message())
                    : left_;
}

void RankWatch::TakeNewPeers() {
  uint64_t woken = 0;
  static_cast<void>(!read(wake_.get(), &woken, sizeof woken));  // what it was for is below
  const std::lock_guard lock(mutex_);
  std::ranges::move(new_peers_, std::back_inserter(peers_));
  new_peers_.clear();
}

void RankWatch::Run() {
  auto last_turn = SteadyClock::now();
  auto next_beat = last_turn;
  while (!lost()) {
    TakeNewPeers();
    // At its time, not whenever somebody else's came: those would answer each other without end.
    if (SteadyClock::now() >= next_beat) {
      SendBeats();
      next_beat = SteadyClock::now() + options_.beat;
    }
    std::vector<pollfd> fds = {{.fd = wake_.get(), .events = POLLIN, .revents = 0}};
    for (const Peer& peer : peers_) {
      fds.push_back({.fd = peer.left ? -1 : peer.fd.get(), .events = POLLIN, .revents = 0});
    }
    const auto patience =
        std::chrono::ceil<std::chrono::milliseconds>(next_beat - SteadyClock::now());
    if (poll(fds.data(), fds.size(), std::max(0, static_cast<int>(patience.count()))) < 0 &&
        errno != EINTR) {
      LogError(ErrnoStatus(errno, "watching the other ranks").message());
    }
    {
      const std::lock_guard lock(mutex_);
      if (ending_) {
        return;
      }
    }
    const auto now = SteadyClock::now();
    if (now - last_turn > kOwnStall * options_.beat) {
      for (Peer& peer : peers_) {
        peer.heard += now - last_turn;
      }
    }
    last_turn = now;
    for (size_t i = 0; i < peers_.size() && !lost(); ++i) {
      if (fds[i + 1].revents != 0) {
        Read(peers_[i]);
      }
    }
    CheckSilence(now);
  }
  LeaveUnlessNoticed();
}

void RankWatch::SendBeats() {
  const Message beat = Mine(Message::kBeat);
  for (const Peer& peer : peers_) {
    if (!peer.left) {
      // One that is gone is found by reading; one that does not read gets no more than it holds.
      send(peer.fd.get(), &beat, sizeof beat, MSG_NOSIGNAL | MSG_DONTWAIT);
    }
  }
}

void RankWatch::Read(Peer& peer) {
  std::byte buffer[16 * sizeof(Message)];
  const ssize_t got = recv(peer.fd.get(), buffer, sizeof buffer, MSG_DONTWAIT);
  if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) {
    Lost(peer.last, Message::kGone);
    return;
  }
  if (got < 0) {
    return;
  }
  peer.heard = SteadyClock::now();
  peer.unread.insert(peer.unread.end(), buffer, buffer + got);
  size_t at = 0;
  for (; peer.unread.size() - at >= sizeof(Message) && !lost(); at += sizeof(Message)) {
    Message message;
    std::memcpy(&message, peer.unread.data() + at, sizeof message);
    message.phase[sizeof message.phase - 1] = '\0';
    Take(peer, message);
  }
  peer.unread.erase(peer.unread.begin(), peer.unread.begin() + static_cast<std::ptrdiff_t>(at));
}

void RankWatch::Take(Peer& peer, const Message& message) {
  switch (message.kind) {
    case Message::kBeat:
      peer.last = message;
      return;
    case Message::kBye:
      if (message.rank == peer.rank) {
        peer.left = true;
        Tell(message);
      }
      Left(message);
      return;
    case Message::kGone:
    case Message::kSilent:
      Lost(message, message.kind);
      return;
  }
}

void RankWatch::CheckSilence(SteadyClock::time_point now) {
  for (const Peer& peer : peers_) {
    if (!lost() && !peer.left && now - peer.heard > options_.silence) {
      Lost(peer.last, Message::kSilent);
    }
  }
}

void RankWatch::Tell(const Message& message) {
  for (const Peer& peer : peers_) {
    if (peer.rank != message.rank && !peer.left) {
      send(peer.fd.get(), &message, sizeof message, MSG_NOSIGNAL | MSG_DONTWAIT);
    }
  }
}

// No loss, unless this rank still calls it.
void RankWatch::Left(const Message& message) {
  {
    const std::lock_guard lock(mutex_);
    left_ = left_.ok() ? Culprit(PlaceOf(message), " has ended") : left_;
  }
  changed_.notify_all();
}

void RankWatch::Lost(const Message& message, Message::Kind how) {
  Message told = message;
  told.kind = how;
  Tell(told);
  std::function<void()> wake;
  {
    const std::lock_guard lock(mutex_);
    why_ = how == Message::kGone ? RankIsGone(PlaceOf(told))
                                 : RankIsSilent(PlaceOf(told), options_.silence);
    lost_.store(true);
    wake = on_lost_;
  }
  changed_.notify_all();
  if (wake) {
    wake();
  }
}

// The other ranks' work is lost with the one: a rank that computes on does so for nothing.
void RankWatch::LeaveUnlessNoticed() {
  std::unique_lock lock(mutex_);
  if (options_.leave.count() == 0 ||
      changed_.wait_for(lock, options_.leave, [this] { return noticed_; })) {
    return;
  }
  LogError(why_.message());
  _exit(ExitCodeFor(Code::kUnavailable));
}

}  // namespace mft
