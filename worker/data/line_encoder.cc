// SPDX-License-Identifier: Apache-2.0
#include "worker/data/line_encoder.h"

#include <utility>
#include <variant>

#include "common/base/strings.h"
#include "common/dataset/chunking.h"
#include "common/dataset/line_reader.h"
#include "common/dataset/sample_parser.h"

namespace mft::data {
namespace {

std::string ProblemText(const Status& status) {
  return status.reason().empty() ? status.message()
                                 : StrCat(status.reason(), ": ", status.message());
}

}  // namespace

Status LineEncoder::EncodeInto(SourceKind kind,
                               const Sample& sample,
                               std::vector<EncodedSample>& out) const {
  if (const auto* tokens = std::get_if<TokenSample>(&sample)) {
    const std::vector<int32_t>& ids = tokens->sample.tokens;
    for (size_t i = 0; i < ids.size(); ++i) {
      if (ids[i] < 0 || ids[i] >= options_.vocab_size) {
        return InvalidArgument(StrCat("tokens[",
                                      i,
                                      "] is ",
                                      ids[i],
                                      ", outside the model's vocabulary of ",
                                      options_.vocab_size));
      }
    }
    out.push_back(tokens->sample);
    return Status::Ok();
  }
  if (options_.tokenizer == nullptr) {
    return InvalidArgument(
        StrCat("needs the model's tokenizer: ", options_.no_tokenizer.message()));
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
    result.problems.push_back(
        StrCat("the line is longer than ", FormatBytes(LineReader::kMaxLineBytes)));
    return result;
  }
  const Result<Sample> sample = ParseSample(kind, line.text);
  const Status status = sample.ok() ? EncodeInto(kind, *sample, result.samples) : sample.status();
  if (!status.ok()) {
    result.samples.clear();
    result.problems.push_back(ProblemText(status));
  }
  return result;
}

}  // namespace mft::data
