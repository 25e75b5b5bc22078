// SPDX-License-Identifier: Apache-2.0
// A Mistral or Mixtral model with explicit forward and backward passes over packed documents.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "common/checkpoint/activation_plan.h"
#include "worker/model/arena.h"
#include "worker/model/batch_memory.h"
#include "worker/model/block.h"
#include "worker/model/lora_store.h"
#include "worker/model/loss.h"
#include "worker/model/weight_source.h"

namespace mft {

// One chunk of rows: packed documents. Spans must outlive the call.
struct Rows {
  std::span<const int32_t> tokens;      // [T]
  std::span<const int32_t> targets;     // [T]
  std::span<const float> row_weight;    // [T] 0: the row carries no loss
  std::span<const int32_t> cu_seqlens;  // [segments + 1]; positions restart in each segment
  // For dropout: the pack of each segment and the row of it at which the segment begins [segments].
  std::span<const int64_t> pack = {};
  std::span<const int32_t> pack_row = {};
  int64_t step = 0;
};

struct TransformerOptions {
  RecomputePlan policy = RecomputePolicy::kBlock;
  int64_t max_rows = 0;       // largest T of any call
  int64_t max_positions = 0;  // longest segment, or conversation (generation)
  bool training = true;       // false: no memory for a backward pass
  double dropout = 0;         // of adapters' inputs, in ForwardBackward only
  uint64_t seed = 0;          // of dropout
  int64_t cache_rows = 0;     // > 0: generation; tokens of a conversation, whose keys are kept
  int64_t conversations = 1;  // at once, in generation
  ExecutionSizes sizes = kCpuSizes;
  ElementType type = ElementType::kF32;  // of activations: the kernel table's
  bool quantised_base = false;           // WeightSource::is_quantised
};

// What a Transformer will take at most, bytes; the formula of the README.
struct MemoryPlan {
  int64_t kept_activations = 0;  // slots that the policy keeps, all blocks, max_rows
  int64_t kv_cache = 0;
  int64_t work = 0;  // one tile of one block: slots that are not kept, and its scratch
  int64_t loss = 0;  // one chunk of logits and its rows; never used while a block works
  int64_t total() const { return kept_activations + kv_cache + std::max(work, loss); }
};

// Threads: one at a time. Throws std::exception on programmer errors and on what LibTorch throws.
class Transformer {
 public:
  // `weights`, `adapters` and `kernels` must outlive it, and be of one device. The arena of
  // MemoryPlan::total() is reserved here.
  Transformer(WeightSource& weights,
              const LoraStore& adapters,
              const KernelTable& kernels,
              const TransformerOptions& options);

  // Returns the sum of row_weight * cross entropy (fp64) and adds its gradient to the adapters'
  // gradient arena.
  double ForwardBackward(const Rows& rows);
  // The same, but the sum is added to what TakeLoss returns: nothing waits for the device.
  void AddForwardBackward(const Rows& rows);
  // The sum over rows of row_weight * cross entropy, forward only. REQUIRES: the losses of
  // AddForwardBackward were taken.
  double Loss(const Rows& rows);
  // Of all AddForwardBackward since the last call.
  double TakeLoss();
  // Every row's logits [T, V], for tests and comparisons; `out` holds T * V floats.
  void AllLogits(std::span<const int32_t> tokens,
                 std::span<const int32_t> cu_seqlens,
                 std::span<float> out);

  // Generation: appends each turn's tokens to its conversation in the cache and writes the logits
  // of each one's last token [turns, V]. Weights are read once for all of them; what a conversation
  // gets depends on the others by rounding at most. On the CPU only. REQUIRES: no conversation
  // twice.
  // std::length_error past cache_rows of one, or max_rows of all.
  struct Turn {
    int64_t conversation = 0;  // below TransformerOptions::conversations
    std::span<const int32_t> tokens;
  };
  void Extend(std::span<const Turn> turns, std::span<float> logits);
  void ResetCache(int64_t conversation) { CacheOf(conversation) = 0; }

  // How many rows went to each expert in ForwardBackward's forward passes since ResetRouting
  // [layers, experts]; empty for dense models.
  std::span<const int64_t> expert_rows() const { return expert_rows_; }
  void ResetRouting() { std::fill(expert_rows_.begin(), expert_rows_.end(), 0); }

  // The input of block i in the last Loss or AllLogits, i = n_layers being the final residual
  // stream. [T, D]; every policy keeps these. For tests.
  View Hidden(int64_t i) const { return inputs_[static_cast<size_t>(i)]; }

