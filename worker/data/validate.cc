// SPDX-License-Identifier: Apache-2.0
#include "worker/data/validate.h"

#include <algorithm>
#include <utility>

#include "common/base/strings.h"
#include "worker/data/corrected_file.h"
#include "worker/data/encode_file.h"

namespace mft::data {
namespace {

class Validation {
 public:
  explicit Validation(const ValidateRequest& request) : request_(request) {}

  Result<ValidateReport> Run() {
    for (const DataFiles& source : request_.sources) {
      report_.sources.push_back({.path = source.path,
                                 .kind = source.kind,
                                 .weight = source.weight,
                                 .files = static_cast<int64_t>(source.files.size())});
      for (const DataFile& file : source.files) {
        MFT_RETURN_IF_ERROR(File(source.kind, file.path));
      }
      FinishSource();
    }
    return std::move(report_);
  }

 private:
  SourceReport& source() { return report_.sources.back(); }

  void Problem(const std::string& file, int64_t line, const Status& problem) {
    ++source().problems;
    ++report_.problems;
    request_.report({.file = file,
                     .line = line,
                     .problem_class = ProblemClass(problem),
                     .message = problem.message()});
  }

  Status File(SourceKind kind, const std::string& path) {
    std::vector<int64_t> bad_lines;
    const Status read =
        EncodeFile(path,
                   *request_.encoder,
                   {.kind = kind, .threads = request_.threads, .stopped = request_.stopped},
                   [&](const DataLine& line, const EncodedLine& encoded) {
                     if (!encoded.problems.empty()) {
                       bad_lines.push_back(line.number);
                     }
                     Count(path, line.number + 1, encoded);
                     return Status::Ok();
                   });
    if (read.code() == Code::kUnimplemented || read.code() == Code::kCancelled) {
      return read;
    }
    if (!read.ok()) {
      Problem(path, 0, read);
      return Status::Ok();
    }
    if (request_.create_corrected && !bad_lines.empty()) {
      MFT_ASSIGN_OR_RETURN(std::string written, WriteCorrectedFile(path, bad_lines));
      report_.corrected.push_back(std::move(written));
    }
    return Status::Ok();
  }

  void Count(const std::string& path, int64_t line, const EncodedLine& encoded) {
    ++source().lines;
    for (const Status& problem : encoded.problems) {
      Problem(path, line, problem);
    }
    for (const std::string& warning : encoded.warnings) {
      request_.report({.file = path, .line = line, .warning = true, .message = warning});
    }
    source().samples += encoded.problems.empty() ? 1 : 0;
    for (size_t i = 0; i < encoded.samples.size(); ++i) {
      source().chunked_samples += i > 0 ? 1 : 0;
      CountSample(encoded.samples[i]);
    }
  }

  void CountSample(const EncodedSample& sample) {
    SourceReport& counts = source();
    const auto length = static_cast<int64_t>(sample.tokens.size());
    // The first token is never predicted.
    const int64_t loss =
        length == 0 ? 0 : std::count(sample.mask.begin() + 1, sample.mask.end(), uint8_t{1});
    counts.tokens += length;
    counts.loss_tokens += loss;
    counts.rows += loss > 0 ? length - 1 : 0;
    counts.samples_without_loss += loss == 0 ? 1 : 0;
    counts.overlong_samples += request_.seq_len > 0 && length - 1 > request_.seq_len ? 1 : 0;
    counts.longest_tokens = std::max(counts.longest_tokens, length);
  }

  // A training source without loss would never fill a batch.
  void FinishSource() {
    const bool encoded = source().tokens > 0 || source().samples == 0;
    if (!encoded || source().problems > 0 || source().loss_tokens > 0) {
      return;
    }
    const std::string message =
        StrCat("none of its ", source().samples, " samples has a token to train on");
    if (source().kind == SourceKind::kEval) {
      request_.report({.file = source().path, .warning = true, .message = message});
    } else {
      Problem(source().path, 0, {Code::kInvalidArgument, "NO_TRAINABLE_TOKENS", message});
    }
  }

  const ValidateRequest& request_;
  ValidateReport report_;
};

}  // namespace

std::string FindingText(const Finding& finding) {
  return StrCat(finding.file,
                finding.line > 0 ? StrCat(":", finding.line) : "",
                finding.warning ? ": warning: " : ": ",
                finding.problem_class.empty() ? "" : StrCat(finding.problem_class, ": "),
                finding.message);
}

Result<ValidateReport> ValidateData(const ValidateRequest& request) {
  return Validation(request).Run();
}

}  // namespace mft::data
