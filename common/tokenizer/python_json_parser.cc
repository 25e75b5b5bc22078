// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <map>

#include "common/base/strings.h"
#include "common/tokenizer/python_json.h"
#include "common/tokenizer/python_json_scan.h"

namespace mft {

namespace {
constexpr std::string_view kHexDigits = "0123456789abcdef";

Status NotJson(std::string message) {
  return InvalidArgument(std::move(message));
}
Status PastLimit(std::string message) {
  return {Code::kOutOfRange, std::move(message)};
}

void AppendUtf8(std::string& out, uint32_t c) {
  if (c < 0x80) {
    out += static_cast<char>(c);
  } else if (c < 0x800) {
    out += static_cast<char>(0xC0 | (c >> 6));
    out += static_cast<char>(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    out += static_cast<char>(0xE0 | (c >> 12));
    out += static_cast<char>(0x80 | ((c >> 6) & 0x3F));
    out += static_cast<char>(0x80 | (c & 0x3F));
  } else {
    out += static_cast<char>(0xF0 | (c >> 18));
    out += static_cast<char>(0x80 | ((c >> 12) & 0x3F));
    out += static_cast<char>(0x80 | ((c >> 6) & 0x3F));
    out += static_cast<char>(0x80 | (c & 0x3F));
  }
}

bool IsDigit(char c) {
  return c >= '0' && c <= '9';
}

// Where an object has a key: by search while the keys are few, then by a map, so that an object of
// n keys costs n log n, whoever chose them.
class KeyIndex {
 public:
  // The number of members where there is no such key.
  size_t Find(const PyJson& object, const std::string& key) {
    constexpr size_t kFew = 16;
    const auto& members = object.members;
    if (members.size() <= kFew) {
      const auto same = std::find_if(
          members.begin(), members.end(), [&](const PyJson::Member& m) { return m.first == key; });
      return static_cast<size_t>(same - members.begin());
    }
    for (; indexed_ < members.size(); ++indexed_) {
      index_.emplace(members[indexed_].first, indexed_);
    }
    const auto same = index_.find(key);
    return same == index_.end() ? members.size() : same->second;
  }

 private:
  std::map<std::string, size_t> index_;
  size_t indexed_ = 0;
};

class Parser {
 public:
  Parser(std::string_view text, const PyJsonLimits& limits, PyJsonParsed& out)
      : text_(text), limits_(limits), out_(out) {}

  Status Run() {
    SkipSpace();
    MFT_RETURN_IF_ERROR(Value(out_.value, 0));
    SkipSpace();
    return at_ == text_.size() ? Status::Ok() : Fail("extra data");
  }

 private:
  char Peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }

  bool Take(std::string_view literal) {
    if (text_.substr(at_, literal.size()) != literal) {
      return false;
    }
    at_ += literal.size();
    return true;
  }

  void SkipSpace() {
    while (at_ < text_.size() &&
           (text_[at_] == ' ' || text_[at_] == '\t' || text_[at_] == '\n' || text_[at_] == '\r')) {
      ++at_;
    }
  }

  // " at column 7, before ..."
  std::string Where() const {
    const std::string_view before = text_.substr(0, at_);
    const auto line = std::count(before.begin(), before.end(), '\n') + 1;
    const size_t column = at_ - (before.rfind('\n') + 1) + 1;  // npos + 1 is 0
    return StrCat(line == 1 ? " at column " : StrCat(" at line ", line, ", column "),
                  column,
                  at_ < text_.size() ? StrCat(", before ", Printable(text_.substr(at_), 20))
                                     : ", at the end");
  }

  Status Fail(std::string_view what) const { return NotJson(StrCat(what, Where())); }

  Status Value(PyJson& value, int depth) {
    if (++values_ > limits_.max_values) {
      return PastLimit(
          StrCat("JSON of more than ", limits_.max_values, " values; split the sample"));
    }
    if (depth > limits_.max_depth) {
      return PastLimit(
          StrCat("JSON nested deeper than ", limits_.max_depth, " levels; flatten it"));
    }
    switch (Peek()) {
      case '{':
        return ObjectValue(value, depth);
      case '[':
        return ListValue(value, depth);
      case '"':
        value.kind = PyJson::Kind::kString;
        return StringValue(value.text);
      default:
        return Scalar(value);
    }
  }

  Status Scalar(PyJson& value) {
    if (Take("null")) {
      return Status::Ok();
    }
    const bool is_true = Take("true");
    if (is_true || Take("false")) {
      value.kind = PyJson::Kind::kBool;
      value.boolean = is_true;
      return Status::Ok();
    }
    for (const std::string_view literal : {"NaN", "Infinity", "-Infinity"}) {
      if (Take(literal)) {
        value.kind = PyJson::Kind::kFloat;
        value.text = literal;
        return Status::Ok();
      }
    }
    return Number(value);
  }

  size_t Digits() {
    const size_t begin = at_;
    while (IsDigit(Peek())) {
      ++at_;
    }
    return at_ - begin;
  }

  Status Number(PyJson& value) {
    const size_t begin = at_;
    static_cast<void>(Take("-"));
    const size_t integer_begin = at_;
    if (Digits() == 0) {
      at_ = begin;
      return Fail("expecting a value");
    }
    if (text_[integer_begin] == '0') {
      at_ = integer_begin + 1;  // as in Python, "01" is 0 followed by extra data
    }
    const size_t integer_digits = at_ - integer_begin;
    bool is_float = false;
    if (Peek() == '.' && at_ + 1 < text_.size() && IsDigit(text_[at_ + 1])) {
      is_float = true;
      ++at_;
      Digits();
    }
    size_t exponent = at_;
    if (Peek() == 'e' || Peek() == 'E') {
      ++exponent;
      exponent +=
          exponent < text_.size() && (text_[exponent] == '+' || text_[exponent] == '-') ? 1 : 0;
      if (exponent < text_.size() && IsDigit(text_[exponent])) {
        is_float = true;
        at_ = exponent;
        Digits();
      }
    }
    const std::string_view literal = text_.substr(begin, at_ - begin);
    return is_float ? Float(literal, value) : Integer(literal, integer_digits, value);
  }

  Status Integer(std::string_view literal, size_t digits, PyJson& value) const {
    if (digits > limits_.max_int_digits) {
      return PastLimit(StrCat("an integer of ",
                              digits,
                              " digits, the limit is ",
                              limits_.max_int_digits,
                              "; write it as a string"));
    }
    value.kind = PyJson::Kind::kInt;
    value.text = literal == "-0" ? "0" : literal;
    return Status::Ok();
  }

  static Status Float(std::string_view literal, PyJson& value) {
    double number = 0;
    const auto [end, error] =
        std::from_chars(literal.data(), literal.data() + literal.size(), number);
    if (error == std::errc::result_out_of_range) {
      // Too large or too small: strtod gives infinity or zero, as Python does.
      number = std::strtod(std::string(literal).c_str(), nullptr);
    }
    value.kind = PyJson::Kind::kFloat;
    value.text = PyFloatRepr(number);
    return Status::Ok();
  }

  Status HexUnit(uint32_t& unit) {
    unit = 0;
    for (int i = 0; i < 4; ++i) {
      const char c = Peek();
      const auto lower = static_cast<char>(c >= 'A' && c <= 'F' ? c - 'A' + 'a' : c);
      const size_t digit = lower == '\0' ? std::string_view::npos : kHexDigits.find(lower);
      if (digit == std::string_view::npos) {
        return Fail("invalid \\uXXXX escape");
      }
      unit = unit * 16 + static_cast<uint32_t>(digit);
      ++at_;
    }
    return Status::Ok();
  }

  Status UnicodeEscape(std::string& out) {
    uint32_t unit = 0;
    MFT_RETURN_IF_ERROR(HexUnit(unit));
    if (unit >= 0xD800 && unit < 0xDC00 && Take("\\u")) {
      uint32_t low = 0;
      MFT_RETURN_IF_ERROR(HexUnit(low));
      if (low >= 0xDC00 && low < 0xE000) {
        AppendUtf8(out, 0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00));
        return Status::Ok();
      }
    }
    if (unit >= 0xD800 && unit < 0xE000) {
      return PastLimit(StrCat("half of a surrogate pair, which is no character,", Where()));
    }
    AppendUtf8(out, unit);
    return Status::Ok();
  }

