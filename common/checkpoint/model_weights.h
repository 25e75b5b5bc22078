// SPDX-License-Identifier: Apache-2.0
// The weights of a model directory, whichever files it has them in.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "common/checkpoint/model_params.h"
#include "common/checkpoint/safetensors.h"

namespace mft {

// What a directory has its weights in, the first of these that is there: consolidated.safetensors;
// all of consolidated-00001-of-0000N.safetensors; model.safetensors; all of model-00001-of-
// 0000N.safetensors. Many repositories have both sets. INVALID_ARGUMENT names a shard that is
// missing; what cannot be read (consolidated.00.pth) is UNIMPLEMENTED and says what to do; an empty
// directory is NOT_FOUND.
struct WeightFiles {
  std::vector<std::string> paths;
  bool hugging_face = false;  // names and order of rows (hf_layout.h)
};
Result<WeightFiles> FindWeightFiles(const std::string& model_dir);
Result<int64_t> WeightFileBytes(const std::string& model_dir);

// Mapped files, opened once and shared by all who need them. Tensors have Mistral's names, and the
// rows of the file. Threads: const calls are safe from any thread. Entries live as long as the
// object.
class ModelWeights {
 public:
  // INVALID_ARGUMENT (TENSOR_MISMATCH) lists the first few tensors that are missing, in two files,
  // of another shape, of another dtype than fp32, bf16 and fp16, or that the model has no place
  // for.
  static Result<std::shared_ptr<const ModelWeights>> Open(const std::string& model_dir,
                                                          const ModelParams& params);

  const ModelParams& params() const { return params_; }

  // REQUIRES: one of ModelTensors(params).
  const TensorEntry& At(const std::string& name) const;
  const std::map<std::string, TensorEntry>& tensors() const { return tensors_; }
  // Whether the embeddings, and so, by custom, all of the model's matrices, are bf16.
  bool is_bf16() const;

  // Hex digest of every tensor's name, dtype and shape and of some of its bytes (256 at its
  // beginning, middle and end): other weights have another one in all likelihood, in however many
  // files they are, and gigabytes need not be read to tell.
  std::string Fingerprint() const;

  // Whether a tensor's rows are in Hugging Face's order: those of wq and wk there.
  bool IsReordered(const std::string& name) const;
  // A tensor's bytes, rows in Mistral's order. `to` has as many as the entry.
  void CopyRows(const std::string& name, std::byte* to) const;
  // Bytes [begin, begin + to.size()) of these; nothing else of the file is read.
  void CopyBytes(const std::string& name, size_t begin, std::span<std::byte> to) const;
  // The tensor with its rows in Mistral's order: as the file has it, or with its data in `buffer`.
  TensorEntry InOrder(const std::string& name, std::vector<std::byte>& buffer) const;

 private:
  ModelWeights() = default;
  Status Add(const SafetensorsFile& file, const std::map<std::string, std::string>& names);

  ModelParams params_;
  bool hugging_face_ = false;
  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  std::map<std::string, TensorEntry> tensors_;  // by Mistral's name
};

// `where` names the files. Tensors that the model has no place for are named as the file has them.
Status CheckTensors(const std::string& where,
                    const std::map<std::string, TensorEntry>& tensors,
                    const std::vector<TensorShape>& expected);

}  // namespace mft
