// SPDX-License-Identifier: Apache-2.0
#include "common/checkpoint/safetensors_header.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <optional>
#include <utility>

#include "common/base/json.h"
#include "common/base/strings.h"

namespace mft {

namespace {

struct RawTensor {
  std::string name;
  std::optional<std::string> dtype;
  std::optional<std::vector<uint64_t>> shape;
  std::optional<std::vector<uint64_t>> offsets;  // begin, end
};

std::string Quoted(std::string_view name) {
  return StrCat("\"", Printable(name, 120), "\"");
}

// Takes the header's JSON apart as it is parsed. A tree of it could take gigabytes, and its objects
// are searched linearly.
class HeaderHandler final : public nlohmann::json_sax<nlohmann::json> {
 public:
  std::vector<RawTensor> tensors;
  std::map<std::string, std::string> metadata;
  std::string problem;

  bool start_object(std::size_t /*elements*/) override {
    if (place_ == Place::kStart) {
      return Enter(Place::kHeader);
    }
    if (place_ == Place::kHeader && key_ == "__metadata__") {
      return Enter(Place::kMetadata);
    }
    if (place_ == Place::kHeader) {
      if (tensors.size() == kMaxSafetensorsTensors) {
        return Fail(StrCat("header has more than ", kMaxSafetensorsTensors, " tensors"));
      }
      tensors.push_back({.name = key_});
      return Enter(Place::kTensor);
    }
    return Unexpected("an object");
  }

  bool key(std::string& name) override {
    key_ = std::move(name);
    if (place_ == Place::kHeader && key_ == "__metadata__" && std::exchange(seen_metadata_, true)) {
      return Fail("header has \"__metadata__\" twice");
    }
    if (place_ == Place::kMetadata && metadata.contains(key_)) {
      return Fail(StrCat("header has ", Quoted(key_), " twice in \"__metadata__\""));
    }
    return true;
  }

  bool end_object() override {
    if (place_ == Place::kTensor) {
      const RawTensor& tensor = tensors.back();
      for (const auto& [present, field] : {std::pair{tensor.dtype.has_value(), "dtype"},
                                           std::pair{tensor.shape.has_value(), "shape"},
                                           std::pair{tensor.offsets.has_value(), "data_offsets"}}) {
        if (!present) {
          return Fail(StrCat("tensor ", Quoted(tensor.name), " has no \"", field, "\""));
        }
      }
    }
    return Enter(place_ == Place::kHeader ? Place::kEnd : Place::kHeader);
  }

  bool start_array(std::size_t /*elements*/) override {
    if (place_ != Place::kTensor || (key_ != "shape" && key_ != "data_offsets")) {
      return Unexpected("a list");
    }
    auto& list = key_ == "shape" ? tensors.back().shape : tensors.back().offsets;
    if (list.has_value()) {
      return FieldTwice();
    }
    list.emplace();
    numbers_ = &*list;
    return Enter(Place::kNumbers);
  }

  bool end_array() override {
    if (key_ == "data_offsets" && numbers_->size() != 2) {
      return Fail(StrCat("tensor ",
                         Quoted(tensors.back().name),
                         ": data_offsets must be [begin, end], not ",
                         numbers_->size(),
                         " numbers"));
    }
    return Enter(Place::kTensor);
  }

  bool number_unsigned(std::uint64_t value) override {
    if (place_ != Place::kNumbers) {
      return Unexpected(std::to_string(value));
    }
    constexpr size_t kMaxDimensions = 64;
    if (numbers_->size() == kMaxDimensions) {
      return Fail(StrCat("tensor ",
                         Quoted(tensors.back().name),
                         ": ",
                         key_,
                         " has more than ",
                         kMaxDimensions,
                         " numbers"));
    }
    numbers_->push_back(value);
    return true;
  }

  bool string(std::string& value) override {
    if (place_ == Place::kMetadata) {
      metadata.emplace(key_, std::move(value));
      return true;
    }
    if (place_ != Place::kTensor || key_ != "dtype") {
      return Unexpected(Quoted(value));
    }
    if (tensors.back().dtype.has_value()) {
      return FieldTwice();
    }
    tensors.back().dtype = std::move(value);
    return true;
  }

