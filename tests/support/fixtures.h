// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "common/base/json.h"

namespace mft::testing {

// Path of a file below tests/fixtures of the source tree (MFT_SOURCE_DIR in the environment, where
// the tests were carried to another machine).
std::string Fixture(const std::string& name);
// Folder of our programs, or MFT_BIN_DIR in the environment.
std::string BinDir();
// Path of a tokenizer file that deploy/setup fetched, e.g.
// "mistral_instruct_tokenizer_240323.model.v3".
std::string TokenizerFile(const std::string& name);
// Every line of a JSON Lines fixture.
std::vector<Json> ReadJsonLines(const std::string& path);

}  // namespace mft::testing
