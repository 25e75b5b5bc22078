// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

namespace mft {

// Appends `bytes` to `out` as well-formed UTF-8: U+FFFD for each maximal subpart of an ill-formed
// sequence (Unicode 16, section 3.9, as Python's errors="replace").
void AppendReplacingBadUtf8(std::string_view bytes, std::string& out);

}  // namespace mft
