// SPDX-License-Identifier: Apache-2.0
// Tokenised data as one read-only mapped file with an index (layout: common/dataset/README.md).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/status.h"

namespace mft {

inline constexpr int kTokenCacheVersion = 2;  // of the file's layout

// The reason that goes with DATA_LOSS where the bytes of a cache are not those that were written:
// preparing the data again helps.
inline constexpr std::string_view kDataCacheGone = "DATA_CACHE_GONE";

enum class SourceKind : uint8_t { kText, kInstruct, kEval };

std::string_view SourceKindName(SourceKind kind);  // "text", "instruct", "eval"

struct SampleView {
  std::span<const int32_t> tokens;
  std::span<const uint8_t> mask;  // same length; 1: predicting this token carries loss
};

// What the index knows of a sample, without touching its pages.
struct SampleInfo {
  int64_t length = 0;       // tokens
  int64_t loss_tokens = 0;  // of the tokens after the first: the first is never predicted
  int64_t line = 0;         // line of the file it was made from, counted from 0
};

// What was said of a line when it was encoded; who reuses the cache says it again.
struct LineWarning {
  int64_t line = 0;  // counted from 0
  std::string text;
};

// A file of a source. Its samples are consecutive: first one a line, in order, then those made by
// dynamic chunking.
struct CachedFile {
  std::string path;
  int64_t first_sample = 0;  // index within the source
  int64_t samples = 0;
  int64_t line_samples = 0;  // how many of them are lines
  int64_t num_warnings = 0;
  std::vector<LineWarning> warnings = {};  // the first of them
};

struct SourceInfo {
  std::string path;
  SourceKind kind = SourceKind::kInstruct;
  double weight = 1.0;  // as the building job had it, not normalised; a reader may use its own
  int64_t samples = 0;
  int64_t tokens = 0;
  int64_t loss_tokens = 0;
  std::vector<CachedFile> files = {};
};

// Nothing is given out that was not checked before: a cache is opened in O(1), its index is
// verified when somebody is about to go over the samples, and the bytes of each sample when they
// are first asked for. Threads: const calls are safe from any thread. Spans live as long as the
// cache.
class TokenCache {
 public:
  virtual ~TokenCache() = default;
  // Opens a published cache directory in time that does not depend on the number of samples:
  // version, sizes, sources, and the checksum of these. Hostile content is DATA_LOSS, here and
  // below, never a crash. While the cache is open it holds a shared lock on its file, and
  // TakeTokenCacheAway leaves it alone.
  static Result<std::unique_ptr<TokenCache>> Open(const std::string& directory);
  // Training sources (text before instruct, in the job's order), then evaluation sources.
  virtual const std::vector<SourceInfo>& sources() const = 0;
  // The checksum, every offset and every count of the index; free from the second time on. Batcher
  // and EvalBatches begin with it. O(samples).
  virtual Status VerifyIndex() const = 0;
  // REQUIRES: VerifyIndex was ok; in range.
  virtual SampleInfo info(size_t source, int64_t index) const = 0;
  // REQUIRES: as for info. DATA_LOSS where the bytes are not those of the checksum. That ids lie in
  // the vocabulary is for the user to check (Batcher and EvalBatches do).
  virtual Result<SampleView> sample(size_t source, int64_t index) const = 0;
  virtual const std::string& content_key() const = 0;  // hash of all that went into it
  virtual int32_t vocab_size() const = 0;
};

// Reads every byte of a cache and verifies it: DATA_LOSS where it is damaged, CANCELLED once
// `stopped`, asked every few megabytes, says so.
Status VerifyTokenCache(const TokenCache& cache, const std::function<bool()>& stopped);

// Where a sample came from.
struct SampleOrigin {
  int64_t line = 0;      // of the current file, counted from 0
  bool chunked = false;  // made by dynamic chunking: goes behind the file's lines
};

// Writes a cache beside its final place and publishes it by one rename. Nothing is left behind when
// it is destroyed unpublished; what a killed writer leaves, the next one beside it removes.
// Threads: one at a time.
class TokenCacheWriter {
 public:
  virtual ~TokenCacheWriter() = default;
  // `directory` is the final place; its parent is created.
  static Result<std::unique_ptr<TokenCacheWriter>> Create(const std::string& directory,
                                                          const std::string& content_key,
                                                          int32_t vocab_size);
  virtual Status BeginSource(std::string_view path, SourceKind kind, double weight) = 0;
  virtual Status BeginFile(std::string_view path) = 0;  // REQUIRES: a source
  // REQUIRES: a file. INVALID_ARGUMENT for ids outside the vocabulary, mask bytes above 1, unequal
  // lengths.
  virtual Status Add(std::span<const int32_t> tokens,
                     std::span<const uint8_t> mask,
                     const SampleOrigin& origin) = 0;
  // REQUIRES: a file. The first kMaxFileWarnings of each file are kept, the others counted.
  virtual void AddWarning(int64_t line, std::string_view text) = 0;
  static constexpr size_t kMaxFileWarnings = 100;
  // Durable. A sound cache of the same key that appeared meanwhile wins, a damaged one is
  // replaced; ALREADY_EXISTS where `directory` holds anything else. Call once.
  virtual Status Publish() = 0;
};

// Removes what writers and removers that no longer live left beside the caches in `cache_root`.
Status RemoveStaleTokenCaches(const std::string& cache_root);

// Removes a published cache unless a process has it open, or `keep`, asked under the lock, says so:
// true if it is gone. It loses its name first, so nobody ever sees half a cache, and what a killed
// remover leaves is stale.
Result<bool> TakeTokenCacheAway(const std::string& directory, const std::function<bool()>& keep);

}  // namespace mft