  bool null() override { return Unexpected("null"); }
  bool boolean(bool value) override { return Unexpected(value ? "true" : "false"); }
  bool number_integer(std::int64_t value) override { return Unexpected(std::to_string(value)); }
  bool number_float(double /*value*/, const std::string& text) override {
    return Unexpected(Printable(text, 40));
  }
  bool binary(nlohmann::json::binary_t& /*value*/) override { return Unexpected("binary data"); }
  bool parse_error(std::size_t position,
                   const std::string& /*token*/,
                   const nlohmann::json::exception& /*error*/) override {
    return Fail(StrCat("header is not valid JSON at its byte ", position));
  }

 private:
  enum class Place { kStart, kHeader, kMetadata, kTensor, kNumbers, kEnd };

  bool Enter(Place place) {
    place_ = place;
    return true;
  }
  bool Fail(std::string why) {
    problem = std::move(why);
    return false;
  }
  bool FieldTwice() {
    return Fail(StrCat("tensor ", Quoted(tensors.back().name), " has ", Quoted(key_), " twice"));
  }
  bool Unexpected(std::string_view what) {
    switch (place_) {
      case Place::kStart:
      case Place::kEnd:
        return Fail(StrCat("header must be a JSON object, not ", what));
      case Place::kHeader:
        return Fail(StrCat("header has ", what, " at ", Quoted(key_), ", not an object"));
      case Place::kMetadata:
        return Fail(StrCat("\"__metadata__\" has ", what, " at ", Quoted(key_), ", not a string"));
      case Place::kTensor:
      case Place::kNumbers:
        return Fail(
            StrCat("tensor ", Quoted(tensors.back().name), " has ", what, " at ", Quoted(key_)));
    }
    return false;
  }

