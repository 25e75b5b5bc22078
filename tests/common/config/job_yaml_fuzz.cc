// SPDX-License-Identifier: Apache-2.0
// Any text is a job or a list of violations; a job survives both of its own written forms.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "common/base/status.h"
#include "common/config/yaml_reader.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const mft::JobSpecResult result =
      mft::ParseJobYaml(std::string_view(reinterpret_cast<const char*>(data), size));
  if (!result.violations.empty()) {
    return 0;
  }
  const mft::Json json = mft::JobSpecToJson(result.spec);
  const mft::JobSpecResult from_yaml = mft::ParseJobYaml(mft::JobSpecToYaml(result.spec));
  MFT_CHECK(from_yaml.violations.empty(), mft::FormatViolations(from_yaml.violations, "args.yaml"));
  MFT_CHECK(mft::JobSpecToJson(from_yaml.spec) == json, json.dump());
  const mft::JobSpecResult from_json = mft::ParseJobJson(json);
  MFT_CHECK(mft::JobSpecToJson(from_json.spec) == json, json.dump());
  return 0;
}
