// SPDX-License-Identifier: Apache-2.0
// state/MANIFEST: what a checkpoint consists of. ReadManifest and VerifyCheckpoint are declared in
// checkpoint_dir.h; these are the parts that publishing shares with them.
#pragma once

#include <string>

#include "common/base/status.h"
#include "common/checkpoint/checkpoint_dir.h"

namespace mft {

std::string ManifestPath(const std::string& checkpoint_dir);
std::string ManifestToJson(const Manifest& manifest);

// Size and hash of one file, read to its end. DATA_LOSS: not a regular file.
Result<ManifestFile> DescribeFile(const std::string& checkpoint_dir, const std::string& relative);

}  // namespace mft
