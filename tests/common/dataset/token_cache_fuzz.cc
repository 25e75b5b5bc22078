// SPDX-License-Identifier: Apache-2.0
// libFuzzer target: any bytes as a token cache, read the way training and evaluation read it. The
// checksums are made to match, so that the fuzzer gets past them.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>

#include "common/base/crc32c.h"
#include "common/base/files.h"
#include "common/base/status.h"
#include "common/dataset/batcher.h"
#include "common/dataset/token_cache.h"
#include "common/dataset/token_cache_format.h"
#include "tests/support/temp_dir.h"

namespace {

using mft::token_cache_format::Header;
using mft::token_cache_format::Record;

void RepairSamples(const Header& header, std::string& bytes) {
  Record record;
  for (uint64_t i = 0, at = header.records_offset; i < header.num_records;
       ++i, at += sizeof(record)) {
    if (at > bytes.size() || bytes.size() - at < sizeof(record)) {
      return;
    }
    std::memcpy(&record, bytes.data() + at, sizeof(record));
    const uint64_t size = uint64_t{record.length} * 5;
    if (record.offset <= bytes.size() && size <= bytes.size() - record.offset) {
      record.crc32c = mft::Crc32c(std::string_view(bytes).substr(record.offset, size));
      std::memcpy(bytes.data() + at, &record, sizeof(record));
    }
  }
}

void Repair(std::string& bytes) {
  Header header;
  if (bytes.size() < sizeof(header)) {
    return;
  }
  std::memcpy(&header, bytes.data(), sizeof(header));
  header.magic = mft::token_cache_format::kMagic;
  header.version = mft::kTokenCacheVersion;
  RepairSamples(header, bytes);
  const std::string_view text = bytes;
  const uint64_t meta = text.size() - std::min<uint64_t>(header.meta_bytes, text.size());
  if (header.records_offset <= meta) {
    mft::Sha256Hex(text.substr(header.records_offset, meta - header.records_offset))
        .copy(header.records_sha256.data(), header.records_sha256.size());
    mft::token_cache_format::HeadHash(header, text.substr(meta))
        .copy(header.head_sha256.data(), header.head_sha256.size());
  }
  std::memcpy(bytes.data(), &header, sizeof(header));
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
