// SPDX-License-Identifier: Apache-2.0
#include "worker/export/extend_vocab.h"

#include <array>
#include <cmath>
#include <numbers>
#include <utility>
#include <vector>

#include "common/base/files.h"
#include "common/base/log.h"
#include "common/base/strings.h"
#include "common/checkpoint/model_params.h"
#include "common/checkpoint/model_weights.h"
#include "common/checkpoint/publish_dir.h"
#include "common/tokenizer/tokenizer.h"
#include "worker/export/export_model.h"
#include "worker/export/tensor_bytes.h"
#include "worker/kernels/philox.h"

namespace mft {

namespace {

constexpr int64_t kOldVocab = 32'000;
constexpr int64_t kNewVocab = 32'768;
constexpr int64_t kFirstNew = 3;  // behind <unk>, <s>, </s>
constexpr int64_t kAdded = kNewVocab - kOldVocab;

// Standard normal values, Box and Muller's: two from the words of a counter.
std::vector<float> RandomRows(int64_t count, uint64_t seed, uint32_t matrix, double deviation) {
  const std::array<uint32_t, 2> key = {static_cast<uint32_t>(seed),
                                       static_cast<uint32_t>(seed >> 32)};
  std::vector<float> values(static_cast<size_t>(count));
  for (size_t i = 0; i < values.size(); i += 2) {
    const auto words =
        Philox({static_cast<uint32_t>(i), static_cast<uint32_t>(i >> 32), matrix, 0}, key);
    const double radius = std::sqrt(-2 * std::log((words[0] + 1.0) * 0x1p-32));  // never log(0)
    const double angle = 2 * std::numbers::pi * words[1] * 0x1p-32;
    values[i] = static_cast<float>(deviation * radius * std::cos(angle));
    if (i + 1 < values.size()) {
      values[i + 1] = static_cast<float>(deviation * radius * std::sin(angle));
    }
  }
  return values;
}

// The mean of the old rows, over and over.
std::vector<float> MeanRows(const TensorEntry& old) {
  const auto dim = static_cast<size_t>(old.shape[1]);
  const std::vector<float> values = Widen(old);
  std::vector<double> sums(dim);
  for (size_t i = 0; i < values.size(); ++i) {
    sums[i % dim] += values[i];
  }
  std::vector<float> rows(dim * kAdded);
  for (size_t i = 0; i < rows.size(); ++i) {
    rows[i] = static_cast<float>(sums[i % dim] / kOldVocab);
  }
  return rows;
}

Bytes Extended(const TensorEntry& old, const ExtendVocabArgs& args, uint32_t matrix) {
  const int64_t dim = old.shape[1];
  const std::vector<float> added =
      args.init == "mean"
          ? MeanRows(old)
          : RandomRows(kAdded * dim, args.seed, matrix, 1 / std::sqrt(static_cast<double>(dim)));
  const size_t kept = old.data.size() / kOldVocab * kFirstNew;
  Bytes bytes(old.data.begin(), old.data.begin() + static_cast<std::ptrdiff_t>(kept));
  const Bytes rows = Narrow(added, old.dtype);
  bytes.insert(bytes.end(), rows.begin(), rows.end());
  bytes.insert(bytes.end(), old.data.begin() + static_cast<std::ptrdiff_t>(kept), old.data.end());
  return bytes;
}

std::vector<TensorToWrite> ExtendedTensors(const ModelWeights& base, const ExtendVocabArgs& args) {
  std::vector<TensorToWrite> tensors;
  uint32_t matrices = 0;
  for (const TensorShape& expected : ModelTensors(base.params())) {
    const TensorEntry& entry = base.At(expected.name);
    TensorToWrite tensor{
        .name = expected.name, .dtype = entry.dtype, .shape = entry.shape, .data = entry.data};
    if (expected.name == "tok_embeddings.weight" || expected.name == "output.weight") {
      tensor.shape[0] = kNewVocab;
      tensor.produce = [&entry, &args, matrix = matrices++]() -> Result<Bytes> {
        return Extended(entry, args, matrix);
      };
    } else if (base.IsReordered(expected.name)) {
      tensor.produce = [&base, &entry]() -> Result<Bytes> {
        Bytes bytes(entry.data.size());
        base.CopyRows(entry.name, bytes.data());
        return bytes;
      };
    }
    tensors.push_back(std::move(tensor));
  }
  return tensors;
}

Status WriteExtendedModel(const ModelWeights& base,
                          const ExtendVocabArgs& args,
                          const std::string& params_json,
                          const std::string& directory) {
  MFT_RETURN_IF_ERROR(WriteFileAtomic(JoinPath(directory, "params.json"), params_json));
  MFT_RETURN_IF_ERROR(WriteSafetensors(JoinPath(directory, "consolidated.safetensors"),
                                       ExtendedTensors(base, args)));
  return args.tokenizer.empty() ? Status::Ok() : CopyTokenizer(args.tokenizer, directory);
}

Status CheckTokenizer(const std::string& path) {
  if (path.empty()) {
    return Status::Ok();
  }
  MFT_ASSIGN_OR_RETURN(const auto tokenizer, LoadTokenizer(path));
  if (tokenizer->vocab_size() != kNewVocab) {
    return InvalidArgument(StrCat(path,
                                  ": has ",
                                  tokenizer->vocab_size(),
                                  " tokens; the extended model needs the v3 tokenizer with ",
                                  kNewVocab));
  }
  return Status::Ok();
}

}  // namespace

Status RunExtendVocab(const ExtendVocabArgs& args) {
  MFT_ASSIGN_OR_RETURN(const ModelParams params, ReadModelParams(args.model_dir));
  if (params.vocab_size != kOldVocab) {
    return InvalidArgument(StrCat(args.model_dir,
                                  ": original vocab size ",
                                  params.vocab_size,
                                  " is not equal to ",
                                  kOldVocab,
                                  ": can only extend models with vocab_size of ",
                                  kOldVocab));
  }
  MFT_RETURN_IF_ERROR(CheckTokenizer(args.tokenizer));
  MFT_ASSIGN_OR_RETURN(const auto base, ModelWeights::Open(args.model_dir, params));
  ModelParams extended = params;
  extended.vocab_size = kNewVocab;
  MFT_ASSIGN_OR_RETURN(const std::string json, DerivedParamsJson(args.model_dir, extended));
  const auto write = [&](const std::string& directory) {
    return WriteExtendedModel(*base, args, json, directory);
  };
  MFT_RETURN_IF_ERROR(PublishDirectory(args.to, IfThere::kFail, write));
  LogInfo(StrCat(
      "wrote ", args.to, ": ", kNewVocab, " tokens, ", kAdded, " of them new (", args.init, ")"));
  if (args.tokenizer.empty()) {
    LogWarning(StrCat(args.to, ": has no tokenizer yet; put tokenizer.model.v3 there"));
  }
  LogWarning(
      "adapters do not train embeddings and output: with LoRA the new rows, control tokens "
      "like [INST] among them, stay as they are now; lora.enable: false trains them");
  return Status::Ok();
}

}  // namespace mft
