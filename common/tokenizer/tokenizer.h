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
  // Special tokens yield nothing. Ids outside the vocabulary are an error.
  virtual Result<std::string> Decode(std::span<const int32_t> ids) const = 0;
  // Id of a control token such as "[INST]"; NOT_FOUND where this vocabulary has none.
  virtual Result<int32_t> SpecialToken(std::string_view name) const = 0;
  // A v15 file's rules for [MODEL_SETTINGS], otherwise null.
  virtual const Json& model_settings() const = 0;
  // SHA-256 of the file, for cache keys and checkpoints.
  virtual const std::string& file_hash() const = 0;
  virtual const std::string& path() const = 0;
};

// Recognises the file by name and content (formats.md 1.2). A kind that this build cannot read is
// UNIMPLEMENTED.
Result<std::unique_ptr<Tokenizer>> LoadTokenizer(const std::string& path);

// The one tokenizer file of a model directory; none or several is an error that lists them.
Result<std::string> FindTokenizerFile(const std::string& model_dir);

}  // namespace mft
