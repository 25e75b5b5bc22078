// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "common/tokenizer/tokenizer.h"

namespace mft {

// A Tekken file (formats.md 1.4, 1.5). A pattern other than that of the released files is matched
// by PCRE2, with a warning.
Result<std::unique_ptr<Tokenizer>> LoadTekken(const std::string& path);

}  // namespace mft
