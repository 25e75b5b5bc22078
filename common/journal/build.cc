// SPDX-License-Identifier: Apache-2.0
#include "common/journal/build.h"

#include <cstdlib>
#include <string>

#include "common/base/strings.h"
#include "common/journal/record.h"

namespace mft {

namespace {
Status Compare(std::string_view who, std::string_view theirs) {
  if (theirs == BuildId()) {
    return Status::Ok();
  }
  return {Code::kFailedPrecondition,
          "BUILD_MISMATCH",
          StrCat(who,
                 " is of build ",
                 Printable(theirs, 80),
                 ", this program of ",
                 BuildId(),
                 ": install the programs of one release")};
}
}  // namespace

Status CheckBuildOfRunner() {
  const char* theirs = std::getenv(std::string(kBuildVariable).c_str());
  return theirs == nullptr ? Status::Ok() : Compare("the mft-runner that started it", theirs);
}

Status CheckBuildOfRank(std::string_view program, std::string_view build) {
  return Compare(program, build);
}

}  // namespace mft
