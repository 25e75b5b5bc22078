// SPDX-License-Identifier: Apache-2.0
// The nine tokenizers of the fixtures by their names there: "spm-v1", "spm-v2", "spm-v3", "spm-v7",
// "tekken-v3", "tekken-v7", "tekken-v11", "tekken-v13", "tekken-v15".
#pragma once

#include <string>
#include <vector>

#include "common/tokenizer/tokenizer.h"

namespace mft::testing {

const std::vector<std::string>& TokenizerNames();

// Tekken files later than v3 are in no package: the v3 file with another version and other special
// tokens, as tests/fixtures/data expects them.
std::string TekkenContent(const std::string& version);

// Writes a file to `directory` under the name that a model directory has, and returns its path.
std::string WriteTokenizer(const std::string& name, const std::string& directory);

// Loaded once for the process.
const Tokenizer& NamedTokenizer(const std::string& name);

}  // namespace mft::testing
