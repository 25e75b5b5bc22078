// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "common/base/json.h"
#include "common/base/strings.h"
#include "common/checkpoint/safetensors.h"
#include "common/checkpoint/safetensors_header.h"

namespace mft {

namespace {

static_assert(std::endian::native == std::endian::little, "tensors are written as they lie");

Status CheckTensors(const std::vector<TensorToWrite>& tensors) {
  for (size_t i = 0; i < tensors.size(); ++i) {
    const TensorToWrite& tensor = tensors[i];
    const std::string name = StrCat("tensor \"", Printable(tensor.name, 120), "\"");
    if (!IsValidUtf8(tensor.name) || tensor.name == "__metadata__") {
      return InvalidArgument(StrCat(name, ": not a name for a tensor"));
    }
    uint64_t bytes = DTypeSize(tensor.dtype);
    bool fits = true;
    for (const int64_t size : tensor.shape) {
      fits =
          fits && size >= 0 && !__builtin_mul_overflow(bytes, static_cast<uint64_t>(size), &bytes);
    }
    if (!fits || bytes != tensor.data.size()) {
      return InvalidArgument(StrCat(name,
                                    ": shape ",
                                    FormatShape(tensor.shape),
                                    " of ",
                                    DTypeName(tensor.dtype),
                                    " does not fit its ",
                                    tensor.data.size(),
                                    " bytes"));
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
  size_t begin = 0;
  for (const TensorToWrite& tensor : tensors) {
    const size_t end = begin + tensor.data.size();
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

Status WriteTo(int fd,
               const std::string& path,
               const std::string& header,
               const std::vector<TensorToWrite>& tensors) {
  const uint64_t length = header.size();
  std::string prefix(sizeof length, '\0');
  std::memcpy(prefix.data(), &length, sizeof length);
  MFT_RETURN_IF_ERROR(WriteAll(fd, prefix + header, path));
  for (const TensorToWrite& tensor : tensors) {
    const std::string_view bytes(reinterpret_cast<const char*>(tensor.data.data()),
                                 tensor.data.size());
    MFT_RETURN_IF_ERROR(WriteAll(fd, bytes, path));
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
