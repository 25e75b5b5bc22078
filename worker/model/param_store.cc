// SPDX-License-Identifier: Apache-2.0
#include "worker/model/param_store.h"

#include <cstring>
#include <utility>

#include "common/base/status.h"

namespace mft {

void ParamStore::AddTensor(std::string name, int64_t rows, int64_t cols, bool is_vector) {
  by_name_.emplace(name, tensors_.size());
  tensors_.push_back({std::move(name), size_, rows, cols, is_vector});
  size_ += rows * cols;
}

const ParamStore::Tensor* ParamStore::Find(const std::string& name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : &tensors_[found->second];
}

View ParamStore::ViewOf(const std::string& name, float* arena) const {
  const Tensor* tensor = Find(name);
  MFT_CHECK(tensor != nullptr, name);
  return arena == nullptr ? View{} : MatrixView(arena + tensor->offset, tensor->rows, tensor->cols);
}

void ParamStore::AllocateTraining() {
  grad_ = MakeAlignedFloats(size_);
  moment1_ = MakeAlignedFloats(size_);
  moment2_ = MakeAlignedFloats(size_);
}

void ParamStore::ZeroGrad() {
  std::memset(grad_.get(), 0, Elements(grad_) * sizeof(float));
}

int64_t ParamStore::bytes() const {
  size_t elements = 0;
  for (const AlignedFloats* arena : {&master_, &grad_, &moment1_, &moment2_}) {
    elements += Elements(*arena);
  }
  return static_cast<int64_t>(elements * sizeof(float));
}

}  // namespace mft
