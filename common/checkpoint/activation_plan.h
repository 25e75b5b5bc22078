// SPDX-License-Identifier: Apache-2.0
// What the forward pass of a block may keep for its backward pass, in bytes per token: the one
// table that the worker's memory plan, the daemon's estimate and the README share (numerics.md,
// "Memory and weights").
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/checkpoint/model_params.h"

namespace mft {

// Outputs of norms and of SiLU(gate) * up are never kept: both are cheap to compute again.
enum class ActivationSlot {
  kInput,
  kQ,
  kK,
  kV,
  kAttention,
  kLse,
  kResidual,
  kGate,
  kUp,
  kLoraInner
};

// The backward pass computes again what its policy does not keep.
enum class RecomputePolicy {
  kNothing,  // `checkpoint: false`: every slot is kept
  kMlp,      // gate and up are computed again from the residual
  kBlock,    // `checkpoint: true`: only the block's input is kept, as in mistral-finetune
};

// The policy of each block: the first `num_more` recompute one step more than the others. Which
// ones they are changes no bit of the result, and the peak not either: it is where the forward pass
// ends.
struct RecomputePlan {
  RecomputePolicy policy = RecomputePolicy::kBlock;
  int64_t num_more = 0;  // 0 with kBlock

  constexpr RecomputePlan() = default;
  // NOLINTNEXTLINE(google-explicit-constructor): the same policy for every block
  constexpr RecomputePlan(RecomputePolicy all) : policy(all) {}
  constexpr RecomputePlan(RecomputePolicy least, int64_t more) : policy(least), num_more(more) {}

  constexpr RecomputePolicy Of(int64_t block) const { return block < num_more ? Next() : policy; }
  constexpr RecomputePolicy Most() const { return Of(0); }
  constexpr bool operator==(const RecomputePlan&) const = default;

