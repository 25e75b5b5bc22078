// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>

#include "common/base/files.h"
#include "common/base/strings.h"
#include "common/checkpoint/model_params.h"
#include "common/checkpoint/training_cost.h"
#include "common/config/yaml_reader.h"
#include "common/tokenizer/tokenizer.h"
#include "worker/data/commands.h"
#include "worker/data/encode_file.h"
#include "worker/data/job_input.h"
#include "worker/data/kind_option.h"
#include "worker/data/model_tokenizer.h"
#include "worker/data/progress_bar.h"
#include "worker/data/stop_signal.h"
#include "worker/data/validate.h"
#include "worker/data/validate_report.h"

namespace mft::data {
namespace {

constexpr int kExitInterrupted = 130;

struct ValidateArguments {
  std::string config;                  // a job file ...
  std::vector<std::string> overrides;  // ... with these after it, or ...
  std::vector<std::string> files;      // ... data files
  std::string tokenizer;               // "": the model's
  SourceKind kind = SourceKind::kEval;
  bool create_corrected = false;
  std::string output = "text";
};

class ValidateCommand {
 public:
  ValidateCommand(const ValidateArguments& arguments, ReportPrinter& printer)
      : arguments_(arguments), printer_(printer) {}

  int Run() {
    const Result<ValidateReport> report = Validate();
    if (!report.ok()) {
      printer_.Fail(report.status());
      return report.status().code() == Code::kCancelled ? kExitInterrupted
                                                        : ExitCodeFor(report.status().code());
    }
    ValidateReport result = *report;
    result.problems += problems_;
    if (spec_) {
      const ReportedJob job = {.spec = *spec_, .cpu_time = EstimateCpuTime()};
      printer_.Finish(result, &job);
    } else {
      printer_.Finish(result, nullptr);
    }
    return result.problems > 0 ? ExitCodeFor(Code::kInvalidArgument) : 0;
  }

 private:
  Result<ValidateReport> Validate() {
    if (arguments_.config.empty()) {
      AddFiles();
    } else {
      MFT_RETURN_IF_ERROR(AddJob());
    }
    MFT_ASSIGN_OR_RETURN(const ModelTokenizer model, ReadTokenizer());
    const bool chunks =
        spec_ && spec_->data.instruct.shuffle && spec_->data.instruct.dynamic_chunk_fn_call;
    const LineEncoder encoder({.tokenizer = model.tokenizer.get(),
                               .no_tokenizer = model.no_tokenizer,
                               .vocab_size = model.vocab_size,
                               .check_only = true,
                               .dynamic_chunking = chunks});
    return Check(encoder);
  }

  Result<ValidateReport> Check(const LineEncoder& encoder) {
    ProgressBar bar(STDERR_FILENO, TotalBytes());
    ValidateRequest request = {
        .sources = std::move(sources_),
        .encoder = &encoder,
        .check = spec_ ? DataCheckOptionsFor(*spec_) : DataCheckOptions(),
        .threads = DefaultThreads(),
        .create_corrected = arguments_.create_corrected,
        .report =
            [&](const Finding& finding) {
              bar.Clear();
              printer_.Print(finding);
            },
        .progress = [&](std::string_view file, int64_t bytes) { bar.Update(file, bytes); },
        .stopped = [] { return StopSignal() != 0; }};
    request.check.count_duplicates = true;
    return ValidateData(request);
  }

  int64_t TotalBytes() const {
    int64_t bytes = 0;
    for (const DataFiles& source : sources_) {
      for (const DataFile& file : source.files) {
        const auto size = FileSize(file.path);
        bytes += size.ok() ? *size : 0;
      }
    }
    return bytes;
  }

  std::optional<CpuTime> EstimateCpuTime() const {
    const auto params = ReadModelParams(spec_->model_id_or_path);
    if (spec_->mftd.device == "cuda" || spec_->mftd.ranks > 1 || !params.ok()) {
      return std::nullopt;
    }
    const int64_t threads = spec_->mftd.threads > 0
                                ? spec_->mftd.threads
                                : std::max<int64_t>(1, std::thread::hardware_concurrency());
    const double rate = kCpuFlopsPerCore * static_cast<double>(threads);
    return CpuTime{.seconds = TrainingSeconds(*spec_, *params, rate), .threads = threads};
  }

  void Problem(const std::string& file, std::string message, int64_t line = 0) {
    ++problems_;
    printer_.Print({.file = file, .line = line, .message = std::move(message)});
  }
  void Warning(const std::string& file, std::string message, int64_t line = 0) {
    printer_.Print({.file = file, .line = line, .warning = true, .message = std::move(message)});
  }

