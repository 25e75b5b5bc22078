// SPDX-License-Identifier: Apache-2.0
#include "worker/data/line_encoder.h"

#include <utility>
#include <variant>

#include "common/base/strings.h"
#include "common/dataset/chunking.h"
#include "common/dataset/line_reader.h"
#include "common/dataset/sample_parser.h"

namespace mft::data {

std::string ProblemClass(const Status& problem) {
  return problem.reason().empty() ? std::string(CodeName(problem.code())) : problem.reason();
}

std::string ProblemText(const Status& problem) {
  return problem.reason().empty() ? problem.message()
                                  : StrCat(problem.reason(), ": ", problem.message());
}

Status LineEncoder::EncodeInto(SourceKind kind,
                               Sample& sample,
                               std::vector<EncodedSample>& out) const {
  if (auto* tokens = std::get_if<TokenSample>(&sample)) {
    const std::vector<int32_t>& ids = tokens->sample.tokens;
    for (size_t i = 0; i < ids.size(); ++i) {
      if (ids[i] < 0 || ids[i] >= options_.vocab_size) {
        return {Code::kInvalidArgument,
                "TokensFormatError",
                StrCat("tokens[",
                       i,
                       "] is ",
                       ids[i],
                       ", outside the model's vocabulary of ",
                       options_.vocab_size,
                       "; tokenise with the model's own tokenizer")};
      }
    }
    out.push_back(std::move(tokens->sample));
    return Status::Ok();
  }
  if (options_.tokenizer == nullptr && options_.check_only) {
    return Status::Ok();
  }
  if (options_.tokenizer == nullptr) {
    const bool unimplemented = options_.no_tokenizer.code() == Code::kUnimplemented;
    return {unimplemented ? Code::kUnimplemented : Code::kInvalidArgument,
            StrCat("needs the model's tokenizer: ", options_.no_tokenizer.message())};
  }
  if (const auto* text = std::get_if<TextSample>(&sample)) {
    out.push_back(EncodeText(*options_.tokenizer, text->text));
    return Status::Ok();
  }
  const auto& conversation = std::get<Conversation>(sample);
  MFT_ASSIGN_OR_RETURN(EncodedSample encoded,
                       EncodeConversation(*options_.tokenizer, conversation));
  out.push_back(std::move(encoded));
  if (options_.dynamic_chunking && kind == SourceKind::kInstruct) {
    for (const Conversation& chunk : ChunkConversation(conversation)) {
      MFT_ASSIGN_OR_RETURN(encoded, EncodeConversation(*options_.tokenizer, chunk));
      out.push_back(std::move(encoded));
    }
  }
  return Status::Ok();
}

EncodedLine LineEncoder::Encode(SourceKind kind, const DataLine& line) const {
  EncodedLine result;
  if (line.too_long) {
    result.problems.push_back({Code::kInvalidArgument,
                               "LineTooLong",
                               StrCat("the line is longer than ",
                                      FormatBytes(LineReader::kMaxLineBytes),
                                      ", it begins with ",
                                      Printable(line.text, 40),
                                      "; split the sample, or add the missing line ends")});
    return result;
  }
  Result<Sample> sample = ParseSample(kind, line.text);
  const Status status = sample.ok() ? EncodeInto(kind, *sample, result.samples) : sample.status();
  if (!status.ok()) {
    result.samples.clear();
    result.problems.push_back(status);
  } else if (const auto* conversation = std::get_if<Conversation>(&*sample);
             conversation != nullptr && options_.tokenizer != nullptr) {
    std::string left_out = LeftOut(*options_.tokenizer, *conversation);
    if (!left_out.empty()) {
      result.warnings.push_back(std::move(left_out));
    }
  }
  return result;
}

}  // namespace mft::data
