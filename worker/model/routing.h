// SPDX-License-Identifier: Apache-2.0
// Which rows go to which expert: what the router chose, and the same visits grouped by expert, so
// that each expert multiplies its own rows and no others.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "common/checkpoint/model_params.h"
#include "worker/kernels/view.h"
#include "worker/model/device_buffer.h"
#include "worker/model/dropout.h"

namespace mft {

// One piece of rows at a time. What kernels read and write is where their memory is; the grouping
// is done by the CPU, for which a device is waited for: products must know how many rows they have.
// Letters: M rows, E experts, k visits of a row. Threads: one at a time. Memory is taken once, for
// the largest piece.
class Routing {
 public:
  Routing(const MoeParams& params, int64_t max_rows, const KernelTable& kernels = CpuKernels());

  // What the router writes, row by row, for `rows` rows: [M, k].
  View Weights(int64_t rows) { return MatrixView(at_.weight, rows, visits_); }
  int32_t* chosen() { return at_.chosen; }
  // Groups the visits by expert, in order of the rows.
  void Group(int64_t rows);
  // For dropout: where the rows of each visit come from; `dropout` of row `begin` on.
  void GroupDropout(const Dropout& dropout, int64_t begin);

  // Position of an expert's first visit in the grouped order.
  int64_t begin(int64_t expert) const { return begin_[static_cast<size_t>(expert)]; }
  int64_t count(int64_t expert) const { return begin(expert + 1) - begin(expert); }
  const int32_t* rows_of(int64_t expert) const { return at_.row + begin(expert); }
  const float* weights_of(int64_t expert) const { return at_.factor + begin(expert); }
  // `dropout` for an expert's rows.
  Dropout DropoutOf(const Dropout& dropout, int64_t expert) const;

  // [count] of an expert: room for weight times gradient of the weight of its visits.
  float* weighted_of(int64_t expert) { return at_.grouped_weighted + begin(expert); }
  // The same of all visits, row by row: [M, k].
  View Weighted(int64_t rows);

 private:
  // Of kernels' memory.
  struct Lists {
    float *weight, *weighted, *factor, *grouped_weighted;
    int32_t *chosen, *row, *visit, *pack_row;
    int64_t* pack;
  };
  void TakeLists(size_t visits);
  template <typename T>
  void Upload(T* to, const std::vector<T>& from, size_t count) const;

  const KernelTable& kernels_;
  const int64_t experts_;
  const int64_t visits_;
  std::vector<int32_t> chosen_;  // [M, k]
  std::vector<float> weight_;    // [M, k]
  std::vector<float> weighted_;  // [M, k]
  std::vector<int64_t> begin_;   // [E + 1]
  std::vector<int64_t> next_;    // [E]
  // [M k] in the grouped order
  std::vector<int32_t> row_;
  std::vector<int32_t> visit_;  // row k + choice
  std::vector<float> factor_;
  std::vector<float> grouped_weighted_;
  std::vector<int64_t> pack_;
  std::vector<int32_t> pack_row_;
  DeviceBuffer on_device_;
  Lists at_{};
};

}  // namespace mft
