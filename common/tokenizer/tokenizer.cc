// SPDX-License-Identifier: Apache-2.0
#include "common/tokenizer/tokenizer.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <optional>

#include "common/base/files.h"
#include "common/base/strings.h"
#include "common/tokenizer/sentencepiece_tokenizer.h"
#include "common/tokenizer/tekken_tokenizer.h"

namespace mft {

namespace {
struct VersionName {
  std::string_view name;
  TokenizerVersion version;
};
constexpr std::array kVersions = {VersionName{"v1", TokenizerVersion::kV1},
                                  VersionName{"v2", TokenizerVersion::kV2},
                                  VersionName{"v3", TokenizerVersion::kV3},
                                  VersionName{"v7", TokenizerVersion::kV7},
                                  VersionName{"v11", TokenizerVersion::kV11},
                                  VersionName{"v13", TokenizerVersion::kV13},
                                  VersionName{"v15", TokenizerVersion::kV15}};

bool IsTekkenName(const std::string& name) {
  return name.find("tekken") != std::string::npos && name.ends_with(".json");
}

// formats.md 1.2: "x.model" is v1, "x.model.v3" and "x.model.v7m1" name their version.
std::optional<TokenizerVersion> SentencePieceVersion(const std::string& name) {
  if (name.ends_with(".model")) {
    return TokenizerVersion::kV1;
  }
  const size_t dot = name.rfind(".model.");
  if (dot == std::string::npos) {
    return std::nullopt;
  }
  std::string_view suffix = std::string_view(name).substr(dot + 7);
  if (suffix.ends_with("m1")) {
    suffix.remove_suffix(2);
  }
  return ParseTokenizerVersion(suffix);
}

std::string FileName(const std::string& path) {
  return std::filesystem::path(path).filename().string();
}
}  // namespace

std::string_view TokenizerVersionName(TokenizerVersion version) {
  for (const VersionName& entry : kVersions) {
    if (entry.version == version) {
      return entry.name;
    }
  }
  return "?";
}

std::optional<TokenizerVersion> ParseTokenizerVersion(std::string_view name) {
  for (const VersionName& entry : kVersions) {
    if (entry.name == name) {
      return entry.version;
    }
  }
  return std::nullopt;
}

Result<std::string> Tokenizer::Decode(std::span<const int32_t> ids, SpecialTokens special) const {
  for (const int32_t id : ids) {
    if (id < 0 || id >= vocab_size()) {
      return InvalidArgument(
          StrCat("token id ", id, " is outside the vocabulary of ", vocab_size()));
    }
    if (special == SpecialTokens::kRefuse && IsSpecial(id)) {
      return Status(Code::kInvalidArgument,
                    "ValueError",
                    StrCat("token id ", id, " is a special token, which the text may not have"));
    }
  }
  return DecodeIds(ids, special == SpecialTokens::kKeep);
}

Result<std::unique_ptr<Tokenizer>> LoadTokenizer(const std::string& path) {
  const std::string name = FileName(path);
  if (!PathExists(path)) {
    return NotFound(StrCat(path, ": no such file"));
  }
  if (IsTekkenName(name)) {
    return LoadTekken(path);
  }
  if (const auto version = SentencePieceVersion(name)) {
    return LoadSentencePiece(path, *version);
  }
  return InvalidArgument(StrCat(path,
                                ": not a tokenizer file's name (tekken.json, tokenizer.model or "
                                "tokenizer.model.v1, .v2, .v3, .v7)"));
}

namespace {
// Hugging Face's repositories have the same file twice: with its version, and under the plain name
// that transformers reads.
void RemoveUnversionedCopy(const std::string& model_dir, std::vector<std::string>& names) {
  const std::string plain = "tokenizer.model";
  const auto bytes = ReadFile(JoinPath(model_dir, plain));
  const bool copied =
      bytes.ok() && std::any_of(names.begin(), names.end(), [&](const std::string& name) {
        const auto other = ReadFile(JoinPath(model_dir, name));
        return name != plain && other.ok() && *other == *bytes;
      });
  if (copied) {
    std::erase(names, plain);
  }
}
}  // namespace

Result<std::string> FindTokenizerFile(const std::string& model_dir) {
  MFT_ASSIGN_OR_RETURN(const auto names, ListDir(model_dir));
  std::vector<std::string> found;
  for (const std::string& name : names) {
    if (IsTekkenName(name) || SentencePieceVersion(name)) {
      found.push_back(name);
    }
  }
  if (found.empty()) {
    return NotFound(StrCat(model_dir, ": no tokenizer (tokenizer.model.v3 or the like)"));
  }
  if (found.size() > 1) {
    RemoveUnversionedCopy(model_dir, found);
  }
  if (found.size() > 1) {
    return FailedPrecondition(StrCat(model_dir,
                                     ": several tokenizers (",
                                     Join(found, ", "),
                                     "); keep the one that the model was trained with"));
  }
  return JoinPath(model_dir, found[0]);
}

Result<std::string> FindOptionalTokenizerFile(const std::string& model_dir) {
  Result<std::string> file = FindTokenizerFile(model_dir);
  return !file.ok() && file.status().code() == Code::kNotFound ? Result<std::string>(std::string())
                                                               : std::move(file);
}

}  // namespace mft
