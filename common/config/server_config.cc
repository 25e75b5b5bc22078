// SPDX-License-Identifier: Apache-2.0
#include "common/config/server_config.h"

#include <algorithm>

#include "common/base/strings.h"
#include "common/config/config_value.h"
#include "common/config/yaml_tree.h"

namespace mft {

namespace {

// Walks VisitFields and takes each field from the keys of its map.
class ConfigReader {
 public:
  explicit ConfigReader(std::vector<Violation>& violations) : violations_(violations) {}

  template <typename Section>
  void Read(const ConfigNode& node, const std::string& prefix, Section& section) {
    if (node.kind == ConfigNode::Kind::kNull) {
      return;
    }
    if (node.kind != ConfigNode::Kind::kMap) {
      const std::string path = prefix.empty() ? "" : prefix.substr(0, prefix.size() - 1);
      violations_.push_back({path, node.line, "must hold keys and values"});
      return;
    }
    std::vector<std::string> names;
    VisitFields(FieldVisitor{*this, node, prefix, names}, section);
    for (const ConfigNode::Member& member : node.members) {
      if (std::find(names.begin(), names.end(), member.key) == names.end()) {
        const std::string suggestion = Suggest(member.key, names);
        violations_.push_back(
            {prefix + member.key,
             member.line,
             StrCat("unknown key",
                    suggestion.empty() ? "" : StrCat("; did you mean \"", suggestion, "\"?"))});
      }
    }
  }

 private:
  struct FieldVisitor {
    ConfigReader& reader;
    const ConfigNode& node;
    const std::string& prefix;
    std::vector<std::string>& names;

    template <typename T>
    void operator()(const char* name, T& value, const FieldRule& rule) {
      names.emplace_back(name);
      for (const ConfigNode::Member& member : node.members) {
        if (member.key == name && member.value.kind != ConfigNode::Kind::kNull) {
          const std::string problem = ReadValue(member.value, rule, value);
          if (!problem.empty()) {
            reader.violations_.push_back({prefix + name, member.line, problem});
          }
        }
      }
    }
    template <typename T>
    void operator()(const char* name, T& section) {
      names.emplace_back(name);
      for (const ConfigNode::Member& member : node.members) {
        if (member.key == name) {
          reader.Read(member.value, StrCat(prefix, name, "."), section);
        }
      }
    }
  };

  std::vector<Violation>& violations_;
};

}  // namespace

ServerConfigResult ParseServerConfig(std::string_view yaml) {
  ServerConfigResult result;
  const YamlTree tree = ParseYamlTree(yaml);
  if (!tree.error.empty()) {
    result.violations.push_back({"", tree.error_line, tree.error});
    return result;
  }
  ConfigReader(result.violations).Read(tree.root, "", result.config);
  return result;
}

}  // namespace mft
