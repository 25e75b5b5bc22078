// SPDX-License-Identifier: Apache-2.0
// nlohmann/json behind Status. Key order is kept.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "common/base/status.h"

namespace mft {

using Json = nlohmann::ordered_json;

// Parses one JSON document. Errors name line and column; nesting beyond `max_depth` is an error,
// as are duplicate keys and invalid UTF-8.
Result<Json> ParseJson(std::string_view text, int max_depth = 64);

// Compact, valid UTF-8 (bad bytes become U+FFFD), one line.
std::string DumpJson(const Json& json);

// Typed access to an object's member; the error names `key` and what stands there instead.
Result<std::string> GetString(const Json& object, std::string_view key);
Result<int64_t> GetInt(const Json& object, std::string_view key);
Result<double> GetDouble(const Json& object, std::string_view key);
Result<bool> GetBool(const Json& object, std::string_view key);
// As above with a default for a missing or null member; a member of another type gives the default
// too.
std::string StringOr(const Json& object, std::string_view key, std::string_view otherwise);
int64_t IntOr(const Json& object, std::string_view key, int64_t otherwise);
double DoubleOr(const Json& object, std::string_view key, double otherwise);
bool BoolOr(const Json& object, std::string_view key, bool otherwise);

}  // namespace mft
