// SPDX-License-Identifier: Apache-2.0
#include "common/config/config_node.h"

#include <utility>

#include "common/base/strings.h"

namespace mft {

namespace {
struct Budget {
  int nodes = kMaxConfigNodes;
};

Result<ConfigNode> Convert(const Json& json, int depth, Budget& budget);

Status ConvertMembers(const Json& object, int depth, Budget& budget, ConfigNode& node) {
  for (const auto& [key, value] : object.items()) {
    if (value.is_null()) {
      continue;
    }
    MFT_ASSIGN_OR_RETURN(ConfigNode child, Convert(value, depth + 1, budget));
    node.members.push_back({.key = key, .line = 0, .value = std::move(child)});
  }
  return Status::Ok();
}

Status ConvertItems(const Json& array, int depth, Budget& budget, ConfigNode& node) {
  for (const Json& value : array) {
    MFT_ASSIGN_OR_RETURN(ConfigNode child, Convert(value, depth + 1, budget));
    node.items.push_back(std::move(child));
  }
  return Status::Ok();
}

Result<ConfigNode> Convert(const Json& json, int depth, Budget& budget) {
  if (depth > kMaxConfigDepth) {
    return InvalidArgument(StrCat("nested deeper than ", kMaxConfigDepth, " levels"));
  }
  if (--budget.nodes < 0) {
    return InvalidArgument(StrCat("more than ", kMaxConfigNodes, " values"));
  }
  ConfigNode node;
  if (json.is_object()) {
    node.kind = ConfigNode::Kind::kMap;
    MFT_RETURN_IF_ERROR(ConvertMembers(json, depth, budget, node));
  } else if (json.is_array()) {
    node.kind = ConfigNode::Kind::kList;
    MFT_RETURN_IF_ERROR(ConvertItems(json, depth, budget, node));
  } else if (json.is_string()) {
    node.kind = ConfigNode::Kind::kScalar;
    node.quoted = true;
    node.text = json.get<std::string>();
  } else if (!json.is_null()) {
    node.kind = ConfigNode::Kind::kScalar;
    node.text = DumpJson(json);
  }
  return node;
}
}  // namespace

std::string Describe(const ConfigNode& node) {
  switch (node.kind) {
    case ConfigNode::Kind::kNull:
      return "null";
    case ConfigNode::Kind::kList:
      return "a list";
    case ConfigNode::Kind::kMap:
      return "a section";
    case ConfigNode::Kind::kScalar:
      return StrCat("\"", Printable(node.text, 80), "\"");
  }
  return "";
}

Result<ConfigNode> ConfigNodeFromJson(const Json& json) {
  Budget budget;
  return Convert(json, 0, budget);
}

}  // namespace mft
