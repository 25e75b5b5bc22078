// SPDX-License-Identifier: Apache-2.0
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>

#include "common/base/atomic_file.h"
#include "common/base/files.h"
#include "common/base/log.h"
#include "common/base/strings.h"
#include "common/dataset/sample_fields.h"
#include "common/dataset/sample_parser.h"
#include "common/tokenizer/python_json.h"
#include "worker/data/commands.h"
#include "worker/data/line_encoder.h"
#include "worker/data/parquet.h"
#include "worker/data/record_reader.h"
#include "worker/data/reformat.h"
#include "worker/data/stop_signal.h"

namespace mft::data {
namespace {

constexpr int kExitInterrupted = 130;

struct ReformatArguments {
  std::string from = "auto";
  std::string in;
  std::string out;
  bool in_place = false;
  bool force = false;
};

// A kind of note, over the whole file: thousands of them would bury the problems.
struct NoteCount {
  static constexpr size_t kShownLines = 5;

  int64_t count = 0;
  int64_t lines = 0;
  std::vector<std::string> first_lines;

  void Add(const LeftOutNote& note, int64_t line) {
    count += note.count;
    if (line == last_line) {
      return;
    }
    last_line = line;
    ++lines;
    if (first_lines.size() < kShownLines) {
      first_lines.push_back(std::to_string(line));
    }
  }

 private:
  int64_t last_line = 0;
};

struct Counts {
  int64_t lines = 0;
  int64_t written = 0;
  std::map<std::string, int64_t> forms;
  std::map<std::string, NoteCount> notes;  // by what was left out
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

  // A line in our form, or why it cannot be.
  Result<std::string> Convert(const DataRecord& record) {
    MFT_RETURN_IF_ERROR(record.problem);
    MFT_ASSIGN_OR_RETURN(const PyJsonParsed parsed, ParsePyJson(record.text));
    if (parsed.has_duplicate) {
      return samples::Problem("JSONDecodeError",
                              StrCat("the key \"",
                                     Printable(parsed.duplicate_key, samples::kQuotedBytes),
                                     "\" stands twice in one object; remove one"));
    }
    const auto form = form_ ? form_ : RecogniseForm(parsed.value);
    std::string text = record.text;
    std::vector<LeftOutNote> notes;
    if (form) {
      MFT_ASSIGN_OR_RETURN(Reformatted ours, Reformat(*form, parsed.value, record.text));
      text = DumpPyJson(ours.sample);
      notes = std::move(ours.notes);
    } else if (text.find('\n') != std::string::npos) {  // an array's element
      text = DumpPyJson(parsed.value);
    }
    // What is written is what can be trained on.
    const auto sample = ParseSample(SourceKind::kEval, text);
    if (!sample.ok()) {
      return sample.status();
    }
    ++counts_.forms[form ? std::string(DataFormName(*form)) : "no conversation, left as it is"];
    for (const LeftOutNote& note : notes) {
      Count(note, record.line);
    }
    return text;
  }

  Status Run() {
    MFT_ASSIGN_OR_RETURN(RecordReader reader, RecordReader::Open(arguments_.in));
    MFT_ASSIGN_OR_RETURN(const mode_t mode, ModeOf(arguments_.in));
    MFT_ASSIGN_OR_RETURN(AtomicFile out, AtomicFile::Create(arguments_.out, mode));
    DataRecord record;
    while (true) {
      if (StopSignal() != 0) {
        return {Code::kCancelled, "stopped; nothing was written"};
      }
      MFT_ASSIGN_OR_RETURN(const bool more, reader.Next(record));
      if (!more) {
        break;
      }
      ++counts_.lines;
      const Result<std::string> text = Convert(record);
      if (!text.ok()) {
        Print(record, ProblemText(text.status()));
        continue;
      }
      ++counts_.written;
      MFT_RETURN_IF_ERROR(out.Write(*text));
      MFT_RETURN_IF_ERROR(out.Write("\n"));
    }
    if (counts_.written == 0) {
      return Status::Ok();
    }
    if (arguments_.in_place) {
      MFT_RETURN_IF_ERROR(KeepOriginal());
    }
    return out.Publish();
  }

