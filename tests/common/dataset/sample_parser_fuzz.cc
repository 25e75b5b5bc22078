// SPDX-License-Identifier: Apache-2.0
// libFuzzer target: any bytes as a line of a data file, parsed and encoded as preparation does it.
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
#include "tests/support/fixtures.h"

namespace {

const mft::Tokenizer& SpmV3() {
  static const auto tokenizer =
      mft::LoadTokenizer(mft::testing::TokenizerFile("mistral_instruct_tokenizer_240323.model.v3"))
          .value();
  return *tokenizer;
}

void Check(const mft::EncodedSample& sample) {
  MFT_CHECK(sample.tokens.size() == sample.mask.size(), "tokens and mask differ in length");
}

void Encode(const mft::Sample& sample) {
  if (const auto* text = std::get_if<mft::TextSample>(&sample)) {
    Check(mft::EncodeText(SpmV3(), text->text));
  } else if (const auto* conversation = std::get_if<mft::Conversation>(&sample)) {
    const auto encoded = mft::EncodeConversation(SpmV3(), *conversation);
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

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view line(reinterpret_cast<const char*>(data), size);
  for (const auto kind :
       {mft::SourceKind::kText, mft::SourceKind::kInstruct, mft::SourceKind::kEval}) {
    const auto sample = mft::ParseSample(kind, line);
    if (sample.ok()) {
      Encode(*sample);
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
