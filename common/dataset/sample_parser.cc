// SPDX-License-Identifier: Apache-2.0
#include "common/dataset/sample_parser.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <utility>

#include "common/dataset/sample_fields.h"

namespace mft {

namespace {
using samples::NotNull;
using samples::Problem;
using samples::Quote;

constexpr std::array<std::string_view, 4> kIntLists = {"tokens", "mask", "input_ids", "labels"};

Status NotUtf8(std::string_view line, size_t at) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  constexpr size_t kContext = 20;
  const auto byte = static_cast<unsigned char>(line[at]);
  return Problem("EncodingError",
                 StrCat("byte ",
                        at + 1,
                        " of the line, 0x",
                        kDigits[byte >> 4],
                        kDigits[byte & 15],
                        ", is not valid UTF-8, after \"",
                        Printable(line.substr(at - std::min(at, kContext), std::min(at, kContext)),
                                  samples::kQuotedBytes),
                        "\"; convert the file to UTF-8"));
}

// A limit of ours or of Python's, not a mistake of writing.
std::string LimitText(const Status& status) {
  return status.code() == Code::kOutOfRange ? status.message()
                                            : StrCat("invalid JSON: ", status.message());
}

Result<PyJsonParsed> ParseLine(std::string_view line) {
  const size_t bad_byte = FirstInvalidUtf8(line);
  if (bad_byte < line.size()) {
    return NotUtf8(line, bad_byte);
  }
  if (Trim(line).empty()) {
    return Problem("JSONDecodeError", "blank line; remove it");
  }
  if (line.starts_with("\xEF\xBB\xBF")) {
    return Problem("JSONDecodeError",
                   "the line begins with a byte order mark; save the file as UTF-8 without it");
  }
  // Bounds the memory of a line, also one of nothing but small values.
  constexpr size_t kMaxValues = size_t{1} << 20;
  auto parsed = ParsePyJson(line, {.max_values = kMaxValues, .int_lists = kIntLists});
  if (!parsed.ok()) {
    return Problem("JSONDecodeError", LimitText(parsed.status()));
  }
  if (parsed->has_duplicate) {
    return Problem(
        "JSONDecodeError",
        StrCat("the key \"",
               Printable(parsed->duplicate_key, 80),
               "\" stands twice in one object, and only the last would count; remove one"));
  }
  if (!parsed->value.is(PyJson::Kind::kObject)) {
    return Problem("JSONDecodeError",
                   StrCat("a line must hold a JSON object, not ",
                          PyTypeName(parsed->value),
                          " ",
                          Quote(parsed->value)));
  }
  return parsed;
}

Result<TextSample> ParseText(const PyJson& object) {
  const PyJson* text = object.Find("text");
  const PyJson* content = object.Find("content");
  if (text != nullptr && content != nullptr) {
    return Problem("AssertionError", "has both \"text\" and \"content\"; keep one");
  }
  const PyJson* value = text != nullptr ? text : content;
  if (value == nullptr || value->is(PyJson::Kind::kNull)) {
    return Problem("AssertionError", "needs \"text\" or \"content\", a string");
  }
  if (!value->is(PyJson::Kind::kString)) {
    return Problem("AssertionError",
                   StrCat("\"",
                          text != nullptr ? "text" : "content",
                          "\" must be a string, not ",
                          Quote(*value)));
  }
  return TextSample{value->text};
}

// Takes the list out of `line`.
Result<std::vector<int32_t>> IntList(PyJsonParsed& line, const std::string& key) {
  if (const auto read = line.int_lists.find(key); read != line.int_lists.end()) {
    return std::move(read->second);
  }
  const PyJson* list = line.value.Find(key);
  if (list == nullptr || !list->is(PyJson::Kind::kList)) {
    return Problem("TokensFormatError",
                   StrCat("\"",
                          key,
                          "\" must be a list of integers, not ",
                          list == nullptr ? "missing" : Quote(*list)));
  }
  std::vector<int32_t> values;
  values.reserve(list->items.size());
  for (const PyJson& item : list->items) {
    int32_t value = item.boolean ? 1 : 0;
    const char* end = item.text.data() + item.text.size();
    const bool is_int = item.is(PyJson::Kind::kInt) &&
                        std::from_chars(item.text.data(), end, value).ptr == end &&
                        std::to_string(value) == item.text;
    if (!is_int && !item.is(PyJson::Kind::kBool)) {
      return Problem(
          "TokensFormatError",
          StrCat(key, "[", values.size(), "]: not an integer of 32 bits: ", Quote(item)));
    }
    values.push_back(value);
  }
  return values;
}

Status SameLength(size_t tokens, size_t others, std::string_view key) {
  if (tokens != others) {
    return Problem("TokensFormatError",
                   StrCat("\"",
                          key,
                          "\" has ",
                          others,
                          " elements for ",
                          tokens,
                          " tokens; it needs one for each"));
  }
  return Status::Ok();
}

Result<TokenSample> ParseTokens(PyJsonParsed& line) {
  const PyJson& object = line.value;
  constexpr int32_t kIgnored = -100;  // Hugging Face's label of a token without loss
  const bool hugging_face = object.Find("tokens") == nullptr;
  TokenSample result;
  MFT_ASSIGN_OR_RETURN(result.sample.tokens, IntList(line, hugging_face ? "input_ids" : "tokens"));
  const auto& tokens = result.sample.tokens;
  result.sample.mask.assign(tokens.size(), 1);
  const char* key = hugging_face ? "labels" : "mask";
  if (NotNull(object, key) != nullptr) {
    MFT_ASSIGN_OR_RETURN(const std::vector<int32_t> values, IntList(line, key));
    MFT_RETURN_IF_ERROR(SameLength(tokens.size(), values.size(), key));
    for (size_t i = 0; i < values.size(); ++i) {
      if (hugging_face ? values[i] != kIgnored && values[i] != tokens[i]
                       : values[i] != 0 && values[i] != 1) {
        return Problem("TokensFormatError",
                       StrCat(key,
                              "[",
                              i,
                              "] is ",
                              values[i],
                              "; expected ",
                              hugging_face ? StrCat("-100 or the token, ", tokens[i]) : "0 or 1"));
      }
      result.sample.mask[i] = values[i] == (hugging_face ? kIgnored : 0) ? 0 : 1;
    }
  }
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] < 0) {
      return Problem("TokensFormatError",
                     StrCat("token ", i, " is ", tokens[i], "; token ids are not negative"));
    }
  }
  return result;
}

