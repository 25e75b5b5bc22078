// SPDX-License-Identifier: Apache-2.0
// Random names and content hashes.
#pragma once

#include <string>
#include <string_view>

struct evp_md_ctx_st;

namespace mft {

std::string RandomHex(int bytes);  // from getrandom(2), lower case
std::string RandomUuid4();
std::string
NewJobId();  // "j" and 11 characters of [a-z2-7]: not guessable, fits a path and a label
bool IsValidJobId(std::string_view id);

// Incremental SHA-256. Threads: one at a time.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;
  void Update(std::string_view data);
  std::string FinishHex();  // lower case; once

 private:
  evp_md_ctx_st* context_;
};

std::string Sha256Hex(std::string_view data);

}  // namespace mft
