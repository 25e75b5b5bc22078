// SPDX-License-Identifier: Apache-2.0
#include "worker/data/length_histogram.h"

#include <algorithm>
#include <bit>
#include <cstdio>
#include <numeric>

#include "common/base/strings.h"

namespace mft::data {
namespace {

constexpr int64_t kBarCharacters = 40;

std::string PadLeft(const std::string& text, size_t width) {
  return std::string(width - std::min(width, text.size()), ' ') + text;
}

}  // namespace

void LengthHistogram::Add(int64_t length) {
  const auto bucket =
      static_cast<size_t>(std::bit_width(static_cast<uint64_t>(std::max<int64_t>(length, 1) - 1)));
  ++counts_[std::min(bucket, counts_.size() - 1)];
}

int64_t LengthHistogram::samples() const {
  return std::accumulate(counts_.begin(), counts_.end(), int64_t{0});
}

std::vector<LengthHistogram::Bucket> LengthHistogram::Used() const {
  std::vector<Bucket> used;
  for (size_t b = 0; b < counts_.size(); ++b) {
    used.push_back({.min = b == 0 ? 1 : (int64_t{1} << (b - 1)) + 1,
                    .max = int64_t{1} << b,
                    .samples = counts_[b]});
  }
  while (!used.empty() && used.back().samples == 0) {
    used.pop_back();
  }
  const auto first = std::find_if(
      used.begin(), used.end(), [](const Bucket& bucket) { return bucket.samples > 0; });
  used.erase(used.begin(), first);
  return used;
}

std::vector<std::string> LengthHistogram::ToLines() const {
  const std::vector<Bucket> used = Used();
  int64_t most = 1;
  for (const Bucket& bucket : used) {
    most = std::max(most, bucket.samples);
  }
  std::vector<std::string> lines;
  for (const Bucket& bucket : used) {
    const int64_t bar = (bucket.samples * kBarCharacters + most - 1) / most;
    lines.push_back(StrCat(PadLeft(bucket.min == bucket.max ? std::to_string(bucket.max)
                                                            : StrCat(bucket.min, "-", bucket.max),
                                   15),
                           PadLeft(std::to_string(bucket.samples), 12),
                           bar > 0 ? "  " : "",
                           std::string(static_cast<size_t>(bar), '#')));
  }
  return lines;
}

Json LengthHistogram::ToJson() const {
  Json json = Json::array();
  for (const Bucket& bucket : Used()) {
    json.push_back(
        {{"min_tokens", bucket.min}, {"max_tokens", bucket.max}, {"samples", bucket.samples}});
  }
  return json;
}

}  // namespace mft::data