bool HasMessages(const PyJson& object) {
  return object.Find("messages") != nullptr || object.Find("interactions") != nullptr;
}
bool HasTokens(const PyJson& object) {
  return !HasMessages(object) &&
         (object.Find("tokens") != nullptr || object.Find("input_ids") != nullptr);
}
}  // namespace

Result<Sample> ParseSample(SourceKind kind, std::string_view line) {
  MFT_ASSIGN_OR_RETURN(PyJsonParsed parsed_line, ParseLine(line));
  const PyJson& object = parsed_line.value;
  if (HasTokens(object)) {
    MFT_ASSIGN_OR_RETURN(TokenSample sample, ParseTokens(parsed_line));
    return Sample(std::move(sample));
  }
  const bool has_text = object.Find("text") != nullptr || object.Find("content") != nullptr;
  if (kind == SourceKind::kText ||
      (kind == SourceKind::kEval && has_text && !HasMessages(object))) {
    MFT_ASSIGN_OR_RETURN(TextSample sample, ParseText(object));
    return Sample(std::move(sample));
  }
  MFT_ASSIGN_OR_RETURN(samples::ParsedConversation parsed, samples::ParseConversation(object));
  MFT_RETURN_IF_ERROR(samples::CheckConversation(parsed));
  for (size_t i = 0; i < parsed.weights.size(); ++i) {
    parsed.conversation.messages[i].train = parsed.weights[i] != 0;
  }
  return Sample(std::move(parsed.conversation));
}

}  // namespace mft
