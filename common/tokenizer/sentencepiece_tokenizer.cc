// SPDX-License-Identifier: Apache-2.0
#include "common/tokenizer/sentencepiece_tokenizer.h"

#include <sentencepiece_processor.h>

#include <algorithm>
#include <optional>
#include <span>

#include "common/base/files.h"
#include "common/base/ids.h"
#include "common/base/strings.h"
#include "common/tokenizer/cached_encoding.h"
#include "common/tokenizer/long_text.h"
#include "common/tokenizer/sentencepiece_bpe.h"
#include "common/tokenizer/sentencepiece_file.h"
#include "common/tokenizer/sentencepiece_model.h"
#include "common/tokenizer/sentencepiece_splitter.h"

namespace mft {

namespace {
constexpr size_t kMaxModelBytes = size_t{64} << 20;
// normalizer_spec { add_dummy_prefix: false }, on the wire.
constexpr std::string_view kNoDummyPrefix("\x1A\x02\x18\x00", 4);

class SentencePieceTokenizer final : public Tokenizer {
 public:
  SentencePieceTokenizer(std::string path, TokenizerVersion version)
      : path_(std::move(path)), version_(version) {}

  Status Load(SentencePieceSearch search) {
    MFT_ASSIGN_OR_RETURN(const std::string content, ReadFile(path_, kMaxModelBytes));
    MFT_RETURN_IF_ERROR(CheckSentencePieceFile(content).WithContext(path_));
    const auto status = processor_.LoadFromSerializedProto(content);
    if (!status.ok()) {
      return InvalidArgument(
          StrCat(path_, ": no SentencePiece model: ", Printable(status.message(), 200)));
    }
    if (processor_.GetPieceSize() <= 0 || processor_.bos_id() < 0 || processor_.eos_id() < 0) {
      return InvalidArgument(StrCat(path_, ": the SentencePiece model has no <s> or </s>"));
    }
    hash_ = Sha256Hex(content);
    const auto model =
        search == SentencePieceSearch::kFast ? ReadSentencePieceModel(content) : std::nullopt;
    if (model) {
      fast_ = std::make_unique<Fast>(*model);
      // The later value of a field counts.
      if (!fast_->parts.LoadFromSerializedProto(StrCat(content, kNoDummyPrefix)).ok()) {
        return Internal(StrCat(path_, ": the model cannot be read twice"));
      }
    }
    return Status::Ok();
  }

  TokenizerVersion version() const override { return version_; }
  int32_t vocab_size() const override { return processor_.GetPieceSize(); }
  int32_t bos() const override { return processor_.bos_id(); }
  int32_t eos() const override { return processor_.eos_id(); }

  void Encode(std::string_view text, std::vector<int32_t>& out) const override {
    if (text.empty()) {
      return;
    }
    const size_t before = out.size();
    if (fast_ == nullptr || fast_->splitter.HasUserDefined(text) || !EncodeParts(text, out)) {
      out.resize(before);
      std::vector<int> ids;
      const auto status = processor_.Encode(text, &ids);
      MFT_CHECK(status.ok(), status.ToString());
      out.insert(out.end(), ids.begin(), ids.end());
    }
  }

  Result<int32_t> SpecialToken(std::string_view name) const override {
    const int id = processor_.PieceToId(name);
    if (id == processor_.unk_id() || !processor_.IsControl(id)) {
      return NotFound(StrCat(path_, ": no control token ", name));
    }
    return id;
  }

  const Json& model_settings() const override { return no_settings_; }
  const std::string& file_hash() const override { return hash_; }
  const std::string& path() const override { return path_; }

 protected:
  bool IsSpecial(int32_t id) const override { return processor_.IsControl(id); }

  Result<std::string> DecodeIds(std::span<const int32_t> ids, bool keep_special) const override {
    std::string text;
    if (keep_special) {
      for (const int32_t id : ids) {
        text += processor_.IdToPiece(id);
      }
      return text;
    }
    const auto status = processor_.Decode(std::vector<int>(ids.begin(), ids.end()), &text);
    if (!status.ok()) {
      return Internal(StrCat("decoding: ", status.message()));
    }
    return text;
  }

 private:
  // Gives the library's ids, faster.
  struct Fast {
    explicit Fast(const SentencePieceModel& model) : splitter(model), bpe(model) {}
    SentencePieceSplitter splitter;
    SentencePieceBpe bpe;
    sentencepiece::SentencePieceProcessor parts;  // adds no space in front; for long parts
    PieceCachePool caches;
  };

  // Part by part; false where the text is no UTF-8.
  bool EncodeParts(std::string_view text, std::vector<int32_t>& out) const {
    return EncodeInWindows(
        text,
        [&](size_t at) { return fast_->splitter.Cut(text, at); },
        [&](std::string_view window, bool is_first) {
          return EncodeWindow(is_first ? " " : "", window, out);
        },
        out);
  }

  bool EncodeWindow(std::string_view prefix,
                    std::string_view window,
                    std::vector<int32_t>& out) const {
    PieceCachePool::Lease lease = fast_->caches.Take();
    const std::string_view whole = lease->Begin(prefix, window);
    for (size_t begin = 0; begin < whole.size();) {
      const size_t end = fast_->splitter.End(whole, begin);
      if (end == SentencePieceSplitter::kMalformed) {
        return false;
      }
      const std::string_view part = whole.substr(begin, end - begin);
      lease->Add(part, [&](int32_t* to) { return EncodePart(part, to); });
      begin = end;
    }
    lease->End(out);
    return true;
  }

  // Returns the end of what it wrote to `to`: at most an id a byte.
  int32_t* EncodePart(std::string_view part, int32_t* to) const {
    return part.size() > SentencePieceBpe::kMaxBytes ? EncodeLongPart(part, to)
                                                     : fast_->bpe.Encode(part, to);
  }

  int32_t* EncodeLongPart(std::string_view part, int32_t* to) const {
    std::vector<int> ids;
    const auto status = fast_->parts.Encode(part, &ids);
    MFT_CHECK(status.ok() && ids.size() <= part.size(), status.ToString());
    return std::copy(ids.begin(), ids.end(), to);
  }

  std::string path_;
  TokenizerVersion version_;
  std::string hash_;
  Json no_settings_;
  sentencepiece::SentencePieceProcessor processor_;
  std::unique_ptr<Fast> fast_;  // null for a model that it does not hold for
};
}  // namespace

Result<std::unique_ptr<Tokenizer>> LoadSentencePiece(const std::string& path,
                                                     TokenizerVersion version,
                                                     SentencePieceSearch search) {
  auto tokenizer = std::make_unique<SentencePieceTokenizer>(path, version);
  MFT_RETURN_IF_ERROR(tokenizer->Load(search));
  return std::unique_ptr<Tokenizer>(std::move(tokenizer));
}

}  // namespace mft
