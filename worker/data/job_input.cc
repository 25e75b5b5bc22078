// SPDX-License-Identifier: Apache-2.0
#include "worker/data/job_input.h"

#include "common/base/files.h"
#include "common/base/log.h"
#include "common/base/strings.h"
#include "common/config/job_file.h"

namespace mft::data {

Result<JobSpec> ReadJob(const std::string& path, Overrides overrides) {
  if (path.ends_with(".json")) {
    if (!overrides.empty()) {
      return InvalidArgument(
          StrCat("--set ", overrides[0], ": only for a YAML file, not for ", path));
    }
    MFT_ASSIGN_OR_RETURN(JobFile file, ReadJobFile(path));
    return std::move(file.spec);
  }
  MFT_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  JobSpecResult result = ParseJobYaml(text, overrides);
  for (const std::string& warning : result.warnings) {
    LogWarning(StrCat(path, ": ", warning));
  }
  if (!result.violations.empty()) {
    return InvalidArgument(FormatViolations(result.violations, path));
  }
  // Relative paths mean the working directory, as for mistral-finetune and mftctl.
  MFT_RETURN_IF_ERROR(MakePathsAbsolute(result.spec, AbsolutePath(".")));
  return std::move(result.spec);
}

}  // namespace mft::data
