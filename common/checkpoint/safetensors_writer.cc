// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <optional>

#include "common/base/json.h"
#include "common/base/strings.h"
#include "common/checkpoint/safetensors.h"
#include "common/checkpoint/safetensors_header.h"

namespace mft {

namespace {

static_assert(std::endian::native == std::endian::little, "tensors are written as they lie");

// Of shape and dtype; nothing where the shape is none.
std::optional<uint64_t> BytesOf(const TensorToWrite& tensor) {
  uint64_t bytes = DTypeSize(tensor.dtype);
  for (const int64_t size : tensor.shape) {
    if (size < 0 || __builtin_mul_overflow(bytes, static_cast<uint64_t>(size), &bytes)) {
      return std::nullopt;
    }
  }
  return bytes;
}

std::string NameForPeople(const TensorToWrite& tensor) {
  return StrCat("tensor \"", Printable(tensor.name, 120), "\"");
}

Status CheckSize(const TensorToWrite& tensor, size_t bytes) {
  const auto needed = BytesOf(tensor);
  if (needed.has_value() && *needed == bytes) {
    return Status::Ok();
  }
  return InvalidArgument(StrCat(NameForPeople(tensor),
                                ": shape ",
                                FormatShape(tensor.shape),
                                " of ",
                                DTypeName(tensor.dtype),
                                " does not fit its ",
                                bytes,
                                " bytes"));
}

Status CheckTensors(const std::vector<TensorToWrite>& tensors) {
  for (const TensorToWrite& tensor : tensors) {
    if (!IsValidUtf8(tensor.name) || tensor.name == "__metadata__") {
      return InvalidArgument(StrCat(NameForPeople(tensor), ": not a name for a tensor"));
    }
    if (!tensor.produce) {
      MFT_RETURN_IF_ERROR(CheckSize(tensor, tensor.data.size()));
    } else if (!BytesOf(tensor).has_value()) {
      return InvalidArgument(
          StrCat(NameForPeople(tensor), ": no tensor has shape ", FormatShape(tensor.shape)));
    }
  }
  return Status::Ok();
}

// Expects the order of the file.
std::string HeaderOf(const std::vector<TensorToWrite>& tensors,
                     const std::map<std::string, std::string>& metadata) {
  Json header = Json::object();
  if (!metadata.empty()) {
    header["__metadata__"] = metadata;
  }
  // Text is joined by hand: looking each key up in an ordered object is quadratic.
  std::string text = DumpJson(header);
  text.pop_back();
  uint64_t begin = 0;
  for (const TensorToWrite& tensor : tensors) {
    const uint64_t end = begin + BytesOf(tensor).value_or(0);  // checked before
    Json entry = Json::object();
    entry["dtype"] = DTypeName(tensor.dtype);
    entry["shape"] = tensor.shape;
    entry["data_offsets"] = {begin, end};
    text += StrCat(text.size() > 1 ? "," : "", DumpJson(Json(tensor.name)), ":", DumpJson(entry));
    begin = end;
  }
  text += "}";
  constexpr size_t kAlignment = 8;
  text.resize((text.size() + kAlignment - 1) / kAlignment * kAlignment, ' ');
  return text;
}

Status WriteTensor(int fd, const std::string& path, const TensorToWrite& tensor) {
  std::vector<std::byte> produced;
  std::span<const std::byte> data = tensor.data;
  if (tensor.produce) {
    MFT_ASSIGN_OR_RETURN(produced, tensor.produce());
    MFT_RETURN_IF_ERROR(CheckSize(tensor, produced.size()).WithContext(path));
    data = produced;
  }
  return WriteAll(fd, {reinterpret_cast<const char*>(data.data()), data.size()}, path);
}

Status WriteTo(int fd,
               const std::string& path,
               const std::string& header,
               const std::vector<TensorToWrite>& tensors) {
  const uint64_t length = header.size();
  std::string prefix(sizeof length, '\0');
  std::memcpy(prefix.data(), &length, sizeof length);
  MFT_RETURN_IF_ERROR(WriteAll(fd, prefix + header, path));
  for (const TensorToWrite& tensor : tensors) {
    MFT_RETURN_IF_ERROR(WriteTensor(fd, path, tensor));
  }
  return Fsync(fd, path);
}

}  // namespace

Status WriteSafetensors(const std::string& path,
                        std::vector<TensorToWrite> tensors,
                        const std::map<std::string, std::string>& metadata) {
  MFT_RETURN_IF_ERROR(CheckTensors(tensors).WithContext(path));
  std::ranges::sort(tensors, {}, &TensorToWrite::name);
  const auto twice = std::ranges::adjacent_find(tensors, {}, &TensorToWrite::name);
  if (twice != tensors.end()) {
    return InvalidArgument(
        StrCat(path, ": tensor \"", Printable(twice->name, 120), "\" is given twice"));
  }
  std::ranges::stable_sort(
      tensors, std::greater{}, [](const TensorToWrite& tensor) { return DTypeSize(tensor.dtype); });
  const std::string header = HeaderOf(tensors, metadata);
  if (header.size() > kMaxSafetensorsHeaderBytes) {
    return InvalidArgument(StrCat(path, ": header of ", header.size(), " bytes is too large"));
  }
  MFT_ASSIGN_OR_RETURN(const UniqueFd fd, OpenFile(path, O_WRONLY | O_CREAT | O_TRUNC));
  const Status status = WriteTo(fd.get(), path, header, tensors);
  if (!status.ok()) {
    unlink(path.c_str());
  }
  return status;
}

}  // namespace mft
