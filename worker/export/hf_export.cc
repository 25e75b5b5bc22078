// SPDX-License-Identifier: Apache-2.0
#include "worker/export/hf_export.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <map>
#include <utility>
#include <vector>

#include "common/base/files.h"
#include "common/base/json.h"
#include "common/base/strings.h"
#include "common/checkpoint/hf_layout.h"
#include "common/checkpoint/model_weights.h"
#include "worker/export/merged_model.h"

namespace mft {

namespace {
const std::map<std::string, std::string> kMetadata = {{"format", "pt"}};  // older readers insist

int64_t BytesOf(const TensorToWrite& tensor) {
  auto bytes = static_cast<int64_t>(DTypeSize(tensor.dtype));
  for (const int64_t size : tensor.shape) {
    bytes *= size;
  }
  return bytes;
}

// In order, each as full as it may be; a tensor above the limit has a file of its own.
std::vector<std::vector<TensorToWrite>> Shards(std::vector<TensorToWrite> tensors, int64_t limit) {
  std::vector<std::vector<TensorToWrite>> shards(1);
  int64_t filled = 0;
  for (TensorToWrite& tensor : tensors) {
    const int64_t bytes = BytesOf(tensor);
    if (!shards.back().empty() && filled + bytes > limit) {
      shards.emplace_back();
      filled = 0;
    }
    filled += bytes;
    shards.back().push_back(std::move(tensor));
  }
  return shards;
}

std::string ShardName(size_t index, size_t count) {
  char name[64];
  std::snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", index + 1, count);
  return name;
}

Status WriteWeights(std::vector<TensorToWrite> tensors,
                    int64_t max_shard_bytes,
                    const std::string& directory) {
  std::vector<std::vector<TensorToWrite>> shards = Shards(std::move(tensors), max_shard_bytes);
  if (shards.size() == 1) {
    return WriteSafetensors(
        JoinPath(directory, "model.safetensors"), std::move(shards.front()), kMetadata);
  }
  int64_t total = 0;
  std::map<std::string, std::string> weight_map;  // sorted by name, as Hugging Face's
  for (size_t i = 0; i < shards.size(); ++i) {
    const std::string name = ShardName(i, shards.size());
    for (const TensorToWrite& tensor : shards[i]) {
      total += BytesOf(tensor);
      weight_map[tensor.name] = name;
    }
    MFT_RETURN_IF_ERROR(
        WriteSafetensors(JoinPath(directory, name), std::move(shards[i]), kMetadata));
  }
  const Json index = {{"metadata", {{"total_size", total}}}, {"weight_map", weight_map}};
  return WriteFileAtomic(JoinPath(directory, "model.safetensors.index.json"), index.dump(2) + "\n");
}

// SentencePiece's file has its plain name there, whatever its version; transformers makes a
// tokenizer of it with these settings (those of the published Mistral models). A Tekken file is
// read by its own name.
Status WriteTokenizer(const std::string& file, const std::string& directory) {
  if (file.empty()) {
    return Status::Ok();
  }
  MFT_RETURN_IF_ERROR(CopyTokenizer(file, directory));
  const std::string name = std::filesystem::path(file).filename().string();
  if (name.ends_with(".json")) {
    return Status::Ok();
  }
  MFT_RETURN_IF_ERROR(CopyTokenizer(file, directory, "tokenizer.model"));
  const Json tokens = {{"bos_token", "<s>"}, {"eos_token", "</s>"}, {"unk_token", "<unk>"}};
  Json config = tokens;
  config["add_bos_token"] = true;
  config["add_eos_token"] = false;
  config["clean_up_tokenization_spaces"] = false;
  config["legacy"] = true;
  config["spaces_between_special_tokens"] = false;
  config["tokenizer_class"] = "LlamaTokenizer";
  MFT_RETURN_IF_ERROR(
      WriteFileAtomic(JoinPath(directory, "special_tokens_map.json"), tokens.dump(2) + "\n"));
  return WriteFileAtomic(JoinPath(directory, "tokenizer_config.json"), config.dump(2) + "\n");
}
}  // namespace

Status WriteHuggingFaceModel(const ExportSource& source, const std::string& directory) {
  MFT_ASSIGN_OR_RETURN(const auto base, ModelWeights::Open(source.model_dir, source.model));
  MFT_ASSIGN_OR_RETURN(
      auto tensors,
      MergedTensors(*base,
                    source.model,
                    source.adapters,
                    {.style = NameStyle::kHuggingFace, .dtype = source.merged_dtype}));
  const DType dtype = tensors.front().dtype;
  // Before the gigabytes: it may be refused.
  MFT_ASSIGN_OR_RETURN(const std::string config,
                       HfConfigJson(source.model_dir, source.model, dtype));
  MFT_RETURN_IF_ERROR(WriteFileAtomic(JoinPath(directory, "config.json"), config));
  MFT_RETURN_IF_ERROR(WriteWeights(std::move(tensors), source.max_shard_bytes, directory));
  const Json generation = {{"bos_token_id", 1}, {"eos_token_id", 2}};
  MFT_RETURN_IF_ERROR(
      WriteFileAtomic(JoinPath(directory, "generation_config.json"), generation.dump(2) + "\n"));
  return WriteTokenizer(source.tokenizer_file, directory);
}

}  // namespace mft
