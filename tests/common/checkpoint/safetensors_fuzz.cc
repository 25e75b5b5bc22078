// SPDX-License-Identifier: Apache-2.0
// Any bytes as a safetensors file: an error or tensors that lie within the bytes, never a crash.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>

#include "common/base/status.h"
#include "common/checkpoint/safetensors_header.h"

namespace {

void Check(std::span<const std::byte> file) {
  const auto header = mft::ParseSafetensors(file);
  if (!header.ok()) {
    MFT_CHECK(!header.status().message().empty(), "an error without a message");
    return;
  }
  size_t bytes = 0;
  for (const mft::TensorEntry& tensor : header->tensors) {
    MFT_CHECK(tensor.data.empty() ||
                  (tensor.data.data() >= file.data() &&
                   tensor.data.data() + tensor.data.size() <= file.data() + file.size()),
              tensor.name);
    bytes += tensor.data.size();
  }
  MFT_CHECK(bytes <= file.size(), std::to_string(bytes));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span<const uint8_t> input(data, size);
  Check(std::as_bytes(input));
  // The same bytes as header and data with a length that fits, so that the checks behind the first
  // are reached.
  if (size > 0) {
    const uint64_t length = size - data[0] % size;
    std::string file(sizeof length, '\0');
    std::memcpy(file.data(), &length, sizeof length);
    file.append(reinterpret_cast<const char*>(data), size);
    Check(std::as_bytes(std::span(file)));
  }
  return 0;
}
