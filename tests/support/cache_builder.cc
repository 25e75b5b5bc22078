// SPDX-License-Identifier: Apache-2.0
#include "tests/support/cache_builder.h"

#include <algorithm>
#include <cstring>

#include "common/base/crc32c.h"
#include "common/base/ids.h"
#include "common/base/strings.h"
#include "common/dataset/token_cache_format.h"
#include "tests/support/fixtures.h"

namespace mft::testing {
namespace {

void Check(const Status& status) {
  MFT_CHECK(status.ok(), status.ToString());
}

}  // namespace

std::unique_ptr<TokenCache> BuildCache(const std::string& directory,
                                       const std::vector<TestSource>& sources,
                                       int32_t vocab_size) {
  auto writer = TokenCacheWriter::Create(directory, "test", vocab_size);
  Check(writer.status());
  for (size_t s = 0; s < sources.size(); ++s) {
    Check((*writer)->BeginSource(StrCat("source", s), sources[s].kind, sources[s].weight));
    for (size_t f = 0; f < sources[s].files.size(); ++f) {
      Check((*writer)->BeginFile(StrCat("source", s, "/", f, ".jsonl")));
      int64_t line = 0;
      for (const TestSample& sample : sources[s].files[f]) {
        SampleOrigin origin = sample.origin;
        origin.line = origin.line < 0 ? line : origin.line;
        line += origin.chunked ? 0 : 1;
        const std::vector<uint8_t> ones(sample.tokens.size(), 1);
        Check((*writer)->Add(sample.tokens, sample.mask.empty() ? ones : sample.mask, origin));
      }
    }
  }
  Check((*writer)->Publish());
  auto cache = TokenCache::Open(directory);
  Check(cache.status());
  Check((*cache)->VerifyIndex());
  return std::move(cache).value();
}

void SealCache(std::string& bytes) {
  using token_cache_format::Header;
  using token_cache_format::Record;
  Header header;
  if (bytes.size() < sizeof(header)) {
    return;
  }
  std::memcpy(&header, bytes.data(), sizeof(header));
  const std::string_view text = bytes;
  const uint64_t meta = text.size() - std::min<uint64_t>(header.meta_bytes, text.size());
  if (header.records_offset > meta) {
    return;
  }
  for (uint64_t i = 0, at = header.records_offset;
       i < header.num_records && meta - at >= sizeof(Record);
       ++i, at += sizeof(Record)) {
    Record record;
    std::memcpy(&record, bytes.data() + at, sizeof(record));
    const uint64_t size = uint64_t{record.length} * 5;
    if (record.offset <= text.size() && size <= text.size() - record.offset) {
      record.crc32c = Crc32c(text.substr(record.offset, size));
      std::memcpy(bytes.data() + at, &record, sizeof(record));
    }
  }
  Sha256Hex(text.substr(header.records_offset, meta - header.records_offset))
      .copy(header.records_sha256.data(), header.records_sha256.size());
  token_cache_format::HeadHash(header, text.substr(meta))
      .copy(header.head_sha256.data(), header.head_sha256.size());
  std::memcpy(bytes.data(), &header, sizeof(header));
}

std::vector<TestSample> ReadSamples(const std::string& jsonl_path) {
  std::vector<TestSample> samples;
  for (const Json& line : ReadJsonLines(jsonl_path)) {
    TestSample sample;
    sample.tokens = line["tokens"].get<std::vector<int32_t>>();
    if (line["mask"].is_string()) {
      for (const char c : line["mask"].get<std::string>()) {
        sample.mask.push_back(c == '1');
      }
    } else {
      sample.mask = line["mask"].get<std::vector<uint8_t>>();
    }
    samples.push_back(std::move(sample));
  }
  return samples;
}

}  // namespace mft::testing
