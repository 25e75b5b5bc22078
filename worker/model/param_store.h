// SPDX-License-Identifier: Apache-2.0
// Trainable weights: flat arenas with named views, so that clipping, AdamW and reductions are one
// pass over one range (numerics.md, "Memory and weights").
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "worker/model/aligned_floats.h"
#include "worker/model/device_buffer.h"

namespace mft {

// Threads: one at a time. Views live as long as the store.
class ParamStore {
 public:
  virtual ~ParamStore() = default;
  ParamStore(const ParamStore&) = delete;
  ParamStore& operator=(const ParamStore&) = delete;

  struct Tensor {
    std::string name;    // "layers.0.attention.wq.lora_A.weight"
    int64_t offset = 0;  // into each arena
    int64_t rows = 0;
    int64_t cols = 0;
    bool is_vector = false;  // [cols] in files; rows is 1
    std::vector<int64_t> shape() const {
      return is_vector ? std::vector<int64_t>{cols} : std::vector<int64_t>{rows, cols};
    }
    size_t size() const { return static_cast<size_t>(rows * cols); }
  };
  const std::vector<Tensor>& tensors() const { return tensors_; }  // in arena order
  const Tensor* Find(const std::string& name) const;               // nullptr: has no such tensor
  int64_t size() const { return size_; }                           // elements of each arena

  // Flat arenas, all of the same layout. On the CPU the compute copy is the master itself: products
  // for bf16 round it as they read it. On a device the gradient is the device's memory, master and
  // moments are the process's copies of what the device has: Upload after they were changed,
  // Download before they are read.
  std::span<float> master() { return {master_.get(), Elements(master_)}; }
  std::span<const float> master() const { return {master_.get(), Elements(master_)}; }
  std::span<float> grad();
  std::span<float> moment1() { return {moment1_.get(), Elements(moment1_)}; }
  std::span<float> moment2() { return {moment2_.get(), Elements(moment2_)}; }
  // A tensor's part of an arena.
  static std::span<float> Part(std::span<float> arena, const Tensor& tensor) {
    return arena.subspan(static_cast<size_t>(tensor.offset), tensor.size());
  }
  void ZeroGrad();
  int64_t bytes() const;  // of all arenas in the process's memory

  const KernelTable* device() const { return device_; }  // null: the process's memory
  void Upload();
  void Download();
  // REQUIRE a device that trains. The sum is of the gradient; the device is waited for.
  AdamWArenas device_arenas();
  double DeviceSumOfSquares();

 protected:
  // `kernels` null, or of the process's memory: the arenas are there.
  explicit ParamStore(const KernelTable* kernels);
  // Every tensor, then memory, then views.
  void AddTensor(std::string name, int64_t rows, int64_t cols, bool is_vector = false);
  void AllocateMaster();
  void AllocateTraining();  // gradient and moments
  // REQUIRES a tensor of that name; data null where the arena is not allocated. As kernels read
  // them: the compute copy as a matrix, the fp32 master as a vector, the gradient.
  View MasterOf(const std::string& name) const;
  float* VectorOf(const std::string& name) const;
  View GradOf(const std::string& name) const;

 private:
  size_t Elements(const AlignedFloats& arena) const {
    return arena == nullptr ? 0 : static_cast<size_t>(size_);
  }
  View ViewOf(const std::string& name, void* arena, ElementType type) const;
  DeviceBuffer OnDevice(ElementType type, const std::string& what) const;

  std::vector<Tensor> tensors_;
  std::unordered_map<std::string, size_t> by_name_;  // index into tensors_
  int64_t size_ = 0;
  AlignedFloats master_, grad_, moment1_, moment2_;
  const KernelTable* const device_;
  struct DeviceArenas {
    DeviceBuffer master, grad, moment1, moment2;
    DeviceBuffer copy;  // where the device computes in bf16
    DeviceBuffer sum;   // one fp64
  };
  DeviceArenas on_device_;
};

}  // namespace mft
