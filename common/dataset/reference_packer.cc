// SPDX-License-Identifier: Apache-2.0
#include "common/dataset/reference_packer.h"

#include <algorithm>
#include <utility>

#include "common/base/strings.h"

namespace mft {

bool ReferencePacker::Add(const SampleView& sample,
                          uint32_t source,
                          int64_t index,
                          std::deque<Pack>& full) {
  const int64_t total = static_cast<int64_t>(sample.tokens.size()) - 1;
  bool used = false;
  for (int64_t row = 0; row < total;) {
    const int64_t rows = std::min(seq_len_ - pack_.rows, total - row);
    const int64_t loss = CountLoss(sample.mask.data() + row + 1, rows);
    if (loss > 0) {
      used = true;
      pack_.Append(
          {.source = source, .sample = index, .row = row, .rows = rows, .loss_tokens = loss});
    }
    row += rows;
    if (pack_.rows == seq_len_) {
      full.push_back(std::exchange(pack_, {}));
    }
  }
  return used;
}

ReferenceSource::ReferenceSource(const TokenCache& cache, const ReferenceSourceOptions& options)
    : cache_(cache),
      options_(options),
      random_(options.seed, static_cast<uint32_t>(options.rank)),
      packer_(options.seq_len) {
  for (const CachedFile& file : cache.sources()[options.source].files) {
    std::vector<int64_t> samples;
    for (int64_t i = file.first_sample; i < file.first_sample + file.samples; ++i) {
      if (cache.info(options.source, i).line % options.world_size == options.rank) {
        samples.push_back(i);
      }
    }
    files_.push_back(std::move(samples));
  }
}

Status ReferenceSource::BeginFile() {
  if (next_file_ == files_.size()) {
    if (!epoch_useful_) {
      // Creation has refused such shares, so the masks are not what the index says.
      return DataLoss(StrCat("token cache: source ",
                             cache_.sources()[options_.source].path,
                             " has no loss token for rank ",
                             options_.rank,
                             " in a whole epoch"));
    }
    next_file_ = 0;
    epoch_useful_ = false;
  }
  samples_ = files_[next_file_++];
  if (options_.shuffle) {
    random_.Shuffle(samples_);
  }
  return Status::Ok();
}

Result<Pack> ReferenceSource::Next() {
  while (ready_.empty()) {
    if (samples_.empty()) {
      MFT_RETURN_IF_ERROR(BeginFile());
      continue;
    }
    const int64_t index = samples_.front();
    samples_ = samples_.subspan(1);
    MFT_ASSIGN_OR_RETURN(const SampleView sample, cache_.sample(options_.source, index));
    const bool used = packer_.Add(sample, static_cast<uint32_t>(options_.source), index, ready_);
    epoch_useful_ = epoch_useful_ || used;
  }
  Pack pack = std::move(ready_.front());
  ready_.pop_front();
  return pack;
}

ReferenceSequence::ReferenceSequence(const TokenCache& cache,
                                     const std::vector<ReferenceSourceOptions>& sources,
                                     const std::vector<double>& weights)
    : random_(sources.front().seed, static_cast<uint32_t>(sources.front().rank)) {
  // The same sums in the same order as the Python code and NumPy's choice(): shares, their running
  // sum, which is then divided by its last value.
  double sum = 0;
  for (const double weight : weights) {
    sum += weight;
  }
  double running = 0;
  for (const double weight : weights) {
    running += weight / sum;
    cumulative_.push_back(running);
  }
  for (double& value : cumulative_) {
    value /= running;
  }
  for (const ReferenceSourceOptions& source : sources) {
    streams_.push_back(std::make_unique<ReferenceSource>(cache, source));
  }
}

Result<Pack> ReferenceSequence::Next() {
  return streams_[random_.Choice(cumulative_)]->Next();
}

}  // namespace mft
