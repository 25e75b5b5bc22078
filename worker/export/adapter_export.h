// SPDX-License-Identifier: Apache-2.0
// Adapters written: as mistral-finetune does, and as PEFT reads them.
#pragma once

#include <string>

#include "common/base/status.h"
#include "common/checkpoint/model_params.h"
#include "common/checkpoint/safetensors.h"
#include "worker/model/lora_store.h"

namespace mft {

// What is trained, under its own names: lora.safetensors, or a whole model's
// consolidated.safetensors. dtype F32 or BF16.
Status WriteParameters(const std::string& path, ParamStore& trained, DType dtype);

// adapter_model.safetensors and adapter_config.json (formats.md 6.4) in `directory`.
struct PeftOptions {
  DType dtype = DType::kF32;
  double dropout = 0;
  std::string base_model;  // base_model_name_or_path; "" becomes null
};
Status WritePeftAdapter(const std::string& directory,
                        const ModelParams& params,
                        LoraStore& adapters,
                        const PeftOptions& options);

}  // namespace mft
