// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "common/base/status.h"
#include "worker/train/checkpointer.h"

namespace mft {

// `save_adapters: false`: writes the base with W + scaling B A in place of every adapted W, names
// and dtypes as in contents.base_weights. Computed in fp32, rounded once. The adapted matrices of
// the whole model are in memory until the file is written.
Status WriteMergedModel(const std::string& path, const CheckpointContents& contents);

}  // namespace mft