  Status Escape(std::string& out) {
    constexpr std::string_view kNames = "\"\\/bfnrt";
    constexpr std::string_view kValues = "\"\\/\b\f\n\r\t";
    const char c = Peek();
    ++at_;
    if (c == 'u') {
      return UnicodeEscape(out);
    }
    const size_t found = c == '\0' ? std::string_view::npos : kNames.find(c);
    if (found == std::string_view::npos) {
      return Fail("invalid \\escape");
    }
    out += kValues[found];
    return Status::Ok();
  }

  Status StringValue(std::string& out) {
    ++at_;
    while (true) {
      const size_t begin = at_;
      at_ = EndOfPlainJson(text_, at_);
      out.append(text_.substr(begin, at_ - begin));
      if (at_ == text_.size()) {
        return Fail("unterminated string");
      }
      const char c = text_[at_];
      if (static_cast<unsigned char>(c) < 0x20) {
        return Fail("invalid control character in a string");
      }
      ++at_;
      if (c == '"') {
        return Status::Ok();
      }
      MFT_RETURN_IF_ERROR(Escape(out));
    }
  }

  bool IsIntList(const std::string& key) const {
    return std::find(limits_.int_lists.begin(), limits_.int_lists.end(), key) !=
           limits_.int_lists.end();
  }

