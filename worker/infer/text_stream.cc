// SPDX-License-Identifier: Apache-2.0
#include "worker/infer/text_stream.h"

#include <string_view>

#include "common/base/strings.h"

namespace mft {

namespace {
constexpr std::string_view kReplacement = "\xEF\xBF\xBD";
constexpr size_t kLongestCharacter = 4;
}  // namespace

size_t StablePrefix(const std::string& text) {
  size_t end = text.size();
  // An unfinished character of n - 1 bytes becomes up to three replacement characters.
  for (size_t i = 0; i < kLongestCharacter - 1; ++i) {
    if (std::string_view(text).substr(0, end).ends_with(kReplacement)) {
      end -= kReplacement.size();
    }
  }
  for (size_t back = 1; back < kLongestCharacter && back <= end; ++back) {
    const auto byte = static_cast<uint8_t>(text[end - back]);
    if ((byte & 0xC0) == 0x80) {
      continue;  // a continuation byte: its first byte is further back
    }
    const size_t length = byte >= 0xF0 ? 4 : byte >= 0xE0 ? 3 : byte >= 0xC0 ? 2 : 1;
    return length > back ? end - back : end;
  }
  return end;
}

Result<std::string> TextStream::Emit(size_t stable_bytes, const std::string& text) {
  // A decoder that changes what it said before (none of ours does) cannot be streamed: say no more
  // until it has passed that point again.
  if (stable_bytes <= emitted_.size() || !text.starts_with(emitted_)) {
    return std::string();
  }
  std::string piece = text.substr(emitted_.size(), stable_bytes - emitted_.size());
  emitted_.append(piece);
  return piece;
}

Result<std::string> TextStream::Add(int32_t id) {
  ids_.push_back(id);
  MFT_ASSIGN_OR_RETURN(const std::string text, tokenizer_.Decode(ids_));
  return Emit(StablePrefix(text), text);
}

Result<std::string> TextStream::Finish() {
  MFT_ASSIGN_OR_RETURN(const std::string text, tokenizer_.Decode(ids_));
  return Emit(text.size(), text);
}

}  // namespace mft
