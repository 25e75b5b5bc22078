// SPDX-License-Identifier: Apache-2.0
// YAML text to the neutral tree; the only user of yaml-cpp.
#pragma once

#include <string>
#include <string_view>

#include "common/config/config_node.h"

namespace mft {

struct YamlTree {
  ConfigNode root;    // null for an empty document
  std::string error;  // "" or what is wrong
  int error_line = 0;
};

// One document. Anchors and aliases work; explicit tags other than the core schema's, merge keys'
// meaning, keys that are not scalars and further documents do not.
YamlTree ParseYamlTree(std::string_view text);

}  // namespace mft
