// SPDX-License-Identifier: Apache-2.0
#include "worker/train/run_state.h"

#include <cmath>
#include <string_view>
#include <vector>

#include "common/base/files.h"
#include "common/base/strings.h"

namespace mft {

namespace {
constexpr int kStateVersion = 1;
constexpr const char* kBaseWeights = "base_weights";  // not in the states of older builds

// The one list of what makes up a DataIdentity.
template <typename Visitor>
void VisitIdentity(Visitor&& visit, auto& identity) {
  visit("cache", identity.cache);
  visit("seed", identity.seed);
  visit("seq_len", identity.seq_len);
  visit("packs_per_step", identity.packs_per_step);
  visit("packing", identity.packing);
  visit("loss_norm", identity.loss_norm);
  visit("shuffle_text", identity.shuffle_text);
  visit("shuffle_instruct", identity.shuffle_instruct);
  visit(kBaseWeights, identity.base_weights);
}

// The same of a Choice.
template <typename Visitor>
void VisitChoice(Visitor&& visit, auto& choice) {
  visit("best_step", choice.best_step);
  visit("best_loss", choice.best_loss);
  visit("reference_loss", choice.reference_loss);
  visit("waited", choice.waited);
  visit("last_loss", choice.last_loss);
}

Status Read(const Json& json, std::string_view key, std::string& out) {
  MFT_ASSIGN_OR_RETURN(out, GetString(json, key));
  return Status::Ok();
}
Status Read(const Json& json, std::string_view key, int64_t& out) {
  MFT_ASSIGN_OR_RETURN(out, GetInt(json, key));
  return out < 0 ? InvalidArgument(StrCat("\"", key, "\" is ", out)) : Status::Ok();
}
Status Read(const Json& json, std::string_view key, bool& out) {
  MFT_ASSIGN_OR_RETURN(out, GetBool(json, key));
  return Status::Ok();
}

// A loss: null is none.
Status Read(const Json& json, std::string_view key, double& out) {
  const auto value = json.find(key);
  if (value == json.end() || !(value->is_null() || value->is_number())) {
    return InvalidArgument(StrCat("\"", key, "\" must be a number or null"));
  }
  out = value->is_null() ? Choice::kNone : value->get<double>();
  return Status::Ok();
}

Result<Json> Member(const Json& json, std::string_view key) {
  const auto member = json.find(key);
  if (member == json.end() || !member->is_object()) {
    return InvalidArgument(StrCat("\"", key, "\" must be an object"));
  }
  return *member;
}

Json IdentityToJson(const DataIdentity& identity) {
  Json json = Json::object();
  VisitIdentity([&json](const char* key, const auto& value) { json[key] = value; }, identity);
  return json;
}

Json ChoiceToJson(const Choice& choice) {
  Json json = Json::object();
  VisitChoice(
      [&json](const char* key, const auto& value) {
        json[key] = std::isfinite(static_cast<double>(value)) ? Json(value) : Json(nullptr);
      },
      choice);
  return json;
}

Result<Choice> ChoiceFromJson(const Json& json) {
  Choice choice;
  Status status;
  VisitChoice(
      [&](const char* key, auto& value) {
        if (status.ok()) {
          status = Read(json, key, value);
        }
      },
      choice);
  MFT_RETURN_IF_ERROR(status);
  return choice;
}
}  // namespace

Json RunStateToJson(const RunState& state) {
  Json json;
  json["version"] = kStateVersion;
  json["step"] = state.step;
  json["updates"] = state.updates;
  json["max_steps"] = state.max_steps;
  json["ranks"] = state.ranks;
  json["train_loss"] = std::isfinite(state.train_loss) ? Json(state.train_loss) : Json(nullptr);
  json["metrics"] = {{"train_bytes", state.metrics.train}, {"eval_bytes", state.metrics.eval}};
  json["data"] = IdentityToJson(state.data);
  if (state.choice.seen()) {
    json["choice"] = ChoiceToJson(state.choice);
  }
  json["data"]["position"] = state.step * state.data.packs_per_step;
  // Every random number is a function of the seed and a counter: there is no hidden state.
  json["rng"] = {{"generator", "philox4x32-10"}, {"seed", state.data.seed}};
  return json;
}

Result<RunState> RunStateFromJson(const Json& json) {
  RunState state;
  MFT_ASSIGN_OR_RETURN(const int64_t version, GetInt(json, "version"));
  if (version != kStateVersion) {
    return InvalidArgument(StrCat("version ", version, ", this build reads ", kStateVersion));
  }
  MFT_RETURN_IF_ERROR(Read(json, "step", state.step));
  MFT_RETURN_IF_ERROR(Read(json, "updates", state.updates));
  MFT_RETURN_IF_ERROR(Read(json, "max_steps", state.max_steps));
  state.ranks = IntOr(json, "ranks", 1);  // older builds had one
  state.train_loss = DoubleOr(json, "train_loss", std::nan(""));
  MFT_ASSIGN_OR_RETURN(const Json metrics, Member(json, "metrics"));
  MFT_RETURN_IF_ERROR(Read(metrics, "train_bytes", state.metrics.train));
  MFT_RETURN_IF_ERROR(Read(metrics, "eval_bytes", state.metrics.eval));
  MFT_ASSIGN_OR_RETURN(const Json data, Member(json, "data"));
  Status status;
  VisitIdentity(
      [&](const char* key, auto& value) {
        const bool older = std::string_view(key) == kBaseWeights && !data.contains(key);
        if (status.ok() && !older) {
          status = Read(data, key, value);
        }
      },
      state.data);
  MFT_RETURN_IF_ERROR(status);
  if (json.contains("choice")) {  // not before the first evaluation
    MFT_ASSIGN_OR_RETURN(const Json choice, Member(json, "choice"));
    MFT_ASSIGN_OR_RETURN(state.choice, ChoiceFromJson(choice));
  }
  if (state.updates > state.step || state.data.packs_per_step < 1 || state.ranks < 1) {
    return InvalidArgument(StrCat(state.updates,
                                  " updates in ",
                                  state.step,
                                  " steps of ",
                                  state.data.packs_per_step,
                                  " packs on ",
                                  state.ranks,
                                  " ranks"));
  }
  return state;
}

std::string DescribeIdentity(const DataIdentity& identity) {
  return DumpJson(IdentityToJson(identity));
}

std::string DescribeDifferences(const DataIdentity& before, const DataIdentity& now) {
  const Json old_values = IdentityToJson(before);
  const Json new_values = IdentityToJson(now);
  std::vector<std::string> differences;
  for (const auto& [key, value] : new_values.items()) {
    const bool unknown = key == kBaseWeights && (old_values[key] == "" || value == "");
    if (old_values[key] != value && !unknown) {
      differences.push_back(StrCat(key, " ", DumpJson(old_values[key]), " -> ", DumpJson(value)));
    }
  }
  return Join(differences, ", ");
}

Result<RunState> ReadRunState(const std::string& checkpoint_dir) {
  const std::string path = JoinPath(checkpoint_dir, "state/state.json");
  MFT_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, size_t{1} << 20));
  const auto json = ParseJson(text);
  auto state = json.ok() ? RunStateFromJson(*json) : Result<RunState>(json.status());
  if (!state.ok()) {
    return DataLoss(StrCat(path, ": ", state.status().message()));
  }
  return state;
}

}  // namespace mft
