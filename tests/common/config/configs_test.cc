// SPDX-License-Identifier: Apache-2.0
// The files in configs/ load, and those that document every key do so truly.
#include <algorithm>
#include <filesystem>
#include <sstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/base/files.h"
#include "common/base/strings.h"
#include "common/config/yaml_tree.h"
#include "tests/common/config/config_testing.h"

namespace mft {
namespace {
using ::testing::IsEmpty;
using testing::Problems;

std::string ConfigText(const std::string& name) {
  return ReadFile(std::string(MFT_SOURCE_DIR) + "/configs/" + name).value();
}

void CollectPaths(const ConfigNode& node,
                  const std::string& path,
                  std::map<std::string, int>& lines) {
  for (const ConfigNode::Member& member : node.members) {
    const std::string inner = path.empty() ? member.key : path + "." + member.key;
    if (member.value.kind == ConfigNode::Kind::kMap && inner != "mftd.labels") {
      CollectPaths(member.value, inner, lines);
    } else {
      lines[inner] = member.line;
    }
  }
}

class Recipes : public ::testing::TestWithParam<const char*> {};

TEST_P(Recipes, LoadsWithoutViolationsOrWarnings) {
  const JobSpecResult result = ParseJobYaml(ConfigText(GetParam()));
  EXPECT_THAT(Problems(result), IsEmpty());
  EXPECT_THAT(result.warnings, IsEmpty());
  EXPECT_EQ(result.spec.lora.rank, 64);
  EXPECT_EQ(result.spec.max_steps, 300);
}

TEST_P(Recipes, CommentsEveryKeyWithItsTrueDefault) {
  const std::string text = ConfigText(GetParam());
  std::map<std::string, int> lines;
  CollectPaths(ParseYamlTree(text).root, "", lines);
  const std::vector<std::string> file = Split(text, '\n');
  const JobSpec defaults = testing::Parse("").spec;
  for (const std::string& path : JobKeyPaths()) {
    ASSERT_TRUE(lines.contains(path)) << path << " is not in " << GetParam();
    const std::string& line = file.at(static_cast<size_t>(lines[path] - 1));
    const size_t at = line.find("Default: ");
    const bool required = line.ends_with("Required");
    ASSERT_TRUE(required || at != std::string::npos)
        << GetParam() << ":" << lines[path] << ": no default given";
    std::string stated;
    std::istringstream(required ? "" : line.substr(at + 9)) >> stated;
    constexpr std::string_view kWords[] = {"", "none", "from", "the", "all", "cores"};
    if (std::find(std::begin(kWords), std::end(kWords), stated) == std::end(kWords)) {
      const JobSpecResult result = testing::Parse("", {path + "=" + stated});
      EXPECT_THAT(Problems(result), IsEmpty()) << path;
      EXPECT_EQ(JobSpecToJson(result.spec), JobSpecToJson(defaults))
          << path << ": " << stated << " is not its default";
    }
  }
  EXPECT_EQ(lines.size(), JobKeyPaths().size());
}

INSTANTIATE_TEST_SUITE_P(
    Configs,
    Recipes,
    ::testing::Values("7B.yaml", "nemo-12B.yaml", "8x7B.yaml", "8x22B.yaml", "large-123B.yaml"));

TEST(Configs, EveryFileLoads) {
  int files = 0;
  for (const auto& entry :
       std::filesystem::recursive_directory_iterator(std::string(MFT_SOURCE_DIR) + "/configs")) {
    if (entry.path().extension() == ".yaml" && entry.path().filename() != "mftd.yaml") {
      EXPECT_THAT(Problems(ParseJobYaml(ReadFile(entry.path().native()).value())), IsEmpty())
          << entry.path();
      ++files;
    }
  }
  EXPECT_GE(files, 5);
}

TEST(Configs, KeepTheRecommendedRecipes) {
  EXPECT_EQ(ParseJobYaml(ConfigText("7B.yaml")).spec.optim.lr, 6e-5);
  EXPECT_EQ(ParseJobYaml(ConfigText("7B.yaml")).spec.seq_len, 32768);
  EXPECT_EQ(ParseJobYaml(ConfigText("nemo-12B.yaml")).spec.seq_len, 16384);
  EXPECT_EQ(ParseJobYaml(ConfigText("large-123B.yaml")).spec.optim.lr, 1e-6);
  EXPECT_EQ(ParseJobYaml(ConfigText("large-123B.yaml")).spec.seq_len, 8192);
}

}  // namespace
}  // namespace mft
