// SPDX-License-Identifier: Apache-2.0
#include "common/tokenizer/sentencepiece_tokenizer.h"

#include <sentencepiece_processor.h>

#include "common/base/files.h"
#include "common/base/ids.h"
#include "common/base/strings.h"
#include "common/tokenizer/sentencepiece_file.h"

namespace mft {

namespace {
constexpr size_t kMaxModelBytes = size_t{64} << 20;

class SentencePieceTokenizer final : public Tokenizer {
 public:
  SentencePieceTokenizer(std::string path, TokenizerVersion version)
      : path_(std::move(path)), version_(version) {}

  Status Load() {
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
    std::vector<int> ids;
    const auto status = processor_.Encode(text, &ids);
    MFT_CHECK(status.ok(), status.ToString());
    out.insert(out.end(), ids.begin(), ids.end());
  }

  Result<std::string> Decode(std::span<const int32_t> ids) const override {
    for (const int32_t id : ids) {
      if (id < 0 || id >= vocab_size()) {
        return InvalidArgument(
            StrCat("token id ", id, " is outside the vocabulary of ", vocab_size()));
      }
    }
    std::string text;
    const auto status = processor_.Decode(std::vector<int>(ids.begin(), ids.end()), &text);
    if (!status.ok()) {
      return Internal(StrCat("decoding: ", status.message()));
    }
    return text;
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

 private:
  std::string path_;
  TokenizerVersion version_;
  std::string hash_;
  Json no_settings_;
  sentencepiece::SentencePieceProcessor processor_;
};
}  // namespace

Result<std::unique_ptr<Tokenizer>> LoadSentencePiece(const std::string& path,
                                                     TokenizerVersion version) {
  auto tokenizer = std::make_unique<SentencePieceTokenizer>(path, version);
  MFT_RETURN_IF_ERROR(tokenizer->Load());
  return std::unique_ptr<Tokenizer>(std::move(tokenizer));
}

}  // namespace mft
