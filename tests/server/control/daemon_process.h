// SPDX-License-Identifier: Apache-2.0
// The control loop as a process of its own (control_daemon.cc), so that it can be killed.
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>

#include <gtest/gtest.h>

#include "common/base/files.h"

namespace mft::server::testing {

class DaemonProcess {
 public:
  // `slurm_dir`: folder of Slurm's programs; "": trainings run without it.
  explicit DaemonProcess(std::string state_dir, std::string slurm_dir = "")
      : state_dir_(std::move(state_dir)), slurm_dir_(std::move(slurm_dir)) {
    Start();
  }
  ~DaemonProcess() { Kill(); }
  DaemonProcess(const DaemonProcess&) = delete;
  DaemonProcess& operator=(const DaemonProcess&) = delete;

  void Start() {
    int in[2], out[2];
    ASSERT_EQ(pipe2(in, O_CLOEXEC), 0);
    ASSERT_EQ(pipe2(out, O_CLOEXEC), 0);
    pid_ = fork();
    if (pid_ == 0) {
      dup2(in[0], 0);
      dup2(out[1], 1);
      execl(MFT_CONTROL_DAEMON,
            MFT_CONTROL_DAEMON,
            state_dir_.c_str(),
            MFT_SCRIPTED_DIR,
            slurm_dir_.empty() ? nullptr : slurm_dir_.c_str(),
            nullptr);
      _exit(127);
    }
    in_ = UniqueFd(in[1]);
    out_ = UniqueFd(out[0]);
    close(in[0]);
    close(out[1]);
    ASSERT_EQ(ReadLine(), "ready");
  }

  void Kill() {
    if (pid_ > 0) {
      kill(pid_, SIGKILL);
      waitpid(pid_, nullptr, 0);
    }
    pid_ = 0;
  }

  void Send(const std::string& line) {
    ASSERT_TRUE(WriteAll(in_.get(), line + "\n", "daemon").ok());
  }
  // "" once the daemon is gone.
  std::string ReadLine() {
    std::string line;
    char c = 0;
    while (read(out_.get(), &c, 1) == 1 && c != '\n') {
      line += c;
    }
    return c == '\n' ? line : "";
  }
  std::string Ask(const std::string& line) {
    Send(line);
    return ReadLine();
  }

 private:
  std::string state_dir_;
  std::string slurm_dir_;
  pid_t pid_ = 0;
  UniqueFd in_, out_;
};

}  // namespace mft::server::testing
