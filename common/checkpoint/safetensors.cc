// SPDX-License-Identifier: Apache-2.0
#include "common/checkpoint/safetensors.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "common/base/json.h"
#include "common/base/strings.h"

namespace mft {

namespace {
constexpr uint64_t kMaxHeaderBytes = 100'000'000;
constexpr size_t kMaxDimensions = 16;
constexpr int kHeaderDepth = 3;

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

Status Bad(std::string message) {
  return {Code::kDataLoss, "INVALID_SAFETENSORS", std::move(message)};
}

// A size in a header: a JSON integer of at most 2^53, so that sums of two cannot overflow.
Result<uint64_t> HeaderNumber(const Json& json) {
  constexpr uint64_t kMax = uint64_t{1} << 53;
  if (!json.is_number_unsigned() || json.get<uint64_t>() > kMax) {
    return Bad(StrCat("not a size: ", Printable(DumpJson(json), 40)));
  }
  return json.get<uint64_t>();
}

struct Range {
  uint64_t begin = 0;
  uint64_t end = 0;
};

Result<Range> ParseOffsets(const Json& json, uint64_t data_size) {
  if (!json.is_array() || json.size() != 2) {
    return Bad("data_offsets is not a pair");
  }
  Range range;
  MFT_ASSIGN_OR_RETURN(range.begin, HeaderNumber(json[0]));
  MFT_ASSIGN_OR_RETURN(range.end, HeaderNumber(json[1]));
  if (range.end < range.begin || range.end > data_size) {
    return Bad(StrCat("data_offsets [",
                      range.begin,
                      ", ",
                      range.end,
                      "] are outside the ",
                      data_size,
                      " bytes of data"));
  }
  return range;
}

Result<std::vector<int64_t>> ParseShape(const Json& json) {
  if (!json.is_array() || json.size() > kMaxDimensions) {
    return Bad(StrCat("shape is not a list of at most ", kMaxDimensions, " sizes"));
  }
  std::vector<int64_t> shape;
  for (const Json& element : json) {
    MFT_ASSIGN_OR_RETURN(const uint64_t size, HeaderNumber(element));
    shape.push_back(static_cast<int64_t>(size));
  }
  return shape;
}

Result<TensorEntry> ParseTensor(const std::string& name,
                                const Json& json,
                                std::span<const std::byte> data) {
  if (!json.is_object() || json.size() != 3 || !json.contains("dtype") || !json.contains("shape") ||
      !json.contains("data_offsets")) {
    return Bad("needs exactly dtype, shape and data_offsets");
  }
  const std::string dtype = StringOr(json, "dtype", "");
  const auto info = std::find_if(
      kDTypes.begin(), kDTypes.end(), [&](const DTypeInfo& d) { return d.name == dtype; });
  if (info == kDTypes.end()) {
    return Bad(StrCat("unknown dtype ", Printable(DumpJson(json["dtype"]), 40)));
  }
  TensorEntry entry{.name = name, .dtype = info->dtype, .shape = {}, .data = {}};
  MFT_ASSIGN_OR_RETURN(entry.shape, ParseShape(json["shape"]));
  MFT_ASSIGN_OR_RETURN(const Range range, ParseOffsets(json["data_offsets"], data.size()));
  uint64_t bytes = info->size;
  for (const int64_t size : entry.shape) {
    if (__builtin_mul_overflow(bytes, static_cast<uint64_t>(size), &bytes)) {
      return Bad("the product of the shape overflows");
    }
  }
  if (range.end - range.begin != bytes) {
    return Bad(StrCat(
        "shape and dtype need ", bytes, " bytes, data_offsets span ", range.end - range.begin));
  }
  entry.data = data.subspan(range.begin, bytes);
  return entry;
}

// Tensors must tile the data: no overlap, no hole, nothing behind the last.
Status CheckTiling(std::vector<const TensorEntry*> tensors, std::span<const std::byte> data) {
  std::sort(tensors.begin(), tensors.end(), [](const TensorEntry* a, const TensorEntry* b) {
    return std::pair(a->data.data(), a->data.size()) < std::pair(b->data.data(), b->data.size());
  });
  const std::byte* expected = data.data();
  for (const TensorEntry* tensor : tensors) {
    if (tensor->data.data() != expected) {
      return Bad(StrCat("tensor \"",
                        Printable(tensor->name, 120),
                        "\" begins at byte ",
                        tensor->data.data() - data.data(),
                        " of the data, expected ",
                        expected - data.data(),
                        ": tensors overlap or leave a hole"));
    }
    expected += tensor->data.size();
  }
  if (expected != data.data() + data.size()) {
    return Bad(StrCat("the tensors cover ",
                      expected - data.data(),
                      " of ",
                      data.size(),
                      " bytes of data: the file is truncated or has a tail"));
  }
  return Status::Ok();
}

struct Parsed {
  std::vector<TensorEntry> tensors;
  std::map<std::string, std::string> metadata;
};

Status ParseMetadata(const Json& json, std::map<std::string, std::string>& metadata) {
  if (!json.is_object()) {
    return Bad("__metadata__ is not an object");
  }
  for (const auto& [key, value] : json.items()) {
    if (!value.is_string()) {
      return Bad(StrCat("__metadata__ \"", Printable(key, 80), "\" is not a string"));
    }
    metadata[key] = value.get<std::string>();
  }
  return Status::Ok();
}

Result<Parsed> Parse(std::span<const std::byte> file) {
  if (file.size() < sizeof(uint64_t)) {
    return Bad(StrCat("only ", file.size(), " bytes: shorter than the header's length"));
  }
  uint64_t header_size = 0;
  std::memcpy(&header_size, file.data(), sizeof header_size);  // little-endian, as this machine
  if (header_size > kMaxHeaderBytes || header_size > file.size() - sizeof header_size) {
    return Bad(StrCat("header of ", header_size, " bytes in a file of ", file.size()));
  }
  const std::string_view header(reinterpret_cast<const char*>(file.data()) + sizeof header_size,
                                header_size);
  const auto data = file.subspan(sizeof header_size + header_size);
  auto json = ParseJson(header, kHeaderDepth);
  if (!json.ok()) {
    return Bad(StrCat("header: ", json.status().message()));
  }
  if (!json->is_object()) {
    return Bad("header is not a JSON object");
  }
  Parsed parsed;
  for (const auto& [name, value] : json->items()) {
    if (name == "__metadata__") {
      MFT_RETURN_IF_ERROR(ParseMetadata(value, parsed.metadata));
      continue;
    }
    auto tensor = ParseTensor(name, value, data);
    if (!tensor.ok()) {
      return tensor.status().WithContext(StrCat("tensor \"", Printable(name, 120), "\""));
    }
    parsed.tensors.push_back(std::move(tensor).value());
  }
  std::vector<const TensorEntry*> pointers;
  for (const TensorEntry& tensor : parsed.tensors) {
    pointers.push_back(&tensor);
  }
  MFT_RETURN_IF_ERROR(CheckTiling(std::move(pointers), data));
  std::sort(parsed.tensors.begin(), parsed.tensors.end(), [](const auto& a, const auto& b) {
    return a.name < b.name;
  });
  return parsed;
}
}  // namespace

std::string_view DTypeName(DType dtype) {
  return Info(dtype).name;
}

size_t DTypeSize(DType dtype) {
  return Info(dtype).size;
}

Result<std::unique_ptr<SafetensorsFile>> SafetensorsFile::Open(const std::string& path) {
  MFT_ASSIGN_OR_RETURN(MappedFile file, MappedFile::Open(path));
  auto parsed = Parse(file.bytes());
  if (!parsed.ok()) {
    return parsed.status().WithContext(path);
  }
  std::unique_ptr<SafetensorsFile> result(new SafetensorsFile(path, std::move(file)));
  result->tensors_ = std::move(parsed->tensors);
  result->metadata_ = std::move(parsed->metadata);
  return result;
}

const TensorEntry* SafetensorsFile::Find(std::string_view name) const {
  const auto found = std::lower_bound(
      tensors_.begin(), tensors_.end(), name, [](const TensorEntry& t, std::string_view n) {
        return t.name < n;
      });
  return found != tensors_.end() && found->name == name ? &*found : nullptr;
}

Status WriteSafetensors(const std::string& path,
                        std::vector<TensorToWrite> tensors,
                        const std::map<std::string, std::string>& metadata) {
  std::sort(
      tensors.begin(), tensors.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  Json header = Json::object();
  if (!metadata.empty()) {
    header["__metadata__"] = metadata;
  }
  uint64_t offset = 0;
  for (const TensorToWrite& tensor : tensors) {
    const uint64_t end = offset + tensor.data.size();
    header[tensor.name] = {{"dtype", DTypeName(tensor.dtype)},
                           {"shape", tensor.shape},
                           {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text = header.dump();
  text.append((8 - text.size() % 8) % 8, ' ');  // the data begins aligned
  const uint64_t size = text.size();
  MFT_ASSIGN_OR_RETURN(const UniqueFd fd, OpenFile(path, O_WRONLY | O_CREAT | O_TRUNC));
  MFT_RETURN_IF_ERROR(
      WriteAll(fd.get(), {reinterpret_cast<const char*>(&size), sizeof size}, path));
  MFT_RETURN_IF_ERROR(WriteAll(fd.get(), text, path));
  for (const TensorToWrite& tensor : tensors) {
    MFT_RETURN_IF_ERROR(WriteAll(
        fd.get(), {reinterpret_cast<const char*>(tensor.data.data()), tensor.data.size()}, path));
  }
  return Fsync(fd.get(), path);
}

}  // namespace mft
