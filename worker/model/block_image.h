// SPDX-License-Identifier: Apache-2.0
// A block's weights in one piece of memory, the way kernels read them: each tensor begins at a
// cache line; fp32 and bf16 matrices have the bytes of the file, rows in Mistral's order; vectors
// and fp16 matrices are fp32.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "common/checkpoint/model_weights.h"
#include "worker/model/weight_source.h"

namespace mft {

// Where everything of every block is. Threads: const calls are safe from any thread.
class BlockImages {
 public:
  explicit BlockImages(const ModelWeights& files);  // which must outlive the object

  const ModelParams& params() const { return files_.params(); }
  int64_t bytes(int64_t block) const { return layouts_[static_cast<size_t>(block)].bytes; }
  int64_t largest_bytes() const;
  int64_t total_bytes() const;

  // Writes bytes [begin, end) of `image`, which has bytes(block) of them, and reads only what of
  // the files they come from; pages of it may stay in memory. REQUIRES: both are multiples of 64.
  void Write(int64_t block, size_t begin, size_t end, std::span<std::byte> image) const;
  // The pages of the files that a block comes from are not needed now.
  void DropFilePages(int64_t block) const;
  // The block's weights where `image` has them.
  BlockWeights WeightsIn(int64_t block, std::span<std::byte> image) const;

 private:
  struct Piece {
    const TensorEntry* tensor = nullptr;
    size_t begin = 0;
    size_t size = 0;  // bytes
    bool widened = false;
  };
  struct Layout {
    std::vector<Piece> pieces;  // in FillBlock's order
    int64_t bytes = 0;
  };
  Layout LayoutOf(int64_t block) const;
  void WritePiece(const Piece& piece, size_t begin, std::span<std::byte> to) const;

  const ModelWeights& files_;
  std::vector<Layout> layouts_;
};

}  // namespace mft
