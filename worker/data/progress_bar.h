// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "common/base/clock.h"

namespace mft::data {

struct Progress {
  int64_t done = 0;  // bytes
  int64_t total = 0;
  double seconds = 0;  // since the beginning
};

// "[####----]  42 %  1.2 GiB of 2.9 GiB, 12 s left  chats.jsonl", in at most `width` columns.
std::string ProgressText(const Progress& progress, std::string_view what, size_t width);

// One line at the bottom of a terminal, redrawn at most ten times a second; nothing where the
// descriptor is no terminal or TERM is "dumb". Threads: one.
class ProgressBar {
 public:
  ProgressBar(int fd, int64_t total, const Clock& clock = SystemClock());
  ~ProgressBar() { Clear(); }
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  void Update(std::string_view what, int64_t done);
  // Takes the line away; before anything else is printed.
  void Clear();

 private:
  void Write(std::string_view text) const;

  int fd_;
  int64_t total_;
  const Clock& clock_;
  bool terminal_;
  int64_t begin_micros_;
  int64_t next_micros_;
  bool drawn_ = false;
};

}  // namespace mft::data
