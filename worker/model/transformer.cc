// SPDX-License-Identifier: Apache-2.0
#include "worker/model/transformer.h"

#include <algorithm>
#include <stdexcept>

#include "common/base/strings.h"
#include "worker/model/block_parts.h"
#include "worker/model/rotary.h"
#include "worker/model/segments.h"

namespace mft {

Transformer::Transformer(WeightSource& weights,
                         const LoraStore& adapters,
                         const KernelTable& kernels,
                         const TransformerOptions& options)
    : weights_(weights),
      adapters_(adapters),
      kernels_(kernels),
      params_(weights.params()),
      options_(Fitted(options, kernels, weights)),
      plan_(PlanMemory(params_, adapters.inner_cols(), options_)),
      arena_(static_cast<size_t>(plan_.total()), kernels.memory),
      batch_(kernels.memory, ListBytes(options_)),
      rotary_table_(RotaryTable(params_, options_.max_positions)),
      position_(static_cast<size_t>(options_.max_rows)),
      row_pack_(static_cast<size_t>(options_.max_rows)),
      row_in_pack_(static_cast<size_t>(options_.max_rows)) {
  TakeMemory();
  TakeTables();
}

void Transformer::RequireProcessMemory() const {
  if (kernels_.memory != nullptr) {
    throw std::logic_error("generation runs on the CPU only");
  }
}

Saved Transformer::SavedOf(int64_t block, const Tile& tile) const {
  Saved saved = saved_[static_cast<size_t>(block)];
  const RecomputePolicy policy = PolicyOf(options_).Of(block);
  const auto narrow = [&](ActivationSlot slot, View& view, int64_t visits = 1) {
    const bool kept = slot == ActivationSlot::kInput || Keeps(policy, slot);
    view = kept ? view.Rows(tile.begin * visits, tile.rows * visits)
                : view.Rows(0, std::min(view.rows, tile.rows));
  };
  const int64_t visits = ExpertsPerToken(params_);
  narrow(ActivationSlot::kInput, saved.input);
  narrow(ActivationSlot::kQ, saved.q);
  narrow(ActivationSlot::kK, saved.k);
  narrow(ActivationSlot::kV, saved.v);
  narrow(ActivationSlot::kAttention, saved.attention);
  narrow(ActivationSlot::kLse, saved.lse);
  narrow(ActivationSlot::kResidual, saved.residual);
  narrow(ActivationSlot::kGate, saved.gate, visits);
  narrow(ActivationSlot::kUp, saved.up, visits);
  narrow(ActivationSlot::kLoraInner, saved.lora_inner);
  narrow(ActivationSlot::kLoraInner, saved.expert_inner, visits);
  return saved;
}

BlockScratch Transformer::ScratchOf(int64_t rows) const {
  BlockScratch scratch = scratch_;
  for (View* view : {&scratch.norm,
                     &scratch.dq,
                     &scratch.d_attention,
                     &scratch.late_norm,
                     &scratch.dk,
                     &scratch.dv,
                     &scratch.d_inner}) {
    view->rows = std::min(view->rows, rows);
  }
  return scratch;
}

BlockContext Transformer::ContextOf(const Tile& tile, int64_t layer) {
  Dropout dropout = dropout_;
  dropout.layer = layer;
  if (dropout.probability > 0) {
    dropout.pack += tile.begin;
    dropout.row += tile.begin;
    dropout.host_pack += tile.begin;
    dropout.host_row += tile.begin;
  }
  return {.kernels = kernels_,
          .params = params_,
          .attention = {.heads = params_.n_heads,
                        .kv_heads = params_.n_kv_heads,
                        .head_dim = params_.head_dim,
                        .cu_q = tile.cu_seqlens,
                        .cu_k = tile.cu_seqlens,
                        .device_cu_q = tile.kernel_cu_seqlens,
                        .device_cu_k = tile.kernel_cu_seqlens},
          .position = kernel_position_ + tile.begin,
          .rotary_table = kernel_rotary_,
          .scratch = ScratchOf(tile.rows),
          .policy = PolicyOf(options_).Of(layer),
          .dropout = dropout,
          .expert_rows = counts_routing_ ? ExpertRowsOf(layer) : std::span<int64_t>()};
}

std::span<int64_t> Transformer::ExpertRowsOf(int64_t layer) {
  const size_t experts = expert_rows_.size() / saved_.size();
  return std::span(expert_rows_).subspan(static_cast<size_t>(layer) * experts, experts);
}

void Transformer::Forward(std::span<const int32_t> tokens, std::span<const int32_t> cu_seqlens) {
  SetPositions(cu_seqlens);
  SetTiles(cu_seqlens);
  const auto rows = static_cast<int64_t>(tokens.size());
  kernel_tokens_ = batch_.Put(tokens);
  kernels_.gather_rows(inputs_[0].Rows(0, rows), weights_.head().embeddings.data, kernel_tokens_);
  for (int64_t layer = 0; layer < params_.n_layers; ++layer) {
    const BlockLease weights = weights_.Acquire(layer, Phase::kForward);
    for (const Tile& tile : tiles_) {
      BlockForward(ContextOf(tile, layer),
                   *weights,
                   adapters_.block(layer),
                   SavedOf(layer, tile),
                   inputs_[static_cast<size_t>(layer) + 1].Rows(tile.begin, tile.rows));
    }
  }
}

// Of the residual stream: it takes the place of the final one.
Activation Transformer::Gradient() const {
  const int64_t rows = tiles_.back().begin + tiles_.back().rows;
  return {inputs_.back().Rows(0, rows),
          quantised_gradient_ == nullptr ? QuantisedRows{}
                                         : QuantisedRowsAt(quantised_gradient_, rows, params_.dim)};
}

void Transformer::Backward() {
  const Activation gradient = Gradient();
  if (gradient.quantised.present()) {
    kernels_.quantise_rows(gradient);
  }
  const bool trains_embeddings = weights_.head().grads != nullptr;
  for (int64_t layer = params_.n_layers - 1; layer >= 0; --layer) {
    const BlockLease weights = weights_.Acquire(layer, Phase::kBackward);
    for (const Tile& tile : tiles_) {
      BlockBackward(ContextOf(tile, layer),
                    *weights,
                    adapters_.block(layer),
                    SavedOf(layer, tile),
                    gradient.Rows(tile.begin, tile.rows),
                    layer > 0 || trains_embeddings);
    }
  }
}

double Transformer::TakeLoss() {
  Sums sums = sums_;
  if (kernels_.memory != nullptr) {
    kernels_.memory->download(&sums, kernel_sums_, sizeof sums);
    kernels_.memory->upload(kernel_sums_, &sums_, sizeof sums_);  // zeros
  }
  sums_ = {};
  return sums.total;
}

double Transformer::ForwardBackward(const Rows& rows) {
  AddForwardBackward(rows);
  return TakeLoss();
}

void Transformer::AddForwardBackward(const Rows& unpadded) {
  const Rows rows = Padded(unpadded);
  const LossLists loss = CollectLossRows(rows);
  if (loss.index.empty()) {
    return;  // nothing to learn here: the gradient is exactly zero
  }
  batch_.Reset();
  const auto count = static_cast<int64_t>(rows.tokens.size());
  SetDropout(rows);
  counts_routing_ = true;
  Forward(rows.tokens, rows.cu_seqlens);
  counts_routing_ = false;
  HeadLossBackward(kernels_,
                   weights_.head(),
                   static_cast<float>(params_.norm_eps),
                   inputs_.back().Rows(0, count),
                   PutLossRows(loss),
                   loss_);
  Backward();
  if (const HeadGrads* grads = weights_.head().grads; grads != nullptr) {
    kernels_.accumulate_rows(grads->embeddings, inputs_.back().Rows(0, count), kernel_tokens_);
  }
  dropout_.probability = 0;
  kernels_.fold_sum(&kernel_sums_->total, &kernel_sums_->call);
}

double Transformer::Loss(const Rows& unpadded) {
  const Rows rows = Padded(unpadded);
  const LossLists loss = CollectLossRows(rows);
  if (loss.index.empty()) {
    return 0;
  }
  batch_.Reset();
  Forward(rows.tokens, rows.cu_seqlens);
  HeadLoss(kernels_,
           weights_.head(),
           static_cast<float>(params_.norm_eps),
           inputs_.back().Rows(0, static_cast<int64_t>(rows.tokens.size())),
           PutLossRows(loss),
           loss_);
  kernels_.fold_sum(&kernel_sums_->total, &kernel_sums_->call);
  return TakeLoss();
}

void Transformer::AllLogits(std::span<const int32_t> tokens,
                            std::span<const int32_t> cu_seqlens,
                            std::span<float> out) {
  RequireProcessMemory();
  Forward(tokens, cu_seqlens);
  const auto rows = static_cast<int64_t>(tokens.size());
  for (int64_t begin = 0; begin < rows; begin += loss_.norm.rows) {
    const int64_t count = std::min(loss_.norm.rows, rows - begin);
    HeadLogits(kernels_,
               weights_.head(),
               static_cast<float>(params_.norm_eps),
               inputs_.back().Rows(begin, count),
               loss_.norm.Rows(0, count),
               MatrixView(out.data() + begin * params_.vocab_size, count, params_.vocab_size));
  }
}

// One tile for all rows; positions go on where each conversation is.
Transformer::Tile Transformer::TileOf(std::span<const Turn> turns) {
  RequireProcessMemory();
  kernel_position_ = position_.data();
  Tile tile;
  for (const Turn& turn : turns) {
    const auto rows = static_cast<int64_t>(turn.tokens.size());
    const int64_t used = CacheOf(turn.conversation);
    if (used + rows > options_.cache_rows || used + rows > options_.max_positions ||
        tile.rows + rows > options_.max_rows) {
      throw std::length_error(
          StrCat("a conversation of ", used + rows, " tokens, planned were ", options_.cache_rows));
    }
    for (int64_t i = 0; i < rows; ++i) {
      position_[static_cast<size_t>(tile.rows + i)] = static_cast<int32_t>(used + i);
    }
    kernels_.gather_rows(
        inputs_[0].Rows(tile.rows, rows), weights_.head().embeddings.data, turn.tokens.data());
    tile.rows += rows;
  }
  return tile;
}

std::vector<CachedTurn> Transformer::CachedTurns(std::span<const Turn> turns,
                                                 const Tile& tile,
                                                 int64_t layer) const {
  const auto at = static_cast<size_t>(layer);
  std::vector<CachedTurn> cached;
  int64_t begin = tile.begin;
  for (const Turn& turn : turns) {
    const auto rows = static_cast<int64_t>(turn.tokens.size());
    const int64_t total = cache_used_[static_cast<size_t>(turn.conversation)] + rows;
    const int64_t first = turn.conversation * options_.cache_rows;
    cached.push_back({.begin = begin,
                      .rows = rows,
                      .keys = cache_keys_[at].Rows(first, total),
                      .values = cache_values_[at].Rows(first, total)});
    begin += rows;
  }
  return cached;
}

void Transformer::Extend(std::span<const Turn> turns, std::span<float> logits) {
  const Tile tile = TileOf(turns);
  for (int64_t layer = 0; layer < params_.n_layers; ++layer) {
    const BlockLease weights = weights_.Acquire(layer, Phase::kForward);
    const std::vector<CachedTurn> cached = CachedTurns(turns, tile, layer);
    BlockContext context = ContextOf(tile, layer);
    context.cache = cached;
    BlockForward(context,
                 *weights,
                 adapters_.block(layer),
                 SavedOf(layer, tile),
                 inputs_[static_cast<size_t>(layer) + 1].Rows(0, tile.rows));
  }
  const auto count = static_cast<int64_t>(turns.size());
  const View last = loss_.hidden.Rows(0, count);
  int64_t end = 0;
  for (int64_t i = 0; i < count; ++i) {
    const Turn& turn = turns[static_cast<size_t>(i)];
    const auto rows = static_cast<int64_t>(turn.tokens.size());
    end += rows;
    CacheOf(turn.conversation) += rows;
    kernels_.copy_rows(last.Rows(i, 1), inputs_.back().Rows(end - 1, 1));
  }
  HeadLogits(kernels_,
             weights_.head(),
             static_cast<float>(params_.norm_eps),
             last,
             loss_.norm.Rows(0, count),
             MatrixView(logits.data(), count, params_.vocab_size));
}

}  // namespace mft
