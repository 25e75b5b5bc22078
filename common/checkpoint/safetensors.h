// SPDX-License-Identifier: Apache-2.0
// Own reader and writer of safetensors (formats.md 7). Every input is hostile: lengths, offsets,
// overlaps, shapes and names are checked before anything is mapped into a tensor.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/files.h"
#include "common/base/status.h"

namespace mft {

enum class DType { kBool, kU8, kI8, kI16, kI32, kI64, kF16, kBF16, kF32, kF64, kF8E4M3, kF8E5M2 };
std::string_view DTypeName(DType dtype);  // safetensors' spelling: "BF16"
size_t DTypeSize(DType dtype);            // bytes

struct TensorEntry {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  std::span<const std::byte> data;  // into the mapping; size = product of shape x DTypeSize
};

// A mapped file. Threads: const calls are safe from any thread. Spans live as long as the object.
class SafetensorsFile {
 public:
  // DATA_LOSS names the file, the tensor and the value that is wrong.
  static Result<std::unique_ptr<SafetensorsFile>> Open(const std::string& path);
  const std::vector<TensorEntry>& tensors() const { return tensors_; }  // by name
  const TensorEntry* Find(std::string_view name) const;  // nullptr where there is none
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const std::string& path() const { return path_; }

 private:
  SafetensorsFile(std::string path, MappedFile file)
      : path_(std::move(path)), file_(std::move(file)) {}
  std::string path_;
  MappedFile file_;
  std::vector<TensorEntry> tensors_;
  std::map<std::string, std::string> metadata_;
};

struct TensorToWrite {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  std::span<const std::byte> data;
};

// Writes tensors sorted by name and fsyncs the file (not its directory). The error keeps errno's
// text (ENOSPC is RESOURCE_EXHAUSTED).
Status WriteSafetensors(const std::string& path,
                        std::vector<TensorToWrite> tensors,
                        const std::map<std::string, std::string>& metadata = {});

}  // namespace mft
