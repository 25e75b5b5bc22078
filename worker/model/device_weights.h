// SPDX-License-Identifier: Apache-2.0
// Frozen weights in the memory of a device, matrices in the type that its kernels multiply: all of
// them, or two blocks at a time. All of these sources give the same bits.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "common/base/status.h"
#include "common/checkpoint/model_params.h"
#include "common/checkpoint/model_weights.h"
#include "worker/kernels/kernels.h"
#include "worker/model/weight_source.h"

namespace mft {

class DeviceCommunicator;

// What is in the device's memory. REQUIRES of all below: KernelTable::memory.
struct DeviceModel {
  const ModelParams& params;
  const KernelTable& kernels;
  bool quantise = false;  // the projections of blocks in fp8. REQUIRES CanQuantise.
};
// UNIMPLEMENTED where the kernels have no fp8 products, for mixtures of experts, and for sides of
// matrices that are no multiples of 128.
Status CanQuantise(const ModelParams& params, const KernelTable& kernels);

// Bytes of the device. A source has the head and all blocks, or the head, two blocks and its part
// of all, or the head and two blocks alone.
struct DeviceWeightBytes {
  int64_t head = 0;
  int64_t block = 0;  // of one
  int64_t blocks = 0;
};
DeviceWeightBytes DeviceWeightBytesOf(const ModelParams& params,
                                      ElementType matrices,
                                      bool quantise = false);

// Writes a tensor to a device's memory, a vector as one row.
using DeviceFill = std::function<void(const std::string& name, View to)>;
// From the files, which must outlive it. Through the device's pinned buffers: while one part is on
// its way, the next is read.
DeviceFill FillFromFiles(const ModelWeights& files, const KernelTable& kernels);
// Matrices drawn by the device, by their place in the model: for measurements of any model's
// shapes.
DeviceFill FillWithRandom(const DeviceModel& model);

// `fill` is called for every tensor before these return; errors as AllocateOnDevice.
std::unique_ptr<WeightSource> MakeDeviceWeights(const DeviceModel& model, const DeviceFill& fill);

// For a model larger than the device's memory: blocks are in pinned memory of the host, and copied
// while the block before is worked with. One lease at a time. RESOURCE_EXHAUSTED (OUT_OF_MEMORY)
// where the host has no more of it.
std::unique_ptr<WeightSource> MakeOffloadedDeviceWeights(const DeviceModel& model,
                                                         const DeviceFill& fill);

// The same with a part of every block on each rank's device, gathered while the block before is
// worked with. Each tensor is filled by one rank. Rules as MakeShardedWeights.
std::unique_ptr<WeightSource> MakeShardedDeviceWeights(const DeviceModel& model,
                                                       const DeviceFill& fill,
                                                       DeviceCommunicator& comm);

}  // namespace mft
