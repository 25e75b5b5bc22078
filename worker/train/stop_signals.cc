// SPDX-License-Identifier: Apache-2.0
#include "worker/train/stop_signals.h"

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <ctime>

#include "common/base/status.h"

namespace mft {

namespace {
// Handlers can reach nothing but globals.
std::atomic<bool> g_stop{false};
std::atomic<bool> g_checkpoint{false};
static_assert(std::atomic<bool>::is_always_lock_free);

constexpr int kStopSignals[] = {SIGTERM, SIGINT};

void OnStop(int /*signal*/) {
  g_stop.store(true);
}
void OnCheckpoint(int /*signal*/) {
  g_checkpoint.store(true);
}

void SetHandler(int signal, void (*handler)(int)) {
  struct sigaction action = {};
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  MFT_CHECK(sigaction(signal, &action, nullptr) == 0, ErrnoStatus(errno, "sigaction").ToString());
}
}  // namespace

StopSignals::StopSignals() {
  g_stop.store(false);
  g_checkpoint.store(false);
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : kStopSignals) {
    SetHandler(signal, OnStop);
    sigaddset(&signals, signal);
  }
  SetHandler(SIGUSR1, OnCheckpoint);
  sigaddset(&signals, SIGUSR1);
  pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);
}

StopSignals::~StopSignals() {
  for (const int signal : kStopSignals) {
    SetHandler(signal, SIG_DFL);
  }
  SetHandler(SIGUSR1, SIG_DFL);
}

bool StopSignals::stop_requested() const {
  return g_stop.load();
}

bool StopSignals::TakeCheckpointRequest() {
  return g_checkpoint.exchange(false);
}

void StopSignals::SleepUnlessStopped(std::chrono::milliseconds duration) const {
  // A signal between the check and the sleep would be missed for one slice only.
  constexpr std::chrono::milliseconds kSlice{200};
  for (auto left = duration; left.count() > 0 && !stop_requested(); left -= kSlice) {
    const auto slice = std::min(left, kSlice);
    const timespec time{.tv_sec = 0, .tv_nsec = static_cast<long>(slice.count()) * 1'000'000};
    nanosleep(&time, nullptr);
  }
}

}  // namespace mft
