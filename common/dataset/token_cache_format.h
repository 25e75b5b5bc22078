// SPDX-License-Identifier: Apache-2.0
// The bytes of a token cache file; README.md of this folder draws them. Shared by reader, writer
// and who removes caches.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

#include "common/base/ids.h"

namespace mft::token_cache_format {

static_assert(std::endian::native == std::endian::little, "cache files are little-endian");

// Of directories beside the caches that are being written, or taken away.
inline constexpr std::string_view kTemporaryPrefix = "tmp.cache.";
inline constexpr std::string_view kFileName = "tokens.mft";
inline constexpr std::array<char, 8> kMagic = {'M', 'F', 'T', 'T', 'O', 'K', 'E', 'N'};
inline constexpr int64_t kMaxSampleTokens = int64_t{1} << 30;

// At offset 0. `records_sha256` is the hash (hex) of the records, `head_sha256` that of the header
// before it and of the meta text: opening a cache needs no more.
struct Header {
  std::array<char, 8> magic = kMagic;
  uint32_t version = 0;
  int32_t vocab_size = 0;
  uint64_t records_offset = 0;  // sample data lies between header and records
  uint64_t num_records = 0;
  uint64_t meta_bytes = 0;  // JSON behind the records; the file ends with it
  std::array<char, 64> records_sha256 = {};
  std::array<char, 64> head_sha256 = {};
  std::array<char, 24> zero = {};
};
static_assert(sizeof(Header) == 192 && std::is_trivially_copyable_v<Header>);

// One sample: `length` ids of 4 bytes at `offset` (a multiple of 4), then `length` mask bytes.
// `crc32c` is that of these 5 * `length` bytes.
struct Record {
  uint64_t offset = 0;
  uint32_t length = 0;
  uint32_t loss_tokens = 0;
  uint32_t line = 0;
  uint32_t crc32c = 0;
};
static_assert(sizeof(Record) == 24 && std::is_trivially_copyable_v<Record>);

inline std::string HeadHash(const Header& header, std::string_view meta) {
  Sha256 hash;
  hash.Update({reinterpret_cast<const char*>(&header), offsetof(Header, head_sha256)});
  hash.Update(meta);
  return hash.FinishHex();
}

}  // namespace mft::token_cache_format
