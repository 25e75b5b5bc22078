// SPDX-License-Identifier: Apache-2.0
// Own reader and writer of safetensors (formats.md 7). Every input is hostile: lengths, offsets,
// overlaps, shapes and names are checked before anything is mapped into a tensor.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
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
std::optional<DType> DTypeNamed(std::string_view name);
std::string FormatShape(std::span<const int64_t> shape);  // "[2, 3]"

struct TensorEntry {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  // Into the mapping; size = product of shape x DTypeSize. Aligned to the element only if the
  // writer took care of it (ours does): a foreign file's wide elements must be copied or checked.
  std::span<const std::byte> data;
};

// A mapped file. Threads: const calls are safe from any thread. Spans live as long as the object.
class SafetensorsFile {
 public:
  // DATA_LOSS (INVALID_SAFETENSORS) names the file, the tensor and the value that is wrong.
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
  // Instead of `data`: called when the tensor's turn comes, so that one at a time is in memory.
  std::function<Result<std::vector<std::byte>>()> produce;
};

// Writes and fsyncs the file (not its directory); on failure there is none. Tensors are ordered as
// the reference implementation does: by element size, largest first, so that each is aligned, then
// by name. INVALID_ARGUMENT: a name twice or not UTF-8, data of another size than the shape's.
// What `produce` returns as an error ends the writing.
// Otherwise errno's text (ENOSPC is RESOURCE_EXHAUSTED).
Status WriteSafetensors(const std::string& path,
                        std::vector<TensorToWrite> tensors,
                        const std::map<std::string, std::string>& metadata = {});

}  // namespace mft
