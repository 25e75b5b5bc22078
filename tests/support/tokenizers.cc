// SPDX-License-Identifier: Apache-2.0
#include "tests/support/tokenizers.h"

#include <filesystem>
#include <fstream>
#include <map>
#include <memory>

#include "common/base/files.h"
#include "common/base/strings.h"
#include "tests/support/fixtures.h"
#include "tests/support/temp_dir.h"

namespace mft::testing {

namespace {
const std::map<std::string, std::string>& ShippedFiles() {
  static const std::map<std::string, std::string> files = {
      {"spm-v1", "tokenizer.model.v1"},
      {"spm-v2", "mistral_instruct_tokenizer_240216.model.v2"},
      {"spm-v3", "mistral_instruct_tokenizer_240323.model.v3"},
      {"spm-v7", "mistral_instruct_tokenizer_241114.model.v7"},
      {"tekken-v3", "tekken_240718.json"}};
  return files;
}

constexpr size_t kMaxBytes = size_t{64} << 20;

// The first twenty are those that every version has.
Json SpecialTokens() {
  const std::vector<std::string> base = {"<unk>",
                                         "<s>",
                                         "</s>",
                                         "[INST]",
                                         "[/INST]",
                                         "[AVAILABLE_TOOLS]",
                                         "[/AVAILABLE_TOOLS]",
                                         "[TOOL_RESULTS]",
                                         "[/TOOL_RESULTS]",
                                         "[TOOL_CALLS]",
                                         "[IMG]",
                                         "<pad>",
                                         "[IMG_BREAK]",
                                         "[IMG_END]",
                                         "[PREFIX]",
                                         "[MIDDLE]",
                                         "[SUFFIX]",
                                         "[SYSTEM_PROMPT]",
                                         "[/SYSTEM_PROMPT]",
                                         "[TOOL_CONTENT]"};
  const std::map<size_t, std::string> later = {{24, "[AUDIO]"},
                                               {25, "[BEGIN_AUDIO]"},
                                               {32, "[ARGS]"},
                                               {33, "[CALL_ID]"},
                                               {34, "[THINK]"},
                                               {35, "[/THINK]"},
                                               {36, "[MODEL_SETTINGS]"},
                                               {37, "[/MODEL_SETTINGS]"}};
  Json tokens = Json::array();
  for (size_t i = 0; i < 40; ++i) {
    const std::string other = later.contains(i) ? later.at(i) : StrCat("<SPECIAL_", i, ">");
    tokens.push_back(
        {{"rank", i}, {"token_str", i < base.size() ? base[i] : other}, {"is_control", true}});
  }
  return tokens;
}
}  // namespace

const std::vector<std::string>& TokenizerNames() {
  static const std::vector<std::string> names = {"spm-v1",
                                                 "spm-v2",
                                                 "spm-v3",
                                                 "spm-v7",
                                                 "tekken-v3",
                                                 "tekken-v7",
                                                 "tekken-v11",
                                                 "tekken-v13",
                                                 "tekken-v15"};
  return names;
}

std::string TekkenContent(const std::string& version) {
  std::string content = ReadFile(TokenizerFile(ShippedFiles().at("tekken-v3")), kMaxBytes).value();
  const std::string before = "\"version\": \"v3\"";
  content.replace(content.find(before), before.size(), StrCat("\"version\": \"", version, "\""));
  if (version == "v3" || version == "v7") {
    return content;
  }
  std::string members = StrCat("{\"special_tokens\": ", SpecialTokens().dump(), ",");
  if (version == "v15") {
    members += R"("model_settings_builder": {"reasoning_effort": {"type": "enum", )"
               R"("values": ["none", "high"], "accepts_none": true, "default": "none"}},)";
  }
  return content.replace(0, 1, members);
}

std::string WriteTokenizer(const std::string& name, const std::string& directory) {
  std::filesystem::create_directories(directory);
  const auto shipped = ShippedFiles().find(name);
  const bool tekken = name.starts_with("tekken-");
  const std::string path =
      directory + "/" + (tekken ? "tekken.json" : "tokenizer.model." + name.substr(4));
  if (shipped != ShippedFiles().end()) {
    std::filesystem::copy_file(
        TokenizerFile(shipped->second), path, std::filesystem::copy_options::overwrite_existing);
  } else {
    std::ofstream(path, std::ios::binary) << TekkenContent(name.substr(7));
  }
  return path;
}

const Tokenizer& NamedTokenizer(const std::string& name) {
  static std::map<std::string, std::unique_ptr<Tokenizer>> loaded;
  std::unique_ptr<Tokenizer>& tokenizer = loaded[name];
  if (tokenizer == nullptr) {
    const TempDir dir;
    tokenizer = LoadTokenizer(WriteTokenizer(name, dir.path())).value();
  }
  return *tokenizer;
}

}  // namespace mft::testing
