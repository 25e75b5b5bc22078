// SPDX-License-Identifier: Apache-2.0
#include "worker/infer/engine.h"

#include <algorithm>
#include <utility>

#include "common/base/strings.h"
#include "worker/model/adapter_file.h"

namespace mft {

namespace {
constexpr int64_t kPieceRows = 512;
}  // namespace

Engine::Engine(std::unique_ptr<WeightSource> weights,
               LoraStoreOptions adapter,
               int64_t context_tokens)
    : weights_(std::move(weights)),
      adapters_(std::make_unique<LoraStore>(weights_->params(), std::move(adapter))),
      context_tokens_(context_tokens),
      piece_rows_(std::min(kPieceRows, context_tokens)) {
  model_ = std::make_unique<Transformer>(*weights_,
                                         *adapters_,
                                         CpuKernels(),
                                         TransformerOptions{.max_rows = piece_rows_,
                                                            .max_positions = context_tokens,
                                                            .training = false,
                                                            .cache_rows = context_tokens});
}

Result<std::unique_ptr<Engine>> Engine::Create(const EngineOptions& options) {
  if (options.context_tokens < 2) {
    return InvalidArgument(StrCat("a context of ", options.context_tokens, " tokens is too short"));
  }
  MFT_ASSIGN_OR_RETURN(auto weights, LoadResidentWeights(options.model_dir));
  LoraStoreOptions adapter{.rank = 1, .target_modules = {}, .training = false};
  if (!options.adapter.empty()) {
    MFT_ASSIGN_OR_RETURN(const AdapterInfo info,
                         InspectAdapter(options.adapter, weights->params()));
    adapter.rank = info.rank;
    adapter.target_modules = info.target_modules;
    adapter.scaling = options.scaling.value_or(info.scaling.value_or(kDefaultScaling));
  }
  std::unique_ptr<Engine> engine(
      new Engine(std::move(weights), std::move(adapter), options.context_tokens));
  if (!options.adapter.empty()) {
    MFT_RETURN_IF_ERROR(ReadAdapter(options.adapter, *engine->adapters_));
  }
  return engine;
}

Status Engine::CheckTokens(std::span<const int32_t> tokens) const {
  if (tokens.empty()) {
    return InvalidArgument("no tokens");
  }
  for (const int32_t id : tokens) {
    if (id < 0 || id >= params().vocab_size) {
      return InvalidArgument(
          StrCat("token ", id, " is outside the model's vocabulary of ", params().vocab_size));
    }
  }
  return Status::Ok();
}

Result<Completion> Engine::Generate(const Request& request,
                                    const std::function<Status(int32_t)>& on_token) {
  MFT_RETURN_IF_ERROR(CheckTokens(request.prompt));
  const auto prompt_tokens = static_cast<int64_t>(request.prompt.size());
  if (prompt_tokens >= context_tokens_) {
    return InvalidArgument(
        StrCat("the prompt has ", prompt_tokens, " tokens, the context ", context_tokens_));
  }
  model_->ResetCache();
  std::vector<float> logits(static_cast<size_t>(params().vocab_size));
  for (int64_t begin = 0; begin < prompt_tokens; begin += piece_rows_) {
    const auto count = static_cast<size_t>(std::min(piece_rows_, prompt_tokens - begin));
    model_->Extend(request.prompt.subspan(static_cast<size_t>(begin), count), logits);
  }
  const int64_t limit = std::min(request.max_tokens, context_tokens_ - prompt_tokens);
  Completion completion;
  while (static_cast<int64_t>(completion.tokens.size()) < limit) {
    if (!completion.tokens.empty()) {
      model_->Extend(std::span(completion.tokens).last(1), logits);
    }
    const int32_t id = SampleToken(logits, request.sampling, completion.tokens.size());
    if (id < 0) {
      return DataLoss("no logit is finite: the model or the adapter is damaged");
    }
    if (id == request.end_token) {
      completion.stopped = true;
      break;
    }
    completion.tokens.push_back(id);
    MFT_RETURN_IF_ERROR(on_token(id));
  }
  return completion;
}

Result<std::vector<float>> Engine::Logits(std::span<const int32_t> tokens) {
  MFT_RETURN_IF_ERROR(CheckTokens(tokens));
  if (static_cast<int64_t>(tokens.size()) > piece_rows_) {
    return InvalidArgument(StrCat(tokens.size(), " tokens, at most ", piece_rows_, " at once"));
  }
  const std::vector<int32_t> cu_seqlens = {0, static_cast<int32_t>(tokens.size())};
  std::vector<float> logits(tokens.size() * static_cast<size_t>(params().vocab_size));
  model_->AllLogits(tokens, cu_seqlens, logits);
  return logits;
}

}  // namespace mft
