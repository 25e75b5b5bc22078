// SPDX-License-Identifier: Apache-2.0
#include "common/config/server_config.h"

#include <string>
#include <type_traits>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/base/files.h"
#include "common/base/strings.h"
#include "common/config/yaml_tree.h"

namespace mft {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAreArray;

// Every key, sections dotted.
struct KeyCollector {
  std::vector<std::string>& keys;
  std::string prefix;

  template <typename T>
  void operator()(const char* name, const T&, const FieldRule&) {
    keys.push_back(prefix + name);
  }
  template <typename T>
  void operator()(const char* name, const T& section) {
    VisitFields(KeyCollector{keys, StrCat(prefix, name, ".")}, section);
  }
};

void CollectKeys(const ConfigNode& node, const std::string& prefix, std::vector<std::string>& out) {
  for (const ConfigNode::Member& member : node.members) {
    if (member.value.kind == ConfigNode::Kind::kMap) {
      CollectKeys(member.value, StrCat(prefix, member.key, "."), out);
    } else {
      out.push_back(prefix + member.key);
    }
  }
}

std::string ExampleText() {
  return ReadFile(std::string(MFT_SOURCE_DIR) + "/configs/mftd.yaml").value();
}

TEST(ServerConfig, TheExampleNamesEveryKeyAndLoads) {
  EXPECT_THAT(ParseServerConfig(ExampleText()).violations, IsEmpty());
  std::vector<std::string> keys, named;
  const ServerConfig defaults;
  VisitFields(KeyCollector{keys, ""}, defaults);
  CollectKeys(ParseYamlTree(ExampleText()).root, "", named);
  EXPECT_THAT(named, UnorderedElementsAreArray(keys));
}

TEST(ServerConfig, TheExampleIsTheDefault) {
  const ServerConfig example = ParseServerConfig(ExampleText()).config;
  const ServerConfig defaults;
  std::vector<std::string> shown, meant;
  const auto into = [](std::vector<std::string>& out) {
    return [&out](const char* name, const auto& value, const auto&...) {
      using T = std::remove_cvref_t<decltype(value)>;
      if constexpr (std::is_same_v<T, std::vector<std::string>>) {
        out.push_back(StrCat(name, "=", Join(value, ",")));
      } else if constexpr (!std::is_same_v<T, SlurmConfig>) {
        out.push_back(StrCat(name, "=", value));
      }
    };
  };
  VisitFields(into(shown), example);
  VisitFields(into(shown), example.slurm);
  VisitFields(into(meant), defaults);
  VisitFields(into(meant), defaults.slurm);
  EXPECT_EQ(shown, meant);
}

TEST(ServerConfig, ReadsTheSlurmSection) {
  const ServerConfigResult result = ParseServerConfig(
      "executor: slurm\nslurm:\n  partition: gpu\n  arguments: [--constraint=h100, "
      "--time=24:00:00]\n  gpus_per_node: 8\n");
  EXPECT_THAT(result.violations, IsEmpty());
  EXPECT_EQ(result.config.executor, "slurm");
  EXPECT_EQ(result.config.slurm.partition, "gpu");
  EXPECT_THAT(result.config.slurm.arguments, ElementsAre("--constraint=h100", "--time=24:00:00"));
  EXPECT_EQ(result.config.slurm.gpus_per_node, 8);
  EXPECT_EQ(result.config.slurm.gres, "gpu");
}

TEST(ServerConfig, NamesWhatIsWrongWithItsPathAndLine) {
  const ServerConfigResult result =
      ParseServerConfig("executor: slrum\nslurm:\n  partion: gpu\n  max_jobs: 0\nlisten: ''\n");
  ASSERT_EQ(result.violations.size(), 3u);
  EXPECT_EQ(result.violations[0].path, "executor");
  EXPECT_EQ(result.violations[1].path, "slurm.max_jobs");
  EXPECT_EQ(result.violations[1].line, 4);
  EXPECT_EQ(result.violations[2].path, "slurm.partion");
  EXPECT_THAT(result.violations[2].message, HasSubstr("partition"));
}

TEST(ServerConfig, ASectionIsAMap) {
  const ServerConfigResult result = ParseServerConfig("slurm: yes\n");
  ASSERT_EQ(result.violations.size(), 1u);
  EXPECT_EQ(result.violations[0].path, "slurm");
}

}  // namespace
}  // namespace mft
