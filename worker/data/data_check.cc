// SPDX-License-Identifier: Apache-2.0
#include "worker/data/data_check.h"

#include <algorithm>
#include <utility>

#include "common/base/strings.h"

namespace mft::data {
namespace {

constexpr std::string_view kNothingToTrain = "NO_TRAINABLE_TOKENS";

std::string Samples(int64_t count) {
  return StrCat(count, count == 1 ? " sample" : " samples");
}

}  // namespace

std::string FindingPlace(const Finding& finding) {
  return StrCat(finding.file, finding.line > 0 ? StrCat(":", finding.line) : "");
}

std::string FindingText(const Finding& finding) {
  return StrCat(FindingPlace(finding),
                finding.warning ? ": warning: " : ": ",
                finding.problem_class.empty() ? "" : StrCat(finding.problem_class, ": "),
                finding.message);
}

DataCheckOptions DataCheckOptionsFor(const JobSpec& spec) {
  return {.seq_len = spec.seq_len, .ranks = spec.mftd.packing == "reference" ? spec.mftd.ranks : 1};
}

void DataCheck::BeginSource(const DataFiles& source) {
  sources_.push_back({.path = source.path,
                      .kind = source.kind,
                      .weight = source.weight,
                      .files = static_cast<int64_t>(source.files.size())});
  trainable_.assign(static_cast<size_t>(options_.ranks), false);
  if (options_.count_duplicates) {
    seen_.emplace();
  }
}

void DataCheck::AddProblem(const std::string& file, int64_t line, const Status& problem) {
  const Finding finding = {.file = file,
                           .line = line,
                           .problem_class = ProblemClass(problem),
                           .message = problem.message()};
  if (problems_++ == 0) {
    first_problem_ = FindingText(finding);
  }
  ++source().problems;
  report_(finding);
}

void DataCheck::Warn(std::string message) {
  report_({.file = source().path, .warning = true, .message = std::move(message)});
}

void DataCheck::Add(const std::string& file, const DataLine& line, const EncodedLine& encoded) {
  ++source().lines;
  for (const Status& problem : encoded.problems) {
    AddProblem(file, line.number + 1, problem);
  }
  for (const std::string& warning : encoded.warnings) {
    report_({.file = file, .line = line.number + 1, .warning = true, .message = warning});
  }
  if (encoded.problems.empty()) {
    ++source().samples;
    CountDuplicate(file, line);
  }
  for (size_t i = 0; i < encoded.samples.size(); ++i) {
    source().chunked_samples += i > 0 ? 1 : 0;
    const std::vector<uint8_t>& mask = encoded.samples[i].mask;
    // The first token is never predicted.
    CountSample(
        {.length = static_cast<int64_t>(mask.size()),
         .loss_tokens = mask.empty() ? 0 : std::count(mask.begin() + 1, mask.end(), uint8_t{1}),
         .line = line.number});
  }
}

void DataCheck::AddCached(const SampleInfo& sample, bool chunked) {
  ++(chunked ? source().chunked_samples : source().samples);
  CountSample(sample);
}

void DataCheck::CountDuplicate(const std::string& file, const DataLine& line) {
  if (seen_ && seen_->Add(line.text) && source().first_duplicate.empty()) {
    source().first_duplicate = StrCat(file, ":", line.number + 1);
  }
}

void DataCheck::CountSample(const SampleInfo& sample) {
  SourceReport& counts = source();
  const int64_t length = sample.length;
  const int64_t loss = sample.loss_tokens;
  counts.tokens += length;
  counts.loss_tokens += loss;
  counts.rows += loss > 0 ? length - 1 : 0;
  counts.samples_without_loss += loss == 0 ? 1 : 0;
  counts.overlong_samples += options_.seq_len > 0 && length - 1 > options_.seq_len ? 1 : 0;
  counts.longest_tokens = std::max(counts.longest_tokens, length);
  counts.lengths.Add(length);
  if (loss > 0) {
    trainable_[static_cast<size_t>(sample.line % options_.ranks)] = true;
  }
}

void DataCheck::EndSource() {
  if (seen_) {
    source().duplicates = seen_->duplicates();
    source().duplicates_exact = seen_->exact();
  }
  if (source().overlong_samples > 0) {
    Warn(StrCat(source().overlong_samples,
                " of ",
                Samples(source().samples + source().chunked_samples),
                source().overlong_samples == 1 ? " is" : " are",
                " longer than seq_len ",
                options_.seq_len,
                source().kind == SourceKind::kEval
                    ? ", evaluated in parts that do not see each other"
                    : ", split there; the parts do not see each other"));
  }
  CheckTrainable();
}

// A training source, or a rank's share of one, without loss would never fill a batch.
void DataCheck::CheckTrainable() {
  const bool encoded = source().tokens > 0 || source().samples == 0;
  const auto useless = std::find(trainable_.begin(), trainable_.end(), false);
  if (!encoded || source().problems > 0 || useless == trainable_.end()) {
    return;
  }
  const std::string none = StrCat("none of its ", Samples(source().samples));
  if (source().kind == SourceKind::kEval) {
    if (source().loss_tokens == 0) {
      Warn(StrCat(none, " has a token to evaluate; check weight, only_last and mask"));
    }
    return;
  }
  std::string message = StrCat(none, " has a token to train on; check weight, only_last and mask");
  if (source().loss_tokens > 0) {
    message = StrCat(none,
                     " gives rank ",
                     useless - trainable_.begin(),
                     " of ",
                     options_.ranks,
                     " a token to train on; packing reference deals lines out to the ranks, use "
                     "fewer ranks or packing whole");
  }
  AddProblem(
      source().path, 0, {Code::kInvalidArgument, std::string(kNothingToTrain), std::move(message)});
}

}  // namespace mft::data
