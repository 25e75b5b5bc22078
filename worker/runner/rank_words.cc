// SPDX-License-Identifier: Apache-2.0
#include "worker/runner/rank_words.h"

#include "common/base/json.h"

namespace mft::runner {

namespace {
constexpr std::string_view kMark = "{\"mft_rank\":";
constexpr int64_t kMaxNumber = 1'000'000;

bool IsNumber(int64_t value) {
  return value >= -1 && value <= kMaxNumber;
}
}  // namespace

std::string EncodeRankEnd(const RankEnd& end) {
  Json json = {{"mft_rank", end.rank}, {"exit_code", end.exit_code}, {"signal", end.signal}};
  if (!end.why.ok()) {
    json["code"] = static_cast<int>(end.why.code());
    json["reason"] = end.why.reason();
    json["message"] = end.why.message();
  }
  return DumpJson(json) + "\n";
}

std::optional<RankEnd> DecodeRankEnd(std::string_view line) {
  const size_t begin = line.find(kMark);
  const auto json = ParseJson(begin == std::string_view::npos ? "" : line.substr(begin));
  if (!json.ok()) {
    return std::nullopt;
  }
  const auto rank = GetInt(*json, "mft_rank");
  const auto exit_code = GetInt(*json, "exit_code");
  const auto signal = GetInt(*json, "signal");
  if (!rank.ok() || !exit_code.ok() || !signal.ok() || *rank < 0 || !IsNumber(*rank) ||
      !IsNumber(*exit_code) || *signal < 0 || !IsNumber(*signal)) {
    return std::nullopt;
  }
  RankEnd end{.rank = static_cast<int>(*rank),
              .exit_code = static_cast<int>(*exit_code),
              .signal = static_cast<int>(*signal)};
  if (const int64_t code = IntOr(*json, "code", 0); code > 0 && IsNumber(code)) {
    end.why = Status(
        static_cast<Code>(code), StringOr(*json, "reason", ""), StringOr(*json, "message", ""));
  }
  return end;
}

}  // namespace mft::runner
