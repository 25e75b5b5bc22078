// SPDX-License-Identifier: Apache-2.0
// The files of a checkpoint, written and read (layout: worker/README.md).
#pragma once

#include <string>

#include "common/base/status.h"
#include "common/checkpoint/model_params.h"
#include "common/checkpoint/safetensors.h"
#include "worker/model/lora_store.h"
#include "worker/train/run_state.h"

namespace mft {

// What goes into a checkpoint; borrowed for the call.
struct CheckpointContents {
  ParamStore& trained;
  LoraStore* adapters = nullptr;  // what is trained, as adapters; null in a full fine-tuning
  RunState state;
  ModelParams model;
  LoraParams lora;
  DType trained_dtype = DType::kF32;  // of lora.safetensors or the whole model: F32, or BF16
  std::string merge_into;             // a model directory; not "": the merged model is written
  std::string tokenizer_file;         // copied; "" where the model directory has none
};

// Writes consolidated/ and state/ into `directory`; PublishCheckpoint calls it.
Status WriteCheckpointFiles(const std::string& directory, const CheckpointContents& contents);

// Reads master weights and moments. FAILED_PRECONDITION where the checkpoint has other trained
// weights.
Status ReadOptimizerState(const std::string& checkpoint_dir, ParamStore& trained);

}  // namespace mft
