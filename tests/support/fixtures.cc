// SPDX-License-Identifier: Apache-2.0
#include "tests/support/fixtures.h"

#include <cstdlib>
#include <fstream>

#include "common/base/status.h"

namespace mft::testing {

namespace {
std::string Setting(const char* name, const char* built) {
  const char* const value = std::getenv(name);
  return value == nullptr ? built : value;
}
}  // namespace

std::string Fixture(const std::string& name) {
  return Setting("MFT_SOURCE_DIR", MFT_SOURCE_DIR) + "/tests/fixtures/" + name;
}

std::string BinDir() {
  return Setting("MFT_BIN_DIR", MFT_BIN_DIR);
}

std::string TokenizerFile(const std::string& name) {
  return std::string(MFT_DEPS_DIR) + "/mistral_common/data/" + name;
}

std::vector<Json> ReadJsonLines(const std::string& path) {
  std::ifstream file(path);
  MFT_CHECK(file.is_open(), path);
  std::vector<Json> lines;
  for (std::string line; std::getline(file, line);) {
    lines.push_back(Json::parse(line));
  }
  return lines;
}

}  // namespace mft::testing
