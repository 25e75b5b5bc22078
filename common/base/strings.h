// SPDX-License-Identifier: Apache-2.0
// Text helpers shared by every program.
#pragma once

#include <concepts>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace mft {

namespace internal {
inline void AppendTo(std::string& out, std::string_view text) {
  out.append(text);
}
void AppendNumber(std::string& out, double value);  // shortest text that reads back equal
// A template, so that a string literal never decays to a pointer and becomes a bool.
template <typename T>
requires std::is_arithmetic_v<T>
void AppendTo(std::string& out, T value) {
  if constexpr (std::same_as<T, bool>) {
    out.append(value ? "true" : "false");
  } else if constexpr (std::same_as<T, char>) {
    out.push_back(value);
  } else if constexpr (std::integral<T>) {
    out.append(std::to_string(value));
  } else {
    AppendNumber(out, value);
  }
}
}  // namespace internal

// Concatenates strings, characters and numbers.
template <typename... Parts>
std::string StrCat(const Parts&... parts) {
  std::string out;
  (internal::AppendTo(out, parts), ...);
  return out;
}

std::vector<std::string> Split(std::string_view text, char separator);  // "" gives {""}
std::string Join(std::span<const std::string> parts, std::string_view separator);
std::string_view Trim(std::string_view text);  // ASCII white space

// The candidate nearest to `name` by edit distance, or "" if none is near enough to be meant.
std::string Suggest(std::string_view name, std::span<const std::string> candidates);

bool IsValidUtf8(std::string_view text);
// Where the first bad byte is; text.size() where there is none.
size_t FirstInvalidUtf8(std::string_view text);
// Well-formed UTF-8 with each bad byte replaced by U+FFFD, cut at a character boundary to
// at most `max_bytes` (then "..." is appended). For quoting user data in messages.
std::string Printable(std::string_view text, size_t max_bytes);

std::string FormatBytes(int64_t bytes);      // "1.5 GiB"
std::string FormatDuration(double seconds);  // "1 h 02 min", "3.2 s"
std::string FormatFixed(double value, int digits);
std::string FormatScientific(double value, int digits);  // "6.0e-05"

}  // namespace mft
