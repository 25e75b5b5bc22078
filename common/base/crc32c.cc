// SPDX-License-Identifier: Apache-2.0
#include "common/base/crc32c.h"

#include <array>
#include <bit>
#include <cstring>

namespace mft {
namespace {

static_assert(std::endian::native == std::endian::little, "eight bytes at a time, lowest first");

using Table = std::array<uint32_t, 256>;

// tables[k][b]: what byte b becomes when k zero bytes follow it.
constexpr std::array<Table, 8> MakeTables() {
  constexpr uint32_t kPolynomial = 0x82f63b78;  // reversed
  std::array<Table, 8> tables{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) {
      crc = (crc >> 1) ^ ((crc & 1) != 0 ? kPolynomial : 0);
    }
    tables[0][byte] = crc;
  }
  for (size_t k = 1; k < tables.size(); ++k) {
    for (size_t byte = 0; byte < 256; ++byte) {
      const uint32_t crc = tables[k - 1][byte];
      tables[k][byte] = (crc >> 8) ^ tables[0][crc & 0xff];
    }
  }
  return tables;
}
constexpr std::array<Table, 8> kTables = MakeTables();

}  // namespace

uint32_t Crc32c(std::string_view data, uint32_t before) {
  uint32_t crc = ~before;
  for (; data.size() >= sizeof(uint64_t); data.remove_prefix(sizeof(uint64_t))) {
    uint64_t bytes = 0;
    std::memcpy(&bytes, data.data(), sizeof(bytes));
    bytes ^= crc;
    crc = 0;
    for (size_t i = 0; i < sizeof(bytes); ++i) {
      crc ^= kTables[sizeof(bytes) - 1 - i][(bytes >> (8 * i)) & 0xff];
    }
  }
  for (const char byte : data) {
    crc = kTables[0][(crc ^ static_cast<uint8_t>(byte)) & 0xff] ^ (crc >> 8);
  }
  return ~crc;
}

}  // namespace mft
