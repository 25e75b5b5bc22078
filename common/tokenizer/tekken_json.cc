// SPDX-License-Identifier: Apache-2.0
#include "common/tokenizer/tekken_json.h"

#include <algorithm>
#include <array>
#include <limits>
#include <utility>

#include "common/base/strings.h"

namespace mft {

namespace {
constexpr size_t kMaxEntries = size_t{1} << 22;
constexpr size_t kMaxKeptValues = 4096;
constexpr size_t kMaxDepth = 32;

// The members of the document that count; the index is the section.
constexpr std::array<std::string_view, 4> kSections = {
    "vocab", "special_tokens", "config", "model_settings_builder"};
constexpr size_t kVocab = 0;
constexpr size_t kSpecial = 1;
constexpr size_t kConfig = 2;
constexpr size_t kUnknown = kSections.size();

// Depths of what stands inside the document, of a list's entries, of an entry's members.
constexpr size_t kMember = 1;
constexpr size_t kEntry = 2;
constexpr size_t kField = 3;

// nlohmann's SAX interface (hence the names): false ends the parse.
class Reader {
 public:
  explicit Reader(TekkenDocument& document) : document_(document) {}
  const Status& status() const { return status_; }

  bool null() { return Scalar(Json()); }
  bool boolean(bool value) { return Scalar(value); }
  bool number_integer(int64_t value) { return Scalar(value); }
  bool number_unsigned(uint64_t value) {
    return value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())
               ? Scalar(static_cast<double>(value))
               : Scalar(static_cast<int64_t>(value));
  }
  bool number_float(double value, const std::string&) { return Scalar(value); }
  bool binary(const std::vector<uint8_t>&) { return Fail("binary data"); }

  bool string(std::string& value) {
    if (InList() && depth_ == kField) {
      if (field_ == Field::kText) {
        text_ = std::move(value);
        has_text_ = true;
      }
      return field_ != Field::kRank || Fail(StrCat(Where(), ": rank is no integer"));
    }
    return Scalar(std::move(value));
  }

  bool key(std::string& name) {
    if (depth_ == kMember) {
      section_ = static_cast<size_t>(std::find(kSections.begin(), kSections.end(), name) -
                                     kSections.begin());
      if (section_ != kUnknown && std::exchange(seen_[section_], true)) {
        return Fail(StrCat("\"", name, "\" stands twice"));
      }
    } else if (InList() && depth_ == kField) {
      field_ = name == "rank"                                               ? Field::kRank
               : name == (section_ == kVocab ? "token_bytes" : "token_str") ? Field::kText
                                                                            : Field::kOther;
    } else if (Kept()) {
      key_ = std::move(name);
    }
    return true;
  }

  bool start_object(size_t) {
    if (depth_ == 0) {
      return Open();
    }
    if (InList() && depth_ == kEntry) {
      has_rank_ = has_text_ = false;
      return Open();
    }
    return StartOther(Json::object());
  }

  bool end_object() {
    if (InList() && depth_ == kField) {
      return TakeEntry() && Close();
    }
    return CloseKept();
  }

  bool start_array(size_t) {
    if (depth_ == kMember && (section_ == kVocab || section_ == kSpecial)) {
      document_.lists_special = document_.lists_special || section_ == kSpecial;
      return Open();
    }
    return StartOther(Json::array());
  }

  bool end_array() { return CloseKept(); }

  bool parse_error(size_t, const std::string&, const Json::exception& error) {
    return Fail(StrCat("no JSON: ", Printable(error.what(), 200)));
  }

 private:
  enum class Field { kOther, kRank, kText };

