// SPDX-License-Identifier: Apache-2.0
#include "worker/data/validate_report.h"

#include <cstdio>
#include <string>
#include <utility>

#include "common/base/json.h"
#include "common/base/log.h"
#include "common/base/strings.h"

namespace mft::data {
namespace {

void PrintLine(const std::string& text) {
  std::printf("%s\n", text.c_str());
}

std::string Counted(int64_t number, std::string_view noun) {
  return StrCat(number, " ", noun, number == 1 ? "" : "s");
}

class TextPrinter final : public ReportPrinter {
 public:
  void Print(const Finding& finding) override { PrintLine(FindingText(finding)); }

  void Finish(const ValidateReport& report, const ReportedJob* job) override {
    for (const SourceReport& source : report.sources) {
      PrintSource(source);
    }
    for (const std::string& path : report.corrected) {
      PrintLine(StrCat("wrote ", path));
    }
    const auto expected = job == nullptr ? std::nullopt : ExpectedOf(report, job->spec);
    if (expected && report.problems == 0) {
      PrintExpected(report, *job, *expected);
    }
    PrintLine(report.problems == 0 ? "no problems" : Counted(report.problems, "problem"));
  }

  void Fail(const Status& status) override { LogError(status.message()); }

 private:
  static void PrintSource(const SourceReport& source) {
    std::string line = StrCat(source.path,
                              ": ",
                              source.files > 1 ? StrCat(source.files, " files, ") : "",
                              Counted(source.lines, "line"),
                              ", ",
                              Counted(source.samples, "sample"));
    if (source.chunked_samples > 0) {
      line += StrCat(" and ", source.chunked_samples, " by chunking");
    }
    if (source.tokens > 0) {
      line += StrCat(", ",
                     Counted(source.tokens, "token"),
                     ", ",
                     source.loss_tokens,
                     " with loss, longest ",
                     source.longest_tokens);
    }
    PrintLine(line);
    if (source.samples_without_loss > 0) {
      PrintLine(StrCat(
          "  ", Counted(source.samples_without_loss, "sample"), " without a token to train on"));
    }
    if (source.duplicates > 0) {
      PrintLine(StrCat("  ",
                       source.duplicates_exact ? "" : "about ",
                       Counted(source.duplicates, "line"),
                       source.duplicates == 1 ? " repeats" : " repeat",
                       " an earlier one, the first is ",
                       source.first_duplicate));
    }
    PrintLengths(source.lengths);
  }

  static void PrintLengths(const LengthHistogram& lengths) {
    if (lengths.samples() == 0) {
      return;
    }
    PrintLine("           tokens     samples");
    for (const std::string& line : lengths.ToLines()) {
      PrintLine(line);
    }
  }

  static std::string TimeText(const ReportedJob& job) {
    const std::string cpu = job.cpu_time ? StrCat(", about ",
                                                  FormatDuration(job.cpu_time->seconds),
                                                  " on ",
                                                  Counted(job.cpu_time->threads, "thread"),
                                                  " of this machine's CPU, without evaluation")
                                         : "";
    return job.spec.mftd.device == "cpu"
               ? cpu
               : StrCat(cpu, "; how long a GPU takes is known once it has made a few steps");
  }

  static void PrintExpected(const ValidateReport& report,
                            const ReportedJob& job,
                            const Expected& expected) {
    PrintLine(StrCat(FormatFixed(expected.steps_per_epoch, 2),
                     " steps an epoch, ",
                     FormatFixed(expected.epochs, 2),
                     " epochs in ",
                     Counted(job.spec.max_steps, "step"),
                     TimeText(job)));
    if (expected.source_epochs.size() < 2) {
      return;
    }
    size_t next = 0;
    for (const SourceReport& source : report.sources) {
      if (source.kind != SourceKind::kEval) {
        PrintLine(StrCat("  ",
                         FormatFixed(expected.source_epochs[next++], 2),
                         " epochs of ",
                         source.path,
                         ", weight ",
                         source.weight));
      }
    }
  }
};

class JsonPrinter final : public ReportPrinter {
 public:
  void Print(const Finding& finding) override {
    std::printf("%s%s",
                num_printed_++ == 0 ? "{\"problems\":[\n" : ",\n",
                DumpJson({{"file", finding.file},
                          {"line", finding.line},
                          {"severity", finding.warning ? "warning" : "error"},
                          {"class", finding.problem_class},
                          {"message", finding.message}})
                    .c_str());
  }