  // False: not such a list, and nothing was read.
  bool IntListValue(const std::string& key, PyJson& value) {
    std::vector<int32_t> ints;
    const size_t end = ReadIntList(text_, at_, ints);
    if (end == at_) {
      return false;
    }
    at_ = end;
    value.kind = PyJson::Kind::kList;
    out_.int_lists[key] = std::move(ints);
    return true;
  }

  Status ListValue(PyJson& value, int depth) {
    value.kind = PyJson::Kind::kList;
    ++at_;
    SkipSpace();
    if (Take("]")) {
      return Status::Ok();
    }
    while (true) {
      SkipSpace();
      MFT_RETURN_IF_ERROR(Value(value.items.emplace_back(), depth + 1));
      SkipSpace();
      if (Take("]")) {
        return Status::Ok();
      }
      if (!Take(",")) {
        return Fail("expecting ',' or ']'");
      }
    }
  }

  Status ObjectValue(PyJson& value, int depth) {
    value.kind = PyJson::Kind::kObject;
    KeyIndex index;
    ++at_;
    SkipSpace();
    if (Take("}")) {
      return Status::Ok();
    }
    while (true) {
      SkipSpace();
      if (Peek() != '"') {
        return Fail("expecting a property name in double quotes");
      }
      std::string key;
      MFT_RETURN_IF_ERROR(StringValue(key));
      SkipSpace();
      if (!Take(":")) {
        return Fail("expecting ':'");
      }
      SkipSpace();
      PyJson member;
      const bool ints = depth == 0 && IsIntList(key) && IntListValue(key, member);
      if (!ints) {
        MFT_RETURN_IF_ERROR(Value(member, depth + 1));
      }
      Insert(value, index, std::move(key), std::move(member));
      SkipSpace();
      if (Take("}")) {
        return Status::Ok();
      }
      if (!Take(",")) {
        return Fail("expecting ',' or '}'");
      }
    }
  }

  void Insert(PyJson& object, KeyIndex& index, std::string key, PyJson member) {
    const size_t same = index.Find(object, key);
    if (same == object.members.size()) {
      object.Add(std::move(key), std::move(member));
      return;
    }
    if (!out_.has_duplicate) {
      out_.has_duplicate = true;
      out_.duplicate_key = key;
    }
    object.members[same].second = std::move(member);
  }

  std::string_view text_;
  const PyJsonLimits& limits_;
  PyJsonParsed& out_;
  size_t at_ = 0;
  size_t values_ = 0;
};

}  // namespace

Result<PyJsonParsed> ParsePyJson(std::string_view text, const PyJsonLimits& limits) {
  PyJsonParsed parsed;
  MFT_RETURN_IF_ERROR(Parser(text, limits, parsed).Run());
  return parsed;
}

}  // namespace mft
