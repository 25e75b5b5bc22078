// SPDX-License-Identifier: Apache-2.0
#include "common/config/source_list.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <optional>
#include <set>
#include <system_error>
#include <utility>

#include "common/base/files.h"
#include "common/base/strings.h"

namespace mft {

namespace {
namespace fs = std::filesystem;
constexpr size_t kMaxFilesPerSource = 100'000;

bool IsQuote(char c) {
  return c == '\'' || c == '"';
}

// End of the item that begins at `at`: the next ',' outside quotes. A quote opens only at the begin
// of a path.
Result<size_t> ItemEnd(std::string_view text, size_t at) {
  const size_t begin = text.find_first_not_of(" \t\r\n", at);
  size_t search = at;
  if (begin != std::string_view::npos && IsQuote(text[begin])) {
    size_t close = text.find(text[begin], begin + 1);
    while (close != std::string_view::npos && close + 1 < text.size() &&
           text[close + 1] == text[begin]) {
      close = text.find(text[begin], close + 2);  // a doubled quote stands for itself
    }
    if (close == std::string_view::npos) {
      return InvalidArgument(StrCat(
          "the quote that begins at \"", Printable(text.substr(begin), 40), "\" is not closed"));
    }
    search = close + 1;
  }
  return std::min(text.find(',', search), text.size());
}

std::string Unquote(std::string_view quoted) {
  const char quote = quoted.front();
  std::string path;
  for (size_t i = 1; i + 1 < quoted.size(); ++i) {
    path += quoted[i];
    i += quoted[i] == quote ? 1 : 0;
  }
  return path;
}

Status BadFormat(std::string_view item) {
  return InvalidArgument(StrCat(
      Printable(item, 200),
      " is not correctly formatted. Make sure to format each data source as "
      "<path/to/data>:<weight> or just <path/to/data>; quote a path that contains ':' or ','"));
}

Result<double> ParseWeight(std::string_view text, std::string_view item) {
  // As Python's float: "1_000" is a number.
  std::string digits;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto is_digit = [&](size_t at) {
      return at < text.size() && text[at] >= '0' && text[at] <= '9';
    };
    if (text[i] != '_' || i == 0 || !is_digit(i - 1) || !is_digit(i + 1)) {
      digits.push_back(text[i]);
    }
  }
  double weight = 0;
  const char* const begin = digits.data();
  const auto [end, error] = std::from_chars(begin, begin + digits.size(), weight);
  if (error != std::errc() || end != begin + digits.size()) {
    return BadFormat(item);
  }
  if (!std::isfinite(weight) || weight <= 0) {
    return InvalidArgument(
        StrCat("Make sure to define strictly positive data sampling weights, not ", text));
  }
  return weight;
}

Result<DataSource> ParseItem(std::string_view item) {
  DataSource source;
  std::string_view rest;
  if (IsQuote(item.front())) {
    const size_t close = item.find_last_of(item.front());
    source.path = Unquote(item.substr(0, close + 1));
    rest = Trim(item.substr(close + 1));
  } else {
    const size_t colon = std::min(item.find(':'), item.size());
    source.path = std::string(Trim(item.substr(0, colon)));
    rest = item.substr(colon);
  }
  if (source.path.empty() || (!rest.empty() && rest.front() != ':')) {
    return BadFormat(item);
  }
  if (!rest.empty()) {
    MFT_ASSIGN_OR_RETURN(source.weight, ParseWeight(Trim(rest.substr(1)), item));
  }
  return source;
}

bool NeedsQuotes(const std::string& path) {
  return path.find_first_of(",:") != std::string::npos || IsQuote(path.front()) ||
         Trim(path).size() != path.size();
}

std::string Quote(const std::string& path) {
  const char quote = path.find('"') == std::string::npos ? '"' : '\'';
  std::string quoted(1, quote);
  for (const char c : path) {
    quoted += c;
    if (c == quote) {
      quoted += c;
    }
  }
  return quoted + quote;
}
}  // namespace

Result<std::vector<DataSource>> ParseSources(std::string_view text) {
  std::vector<DataSource> sources;
  std::set<std::string> seen;
  for (size_t at = 0; at <= text.size();) {
    MFT_ASSIGN_OR_RETURN(const size_t end, ItemEnd(text, at));
    const std::string_view item = Trim(text.substr(at, end - at));
    at = end + 1;
    if (item.empty()) {
      continue;
    }
    MFT_ASSIGN_OR_RETURN(DataSource source, ParseItem(item));
    if (!seen.insert(source.path).second) {
      return InvalidArgument(
          StrCat(source.path, " seems to be duplicated. Make sure to only add it once."));
    }
    sources.push_back(std::move(source));
  }
  return sources;
}

std::string FormatSources(const std::vector<DataSource>& sources) {
  std::vector<std::string> items;
  for (const DataSource& source : sources) {
    const std::string path = NeedsQuotes(source.path) ? Quote(source.path) : source.path;
    items.push_back(source.weight == 1.0 ? path : StrCat(path, ":", source.weight));
  }
  return Join(items, ",");
}

Result<std::vector<std::string>> ExpandSource(const DataSource& source) {
  std::error_code error;
  const fs::file_status status = fs::status(source.path, error);
  if (status.type() == fs::file_type::not_found) {
    return NotFound(StrCat("The path ",
                           source.path,
                           " does not exist. Make sure ",
                           source.path,
                           " is either a file or directory that contains training data."));
  }
  if (error) {
    return ErrnoStatus(error.value(), source.path);
  }
  if (status.type() == fs::file_type::regular) {
    return std::vector<std::string>{source.path};
  }
  if (status.type() != fs::file_type::directory) {
    return InvalidArgument(StrCat(source.path, " is neither a file nor a directory"));
  }
  std::vector<std::string> files;
  fs::recursive_directory_iterator entry(source.path, error);
  for (; !error && entry != fs::recursive_directory_iterator(); entry.increment(error)) {
    std::error_code ignored;
    if (entry->path().native().ends_with("jsonl") && entry->is_regular_file(ignored)) {
      files.push_back(entry->path().native());
    }
    if (files.size() > kMaxFilesPerSource) {
      return InvalidArgument(StrCat(source.path, " has more than ", kMaxFilesPerSource, " files"));
    }
  }
  if (error) {
    return ErrnoStatus(error.value(), StrCat("listing ", source.path));
  }
  if (files.empty()) {
    return NotFound(StrCat(source.path, " does not seem to have any files ending with '.jsonl'"));
  }
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace mft
