// SPDX-License-Identifier: Apache-2.0
// encode and decode: a filter each, from standard input to standard output, one result a line.
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstdio>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>

#include "common/base/files.h"
#include "common/base/log.h"
#include "common/base/strings.h"
#include "common/dataset/line_reader.h"
#include "common/tokenizer/python_json.h"
#include "common/tokenizer/tokenizer.h"
#include "worker/data/commands.h"
#include "worker/data/kind_option.h"
#include "worker/data/line_encoder.h"

namespace mft::data {
namespace {

struct EncodeArguments {
  std::string tokenizer;
  bool raw = false;
  SourceKind kind = SourceKind::kEval;
};

struct DecodeArguments {
  std::string tokenizer;
  SpecialTokens special = SpecialTokens::kIgnore;
};

// What a line becomes, or what is wrong with it.
using Filter = std::function<Result<std::string>(const DataLine& line)>;

template <typename T>
void AppendList(const std::vector<T>& values, std::string& out) {
  out += '[';
  for (size_t i = 0; i < values.size(); ++i) {
    char digits[16];
    const auto end = std::to_chars(digits, digits + sizeof(digits), values[i]).ptr;
    out.append(i > 0 ? ", " : "").append(digits, end);
  }
  out += ']';
}

std::string ErrorLine(const Status& status) {
  PyJson error = PyJson::Object();
  error.Add("class", PyJson::String(ProblemClass(status)));
  error.Add("message", PyJson::String(Printable(status.message(), 4096)));
  PyJson line = PyJson::Object();
  line.Add("error", std::move(error));
  return DumpPyJson(line);
}

// The exit code: 3 if any line failed.
Result<int> FilterLines(const Filter& filter) {
  UniqueFd input(dup(STDIN_FILENO));
  if (!input.valid()) {
    return ErrnoStatus(errno, "standard input");
  }
  LineReader reader = LineReader::On(std::move(input), "standard input");
  bool failed = false;
  DataLine line;
  while (true) {
    MFT_ASSIGN_OR_RETURN(const bool more, reader.Next(line));
    if (!more) {
      break;
    }
    const Result<std::string> result = filter(line);
    failed |= !result.ok();
    const std::string text = (result.ok() ? *result : ErrorLine(result.status())) + '\n';
    if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size()) {
      return ErrnoStatus(errno, "writing to standard output");
    }
  }
  if (std::fflush(stdout) != 0) {
    return ErrnoStatus(errno, "writing to standard output");
  }
  return failed ? ExitCodeFor(Code::kInvalidArgument) : 0;
}

Result<PyJson> ParseInput(const DataLine& line) {
  if (line.too_long) {
    return InvalidArgument(
        StrCat("the line is longer than ", FormatBytes(LineReader::kMaxLineBytes)));
  }
  if (!IsValidUtf8(line.text)) {
    return Status(Code::kInvalidArgument, "EncodingError", "the line is not valid UTF-8");
  }
  auto parsed = ParsePyJson(line.text);
  if (!parsed.ok()) {
    return Status(Code::kInvalidArgument,
                  "JSONDecodeError",
                  StrCat("invalid JSON: ", parsed.status().message()));
  }
  return std::move(parsed->value);
}

Filter EncodeRaw(const Tokenizer& tokenizer) {
  return [&tokenizer](const DataLine& line) -> Result<std::string> {
    MFT_ASSIGN_OR_RETURN(const PyJson text, ParseInput(line));
    if (!text.is(PyJson::Kind::kString)) {
      return InvalidArgument(StrCat("expected a JSON string, not ", PyTypeName(text)));
    }
    std::vector<int32_t> tokens;
    tokenizer.Encode(text.text, tokens);
    std::string out = "{\"tokens\": ";
    AppendList(tokens, out);
    return out + '}';
  };
}

Filter EncodeSamples(const LineEncoder& encoder, SourceKind kind) {
  return [&encoder, kind](const DataLine& line) -> Result<std::string> {
    const EncodedLine encoded = encoder.Encode(kind, line);
    if (!encoded.problems.empty()) {
      return encoded.problems.front();
    }
    std::string out = "{\"tokens\": ";
    AppendList(encoded.samples.front().tokens, out);
    out += ", \"mask\": ";
    AppendList(encoded.samples.front().mask, out);
    return out + '}';
  };
}

// {"tokens": [1, 2]} as encode writes it, or the list alone.
Filter Decode(const Tokenizer& tokenizer, SpecialTokens special) {
  return [&tokenizer, special](const DataLine& line) -> Result<std::string> {
    MFT_ASSIGN_OR_RETURN(const PyJson input, ParseInput(line));
    const PyJson* list = input.is(PyJson::Kind::kObject) ? input.Find("tokens") : &input;
    if (list == nullptr || !list->is(PyJson::Kind::kList)) {
      return InvalidArgument("expected a list of token ids, or an object with the key \"tokens\"");
    }
    std::vector<int32_t> ids;
    for (const PyJson& item : list->items) {
      int32_t id = 0;
      const char* end = item.text.data() + item.text.size();
      if (!item.is(PyJson::Kind::kInt) ||
          std::from_chars(item.text.data(), end, id).ec != std::errc()) {
        return InvalidArgument(
            StrCat("token ", ids.size(), " is no token id: ", Printable(DumpPyJson(item), 80)));
      }
      ids.push_back(id);
    }
    MFT_ASSIGN_OR_RETURN(std::string text, tokenizer.Decode(ids, special));
    return DumpPyJson(PyJson::String(std::move(text)));
  };
}

Result<int> RunEncode(const EncodeArguments& arguments) {
  MFT_ASSIGN_OR_RETURN(const auto tokenizer, LoadTokenizer(arguments.tokenizer));
  if (arguments.raw) {
    return FilterLines(EncodeRaw(*tokenizer));
  }
  const LineEncoder encoder(
      {.tokenizer = tokenizer.get(), .no_tokenizer = {}, .vocab_size = tokenizer->vocab_size()});
  return FilterLines(EncodeSamples(encoder, arguments.kind));
}

Result<int> RunDecode(const DecodeArguments& arguments) {
  MFT_ASSIGN_OR_RETURN(const auto tokenizer, LoadTokenizer(arguments.tokenizer));
  return FilterLines(Decode(*tokenizer, arguments.special));
}

int ExitCode(const Result<int>& result) {
  if (!result.ok()) {
    LogError(result.status().message());
    return ExitCodeFor(result.status().code());
  }
  return *result;
}

}  // namespace

