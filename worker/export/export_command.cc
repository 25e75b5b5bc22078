// SPDX-License-Identifier: Apache-2.0
#include "common/base/log.h"
#include "common/base/strings.h"
#include "common/checkpoint/publish_dir.h"
#include "common/tokenizer/tokenizer.h"
#include "worker/export/export_model.h"
#include "worker/model/adapter_file.h"

namespace mft {

namespace {
std::optional<DType> DTypeOf(const std::string& name) {
  return name == "fp32"   ? std::optional(DType::kF32)
         : name == "bf16" ? std::optional(DType::kBF16)
                          : std::nullopt;
}
}  // namespace

Status RunExport(const ExportArgs& args) {
  MFT_ASSIGN_OR_RETURN(const ModelParams params, ReadModelParams(args.model_dir));
  MFT_ASSIGN_OR_RETURN(const AdapterInfo info, InspectAdapter(args.adapter, params));
  const double scaling = args.scaling.value_or(info.scaling.value_or(kDefaultScaling));
  LoraStore adapters(params,
                     {.rank = info.rank,
                      .scaling = scaling,
                      .target_modules = info.target_modules,
                      .training = false});
  MFT_RETURN_IF_ERROR(ReadAdapter(args.adapter, adapters));
  MFT_ASSIGN_OR_RETURN(const std::string tokenizer, FindOptionalTokenizerFile(args.model_dir));
  const std::optional<DType> dtype = DTypeOf(args.dtype);
  const ExportSource source{.adapters = adapters,
                            .model = params,
                            .model_dir = args.model_dir,
                            .base_name = args.base_name.empty() ? args.model_dir : args.base_name,
                            .dropout = info.dropout,
                            .adapter_dtype = dtype.value_or(info.dtype),
                            .merged_dtype = dtype,
                            .tokenizer_file = tokenizer,
                            .max_shard_bytes = args.max_shard_bytes};
  MFT_RETURN_IF_ERROR(PublishDirectory(args.to, IfThere::kFail, [&](const std::string& directory) {
    return WriteExport(args.format, source, directory);
  }));
  LogInfo(StrCat(
      "wrote ", args.to, " (", args.format, ", rank ", info.rank, ", scaling ", scaling, ")"));
  return Status::Ok();
}

}  // namespace mft
