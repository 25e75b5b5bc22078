// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "common/tokenizer/tokenizer.h"

namespace mft {

enum class SentencePieceSearch {
  kFast,     // our own where the model allows it, with the library's ids
  kLibrary,  // the library's, for comparison
};

// A SentencePiece model through the library, which checks the file. Never in one process with
// libprotobuf: Debian's libsentencepiece exports a protobuf of its own.
Result<std::unique_ptr<Tokenizer>> LoadSentencePiece(
    const std::string& path,
    TokenizerVersion version,
    SentencePieceSearch search = SentencePieceSearch::kFast);

}  // namespace mft