void AddEncodeCommand(CLI::App& app, int& exit_code) {
  auto arguments = std::make_shared<EncodeArguments>();
  CLI::App* command = app.add_subcommand(
      "encode", "Samples from standard input to tokens and loss masks, one JSON object a line");
  command->add_option("--tokenizer", arguments->tokenizer, "tokenizer file")->required();
  command->add_flag("--raw", arguments->raw, "lines are JSON strings: their tokens alone");
  AddKindOption(*command, arguments->kind);
  command->callback([arguments, &exit_code] { exit_code = ExitCode(RunEncode(*arguments)); });
}

void AddDecodeCommand(CLI::App& app, int& exit_code) {
  static const std::map<std::string, SpecialTokens> kSpecial = {{"ignore", SpecialTokens::kIgnore},
                                                                {"keep", SpecialTokens::kKeep},
                                                                {"refuse", SpecialTokens::kRefuse}};
  auto arguments = std::make_shared<DecodeArguments>();
  CLI::App* command =
      app.add_subcommand("decode", "Token ids from standard input to text, one JSON string a line");
  command->add_option("--tokenizer", arguments->tokenizer, "tokenizer file")->required();
  command->add_option("--special", arguments->special, "what becomes of special tokens")
      ->transform(CLI::CheckedTransformer(kSpecial))
      ->option_text("ignore|keep|refuse");
  command->callback([arguments, &exit_code] { exit_code = ExitCode(RunDecode(*arguments)); });
}

}  // namespace mft::data
