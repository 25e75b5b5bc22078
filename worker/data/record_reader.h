// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include "common/base/files.h"
#include "common/base/status.h"
#include "common/dataset/line_reader.h"

namespace mft::data {

struct DataRecord {
  int64_t line = 0;  // where it begins, from 1
  std::string text;
  Status problem;  // not ok: what is wrong with it; `text` is not all of it
};

// The records of a file of JSON Lines, or the elements of the JSON array that a file is, in bounded
// memory. Blank lines and a byte order mark are passed over. Threads: one at a time.
class RecordReader {
 public:
  // `max_record_bytes` bounds an element of an array; a line is bounded by LineReader.
  static Result<RecordReader> Open(const std::string& path,
                                   size_t max_record_bytes = LineReader::kMaxLineBytes);
  // False at the end of the file. Errors name the path.
  Result<bool> Next(DataRecord& record);
  int64_t bytes_read() const { return array_ ? bytes_read_ : lines_.bytes_read(); }

 private:
  RecordReader(LineReader lines, UniqueFd fd, std::string path, bool array, size_t max_bytes)
      : lines_(std::move(lines)),
        fd_(std::move(fd)),
        path_(std::move(path)),
        array_(array),
        max_record_bytes_(max_bytes) {}
  Result<bool> NextLine(DataRecord& record);
  Result<bool> NextElement(DataRecord& record);
  bool Trailing(DataRecord& record, char c);
  Result<bool> Fill();

  LineReader lines_;
  UniqueFd fd_;
  std::string path_;
  bool array_;
  size_t max_record_bytes_;
  // Of an array.
  enum class State { kBefore, kElements, kAfter, kEnded };
  State state_ = State::kBefore;
  std::string buffer_;
  size_t at_ = 0;
  int64_t line_ = 1;
  int64_t bytes_read_ = 0;
};

}  // namespace mft::data
