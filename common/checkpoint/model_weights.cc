// SPDX-License-Identifier: Apache-2.0
#include "common/checkpoint/model_weights.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <optional>
#include <set>
#include <string_view>
#include <utility>

#include "common/base/files.h"
#include "common/base/ids.h"
#include "common/base/strings.h"
#include "common/checkpoint/hf_layout.h"

namespace mft {

namespace {
constexpr size_t kMaxListed = 5;
constexpr std::string_view kSuffix = ".safetensors";
constexpr std::string_view kWeight = ".weight";
constexpr std::string_view kEmbeddings = "tok_embeddings.weight";
constexpr int kMaxShards = 10'000;

// "consolidated-00002-of-00003.safetensors" with stem "consolidated": {2, 3}.
std::optional<std::pair<int, int>> ShardOf(const std::string& name, const std::string& stem) {
  int index = 0;
  int count = 0;
  int end = 0;
  const std::string rest = name.starts_with(stem + "-") ? name.substr(stem.size()) : std::string();
  if (std::sscanf(rest.c_str(), "-%5d-of-%5d.safetensors%n", &index, &count, &end) != 2 ||
      static_cast<size_t>(end) != rest.size() || count < 1 || count > kMaxShards) {
    return std::nullopt;
  }
  return std::pair(index, count);
}

// All shards of a stem, or none.
Result<std::vector<std::string>> Shards(const std::string& model_dir,
                                        const std::vector<std::string>& names,
                                        const std::string& stem) {
  std::map<int, std::string> shards;
  int count = 0;
  for (const std::string& name : names) {
    const auto shard = ShardOf(name, stem);
    if (!shard.has_value()) {
      continue;
    }
    if (count != 0 && shard->second != count) {
      return InvalidArgument(StrCat(JoinPath(model_dir, name),
                                    ": is one of ",
                                    shard->second,
                                    " files, and ",
                                    shards.begin()->second,
                                    " one of ",
                                    count,
                                    ": they belong to different models"));
    }
    count = shard->second;
    shards.emplace(shard->first, name);
  }
  std::vector<std::string> paths;
  for (int index = 1; index <= count; ++index) {
    const auto shard = shards.find(index);
    if (shard == shards.end()) {
      char name[64];
      std::snprintf(name, sizeof name, "-%05d-of-%05d.safetensors", index, count);
      return InvalidArgument(
          StrCat(JoinPath(model_dir, stem + name), ": no such file, but others of its set are"));
    }
    paths.push_back(JoinPath(model_dir, shard->second));
  }
  return paths;
}

Status SayWhatElseThereIs(const std::string& model_dir, const std::vector<std::string>& names) {
  for (const std::string& name : names) {
    if (name.ends_with(".pth") || name.ends_with(".pt") || name.ends_with(".bin")) {
      return Unimplemented(StrCat(
          JoinPath(model_dir, name),
          ": pickled weights can run code and are not read; convert them, in that directory: "
          "python3 "
          "-c \"import torch; from safetensors.torch import save_file; save_file({k: "
          "v.contiguous() "
          "for k, v in torch.load('",
          name,
          "', map_location='cpu', weights_only=True).items()}, '",
          name.ends_with(".bin") ? "model" : "consolidated",
          ".safetensors')\""));
    }
    if (name.ends_with(kSuffix)) {
      return Unimplemented(
          StrCat(JoinPath(model_dir, name),
                 ": weights are read from consolidated.safetensors, "
                 "model.safetensors, or shards like "
                 "model-00001-of-00002.safetensors, not from a file of this name"));
    }
  }
  return NotFound(StrCat(JoinPath(model_dir, "consolidated.safetensors"),
                         ": no such file; the model directory needs params.json or config.json, "
                         "weights in safetensors files and a tokenizer"));
}

// Of the file's names those of Mistral. Old files have constants of the rotary embeddings too, and
// tied models sometimes their output.
std::string HfName(const std::string& mistral) {
  return HfModule(mistral.substr(0, mistral.size() - kWeight.size())) + std::string(kWeight);
}
bool IsIgnored(const std::string& name, const ModelParams& params) {
  return name.ends_with(".rotary_emb.inv_freq") ||
         (params.tied_embeddings && (name == "lm_head.weight" || name == "output.weight"));
}
}  // namespace

Result<WeightFiles> FindWeightFiles(const std::string& model_dir) {
  MFT_ASSIGN_OR_RETURN(const auto names, ListDir(model_dir));
  for (const char* stem : {"consolidated", "model"}) {
    const bool hugging_face = std::string_view(stem) == "model";
    const std::string one = StrCat(stem, kSuffix);
    if (std::find(names.begin(), names.end(), one) != names.end()) {
      return WeightFiles{{JoinPath(model_dir, one)}, hugging_face};
    }
    MFT_ASSIGN_OR_RETURN(std::vector<std::string> shards, Shards(model_dir, names, stem));
    if (!shards.empty()) {
      return WeightFiles{std::move(shards), hugging_face};
    }
  }
  return SayWhatElseThereIs(model_dir, names);
}

Result<int64_t> WeightFileBytes(const std::string& model_dir) {
  MFT_ASSIGN_OR_RETURN(const WeightFiles files, FindWeightFiles(model_dir));
  int64_t bytes = 0;
  for (const std::string& path : files.paths) {
    MFT_ASSIGN_OR_RETURN(const int64_t size, FileSize(path));
    bytes += size;
  }
  return bytes;
}

Status CheckTensors(const std::string& where,
                    const std::map<std::string, TensorEntry>& tensors,
                    const std::vector<TensorShape>& expected) {
  std::vector<std::string> problems;  // the first few
  size_t count = 0;
  const auto report = [&](const auto&... parts) {
    if (++count <= kMaxListed) {
      problems.push_back(StrCat(parts...));
    }
  };
  std::set<std::string_view> known;
  for (const TensorShape& want : expected) {
    known.insert(want.name);
    const auto found = tensors.find(want.name);
    if (found == tensors.end()) {
      report(want.name, " is missing");
      continue;
    }
    const TensorEntry& tensor = found->second;
    if (tensor.shape != want.shape) {
      report(want.name,
             " has shape ",
             FormatShape(tensor.shape),
             ", expected ",
             FormatShape(want.shape));
    } else if (tensor.dtype != DType::kF32 && tensor.dtype != DType::kBF16 &&
               tensor.dtype != DType::kF16) {
      report(want.name, " has dtype ", DTypeName(tensor.dtype), ", expected BF16, F16 or F32");
    }
  }
  for (const auto& [name, tensor] : tensors) {
    if (!known.contains(name)) {
      report(Printable(name, 120), " has no place in this model");
    }
  }
  if (count == 0) {
    return Status::Ok();
  }
  return {Code::kInvalidArgument,
          "TENSOR_MISMATCH",
          StrCat(where,
                 ": ",
                 Join(problems, "; "),
                 count > kMaxListed ? StrCat("; and ", count - kMaxListed, " more") : "")};
}

Status ModelWeights::Add(const SafetensorsFile& file,
                         const std::map<std::string, std::string>& names) {
  for (const TensorEntry& tensor : file.tensors()) {
    if (IsIgnored(tensor.name, params_)) {
      continue;
    }
    const auto known = names.find(tensor.name);
    TensorEntry entry = tensor;
    entry.name = known == names.end() ? tensor.name : known->second;
    const std::string name = entry.name;
    if (!tensors_.emplace(name, std::move(entry)).second) {
      return {Code::kInvalidArgument,
              "TENSOR_MISMATCH",
              StrCat(file.path(), ": ", Printable(tensor.name, 120), " is in another file too")};
    }
  }
  return Status::Ok();
}

Result<std::shared_ptr<const ModelWeights>> ModelWeights::Open(const std::string& model_dir,
                                                               const ModelParams& params) {
  MFT_ASSIGN_OR_RETURN(const WeightFiles files, FindWeightFiles(model_dir));
  const std::vector<TensorShape> expected = ModelTensors(params);
  std::shared_ptr<ModelWeights> weights(new ModelWeights());
  weights->params_ = params;
  weights->hugging_face_ = files.hugging_face;
  std::map<std::string, std::string> names;  // of the file's, those of Mistral
  for (const TensorShape& tensor : expected) {
    names.emplace(files.hugging_face ? HfName(tensor.name) : tensor.name, tensor.name);
  }
  for (const std::string& path : files.paths) {
    MFT_ASSIGN_OR_RETURN(auto file, SafetensorsFile::Open(path));
    MFT_RETURN_IF_ERROR(weights->Add(*file, names));
    weights->files_.push_back(std::move(file));
  }
  MFT_RETURN_IF_ERROR(CheckTensors(
      files.paths.size() == 1 ? files.paths.front() : model_dir, weights->tensors_, expected));
  return std::shared_ptr<const ModelWeights>(std::move(weights));
}

const TensorEntry& ModelWeights::At(const std::string& name) const {
  const auto found = tensors_.find(name);
  MFT_CHECK(found != tensors_.end(), name);
  return found->second;
}

bool ModelWeights::is_bf16() const {
  return At(std::string(kEmbeddings)).dtype == DType::kBF16;
}

std::string ModelWeights::Fingerprint() const {
  constexpr size_t kSample = 256;
  Sha256 hash;
  for (const auto& [name, tensor] : tensors_) {
    hash.Update(StrCat(name, " ", DTypeName(tensor.dtype), " ", FormatShape(tensor.shape), "\n"));
    const size_t size = tensor.data.size();
    const size_t last = size > kSample ? size - kSample : 0;
    for (const size_t begin : {size_t{0}, last / 2, last}) {
      const auto sample = tensor.data.subspan(begin, std::min(kSample, size - begin));
      hash.Update({reinterpret_cast<const char*>(sample.data()), sample.size()});
    }
    DropPages(tensor.data);  // each sample brought its neighbours along
  }
  return hash.FinishHex();
}

bool ModelWeights::IsReordered(const std::string& name) const {
  return hugging_face_ && name.ends_with(kWeight) &&
         RotaryHeads(params_, name.substr(0, name.size() - kWeight.size())) > 0;
}

void ModelWeights::CopyRows(const std::string& name, std::byte* to) const {
  CopyBytes(name, 0, {to, At(name).data.size()});
}

void ModelWeights::CopyBytes(const std::string& name, size_t begin, std::span<std::byte> to) const {
  const TensorEntry& tensor = At(name);
  if (to.empty() || !IsReordered(name)) {
    std::ranges::copy(tensor.data.subspan(begin, to.size()), to.begin());
    return;
  }
  const size_t end = begin + to.size();
  const auto row_bytes = tensor.data.size() / static_cast<size_t>(tensor.shape[0]);
  // Rows change places within their heads.
  const size_t head_bytes = static_cast<size_t>(params_.head_dim) * row_bytes;
  const size_t first_row = begin / head_bytes * static_cast<size_t>(params_.head_dim);
  for (size_t row = first_row; row / static_cast<size_t>(params_.head_dim) * head_bytes < end;
       ++row) {
    const size_t at =
        static_cast<size_t>(MistralRow(params_.head_dim, static_cast<int64_t>(row))) * row_bytes;
    const size_t first = std::max(at, begin);
    const size_t last = std::min(at + row_bytes, end);
    if (first < last) {
      std::memcpy(to.data() + (first - begin),
                  tensor.data.data() + row * row_bytes + (first - at),
                  last - first);
    }
  }
}

TensorEntry ModelWeights::InOrder(const std::string& name, std::vector<std::byte>& buffer) const {
  TensorEntry tensor = At(name);
  if (IsReordered(name)) {
    buffer.resize(tensor.data.size());
    CopyRows(name, buffer.data());
    tensor.data = buffer;
  }
  return tensor;
}

}  // namespace mft
