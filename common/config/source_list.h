// SPDX-License-Identifier: Apache-2.0
// The grammar of `data`, `instruct_data` and `eval_instruct_data` (finetune-spec 2.1).
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "common/base/status.h"

namespace mft {

struct DataSource {
  std::string path;     // as written
  double weight = 1.0;  // > 0, not normalised
};

// "a.jsonl:3,dir:1.5". A path may be quoted with ' or " when it contains ',' or ':'. Empty items
// are skipped.
Result<std::vector<DataSource>> ParseSources(std::string_view text);

std::string FormatSources(const std::vector<DataSource>& sources);

// The files of one source: itself, or every file below a directory whose name ends in "jsonl", as
// mistral-finetune takes them, sorted by path.
Result<std::vector<std::string>> ExpandSource(const DataSource& source);

}  // namespace mft
