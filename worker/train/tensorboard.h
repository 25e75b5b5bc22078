// SPDX-License-Identifier: Apache-2.0
// TensorBoard event files, written by hand: TFRecord framing (length and data, each with a masked
// CRC-32C) around the few fields of tensorflow.Event that scalars need.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "common/base/files.h"
#include "common/base/status.h"

namespace mft {

// CRC-32C with the mask that TFRecord puts over it.
uint32_t MaskedCrc32c(std::string_view data);

// Appends one TFRecord to `out`.
void AppendTfRecord(std::string_view data, std::string& out);

struct Scalar {
  std::string tag;
  double value = 0;  // stored as float
};

// Threads: one at a time.
class TensorBoardWriter {
 public:
  struct Options {
    std::string directory;     // made if missing
    std::string suffix;        // ".train"
    int64_t wall_micros = 0;   // now: in the name and in the first events
    int64_t restart_step = 0;  // > 0: a SessionLog START makes readers drop points from here on
  };

  // Creates <directory>/events.out.tfevents.<seconds>.<host>.<pid><suffix>.
  static Result<std::unique_ptr<TensorBoardWriter>> Create(const Options& options);

  // One event with all the scalars, in the file when it returns.
  Status Write(int64_t step, int64_t wall_micros, std::span<const Scalar> scalars);

  const std::string& path() const { return path_; }

 private:
  TensorBoardWriter(std::string path, UniqueFd fd) : path_(std::move(path)), fd_(std::move(fd)) {}
  Status Append(std::string_view event);

  std::string path_;
  UniqueFd fd_;
  int64_t size_ = 0;  // of the whole records: a torn one would end the file for readers
};

}  // namespace mft