  bool InList() const { return depth_ >= kEntry && (section_ == kVocab || section_ == kSpecial); }
  bool Kept() const { return depth_ >= kMember && section_ >= kConfig && section_ != kUnknown; }
  bool Open() {
    return ++depth_ <= kMaxDepth || Fail(StrCat("nested deeper than ", kMaxDepth, " levels"));
  }
  bool Close() {
    --depth_;
    return true;
  }
  std::vector<TekkenEntry>& List() {
    return section_ == kVocab ? document_.vocab : document_.special;
  }
  std::string Where() { return StrCat(kSections[section_], "[", List().size(), "]"); }
  bool Fail(std::string message) {
    if (status_.ok()) {
      status_ = InvalidArgument(std::move(message));
    }
    return false;
  }

  bool Scalar(Json value) {
    if (depth_ == 0) {
      return Fail("no JSON object");
    }
    if (Kept()) {
      return Keep(std::move(value)) != nullptr;
    }
    if (depth_ == kMember && section_ == kSpecial && value.is_null()) {
      return true;  // as if it were not there
    }
    if (depth_ == kMember && section_ != kUnknown) {
      return Fail(StrCat(kSections[section_], " is no list: ", value.type_name()));
    }
    if (!InList() || depth_ > kField) {
      return true;
    }
    if (depth_ == kEntry) {
      return Fail(StrCat(Where(), " is not an object: ", value.type_name()));
    }
    if (field_ == Field::kText) {
      return Fail(StrCat(Where(), ": ", TextMember(), " is no text: ", value.type_name()));
    }
    if (field_ == Field::kRank) {
      if (!value.is_number_integer()) {
        return Fail(StrCat(Where(), ": rank is no integer"));
      }
      rank_ = value.get<int64_t>();
      has_rank_ = true;
    }
    return true;
  }

  // An object or a list that is none of the two lists' own.
  bool StartOther(Json empty) {
    if (depth_ == 0 || !Kept()) {
      if (depth_ == 0 || (depth_ == kMember && section_ != kUnknown) ||
          (InList() && (depth_ == kEntry || (depth_ == kField && field_ != Field::kOther)))) {
        return Scalar(std::move(empty));
      }
      return Open();
    }
    Json* value = Keep(std::move(empty));
    open_.push_back(value);
    return value != nullptr && Open();
  }

  bool CloseKept() {
    if (!open_.empty()) {
      open_.pop_back();
    }
    return Close();
  }

  // Puts a value into the innermost open object or list of config or model_settings_builder.
  Json* Keep(Json value) {
    if (++kept_ > kMaxKeptValues) {
      Fail(StrCat(kSections[section_], " has more than ", kMaxKeptValues, " values"));
      return nullptr;
    }
    if (open_.empty()) {
      Json& root = section_ == kConfig ? document_.config : document_.model_settings;
      return &(root = std::move(value));
    }
    Json& parent = *open_.back();
    if (parent.is_array()) {
      parent.push_back(std::move(value));
      return &parent.back();
    }
    return &(parent[key_] = std::move(value));
  }

  const char* TextMember() const { return section_ == kVocab ? "token_bytes" : "token_str"; }

  bool TakeEntry() {
    if (!has_rank_ || !has_text_) {
      return Fail(StrCat(Where(), ": no ", has_rank_ ? TextMember() : "rank"));
    }
    if (List().size() == kMaxEntries) {
      return Fail(StrCat(kSections[section_], " has more than ", kMaxEntries, " entries"));
    }
    List().push_back({rank_, std::move(text_)});
    return true;
  }

  TekkenDocument& document_;
  Status status_ = Status::Ok();
  size_t depth_ = 0;  // open objects and lists
  size_t section_ = kUnknown;
  std::array<bool, kSections.size()> seen_{};
  Field field_ = Field::kOther;
  int64_t rank_ = 0;
  bool has_rank_ = false;
  std::string text_;
  bool has_text_ = false;
  std::vector<Json*> open_;  // of what is kept; pointers hold while the innermost one grows
  std::string key_;
  size_t kept_ = 0;
};
}  // namespace

Result<TekkenDocument> ParseTekkenJson(std::string_view content) {
  TekkenDocument document;
  Reader reader(document);
  if (!Json::sax_parse(content, &reader)) {
    return reader.status();
  }
  return document;
}

}  // namespace mft
