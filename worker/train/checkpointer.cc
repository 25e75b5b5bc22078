// SPDX-License-Identifier: Apache-2.0
#include "worker/train/checkpointer.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <string_view>
#include <vector>

#include "common/base/files.h"
#include "common/base/strings.h"
#include "common/checkpoint/safetensors.h"
#include "worker/model/adapter_file.h"
#include "worker/model/bf16.h"
#include "worker/train/merged_model.h"

namespace mft {

namespace {
constexpr size_t kMaxTokenizerBytes = size_t{64} << 20;
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

// Adds the tensors of one arena, whose elements may be of another type than the store's.
template <typename T>
void AddArena(const LoraStore& adapters,
              std::string_view suffix,
              DType dtype,
              std::span<const T> arena,
              std::vector<TensorToWrite>& out) {
  for (const LoraStore::Tensor& tensor : adapters.tensors()) {
    out.push_back(
        {.name = StrCat(tensor.name, suffix),
         .dtype = dtype,
         .shape = {tensor.rows, tensor.cols},
         .data = std::as_bytes(arena.subspan(static_cast<size_t>(tensor.offset),
                                             static_cast<size_t>(tensor.rows * tensor.cols)))});
  }
}

Status WriteAdapter(const std::string& path, const CheckpointContents& contents) {
  const std::span<const float> master = contents.adapters.master();
  std::vector<uint16_t> rounded;
  std::vector<TensorToWrite> tensors;
  if (contents.bf16) {
    rounded.resize(master.size());
    std::transform(master.begin(), master.end(), rounded.begin(), Bf16Bits);
    AddArena<uint16_t>(contents.adapters, "", DType::kBF16, rounded, tensors);
  } else {
    AddArena<float>(contents.adapters, "", DType::kF32, master, tensors);
  }
  return WriteSafetensors(path, std::move(tensors));
}

Status WriteOptimizerState(const std::string& path, LoraStore& adapters) {
  std::vector<TensorToWrite> tensors;
  for (const Part& part : Parts(adapters)) {
    AddArena<float>(adapters, part.suffix, DType::kF32, part.arena, tensors);
  }
  return WriteSafetensors(path, std::move(tensors));
}

Status CopyTokenizer(const std::string& from, const std::string& directory) {
  MFT_ASSIGN_OR_RETURN(const std::string bytes, ReadFile(from, kMaxTokenizerBytes));
  const std::string name = std::filesystem::path(from).filename().string();
  return WriteFileAtomic(JoinPath(directory, name), bytes);
}
}  // namespace

Status WriteCheckpointFiles(const std::string& directory, const CheckpointContents& contents) {
  const std::string consolidated = JoinPath(directory, "consolidated");
  MFT_RETURN_IF_ERROR(MakeDirs(consolidated));
  const bool merged = !contents.base_weights.empty();
  MFT_RETURN_IF_ERROR(
      merged ? WriteMergedModel(JoinPath(consolidated, "consolidated.safetensors"), contents)
             : WriteAdapter(JoinPath(consolidated, "lora.safetensors"), contents));
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
