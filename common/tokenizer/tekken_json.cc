// SPDX-License-Identifier: Apache-2.0
#include "common/tokenizer/tekken_json.h"

#include <utility>

#include "common/base/strings.h"

namespace mft {

namespace {
constexpr size_t kMaxEntries = size_t{1} << 22;
constexpr int kMaxDepth = 16;
constexpr int kEntryDepth = 2;  // the document's members have depth 1

// Takes the entries of the two long lists out of the tree while it grows.
class EntryReader {
 public:
  explicit EntryReader(TekkenDocument& document) : document_(document) {}
  const Status& status() const { return status_; }

  // nlohmann's callback: whether `parsed` becomes part of the tree.
  bool operator()(int depth, Json::parse_event_t event, Json& parsed) {
    using Event = Json::parse_event_t;
    if (event == Event::key && depth == 1) {
      section_ = parsed.get<std::string>();
    }
    const bool in_list = section_ == "vocab" || section_ == "special_tokens";
    if (depth != kEntryDepth || !in_list || event == Event::key) {
      return depth <= kMaxDepth;
    }
    if (event == Event::object_end) {
      Take(parsed);
    } else if (event == Event::value || event == Event::array_end) {
      Fail(StrCat(Where(), " is not an object: ", parsed.type_name()));
    }
    return event == Event::object_start || event == Event::array_start;
  }

 private:
  std::vector<TekkenEntry>& List() {
    return section_ == "vocab" ? document_.vocab : document_.special;
  }
  std::string Where() { return StrCat(section_, "[", List().size(), "]"); }
  void Fail(std::string message) {
    if (status_.ok()) {
      status_ = InvalidArgument(std::move(message));
    }
  }

  void Take(const Json& entry) {
    if (!status_.ok()) {
      return;
    }
    const char* text_member = section_ == "vocab" ? "token_bytes" : "token_str";
    auto rank = GetInt(entry, "rank");
    auto text = GetString(entry, text_member);
    if (!rank.ok() || !text.ok()) {
      return Fail(StrCat(Where(), ": ", (rank.ok() ? text.status() : rank.status()).message()));
    }
    if (List().size() == kMaxEntries) {
      return Fail(StrCat(section_, " has more than ", kMaxEntries, " entries"));
    }
    List().push_back({*rank, std::move(*text)});
  }

  TekkenDocument& document_;
  std::string section_;
  Status status_ = Status::Ok();
};
}  // namespace

Result<TekkenDocument> ParseTekkenJson(std::string_view content) {
  TekkenDocument document;
  EntryReader reader(document);
  try {
    document.rest = Json::parse(content, std::ref(reader));
  } catch (const Json::exception& error) {
    return InvalidArgument(StrCat("no JSON: ", Printable(error.what(), 200)));
  }
  MFT_RETURN_IF_ERROR(reader.status());
  if (!document.rest.is_object()) {
    return InvalidArgument("no JSON object");
  }
  return document;
}

}  // namespace mft
