// SPDX-License-Identifier: Apache-2.0
#include "common/journal/record.h"

#include <cmath>
#include <limits>
#include <type_traits>

#include "common/base/strings.h"

namespace mft {

namespace {

// The type names and the fields of every record: written once, read by encoder and decoder.
template <typename Body>
struct Kind;
#define MFT_RECORD_KIND(Type, name)                   \
  template <>                                         \
  struct Kind<Type> {                                 \
    static constexpr std::string_view kName = (name); \
  }
MFT_RECORD_KIND(HeaderRecord, "header");
MFT_RECORD_KIND(PhaseRecord, "phase");
MFT_RECORD_KIND(ResumeRecord, "resume");
MFT_RECORD_KIND(StepRecord, "step");
MFT_RECORD_KIND(EvalRecord, "eval");
MFT_RECORD_KIND(CheckpointRecord, "checkpoint");
MFT_RECORD_KIND(MessageRecord, "message");
MFT_RECORD_KIND(DataPreparedRecord, "data_prepared");
MFT_RECORD_KIND(FinalRecord, "final");
MFT_RECORD_KIND(ResultRecord, "result");
#undef MFT_RECORD_KIND

template <typename Visitor>
void VisitFields(Visitor& v, std::same_as<HeaderRecord> auto& r) {
  v("version", r.version);
  v("attempt_id", r.attempt_id);
  v("rank", r.rank);
  v("boot_id", r.boot_id);
  v("build", r.build);
}

template <typename Visitor>
void VisitFields(Visitor& v, std::same_as<PhaseRecord> auto& r) {
  v("phase", r.phase);
  v("detail", r.detail);
}

template <typename Visitor>
void VisitFields(Visitor& v, std::same_as<ResumeRecord> auto& r) {
  v("from_step", r.from_step);
}

template <typename Visitor>
void VisitFields(Visitor& v, std::same_as<StepRecord> auto& r) {
  v("step", r.step);
  v("max_steps", r.max_steps);
  v("loss", r.loss);
  v("perplexity", r.perplexity);
  v("learning_rate", r.learning_rate);
  v("beta1", r.beta1);
  v("grad_norm", r.grad_norm);
  v("loss_tokens", r.loss_tokens);
  v("tokens", r.tokens);
  v("step_seconds", r.step_seconds);
  v("tokens_per_second", r.tokens_per_second);
  v("mean_tokens_per_second", r.mean_tokens_per_second);
  v("eta_seconds", r.eta_seconds);
  v("peak_memory_bytes", r.peak_memory_bytes);
  v("memory_bytes", r.memory_bytes);
  v("nonfinite", r.nonfinite);
  v("skipped", r.skipped);
  v("expert_share", r.expert_share);
  v("expert_imbalance", r.expert_imbalance);
}

template <typename Visitor>
void VisitFields(Visitor& v, std::same_as<EvalRecord> auto& r) {
  v("step", r.step);
  v("eval_loss", r.eval_loss);
  v("perplexity", r.perplexity);
  v("train_loss", r.train_loss);
  v("loss_tokens", r.loss_tokens);
  v("seconds", r.seconds);
}

template <typename Visitor>
void VisitFields(Visitor& v, std::same_as<CheckpointRecord> auto& r) {
  v("step", r.step);
  v("path", r.path);
  v("size_bytes", r.size_bytes);
  v("seconds", r.seconds);
  v("removed", r.removed);
}

template <typename Visitor>
void VisitFields(Visitor& v, std::same_as<MessageRecord> auto& r) {
  v("level", r.level);
  v("text", r.text);
}

template <typename Visitor>
void VisitFields(Visitor& v, std::same_as<DataPreparedRecord> auto& r) {
  v("samples", r.samples);
  v("tokens", r.tokens);
  v("loss_tokens", r.loss_tokens);
  v("eval_samples", r.eval_samples);
  v("problems", r.problems);
  v("steps_per_epoch", r.steps_per_epoch);
  v("epochs", r.epochs);
  v("cache", r.cache);
}

template <typename Visitor>
void VisitFields(Visitor& v, std::same_as<FinalRecord> auto& r) {
  v("outcome", r.outcome);
  v("step", r.step);
  v("code", r.code);
  v("reason", r.reason);
  v("message", r.message);
}

template <typename Visitor>
void VisitFields(Visitor& v, std::same_as<RankExit> auto& r) {
  v("rank", r.rank);
  v("exit_code", r.exit_code);
  v("signal", r.signal);
  v("final", r.final);
}

template <typename Visitor>
void VisitFields(Visitor& v, std::same_as<ResultRecord> auto& r) {
  v("outcome", r.outcome);
  v("ranks", r.ranks);
  v("first_failed", r.first_failed);
  v("code", r.code);
  v("reason", r.reason);
  v("message", r.message);
}

Json NumberToJson(double value) {
  if (std::isnan(value)) {
    return "NaN";
  }
  if (std::isinf(value)) {
    return value > 0 ? "Infinity" : "-Infinity";
  }
  return value;
}

class Encoder {
 public:
  explicit Encoder(Json& out) : out_(out) {}

