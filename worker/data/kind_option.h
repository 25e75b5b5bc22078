// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <string>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>

#include "common/dataset/token_cache.h"

namespace mft::data {

// --kind: what the lines of a file are, where no job file says so.
inline void AddKindOption(CLI::App& command, SourceKind& kind) {
  static const std::map<std::string, SourceKind> kKinds = {
      {"auto", SourceKind::kEval}, {"chat", SourceKind::kInstruct}, {"text", SourceKind::kText}};
  command.add_option("--kind", kind, "what lines are: chat, text, or auto: what each looks like")
      ->transform(CLI::CheckedTransformer(kKinds))
      ->option_text("auto|chat|text");
}

}  // namespace mft::data
