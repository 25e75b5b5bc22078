// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

#include "common/base/status.h"

namespace mft {

// Refuses what the library would read without checking: a model with a normalisation map, whose
// offsets it trusts (a crafted one makes it read anywhere). Mistral's models have none. Also
// refuses what is no protobuf message. `bytes`: a serialised sentencepiece.ModelProto.
Status CheckSentencePieceFile(std::string_view bytes);

}  // namespace mft
