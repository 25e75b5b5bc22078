// SPDX-License-Identifier: Apache-2.0
#include "tests/support/cache_builder.h"

#include "common/base/strings.h"
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
