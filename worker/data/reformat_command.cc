// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>

#include "common/base/atomic_file.h"
#include "common/base/files.h"
#include "common/base/log.h"
#include "common/base/strings.h"
#include "common/dataset/line_reader.h"
#include "common/dataset/sample_parser.h"
#include "common/tokenizer/python_json.h"
#include "worker/data/commands.h"
#include "worker/data/line_encoder.h"
#include "worker/data/reformat.h"

namespace mft::data {
namespace {

struct ReformatArguments {
  std::string from = "auto";
  std::string in;
  std::string out;
  bool in_place = false;
  bool force = false;
};

struct Counts {
  int64_t lines = 0;
  int64_t written = 0;
  std::map<std::string, int64_t> forms;
};

std::optional<DataForm> FormNamed(const std::string& name) {
  for (const DataForm form : {DataForm::kOpenAi,
                              DataForm::kGlaive,
                              DataForm::kShareGpt,
                              DataForm::kAlpaca,
                              DataForm::kPrompt}) {
    if (DataFormName(form) == name) {
      return form;
    }
  }
  return std::nullopt;
}

class Converter {
 public:
  explicit Converter(const ReformatArguments& arguments)
      : arguments_(arguments), form_(FormNamed(arguments.from)) {}

  // A line in our form, or why it cannot be. Notes go to standard error.
  Result<std::string> Convert(const DataLine& line) {
    if (line.too_long) {
      return InvalidArgument(
          StrCat("the line is longer than ", FormatBytes(LineReader::kMaxLineBytes)));
    }
    MFT_ASSIGN_OR_RETURN(const PyJsonParsed parsed, ParsePyJson(line.text));
    const auto form = form_ ? form_ : RecogniseForm(parsed.value);
    std::string text = line.text;
    if (form) {
      MFT_ASSIGN_OR_RETURN(Reformatted ours, Reformat(*form, parsed.value, line.text));
      for (const std::string& note : ours.notes) {
        Print(line, StrCat("note: ", note));
      }
      text = DumpPyJson(ours.sample);
    }
    // What is written is what can be trained on.
    const auto sample = ParseSample(SourceKind::kEval, text);
    if (!sample.ok()) {
      return sample.status();
    }
    ++counts_.forms[form ? std::string(DataFormName(*form)) : "no conversation, left as it is"];
    return text;
  }

  Status Run() {
    MFT_ASSIGN_OR_RETURN(LineReader reader, LineReader::Open(arguments_.in));
    MFT_ASSIGN_OR_RETURN(AtomicFile out, AtomicFile::Create(arguments_.out));
    DataLine line;
    while (true) {
      MFT_ASSIGN_OR_RETURN(const bool more, reader.Next(line));
      if (!more) {
        break;
      }
      if (Trim(line.text).empty() && !line.too_long) {
        continue;
      }
      ++counts_.lines;
      const Result<std::string> text = Convert(line);
      if (!text.ok()) {
        Print(line, ProblemText(text.status()));
        continue;
      }
      ++counts_.written;
      MFT_RETURN_IF_ERROR(out.Write(*text));
      MFT_RETURN_IF_ERROR(out.Write("\n"));
    }
    if (arguments_.in_place) {
      MFT_RETURN_IF_ERROR(KeepOriginal());
    }
    return out.Publish();
  }

  const Counts& counts() const { return counts_; }

 private:
  void Print(const DataLine& line, const std::string& text) const {
    std::fprintf(stderr,
                 "%s:%lld: %s\n",
                 arguments_.in.c_str(),
                 static_cast<long long>(line.number + 1),
                 text.c_str());
  }

  // A second name for the file, so that there is one under its own name at any moment.
  Status KeepOriginal() const {
    const std::string original = arguments_.in + ".orig";
    if (unlink(original.c_str()) != 0 && errno != ENOENT) {
      return ErrnoStatus(errno, StrCat("removing ", original));
    }
    if (link(arguments_.in.c_str(), original.c_str()) != 0) {
      return ErrnoStatus(errno, StrCat("linking ", arguments_.in, " to ", original));
    }
    return Status::Ok();
  }

  const ReformatArguments& arguments_;
  const std::optional<DataForm> form_;
  Counts counts_;
};

// The first bytes of a file of columns.
bool IsParquet(const std::string& path) {
  std::FILE* file = std::fopen(path.c_str(), "rb");
  char magic[4] = {};
  const bool read = file != nullptr && std::fread(magic, 1, sizeof(magic), file) == sizeof(magic);
  if (file != nullptr) {
    std::fclose(file);
  }
  return read && std::string_view(magic, sizeof(magic)) == "PAR1";
}

Status CheckPaths(ReformatArguments& arguments) {
  if (arguments.in_place != arguments.out.empty()) {
    return {Code::kInvalidArgument, "USAGE", "give OUT, or --in-place instead of it"};
  }
  if (IsParquet(arguments.in)) {
    return InvalidArgument(
        StrCat(arguments.in,
               ": a Parquet file; convert it to JSON lines first: python3 -c \"import pandas; "
               "pandas.read_parquet('IN.parquet').to_json('OUT.jsonl', orient='records', "
               "lines=True)\""));
  }
  arguments.out = arguments.in_place ? arguments.in : arguments.out;
  const std::string kept = arguments.in_place ? arguments.in + ".orig" : arguments.out;
  if (PathExists(kept) && !arguments.force) {
    return FailedPrecondition(StrCat(kept, ": is there already; --force replaces it"));
  }
  if (!arguments.in_place && AbsolutePath(arguments.in) == AbsolutePath(arguments.out)) {
    return {Code::kInvalidArgument, "USAGE", "IN and OUT are one file; ask for --in-place"};
  }
  return Status::Ok();
}

int RunReformat(ReformatArguments arguments) {
  Converter converter(arguments);
  Status status = CheckPaths(arguments);
  if (status.ok()) {
    status = converter.Run();
  }
  if (!status.ok()) {
    std::fprintf(stderr, "mft-data: %s\n", status.message().c_str());
    return status.reason() == "USAGE" ? 2 : ExitCodeFor(status.code());
  }
  const Counts& counts = converter.counts();
  std::string forms;
  for (const auto& [form, lines] : counts.forms) {
    forms += StrCat(forms.empty() ? " (" : ", ", lines, " ", form);
  }
  std::printf("%s: %lld of %lld lines%s\n",
              arguments.out.c_str(),
              static_cast<long long>(counts.written),
              static_cast<long long>(counts.lines),
              forms.empty() ? "" : (forms + ")").c_str());
  return counts.written == counts.lines ? 0 : ExitCodeFor(Code::kInvalidArgument);
}

}  // namespace

void AddReformatCommand(CLI::App& app, int& exit_code) {
  auto arguments = std::make_shared<ReformatArguments>();
  CLI::App* command = app.add_subcommand(
      "reformat",
      "converts data of other programs; lines that cannot be converted are listed and left out");
  command->add_option("--from", arguments->from, "form of the lines; auto: by the keys of each")
      ->check(CLI::IsMember({"auto", "openai", "glaive", "sharegpt", "alpaca", "prompt"}));
  command->add_flag("--in-place", arguments->in_place, "replace IN; the original stays as IN.orig");
  command->add_flag("--force", arguments->force, "replace OUT (or IN.orig) where it is there");
  command->add_option("IN", arguments->in, "a file of JSON lines")->required();
  command->add_option("OUT", arguments->out, "file to write");
  command->callback([arguments, &exit_code] { exit_code = RunReformat(*arguments); });
}

}  // namespace mft::data
