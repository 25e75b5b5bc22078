// SPDX-License-Identifier: Apache-2.0
// Packed documents are independent: a batch may be computed in groups of them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace mft {

// Segments [begin, end) of a batch.
struct SegmentRange {
  size_t begin = 0;
  size_t end = 0;
};

// Consecutive segments, in order, as many as fit into `max_rows`; a longer segment stands alone.
// `cu_seqlens` [segments + 1].
inline std::vector<SegmentRange> GroupSegments(std::span<const int32_t> cu_seqlens,
                                               int64_t max_rows) {
  std::vector<SegmentRange> groups;
  for (size_t begin = 0; begin + 1 < cu_seqlens.size();) {
    size_t end = begin + 1;
    while (end + 1 < cu_seqlens.size() && cu_seqlens[end + 1] - cu_seqlens[begin] <= max_rows) {
      ++end;
    }
    groups.push_back({begin, end});
    begin = end;
  }
  return groups;
}

}  // namespace mft
