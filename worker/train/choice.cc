// SPDX-License-Identifier: Apache-2.0
#include "worker/train/choice.h"

#include <cmath>

#include "common/base/strings.h"

namespace mft {

namespace {
// The one list of members.
template <typename Visitor>
void Visit(Visitor&& visit, auto& choice) {
  visit("best_step", choice.best_step);
  visit("best_loss", choice.best_loss);
  visit("reference_loss", choice.reference_loss);
  visit("waited", choice.waited);
  visit("last_loss", choice.last_loss);
}

Status Read(const Json& json, const char* key, int64_t& out) {
  MFT_ASSIGN_OR_RETURN(out, GetInt(json, key));
  return out < 0 ? InvalidArgument(StrCat("\"", key, "\" is ", out)) : Status::Ok();
}

Status Read(const Json& json, const char* key, double& out) {
  const auto value = json.find(key);
  if (value == json.end() || !(value->is_null() || value->is_number())) {
    return InvalidArgument(StrCat("\"", key, "\" must be a number or null"));
  }
  out = value->is_null() ? Choice::kNone : value->get<double>();
  return Status::Ok();
}
}  // namespace

bool Choice::Observe(int64_t step, double loss, double min_delta) {
  last_loss = std::isfinite(loss) ? loss : kNone;
  if (last_loss < reference_loss - min_delta) {
    reference_loss = last_loss;
    waited = 0;
  } else {
    ++waited;
  }
  if (last_loss >= best_loss) {
    return false;
  }
  best_loss = last_loss;
  best_step = step;
  return true;
}

Json ChoiceToJson(const Choice& choice) {
  Json json = Json::object();
  Visit(
      [&json](const char* key, const auto& value) {
        json[key] = std::isfinite(static_cast<double>(value)) ? Json(value) : Json(nullptr);
      },
      choice);
  return json;
}

Result<Choice> ChoiceFromJson(const Json& json) {
  Choice choice;
  Status status;
  Visit(
      [&](const char* key, auto& value) {
        if (status.ok()) {
          status = Read(json, key, value);
        }
      },
      choice);
  MFT_RETURN_IF_ERROR(status);
  return choice;
}

}  // namespace mft
