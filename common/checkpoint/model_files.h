// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "common/base/status.h"
#include "common/checkpoint/model_params.h"
#include "common/checkpoint/safetensors.h"

namespace mft {

// <model_dir>/consolidated.safetensors. What cannot be read (consolidated.00.pth, sharded and
// Hugging Face files) is UNIMPLEMENTED and says what to do; an empty directory is NOT_FOUND.
Result<std::string> FindModelWeights(const std::string& model_dir);

// Every tensor that is missing, of another shape, of another dtype than fp32 and bf16, or that the
// model has no place for. INVALID_ARGUMENT lists the first few.
Status CheckTensors(const SafetensorsFile& file, const std::vector<TensorShape>& expected);

}  // namespace mft
