// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string_view>

namespace mft {

// CRC-32C (Castagnoli) of some bytes, or of what they continue: Crc32c(b, Crc32c(a)) is that of a
// and b in a row.
uint32_t Crc32c(std::string_view data, uint32_t before = 0);

}  // namespace mft