  const Counts& counts() const { return counts_; }

 private:
  // Speakers can have any name: their kinds are bounded.
  void Count(const LeftOutNote& note, int64_t line) {
    constexpr size_t kMaxKinds = 20;
    const bool known = counts_.notes.contains(note.what) || counts_.notes.size() < kMaxKinds;
    counts_.notes[known ? note.what : "messages of others"].Add(note, line);
  }

  void Print(const DataRecord& record, const std::string& text) const {
    const std::string line = StrCat(arguments_.in, ":", record.line, ": ", text, "\n");
    std::fputs(line.c_str(), stderr);
  }

  // The output is for the eyes that the input is for.
  static Result<mode_t> ModeOf(const std::string& path) {
    struct stat info {};
    if (stat(path.c_str(), &info) != 0) {
      return ErrnoStatus(errno, path);
    }
    return S_ISREG(info.st_mode) ? info.st_mode & 0666U : 0644U;
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

Status CheckPaths(ReformatArguments& arguments) {
  if (arguments.in_place != arguments.out.empty()) {
    return {Code::kInvalidArgument, "USAGE", "give OUT, or --in-place instead of it"};
  }
  MFT_RETURN_IF_ERROR(RefuseParquet(arguments.in));
  std::error_code ignored;  // of a file that is not there
  if (!arguments.in_place && std::filesystem::equivalent(arguments.in, arguments.out, ignored)) {
    return {Code::kInvalidArgument, "USAGE", "IN and OUT are one file; ask for --in-place"};
  }
  arguments.out = arguments.in_place ? arguments.in : arguments.out;
  const std::string kept = arguments.in_place ? arguments.in + ".orig" : arguments.out;
  if (PathExists(kept) && !arguments.force) {
    return FailedPrecondition(StrCat(kept, ": is there already; --force replaces it"));
  }
  return Status::Ok();
}

std::string SummaryText(const ReformatArguments& arguments, const Counts& counts) {
  if (counts.written == 0) {
    return StrCat(arguments.in, ": 0 of ", counts.lines, " lines; nothing was written\n");
  }
  std::string forms;
  for (const auto& [form, lines] : counts.forms) {
    forms += StrCat(forms.empty() ? "" : ", ", lines, " ", form);
  }
  return StrCat(
      arguments.out, ": ", counts.written, " of ", counts.lines, " lines (", forms, ")\n");
}

std::string NoteText(const std::string& file, const std::string& what, const NoteCount& note) {
  const auto more = note.lines - static_cast<int64_t>(note.first_lines.size());
  return StrCat(file,
                ": note: ",
                note.count,
                " ",
                what,
                " left out, in ",
                note.lines == 1 ? "line " : StrCat(note.lines, " lines: "),
                Join(note.first_lines, ", "),
                more > 0 ? ", ..." : "",
                "\n");
}

int RunReformat(ReformatArguments arguments) {
  HandleStopSignals();
  Converter converter(arguments);
  Status status = CheckPaths(arguments);
  if (status.ok()) {
    status = converter.Run();
  }
  if (!status.ok()) {
    std::fprintf(stderr, "mft-data: %s\n", status.message().c_str());
    return status.code() == Code::kCancelled ? kExitInterrupted
           : status.reason() == "USAGE"      ? 2
                                             : ExitCodeFor(status.code());
  }
  const Counts& counts = converter.counts();
  for (const auto& [what, note] : counts.notes) {
    std::fputs(NoteText(arguments.in, what, note).c_str(), stderr);
  }
  if (std::fputs(SummaryText(arguments, counts).c_str(), stdout) < 0 || std::fflush(stdout) != 0) {
    return ExitCodeFor(Code::kInternal);
  }
  const bool all = counts.written > 0 && counts.written == counts.lines;
  return all ? 0 : ExitCodeFor(Code::kInvalidArgument);
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
  command->add_option("IN", arguments->in, "a file of JSON lines, or one JSON array")->required();
  command->add_option("OUT", arguments->out, "file to write");
  command->callback([arguments, &exit_code] { exit_code = RunReformat(*arguments); });
}

}  // namespace mft::data
