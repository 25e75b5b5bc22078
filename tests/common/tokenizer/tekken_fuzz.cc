// SPDX-License-Identifier: Apache-2.0
// libFuzzer target: any bytes as a Tekken file: refused with a message, or a tokenizer that
// encodes and decodes with ids of its vocabulary.
#include <cstdint>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "common/base/strings.h"
#include "common/tokenizer/tokenizer.h"
#include "tests/support/temp_dir.h"

namespace {

void Use(const mft::Tokenizer& tokenizer) {
  for (const char* text :
       {"", "a", " Hello  world\n", "\xE2\x82\xAC 7 \xF0\x9F\x98\x80", "[INST] </s>"}) {
    std::vector<int32_t> ids;
    tokenizer.Encode(text, ids);
    for (const int32_t id : ids) {
      MFT_CHECK(id >= 0 && id < tokenizer.vocab_size(), std::to_string(id));
    }
    MFT_CHECK(tokenizer.Decode(ids).ok(), text);
  }
  (void)tokenizer.SpecialToken("[INST]");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const auto* const dir = new mft::testing::TempDir;  // one for the whole run
  const std::string path =
      dir->Write("tekken.json", std::string(reinterpret_cast<const char*>(data), size));
  const auto tokenizer = mft::LoadTokenizer(path);
  if (tokenizer.ok()) {
    Use(**tokenizer);
  } else {
    MFT_CHECK(!tokenizer.status().message().empty(), "a refusal without a message");
    MFT_CHECK(mft::IsValidUtf8(tokenizer.status().message()), "a message that is no UTF-8");
  }
  return 0;
}