  void Finish(const ValidateReport& report, const ReportedJob* job) override {
    Json rest = {{"num_problems", report.problems}, {"sources", Json::array()}};
    for (const SourceReport& source : report.sources) {
      rest["sources"].push_back(ToJson(source));
    }
    rest["corrected"] = report.corrected;
    if (const auto expected = job == nullptr ? std::nullopt : ExpectedOf(report, job->spec)) {
      rest["expected"] = {{"steps_per_epoch", expected->steps_per_epoch},
                          {"epochs", expected->epochs},
                          {"max_steps", job->spec.max_steps},
                          {"train_tokens", expected->train_tokens},
                          {"source_epochs", expected->source_epochs},
                          {"seconds", job->cpu_time ? Json(job->cpu_time->seconds) : Json()},
                          {"seconds_device", job->cpu_time ? Json("cpu") : Json()}};
    }
    PrintRest(rest);
  }

  void Fail(const Status& status) override {
    PrintRest({{"error", {{"code", CodeName(status.code())}, {"message", status.message()}}}});
  }

 private:
  // The object was begun with the first problem; `rest` brings the other members.
  void PrintRest(const Json& rest) const {
    std::printf("%s%s\n",
                num_printed_ == 0 ? "{\"problems\":[],\n" : "\n],\n",
                DumpJson(rest).substr(1).c_str());
  }

  static Json ToJson(const SourceReport& source) {
    return {{"path", source.path},
            {"kind", SourceKindName(source.kind)},
            {"weight", source.weight},
            {"files", source.files},
            {"lines", source.lines},
            {"problems", source.problems},
            {"samples", source.samples},
            {"chunked_samples", source.chunked_samples},
            {"samples_without_loss", source.samples_without_loss},
            {"overlong_samples", source.overlong_samples},
            {"tokens", source.tokens},
            {"loss_tokens", source.loss_tokens},
            {"longest_tokens", source.longest_tokens},
            {"length_histogram", source.lengths.ToJson()},
            {"duplicates", source.duplicates},
            {"duplicates_exact", source.duplicates_exact},
            {"first_duplicate", source.first_duplicate}};
  }

  int64_t num_printed_ = 0;
};

}  // namespace

std::unique_ptr<ReportPrinter> MakeTextPrinter() {
  return std::make_unique<TextPrinter>();
}

std::unique_ptr<ReportPrinter> MakeJsonPrinter() {
  return std::make_unique<JsonPrinter>();
}

std::optional<Expected> ExpectedOf(const ValidateReport& report, const JobSpec& spec) {
  int64_t rows = 0;
  double weights = 0;
  for (const SourceReport& source : report.sources) {
    rows += source.kind == SourceKind::kEval ? 0 : source.rows;
    weights += source.kind == SourceKind::kEval ? 0 : source.weight;
  }
  if (rows == 0) {
    return std::nullopt;
  }
  const int64_t step_rows =
      spec.seq_len * spec.batch_size * spec.num_microbatches * spec.mftd.ranks;
  Expected expected = {.train_tokens = spec.max_steps * step_rows, .source_epochs = {}};
  expected.steps_per_epoch = static_cast<double>(rows) / static_cast<double>(step_rows);
  expected.epochs = static_cast<double>(spec.max_steps) / expected.steps_per_epoch;
  for (const SourceReport& source : report.sources) {
    if (source.kind != SourceKind::kEval) {
      const double share = source.weight / weights * static_cast<double>(expected.train_tokens);
      expected.source_epochs.push_back(source.rows == 0 ? 0
                                                        : share / static_cast<double>(source.rows));
    }
  }
  return expected;
}

}  // namespace mft::data
