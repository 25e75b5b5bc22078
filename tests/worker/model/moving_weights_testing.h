// SPDX-License-Identifier: Apache-2.0
// What sources of a device's weights are compared by.
#pragma once

#include <cstddef>
#include <cstdint>
#include <ostream>
#include <vector>

#include "common/checkpoint/model_params.h"
#include "worker/kernels/kernels.h"
#include "worker/model/transformer.h"
#include "worker/model/weight_source.h"

namespace mft::testing {

// What the weights are on the device.
struct DeviceFormat {
  const char* name;
  bool bf16;
  bool quantise;
  bool moe;
};
inline void PrintTo(const DeviceFormat& format, std::ostream* out) {
  *out << format.name;
}

// Five blocks with sides that fp8 allows.
ModelParams MovingParams(bool moe);

// Of bytes.
uint64_t Hash(const std::vector<std::byte>& bytes);

// Of all weights of each block that is acquired: in training steps, evaluations, and no order at
// all.
std::vector<uint64_t> HashesInEveryOrder(WeightSource& weights, const KernelTable& kernels);

// Of the losses and gradients of two steps of two chunks.
uint64_t TrainedHash(WeightSource& weights, const KernelTable& kernels, RecomputePolicy policy);

}  // namespace mft::testing
