// SPDX-License-Identifier: Apache-2.0
#include "worker/train/bench_lengths.h"

#include <charconv>
#include <numeric>
#include <sstream>
#include <string>
#include <system_error>

#include "common/base/files.h"
#include "common/base/strings.h"

namespace mft {

namespace {
constexpr int64_t kMaxTokens = int64_t{1} << 26;  // of a step
}  // namespace

Result<std::vector<int64_t>> BenchLengths(const BenchArgs& args) {
  std::vector<int64_t> lengths;
  if (args.lengths_file.empty()) {
    if (args.documents > kMaxTokens / args.document_tokens) {
      return InvalidArgument(StrCat("--documents ",
                                    args.documents,
                                    " of ",
                                    args.document_tokens,
                                    " tokens: a step has at most ",
                                    kMaxTokens,
                                    " tokens"));
    }
    lengths.assign(static_cast<size_t>(args.documents), args.document_tokens);
    return lengths;
  }
  MFT_ASSIGN_OR_RETURN(const std::string text, ReadFile(args.lengths_file));
  std::istringstream words(text);
  int64_t sum = 0;
  for (std::string word; words >> word;) {
    int64_t length = 0;
    const char* end = word.data() + word.size();
    const auto [rest, error] = std::from_chars(word.data(), end, length);
    if (error != std::errc() || rest != end || length < 1 || length > kMaxTokens - sum) {
      return InvalidArgument(StrCat(args.lengths_file,
                                    ": ",
                                    word,
                                    ": lengths are whole numbers from 1, of at most ",
                                    kMaxTokens,
                                    " tokens together"));
    }
    sum += length;
    lengths.push_back(length);
  }
  if (lengths.empty()) {
    return InvalidArgument(StrCat(args.lengths_file, ": no lengths"));
  }
  return lengths;
}

MicroBatch RandomBatch(const std::vector<int64_t>& lengths, int64_t vocab_size) {
  const auto rows =
      static_cast<size_t>(std::accumulate(lengths.begin(), lengths.end(), int64_t{0}));
  MicroBatch batch{.x = std::vector<int32_t>(rows),
                   .y = std::vector<int32_t>(rows),
                   .mask = std::vector<uint8_t>(rows, 1),
                   .row_weight = std::vector<float>(rows, 1.0F / static_cast<float>(rows)),
                   .cu_seqlens = {0},
                   .loss_tokens = static_cast<int64_t>(rows)};
  uint64_t state = 1;
  for (size_t i = 0; i < rows; ++i) {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    batch.x[i] = static_cast<int32_t>((state >> 33) % static_cast<uint64_t>(vocab_size));
    batch.y[i > 0 ? i - 1 : rows - 1] = batch.x[i];
  }
  for (const int64_t length : lengths) {
    batch.pack.push_back(static_cast<int64_t>(batch.pack.size()));
    batch.pack_row.push_back(0);
    batch.cu_seqlens.push_back(batch.cu_seqlens.back() + static_cast<int32_t>(length));
  }
  return batch;
}

double LengthFelt(const std::vector<int64_t>& lengths) {
  double sum = 0;
  double squares = 0;
  for (const int64_t length : lengths) {
    sum += static_cast<double>(length);
    squares += static_cast<double>(length) * static_cast<double>(length);
  }
  return squares / sum;
}

}  // namespace mft
