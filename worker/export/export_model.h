// SPDX-License-Identifier: Apache-2.0
// The forms that a trained adapter can be given away in.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/status.h"
#include "common/checkpoint/model_params.h"
#include "common/checkpoint/safetensors.h"
#include "worker/model/lora_store.h"

namespace mft {

// Hugging Face's own default for the size of a file of weights.
inline constexpr int64_t kDefaultShardBytes = 5'000'000'000;

// What is exported; all of it is borrowed for the call.
struct ExportSource {
  LoraStore& adapters;
  ModelParams model;
  std::string model_dir;  // of the base
  std::string base_name;  // of the base in adapter_config.json
  double dropout = 0;     // the adapter's was trained with it
  DType adapter_dtype = DType::kF32;
  std::optional<DType> merged_dtype;  // nothing: the base's
  std::string tokenizer_file;         // "": the model has none
  int64_t max_shard_bytes = kDefaultShardBytes;
};

// Formats, as in the key mftd.export:
//   mistral  lora.safetensors, params.json with its lora section, tokenizer
//   peft     adapter_model.safetensors, adapter_config.json
//   merged   consolidated.safetensors, params.json, tokenizer
//   hf       model*.safetensors, index where there are several, config.json,
//            generation_config.json, tokenizer
// Writes into `directory`, which must be there. A tensor at a time is in memory.
Status WriteExport(std::string_view format,
                   const ExportSource& source,
                   const std::string& directory);

// Copies a tokenizer file into a directory; `name` "": under its own.
Status CopyTokenizer(const std::string& file,
                     const std::string& directory,
                     const std::string& name = "");

struct ExportArgs {
  std::string model_dir;
  std::string adapter;  // file, checkpoint, or its consolidated/
  std::string to;
  std::string format = "mistral";
  std::optional<double> scaling;  // default: of the params.json beside the adapter, else 2.0
  std::string dtype;              // "fp32", "bf16", or "": as it is
  std::string base_name;          // default: model_dir
  int64_t max_shard_bytes = kDefaultShardBytes;
};
// `mft-worker export`. `to` appears complete or not at all.
Status RunExport(const ExportArgs& args);

}  // namespace mft
