// SPDX-License-Identifier: Apache-2.0
// Full fine-tuning: every weight of a model is trained (`lora.enable: false`).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "worker/model/param_store.h"
#include "worker/model/weight_source.h"

namespace mft {

// All weights of a model, the head first, then block by block from the last, the embeddings last:
// the order in which a backward pass is done with their gradients.
class FullStore final : public ParamStore {
 public:
  // Values of <model_dir>'s weights. `training`: gradient and moments too, which are allocated when
  // the file is no longer in memory. Errors as LoadResidentWeights.
  static Result<std::unique_ptr<FullStore>> Load(const std::string& model_dir, bool training);
  // Zeros.
  FullStore(const ModelParams& params, bool training);

  // Whether the file that Load read is bf16: what HasBf16Weights is for frozen weights.
  bool loaded_bf16() const { return loaded_bf16_; }

  // The weights as layers read them, with the gradients that they add to. The store must outlive
  // the source.
  std::unique_ptr<WeightSource> AsWeights() const;

 private:
  friend class TrainedWeights;
  explicit FullStore(const ModelParams& params);
  void MakeViews();
  FrozenMat Matrix(const std::string& name) const;
  std::string OutputName() const;

  ModelParams params_;
  bool loaded_bf16_ = false;
  std::vector<BlockGrads> block_grads_;
  std::vector<BlockWeights> blocks_;
  HeadGrads head_grads_;
  HeadWeights head_;
};

}  // namespace mft
