// SPDX-License-Identifier: Apache-2.0
#include "common/dataset/whole_packer.h"

#include <algorithm>
#include <set>
#include <tuple>
#include <utility>

#include "common/base/strings.h"

namespace mft {
namespace {

constexpr size_t kWindowPieces = 4096;
constexpr int64_t kWindowRowsPerSeqLen = 128;
// Bounds the memory of a window of tiny samples under a long seq_len; such packs hold thousands of
// them anyway.
constexpr size_t kMaxWindowPieces = size_t{1} << 20;

// What a key is for, so that no two uses of one seed share random numbers.
constexpr uint64_t kOrderTag = 1;
constexpr uint64_t kWindowTag = 2;

uint64_t OrderKey(const WholeSourceOptions& options, int64_t epoch) {
  return MixKey({static_cast<uint64_t>(options.seed),
                 kOrderTag,
                 options.source,
                 static_cast<uint64_t>(epoch)});
}

}  // namespace

WholeSource::WholeSource(const TokenCache& cache, const WholeSourceOptions& options)
    : cache_(cache),
      options_(options),
      order_(OrderKey(options, 0), cache.sources()[options.source].samples) {
  int64_t epoch_rows = 1;
  for (int64_t i = 0; i < order_.size(); ++i) {
    const SampleInfo info = cache.info(options.source, i);
    epoch_rows += info.loss_tokens > 0 ? info.length - 1 : 0;
  }
  span_ = std::max<int64_t>(1, 2 * options.seq_len / epoch_rows);
}

Status WholeSource::ReadSample() {
  if (position_ == order_.size()) {
    if (!epoch_useful_ || order_.size() == 0) {
      // Creation has refused sources without loss tokens, so the masks are not what the index says.
      return DataLoss(StrCat("token cache: source ",
                             cache_.sources()[options_.source].path,
                             " has no loss token in a whole epoch"));
    }
    ++epoch_;
    position_ = 0;
    epoch_useful_ = false;
    order_ = KeyedPermutation(OrderKey(options_, epoch_), order_.size());
  } else if (position_ == 0) {
    epoch_useful_ = false;
  }
  const int64_t sample = options_.shuffle ? order_(position_) : position_;
  ++position_;
  const SampleInfo info = cache_.info(options_.source, sample);
  if (info.loss_tokens == 0) {
    return Status::Ok();
  }
  const int64_t rows = info.length - 1;
  const bool split = rows > options_.seq_len;
  for (int64_t row = 0; row < rows; row += options_.seq_len) {
    Piece piece = {.slice = {.source = static_cast<uint32_t>(options_.source),
                             .sample = sample,
                             .row = row,
                             .rows = std::min(options_.seq_len, rows - row),
                             .loss_tokens = info.loss_tokens},
                   .epoch = epoch_};
    if (split) {
      MFT_ASSIGN_OR_RETURN(const SampleView view, cache_.sample(options_.source, sample));
      piece.slice.loss_tokens = CountLoss(view.mask.data() + row + 1, piece.slice.rows);
    }
    if (piece.slice.loss_tokens > 0) {
      pieces_.push_back(piece);
      epoch_useful_ = true;
    }
  }
  return Status::Ok();
}

Result<Pack> WholeSource::NextFit() {
  Pack pack;
  while (true) {
    while (pieces_.empty()) {
      MFT_RETURN_IF_ERROR(ReadSample());
    }
    if (pack.rows + pieces_.front().slice.rows > options_.seq_len) {
      return pack;
    }
    pack.Append(pieces_.front().slice);
    pieces_.pop_front();
  }
}

Status WholeSource::ReadWindow() {
  int64_t rows = 0;
  size_t counted = 0;
  while ((pieces_.size() < kWindowPieces || rows < kWindowRowsPerSeqLen * options_.seq_len) &&
         pieces_.size() < kMaxWindowPieces) {
    MFT_RETURN_IF_ERROR(ReadSample());
    for (; counted < pieces_.size(); ++counted) {
      rows += pieces_[counted].slice.rows;
    }
  }
  const auto packed_before = [](const Piece& a, const Piece& b) {
    return std::tuple(a.epoch, -a.slice.rows, a.slice.sample, a.slice.row) <
           std::tuple(b.epoch, -b.slice.rows, b.slice.sample, b.slice.row);
  };
  std::sort(pieces_.begin(), pieces_.end(), packed_before);
  return Status::Ok();
}

void WholeSource::PackWindow() {
  std::vector<Pack> packs;
  std::vector<int64_t> opened;                // the epoch that opened each pack, ascending
  std::set<std::pair<int64_t, size_t>> room;  // (free rows, pack)
  const auto free_rows = [&](size_t pack) { return options_.seq_len - packs[pack].rows; };
  size_t closed = 0;  // packs before this one take nothing any more
  for (const Piece& piece : pieces_) {
    for (; closed < packs.size() && opened[closed] < piece.epoch - span_; ++closed) {
      room.erase({free_rows(closed), closed});
    }
    const auto best = room.lower_bound({piece.slice.rows, 0});
    const size_t pack = best == room.end() ? packs.size() : best->second;
    if (best == room.end()) {
      packs.emplace_back();
      opened.push_back(piece.epoch);
    } else {
      room.erase(best);
    }
    packs[pack].Append(piece.slice);
    if (free_rows(pack) > 0) {
      room.insert({free_rows(pack), pack});
    }
  }
  pieces_.clear();

  for (size_t begin = 0; begin < packs.size();) {
    const size_t end =
        std::upper_bound(opened.begin(), opened.end(), opened[begin]) - opened.begin();
    const uint64_t key = MixKey({static_cast<uint64_t>(options_.seed),
                                 kWindowTag,
                                 options_.source,
                                 static_cast<uint64_t>(window_),
                                 begin});
    const KeyedPermutation order(key, static_cast<int64_t>(end - begin));
    for (int64_t i = 0; i < order.size(); ++i) {
      ready_.push_back(std::move(packs[begin + order(i)]));
    }
    begin = end;
  }
  ++window_;
}

Result<Pack> WholeSource::Next() {
  if (!options_.shuffle) {
    return NextFit();
  }
  if (ready_.empty()) {
    MFT_RETURN_IF_ERROR(ReadWindow());
    PackWindow();
  }
  Pack pack = std::move(ready_.front());
  ready_.pop_front();
  return pack;
}

WholeSequence::WholeSequence(const TokenCache& cache,
                             int64_t seed,
                             int64_t seq_len,
                             const std::vector<Source>& sources)
    : seq_len_(seq_len), served_(sources.size(), 0) {
  double sum = 0;
  for (const Source& source : sources) {
    sum += source.weight;
  }
  for (const Source& source : sources) {
    streams_.push_back(std::make_unique<WholeSource>(
        cache,
        WholeSourceOptions{
            .source = source.index, .seed = seed, .seq_len = seq_len, .shuffle = source.shuffle}));
    shares_.push_back(source.weight / sum);
  }
}

Result<Pack> WholeSequence::Next() {
  size_t behind = 0;
  double most = 0;
  for (size_t i = 0; i < shares_.size(); ++i) {
    const double owed =
        shares_[i] * static_cast<double>(total_ + seq_len_) - static_cast<double>(served_[i]);
    if (i == 0 || owed > most) {
      behind = i;
      most = owed;
    }
  }
  MFT_ASSIGN_OR_RETURN(Pack pack, streams_[behind]->Next());
  pack.number = number_++;
  served_[behind] += pack.rows;
  total_ += pack.rows;
  return pack;
}

}  // namespace mft
