// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/files.h"
#include "common/base/status.h"
#include "common/dataset/token_cache_format.h"

namespace mft {

// A list of records that a writer needs again at the end: in memory while it is short, the rest in
// a nameless file beside the cache. 1 MiB, whatever the number.
// Threads: one at a time.
class RecordFile {
 public:
  // `directory`: where the file is made once it is needed.
  explicit RecordFile(std::string directory) : directory_(std::move(directory)) {}

  int64_t size() const { return in_file_ + static_cast<int64_t>(recent_.size()); }
  Status Add(const token_cache_format::Record& record);
  // Gives all bytes in order, in blocks of whole records.
  Status ForEachBlock(const std::function<Status(std::string_view bytes)>& block);
  Status Clear();

 private:
  static constexpr size_t kRecent = (size_t{1} << 20) / sizeof(token_cache_format::Record);

  Status Spill();

  std::string directory_;
  UniqueFd fd_;  // not open while nothing was spilled
  int64_t in_file_ = 0;
  std::vector<token_cache_format::Record> recent_;  // behind those in the file
};

}  // namespace mft
