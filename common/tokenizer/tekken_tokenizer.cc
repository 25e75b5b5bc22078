// SPDX-License-Identifier: Apache-2.0
#include "common/tokenizer/tekken_tokenizer.h"

#include <array>
#include <span>
#include <unordered_map>
#include <utility>

#include "common/base/files.h"
#include "common/base/ids.h"
#include "common/base/log.h"
#include "common/base/strings.h"
#include "common/tokenizer/byte_pairs.h"
#include "common/tokenizer/cached_encoding.h"
#include "common/tokenizer/long_text.h"
#include "common/tokenizer/regex_splitter.h"
#include "common/tokenizer/tekken_file.h"
#include "common/tokenizer/tekken_splitter.h"
#include "common/tokenizer/utf8_replace.h"

namespace mft {

namespace {
constexpr size_t kMaxFileBytes = size_t{64} << 20;

class TekkenTokenizer final : public Tokenizer {
 public:
  TekkenTokenizer(std::string path,
                  std::string hash,
                  TekkenFile file,
                  std::unique_ptr<RegexSplitter> regex)
      : path_(std::move(path)),
        hash_(std::move(hash)),
        version_(file.version),
        special_(std::move(file.special)),
        settings_(std::move(file.model_settings)),
        pairs_(file.tokens),
        regex_(std::move(regex)) {
    for (size_t id = 0; id < special_.size(); ++id) {
      special_ids_.emplace(special_[id], static_cast<int32_t>(id));
    }
  }

  Status Check() {
    MFT_ASSIGN_OR_RETURN(bos_, SpecialToken("<s>"));
    MFT_ASSIGN_OR_RETURN(eos_, SpecialToken("</s>"));
    return Status::Ok();
  }

  TokenizerVersion version() const override { return version_; }
  int32_t vocab_size() const override {
    return static_cast<int32_t>(special_.size() + pairs_.size());
  }
  int32_t bos() const override { return bos_; }
  int32_t eos() const override { return eos_; }

  void Encode(std::string_view text, std::vector<int32_t>& out) const override {
    const auto offset = static_cast<int32_t>(special_.size());
    if (regex_ != nullptr) {
      std::vector<int32_t> ids(text.size());  // at most one a byte
      int32_t* end = ids.data();
      regex_->Split(text, [&](std::string_view piece) { end = pairs_.Encode(piece, offset, end); });
      out.insert(out.end(), ids.data(), end);
      return;
    }
    const auto encode = [&](std::string_view window, bool) {
      PieceCachePool::Lease lease = caches_.Take();
      TekkenSplitter splitter(lease->Begin("", window));
      // Some are cut ahead, so that the cache's memory is near when they are looked up.
      std::array<std::string_view, 32> pieces;
      for (size_t count = pieces.size(); count == pieces.size();) {
        count = 0;
        while (count < pieces.size() && !(pieces[count] = splitter.Next()).empty()) {
          lease->Prefetch(pieces[count++]);
        }
        for (const std::string_view piece : std::span(pieces).first(count)) {
          lease->Add(piece, [&](int32_t* to) { return pairs_.Encode(piece, offset, to); });
        }
      }
      lease->End(out);
      return true;
    };
    EncodeInWindows(
        text, [&](size_t at) { return TekkenCut(text, at); }, encode, out);
  }

  Result<int32_t> SpecialToken(std::string_view name) const override {
    const auto found = special_ids_.find(std::string(name));
    if (found == special_ids_.end()) {
      return NotFound(StrCat(path_, ": no control token ", name));
    }
    return found->second;
  }

  const Json& model_settings() const override { return settings_; }
  const std::string& file_hash() const override { return hash_; }
  const std::string& path() const override { return path_; }

 protected:
  bool IsSpecial(int32_t id) const override { return static_cast<size_t>(id) < special_.size(); }

  // Each run of ordinary tokens is UTF-8 of its own.
  Result<std::string> DecodeIds(std::span<const int32_t> ids, bool keep_special) const override {
    std::string text;
    std::string run;
    for (const int32_t id : ids) {
      if (!IsSpecial(id)) {
        run += pairs_.token(static_cast<size_t>(id) - special_.size());
        continue;
      }
      AppendReplacingBadUtf8(run, text);
      run.clear();
      text += keep_special ? special_[static_cast<size_t>(id)] : "";
    }
    AppendReplacingBadUtf8(run, text);
    return text;
  }

 private:
  std::string path_;
  std::string hash_;
  TokenizerVersion version_;
  std::vector<std::string> special_;  // by id
  std::unordered_map<std::string, int32_t> special_ids_;
  Json settings_;
  BytePairs pairs_;
  mutable PieceCachePool caches_;
  std::unique_ptr<RegexSplitter> regex_;  // null: the released pattern
  int32_t bos_ = 0;
  int32_t eos_ = 0;
};
}  // namespace

Result<std::unique_ptr<Tokenizer>> LoadTekken(const std::string& path) {
  MFT_ASSIGN_OR_RETURN(const std::string content, ReadFile(path, kMaxFileBytes));
  auto file = ParseTekkenFile(content);
  if (!file.ok()) {
    return file.status().WithContext(path);
  }
  std::unique_ptr<RegexSplitter> regex;
  if (file->pattern != kTekkenPattern) {
    auto created = RegexSplitter::Create(file->pattern);
    if (!created.ok()) {
      return created.status().WithContext(StrCat(path, ": config.pattern"));
    }
    regex = std::move(*created);
    LogWarning(
        StrCat(path,
               ": config.pattern is not that of the released Tekken files; PCRE2 matches it, whose "
               "Unicode version may class rare characters otherwise: ",
               Printable(file->pattern, 200)));
  }
  auto tokenizer = std::make_unique<TekkenTokenizer>(
      path, Sha256Hex(content), std::move(*file), std::move(regex));
  MFT_RETURN_IF_ERROR(tokenizer->Check());
  return std::unique_ptr<Tokenizer>(std::move(tokenizer));
}

}  // namespace mft
