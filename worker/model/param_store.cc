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

ParamStore::ParamStore(const KernelTable* kernels)
    : device_(kernels != nullptr && kernels->memory != nullptr ? kernels : nullptr) {}

View ParamStore::ViewOf(const std::string& name, void* arena, ElementType type) const {
  const Tensor* tensor = Find(name);
  MFT_CHECK(tensor != nullptr, name);
  return arena == nullptr
             ? View{}
             : TypedView(static_cast<std::byte*>(arena) + tensor->offset * ElementBytes(type),
                         tensor->rows,
                         tensor->cols,
                         type);
}

View ParamStore::MasterOf(const std::string& name) const {
  if (on_device_.copy != nullptr) {
    return ViewOf(name, on_device_.copy.get(), ElementType::kBF16);
  }
  void* const master = device_ == nullptr ? static_cast<void*>(master_.get())
                                          : static_cast<void*>(on_device_.master.get());
  return ViewOf(name, master, ElementType::kF32);
}

float* ParamStore::VectorOf(const std::string& name) const {
  void* const master = device_ == nullptr ? static_cast<void*>(master_.get())
                                          : static_cast<void*>(on_device_.master.get());
  return ViewOf(name, master, ElementType::kF32).f32();
}

View ParamStore::GradOf(const std::string& name) const {
  void* const grad = device_ == nullptr ? static_cast<void*>(grad_.get())
                                        : static_cast<void*>(on_device_.grad.get());
  return ViewOf(name, grad, ElementType::kF32);
}

DeviceBuffer ParamStore::OnDevice(ElementType type, const std::string& what) const {
  return AllocateOnDevice(*device_->memory, static_cast<size_t>(size_ * ElementBytes(type)), what);
}

void ParamStore::AllocateMaster() {
  master_ = MakeAlignedFloats(size_);
  if (device_ == nullptr) {
    return;
  }
  on_device_.master = OnDevice(ElementType::kF32, "trained weights");
  if (device_->type != ElementType::kF32) {
    on_device_.copy = OnDevice(device_->type, "the trained weights' compute copy");
  }
}

void ParamStore::AllocateTraining() {
  moment1_ = MakeAlignedFloats(size_);
  moment2_ = MakeAlignedFloats(size_);
  if (device_ == nullptr) {
    grad_ = MakeAlignedFloats(size_);
    return;
  }
  on_device_.grad = OnDevice(ElementType::kF32, "gradients");
  on_device_.moment1 = OnDevice(ElementType::kF32, "first moments");
  on_device_.moment2 = OnDevice(ElementType::kF32, "second moments");
  on_device_.sum = AllocateOnDevice(*device_->memory, sizeof(double), "a sum");
  ZeroGrad();
  Upload();
}

std::span<float> ParamStore::grad() {
  if (on_device_.grad != nullptr) {
    return {reinterpret_cast<float*>(on_device_.grad.get()), static_cast<size_t>(size_)};
  }
  return {grad_.get(), Elements(grad_)};
}

void ParamStore::ZeroGrad() {
  if (device_ != nullptr) {
    device_->zero(MatrixView(grad().data(), 1, size_));
    return;
  }
  std::memset(grad_.get(), 0, Elements(grad_) * sizeof(float));
}

void ParamStore::Upload() {
  if (device_ == nullptr) {
    return;
  }
  const auto upload = [this](const DeviceBuffer& to, const AlignedFloats& from) {
    if (to != nullptr) {
      device_->memory->upload(to.get(), from.get(), Elements(from) * sizeof(float));
    }
  };
  upload(on_device_.master, master_);
  upload(on_device_.moment1, moment1_);
  upload(on_device_.moment2, moment2_);
  if (on_device_.copy != nullptr) {
    device_->convert(TypedView(on_device_.copy.get(), 1, size_, device_->type),
                     TypedView(on_device_.master.get(), 1, size_, ElementType::kF32));
  }
}

void ParamStore::Download() {
  if (device_ == nullptr) {
    return;
  }
  const auto download = [this](const AlignedFloats& to, const DeviceBuffer& from) {
    if (from != nullptr) {
      device_->memory->download(to.get(), from.get(), Elements(to) * sizeof(float));
    }
  };
  download(master_, on_device_.master);
  download(moment1_, on_device_.moment1);
  download(moment2_, on_device_.moment2);
}

double ParamStore::DeviceSumOfSquares() {
  auto* const sum = reinterpret_cast<double*>(on_device_.sum.get());
  device_->sum_of_squares(grad().data(), size_, sum);
  double value = 0;
  device_->memory->download(&value, sum, sizeof value);
  return value;
}

AdamWArenas ParamStore::device_arenas() {
  const auto floats = [](const DeviceBuffer& buffer) {
    return reinterpret_cast<float*>(buffer.get());
  };
  return {.weight = floats(on_device_.master),
          .grad = floats(on_device_.grad),
          .m = floats(on_device_.moment1),
          .v = floats(on_device_.moment2),
          .copy = on_device_.copy.get(),
          .size = size_};
}

int64_t ParamStore::bytes() const {
  size_t elements = 0;
  for (const AlignedFloats* arena : {&master_, &grad_, &moment1_, &moment2_}) {
    elements += Elements(*arena);
  }
  return static_cast<int64_t>(elements * sizeof(float));
}

}  // namespace mft
