// SPDX-License-Identifier: Apache-2.0
#include "common/dataset/batcher.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <numeric>
#include <optional>
#include <utility>

#include "common/base/strings.h"
#include "common/dataset/pack.h"
#include "common/dataset/reference_packer.h"
#include "common/dataset/whole_packer.h"

namespace mft {
namespace {

constexpr int64_t kMaxStepPacks = int64_t{1} << 22;
constexpr int64_t kMaxMicroBatchRows = int64_t{1} << 30;  // cu_seqlens are int32

// Matmuls cost a row the same wherever it is, attention costs a document its length squared; for a
// 7B model the two are equal at about this length (numerics.md, "What is semantics").
constexpr double kAttentionRows = 32768;

double Cost(const Pack& pack) {
  double cost = 0;
  for (const Slice& slice : pack.slices) {
    const auto rows = static_cast<double>(slice.rows);
    cost += rows + rows * rows / kAttentionRows;
  }
  return cost;
}

// Deals `packs` out in groups of `group` so that each rank gets as many and the ranks finish
// together: dearest first, to the rank with the least work that has room. Each rank's packs stay in
// the order of their numbers.
std::vector<std::vector<Pack>> DealOut(std::vector<Pack> packs, size_t ranks, size_t group) {
  std::vector<double> cost(packs.size() / group);
  for (size_t i = 0; i < packs.size(); ++i) {
    cost[i / group] += Cost(packs[i]);
  }
  std::vector<size_t> order(cost.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(
      order.begin(), order.end(), [&](size_t a, size_t b) { return cost[a] > cost[b]; });
  const size_t room = cost.size() / ranks;
  std::vector<double> work(ranks, 0);
  std::vector<std::vector<size_t>> given(ranks);
  for (const size_t i : order) {
    size_t least = ranks;
    for (size_t rank = 0; rank < ranks; ++rank) {
      if (given[rank].size() < room && (least == ranks || work[rank] < work[least])) {
        least = rank;
      }
    }
    given[least].push_back(i);
    work[least] += cost[i];
  }
  std::vector<std::vector<Pack>> dealt(ranks);
  for (size_t rank = 0; rank < ranks; ++rank) {
    std::sort(given[rank].begin(), given[rank].end());
    for (const size_t i : given[rank]) {
      const auto first = packs.begin() + static_cast<std::ptrdiff_t>(i * group);
      std::move(first, first + static_cast<std::ptrdiff_t>(group), std::back_inserter(dealt[rank]));
    }
  }
  return dealt;
}

class PackBatcher final : public Batcher {
 public:
  PackBatcher(const TokenCache& cache, const BatcherOptions& options)
      : cache_(cache), options_(options) {}

  Status Init();
  Result<StepBatch> Step(int64_t step) override;

 private:
  bool reference() const { return options_.packing == "reference"; }
  int64_t packs_of_rank() const { return options_.batch_size * options_.num_microbatches; }
  Status CheckOptions() const;
  Status CheckSources();
  Status CheckShares(size_t source) const;
  void Restart();
  Result<std::vector<std::vector<Pack>>> NextStep();  // of each rank
  Result<MicroBatch> MakeMicroBatch(std::span<const Pack> packs, int64_t step_loss_tokens) const;

  const TokenCache& cache_;
  const BatcherOptions options_;
  std::vector<WholeSequence::Source> sources_;
  int64_t next_step_ = 1;
  std::vector<std::unique_ptr<PackStream>> streams_;  // whole: one; reference: one a rank
};

Status PackBatcher::CheckOptions() const {
  const BatcherOptions& o = options_;
  if (o.packing != "whole" && o.packing != "reference") {
    return InvalidArgument(StrCat("packing '", o.packing, "': whole or reference"));
  }
  if (o.loss_norm != "token" && o.loss_norm != "reference") {
    return InvalidArgument(StrCat("loss_norm '", o.loss_norm, "': token or reference"));
  }
  if (o.seed < 0 || o.seq_len < 1 || o.batch_size < 1 || o.num_microbatches < 1 ||
      o.world_size < 1 || o.rank < 0 || o.rank >= o.world_size) {
    return InvalidArgument(StrCat("seed ",
                                  o.seed,
                                  ", seq_len ",
                                  o.seq_len,
                                  ", batch_size ",
                                  o.batch_size,
                                  ", num_microbatches ",
                                  o.num_microbatches,
                                  ", rank ",
                                  o.rank,
                                  " of ",
                                  o.world_size));
  }
  if (o.batch_size > kMaxMicroBatchRows / o.seq_len) {
    return InvalidArgument(StrCat("batch_size ",
                                  o.batch_size,
                                  " x seq_len ",
                                  o.seq_len,
                                  ": a microbatch has at most ",
                                  kMaxMicroBatchRows,
                                  " tokens"));
  }
  if (o.num_microbatches > kMaxStepPacks / o.batch_size / o.world_size) {
    return InvalidArgument(StrCat("batch_size ",
                                  o.batch_size,
                                  " x num_microbatches ",
                                  o.num_microbatches,
                                  " x ranks ",
                                  o.world_size,
                                  ": a step has at most ",
                                  kMaxStepPacks,
                                  " packs"));
  }
  if (reference() && o.seed > std::numeric_limits<uint32_t>::max()) {
    return InvalidArgument(
        StrCat("seed ", o.seed, ": packing reference takes seeds up to 4294967295"));
  }
  return Status::Ok();
}

// Every rank's share of a source must hold something to train on, or its packer would never end.
Status PackBatcher::CheckShares(size_t source) const {
  const SourceInfo& info = cache_.sources()[source];
  std::vector<bool> useful(reference() ? options_.world_size : 1, false);
  for (int64_t i = 0; i < info.samples; ++i) {
    const SampleInfo sample = cache_.info(source, i);
    if (sample.loss_tokens > 0) {
      useful[sample.line % useful.size()] = true;
    }
  }
  const auto useless = std::find(useful.begin(), useful.end(), false);
  if (useless == useful.end()) {
    return Status::Ok();
  }
  const std::string what = StrCat("source ", info.path, ": none of its ", info.samples, " samples");
  if (!reference() || options_.world_size == 1) {
    return {
        Code::kInvalidArgument, "NO_TRAINABLE_TOKENS", StrCat(what, " has a token to train on")};
  }
  return {Code::kInvalidArgument,
          "NO_TRAINABLE_TOKENS",
          StrCat(what,
                 " gives rank ",
                 useless - useful.begin(),
                 " of ",
                 options_.world_size,
                 " a token to train on; packing reference deals lines out to the ranks, use "
                 "fewer ranks or packing whole")};
}

Status PackBatcher::CheckSources() {
  for (size_t i = 0; i < cache_.sources().size(); ++i) {
    const SourceInfo& source = cache_.sources()[i];
    if (source.kind != SourceKind::kEval) {
      const bool text = source.kind == SourceKind::kText;
      sources_.push_back({.index = i,
                          .weight = source.weight,
                          .shuffle = text ? options_.shuffle_text : options_.shuffle_instruct});
    }
  }
  if (sources_.empty()) {
    return {Code::kInvalidArgument, "NO_TRAINABLE_TOKENS", "no training data: no source"};
  }
  if (!options_.weights.empty() && options_.weights.size() != sources_.size()) {
    return InvalidArgument(StrCat(options_.weights.size(),
                                  " weights for the ",
                                  sources_.size(),
                                  " training sources of the token cache"));
  }
  for (size_t i = 0; i < options_.weights.size(); ++i) {
    const double weight = options_.weights[i];
    if (!std::isfinite(weight) || weight <= 0) {
      return InvalidArgument(StrCat("weight ",
                                    weight,
                                    " of source ",
                                    cache_.sources()[sources_[i].index].path,
                                    " is not positive"));
    }
    sources_[i].weight = weight;
  }
  for (const WholeSequence::Source& source : sources_) {
    MFT_RETURN_IF_ERROR(CheckShares(source.index));
  }
  return Status::Ok();
}

Status PackBatcher::Init() {
  MFT_RETURN_IF_ERROR(CheckOptions());
  MFT_RETURN_IF_ERROR(cache_.VerifyIndex());
  MFT_RETURN_IF_ERROR(CheckSources());
  Restart();
  return Status::Ok();
}

void PackBatcher::Restart() {
  next_step_ = 1;
  streams_.clear();
  if (!reference()) {
    streams_.push_back(
        std::make_unique<WholeSequence>(cache_, options_.seed, options_.seq_len, sources_));
    return;
  }
  // All ranks' streams, although only ours is trained here: the step's number of loss tokens is
  // everybody's.
  for (int rank = 0; rank < options_.world_size; ++rank) {
    std::vector<ReferenceSourceOptions> sources;
    std::vector<double> weights;
    for (const WholeSequence::Source& source : sources_) {
      sources.push_back({.source = source.index,
                         .seed = static_cast<uint32_t>(options_.seed),
                         .seq_len = options_.seq_len,
                         .world_size = options_.world_size,
                         .rank = rank,
                         .shuffle = source.shuffle});
      weights.push_back(source.weight);
    }
    streams_.push_back(std::make_unique<ReferenceSequence>(cache_, sources, weights));
  }
}

Result<std::vector<std::vector<Pack>>> PackBatcher::NextStep() {
  const int64_t per_rank = packs_of_rank();
  const auto take = [](PackStream& stream, int64_t count) -> Result<std::vector<Pack>> {
    std::vector<Pack> packs;
    for (int64_t i = 0; i < count; ++i) {
      MFT_ASSIGN_OR_RETURN(Pack pack, stream.Next());
      packs.push_back(std::move(pack));
    }
    return packs;
  };
  const int64_t first = (next_step_ - 1) * per_rank * options_.world_size;
  ++next_step_;
  if (!reference()) {
    MFT_ASSIGN_OR_RETURN(std::vector<Pack> packs,
                         take(*streams_.front(), per_rank * options_.world_size));
    // A mean of the microbatches' means needs the same packs in a microbatch on any number of
    // ranks.
    const bool means = options_.loss_norm == "reference";
    return DealOut(std::move(packs), options_.world_size, means ? options_.batch_size : 1);
  }
  std::vector<std::vector<Pack>> ranks;
  for (int rank = 0; rank < options_.world_size; ++rank) {
    MFT_ASSIGN_OR_RETURN(std::vector<Pack> packs, take(*streams_[rank], per_rank));
    for (int64_t i = 0; i < per_rank; ++i) {
      packs[i].number = first + rank * per_rank + i;
    }
    ranks.push_back(std::move(packs));
  }
  return ranks;
}

Result<MicroBatch> PackBatcher::MakeMicroBatch(std::span<const Pack> packs,
                                               int64_t step_loss_tokens) const {
  MicroBatch batch;
  for (const Pack& pack : packs) {
    MFT_RETURN_IF_ERROR(AppendRows(cache_, pack, batch));
  }
  const int64_t divisor = options_.loss_norm == "token"
                              ? step_loss_tokens
                              : batch.loss_tokens * options_.num_microbatches * options_.world_size;
  if (divisor > 0) {
    const auto weight = static_cast<float>(1.0 / static_cast<double>(divisor));
    for (float& row : batch.row_weight) {
      row *= weight;
    }
  }
  return batch;
}

Result<StepBatch> PackBatcher::Step(int64_t step) {
  if (step < 1) {
    return InvalidArgument(StrCat("step ", step, ": steps count from 1"));
  }
  if (step < next_step_) {
    Restart();
  }
  while (next_step_ < step) {
    MFT_RETURN_IF_ERROR(NextStep().status());
  }
  MFT_ASSIGN_OR_RETURN(const std::vector<std::vector<Pack>> ranks, NextStep());
  StepBatch batch;
  for (const std::vector<Pack>& packs : ranks) {
    for (const Pack& pack : packs) {
      batch.loss_tokens += pack.loss_tokens;
      batch.tokens += pack.rows;
    }
  }
  const std::span<const Pack> mine(ranks[options_.rank]);
  for (int64_t i = 0; i < options_.num_microbatches; ++i) {
    MFT_ASSIGN_OR_RETURN(MicroBatch micro,
                         MakeMicroBatch(mine.subspan(i * options_.batch_size, options_.batch_size),
                                        batch.loss_tokens));
    batch.micro.push_back(std::move(micro));
  }
  return batch;
}

}  // namespace

Result<std::unique_ptr<Batcher>> Batcher::Create(const TokenCache& cache,
                                                 const BatcherOptions& options) {
  auto batcher = std::make_unique<PackBatcher>(cache, options);
  MFT_RETURN_IF_ERROR(batcher->Init());
  return std::unique_ptr<Batcher>(std::move(batcher));
}

}  // namespace mft
