// SPDX-License-Identifier: Apache-2.0
#include "worker/export/export_model.h"

#include <filesystem>
#include <utility>

#include "common/base/files.h"
#include "common/base/json.h"
#include "common/base/strings.h"
#include "common/checkpoint/hf_layout.h"
#include "worker/export/adapter_export.h"
#include "worker/export/hf_export.h"
#include "worker/export/merged_model.h"

namespace mft {

namespace {
constexpr size_t kMaxTokenizerBytes = size_t{64} << 20;

Status CopyTokenizerOf(const ExportSource& source, const std::string& directory) {
  return source.tokenizer_file.empty() ? Status::Ok()
                                       : CopyTokenizer(source.tokenizer_file, directory);
}

Status ExportMistral(const ExportSource& source, const std::string& directory) {
  MFT_RETURN_IF_ERROR(WriteParameters(
      JoinPath(directory, "lora.safetensors"), source.adapters, source.adapter_dtype));
  const LoraParams lora{.rank = source.adapters.options().rank,
                        .dropout = source.dropout,
                        .scaling = source.adapters.options().scaling};
  MFT_RETURN_IF_ERROR(
      WriteFileAtomic(JoinPath(directory, "params.json"), ModelParamsToJson(source.model, &lora)));
  return CopyTokenizerOf(source, directory);
}

Status ExportMerged(const ExportSource& source, const std::string& directory) {
  MFT_RETURN_IF_ERROR(WriteMergedModel(JoinPath(directory, "consolidated.safetensors"),
                                       source.model_dir,
                                       source.model,
                                       source.adapters,
                                       source.merged_dtype));
  MFT_ASSIGN_OR_RETURN(const std::string params, DerivedParamsJson(source.model_dir, source.model));
  MFT_RETURN_IF_ERROR(WriteFileAtomic(JoinPath(directory, "params.json"), params));
  return CopyTokenizerOf(source, directory);
}
}  // namespace

Status WriteExport(std::string_view format,
                   const ExportSource& source,
                   const std::string& directory) {
  if (format == "mistral") {
    return ExportMistral(source, directory);
  }
  if (format == "peft") {
    return WritePeftAdapter(
        directory,
        source.model,
        source.adapters,
        {.dtype = source.adapter_dtype, .dropout = source.dropout, .base_model = source.base_name});
  }
  if (format == "merged") {
    return ExportMerged(source, directory);
  }
  MFT_CHECK(format == "hf", std::string(format));
  return WriteHuggingFaceModel(source, directory);
}

Status CopyTokenizer(const std::string& file,
                     const std::string& directory,
                     const std::string& name) {
  MFT_ASSIGN_OR_RETURN(const std::string bytes, ReadFile(file, kMaxTokenizerBytes));
  const std::string own = std::filesystem::path(file).filename().string();
  return WriteFileAtomic(JoinPath(directory, name.empty() ? own : name), bytes);
}

}  // namespace mft
