// SPDX-License-Identifier: Apache-2.0
// Tensors of a model's files as layers read them.
#pragma once

#include <string>
#include <vector>

#include "common/checkpoint/model_weights.h"
#include "worker/model/aligned_floats.h"
#include "worker/model/weight_source.h"

namespace mft {

// Matrices are used where the mapped file has them; what kernels cannot read there is copied (fp16
// and vectors to fp32, rows into Mistral's order), and lives as long as this.
class MappedTensors {
 public:
  explicit MappedTensors(const ModelWeights& files) : files_(files) {}
  FrozenMat Matrix(const std::string& name);
  const float* Vector(const std::string& name) { return Floats(files_.At(name)); }
  HeadWeights Head();
  int64_t bytes() const { return bytes_; }

 private:
  TensorEntry InOrder(const std::string& name);
  void* Mapped(const TensorEntry& tensor);
  float* Floats(const TensorEntry& tensor);

  const ModelWeights& files_;
  std::vector<AlignedFloats> copies_;
  int64_t bytes_ = 0;
};

}  // namespace mft
