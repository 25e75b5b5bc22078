// SPDX-License-Identifier: Apache-2.0
// libFuzzer target: any bytes as a line of a data file, parsed and encoded as preparation does it.
#include <array>
#include <cstdint>
#include <string_view>
#include <variant>

#include "common/base/status.h"
#include "common/base/strings.h"
#include "common/dataset/chunking.h"
#include "common/dataset/sample_parser.h"
#include "common/tokenizer/chat.h"
#include "common/tokenizer/python_json.h"
#include "common/tokenizer/tokenizer.h"
#include "tests/support/tokenizers.h"

namespace {

// Their rules differ.
constexpr std::array kTokenizers = {
    "spm-v1", "spm-v2", "spm-v3", "spm-v7", "tekken-v11", "tekken-v15"};

// One of them, by what the input happens to be.
const mft::Tokenizer& Choose(size_t number) {
  return mft::testing::NamedTokenizer(kTokenizers[number % kTokenizers.size()]);
}

void Check(const mft::EncodedSample& sample) {
  MFT_CHECK(sample.tokens.size() == sample.mask.size(), "tokens and mask differ in length");
}

void Encode(const mft::Sample& sample, const mft::Tokenizer& tokenizer) {
  if (const auto* text = std::get_if<mft::TextSample>(&sample)) {
    Check(mft::EncodeText(tokenizer, text->text));
  } else if (const auto* conversation = std::get_if<mft::Conversation>(&sample)) {
    const auto encoded = mft::EncodeConversation(tokenizer, *conversation);
    if (encoded.ok()) {
      Check(*encoded);
    }
    for (const mft::Conversation& chunk : mft::ChunkConversation(*conversation)) {
      MFT_CHECK(chunk.messages.size() < conversation->messages.size(), "a chunk is no shorter");
    }
  } else {
    Check(std::get<mft::TokenSample>(sample).sample);
  }
}

}  // namespace

// Loading takes seconds under sanitizers: no input is to be blamed for it.
extern "C" int LLVMFuzzerInitialize(int* /*argc*/, char*** /*argv*/) {
  for (size_t i = 0; i < kTokenizers.size(); ++i) {
    Choose(i);
  }
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view line(reinterpret_cast<const char*>(data), size);
  for (const auto kind :
       {mft::SourceKind::kText, mft::SourceKind::kInstruct, mft::SourceKind::kEval}) {
    const auto sample = mft::ParseSample(kind, line);
    if (sample.ok()) {
      Encode(*sample, Choose(size));
    } else {
      MFT_CHECK(!sample.status().reason().empty(), "a refusal without a class");
      MFT_CHECK(mft::IsValidUtf8(sample.status().message()), "a message that is no UTF-8");
    }
  }
  const auto json = mft::ParsePyJson(line);
  if (json.ok()) {  // what is written reads back as the same
    const std::string dumped = mft::DumpPyJson(json->value);
    const auto again = mft::ParsePyJson(dumped);
    MFT_CHECK(again.ok() && mft::DumpPyJson(again->value) == dumped, dumped);
  }
  return 0;
}
