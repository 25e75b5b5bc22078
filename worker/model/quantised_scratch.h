// SPDX-License-Identifier: Apache-2.0
// Where a block has the operands of its fp8 products: those that are in use at the same time, then
// others in the same memory. Where no weight is in fp8 there is no memory, and nothing is
// quantised.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "common/checkpoint/model_params.h"
#include "worker/kernels/kernels.h"

namespace mft {

class QuantisedScratch {
 public:
  QuantisedScratch() = default;
  QuantisedScratch(std::byte* data, int64_t bytes) : data_(data), bytes_(bytes) {}
  // Of a block's largest operands: `tile` rows at a time, its MLP `piece` rows. Dense models only.
  static int64_t Bytes(const ModelParams& params, int64_t tile, int64_t piece, bool training);

  // `rows` with memory for what they are when quantised, to be written by the kernel that writes
  // the rows. Valid until the next call. Throws std::length_error past the plan.
  Activation For(View rows) const { return For(std::array{rows})[0]; }
  template <size_t kCount>
  std::array<Activation, kCount> For(const std::array<View, kCount>& rows) const;

  // x to multiply by: as the kernel that wrote it quantised it, otherwise by a pass of its own. As
  // long valid.
  Activation Operand(const KernelTable& kernels, const Activation& x) const;

 private:
  QuantisedRows At(int64_t offset, View rows) const;

  std::byte* data_ = nullptr;
  int64_t bytes_ = 0;
};

template <size_t kCount>
std::array<Activation, kCount> QuantisedScratch::For(const std::array<View, kCount>& rows) const {
  int64_t offset = 0;
  const auto next = [&](View view) {
    const QuantisedRows place = At(offset, view);
    offset += QuantisedRowsBytes(view.rows, view.cols);
    return Activation(view, place);
  };
  return [&]<size_t... kIndex>(std::index_sequence<kIndex...>) {
    return std::array<Activation, kCount>{next(rows[kIndex])...};
  }
  (std::make_index_sequence<kCount>());
}

}  // namespace mft
