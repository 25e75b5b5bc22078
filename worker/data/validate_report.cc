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

  void Finish(const ValidateReport& report, const JobSpec* spec) override {
    for (const SourceReport& source : report.sources) {
      PrintSource(source, spec);
    }
    for (const std::string& path : report.corrected) {
      PrintLine(StrCat("wrote ", path));
    }
    const std::optional<Expected> expected =
        spec == nullptr ? std::nullopt : ExpectedOf(report, *spec);
    if (expected && report.problems == 0) {
      PrintLine(StrCat(FormatFixed(expected->steps_per_epoch, 2),
                       " steps an epoch, ",
                       FormatFixed(expected->epochs, 2),
                       " epochs in ",
                       Counted(spec->max_steps, "step")));
    }
    PrintLine(report.problems == 0 ? "no problems" : Counted(report.problems, "problem"));
  }

  void Fail(const Status& status) override { LogError(status.message()); }

 private:
  static void PrintSource(const SourceReport& source, const JobSpec* spec) {
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
    if (source.overlong_samples > 0 && spec != nullptr) {
      PrintLine(StrCat("  ",
                       Counted(source.overlong_samples, "sample"),
                       " longer than seq_len ",
                       spec->seq_len,
                       ", split there; the parts do not see each other"));
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

  void Finish(const ValidateReport& report, const JobSpec* spec) override {
    Json rest = {{"num_problems", report.problems}, {"sources", Json::array()}};
    for (const SourceReport& source : report.sources) {
      rest["sources"].push_back(ToJson(source));
    }
    rest["corrected"] = report.corrected;
    if (const auto expected = spec == nullptr ? std::nullopt : ExpectedOf(report, *spec)) {
      rest["expected"] = {{"steps_per_epoch", expected->steps_per_epoch},
                          {"epochs", expected->epochs},
                          {"max_steps", spec->max_steps},
                          {"train_tokens", expected->train_tokens}};
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
            {"longest_tokens", source.longest_tokens}};
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
  for (const SourceReport& source : report.sources) {
    rows += source.kind == SourceKind::kEval ? 0 : source.rows;
  }
  if (rows == 0) {
    return std::nullopt;
  }
  const int64_t step_rows =
      spec.seq_len * spec.batch_size * spec.num_microbatches * spec.mftd.ranks;
  Expected expected = {.train_tokens = spec.max_steps * step_rows};
  expected.steps_per_epoch = static_cast<double>(rows) / static_cast<double>(step_rows);
  expected.epochs = static_cast<double>(spec.max_steps) / expected.steps_per_epoch;
  return expected;
}

}  // namespace mft::data
