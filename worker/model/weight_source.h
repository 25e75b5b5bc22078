// SPDX-License-Identifier: Apache-2.0
// Frozen weights: where they are and in which format is the source's business. Layers see matrices
// that they can multiply by.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "common/checkpoint/model_params.h"
#include "common/checkpoint/model_weights.h"
#include "common/checkpoint/safetensors.h"
#include "worker/kernels/kernels.h"
#include "worker/model/weight_grads.h"

namespace mft {

class Communicator;

enum class WeightFormat { kF32, kBF16, kF8 };

// A frozen matrix [out, in]. Only MatMul and MatMulT look inside.
struct FrozenMat {
  View data;  // [out, in]
  WeightFormat format = WeightFormat::kF32;
  int64_t out = 0;
  int64_t in = 0;
  View scales = {};  // kF8: QuantisedMat::scales
  // Outputs [begin, begin + count) alone. REQUIRES another format than kF8.
  FrozenMat Rows(int64_t begin, int64_t count) const {
    return {data.Rows(begin, count), format, count, in};
  }
};

// y [T, out] = x W' + beta y. A weight in fp8 multiplies x.quantised, which must be an operand.
void MatMul(
    const KernelTable& kernels, View y, const Activation& x, const FrozenMat& w, float beta);
// dx [T, in] = dy W + beta dx
void MatMulT(
    const KernelTable& kernels, View dx, const Activation& dy, const FrozenMat& w, float beta);

struct ExpertWeights {
  FrozenMat w1, w2, w3;
};

struct BlockWeights {
  FrozenMat wq, wk, wv, wo;
  FrozenMat w1, w2, w3;                   // of a dense model
  FrozenMat router;                       // [experts, D], and
  std::vector<ExpertWeights> experts;     // of a mixture of experts
  const float* attention_norm = nullptr;  // [D] fp32
  const float* ffn_norm = nullptr;        // [D] fp32
  const BlockGrads* grads = nullptr;      // not null: the block is trained itself
};

struct HeadWeights {
  FrozenMat embeddings;         // [V, D], rows are gathered
  FrozenMat output;             // [V, D]
  const float* norm = nullptr;  // [D] fp32
  const HeadGrads* grads = nullptr;
};

enum class Phase { kForward, kBackward };

// A block's weights for as long as the lease lives. Move-only, so that a source that loads on
// demand knows when it may evict.
class BlockLease {
 public:
  explicit BlockLease(const BlockWeights* weights) : weights_(weights) {}
  BlockLease(BlockLease&& other) noexcept = default;
  BlockLease& operator=(BlockLease&& other) noexcept = default;
  BlockLease(const BlockLease&) = delete;
  BlockLease& operator=(const BlockLease&) = delete;
  ~BlockLease() = default;
  const BlockWeights& operator*() const { return *weights_; }
  const BlockWeights* operator->() const { return weights_; }

 private:
  const BlockWeights* weights_;
};

// Threads: one at a time.
class WeightSource {
 public:
  virtual ~WeightSource() = default;
  virtual const ModelParams& params() const = 0;
  virtual BlockLease Acquire(int64_t block, Phase phase) = 0;
  virtual const HeadWeights& head() const = 0;
  virtual int64_t resident_bytes() const = 0;
  // Whether the projections of blocks are in fp8.
  virtual bool is_quantised() const { return false; }
};

// Whether the resident source uses a tensor where the mapped file has it; others are copied as
// fp32.
bool UsedWhereMapped(const TensorEntry& tensor);

// All weights in memory: matrices are used where the mapped file has them, bf16 ones too, which
// are widened as they are multiplied by; a page of the file takes memory once it was read. Vectors,
// and what the file has at odd places, in fp16 or in other rows, are copied.
std::unique_ptr<WeightSource> MakeResidentWeights(std::shared_ptr<const ModelWeights> files);
// The same of a directory. Errors as ReadModelParams and ModelWeights::Open.
Result<std::unique_ptr<WeightSource>> LoadResidentWeights(const std::string& model_dir);

// For a model larger than memory: two blocks and the head are in memory, the next block is read
// while one is worked with. The same bits. One lease at a time.
std::unique_ptr<WeightSource> MakeOffloadedWeights(std::shared_ptr<const ModelWeights> files);
// Of each of the two, and of those below.
int64_t BlockBufferBytes(const ModelWeights& files);

// For a model larger than a rank's memory: every rank has its part of each block, two whole blocks
// and the head; the next block is gathered while one is worked with, on comm.background(). The same
// bits. One lease at a time. `comm` must outlive the source, and nobody else uses its background.
// Every rank makes the same calls of Acquire in the same order (see PassOverBlocks); a lost rank is
// a StatusError (RANK_LOST) of the next one that needs it.
std::unique_ptr<WeightSource> MakeShardedWeights(std::shared_ptr<const ModelWeights> files,
                                                 Communicator& comm);

// The calls of Acquire of a forward pass, and a backward one, without their work: what a rank that
// has fewer chunks than another, or one without a loss row, owes a sharded source while the others
// pass. Which block is gathered follows from those calls alone, never from how long anything took.
void PassOverBlocks(WeightSource& weights, bool backward);

}  // namespace mft
