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
  // Zeros. `training`: gradient and moments too. `kernels`: of the device that trains; null: the
  // CPU.
  FullStore(const ModelParams& params, bool training, const KernelTable* kernels = nullptr);
  // The values of a model, for training. A part of the file is let go of when it has been read.
  explicit FullStore(const ModelWeights& files, const KernelTable* kernels = nullptr);

  // The weights as layers read them, with the gradients that they add to. The store must outlive
  // the source.
  std::unique_ptr<WeightSource> AsWeights() const;

 private:
  friend class TrainedWeights;
  void AddTensors();
  void MakeViews(bool training);
  FrozenMat Matrix(const std::string& name) const;
  std::string OutputName() const;

  ModelParams params_;
  std::vector<BlockGrads> block_grads_;
  std::vector<BlockWeights> blocks_;
  HeadGrads head_grads_;
  HeadWeights head_;
};

}  // namespace mft
