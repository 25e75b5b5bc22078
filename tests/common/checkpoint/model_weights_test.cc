// SPDX-License-Identifier: Apache-2.0
#include "common/checkpoint/model_weights.h"

#include <algorithm>
#include <array>
#include <cstring>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/base/files.h"
#include "common/base/strings.h"
#include "common/checkpoint/hf_layout.h"
#include "tests/support/fixtures.h"
#include "tests/support/temp_dir.h"

namespace mft {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::TempDir;

std::string TensorMessage(const Status& status) {
  EXPECT_EQ(status.code(), Code::kInvalidArgument);
  return status.message();
}

// Any bytes: nothing reads the values.
TensorToWrite Tensor(std::string name, std::vector<int64_t> shape) {
  static const std::vector<std::byte> kBytes(1 << 16);
  size_t bytes = sizeof(float);
  for (const int64_t size : shape) {
    bytes *= static_cast<size_t>(size);
  }
  return {std::move(name), DType::kF32, std::move(shape), std::span(kBytes).first(bytes)};
}

ModelParams Tiny() {
  return {.dim = 4,
          .n_layers = 1,
          .head_dim = 4,
          .hidden_dim = 4,
          .n_heads = 2,
          .n_kv_heads = 1,
          .vocab_size = 8};
}

std::vector<TensorToWrite> AllOf(const ModelParams& params) {
  std::vector<TensorToWrite> tensors;
  for (const TensorShape& tensor : ModelTensors(params)) {
    tensors.push_back(Tensor(tensor.name, tensor.shape));
  }
  return tensors;
}

void Write(const TempDir& dir, const std::string& name, std::vector<TensorToWrite> tensors) {
  ASSERT_TRUE(WriteSafetensors(dir.File(name), std::move(tensors)).ok());
}

TEST(FindWeightFiles, TakesMistralsBeforeHuggingFacesAndOneBeforeSeveral) {
  const TempDir dir;
  EXPECT_EQ(FindWeightFiles(dir.path()).status().code(), Code::kNotFound);
  dir.Write("consolidated.00.pth", "");
  const Status pickled = FindWeightFiles(dir.path()).status();
  EXPECT_EQ(pickled.code(), Code::kUnimplemented);
  EXPECT_THAT(pickled.message(), HasSubstr("torch.load('consolidated.00.pth'"));
  dir.Write("model-00002-of-00002.safetensors", "22");
  EXPECT_THAT(TensorMessage(FindWeightFiles(dir.path()).status()),
              HasSubstr("model-00001-of-00002.safetensors: no such file"));
  dir.Write("model-00001-of-00002.safetensors", "1");
  WeightFiles files = FindWeightFiles(dir.path()).value();
  EXPECT_TRUE(files.hugging_face);
  EXPECT_THAT(files.paths,
              ElementsAre(dir.File("model-00001-of-00002.safetensors"),
                          dir.File("model-00002-of-00002.safetensors")));
  EXPECT_EQ(WeightFileBytes(dir.path()).value(), 3);
  dir.Write("model.safetensors", "");
  EXPECT_THAT(FindWeightFiles(dir.path()).value().paths,
              ElementsAre(dir.File("model.safetensors")));
  dir.Write("consolidated-00001-of-00001.safetensors", "");
  files = FindWeightFiles(dir.path()).value();
  EXPECT_FALSE(files.hugging_face);
  EXPECT_THAT(files.paths, ElementsAre(dir.File("consolidated-00001-of-00001.safetensors")));
  dir.Write("consolidated.safetensors", "");
  EXPECT_THAT(FindWeightFiles(dir.path()).value().paths,
              ElementsAre(dir.File("consolidated.safetensors")));
}

TEST(FindWeightFiles, RefusesSetsThatDoNotBelongTogether) {
  const TempDir dir;
  dir.Write("model-00001-of-00002.safetensors", "");
  dir.Write("model-00001-of-00003.safetensors", "");
  EXPECT_THAT(TensorMessage(FindWeightFiles(dir.path()).status()),
              HasSubstr("belong to different models"));
  const TempDir other;
  other.Write("weights.safetensors", "");
  other.Write("model-1-of-x.safetensors", "");
  EXPECT_EQ(FindWeightFiles(other.path()).status().code(), Code::kUnimplemented);
}

TEST(ModelWeights, AreThoseOfAllShardsTogether) {
  const TempDir dir;
  std::vector<TensorToWrite> tensors = AllOf(Tiny());
  const std::vector<TensorToWrite> second(tensors.begin() + 5, tensors.end());
  tensors.resize(5);
  Write(dir, "consolidated-00001-of-00002.safetensors", tensors);
  Write(dir, "consolidated-00002-of-00002.safetensors", second);
  const auto weights = ModelWeights::Open(dir.path(), Tiny());
  ASSERT_TRUE(weights.ok()) << weights.status().message();
  EXPECT_EQ((*weights)->tensors().size(), ModelTensors(Tiny()).size());
  EXPECT_FALSE((*weights)->IsReordered("layers.0.attention.wq.weight"));
  // One in both.
  tensors.push_back(second.front());
  Write(dir, "consolidated-00001-of-00002.safetensors", tensors);
  EXPECT_THAT(TensorMessage(ModelWeights::Open(dir.path(), Tiny()).status()),
              HasSubstr("is in another file too"));
}

TEST(ModelWeights, ListsWhatDoesNotFit) {
  const TempDir dir;
  std::vector<TensorToWrite> tensors = AllOf(Tiny());
  tensors[0] = Tensor("tok_embeddings.weight", {8, 5});
  tensors.pop_back();
  tensors.push_back(Tensor("test", {1}));
  Write(dir, "consolidated.safetensors", tensors);
  const std::string message = TensorMessage(ModelWeights::Open(dir.path(), Tiny()).status());
  EXPECT_THAT(message, HasSubstr("tok_embeddings.weight has shape [8, 5], expected [8, 4]"));
  EXPECT_THAT(message, HasSubstr("ffn_norm.weight is missing"));
  EXPECT_THAT(message, HasSubstr("test has no place"));
  std::vector<TensorShape> many(1000, {.name = "layers.0", .shape = {4}});
  EXPECT_THAT(CheckTensors("x", {}, many).message(),
              HasSubstr("layers.0 is missing; and 995 more"));
}

TEST(ModelWeights, OfTheReferenceWriterAreComplete) {
  for (const char* name : {"dense", "dense-headdim", "moe"}) {
    const std::string directory = testing::Fixture(StrCat("train/", name, "/model"));
    const ModelParams params = ReadModelParams(directory).value();
    const auto weights = ModelWeights::Open(directory, params);
    ASSERT_TRUE(weights.ok()) << weights.status().message();
    int64_t elements = 0;
    for (const auto& [tensor_name, tensor] : (*weights)->tensors()) {
      elements += static_cast<int64_t>(tensor.data.size() / DTypeSize(tensor.dtype));
    }
    EXPECT_EQ(elements, TotalParameters(params));
  }
}

TEST(ModelWeights, OfHuggingFaceGetMistralsNamesAndRows) {
  const TempDir dir;
  const ModelParams params = Tiny();
  std::vector<TensorToWrite> tensors = AllOf(params);
  std::vector<float> rows(static_cast<size_t>(params.n_heads * params.head_dim * params.dim));
  for (size_t i = 0; i < rows.size(); ++i) {
    rows[i] = static_cast<float>(i / 4);  // the number of the row
  }
  for (TensorToWrite& tensor : tensors) {
    if (tensor.name == "layers.0.attention.wq.weight") {
      tensor.data = std::as_bytes(std::span(rows));
    }
    tensor.name = HfModule(tensor.name.substr(0, tensor.name.size() - 7)) + ".weight";
  }
  tensors.push_back(Tensor("model.layers.0.self_attn.rotary_emb.inv_freq", {2}));
  Write(dir, "model.safetensors", tensors);
  const auto weights = ModelWeights::Open(dir.path(), params);
  ASSERT_TRUE(weights.ok()) << weights.status().message();
  const std::string name = "layers.0.attention.wq.weight";
  EXPECT_TRUE((*weights)->IsReordered(name));
  EXPECT_TRUE((*weights)->IsReordered("layers.0.attention.wk.weight"));
  EXPECT_FALSE((*weights)->IsReordered("layers.0.attention.wv.weight"));
  std::vector<float> mistral(rows.size());
  (*weights)->CopyRows(name, reinterpret_cast<std::byte*>(mistral.data()));
  std::vector<float> order;
  for (size_t i = 0; i < mistral.size(); i += 4) {
    order.push_back(mistral[i]);
  }
  // Halves of a head of 4 become neighbours.
  EXPECT_THAT(order, ElementsAre(0, 2, 1, 3, 4, 6, 5, 7));
  // A part of it is that part, wherever it begins and ends.
  const auto whole = std::as_bytes(std::span(mistral));
  for (size_t begin = 0; begin < whole.size(); begin += 5) {
    for (size_t end = begin; end <= whole.size(); end += 3) {
      std::vector<std::byte> part(end - begin);
      (*weights)->CopyBytes(name, begin, part);
      ASSERT_TRUE(std::ranges::equal(part, whole.subspan(begin, end - begin)))
          << begin << " " << end;
    }
  }
}

TEST(ModelWeights, OfATiedModelHaveNoOutput) {
  const TempDir dir;
  ModelParams params = Tiny();
  const std::vector<TensorToWrite> with_output = AllOf(params);
  const int64_t untied = TotalParameters(params);
  params.tied_embeddings = true;
  EXPECT_EQ(untied - TotalParameters(params), params.vocab_size * params.dim);
  Write(dir, "consolidated.safetensors", AllOf(params));
  EXPECT_TRUE(ModelWeights::Open(dir.path(), params).ok());
  Write(dir, "consolidated.safetensors", with_output);  // written out although it is the same
  EXPECT_TRUE(ModelWeights::Open(dir.path(), params).ok());
}

}  // namespace
}  // namespace mft
