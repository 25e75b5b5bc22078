// SPDX-License-Identifier: Apache-2.0
#include "worker/model/adapter_file.h"

#include <algorithm>
#include <cstring>
#include <filesystem>

#include "common/base/files.h"
#include "common/base/json.h"
#include "common/base/strings.h"
#include "worker/model/tensor_values.h"

namespace mft {

namespace {
constexpr std::string_view kSuffixA = ".lora_A.weight";

std::string ShapeText(const std::vector<int64_t>& shape) {
  return DumpJson(Json(shape));
}

Status CheckEntry(const std::string& path,
                  const std::string& name,
                  const TensorEntry* entry,
                  const std::vector<int64_t>& shape) {
  if (entry == nullptr) {
    return InvalidArgument(StrCat(path, ": has no tensor ", name));
  }
  if (entry->shape != shape) {
    return InvalidArgument(StrCat(
        path, ": ", name, " is ", ShapeText(entry->shape), ", needed is ", ShapeText(shape)));
  }
  if (entry->dtype != DType::kF32 && entry->dtype != DType::kBF16) {
    return InvalidArgument(StrCat(
        path, ": ", name, " is ", DTypeName(entry->dtype), ", which is neither F32 nor BF16"));
  }
  return Status::Ok();
}
}  // namespace

std::string AdapterFile(const std::string& path) {
  if (!IsDirectory(path)) {
    return path;
  }
  const std::string direct = JoinPath(path, "lora.safetensors");
  return PathExists(direct) ? direct : JoinPath(path, "consolidated/lora.safetensors");
}

Result<AdapterInfo> InspectAdapter(const std::string& path, const ModelParams& params) {
  const std::string file_path = AdapterFile(path);
  MFT_ASSIGN_OR_RETURN(const auto file, SafetensorsFile::Open(file_path));
  AdapterInfo info;
  for (const char* module : {"wq", "wk", "wv", "wo", "w1", "w2", "w3"}) {
    const TensorEntry* a = file->Find(StrCat(ProjectionNames(params, 0, module).front(), kSuffixA));
    if (a != nullptr) {
      info.target_modules.emplace_back(module);
      info.rank = a->shape.empty() ? 0 : a->shape[0];
      info.dtype = a->dtype;
    }
  }
  if (info.rank < 1) {
    return InvalidArgument(
        StrCat(file_path, ": is no adapter of this model (layers.0 has no lora_A)"));
  }
  const auto expected = LoraTensors(params, info.rank, info.target_modules);
  for (const TensorShape& tensor : expected) {
    MFT_RETURN_IF_ERROR(CheckEntry(file_path, tensor.name, file->Find(tensor.name), tensor.shape));
  }
  if (file->tensors().size() != expected.size()) {
    return InvalidArgument(StrCat(file_path,
                                  ": ",
                                  file->tensors().size(),
                                  " tensors, this model's adapter of rank ",
                                  info.rank,
                                  " has ",
                                  expected.size()));
  }
  const std::string directory =
      std::filesystem::path(AbsolutePath(file_path)).parent_path().string();
  if (PathExists(JoinPath(directory, "params.json"))) {
    MFT_ASSIGN_OR_RETURN(const auto lora, ReadLoraParams(directory));
    if (lora.has_value()) {
      info.scaling = lora->scaling;
      info.dropout = lora->dropout;
    }
  }
  return info;
}

Status ReadArena(const SafetensorsFile& file,
                 const ParamStore& store,
                 std::string_view suffix,
                 std::span<float> arena) {
  for (const ParamStore::Tensor& tensor : store.tensors()) {
    const std::string name = StrCat(tensor.name, suffix);
    const TensorEntry* entry = file.Find(name);
    MFT_RETURN_IF_ERROR(CheckEntry(file.path(), name, entry, tensor.shape()));
    ReadValues(*entry, ParamStore::Part(arena, tensor));
  }
  return Status::Ok();
}

Status ReadAdapter(const std::string& path, LoraStore& store) {
  MFT_ASSIGN_OR_RETURN(const auto file, SafetensorsFile::Open(AdapterFile(path)));
  MFT_RETURN_IF_ERROR(ReadArena(*file, store, "", store.master()));
  if (file->tensors().size() != store.tensors().size()) {
    return InvalidArgument(StrCat(file->path(),
                                  ": ",
                                  file->tensors().size(),
                                  " tensors, ",
                                  store.tensors().size(),
                                  " are needed (other target modules or layers?)"));
  }
  return Status::Ok();
}

}  // namespace mft
