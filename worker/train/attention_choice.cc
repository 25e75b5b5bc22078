// SPDX-License-Identifier: Apache-2.0
#include "worker/train/attention_choice.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <exception>
#include <optional>
#include <utility>

#include "common/base/strings.h"

namespace mft {

namespace {
using Outputs = std::vector<std::vector<float>>;

constexpr int kRuns = 5;
// A run that takes so many times the best candidate's needs no second one.
constexpr double kHopeless = 3;

// "": they are the same. NaN and infinity are no difference that is within a bound.
std::string Difference(const Outputs& expected, const Outputs& actual) {
  if (expected.size() != actual.size()) {
    return "other outputs";
  }
  for (size_t m = 0; m < expected.size(); ++m) {
    if (expected[m].size() != actual[m].size()) {
      return StrCat("output ", m, " has ", actual[m].size(), " elements");
    }
    double norm = 0;
    double difference = 0;
    for (size_t i = 0; i < expected[m].size(); ++i) {
      const double d = static_cast<double>(actual[m][i]) - expected[m][i];
      norm += static_cast<double>(expected[m][i]) * expected[m][i];
      difference += d * d;
    }
    const double relative = std::sqrt(difference / std::max(norm, 1e-30));
    if (!(relative <= kAttentionTolerance)) {
      return StrCat("output ", m, " differs by ", FormatFixed(relative, 3), " of its norm");
    }
  }
  return "";
}

bool AllFinite(const Outputs& outputs) {
  return std::ranges::all_of(outputs, [](const std::vector<float>& matrix) {
    return std::ranges::all_of(matrix, [](float value) { return std::isfinite(value); });
  });
}

// The median seconds of some runs after one that is not counted. `best`: of the others so far.
double Measure(const AttentionCandidate& candidate, double best, const Clock& clock) {
  candidate.run();
  std::vector<double> seconds;
  while (seconds.size() < kRuns) {
    const int64_t begin = clock.BoottimeMicros();
    candidate.run();
    seconds.push_back(static_cast<double>(clock.BoottimeMicros() - begin) / 1e6);
    if (seconds.back() > kHopeless * best) {
      break;
    }
  }
  std::ranges::sort(seconds);
  return seconds[seconds.size() / 2];
}

class Chooser {
 public:
  explicit Chooser(const Clock& clock) : clock_(clock) {}

  // Keeps the candidate if it works and agrees.
  void Try(const AttentionCandidate& candidate) {
    try {
      Outputs outputs = candidate.outputs();
      if (!AllFinite(outputs)) {
        return LeaveOut(candidate, "its outputs are not finite");
      }
      if (!expected_) {
        expected_ = std::move(outputs);
        expected_name_ = candidate.name;
      } else if (const std::string difference = Difference(*expected_, outputs);
                 !difference.empty()) {
        return LeaveOut(candidate, StrCat("not as ", expected_name_, ": ", difference));
      }
      kept_.push_back(&candidate);
    } catch (const std::exception& error) {
      LeaveOut(candidate, error.what());
    }
  }

  // The least trusted first, which is the fastest as a rule, so that slow ones are soon given up.
  void MeasureAll() {
    for (const bool last_resort : {false, true}) {
      for (auto candidate = kept_.rbegin(); candidate != kept_.rend(); ++candidate) {
        if ((*candidate)->last_resort == last_resort && (!last_resort || choice.times.empty())) {
          MeasureOne(**candidate);
        }
      }
    }
    std::ranges::stable_sort(choice.times, {}, &AttentionChoice::Time::seconds);
  }

  void LeaveOut(const AttentionCandidate& candidate, const std::string& why) {
    choice.left_out.push_back(StrCat(candidate.name, ": ", why));
  }

  AttentionChoice choice;

 private:
  void MeasureOne(const AttentionCandidate& candidate) {
    try {
      const double seconds = Measure(candidate, best_, clock_);
      best_ = std::min(best_, seconds);
      choice.times.push_back({candidate.name, seconds});
    } catch (const std::exception& error) {
      LeaveOut(candidate, error.what());
    }
  }

  const Clock& clock_;
  double best_ = HUGE_VAL;
  std::vector<const AttentionCandidate*> kept_;
  std::optional<Outputs> expected_;
  std::string expected_name_;
};
}  // namespace

Result<AttentionChoice> ChooseAttention(std::span<const AttentionCandidate> candidates,
                                        const AttentionWish& wish,
                                        const Clock& clock) {
  Chooser chooser(clock);
  std::vector<const AttentionCandidate*> allowed;
  for (const AttentionCandidate& candidate : candidates) {
    if (wish.deterministic && !candidate.deterministic) {
      chooser.LeaveOut(candidate, "its backward pass is not deterministic");
    } else {
      allowed.push_back(&candidate);
    }
  }
  for (const AttentionCandidate* candidate : allowed) {
    if (!wish.previous.empty() && candidate->name == wish.previous) {
      chooser.choice.name = candidate->name;
      return chooser.choice;
    }
  }
  for (const AttentionCandidate* candidate : allowed) {
    chooser.Try(*candidate);
  }
  chooser.MeasureAll();
  AttentionChoice choice = std::move(chooser.choice);
  if (choice.times.empty()) {
    return FailedPrecondition(
        StrCat("no attention works on this device: ", Join(choice.left_out, "; ")));
  }
  choice.name = choice.times.front().name;
  return choice;
}

}  // namespace mft
