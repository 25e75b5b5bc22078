// SPDX-License-Identifier: Apache-2.0
#include "common/base/ids.h"

#include <sys/random.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <vector>

#include <openssl/evp.h>

#include "common/base/status.h"

namespace mft {

namespace {
constexpr std::string_view kHexDigits = "0123456789abcdef";
constexpr std::string_view kBase32 = "abcdefghijklmnopqrstuvwxyz234567";
constexpr size_t kJobIdLength = 12;

std::vector<unsigned char> RandomBytes(size_t count) {
  std::vector<unsigned char> bytes(count);
  size_t filled = 0;
  while (filled < count) {
    const ssize_t got = getrandom(bytes.data() + filled, count - filled, 0);
    if (got < 0) {
      MFT_CHECK(errno == EINTR, std::string("getrandom: ") + std::strerror(errno));
      continue;
    }
    filled += static_cast<size_t>(got);
  }
  return bytes;
}

std::string Hex(const unsigned char* bytes, size_t count) {
  std::string out;
  out.reserve(2 * count);
  for (size_t i = 0; i < count; ++i) {
    out += kHexDigits[bytes[i] >> 4];
    out += kHexDigits[bytes[i] & 15];
  }
  return out;
}
}  // namespace

std::string RandomHex(int bytes) {
  const auto random = RandomBytes(static_cast<size_t>(bytes));
  return Hex(random.data(), random.size());
}

std::string RandomUuid4() {
  auto bytes = RandomBytes(16);
  bytes[6] = static_cast<unsigned char>((bytes[6] & 0x0F) | 0x40);
  bytes[8] = static_cast<unsigned char>((bytes[8] & 0x3F) | 0x80);
  std::string hex = Hex(bytes.data(), bytes.size());
  for (const size_t at : {8, 13, 18, 23}) {
    hex.insert(at, 1, '-');
  }
  return hex;
}

std::string NewJobId() {
  std::string id = "j";
  for (const unsigned char byte : RandomBytes(kJobIdLength - 1)) {
    id += kBase32[byte & 31];
  }
  return id;
}

bool IsValidJobId(std::string_view id) {
  return id.size() == kJobIdLength && id[0] == 'j' &&
         std::all_of(id.begin() + 1, id.end(), [](char c) {
           return kBase32.find(c) != std::string_view::npos;
         });
}

Sha256::Sha256() : context_(EVP_MD_CTX_new()) {
  MFT_CHECK(context_ != nullptr && EVP_DigestInit_ex(context_, EVP_sha256(), nullptr) == 1,
            "EVP_DigestInit_ex");
}

Sha256::~Sha256() {
  EVP_MD_CTX_free(context_);
}

void Sha256::Update(std::string_view data) {
  MFT_CHECK(EVP_DigestUpdate(context_, data.data(), data.size()) == 1, "EVP_DigestUpdate");
}

std::string Sha256::FinishHex() {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned size = 0;
  MFT_CHECK(EVP_DigestFinal_ex(context_, digest.data(), &size) == 1, "EVP_DigestFinal_ex");
  return Hex(digest.data(), size);
}

std::string Sha256Hex(std::string_view data) {
  Sha256 hash;
  hash.Update(data);
  return hash.FinishHex();
}

}  // namespace mft
