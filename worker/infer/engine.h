// SPDX-License-Identifier: Apache-2.0
// A model, an adapter and a cache of keys and values, ready to answer.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "worker/infer/sampler.h"
#include "worker/model/transformer.h"

namespace mft {

struct EngineOptions {
  std::string model_dir;
  std::string adapter;            // file, checkpoint, or its consolidated/; "": the base alone
  std::optional<double> scaling;  // default: what the params.json beside the adapter says, else 2.0
  int64_t context_tokens = 16'384;  // prompt and answer; memory is taken as it fills
  int64_t conversations = 1;        // answered at once by GenerateAll
};

struct Completion {
  std::vector<int32_t> tokens;  // without the end token
  bool stopped = false;         // by the end token; otherwise by the limit
};

// Threads: one at a time. Throws what LibTorch throws.
class Engine {
 public:
  static Result<std::unique_ptr<Engine>> Create(const EngineOptions& options);

  struct Request {
    std::span<const int32_t> prompt;
    int64_t max_tokens = 512;
    int32_t end_token = -1;  // -1: none
    SamplingOptions sampling;
  };
  // Calls `on_token` with each token as it is chosen. INVALID_ARGUMENT for an empty or too long
  // prompt and for ids outside the vocabulary; what `on_token` returns ends the answer if it is not
  // ok.
  Result<Completion> Generate(const Request& request,
                              const std::function<Status(int32_t)>& on_token);

  // Answers all, EngineOptions::conversations at once: each step reads the weights once for all of
  // them. Calls `on_done` with a request's number as soon as it is answered, or refused as by
  // Generate; what it returns ends the work if it is not ok. An answer depends on what is answered
  // beside it by the rounding of sums at most.
  using OnDone = std::function<Status(size_t, Result<Completion>)>;
  Status GenerateAll(std::span<const Request> requests, const OnDone& on_done);

  // The same base, in the same memory, without the adapter.
  std::unique_ptr<Engine> WithoutAdapter() const;

  // Logits of every position [T, V], without the cache.
  Result<std::vector<float>> Logits(std::span<const int32_t> tokens);

  const ModelParams& params() const { return weights_->params(); }
  double scaling() const { return adapters_->options().scaling; }

 private:
  struct Answering;  // one answer in the making

  Engine(std::shared_ptr<WeightSource> weights,
         LoraStoreOptions adapter,
         const EngineOptions& options);
  Status CheckTokens(std::span<const int32_t> tokens) const;
  // Reads the prompt and chooses the first token.
  Status Begin(Answering& answering, const Request& request, int64_t conversation);
  // Every answer's next token, in one pass. `logits` has a row for each.
  Status Continue(std::span<Answering* const> answering, std::span<float> logits);

  std::shared_ptr<WeightSource> weights_;  // of the engine without the adapter too
  std::unique_ptr<LoraStore> adapters_;
  std::unique_ptr<Transformer> model_;
  EngineOptions options_;
  int64_t piece_rows_;  // of a long prompt, at once
};

}  // namespace mft
