// SPDX-License-Identifier: Apache-2.0
// One line of a data file to samples, or to what is wrong with it.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "common/base/status.h"
#include "common/dataset/line_reader.h"
#include "common/dataset/sample_parser.h"
#include "common/dataset/token_cache.h"
#include "common/tokenizer/chat.h"
#include "common/tokenizer/tokenizer.h"

namespace mft::data {

struct EncodedLine {
  std::vector<EncodedSample> samples;  // the line's own, then those made by dynamic chunking
  std::vector<std::string> problems;   // without file and line; not empty: no samples
};

struct LineEncoderOptions {
  const Tokenizer* tokenizer = nullptr;  // null: pre-tokenised samples only
  Status no_tokenizer;                   // why there is none
  int32_t vocab_size = 0;
  bool dynamic_chunking = false;  // of training conversations
};

// Threads: const calls are safe from any thread. Lifetime: the tokenizer must outlive it.
class LineEncoder {
 public:
  explicit LineEncoder(LineEncoderOptions options) : options_(std::move(options)) {}
  EncodedLine Encode(SourceKind kind, const DataLine& line) const;

 private:
  Status EncodeInto(SourceKind kind, const Sample& sample, std::vector<EncodedSample>& out) const;

  LineEncoderOptions options_;
};

}  // namespace mft::data
