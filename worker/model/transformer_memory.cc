// SPDX-License-Identifier: Apache-2.0
// What a Transformer keeps, and where: the one place that turns the recompute policy into memory.
#include <algorithm>

#include "worker/model/transformer.h"

namespace mft {

namespace {
struct SlotShape {
  ActivationSlot slot;
  View Saved::*member;
  int64_t cols;
  int64_t visits = 1;  // rows for each row of the chunk, where kept
};

// Views of the memory that blocks share: each may be rounded up to the arena's alignment.
constexpr int64_t kMaxWorkViews = 20;

// Rows of an adapter's input that are dropped at a time: few stay in the CPU's cache, a GPU wants
// many.
int64_t DropoutRows(const TransformerOptions& options) {
  constexpr int64_t kPartOfTile = 4;
  return options.sizes.tile_rows / kPartOfTile;
}

int64_t WidestInput(const ModelParams& p) {
  return std::max({p.dim, p.n_heads * p.head_dim, p.hidden_dim});
}

std::vector<SlotShape> Slots(const ModelParams& p, const LoraColumns& inner) {
  const int64_t visits = ExpertsPerToken(p);
  const int64_t q = p.n_heads * p.head_dim;
  const int64_t kv = p.n_kv_heads * p.head_dim;
  return {{ActivationSlot::kInput, &Saved::input, p.dim},
          {ActivationSlot::kQ, &Saved::q, q},
          {ActivationSlot::kK, &Saved::k, kv},
          {ActivationSlot::kV, &Saved::v, kv},
          {ActivationSlot::kAttention, &Saved::attention, q},
          {ActivationSlot::kLse, &Saved::lse, p.n_heads},
          {ActivationSlot::kResidual, &Saved::residual, p.dim},
          {ActivationSlot::kGate, &Saved::gate, p.hidden_dim, visits},
          {ActivationSlot::kUp, &Saved::up, p.hidden_dim, visits},
          {ActivationSlot::kLoraInner, &Saved::lora_inner, inner.per_row},
          {ActivationSlot::kLoraInner, &Saved::expert_inner, inner.per_expert, visits}};
}

// Of one tile: an MLP's slots are of the piece at work.
bool IsOfPiece(const SlotShape& slot) {
  return IsMlpSlot(slot.slot) || slot.member == &Saved::expert_inner;
}

int64_t Bytes(int64_t rows, int64_t cols, ElementType type = ElementType::kF32) {
  return static_cast<int64_t>(Arena::Bytes(rows, cols, type));
}

// Of a slot where activations have `type`.
ElementType TypeOf(const SlotShape& slot, ElementType type) {
  return slot.slot == ActivationSlot::kLse ? ElementType::kF32 : type;
}

int64_t HeadRowsOf(const TransformerOptions& options) {
  return options.training || options.cache_rows == 0
             ? std::min(options.sizes.head_rows, options.max_rows)
             : options.conversations;
}

// A SoftmaxState for each row.
constexpr int64_t kStateFloats = sizeof(SoftmaxState) / sizeof(float);

// A conversation's tokens are at most max_rows a call, whatever their positions.
int64_t TileRowsOf(const TransformerOptions& options) {
  return TileRows(options.max_rows, options.max_positions, options.sizes);
}

int64_t BlocksThatKeep(const RecomputePlan& plan, ActivationSlot slot, int64_t blocks) {
  int64_t keeping = 0;
  for (int64_t block = 0; block < blocks; ++block) {
    keeping += Keeps(plan.Of(block), slot) ? 1 : 0;
  }
  return keeping;
}

// Generation keeps no inputs: a block's output takes the place of its input.
bool KeepsInputs(const TransformerOptions& options) {
  return options.cache_rows == 0;
}

// Operands of fp8 products: a block's, and the gradient of the residual stream of all rows.
struct QuantisedBytes {
  int64_t operands = 0;
  int64_t gradient = 0;
};
QuantisedBytes QuantisedBytesOf(const ModelParams& params, const TransformerOptions& options) {
  if (!options.quantised_base) {
    return {};
  }
  const int64_t tile = TileRowsOf(options);
  const int64_t piece = MlpRows(tile, options.sizes);
  return {QuantisedScratch::Bytes(params, tile, piece, options.training),
          options.training ? QuantisedRowsBytes(options.max_rows, params.dim) : 0};
}
}  // namespace

// Products on a device have sides of kRowMultiple: no tile and no piece may end in between.
TransformerOptions Transformer::Fitted(TransformerOptions options,
                                       const KernelTable& kernels,
                                       const WeightSource& weights) {
  options.type = kernels.type;
  options.quantised_base = weights.is_quantised();
  if (kernels.memory != nullptr) {
    for (int64_t* size : {&options.max_rows,
                          &options.max_positions,
                          &options.sizes.tile_rows,
                          &options.sizes.mlp_rows}) {
      *size = (*size + kRowMultiple - 1) / kRowMultiple * kRowMultiple;
    }
  }
  return options;
}

RecomputePlan Transformer::PolicyOf(const TransformerOptions& options) {
  return options.training ? options.policy : RecomputePolicy::kBlock;
}

MemoryPlan Transformer::PlanMemory(const ModelParams& params,
                                   const LoraColumns& inner,
                                   const TransformerOptions& options) {
  MemoryPlan plan;
  const int64_t t = options.max_rows;
  for (const SlotShape& slot : Slots(params, inner)) {
    if (slot.slot == ActivationSlot::kInput) {
      plan.kept_activations +=
          (KeepsInputs(options) ? params.n_layers : 0) * Bytes(t, slot.cols, options.type);
    } else {
      plan.kept_activations += BlocksThatKeep(PolicyOf(options), slot.slot, params.n_layers) *
                               Bytes(t * slot.visits, slot.cols, TypeOf(slot, options.type));
    }
  }
  plan.kept_activations +=
      Bytes(t, params.dim, options.type);  // the final residual stream, then its gradient
  const int64_t cache = Bytes(options.conversations * options.cache_rows,
                              params.n_kv_heads * params.head_dim,
                              options.type) *
                        params.n_layers * 2;
  plan.kv_cache = options.cache_rows > 0 ? cache : 0;
  const int64_t chunk = HeadRowsOf(options);
  plan.loss = 3 * Bytes(chunk, params.dim, options.type) +
              Bytes(chunk, HeadColumns(params, options.sizes), options.type) +
              Bytes(chunk, kStateFloats) + Bytes(2, chunk);
  plan.work = WorkBytes(PolicyOf(options).Most(),
                        params,
                        inner,
                        ElementBytes(options.type),
                        TileRowsOf(options),
                        options.sizes) +
              kMaxWorkViews * static_cast<int64_t>(Arena::kAlignment);
  plan.work +=
      options.dropout > 0 ? Bytes(DropoutRows(options), WidestInput(params), options.type) : 0;
  const QuantisedBytes quantised = QuantisedBytesOf(params, options);
  plan.work += quantised.operands + quantised.gradient;
  return plan;
}

void Transformer::TakeMemory() {
  const int64_t t = options_.max_rows;
  const RecomputePlan policy = PolicyOf(options_);
  const auto take = [this](int64_t rows, int64_t cols) {
    return arena_.Take(rows, cols, options_.type);
  };
  saved_.resize(static_cast<size_t>(params_.n_layers));
  inputs_.resize(saved_.size() + 1);
  const View stream = KeepsInputs(options_) ? View{} : take(t, params_.dim);
  for (View& input : inputs_) {
    input = KeepsInputs(options_) ? take(t, params_.dim) : stream;
  }
  for (const SlotShape& slot : Slots(params_, adapters_.inner_cols())) {
    const bool is_input = slot.slot == ActivationSlot::kInput;
    for (size_t layer = 0; layer < saved_.size(); ++layer) {
      if (is_input) {
        saved_[layer].input = inputs_[layer];
      } else if (Keeps(policy.Of(static_cast<int64_t>(layer)), slot.slot)) {
        saved_[layer].*slot.member =
            arena_.Take(t * slot.visits, slot.cols, TypeOf(slot, options_.type));
      }
    }
  }
  for (int64_t layer = 0; options_.cache_rows > 0 && layer < params_.n_layers; ++layer) {
    const int64_t kv = params_.n_kv_heads * params_.head_dim;
    cache_keys_.push_back(take(options_.conversations * options_.cache_rows, kv));
    cache_values_.push_back(take(options_.conversations * options_.cache_rows, kv));
  }
  cache_used_.resize(static_cast<size_t>(options_.conversations));
  // The head works between the passes, when no block does.
  const size_t shared = arena_.used();
  const int64_t chunk = HeadRowsOf(options_);
  loss_ = {.hidden = take(chunk, params_.dim),
           .norm = take(chunk, params_.dim),
           .sums = take(chunk, params_.dim),
           .logits = take(chunk, HeadColumns(params_, options_.sizes))};
  // The first block of a row's columns sets all of its state.
  loss_.state = static_cast<SoftmaxState*>(arena_.Take(chunk, kStateFloats).data);
  loss_.factors = arena_.Take(2, chunk);
  arena_.Rewind(shared);
  TakeWorkMemory();
}

void Transformer::TakeWorkMemory() {
  const RecomputePlan policy = PolicyOf(options_);
  const int64_t tile = TileRowsOf(options_);
  const int64_t piece = MlpRows(tile, options_.sizes);
  const auto take = [this](int64_t rows, int64_t cols) {
    return arena_.Take(rows, cols, options_.type);
  };
  const int64_t q = params_.n_heads * params_.head_dim;
  const int64_t kv = params_.n_kv_heads * params_.head_dim;
  const View first = take(tile, std::max(params_.dim, q));
  const View second = take(tile, std::max(params_.dim, q));
  if (options_.dropout > 0) {
    dropout_ = {.seed = options_.seed,
                .scratch = take(DropoutRows(options_), WidestInput(params_))};
  }
  scratch_ = {.norm = first.Cols(0, params_.dim),
              .dq = first.Cols(0, q),
              .d_attention = second.Cols(0, q),
              .late_norm = second.Cols(0, params_.dim),
              .act = take(piece, params_.hidden_dim)};
  if (options_.training) {
    scratch_.dk = take(tile, kv);
    scratch_.dv = take(tile, kv);
    scratch_.d_inner = take(tile, adapters_.inner_cols().per_row);
  }
  if (options_.quantised_base) {
    const QuantisedBytes bytes = QuantisedBytesOf(params_, options_);
    const auto take_bytes = [this](int64_t count) {
      return static_cast<std::byte*>(arena_.Take(1, count, ElementType::kF8).data);
    };
    scratch_.quantised = {take_bytes(bytes.operands), bytes.operands};
    quantised_gradient_ = bytes.gradient > 0 ? take_bytes(bytes.gradient) : nullptr;
  }
  if (params_.moe) {
    TakeExpertMemory(piece);
  }
  for (const SlotShape& slot : Slots(params_, adapters_.inner_cols())) {
    if (slot.slot == ActivationSlot::kInput || Keeps(policy.Most(), slot.slot)) {
      continue;
    }
    const View view =
        slot.slot == ActivationSlot::kResidual
            ? scratch_.late_norm
            : arena_.Take(IsOfPiece(slot) ? piece : tile, slot.cols, TypeOf(slot, options_.type));
    for (size_t layer = 0; layer < saved_.size(); ++layer) {
      if (!Keeps(policy.Of(static_cast<int64_t>(layer)), slot.slot)) {
        saved_[layer].*slot.member = view;
      }
    }
  }
}

void Transformer::TakeExpertMemory(int64_t rows) {
  const auto take = [this, rows](int64_t cols) { return arena_.Take(rows, cols, options_.type); };
  scratch_.expert_rows = take(params_.dim);
  scratch_.router = take(params_.moe->num_experts);
  if (options_.training) {
    scratch_.d_expert_inner = take(adapters_.inner_cols().per_expert);
  }
  routing_ = std::make_unique<Routing>(*params_.moe, rows, kernels_);
  scratch_.routing = routing_.get();
  expert_rows_.resize(static_cast<size_t>(params_.n_layers * params_.moe->num_experts));
}

// The rotary table where kernels read it, and the sums that they write.
void Transformer::TakeTables() {
  kernel_rotary_ = rotary_table_.data();
  if (const DeviceMemory* memory = kernels_.memory; memory != nullptr) {
    const size_t bytes = rotary_table_.size() * sizeof(float);
    device_tables_ = AllocateOnDevice(*memory, sizeof(Sums) + bytes, "the rotary table");
    kernel_sums_ = reinterpret_cast<Sums*>(device_tables_.get());
    memory->upload(kernel_sums_, &sums_, sizeof(Sums));
    memory->upload(device_tables_.get() + sizeof(Sums), rotary_table_.data(), bytes);
    kernel_rotary_ = reinterpret_cast<const float*>(device_tables_.get() + sizeof(Sums));
  }
  loss_.sum = &kernel_sums_->call;
}

}  // namespace mft
