// SPDX-License-Identifier: Apache-2.0
#include "common/config/server_config.h"

#include <algorithm>

#include "common/base/strings.h"
#include "common/config/config_value.h"
#include "common/config/yaml_tree.h"

namespace mft {

ServerConfigResult ParseServerConfig(std::string_view yaml) {
  ServerConfigResult result;
  const YamlTree tree = ParseYamlTree(yaml);
  if (!tree.error.empty()) {
    result.violations.push_back({"", tree.error_line, tree.error});
    return result;
  }
  if (tree.root.kind != ConfigNode::Kind::kMap && tree.root.kind != ConfigNode::Kind::kNull) {
    result.violations.push_back({"", tree.root.line, "must hold keys and values"});
    return result;
  }
  std::vector<std::string> names;
  VisitFields(
      [&](const char* name, auto& value, const FieldRule& rule) {
        names.emplace_back(name);
        for (const ConfigNode::Member& member : tree.root.members) {
          if (member.key == name && member.value.kind != ConfigNode::Kind::kNull) {
            const std::string problem = ReadValue(member.value, rule, value);
            if (!problem.empty()) {
              result.violations.push_back({name, member.line, problem});
            }
          }
        }
      },
      result.config);
  for (const ConfigNode::Member& member : tree.root.members) {
    if (std::find(names.begin(), names.end(), member.key) == names.end()) {
      const std::string suggestion = Suggest(member.key, names);
      result.violations.push_back(
          {member.key,
           member.line,
           StrCat("unknown key",
                  suggestion.empty() ? "" : StrCat("; did you mean \"", suggestion, "\"?"))});
    }
  }
  return result;
}

}  // namespace mft
