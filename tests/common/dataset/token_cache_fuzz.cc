// SPDX-License-Identifier: Apache-2.0
// libFuzzer target: any bytes as a token cache, read the way training and evaluation read it. The
// checksums are made to match, so that the fuzzer gets past them.
#include <cstdint>
#include <cstring>
#include <string>

#include "common/base/files.h"
#include "common/base/status.h"
#include "common/dataset/batcher.h"
#include "common/dataset/token_cache.h"
#include "common/dataset/token_cache_format.h"
#include "tests/support/cache_builder.h"
#include "tests/support/temp_dir.h"

namespace {

// The first bytes are right, whatever they were.
void Repair(std::string& bytes) {
  mft::token_cache_format::Header header;
  if (bytes.size() < sizeof(header)) {
    return;
  }
  std::memcpy(&header, bytes.data(), sizeof(header));
  header.magic = mft::token_cache_format::kMagic;
  header.version = mft::kTokenCacheVersion;
  std::memcpy(bytes.data(), &header, sizeof(header));
  mft::testing::SealCache(bytes);
}

void Use(const mft::TokenCache& cache) {
  for (const char* packing : {"whole", "reference"}) {
    const auto batcher = mft::Batcher::Create(cache, {.seq_len = 64, .packing = packing});
    if (batcher.ok()) {
      (void)(*batcher)->Step(1);
      (void)(*batcher)->Step(2);
    }
  }
  (void)mft::EvalBatches(cache, 64, 256, 1, 0);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const mft::testing::TempDir* const dir =
      new mft::testing::TempDir;  // one for the whole run
  std::string bytes(reinterpret_cast<const char*>(data), size);
  Repair(bytes);
  dir->Write(std::string(mft::token_cache_format::kFileName), bytes);
  const auto cache = mft::TokenCache::Open(dir->path());
  if (cache.ok()) {
    Use(**cache);
  } else {
    MFT_CHECK(cache.status().code() == mft::Code::kDataLoss, cache.status().ToString());
  }
  return 0;
}
