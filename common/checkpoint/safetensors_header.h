// SPDX-License-Identifier: Apache-2.0
// The checks between a safetensors file's bytes and its tensors, apart from the mapping so that
// tests and the fuzzer can feed bytes.
#pragma once

#include <cstddef>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "common/checkpoint/safetensors.h"

namespace mft {

inline constexpr size_t kMaxSafetensorsHeaderBytes =
    100'000'000;  // as the reference implementation
inline constexpr size_t kMaxSafetensorsTensors = 1'000'000;

struct SafetensorsHeader {
  std::vector<TensorEntry> tensors;  // by name; data are views of the given bytes
  std::map<std::string, std::string> metadata;
};

// `file` is the whole file. Errors do not name the path: the caller adds it.
Result<SafetensorsHeader> ParseSafetensors(std::span<const std::byte> file);

}  // namespace mft
