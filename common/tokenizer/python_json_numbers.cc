// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <charconv>
#include <cmath>
#include <string>

#include "common/tokenizer/python_json_scan.h"

namespace mft {
namespace {

bool IsSpace(char c) {
  return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

// Reads an integer as JSON has it, behind spaces and with spaces behind it.
bool ReadInt(const char*& at, const char* end, int32_t& value) {
  const auto skip_space = [&] {
    while (at < end && IsSpace(*at)) {
      ++at;
    }
  };
  skip_space();
  const char* digits = at < end && *at == '-' ? at + 1 : at;
  const bool leading_zero =
      end - digits > 1 && digits[0] == '0' && digits[1] >= '0' && digits[1] <= '9';
  const auto [after, error] = std::from_chars(at, end, value);
  at = after;
  skip_space();
  return error == std::errc() && !leading_zero;
}

}  // namespace

std::string PyFloatRepr(double value) {
  if (std::isinf(value)) {
    return value > 0 ? "Infinity" : "-Infinity";
  }
  std::array<char, 64> buffer{};
  const auto scientific = std::to_chars(
      buffer.data(), buffer.data() + buffer.size(), value, std::chars_format::scientific);
  const std::string_view text(buffer.data(), scientific.ptr);
  const size_t e = text.find('e');
  int exponent = 0;
  const char* exponent_begin = text.data() + e + (text[e + 1] == '+' ? 2 : 1);
  std::from_chars(exponent_begin, text.data() + text.size(), exponent);
  if (exponent < -4 || exponent >= 16) {
    return std::string(
        text);  // to_chars writes at least two exponent digits and the sign, as Python does
  }
  const auto fixed =
      std::to_chars(buffer.data(), buffer.data() + buffer.size(), value, std::chars_format::fixed);
  std::string out(buffer.data(), fixed.ptr);
  return out.find('.') == std::string::npos ? out + ".0" : out;
}

size_t ReadIntList(std::string_view text, size_t at, std::vector<int32_t>& ints) {
  const char* const end = text.data() + text.size();
  const char* here = text.data() + at;
  if (here == end || *here != '[') {
    return at;
  }
  do {
    ++here;
    if (!ReadInt(here, end, ints.emplace_back()) || here == end) {
      return at;
    }
  } while (*here == ',');
  return *here == ']' ? static_cast<size_t>(here + 1 - text.data()) : at;
}

}  // namespace mft
