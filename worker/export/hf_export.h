// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "common/base/status.h"
#include "worker/export/export_model.h"

namespace mft {

// A merged model as transformers' from_pretrained reads it (formats.md 6).
Status WriteHuggingFaceModel(const ExportSource& source, const std::string& directory);

}  // namespace mft