  const MemoryPlan& plan() const { return plan_; }
  static MemoryPlan PlanMemory(const ModelParams& params,
                               const LoraColumns& inner,
                               const TransformerOptions& options);

 private:
  struct LossLists {
    std::vector<int32_t> index, target;
    std::vector<float> weight;
    LossRows rows() const { return {index, target, weight}; }
  };
  // Whole segments of a chunk that a block works on at a time (activation_plan.h).
  struct Tile {
    int64_t begin = 0;
    int64_t rows = 0;
    std::vector<int32_t> cu_seqlens;  // from 0
    const int32_t* kernel_cu_seqlens = nullptr;
  };
  static constexpr int64_t kRowMultiple = 16;
  // What Padded returns spans of.
  struct PaddedRows {
    std::vector<int32_t> tokens, targets, cu_seqlens, pack_row;
    std::vector<float> row_weight;
    std::vector<int64_t> pack;
  };
  static size_t ListBytes(const TransformerOptions& options);
  static TransformerOptions Fitted(TransformerOptions options,
                                   const KernelTable& kernels,
                                   const WeightSource& weights);
  static RecomputePlan PolicyOf(const TransformerOptions& options);
  void TakeMemory();
  void TakeTables();
  void TakeWorkMemory();
  void TakeExpertMemory(int64_t rows);
  Saved SavedOf(int64_t block, const Tile& tile) const;
  BlockScratch ScratchOf(int64_t rows) const;
  BlockContext ContextOf(const Tile& tile, int64_t layer);
  int64_t& CacheOf(int64_t conversation) { return cache_used_[static_cast<size_t>(conversation)]; }
  Tile TileOf(std::span<const Turn> turns);
  std::vector<CachedTurn> CachedTurns(std::span<const Turn> turns,
                                      const Tile& tile,
                                      int64_t layer) const;
  std::span<int64_t> ExpertRowsOf(int64_t layer);
  void SetPositions(std::span<const int32_t> cu_seqlens);
  void SetTiles(std::span<const int32_t> cu_seqlens);
  void SetDropout(const Rows& rows);
  void Forward(std::span<const int32_t> tokens, std::span<const int32_t> cu_seqlens);
  void Backward();
  Activation Gradient() const;
  LossLists CollectLossRows(const Rows& rows) const;
  LossRows PutLossRows(const LossLists& lists);
  void RequireProcessMemory() const;
  // `rows`, on a device with rows of a segment without loss added, so that products have sides of
  // kRowMultiple; in padded_.
  Rows Padded(const Rows& rows);

  WeightSource& weights_;
  const LoraStore& adapters_;
  const KernelTable& kernels_;
  const ModelParams params_;
  const TransformerOptions options_;
  const MemoryPlan plan_;
  Arena arena_;
  BatchMemory batch_;
  std::vector<float> rotary_table_;
  DeviceBuffer device_tables_;            // on a device: the rotary table, and sums_
  const float* kernel_rotary_ = nullptr;  // rotary_table_ where kernels read it
  std::vector<int32_t> position_;
  const int32_t* kernel_position_ = nullptr;
  const int32_t* kernel_tokens_ = nullptr;  // of the chunk at work
  // Of the losses: what the call at work adds up, and all since TakeLoss.
  struct Sums {
    double call = 0;
    double total = 0;
  };
  Sums sums_;
  Sums* kernel_sums_ = &sums_;
  PaddedRows padded_;
  std::vector<Tile> tiles_;           // of the chunk at work
  Dropout dropout_;                   // of the chunk at work; probability 0 in forward passes alone
  std::vector<int64_t> row_pack_;     // [max_rows] what dropout_ points to
  std::vector<int32_t> row_in_pack_;  // [max_rows]

  std::unique_ptr<Routing> routing_;  // of a mixture of experts
  std::vector<int64_t> expert_rows_;  // [layers, experts]
  bool counts_routing_ = false;       // while ForwardBackward runs forward

  // [layers]; kept slots have max_rows, the others are one tile's, shared by all layers.
  std::vector<Saved> saved_;
  std::vector<View> inputs_;  // [layers + 1]
  BlockScratch scratch_;
  std::byte* quantised_gradient_ = nullptr;  // of the residual stream, where the base is in fp8
  LossScratch loss_;
  std::vector<View> cache_keys_, cache_values_;  // [layers] of [conversations x cache_rows, K E]
  std::vector<int64_t> cache_used_;              // [conversations] rows
};

}  // namespace mft
