// SPDX-License-Identifier: Apache-2.0
#include "common/checkpoint/model_files.h"

#include <set>

#include "common/base/files.h"
#include "common/base/strings.h"

namespace mft {

namespace {
constexpr size_t kMaxListed = 5;
}  // namespace

Result<std::string> FindModelWeights(const std::string& model_dir) {
  std::string path = JoinPath(model_dir, "consolidated.safetensors");
  if (PathExists(path)) {
    return path;
  }
  MFT_ASSIGN_OR_RETURN(const auto names, ListDir(model_dir));
  for (const std::string& name : names) {
    if (name.ends_with(".pth") || name.ends_with(".pt")) {
      return Unimplemented(StrCat(
          JoinPath(model_dir, name),
          ": pickled weights can run code and are not read; convert them, in that directory: "
          "python3 "
          "-c \"import torch; from safetensors.torch import save_file; save_file({k: "
          "v.contiguous() "
          "for k, v in torch.load('",
          name,
          "', map_location='cpu', weights_only=True).items()}, 'consolidated.safetensors')\""));
    }
    if (name.ends_with(".safetensors")) {
      return Unimplemented(
          StrCat(JoinPath(model_dir, name),
                 ": sharded or Hugging Face weights are not read by this version; ",
                 "it needs one consolidated.safetensors"));
    }
  }
  return NotFound(StrCat(path,
                         ": no such file; the model directory needs params.json, "
                         "consolidated.safetensors and a tokenizer"));
}

Status CheckTensors(const SafetensorsFile& file, const std::vector<TensorShape>& expected) {
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
    const TensorEntry* tensor = file.Find(want.name);
    if (tensor == nullptr) {
      report(want.name, " is missing");
    } else if (tensor->shape != want.shape) {
      report(want.name,
             " has shape ",
             FormatShape(tensor->shape),
             ", expected ",
             FormatShape(want.shape));
    } else if (tensor->dtype != DType::kF32 && tensor->dtype != DType::kBF16) {
      report(want.name, " has dtype ", DTypeName(tensor->dtype), ", expected BF16 or F32");
    }
  }
  for (const TensorEntry& tensor : file.tensors()) {
    if (!known.contains(tensor.name)) {
      report(Printable(tensor.name, 120), " has no place in this model");
    }
  }
  if (count == 0) {
    return Status::Ok();
  }
  return {Code::kInvalidArgument,
          "TENSOR_MISMATCH",
          StrCat(file.path(),
                 ": ",
                 Join(problems, "; "),
                 count > kMaxListed ? StrCat("; and ", count - kMaxListed, " more") : "")};
}

}  // namespace mft
