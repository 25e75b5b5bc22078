// SPDX-License-Identifier: Apache-2.0
// Text to token ids and back, for the file that a Mistral model directory holds.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/json.h"
#include "common/base/status.h"

namespace mft {

enum class TokenizerVersion { kV1, kV2, kV3, kV7, kV11, kV13, kV15 };
std::string_view TokenizerVersionName(TokenizerVersion version);  // "v3"
std::optional<TokenizerVersion> ParseTokenizerVersion(std::string_view name);

// What becomes of special tokens in a text.
enum class SpecialTokens {
  kIgnore,  // they yield nothing
  kKeep,    // their names; SentencePiece's ordinary tokens are shown as pieces then ("<0x0A>")
  kRefuse   // INVALID_ARGUMENT (reason ValueError)
};

// Threads: const calls are safe from any thread.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  virtual TokenizerVersion version() const = 0;
  virtual int32_t vocab_size() const = 0;
  virtual int32_t bos() const = 0;
  virtual int32_t eos() const = 0;
  // Appends the ids of `text` (valid UTF-8), without BOS or EOS. Special-token text is never parsed
  // as special.
  virtual void Encode(std::string_view text, std::vector<int32_t>& out) const = 0;
  // Ids outside the vocabulary are an error.
  Result<std::string> Decode(std::span<const int32_t> ids,
                             SpecialTokens special = SpecialTokens::kIgnore) const;
  // Id of a control token such as "[INST]"; NOT_FOUND where this vocabulary has none.
  virtual Result<int32_t> SpecialToken(std::string_view name) const = 0;
  // A v15 file's rules for [MODEL_SETTINGS], otherwise null.
  virtual const Json& model_settings() const = 0;
  // SHA-256 of the file, for cache keys and checkpoints.
  virtual const std::string& file_hash() const = 0;
  virtual const std::string& path() const = 0;

 protected:
  virtual bool IsSpecial(int32_t id) const = 0;
  // `ids` are in the vocabulary; `keep_special` or not.
  virtual Result<std::string> DecodeIds(std::span<const int32_t> ids, bool keep_special) const = 0;
};

// Recognises the file by name and content (formats.md 1.2). A kind that this build cannot read is
// UNIMPLEMENTED.
Result<std::unique_ptr<Tokenizer>> LoadTokenizer(const std::string& path);

// The one tokenizer file of a model directory; none or several is an error that lists them.
Result<std::string> FindTokenizerFile(const std::string& model_dir);
// The same, but "" where there is none: models for pre-tokenised data need none.
Result<std::string> FindOptionalTokenizerFile(const std::string& model_dir);

}  // namespace mft
