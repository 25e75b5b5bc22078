// SPDX-License-Identifier: Apache-2.0
#include "worker/data/stop_signal.h"

#include <csignal>

namespace mft::data {
namespace {

volatile std::sig_atomic_t stop_signal = 0;

extern "C" void RememberStop(int signal) {
  stop_signal = signal;
}

}  // namespace

void HandleStopSignals() {
  struct sigaction action {};
  action.sa_handler = RememberStop;
  action.sa_flags = SA_RESTART;
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGINT, &action, nullptr);
  action.sa_handler = SIG_IGN;
  sigaction(SIGUSR1, &action, nullptr);
  sigset_t handled;
  sigemptyset(&handled);
  sigaddset(&handled, SIGTERM);
  sigaddset(&handled, SIGINT);
  sigaddset(&handled, SIGUSR1);
  pthread_sigmask(SIG_UNBLOCK, &handled, nullptr);
}

int StopSignal() {
  return stop_signal;
}

}  // namespace mft::data
