// SPDX-License-Identifier: Apache-2.0
#include "worker/train/merged_model.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "common/base/strings.h"
#include "common/checkpoint/safetensors.h"
#include "worker/kernels/kernels.h"
#include "worker/model/bf16.h"

namespace mft {

namespace {
using Bytes = std::vector<std::byte>;

// data null: that projection has no adapter.
View MatrixOf(LoraStore& adapters, const std::string& name) {
  const LoraStore::Tensor* found = adapters.Find(name);
  return found == nullptr
             ? View{}
             : MatrixView(adapters.master().data() + found->offset, found->rows, found->cols);
}

std::vector<float> Widen(const TensorEntry& entry) {
  std::vector<float> values(entry.data.size() / DTypeSize(entry.dtype));
  if (entry.dtype == DType::kF32) {
    std::memcpy(values.data(), entry.data.data(), entry.data.size());
    return values;
  }
  for (size_t i = 0; i < values.size(); ++i) {
    uint16_t bits = 0;
    std::memcpy(&bits, entry.data.data() + i * sizeof bits, sizeof bits);
    values[i] = FloatFromBf16(bits);
  }
  return values;
}

Bytes Narrow(const std::vector<float>& values, DType dtype) {
  Bytes bytes(values.size() * DTypeSize(dtype));
  if (dtype == DType::kF32) {
    std::memcpy(bytes.data(), values.data(), bytes.size());
    return bytes;
  }
  for (size_t i = 0; i < values.size(); ++i) {
    const uint16_t bits = Bf16Bits(values[i]);
    std::memcpy(bytes.data() + i * sizeof bits, &bits, sizeof bits);
  }
  return bytes;
}
}  // namespace

Status WriteMergedModel(const std::string& path, const CheckpointContents& contents) {
  MFT_ASSIGN_OR_RETURN(const auto base, SafetensorsFile::Open(contents.base_weights));
  constexpr std::string_view kWeight = ".weight";
  std::vector<std::unique_ptr<Bytes>> merged;  // what the spans in `tensors` point to
  std::vector<TensorToWrite> tensors;
  for (const TensorEntry& entry : base->tensors()) {
    TensorToWrite out{
        .name = entry.name, .dtype = entry.dtype, .shape = entry.shape, .data = entry.data};
    const std::string stem =
        entry.name.substr(0, entry.name.size() - std::min(entry.name.size(), kWeight.size()));
    const View a = MatrixOf(contents.adapters, stem + ".lora_A.weight");
    const View b = MatrixOf(contents.adapters, stem + ".lora_B.weight");
    if (a.data != nullptr && b.data != nullptr) {
      std::vector<float> weight = Widen(entry);
      CpuKernels().gemm(MatrixView(weight.data(), entry.shape[0], entry.shape[1]),
                        b,
                        a,
                        {.alpha = static_cast<float>(contents.lora.scaling), .beta = 1});
      merged.push_back(std::make_unique<Bytes>(Narrow(weight, entry.dtype)));
      out.data = *merged.back();
    }
    tensors.push_back(std::move(out));
  }
  return WriteSafetensors(path, std::move(tensors));
}

}  // namespace mft
