// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

#include "common/base/status.h"

namespace mft {

// Refuses what the library would read without checking, and no Mistral model has: a normalisation
// map, whose offsets it trusts (a crafted one makes it read anywhere); a model that is not BPE, and
// pieces that are empty, no text, of an unknown type or of no finite score (it throws, or orders by
// NaN). Also refuses what is no protobuf message. `bytes`: a serialised sentencepiece.ModelProto.
Status CheckSentencePieceFile(std::string_view bytes);

}  // namespace mft
