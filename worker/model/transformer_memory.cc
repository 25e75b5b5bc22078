// SPDX-License-Identifier: Apache-2.0
// What a Transformer keeps, and where: the one place that turns the recompute policy into memory.
#include "worker/model/transformer.h"

namespace mft {

namespace {
struct SlotShape {
  ActivationSlot slot;
  View Saved::*member;
  int64_t cols;
};

std::vector<SlotShape> Slots(const ModelParams& p, int64_t inner_cols) {
  const int64_t q = p.n_heads * p.head_dim;
  const int64_t kv = p.n_kv_heads * p.head_dim;
  return {{ActivationSlot::kInput, &Saved::input, p.dim},
          {ActivationSlot::kQ, &Saved::q, q},
          {ActivationSlot::kK, &Saved::k, kv},
          {ActivationSlot::kV, &Saved::v, kv},
          {ActivationSlot::kAttention, &Saved::attention, q},
          {ActivationSlot::kLse, &Saved::lse, p.n_heads},
          {ActivationSlot::kResidual, &Saved::residual, p.dim},
          {ActivationSlot::kGate, &Saved::gate, p.hidden_dim},
          {ActivationSlot::kUp, &Saved::up, p.hidden_dim},
          {ActivationSlot::kLoraInner, &Saved::lora_inner, inner_cols}};
}

struct ScratchShape {
  View BlockScratch::*member;
  int64_t cols;
  bool backward;  // needed by the backward pass only
};

std::vector<ScratchShape> ScratchShapes(const ModelParams& p, int64_t inner_cols) {
  const int64_t q = p.n_heads * p.head_dim;
  const int64_t kv = p.n_kv_heads * p.head_dim;
  return {{&BlockScratch::norm, p.dim, false},
          {&BlockScratch::act, p.hidden_dim, false},
          {&BlockScratch::d_norm, p.dim, true},
          {&BlockScratch::dq, q, true},
          {&BlockScratch::dk, kv, true},
          {&BlockScratch::dv, kv, true},
          {&BlockScratch::d_attention, q, true},
          {&BlockScratch::d_inner, inner_cols, true}};
}

// Without a backward pass nothing has to be kept: all blocks share everything, inputs too.
RecomputePolicy PolicyOf(const TransformerOptions& options) {
  return options.training ? options.policy : RecomputePolicy::kBlock;
}

int64_t Bytes(int64_t rows, int64_t cols) {
  return static_cast<int64_t>(Arena::Bytes(rows, cols));
}

int64_t HeadRows(const ModelParams& params, const TransformerOptions& options) {
  return options.training || options.cache_rows == 0 ? LossChunkRows(params.vocab_size) : 1;
}
}  // namespace

MemoryPlan Transformer::PlanMemory(const ModelParams& params,
                                   const LoraStore& adapters,
                                   const TransformerOptions& options) {
  MemoryPlan plan;
  const int64_t t = options.max_rows;
  for (const SlotShape& slot : Slots(params, adapters.inner_cols())) {
    const int64_t bytes = Bytes(t, slot.cols);
    if (Keeps(PolicyOf(options), slot.slot)) {
      plan.kept_activations += params.n_layers * bytes;
    } else {
      plan.recomputed += bytes;
    }
  }
  plan.kept_activations += Bytes(t, params.dim);  // the final residual stream
  for (const ScratchShape& shape : ScratchShapes(params, adapters.inner_cols())) {
    plan.scratch += options.training || !shape.backward ? Bytes(t, shape.cols) : 0;
  }
  plan.scratch += options.training ? Bytes(t, params.dim) : 0;
  const int64_t chunk = HeadRows(params, options);
  plan.loss = 3 * Bytes(chunk, params.dim) + Bytes(chunk, params.vocab_size);
  plan.kv_cache =
      options.cache_rows > 0
          ? 2 * params.n_layers * Bytes(options.cache_rows, params.n_kv_heads * params.head_dim)
          : 0;
  return plan;
}

void Transformer::TakeMemory() {
  const int64_t t = options_.max_rows;
  saved_.resize(static_cast<size_t>(params_.n_layers));
  for (const SlotShape& slot : Slots(params_, adapters_.inner_cols())) {
    const bool keep = Keeps(PolicyOf(options_), slot.slot);
    const View shared = keep ? View{} : arena_.Take(t, slot.cols);
    for (Saved& saved : saved_) {
      saved.*slot.member = keep ? arena_.Take(t, slot.cols) : shared;
    }
  }
  for (const Saved& saved : saved_) {
    inputs_.push_back(saved.input);
  }
  inputs_.push_back(arena_.Take(t, params_.dim));
  for (const ScratchShape& shape : ScratchShapes(params_, adapters_.inner_cols())) {
    if (options_.training || !shape.backward) {
      scratch_.*shape.member = arena_.Take(t, shape.cols);
    }
  }
  if (options_.training) {
    d_residual_ = arena_.Take(t, params_.dim);
  }
  const int64_t chunk = HeadRows(params_, options_);
  loss_hidden_ = arena_.Take(chunk, params_.dim);
  loss_norm_ = arena_.Take(chunk, params_.dim);
  loss_d_hidden_ = arena_.Take(chunk, params_.dim);
  logits_ = arena_.Take(chunk, params_.vocab_size);
  if (options_.cache_rows > 0) {
    for (int64_t layer = 0; layer < params_.n_layers; ++layer) {
      cache_keys_.push_back(
          arena_.Take(options_.cache_rows, params_.n_kv_heads * params_.head_dim));
      cache_values_.push_back(
          arena_.Take(options_.cache_rows, params_.n_kv_heads * params_.head_dim));
    }
  }
}

}  // namespace mft
