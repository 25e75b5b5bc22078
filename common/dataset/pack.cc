// SPDX-License-Identifier: Apache-2.0
#include "common/dataset/pack.h"

#include <algorithm>

#include "common/base/strings.h"

namespace mft {
namespace {

Status Damaged(const TokenCache& cache, const Slice& slice, std::string_view what) {
  return DataLoss(StrCat("token cache: sample ",
                         slice.sample,
                         " of source ",
                         cache.sources()[slice.source].path,
                         ": ",
                         what));
}

Status AppendSlice(const TokenCache& cache, const Slice& slice, MicroBatch& out) {
  MFT_ASSIGN_OR_RETURN(const SampleView sample, cache.sample(slice.source, slice.sample));
  const auto tokens = sample.tokens.subspan(slice.row, slice.rows + 1);
  const auto mask = sample.mask.subspan(slice.row + 1, slice.rows);
  const auto bad = [&](int32_t id) { return id < 0 || id >= cache.vocab_size(); };
  if (const auto id = std::find_if(tokens.begin(), tokens.end(), bad); id != tokens.end()) {
    return Damaged(
        cache, slice, StrCat("id ", *id, " is outside the vocabulary of ", cache.vocab_size()));
  }
  if (std::any_of(mask.begin(), mask.end(), [](uint8_t bit) { return bit > 1; }) ||
      CountLoss(mask.data(), slice.rows) != slice.loss_tokens) {
    return Damaged(cache, slice, "the mask does not match the index");
  }
  out.x.insert(out.x.end(), tokens.begin(), tokens.end() - 1);
  out.y.insert(out.y.end(), tokens.begin() + 1, tokens.end());
  out.mask.insert(out.mask.end(), mask.begin(), mask.end());
  out.row_weight.insert(out.row_weight.end(), mask.begin(), mask.end());
  return Status::Ok();
}

}  // namespace

int64_t CountLoss(const uint8_t* mask, int64_t rows) {
  return rows - std::count(mask, mask + rows, uint8_t{0});
}

Status AppendRows(const TokenCache& cache, const Pack& pack, MicroBatch& out) {
  if (out.cu_seqlens.empty()) {
    out.cu_seqlens.push_back(0);
  }
  int64_t pack_row = 0;
  for (const Slice& slice : pack.slices) {
    MFT_RETURN_IF_ERROR(AppendSlice(cache, slice, out));
    out.cu_seqlens.push_back(static_cast<int32_t>(out.x.size()));
    out.pack.push_back(pack.number);
    out.pack_row.push_back(static_cast<int32_t>(pack_row));
    pack_row += slice.rows;
  }
  out.loss_tokens += pack.loss_tokens;
  return Status::Ok();
}

}  // namespace mft