 private:
  constexpr RecomputePolicy Next() const {
    return policy == RecomputePolicy::kNothing ? RecomputePolicy::kMlp : RecomputePolicy::kBlock;
  }
};

// Of a parameter that is trained: fp32 master, gradient and two moments.
inline constexpr int64_t kTrainedStateBytes = 4 * 4;

// Elements per token as multiples of the model's sizes.
struct ActivationShape {
  ActivationSlot slot;
  std::string_view name;
  int dim = 0;         // D
  int q_dim = 0;       // n_heads * head_dim
  int kv_dim = 0;      // n_kv_heads * head_dim
  int heads = 0;       // n_heads
  int hidden = 0;      // hidden_dim, of each expert that a token visits
  int lora_inner = 0;  // x A of each adapted projection: rank
  bool fp32 = false;   // in every precision; the others have the compute dtype
};

inline constexpr std::array kActivationShapes = {
    ActivationShape{.slot = ActivationSlot::kInput, .name = "input", .dim = 1},
    ActivationShape{.slot = ActivationSlot::kQ, .name = "q", .q_dim = 1},
    ActivationShape{.slot = ActivationSlot::kK, .name = "k", .kv_dim = 1},
    ActivationShape{.slot = ActivationSlot::kV, .name = "v", .kv_dim = 1},
    ActivationShape{.slot = ActivationSlot::kAttention, .name = "attention", .q_dim = 1},
    ActivationShape{.slot = ActivationSlot::kLse, .name = "lse", .heads = 1, .fp32 = true},
    ActivationShape{.slot = ActivationSlot::kResidual, .name = "residual", .dim = 1},
    ActivationShape{.slot = ActivationSlot::kGate, .name = "gate", .hidden = 1},
    ActivationShape{.slot = ActivationSlot::kUp, .name = "up", .hidden = 1},
    ActivationShape{.slot = ActivationSlot::kLoraInner, .name = "lora_inner", .lora_inner = 1},
};

constexpr bool Keeps(RecomputePolicy policy, ActivationSlot slot) {
  switch (policy) {
    case RecomputePolicy::kNothing:
      return true;
    case RecomputePolicy::kMlp:
      return slot != ActivationSlot::kGate && slot != ActivationSlot::kUp;
    case RecomputePolicy::kBlock:
      return slot == ActivationSlot::kInput;
  }
  return true;
}

constexpr int64_t ExpertsPerToken(const ModelParams& params) {
  return params.moe.has_value() ? params.moe->num_experts_per_tok : 1;
}

// Columns of all x A of one block: the rank once for each adapted projection.
struct LoraColumns {
  int64_t per_row = 0;     // of the projections that every row goes through
  int64_t per_expert = 0;  // of one expert's
  constexpr int64_t PerToken(const ModelParams& params) const {
    return per_row + per_expert * ExpertsPerToken(params);
  }
};

inline LoraColumns LoraInnerColumns(const ModelParams& params,
                                    int64_t rank,
                                    const std::vector<std::string>& modules) {
  LoraColumns columns;
  for (const std::string& module : modules) {
    (params.moe && IsFeedForward(module) ? columns.per_expert : columns.per_row) += rank;
  }
  return columns;
}

// Bytes of one slot of one block for one token. `element_bytes`: 4 for fp32, 2 for bf16.
constexpr int64_t SlotBytesPerToken(const ActivationShape& shape,
                                    const ModelParams& params,
                                    const LoraColumns& lora,
                                    int64_t element_bytes) {
  const int64_t elements = shape.dim * params.dim + shape.q_dim * params.n_heads * params.head_dim +
                           shape.kv_dim * params.n_kv_heads * params.head_dim +
                           shape.heads * params.n_heads +
                           shape.hidden * params.hidden_dim * ExpertsPerToken(params) +
                           shape.lora_inner * lora.PerToken(params);
  return elements * (shape.fp32 ? 4 : element_bytes);
}

// Of one block; times n_layers for what the forward pass of a model keeps.
constexpr int64_t KeptBytesPerToken(RecomputePolicy policy,
                                    const ModelParams& params,
                                    const LoraColumns& lora,
                                    int64_t element_bytes) {
  int64_t bytes = 0;
  for (const ActivationShape& shape : kActivationShapes) {
    bytes += Keeps(policy, shape.slot) ? SlotBytesPerToken(shape, params, lora, element_bytes) : 0;
  }
  return bytes;
}

// Execution sizes (numerics.md, "Execution size is the planner's"): packed documents are
// independent, so a microbatch is computed in chunks of T rows, cut at the documents' ends, and a
// block works on one tile of a chunk at a time. What is kept grows with the chunk, what a block
// works with grows with the tile only. Both are long enough for full speed of the CPU's matrix
// products.
inline constexpr int64_t kTargetChunkRows = 2048;
inline constexpr int64_t kTargetTileRows = 512;

// The head works on a chunk of the rows that carry loss and a block of the vocabulary at a time: a
// block of the output matrix, of kHeadBlockElements where it can, and its logits stay near.
inline constexpr int64_t kHeadRows = 512;
inline constexpr int64_t kHeadBlockElements = int64_t{2} << 20;
struct ExecutionSizes {
  int64_t chunk_rows = kTargetChunkRows;
  int64_t tile_rows = kTargetTileRows;
  int64_t mlp_rows = kTargetTileRows;  // of a tile that its MLP works on at a time
  int64_t head_rows = kHeadRows;
  bool whole_vocabulary = false;  // a block of the head's is all of it
  bool operator==(const ExecutionSizes&) const = default;
};
inline constexpr ExecutionSizes kCpuSizes;
// A GPU is filled by long matrices, and has no cache that a tile would stay in: a chunk is worked
// on as one, of at most `chunk_rows` where documents allow.
constexpr ExecutionSizes GpuSizes(int64_t chunk_rows) {
  return {chunk_rows, chunk_rows, chunk_rows, std::min<int64_t>(chunk_rows, 2048), true};
}
inline constexpr std::array kGpuChunkRows = {16'384, 8'192, 4'096, 2'048};

// T: no chunk is larger. `longest_segment`: rows of the longest document of the job, at most
// seq_len; it is never cut.
constexpr int64_t ChunkRows(int64_t microbatch_rows,
                            int64_t longest_segment,
                            const ExecutionSizes& sizes = kCpuSizes) {
  return std::max(longest_segment, std::min(microbatch_rows, sizes.chunk_rows));
}
constexpr int64_t TileRows(int64_t chunk_rows,
                           int64_t longest_segment,
                           const ExecutionSizes& sizes = kCpuSizes) {
  return std::min(chunk_rows, std::max(longest_segment, sizes.tile_rows));
}
constexpr int64_t MlpRows(int64_t tile_rows, const ExecutionSizes& sizes = kCpuSizes) {
  return std::min(tile_rows, sizes.mlp_rows);
}
constexpr int64_t HeadColumns(const ModelParams& params, const ExecutionSizes& sizes = kCpuSizes) {
  const int64_t block =
      std::clamp(kHeadBlockElements / params.dim / 32 * 32, int64_t{512}, int64_t{4096});
  return sizes.whole_vocabulary ? params.vocab_size : std::min(params.vocab_size, block);
}

constexpr bool IsMlpSlot(ActivationSlot slot) {
  return slot == ActivationSlot::kGate || slot == ActivationSlot::kUp;
}

// What the one tile at work takes beside what is kept: slots that are not kept, gradients of q, k,
// v, attention and x A, and SiLU(gate) * up. Norms share memory with the gradient of q, the
// residual and norms of the backward pass with the gradient of attention: none is used while the
// other is. Experts work one after the other, each at most on all rows of a piece: one expert's
// rows, x A and its gradient, beside the router's logits.
constexpr int64_t WorkBytes(RecomputePolicy policy,
                            const ModelParams& params,
                            const LoraColumns& lora,
                            int64_t element_bytes,
                            int64_t tile_rows,
                            const ExecutionSizes& sizes = kCpuSizes) {
  const int64_t wide = std::max(params.dim, params.n_heads * params.head_dim);
  const int64_t kv = params.n_kv_heads * params.head_dim;
  int64_t tile = (2 * wide + 2 * kv + lora.per_row) * element_bytes;
  int64_t mlp = params.hidden_dim * element_bytes;
  if (params.moe.has_value()) {
    mlp += (params.dim + lora.per_expert) * element_bytes +
           params.moe->num_experts * static_cast<int64_t>(sizeof(float));
  }
  for (const ActivationShape& shape : kActivationShapes) {
    if (Keeps(policy, shape.slot) || shape.slot == ActivationSlot::kResidual) {
      continue;
    }
    if (IsMlpSlot(shape.slot)) {
      mlp += params.hidden_dim * element_bytes;
    } else if (shape.slot == ActivationSlot::kLoraInner) {
      tile += lora.per_row * element_bytes;
      mlp += lora.per_expert * element_bytes;
    } else {
      tile += SlotBytesPerToken(shape, params, lora, element_bytes);
    }
  }
  return tile_rows * tile + MlpRows(tile_rows, sizes) * mlp;
}

}  // namespace mft