  Place place_ = Place::kStart;
  std::string key_;
  bool seen_metadata_ = false;
  std::vector<uint64_t>* numbers_ = nullptr;
};

Status Bad(std::string message) {
  return {Code::kDataLoss, "INVALID_SAFETENSORS", std::move(message)};
}

// Shape, offsets and the bytes between them, against each other and the size of the data.
Result<TensorEntry> CheckTensor(const RawTensor& raw, std::span<const std::byte> data) {
  TensorEntry entry;
  entry.name = raw.name;
  const std::optional<DType> dtype = DTypeNamed(*raw.dtype);
  if (!dtype.has_value()) {
    return Bad(StrCat("tensor ", Quoted(raw.name), ": unknown dtype ", Quoted(*raw.dtype)));
  }
  entry.dtype = *dtype;
  uint64_t bytes = DTypeSize(entry.dtype);
  bool overflow = false;
  for (const uint64_t size : *raw.shape) {
    overflow = overflow || size > static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
    entry.shape.push_back(static_cast<int64_t>(size));
    // Checked even behind a dimension of 0, so that no partial product can overflow elsewhere.
    overflow = __builtin_mul_overflow(bytes, std::max<uint64_t>(size, 1), &bytes) || overflow;
  }
  if (overflow) {
    std::vector<std::string> sizes;
    for (const uint64_t size : *raw.shape) {
      sizes.push_back(std::to_string(size));
    }
    return Bad(StrCat("tensor ",
                      Quoted(raw.name),
                      ": shape [",
                      Join(sizes, ", "),
                      "] has more bytes than a 64-bit number holds"));
  }
  if (std::ranges::find(*raw.shape, 0U) != raw.shape->end()) {
    bytes = 0;
  }
  const uint64_t begin = (*raw.offsets)[0];
  const uint64_t end = (*raw.offsets)[1];
  const std::string offsets = StrCat("data_offsets [", begin, ", ", end, "]");
  if (end < begin || end > data.size()) {
    return Bad(StrCat("tensor ",
                      Quoted(raw.name),
                      ": ",
                      offsets,
                      " lie outside of the file's ",
                      data.size(),
                      " bytes of data"));
  }
  if (end - begin != bytes) {
    return Bad(StrCat("tensor ",
                      Quoted(raw.name),
                      ": shape ",
                      FormatShape(entry.shape),
                      " of ",
                      DTypeName(entry.dtype),
                      " needs ",
                      bytes,
                      " bytes, ",
                      offsets,
                      " hold ",
                      end - begin));
  }
  entry.data = data.subspan(begin, bytes);
  return entry;
}

// The tensors cover every byte of the data exactly once: nothing overlaps and nothing hides.
Status CheckTiling(const std::vector<TensorEntry>& tensors, std::span<const std::byte> data) {
  std::vector<const TensorEntry*> by_offset;
  for (const TensorEntry& tensor : tensors) {
    by_offset.push_back(&tensor);
  }
  const auto begin_of = [&data](const TensorEntry* t) {
    return static_cast<size_t>(t->data.data() - data.data());
  };
  std::ranges::sort(by_offset, [&](const TensorEntry* a, const TensorEntry* b) {
    return std::pair(begin_of(a), a->data.size()) < std::pair(begin_of(b), b->data.size());
  });
  size_t at = 0;
  for (const TensorEntry* tensor : by_offset) {
    const size_t begin = begin_of(tensor);
    if (begin != at) {
      return Bad(StrCat("tensor ",
                        Quoted(tensor->name),
                        " begins at byte ",
                        begin,
                        " of the data, but the tensors before it end at ",
                        at,
                        begin < at ? ": they overlap" : ": there is a hole"));
    }
    at += tensor->data.size();
  }
  if (at != data.size()) {
    return Bad(StrCat("the tensors end at byte ",
                      at,
                      " of the data, but the file has ",
                      data.size(),
                      ": it is truncated or has foreign bytes at its end"));
  }
  return Status::Ok();
}

Result<std::string_view> HeaderText(std::span<const std::byte> file) {
  uint64_t length = 0;
  if (file.size() < sizeof length) {
    return Bad(StrCat("file of ", file.size(), " bytes is too short for a safetensors file"));
  }
  std::memcpy(&length, file.data(), sizeof length);  // little-endian, as every host we build for
  if (length > kMaxSafetensorsHeaderBytes) {
    return Bad(StrCat("header length ",
                      length,
                      " is over the limit of ",
                      kMaxSafetensorsHeaderBytes,
                      " bytes: not a safetensors file?"));
  }
  if (length > file.size() - sizeof length) {
    return Bad(StrCat("header of ",
                      length,
                      " bytes does not fit into the file of ",
                      file.size(),
                      " bytes: it is truncated"));
  }
  return std::string_view(reinterpret_cast<const char*>(file.data()) + sizeof length, length);
}

}  // namespace

Result<SafetensorsHeader> ParseSafetensors(std::span<const std::byte> file) {
  MFT_ASSIGN_OR_RETURN(const std::string_view text, HeaderText(file));
  if (!IsValidUtf8(text)) {
    return Bad("header is not valid UTF-8");
  }
  HeaderHandler handler;
  if (!nlohmann::json::sax_parse(text.begin(), text.end(), &handler)) {
    return Bad(handler.problem);
  }
  const std::span<const std::byte> data = file.subspan(sizeof(uint64_t) + text.size());
  SafetensorsHeader header{.tensors = {}, .metadata = std::move(handler.metadata)};
  header.tensors.reserve(handler.tensors.size());
  std::ranges::sort(handler.tensors, {}, &RawTensor::name);
  for (const RawTensor& raw : handler.tensors) {
    if (!header.tensors.empty() && header.tensors.back().name == raw.name) {
      return Bad(StrCat("header has tensor ", Quoted(raw.name), " twice"));
    }
    MFT_ASSIGN_OR_RETURN(TensorEntry entry, CheckTensor(raw, data));
    header.tensors.push_back(std::move(entry));
  }
  MFT_RETURN_IF_ERROR(CheckTiling(header.tensors, data));
  return header;
}

}  // namespace mft