  void AddFiles() {
    for (const std::string& path : arguments_.files) {
      Result<DataFiles> files = ListSourceFiles({.path = path}, arguments_.kind);
      if (files.ok()) {
        sources_.push_back(std::move(files).value());
      } else {
        Problem(path, files.status().message());
      }
    }
  }

  // The job's sources. That its model or run_dir is not here does not keep its data from being
  // checked: the job may be meant for another machine.
  Status AddJob() {
    MFT_ASSIGN_OR_RETURN(spec_, ReadJob(arguments_.config, arguments_.overrides));
    spec_->no_eval = spec_->data.eval_instruct_data.empty();
    for (const Violation& violation : CheckPaths(*spec_)) {
      std::string text = StrCat(violation.path, ": ", violation.message);
      if (violation.path.starts_with("data.")) {
        Problem(arguments_.config, std::move(text), violation.line);
      } else {
        Warning(arguments_.config, std::move(text), violation.line);
      }
    }
    AddSources(spec_->data.data, SourceKind::kText);
    AddSources(spec_->data.instruct_data, SourceKind::kInstruct);
    AddSources(spec_->data.eval_instruct_data, SourceKind::kEval);
    return Status::Ok();
  }

  // Those that are there; CheckPaths has named the others.
  void AddSources(const std::string& text, SourceKind kind) {
    const auto sources = ParseSources(text);
    for (const DataSource& source : sources.ok() ? *sources : std::vector<DataSource>()) {
      Result<DataFiles> files = ListSourceFiles(source, kind);
      if (files.ok()) {
        sources_.push_back(std::move(files).value());
      }
    }
  }

  // Without a tokenizer everything but token counts is checked, and the report says so.
  Result<ModelTokenizer> ReadTokenizer() {
    ModelTokenizer model = {.vocab_size = std::numeric_limits<int32_t>::max()};
    if (!arguments_.tokenizer.empty()) {
      MFT_ASSIGN_OR_RETURN(model.tokenizer, LoadTokenizer(arguments_.tokenizer));
      model.vocab_size = model.tokenizer->vocab_size();
      return model;
    }
    if (!spec_) {
      return model;
    }
    Result<ModelTokenizer> read = ReadModelTokenizer(spec_->model_id_or_path);
    const Status missing = read.ok() ? read->no_tokenizer : read.status();
    if (missing.code() == Code::kInvalidArgument) {
      Problem(arguments_.config, StrCat("model_id_or_path: ", missing.message()));
    } else if (!missing.ok()) {
      Warning(arguments_.config,
              StrCat("tokens are not counted: ", missing.message(), " (see --tokenizer)"));
    }
    return read.ok() ? std::move(read) : Result<ModelTokenizer>(std::move(model));
  }

  const ValidateArguments& arguments_;
  ReportPrinter& printer_;
  std::optional<JobSpec> spec_;  // of --config
  std::vector<DataFiles> sources_;
  int64_t problems_ = 0;  // before the data
};

int RunValidate(const ValidateArguments& arguments) {
  HandleStopSignals();
  const auto printer = arguments.output == "json" ? MakeJsonPrinter() : MakeTextPrinter();
  const int exit_code = ValidateCommand(arguments, *printer).Run();
  if (std::fflush(stdout) != 0) {
    return ExitCodeFor(Code::kInternal);
  }
  return exit_code;
}

}  // namespace

void AddValidateCommand(CLI::App& app, int& exit_code) {
  auto arguments = std::make_shared<ValidateArguments>();
  CLI::App* command = app.add_subcommand(
      "validate", "Check data and count its tokens; every problem as file:line: message");
  command->add_option("--config", arguments->config, "job file (YAML or job.json)");
  command->add_option("--set", arguments->overrides, "KEY=VALUE after the job file")
      ->take_all()
      ->allow_extra_args(false);
  command->add_option("files", arguments->files, "data files or directories, instead of a job's");
  command->add_option(
      "--tokenizer", arguments->tokenizer, "tokenizer file; default: that of the job's model");
  AddKindOption(*command, arguments->kind);
  command->add_flag("--create-corrected",
                    arguments->create_corrected,
                    "write FILE.corrected, the good lines, for each file with bad ones");
  command->add_option("-o,--output", arguments->output, "text (default) or json")
      ->check(CLI::IsMember({"text", "json"}));
  command->callback([arguments, &exit_code] {
    if (arguments->config.empty() == arguments->files.empty()) {
      throw CLI::ValidationError("validate", "needs either --config or data files");
    }
    if (arguments->config.empty() && !arguments->overrides.empty()) {
      throw CLI::ValidationError("--set", "needs --config, the job file that it changes");
    }
    exit_code = RunValidate(*arguments);
  });
}

}  // namespace mft::data
