// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "common/base/json.h"

namespace mft::testing {

// Path of a file below tests/fixtures.
std::string Fixture(const std::string& name);
// Path of a tokenizer file that deploy/setup fetched, e.g.
// "mistral_instruct_tokenizer_240323.model.v3".
std::string TokenizerFile(const std::string& name);
// Every line of a JSON Lines fixture.
std::vector<Json> ReadJsonLines(const std::string& path);

}  // namespace mft::testing
