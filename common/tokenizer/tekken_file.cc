// SPDX-License-Identifier: Apache-2.0
#include "common/tokenizer/tekken_file.h"

#include <algorithm>
#include <array>
#include <unordered_set>
#include <utility>

#include "common/base/strings.h"
#include "common/tokenizer/byte_pairs.h"
#include "common/tokenizer/tekken_json.h"

namespace mft {

namespace {
constexpr int64_t kMaxVocabulary = BytePairs::kMaxTokens;
constexpr int64_t kMaxSpecial = 1 << 16;
constexpr size_t kMaxPatternBytes = size_t{1} << 14;
constexpr size_t kByteTokens = 256;
// The released files' longest token has 78 bytes. Finding a token's merges is quadratic in it.
constexpr size_t kMaxTokenBytes = 512;

// v3 and v7 files without a list of their own have this one.
constexpr std::array<std::string_view, 20> kFrozenSpecial = {"<unk>",
                                                             "<s>",
                                                             "</s>",
                                                             "[INST]",
                                                             "[/INST]",
                                                             "[AVAILABLE_TOOLS]",
                                                             "[/AVAILABLE_TOOLS]",
                                                             "[TOOL_RESULTS]",
                                                             "[/TOOL_RESULTS]",
                                                             "[TOOL_CALLS]",
                                                             "[IMG]",
                                                             "<pad>",
                                                             "[IMG_BREAK]",
                                                             "[IMG_END]",
                                                             "[PREFIX]",
                                                             "[MIDDLE]",
                                                             "[SUFFIX]",
                                                             "[SYSTEM_PROMPT]",
                                                             "[/SYSTEM_PROMPT]",
                                                             "[TOOL_CONTENT]"};

constexpr int8_t kBad = -1;
constexpr std::array<int8_t, 256> Base64Values() {
  std::array<int8_t, 256> values{};
  values.fill(kBad);
  const std::string_view alphabet =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  for (size_t i = 0; i < alphabet.size(); ++i) {
    values[static_cast<uint8_t>(alphabet[i])] = static_cast<int8_t>(i);
  }
  return values;
}

// Strict base64 with padding (RFC 4648, section 4); false where it is not.
bool DecodeBase64(std::string_view text, std::string& out) {
  static constexpr std::array<int8_t, 256> kValues = Base64Values();
  if (text.size() % 4 != 0) {
    return false;
  }
  out.clear();
  const size_t padding = text.ends_with("==") ? 2 : text.ends_with("=") ? 1 : 0;
  uint32_t bits = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool padded = i >= text.size() - padding;
    const int8_t value = padded ? int8_t{0} : kValues[static_cast<uint8_t>(text[i])];
    if (value == kBad) {
      return false;
    }
    bits = bits << 6 | static_cast<uint32_t>(value);
    if (i % 4 == 3) {
      out.push_back(static_cast<char>(bits >> 16 & 0xFF));
      out.push_back(static_cast<char>(bits >> 8 & 0xFF));
      out.push_back(static_cast<char>(bits & 0xFF));
      bits = 0;
    }
  }
  out.resize(out.size() - padding);
  return true;
}

Status ReadConfig(const Json& config, TekkenFile& file, int64_t& num_special) {
  MFT_ASSIGN_OR_RETURN(file.pattern, GetString(config, "pattern"));
  MFT_ASSIGN_OR_RETURN(const int64_t vocab_size, GetInt(config, "default_vocab_size"));
  MFT_ASSIGN_OR_RETURN(num_special, GetInt(config, "default_num_special_tokens"));
  MFT_ASSIGN_OR_RETURN(const std::string version, GetString(config, "version"));
  const auto known = ParseTokenizerVersion(version);
  if (!known || *known < TokenizerVersion::kV3) {
    return InvalidArgument(
        StrCat("version \"", version, "\" is no Tekken version (v3, v7, v11, v13 and v15 are)"));
  }
  file.version = *known;
  if (file.pattern.size() > kMaxPatternBytes) {
    return InvalidArgument(
        StrCat("pattern has ", file.pattern.size(), " bytes, more than ", kMaxPatternBytes));
  }
  if (vocab_size < 1 || vocab_size > kMaxVocabulary || num_special < 3 ||
      num_special > kMaxSpecial || num_special + static_cast<int64_t>(kByteTokens) > vocab_size) {
    return InvalidArgument(StrCat("default_vocab_size ",
                                  vocab_size,
                                  " with default_num_special_tokens ",
                                  num_special,
                                  " leaves no room for the 256 bytes, or is above ",
                                  kMaxVocabulary,
                                  " or ",
                                  kMaxSpecial));
  }
  file.vocab_size = static_cast<int32_t>(vocab_size);
  return Status::Ok();
}

// The rest of the vocabulary is dropped, as the reference does.
Status ReadVocabulary(std::vector<TekkenEntry>& entries, int64_t count, TekkenFile& file) {
  if (static_cast<int64_t>(entries.size()) < count) {
    return InvalidArgument(
        StrCat("vocab has ", entries.size(), " entries, the config asks for ", count));
  }
  std::unordered_set<std::string_view> seen;
  seen.reserve(static_cast<size_t>(count));
  file.tokens.resize(static_cast<size_t>(count));
  for (size_t i = 0; i < file.tokens.size(); ++i) {
    const TekkenEntry& entry = entries[i];
    if (entry.rank != static_cast<int64_t>(i)) {
      return InvalidArgument(StrCat("vocab[", i, "].rank is ", entry.rank, ", not ", i));
    }
    std::string& token = file.tokens[i];
    if (!DecodeBase64(entry.text, token) || token.empty()) {
      return InvalidArgument(StrCat("vocab[", i, "].token_bytes is no base64 text of bytes"));
    }
    if (token.size() > kMaxTokenBytes) {
      return InvalidArgument(StrCat(
          "vocab[", i, "] has ", token.size(), " bytes; a token has at most ", kMaxTokenBytes));
    }
    if (i < kByteTokens && (token.size() != 1 || static_cast<uint8_t>(token[0]) != i)) {
      return InvalidArgument(StrCat("vocab[", i, "] is not the byte ", i));
    }
    if (!seen.insert(token).second) {
      return InvalidArgument(StrCat("vocab[", i, "] has the bytes of an entry before it"));
    }
  }
  return Status::Ok();
}

Status ReadSpecial(const TekkenDocument& document, int64_t count, TekkenFile& file) {
  file.special.resize(static_cast<size_t>(count));
  const bool listed = document.lists_special;
  if (!listed && file.version > TokenizerVersion::kV7) {
    return InvalidArgument(StrCat("no special_tokens, which ",
                                  TokenizerVersionName(file.version),
                                  " files have; get the model's newer tokenizer file"));
  }
  if (!listed) {
    std::copy_n(kFrozenSpecial.begin(),
                std::min<size_t>(kFrozenSpecial.size(), file.special.size()),
                file.special.begin());
  }
  for (const TekkenEntry& entry : document.special) {
    if (entry.rank < 0 || entry.rank >= count || entry.text.empty()) {
      return InvalidArgument(StrCat(
          "special token \"", entry.text, "\" has rank ", entry.rank, "; there are ", count));
    }
    std::string& name = file.special[static_cast<size_t>(entry.rank)];
    if (!name.empty()) {
      return InvalidArgument(
          StrCat("special tokens \"", name, "\" and \"", entry.text, "\" have rank ", entry.rank));
    }
    name = entry.text;
  }
  std::unordered_set<std::string_view> seen;
  for (size_t id = 0; id < file.special.size(); ++id) {
    if (file.special[id].empty()) {
      file.special[id] = StrCat("<SPECIAL_", id, ">");
    }
    if (!seen.insert(file.special[id]).second) {
      return InvalidArgument(StrCat("special token \"", file.special[id], "\" stands twice"));
    }
  }
  return Status::Ok();
}
}  // namespace

Result<TekkenFile> ParseTekkenFile(std::string_view content) {
  MFT_ASSIGN_OR_RETURN(TekkenDocument document, ParseTekkenJson(content));
  if (!document.config.is_object()) {
    return InvalidArgument("no \"config\" object");
  }
  TekkenFile file;
  int64_t num_special = 0;
  MFT_RETURN_IF_ERROR(ReadConfig(document.config, file, num_special).WithContext("config"));
  MFT_RETURN_IF_ERROR(ReadVocabulary(document.vocab, file.vocab_size - num_special, file));
  MFT_RETURN_IF_ERROR(ReadSpecial(document, num_special, file));
  file.model_settings = std::move(document.model_settings);
  if (!file.model_settings.is_null() && file.version < TokenizerVersion::kV15) {
    return InvalidArgument(StrCat("model_settings_builder is of v15, the file is ",
                                  TokenizerVersionName(file.version)));
  }
  return file;
}

}  // namespace mft
