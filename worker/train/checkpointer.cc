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
constexpr std::string_view kOtherWeights =
    ": the checkpoint has other trained weights (lora.enable, lora.rank or mftd.target_modules "
    "differ)";

// One tensor in the optimizer's file for each part of each trainable tensor.
struct Part {
  std::string_view suffix;
  std::span<float> arena;
};
std::array<Part, 3> Parts(ParamStore& trained) {
  return {Part{".master", trained.master()},
          Part{".exp_avg", trained.moment1()},
          Part{".exp_avg_sq", trained.moment2()}};
}

void AddArena(const ParamStore& trained, const Part& part, std::vector<TensorToWrite>& out) {
  for (const ParamStore::Tensor& tensor : trained.tensors()) {
    out.push_back({.name = StrCat(tensor.name, part.suffix),
                   .dtype = DType::kF32,
                   .shape = tensor.shape(),
                   .data = std::as_bytes(ParamStore::Part(part.arena, tensor))});
  }
}

Status WriteOptimizerState(const std::string& path, ParamStore& trained) {
  std::vector<TensorToWrite> tensors;
  for (const Part& part : Parts(trained)) {
    AddArena(trained, part, tensors);
  }
  return WriteSafetensors(path, std::move(tensors));
}

Status WriteWeights(const std::string& consolidated, const CheckpointContents& contents) {
  const std::string model = JoinPath(consolidated, "consolidated.safetensors");
  if (contents.adapters == nullptr) {
    return WriteParameters(model, contents.trained, contents.trained_dtype);
  }
  if (!contents.merge_into.empty()) {
    return WriteMergedModel(
        model, contents.merge_into, contents.model, *contents.adapters, std::nullopt);
  }
  return WriteParameters(
      JoinPath(consolidated, "lora.safetensors"), contents.trained, contents.trained_dtype);
}
}  // namespace

Status WriteCheckpointFiles(const std::string& directory, const CheckpointContents& contents) {
  const std::string consolidated = JoinPath(directory, "consolidated");
  MFT_RETURN_IF_ERROR(MakeDirs(consolidated));
  MFT_RETURN_IF_ERROR(WriteWeights(consolidated, contents));
  const bool whole = contents.adapters == nullptr || !contents.merge_into.empty();
  MFT_RETURN_IF_ERROR(
      WriteFileAtomic(JoinPath(consolidated, "params.json"),
                      ModelParamsToJson(contents.model, whole ? nullptr : &contents.lora)));
  if (!contents.tokenizer_file.empty()) {
    MFT_RETURN_IF_ERROR(CopyTokenizer(contents.tokenizer_file, consolidated));
  }
  MFT_RETURN_IF_ERROR(MakeDirs(JoinPath(directory, "state")));
  MFT_RETURN_IF_ERROR(WriteOptimizerState(JoinPath(directory, kOptimizerFile), contents.trained));
  return WriteFileAtomic(JoinPath(directory, "state/state.json"),
                         RunStateToJson(contents.state).dump(2) + "\n");
}

Status ReadOptimizerState(const std::string& checkpoint_dir, ParamStore& trained) {
  MFT_ASSIGN_OR_RETURN(const auto file,
                       SafetensorsFile::Open(JoinPath(checkpoint_dir, kOptimizerFile)));
  const auto parts = Parts(trained);
  for (const Part& part : parts) {
    const Status status = ReadArena(*file, trained, part.suffix, part.arena);
    if (!status.ok()) {
      return FailedPrecondition(StrCat(status.message(), kOtherWeights));
    }
  }
  const size_t expected = parts.size() * trained.tensors().size();
  if (file->tensors().size() != expected) {
    return FailedPrecondition(StrCat(file->path(),
                                     ": ",
                                     file->tensors().size(),
                                     " tensors, this job has ",
                                     expected,
                                     kOtherWeights));
  }
  return Status::Ok();
}

}  // namespace mft
