// SPDX-License-Identifier: Apache-2.0
#include "worker/infer/engine.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "common/base/strings.h"
#include "worker/model/adapter_file.h"

namespace mft {

namespace {
constexpr int64_t kPieceRows = 512;
const LoraStoreOptions kNoAdapter = {.rank = 1, .target_modules = {}, .training = false};
}  // namespace

struct Engine::Answering {
  const Request* request = nullptr;
  size_t number = 0;  // of the request
  int64_t conversation = 0;
  int64_t limit = 0;
  Completion completion;
  bool done = false;

  // The next token, from the logits behind the last one.
  Status Take(std::span<const float> logits) {
    const int32_t id = SampleToken(logits, request->sampling, completion.tokens.size());
    if (id < 0) {
      return DataLoss("no logit is finite: the model or the adapter is damaged");
    }
    completion.stopped = id == request->end_token;
    if (!completion.stopped) {
      completion.tokens.push_back(id);
    }
    done = completion.stopped || static_cast<int64_t>(completion.tokens.size()) >= limit;
    return Status::Ok();
  }
};

Engine::Engine(std::shared_ptr<WeightSource> weights,
               LoraStoreOptions adapter,
               const EngineOptions& options)
    : weights_(std::move(weights)),
      adapters_(std::make_unique<LoraStore>(weights_->params(), std::move(adapter))),
      options_(options),
      piece_rows_(std::min(kPieceRows, std::max(options.context_tokens, options.conversations))) {
  model_ =
      std::make_unique<Transformer>(*weights_,
                                    *adapters_,
                                    CpuKernels(),
                                    TransformerOptions{.max_rows = piece_rows_,
                                                       .max_positions = options.context_tokens,
                                                       .training = false,
                                                       .cache_rows = options.context_tokens,
                                                       .conversations = options.conversations});
}

Result<std::unique_ptr<Engine>> Engine::Create(const EngineOptions& options) {
  if (options.context_tokens < 2) {
    return InvalidArgument(StrCat("a context of ", options.context_tokens, " tokens is too short"));
  }
  if (options.conversations < 1 || options.conversations > kPieceRows) {
    return InvalidArgument(
        StrCat("1 to ", kPieceRows, " prompts at once, not ", options.conversations));
  }
  MFT_ASSIGN_OR_RETURN(auto weights, LoadResidentWeights(options.model_dir));
  LoraStoreOptions adapter = kNoAdapter;
  if (!options.adapter.empty()) {
    MFT_ASSIGN_OR_RETURN(const AdapterInfo info,
                         InspectAdapter(options.adapter, weights->params()));
    adapter.rank = info.rank;
    adapter.target_modules = info.target_modules;
    adapter.scaling = options.scaling.value_or(info.scaling.value_or(kDefaultScaling));
  }
  std::unique_ptr<Engine> engine(new Engine(std::move(weights), std::move(adapter), options));
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

std::unique_ptr<Engine> Engine::WithoutAdapter() const {
  return std::unique_ptr<Engine>(new Engine(weights_, kNoAdapter, options_));
}

Status Engine::Begin(Answering& answering, const Request& request, int64_t conversation) {
  MFT_RETURN_IF_ERROR(CheckTokens(request.prompt));
  const auto prompt_tokens = static_cast<int64_t>(request.prompt.size());
  if (prompt_tokens >= options_.context_tokens) {
    return InvalidArgument(
        StrCat("the prompt has ", prompt_tokens, " tokens, the context ", options_.context_tokens));
  }
  answering.request = &request;
  answering.conversation = conversation;
  answering.limit = std::min(request.max_tokens, options_.context_tokens - prompt_tokens);
  model_->ResetCache(conversation);
  std::vector<float> logits(static_cast<size_t>(params().vocab_size));
  for (int64_t begin = 0; begin < prompt_tokens; begin += piece_rows_) {
    const auto count = static_cast<size_t>(std::min(piece_rows_, prompt_tokens - begin));
    const Transformer::Turn turn{conversation,
                                 request.prompt.subspan(static_cast<size_t>(begin), count)};
    model_->Extend({&turn, 1}, logits);
  }
  return answering.Take(logits);
}

Status Engine::Continue(std::span<Answering* const> answering, std::span<float> logits) {
  std::vector<Transformer::Turn> turns;
  for (const Answering* each : answering) {
    turns.push_back({each->conversation, std::span(each->completion.tokens).last(1)});
  }
  const auto vocab = static_cast<size_t>(params().vocab_size);
  model_->Extend(turns, logits.first(turns.size() * vocab));
  for (size_t i = 0; i < turns.size(); ++i) {
    MFT_RETURN_IF_ERROR(answering[i]->Take(logits.subspan(i * vocab, vocab)));
  }
  return Status::Ok();
}

Result<Completion> Engine::Generate(const Request& request,
                                    const std::function<Status(int32_t)>& on_token) {
  Answering answering;
  MFT_RETURN_IF_ERROR(Begin(answering, request, 0));
  std::vector<float> logits(static_cast<size_t>(params().vocab_size));
  Answering* const one[] = {&answering};
  size_t told = 0;
  while (true) {
    if (answering.completion.tokens.size() > told) {
      MFT_RETURN_IF_ERROR(on_token(answering.completion.tokens[told++]));
    }
    if (answering.done) {
      return std::move(answering.completion);
    }
    MFT_RETURN_IF_ERROR(Continue(one, logits));
  }
}

Status Engine::GenerateAll(std::span<const Request> requests, const OnDone& on_done) {
  std::vector<Answering> slots(static_cast<size_t>(options_.conversations));
  std::vector<Answering*> free;
  for (Answering& slot : slots) {
    free.push_back(&slot);
  }
  std::vector<Answering*> active;
  std::vector<float> logits(slots.size() * static_cast<size_t>(params().vocab_size));
  size_t next = 0;
  while (next < requests.size() || !active.empty()) {
    while (next < requests.size() && !free.empty()) {
      Answering* const slot = free.back();
      *slot = {.number = next};
      const Status begun = Begin(*slot, requests[next++], slot - slots.data());
      if (!begun.ok()) {
        MFT_RETURN_IF_ERROR(on_done(slot->number, begun));
        continue;
      }
      free.pop_back();
      active.push_back(slot);
    }
    for (Answering* const each : std::vector(active)) {
      if (each->done) {
        std::erase(active, each);
        free.push_back(each);
        MFT_RETURN_IF_ERROR(on_done(each->number, std::move(each->completion)));
      }
    }
    if (!active.empty()) {
      MFT_RETURN_IF_ERROR(Continue(active, logits));
    }
  }
  return Status::Ok();
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
