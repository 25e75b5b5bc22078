// SPDX-License-Identifier: Apache-2.0
// Where tensors are in one piece of a device's memory: each begins at 256 bytes, matrices have the
// type that kernels multiply, vectors are fp32, and the scales of what is in fp8 come after it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "common/checkpoint/model_params.h"
#include "worker/model/device_buffer.h"
#include "worker/model/device_weights.h"

namespace mft {

struct DeviceTypes {
  ElementType matrices = ElementType::kF32;
  bool quantise = false;
};

// Projections of blocks: what the base's products spend their time with.
bool IsQuantised(const TensorShape& tensor, const DeviceTypes& types);

class DeviceLayout {
 public:
  DeviceLayout(std::vector<TensorShape> tensors, const DeviceTypes& types);

  int64_t bytes() const { return bytes_; }
  // Of what lies at `memory`.
  FrozenMat Matrix(std::byte* memory, const std::string& name) const;
  const float* Vector(std::byte* memory, const std::string& name) const;
  BlockWeights Block(std::byte* memory, const ModelParams& params, int64_t layer) const;
  HeadWeights Head(std::byte* memory, const ModelParams& params) const;

  // Every tensor. What is to be quantised is filled into `wide` first, which grows as needed.
  void Fill(std::byte* memory,
            const KernelTable& kernels,
            const DeviceFill& fill,
            DeviceBuffer& wide) const;

 private:
  struct Place {
    TensorShape tensor;
    int64_t begin = 0;
    bool quantised = false;
  };
  View ViewOf(std::byte* memory, const Place& place) const;
  QuantisedMat Quantised(std::byte* memory, const Place& place) const;

  const DeviceTypes types_;
  std::vector<Place> places_;
  std::map<std::string, size_t> by_name_;
  int64_t bytes_ = 0;
};

// The tensors of a block, and those of none.
std::vector<TensorShape> TensorsOfBlock(const ModelParams& params, int64_t layer);
std::vector<TensorShape> TensorsOfHead(const ModelParams& params);

}  // namespace mft
