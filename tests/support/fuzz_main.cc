// SPDX-License-Identifier: Apache-2.0
// Stands in for libFuzzer where there is no clang: feeds a target every file of a folder of seeds,
// then mutations of them. The mutations are the same in every run.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "common/base/files.h"
#include "common/base/status.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

constexpr size_t kMutations = 2000;  // of all seeds together
constexpr size_t kMaxBytes = size_t{1} << 20;

void Feed(const std::string& input) {
  // A heap block of exactly this size, so that the address sanitizer sees reads past the end.
  const std::vector<uint8_t> bytes(input.begin(), input.end());
  LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
}

class Mutator {
 public:
  explicit Mutator(const std::vector<std::string>& seeds) : seeds_(seeds) {}

  std::string Next() {
    std::string text = seeds_[Below(seeds_.size())];
    for (size_t i = 1 + Below(4); i > 0; --i) {
      Change(text);
    }
    return text;
  }

 private:
  size_t Below(size_t limit) { return limit == 0 ? 0 : random_() % limit; }

  void Change(std::string& text) {
    const size_t at = Below(text.size() + 1);
    const size_t count = std::min(Below(16) + 1, text.size() - at);
    switch (Below(5)) {
      case 0:
        text.resize(at);
        break;
      case 1:
        text.erase(at, count);
        break;
      case 2:
        text.insert(at, text.substr(at, count));
        break;
      case 3: {
        const std::string& other = seeds_[Below(seeds_.size())];
        text.insert(at, other, Below(other.size() + 1), Below(64));
        break;
      }
      default:
        if (at < text.size()) {
          text[at] = static_cast<char>(Below(2) == 0 ? random_() : text[at] ^ (1u << Below(8)));
        }
    }
  }

  const std::vector<std::string>& seeds_;
  std::mt19937 random_;  // seeded the same way every time, NOLINT(cert-msc51-cpp)
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: %s FOLDER-OF-SEEDS\n", argv[0]);
    return 2;
  }
  const std::string folder = argv[1];
  const auto names = mft::ListDir(folder);
  std::vector<std::string> seeds;
  for (const std::string& name : names.ok() ? *names : std::vector<std::string>()) {
    seeds.push_back(mft::ReadFile(mft::JoinPath(folder, name), kMaxBytes).value());
    Feed(seeds.back());
  }
  if (seeds.empty()) {
    std::fprintf(stderr, "%s: no seeds\n", argv[1]);
    return 1;
  }
  Feed("");
  Mutator mutator(seeds);
  for (size_t i = 0; i < kMutations; ++i) {
    Feed(mutator.Next());
  }
  std::printf("%zu seeds, %zu mutations\n", seeds.size(), kMutations);
  return 0;
}
