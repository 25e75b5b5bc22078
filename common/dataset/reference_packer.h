// SPDX-License-Identifier: Apache-2.0
// Packing `reference`: what mistral-finetune's loader does on one rank, chunk by chunk and draw by
// draw (finetune-spec 2.8, 2.9).
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <vector>

#include "common/dataset/numpy_random.h"
#include "common/dataset/pack.h"

namespace mft {

// The packer alone: fills packs of exactly seq_len rows, cuts samples at their ends, and skips
// every chunk without loss, so that an answer may lose its prompt. Threads: one at a time.
class ReferencePacker {
 public:
  explicit ReferencePacker(int64_t seq_len) : seq_len_(seq_len) {}
  // Appends packs that became full to `full`. True if any chunk of the sample was used.
  bool Add(const SampleView& sample, uint32_t source, int64_t index, std::deque<Pack>& full);
  const Pack& partial() const { return pack_; }  // begun and not yet full

 private:
  int64_t seq_len_;
  Pack pack_;
};

struct ReferenceSourceOptions {
  size_t source = 0;  // in the cache
  uint32_t seed = 0;
  int64_t seq_len = 0;
  int world_size = 1;
  int rank = 0;
  bool shuffle = true;
};

// The endless packs of one source on one rank: lines rank, rank + world_size, ... of each file,
// file after file; shuffling permutes each file's list in place, epoch after epoch. Lifetime:
// `cache` must outlive it.
class ReferenceSource final : public PackStream {
 public:
  ReferenceSource(const TokenCache& cache, const ReferenceSourceOptions& options);
  Result<Pack> Next() override;

 private:
  Status BeginFile();

  const TokenCache& cache_;
  const ReferenceSourceOptions options_;
  NumpyRandom random_;
  ReferencePacker packer_;
  std::vector<std::vector<int64_t>>
      files_;  // this rank's samples of each file, in their present order
  size_t next_file_ = 0;
  std::span<int64_t> samples_;  // of the current file, still to come
  bool epoch_useful_ = false;
  std::deque<Pack> ready_;
};

// All training sources of one rank; each draw of a generator of its own picks the source of the
// next pack.
class ReferenceSequence final : public PackStream {
 public:
  // `weights` belong to `sources`, in order.
  ReferenceSequence(const TokenCache& cache,
                    const std::vector<ReferenceSourceOptions>& sources,
                    const std::vector<double>& weights);
  Result<Pack> Next() override;

 private:
  NumpyRandom random_;
  std::vector<double> cumulative_;
  std::vector<std::unique_ptr<ReferenceSource>> streams_;
};

}  // namespace mft
