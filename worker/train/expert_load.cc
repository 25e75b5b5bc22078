// SPDX-License-Identifier: Apache-2.0
#include "worker/train/expert_load.h"

#include <algorithm>
#include <numeric>

namespace mft {

ExpertLoad LoadOfExperts(std::span<const int64_t> rows, int64_t experts) {
  ExpertLoad load;
  const int64_t visits = std::accumulate(rows.begin(), rows.end(), int64_t{0});
  if (visits == 0) {
    return load;
  }
  const auto width = static_cast<size_t>(experts);
  load.share.assign(width, 0);
  for (size_t begin = 0; begin < rows.size(); begin += width) {
    const auto layer = rows.subspan(begin, width);
    const int64_t busiest = *std::max_element(layer.begin(), layer.end());
    const int64_t all = std::accumulate(layer.begin(), layer.end(), int64_t{0});
    load.imbalance = std::max(
        load.imbalance,
        static_cast<double>(busiest * experts) / static_cast<double>(std::max<int64_t>(all, 1)));
    for (size_t e = 0; e < width; ++e) {
      load.share[e] += static_cast<double>(layer[e]) / static_cast<double>(visits);
    }
  }
  return load;
}

}  // namespace mft
