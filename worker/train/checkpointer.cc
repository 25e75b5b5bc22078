// SPDX-License-Identifier: Apache-2.0
#include "worker/train/checkpointer.h"

#include <array>
#include <optional>
#include <string_view>
#include <vector>

#include "common/base/files.h"
#include "common/base/strings.h"
#include "common/checkpoint/safetensors.h"
#include "worker/export/adapter_export.h"
#include "worker/export/export_model.h"
#include "worker/export/merged_model.h"
#include "worker/model/adapter_file.h"

namespace mft {

namespace {
constexpr std::string_view kOptimizerFile = "state/optimizer.safetensors";

// One tensor in the optimizer's file for each part of each trainable tensor.
struct Part {
  std::string_view suffix;
  std::span<float> arena;
};
std::array<Part, 3> Parts(LoraStore& adapters) {
  return {Part{".master", adapters.master()},
          Part{".exp_avg", adapters.moment1()},
          Part{".exp_avg_sq", adapters.moment2()}};
}

void AddArena(const LoraStore& adapters, const Part& part, std::vector<TensorToWrite>& out) {
  for (const LoraStore::Tensor& tensor : adapters.tensors()) {
    out.push_back(
        {.name = StrCat(tensor.name, part.suffix),
         .dtype = DType::kF32,
         .shape = {tensor.rows, tensor.cols},
         .data = std::as_bytes(part.arena.subspan(
             static_cast<size_t>(tensor.offset), static_cast<size_t>(tensor.rows * tensor.cols)))});
  }
}

Status WriteOptimizerState(const std::string& path, LoraStore& adapters) {
  std::vector<TensorToWrite> tensors;
  for (const Part& part : Parts(adapters)) {
    AddArena(adapters, part, tensors);
  }
  return WriteSafetensors(path, std::move(tensors));
}
}  // namespace

Status WriteCheckpointFiles(const std::string& directory, const CheckpointContents& contents) {
  const std::string consolidated = JoinPath(directory, "consolidated");
  MFT_RETURN_IF_ERROR(MakeDirs(consolidated));
  const bool merged = !contents.base_weights.empty();
  MFT_RETURN_IF_ERROR(merged ? WriteMergedModel(JoinPath(consolidated, "consolidated.safetensors"),
                                                contents.base_weights,
                                                contents.model,
                                                contents.adapters,
                                                std::nullopt)
                             : WriteAdapter(JoinPath(consolidated, "lora.safetensors"),
                                            contents.adapters,
                                            contents.adapter_dtype));
  MFT_RETURN_IF_ERROR(
      WriteFileAtomic(JoinPath(consolidated, "params.json"),
                      ModelParamsToJson(contents.model, merged ? nullptr : &contents.lora)));
  if (!contents.tokenizer_file.empty()) {
    MFT_RETURN_IF_ERROR(CopyTokenizer(contents.tokenizer_file, consolidated));
  }
  MFT_RETURN_IF_ERROR(MakeDirs(JoinPath(directory, "state")));
  MFT_RETURN_IF_ERROR(WriteOptimizerState(JoinPath(directory, kOptimizerFile), contents.adapters));
  return WriteFileAtomic(JoinPath(directory, "state/state.json"),
                         RunStateToJson(contents.state).dump(2) + "\n");
}

Status ReadOptimizerState(const std::string& checkpoint_dir, LoraStore& adapters) {
  MFT_ASSIGN_OR_RETURN(const auto file,
                       SafetensorsFile::Open(JoinPath(checkpoint_dir, kOptimizerFile)));
  const auto parts = Parts(adapters);
  for (const Part& part : parts) {
    const Status status = ReadArena(*file, adapters, part.suffix, part.arena);
    if (!status.ok()) {
      return FailedPrecondition(StrCat(status.message(), ": the checkpoint is of another adapter"));
    }
  }
  const size_t expected = parts.size() * adapters.tensors().size();
  if (file->tensors().size() != expected) {
    return FailedPrecondition(StrCat(file->path(),
                                     ": ",
                                     file->tensors().size(),
                                     " tensors, this job has ",
                                     expected,
                                     ": the checkpoint is of another adapter"));
  }
  return Status::Ok();
}

}  // namespace mft