  void operator()(const char* name, double& value) { out_[name] = NumberToJson(value); }
  template <typename T>
  requires std::is_integral_v<T> || std::same_as<T, std::string> ||
      std::same_as<T, std::vector<std::string>>
  void operator()(const char* name, T& value) { out_[name] = value; }
  // What few records have is left out of the others.
  void operator()(const char* name, std::optional<double>& value) {
    if (value) {
      out_[name] = NumberToJson(*value);
    }
  }
  void operator()(const char* name, std::vector<double>& value) {
    for (const double element : value) {
      out_[name].push_back(NumberToJson(element));
    }
  }
  void operator()(const char* name, std::optional<FinalRecord>& value) {
    out_[name] = value ? ToObject(*value) : Json(nullptr);
  }
  void operator()(const char* name, std::vector<RankExit>& value) {
    Json list = Json::array();
    for (RankExit& rank : value) {
      list.push_back(ToObject(rank));
    }
    out_[name] = std::move(list);
  }

 private:
  template <typename T>
  static Json ToObject(T& record) {
    Json object = Json::object();
    Encoder encoder(object);
    VisitFields(encoder, record);
    return object;
  }

  Json& out_;
};

// Keeps the first problem; fields after it stay as they are.
class Decoder {
 public:
  explicit Decoder(const Json& in) : in_(in) {}
  const Status& status() const { return status_; }

  void operator()(const char* name, int& value) {
    int64_t wide = 0;
    (*this)(name, wide);
    if (wide < std::numeric_limits<int>::min() || wide > std::numeric_limits<int>::max()) {
      Fail(InvalidArgument(StrCat("\"", name, "\" is out of range: ", wide)));
    } else if (status_.ok()) {
      value = static_cast<int>(wide);
    }
  }
  void operator()(const char* name, int64_t& value) { Take(GetInt(in_, name), value); }
  void operator()(const char* name, bool& value) { Take(GetBool(in_, name), value); }
  void operator()(const char* name, std::string& value) { Take(GetString(in_, name), value); }
  void operator()(const char* name, double& value) {
    const std::string text = StringOr(in_, name, "");
    if (text == "NaN") {
      value = std::numeric_limits<double>::quiet_NaN();
    } else if (text == "Infinity" || text == "-Infinity") {
      value = (text[0] == '-' ? -1 : 1) * std::numeric_limits<double>::infinity();
    } else {
      Take(GetDouble(in_, name), value);
    }
  }
  void operator()(const char* name, std::optional<double>& value) {
    if (in_.contains(name)) {
      (*this)(name, value.emplace());
    }
  }
  void operator()(const char* name, std::vector<double>& value) {
    if (!in_.contains(name)) {
      return;
    }
    for (const Json& element : List(name)) {
      if (!element.is_number()) {
        Fail(InvalidArgument(StrCat("\"", name, "\" must hold numbers")));
        return;
      }
      value.push_back(element.get<double>());
    }
  }
  void operator()(const char* name, std::vector<std::string>& value) {
    for (const Json& element : List(name)) {
      if (!element.is_string()) {
        Fail(InvalidArgument(StrCat("\"", name, "\" must hold strings")));
        return;
      }
      value.push_back(element.get<std::string>());
    }
  }
  void operator()(const char* name, std::optional<FinalRecord>& value) {
    const auto member = in_.find(name);
    if (member != in_.end() && !member->is_null()) {
      Nested(*member, value.emplace());
    }
  }
  void operator()(const char* name, std::vector<RankExit>& value) {
    for (const Json& element : List(name)) {
      Nested(element, value.emplace_back());
    }
  }

