// SPDX-License-Identifier: Apache-2.0
// Token caches from samples in memory, for tests of whatever reads them.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "common/dataset/token_cache.h"

namespace mft::testing {

struct TestSample {
  std::vector<int32_t> tokens;
  std::vector<uint8_t> mask = {};      // empty: all ones
  SampleOrigin origin = {.line = -1};  // line -1: its place in the file
};

struct TestSource {
  SourceKind kind = SourceKind::kInstruct;
  double weight = 1.0;
  std::vector<std::vector<TestSample>> files;
};

// Writes, publishes and opens a cache at `directory`; aborts with the reason if that fails.
std::unique_ptr<TokenCache> BuildCache(const std::string& directory,
                                       const std::vector<TestSource>& sources,
                                       int32_t vocab_size = 32768);

// Makes all checksums of a cache file's bytes match, as somebody hostile would; what the header
// says of places beyond the bytes is left alone.
void SealCache(std::string& bytes);

// {"tokens": [...], "mask": [...] or "0101"} a line, as in the fixtures.
std::vector<TestSample> ReadSamples(const std::string& jsonl_path);

}  // namespace mft::testing
