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

  // Logits of every position [T, V], without the cache.
  Result<std::vector<float>> Logits(std::span<const int32_t> tokens);

  const ModelParams& params() const { return weights_->params(); }
  double scaling() const { return adapters_->options().scaling; }

 private:
  Engine(std::unique_ptr<WeightSource> weights, LoraStoreOptions adapter, int64_t context_tokens);
  Status CheckTokens(std::span<const int32_t> tokens) const;

  std::unique_ptr<WeightSource> weights_;
  std::unique_ptr<LoraStore> adapters_;
  std::unique_ptr<Transformer> model_;
  int64_t context_tokens_;
  int64_t piece_rows_;  // of a long prompt, at once
};

}  // namespace mft
