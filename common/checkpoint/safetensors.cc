// SPDX-License-Identifier: Apache-2.0
#include "common/checkpoint/safetensors.h"

#include <algorithm>
#include <array>

#include "common/base/strings.h"
#include "common/checkpoint/safetensors_header.h"

namespace mft {

namespace {
struct DTypeInfo {
  DType dtype;
  std::string_view name;
  size_t size;
};
constexpr std::array kDTypes = {
    DTypeInfo{DType::kBool, "BOOL", 1},
    DTypeInfo{DType::kU8, "U8", 1},
    DTypeInfo{DType::kI8, "I8", 1},
    DTypeInfo{DType::kI16, "I16", 2},
    DTypeInfo{DType::kI32, "I32", 4},
    DTypeInfo{DType::kI64, "I64", 8},
    DTypeInfo{DType::kF16, "F16", 2},
    DTypeInfo{DType::kBF16, "BF16", 2},
    DTypeInfo{DType::kF32, "F32", 4},
    DTypeInfo{DType::kF64, "F64", 8},
    DTypeInfo{DType::kF8E4M3, "F8_E4M3", 1},
    DTypeInfo{DType::kF8E5M2, "F8_E5M2", 1},
};

const DTypeInfo& Info(DType dtype) {
  return kDTypes[static_cast<size_t>(dtype)];
}

}  // namespace

std::string_view DTypeName(DType dtype) {
  return Info(dtype).name;
}

size_t DTypeSize(DType dtype) {
  return Info(dtype).size;
}

std::optional<DType> DTypeNamed(std::string_view name) {
  for (const DTypeInfo& info : kDTypes) {
    if (info.name == name) {
      return info.dtype;
    }
  }
  return std::nullopt;
}

std::string FormatShape(std::span<const int64_t> shape) {
  std::vector<std::string> sizes;
  for (const int64_t size : shape) {
    sizes.push_back(std::to_string(size));
  }
  return StrCat("[", Join(sizes, ", "), "]");
}

Result<std::unique_ptr<SafetensorsFile>> SafetensorsFile::Open(const std::string& path) {
  MFT_ASSIGN_OR_RETURN(MappedFile file, MappedFile::Open(path));
  auto header = ParseSafetensors(file.bytes());
  if (!header.ok()) {
    return header.status().WithContext(path);
  }
  std::unique_ptr<SafetensorsFile> result(new SafetensorsFile(path, std::move(file)));
  result->tensors_ = std::move(header->tensors);
  result->metadata_ = std::move(header->metadata);
  return result;
}

const TensorEntry* SafetensorsFile::Find(std::string_view name) const {
  const auto found = std::lower_bound(
      tensors_.begin(), tensors_.end(), name, [](const TensorEntry& t, std::string_view n) {
        return t.name < n;
      });
  return found != tensors_.end() && found->name == name ? &*found : nullptr;
}

}  // namespace mft
