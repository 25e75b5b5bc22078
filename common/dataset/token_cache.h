// SPDX-License-Identifier: Apache-2.0
// Tokenised data as one read-only mapped file with an index (layout: common/dataset/README.md).
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/json.h"
#include "common/base/status.h"

namespace mft {

enum class SourceKind : uint8_t { kText, kInstruct, kEval };

struct SampleView {
  std::span<const int32_t> tokens;
  std::span<const uint8_t> mask;  // same length; 1: predicting this token carries loss
};

struct SourceInfo {
  std::string path;
  SourceKind kind = SourceKind::kInstruct;
  double weight = 1.0;  // normalised over the training sources
  int64_t samples = 0;
  int64_t tokens = 0;
  int64_t loss_tokens = 0;
  int64_t chunked_from = 0;  // first sample made by dynamic chunking; equals `samples` where there is none
};

// Threads: const calls are safe from any thread. Spans live as long as the cache.
class TokenCache {
 public:
  virtual ~TokenCache() = default;
  // Opens and verifies a published cache directory: O(1) plus the index checks; hostile content is DATA_LOSS, never a crash.
  static Result<std::unique_ptr<TokenCache>> Open(const std::string& directory);
  virtual const std::vector<SourceInfo>& sources() const = 0;
  virtual SampleView sample(size_t source, int64_t index) const = 0;  // REQUIRES: in range
  virtual const std::string& content_key() const = 0;                 // what the directory is named after
  virtual int32_t vocab_size() const = 0;
};

// Writes a cache beside its final place and publishes it by one rename. Threads: one at a time.
class TokenCacheWriter {
 public:
  virtual ~TokenCacheWriter() = default;
  static Result<std::unique_ptr<TokenCacheWriter>> Create(const std::string& directory, const std::string& content_key, int32_t vocab_size);
  virtual Status BeginSource(const SourceInfo& source) = 0;  // counts are filled in by the writer
  virtual Status Add(std::span<const int32_t> tokens, std::span<const uint8_t> mask) = 0;
  virtual Status MarkChunked() = 0;  // samples of this source from here on come from dynamic chunking
  virtual Status Publish() = 0;      // durable; a cache of the same key that appeared meanwhile wins
};

}  // namespace mft
