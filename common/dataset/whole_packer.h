// SPDX-License-Identifier: Apache-2.0
// Packing `whole` (numerics.md, "Packing whole"): a sample that fits into seq_len is never cut.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "common/dataset/global_order.h"
#include "common/dataset/pack.h"

namespace mft {

struct WholeSourceOptions {
  size_t source = 0;  // in the cache
  int64_t seed = 0;
  int64_t seq_len = 0;
  bool shuffle = true;
};

// The endless packs of one source. Samples come epoch by epoch in a keyed order; those longer than
// seq_len are split there with their mask, and what carries no loss is left out. Shuffled: a window
// of at least 4096 pieces and 128 seq_len rows is packed by best fit, longest first within each
// epoch, ties by sample. Packs leave a window in the order of the epoch that opened them, and in a
// keyed order within that: so every sample of an epoch has been seen before the first pack that the
// next epoch opens, however many epochs a window spans. Not shuffled: next fit in file order.
// Lifetime: `cache` must outlive it.
class WholeSource final : public PackStream {
 public:
  WholeSource(const TokenCache& cache, const WholeSourceOptions& options);
  Result<Pack> Next() override;

 private:
  struct Piece {
    Slice slice;
    int64_t epoch = 0;
  };

  Status ReadSample();  // appends the pieces of the next sample to pieces_
  Result<Pack> NextFit();
  Status ReadWindow();
  void PackWindow();

  const TokenCache& cache_;
  const WholeSourceOptions options_;
  KeyedPermutation order_;  // of the current epoch
  int64_t span_ = 1;  // a pack takes pieces of the epoch that opened it and of so many after it
  int64_t epoch_ = 0;
  int64_t position_ = 0;      // in the epoch
  bool epoch_useful_ = true;  // the epoch has given a piece
  int64_t window_ = 0;
  std::deque<Piece> pieces_;  // read and not yet packed
  std::deque<Pack> ready_;
};

// All training sources: a stratified sequence gives each pack to the source that is furthest behind
// its share of the tokens, so after any number of packs the shares are right to within one pack.
class WholeSequence final : public PackStream {
 public:
  // `sources` are indices in the cache, `weights` theirs; `shuffle` says which of them are
  // shuffled.
  struct Source {
    size_t index = 0;
    double weight = 1.0;
    bool shuffle = true;
  };
  WholeSequence(const TokenCache& cache,
                int64_t seed,
                int64_t seq_len,
                const std::vector<Source>& sources);
  Result<Pack> Next() override;

 private:
  int64_t seq_len_;
  int64_t number_ = 0;
  int64_t total_ = 0;  // rows of all packs so far
  std::vector<std::unique_ptr<WholeSource>> streams_;
  std::vector<double> shares_;
  std::vector<int64_t> served_;  // rows of each source so far
};

}  // namespace mft
