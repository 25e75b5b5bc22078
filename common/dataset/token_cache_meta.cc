// SPDX-License-Identifier: Apache-2.0
#include "common/dataset/token_cache_meta.h"

#include <cmath>
#include <optional>
#include <utility>

#include "common/base/json.h"
#include "common/base/strings.h"

namespace mft {
namespace {

std::optional<SourceKind> KindFromName(std::string_view name) {
  for (const SourceKind kind : {SourceKind::kText, SourceKind::kInstruct, SourceKind::kEval}) {
    if (name == SourceKindName(kind)) {
      return kind;
    }
  }
  return std::nullopt;
}

Json ToJson(const CachedFile& file) {
  Json warnings = Json::array();
  for (const LineWarning& warning : file.warnings) {
    warnings.push_back({{"line", warning.line}, {"text", warning.text}});
  }
  return {{"path", file.path},
          {"samples", file.samples},
          {"line_samples", file.line_samples},
          {"num_warnings", file.num_warnings},
          {"warnings", std::move(warnings)}};
}

Json ToJson(const SourceInfo& source) {
  Json files = Json::array();
  for (const CachedFile& file : source.files) {
    files.push_back(ToJson(file));
  }
  return {{"path", source.path},
          {"kind", SourceKindName(source.kind)},
          {"weight", source.weight},
          {"samples", source.samples},
          {"tokens", source.tokens},
          {"loss_tokens", source.loss_tokens},
          {"files", std::move(files)}};
}

// The member `key`, which must be a list.
Result<const Json*> List(const Json& json, const char* key) {
  const auto list = json.find(key);
  if (list == json.end() || !list->is_array()) {
    return DataLoss(StrCat("no list of ", key));
  }
  return &*list;
}

Result<CachedFile> ReadCachedFile(const Json& json) {
  CachedFile file;
  MFT_ASSIGN_OR_RETURN(file.path, GetString(json, "path"));
  MFT_ASSIGN_OR_RETURN(file.samples, GetInt(json, "samples"));
  MFT_ASSIGN_OR_RETURN(file.line_samples, GetInt(json, "line_samples"));
  MFT_ASSIGN_OR_RETURN(file.num_warnings, GetInt(json, "num_warnings"));
  MFT_ASSIGN_OR_RETURN(const Json* warnings, List(json, "warnings"));
  for (const Json& item : *warnings) {
    LineWarning warning;
    MFT_ASSIGN_OR_RETURN(warning.line, GetInt(item, "line"));
    MFT_ASSIGN_OR_RETURN(warning.text, GetString(item, "text"));
    file.warnings.push_back(std::move(warning));
  }
  return file;
}

Status ReadFiles(const Json& json, SourceInfo& source) {
  MFT_ASSIGN_OR_RETURN(const Json* files, List(json, "files"));
  int64_t next = 0;
  for (const Json& item : *files) {
    MFT_ASSIGN_OR_RETURN(CachedFile file, ReadCachedFile(item));
    file.first_sample = next;
    if (file.samples < 0 || file.samples > source.samples - next || file.line_samples < 0 ||
        file.line_samples > file.samples ||
        file.num_warnings < static_cast<int64_t>(file.warnings.size())) {
      return DataLoss(StrCat("file counts of source ", source.path, " are inconsistent"));
    }
    next += file.samples;
    source.files.push_back(std::move(file));
  }
  if (next != source.samples) {
    return DataLoss(StrCat(
        "the files of source ", source.path, " hold ", next, " samples, not ", source.samples));
  }
  return Status::Ok();
}

Result<SourceInfo> ReadSource(const Json& json) {
  SourceInfo source;
  MFT_ASSIGN_OR_RETURN(source.path, GetString(json, "path"));
  MFT_ASSIGN_OR_RETURN(const std::string kind, GetString(json, "kind"));
  MFT_ASSIGN_OR_RETURN(source.weight, GetDouble(json, "weight"));
  MFT_ASSIGN_OR_RETURN(source.samples, GetInt(json, "samples"));
  MFT_ASSIGN_OR_RETURN(source.tokens, GetInt(json, "tokens"));
  MFT_ASSIGN_OR_RETURN(source.loss_tokens, GetInt(json, "loss_tokens"));
  const std::optional<SourceKind> known = KindFromName(kind);
  if (!known.has_value()) {
    return DataLoss(StrCat("source of unknown kind '", Printable(kind, 40), "'"));
  }
  source.kind = *known;
  if (!std::isfinite(source.weight) || source.weight <= 0 || source.samples < 0) {
    return DataLoss(StrCat("source ",
                           source.path,
                           " has weight ",
                           source.weight,
                           " and ",
                           source.samples,
                           " samples"));
  }
  MFT_RETURN_IF_ERROR(ReadFiles(json, source));
  return source;
}

Result<TokenCacheMeta> Read(std::string_view text) {
  MFT_ASSIGN_OR_RETURN(const Json json, ParseJson(text));
  TokenCacheMeta meta;
  MFT_ASSIGN_OR_RETURN(meta.content_key, GetString(json, "content_key"));
  MFT_ASSIGN_OR_RETURN(const Json* sources, List(json, "sources"));
  for (const Json& item : *sources) {
    MFT_ASSIGN_OR_RETURN(SourceInfo source, ReadSource(item));
    const bool training_after_eval =
        !meta.sources.empty() && source.kind < meta.sources.back().kind;
    if (training_after_eval) {
      return DataLoss("sources out of order");
    }
    meta.sources.push_back(std::move(source));
  }
  return meta;
}

}  // namespace

std::string_view SourceKindName(SourceKind kind) {
  switch (kind) {
    case SourceKind::kText:
      return "text";
    case SourceKind::kInstruct:
      return "instruct";
    case SourceKind::kEval:
      return "eval";
  }
  return "";
}

std::string TokenCacheMetaText(const TokenCacheMeta& meta) {
  Json sources = Json::array();
  for (const SourceInfo& source : meta.sources) {
    sources.push_back(ToJson(source));
  }
  return DumpJson({{"content_key", meta.content_key}, {"sources", std::move(sources)}});
}

Result<TokenCacheMeta> ParseTokenCacheMeta(std::string_view text) {
  Result<TokenCacheMeta> meta = Read(text);
  return meta.ok() ? std::move(meta) : DataLoss(meta.status().message());
}

}  // namespace mft
