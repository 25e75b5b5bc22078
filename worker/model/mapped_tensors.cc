// SPDX-License-Identifier: Apache-2.0
#include "worker/model/mapped_tensors.h"

#include "worker/model/tensor_values.h"

namespace mft {

FrozenMat MappedTensors::Matrix(const std::string& name) {
  const TensorEntry tensor = InOrder(name);
  const int64_t out = tensor.shape[0];
  const int64_t in = tensor.shape[1];
  if (tensor.dtype == DType::kBF16 && UsedWhereMapped(tensor)) {
    return {View{Mapped(tensor), out, in, in, ElementType::kBF16}, WeightFormat::kBF16, out, in};
  }
  return {MatrixView(Floats(tensor), out, in), WeightFormat::kF32, out, in};
}

HeadWeights MappedTensors::Head() {
  HeadWeights head{.embeddings = Matrix("tok_embeddings.weight"), .norm = Vector("norm.weight")};
  head.output = files_.params().tied_embeddings ? head.embeddings : Matrix("output.weight");
  return head;
}

// A tensor with its rows in Mistral's order: as the file has it, or a copy.
TensorEntry MappedTensors::InOrder(const std::string& name) {
  TensorEntry tensor = files_.At(name);
  if (files_.IsReordered(name)) {
    const size_t bytes = tensor.data.size();
    auto* copy = reinterpret_cast<std::byte*>(
        copies_.emplace_back(MakeAlignedFloats(static_cast<int64_t>(bytes / sizeof(float)) + 1))
            .get());
    files_.CopyRows(name, copy);
    tensor.data = {copy, bytes};
  }
  return tensor;
}

// Views are not const, but nothing writes through a FrozenMat: the mapping is read-only and would
// fault.
void* MappedTensors::Mapped(const TensorEntry& tensor) {
  bytes_ += static_cast<int64_t>(tensor.data.size());
  return const_cast<std::byte*>(tensor.data.data());
}

float* MappedTensors::Floats(const TensorEntry& tensor) {
  if (UsedWhereMapped(tensor)) {
    return static_cast<float*>(Mapped(tensor));
  }
  const size_t count = tensor.data.size() / DTypeSize(tensor.dtype);
  bytes_ += static_cast<int64_t>(count * sizeof(float));
  float* copy = copies_.emplace_back(MakeAlignedFloats(static_cast<int64_t>(count))).get();
  ReadValues(tensor, {copy, count});
  return copy;
}

}  // namespace mft
