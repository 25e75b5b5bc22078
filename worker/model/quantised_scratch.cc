// SPDX-License-Identifier: Apache-2.0
#include "worker/model/quantised_scratch.h"

#include <algorithm>
#include <stdexcept>

#include "common/base/strings.h"

namespace mft {

int64_t QuantisedScratch::Bytes(const ModelParams& params,
                                int64_t tile,
                                int64_t piece,
                                bool training) {
  const int64_t q = params.n_heads * params.head_dim;
  const int64_t kv = params.n_kv_heads * params.head_dim;
  const auto bytes = [](int64_t rows, int64_t cols) { return QuantisedRowsBytes(rows, cols); };
  // The norm, what attention gives, silu(gate) * up.
  const int64_t forward =
      std::max({bytes(tile, params.dim), bytes(tile, q), bytes(piece, params.hidden_dim)});
  // Gradients of gate and up, of q, k and v.
  const int64_t backward =
      std::max(2 * bytes(piece, params.hidden_dim), bytes(tile, q) + 2 * bytes(tile, kv));
  return training ? std::max(forward, backward) : forward;
}

QuantisedRows QuantisedScratch::At(int64_t offset, View rows) const {
  if (data_ == nullptr) {
    return {};
  }
  if (offset + QuantisedRowsBytes(rows.rows, rows.cols) > bytes_) {
    throw std::length_error(StrCat("quantised operands up to ",
                                   rows.rows,
                                   " x ",
                                   rows.cols,
                                   " elements, planned were ",
                                   bytes_,
                                   " bytes"));
  }
  return QuantisedRowsAt(data_ + offset, rows.rows, rows.cols);
}

Activation QuantisedScratch::Operand(const KernelTable& kernels, const Activation& x) const {
  if (data_ == nullptr || x.quantised.is_operand()) {
    return x;
  }
  const Activation operand = For(x.view);
  kernels.quantise_rows(operand);
  return operand;
}

}  // namespace mft
