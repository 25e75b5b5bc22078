// SPDX-License-Identifier: Apache-2.0
// The rules that involve several keys, or what this version does not do.
#pragma once

#include <functional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "common/config/yaml_reader.h"

namespace mft {

struct ValidationContext {
  std::function<int(std::string_view path)> line;  // of a key in the file; 0 where it is not there
  std::set<std::string>
      bad_paths;  // keys with a violation already: rules that involve them stay silent
};

// Appends to result.violations and result.warnings.
void ValidateSpec(const ValidationContext& context, JobSpecResult& result);

}  // namespace mft
