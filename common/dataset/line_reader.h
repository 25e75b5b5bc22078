// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include "common/base/files.h"
#include "common/base/status.h"

namespace mft {

struct DataLine {
  int64_t number = 0;     // from 0
  std::string text;       // without the line's end; where too_long: its beginning
  bool too_long = false;  // longer than the reader's limit
};

// Lines of a file in bounded memory. "\n" and "\r\n" end a line; a last line needs no end.
// Threads: one at a time.
class LineReader {
 public:
  static constexpr size_t kMaxLineBytes = size_t{64} << 20;

  static Result<LineReader> Open(const std::string& path);
  // Of a pipe, say; `name` stands for the path in errors.
  static LineReader On(UniqueFd fd, std::string name, size_t max_line_bytes = kMaxLineBytes) {
    return {std::move(name), std::move(fd), max_line_bytes};
  }
  // False at the end of the file. Errors name the path.
  Result<bool> Next(DataLine& line);
  int64_t bytes_read() const { return bytes_read_; }  // for progress

 private:
  LineReader(std::string path, UniqueFd fd, size_t max_line_bytes)
      : path_(std::move(path)), fd_(std::move(fd)), max_line_bytes_(max_line_bytes) {}
  Result<bool> Fill();

  std::string path_;
  UniqueFd fd_;
  size_t max_line_bytes_;
  std::string buffer_;
  size_t at_ = 0;
  int64_t next_number_ = 0;
  int64_t bytes_read_ = 0;
};

}  // namespace mft