 private:
  void Fail(Status status) {
    if (status_.ok()) {
      status_ = std::move(status);
    }
  }
  template <typename T>
  void Take(Result<T> result, T& value) {
    if (result.ok()) {
      value = std::move(result).value();
    } else {
      Fail(result.status());
    }
  }
  const Json& List(const char* name) {
    static const Json kEmpty = Json::array();
    const auto member = in_.find(name);
    if (member == in_.end() || !member->is_array()) {
      Fail(InvalidArgument(StrCat("\"", name, "\" must be a list")));
      return kEmpty;
    }
    return *member;
  }
  template <typename T>
  void Nested(const Json& object, T& record) {
    if (!object.is_object()) {
      Fail(InvalidArgument("a nested record must be an object"));
      return;
    }
    Decoder decoder(object);
    VisitFields(decoder, record);
    Fail(decoder.status());
  }

  const Json& in_;
  Status status_;
};

template <size_t I = 0>
Status DecodeBody(std::string_view type, const Json& json, RecordBody& body) {
  if constexpr (I == std::variant_size_v<RecordBody>) {
    return InvalidArgument(StrCat("unknown record type \"", Printable(type, 40), "\""));
  } else {
    using Body = std::variant_alternative_t<I, RecordBody>;
    if (type != Kind<Body>::kName) {
      return DecodeBody<I + 1>(type, json, body);
    }
    Decoder decoder(json);
    VisitFields(decoder, body.emplace<I>());
    return decoder.status();
  }
}

// The longest string anywhere in `json`, or nullptr.
std::string* LongestText(Json& json) {
  if (json.is_string()) {
    return json.get_ptr<std::string*>();
  }
  std::string* longest = nullptr;
  if (json.is_structured()) {
    for (Json& element : json) {
      std::string* text = LongestText(element);
      if (text != nullptr && (longest == nullptr || text->size() > longest->size())) {
        longest = text;
      }
    }
  }
  return longest;
}

}  // namespace

std::string_view BuildId() {
  return MFT_BUILD_ID;
}

std::string_view RecordTypeName(const RecordBody& body) {
  return std::visit([](const auto& b) { return Kind<std::decay_t<decltype(b)>>::kName; }, body);
}

std::string EncodeRecord(const Record& record) {
  Json json = Json::object();
  json["seq"] = record.seq;
  json["at"] = record.at_micros;
  json["type"] = RecordTypeName(record.body);
  RecordBody body = record.body;
  Encoder encoder(json);
  std::visit([&](auto& b) { VisitFields(encoder, b); }, body);
  std::string line = DumpJson(json);
  while (line.size() > kMaxRecordBytes) {
    std::string* text = LongestText(json);
    if (text == nullptr || text->size() < 16) {
      break;  // nothing left to cut: only numbers of a fixed count of fields
    }
    *text = Printable(*text, text->size() / 2);
    line = DumpJson(json);
  }
  return line;
}

Result<Record> DecodeRecord(std::string_view line) {
  if (line.size() > kMaxRecordBytes) {
    return InvalidArgument(
        StrCat("record of ", line.size(), " bytes, the limit is ", kMaxRecordBytes));
  }
  MFT_ASSIGN_OR_RETURN(const Json json, ParseJson(line, 8));
  if (!json.is_object()) {
    return InvalidArgument("record is not a JSON object");
  }
  Record record;
  MFT_ASSIGN_OR_RETURN(record.seq, GetInt(json, "seq"));
  MFT_ASSIGN_OR_RETURN(record.at_micros, GetInt(json, "at"));
  MFT_ASSIGN_OR_RETURN(const std::string type, GetString(json, "type"));
  MFT_RETURN_IF_ERROR(
      DecodeBody(type, json, record.body)
          .WithContext(StrCat("record ", record.seq, " (", Printable(type, 40), ")")));
  return record;
}

}  // namespace mft
