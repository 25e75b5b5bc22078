// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "common/base/json.h"

namespace mft::data {

// How many samples have how many tokens, in buckets that double: 1, 2, 3 to 4, 5 to 8, ...
class LengthHistogram {
 public:
  void Add(int64_t length);
  int64_t samples() const;
  // A line for each bucket from the first to the last that holds something, with a bar.
  std::vector<std::string> ToLines() const;
  // [{"min_tokens", "max_tokens", "samples"}], the same buckets.
  Json ToJson() const;

 private:
  struct Bucket {
    int64_t min = 0;
    int64_t max = 0;
    int64_t samples = 0;
  };
  std::vector<Bucket> Used() const;

  std::array<int64_t, 40> counts_{};  // [b]: more than 2^(b-1) tokens, at most 2^b
};

}  // namespace mft::data
