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
  std::vector<Status> problems;        // without file and line; not empty: no samples
  std::vector<std::string> warnings;   // likewise
};

// The class of the reference that a problem belongs to, such as "MessageFormatError"; otherwise the
// name of the code.
std::string ProblemClass(const Status& problem);
// "MessageFormatError: what is wrong and what to do".
std::string ProblemText(const Status& problem);

struct LineEncoderOptions {
  const Tokenizer* tokenizer = nullptr;  // null: pre-tokenised samples only
  Status no_tokenizer;                   // why there is none
  int32_t vocab_size = 0;
  bool check_only = false;  // without a tokenizer text and conversations are checked, not encoded
  bool dynamic_chunking = false;  // of training conversations
};

// Threads: const calls are safe from any thread. Lifetime: the tokenizer must outlive it.
class LineEncoder {
 public:
  explicit LineEncoder(LineEncoderOptions options) : options_(std::move(options)) {}
  EncodedLine Encode(SourceKind kind, const DataLine& line) const;

 private:
  // Takes the tokens out of a sample that has them.
  Status EncodeInto(SourceKind kind, Sample& sample, std::vector<EncodedSample>& out) const;

  LineEncoderOptions options_;
};

}  // namespace mft::data
