// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "common/base/json.h"
#include "common/base/status.h"

namespace mft {

// The params.json that says what a Hugging Face config.json of a Mistral or Mixtral model does
// (formats.md 6.1). Sizes are taken as they are: whoever reads params.json checks them.
// UNIMPLEMENTED names what this version cannot train: another architecture, scaled rotary
// embeddings, quantised weights, another activation, biases.
Result<Json> ParamsOfHfConfig(const Json& config);

}  // namespace mft
