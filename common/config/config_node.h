// SPDX-License-Identifier: Apache-2.0
// The neutral tree between a text format (YAML, JSON) and the structs: one reader serves both.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/json.h"
#include "common/base/status.h"

namespace mft {

// Bounds of any job file; an alias counts as what it stands for.
inline constexpr size_t kMaxConfigBytes = size_t{1} << 20;
inline constexpr int kMaxConfigDepth = 16;
inline constexpr int kMaxConfigNodes = 20'000;

struct ConfigNode {
  enum class Kind { kNull, kScalar, kList, kMap };
  struct Member;

  Kind kind = Kind::kNull;
  std::string text;                // of a scalar
  bool quoted = false;             // written in quotes
  std::optional<std::string> raw;  // of --set: the text after '=', for keys that take text
  int line = 0;                    // from 1; 0: unknown
  std::vector<ConfigNode> items;
  std::vector<Member> members;  // in file order, duplicates included
};

struct ConfigNode::Member {
  std::string key;
  int line = 0;
  ConfigNode value;
};

// For messages: the quoted text of a scalar, else "a list", "a section", "null".
std::string Describe(const ConfigNode& node);

// Members that are null are left out: proto JSON's null is "not set".
Result<ConfigNode> ConfigNodeFromJson(const Json& json);

}  // namespace mft
