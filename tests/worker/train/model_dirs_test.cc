// SPDX-License-Identifier: Apache-2.0
// The same model in every kind of directory trains to the same bits, and is exported to the same
// bytes.
#include <algorithm>
#include <bit>
#include <cmath>
#include <filesystem>

#include <gtest/gtest.h>

#include "common/base/files.h"
#include "common/base/strings.h"
#include "common/checkpoint/model_weights.h"
#include "tests/support/temp_dir.h"
#include "tests/worker/train/train_run.h"

namespace mft {
namespace {

using testing::Ended;
using testing::TempDir;
using testing::TrainRun;

std::vector<double> Losses(const TrainRun& run) {
  std::vector<double> losses;
  for (const StepRecord& step : run.Records<StepRecord>()) {
    losses.push_back(step.loss);
  }
  return losses;
}

// A run of six steps on `model`, with everything exported.
TrainRun RunOn(const std::string& directory, const std::string& fixture, const std::string& model) {
  TrainRun run(directory, fixture);
  run.spec.model_id_or_path = model;
  run.spec.max_steps = 6;
  run.spec.mftd.export_formats = {"mistral", "merged", "hf"};
  const Ended ended = run.Run();
  EXPECT_EQ(ended.exit_code, 0) << ended.log;
  return run;
}

std::string Exported(const TrainRun& run, const std::string& file) {
  return ReadFile(run.RunFile("exports/checkpoint_000006/" + file)).value();
}

void ExpectSameRun(const TrainRun& run, const TrainRun& expected) {
  EXPECT_EQ(Losses(run), Losses(expected));
  EXPECT_EQ(Losses(run).size(), 6U);
  EXPECT_EQ(ReadFile(run.TrainedFile(6)).value(), ReadFile(expected.TrainedFile(6)).value());
  for (const char* file : {"merged/consolidated.safetensors", "hf/model.safetensors"}) {
    EXPECT_EQ(Exported(run, file), Exported(expected, file)) << file;
  }
}

class ModelDirs : public ::testing::TestWithParam<const char*> {};

TEST_P(ModelDirs, OfHuggingFaceTrainLikeMistrals) {
  TempDir dir;
  TrainRun first(dir.path() + "/first", GetParam());
  const TrainRun start = RunOn(dir.path() + "/first", GetParam(), first.spec.model_id_or_path);
  const std::string exports = start.RunFile("exports/checkpoint_000006/");
  const TrainRun mistral = RunOn(dir.path() + "/mistral", GetParam(), exports + "merged");
  const TrainRun hf = RunOn(dir.path() + "/hf", GetParam(), exports + "hf");
  ExpectSameRun(hf, mistral);
  EXPECT_NE(Losses(mistral), Losses(start));  // it is another model
  // params.json of the merged model of a model that had none says the same.
  const ModelParams one = ReadModelParams(hf.RunFile("exports/checkpoint_000006/merged")).value();
  const ModelParams other =
      ReadModelParams(mistral.RunFile("exports/checkpoint_000006/merged")).value();
  EXPECT_EQ(ModelParamsToJson(one, nullptr), ModelParamsToJson(other, nullptr));
}

INSTANTIATE_TEST_SUITE_P(Fixtures,
                         ModelDirs,
                         ::testing::Values("dense", "dense-headdim", "moe"),
                         [](const auto& run) {
                           std::string name = run.param;
                           std::erase(name, '-');
                           return name;
                         });

// Writes the fixture's model with each tensor as `make` has it, into as many files as it says.
template <typename Make>
void Rewrite(const std::string& from, const TempDir& to, size_t files, const Make& make) {
  to.Write("params.json", ReadFile(from + "/params.json").value());
  const auto weights = ModelWeights::Open(from, ReadModelParams(from).value()).value();
  std::vector<std::vector<TensorToWrite>> shards(files);
  size_t next = 0;
  for (const auto& [name, tensor] : weights->tensors()) {
    shards[next++ % files].push_back(make(tensor));
  }
  for (size_t i = 0; i < files; ++i) {
    const std::string name =
        files == 1 ? std::string("consolidated.safetensors")
                   : StrCat("consolidated-0000", i + 1, "-of-0000", files, ".safetensors");
    ASSERT_TRUE(WriteSafetensors(to.File(name), std::move(shards[i])).ok());
  }
}

TEST(ModelDirs, InShardsTrainLikeInOneFile) {
  TempDir dir;
  TempDir model;
  TrainRun fixture(dir.path() + "/x", "dense");
  const std::string one_file = fixture.spec.model_id_or_path;
  Rewrite(one_file, model, 3, [](const TensorEntry& tensor) {
    return TensorToWrite{tensor.name, tensor.dtype, tensor.shape, tensor.data};
  });
  ExpectSameRun(RunOn(dir.path() + "/shards", "dense", model.path()),
                RunOn(dir.path() + "/one", "dense", one_file));
  ASSERT_TRUE(RemoveTree(model.File("consolidated-00002-of-00003.safetensors")).ok());
  TrainRun missing(dir.path() + "/missing", "dense");
  missing.spec.model_id_or_path = model.path();
  const Ended ended = missing.Run();
  EXPECT_EQ(ended.exit_code, 3) << ended.log;
  EXPECT_NE(ended.log.find("consolidated-00002-of-00003.safetensors: no such file"),
            std::string::npos)
      << ended.log;
}

// The nearest fp16 of a normal value, by way of its bits.
uint16_t Fp16Of(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const int exponent = static_cast<int>((bits >> 23) & 0xFF) - 127 + 15;
  if (exponent <= 0) {
    return static_cast<uint16_t>(((bits >> 16) & 0x8000) | static_cast<uint32_t>(std::lround(
                                                               std::ldexp(std::abs(value), 24))));
  }
  return static_cast<uint16_t>(((bits >> 16) & 0x8000) | (static_cast<uint32_t>(exponent) << 10) |
                               ((bits >> 13) & 0x3FF));
}

TEST(ModelDirs, InFp16TrainLikeTheSameValuesInFp32) {
  TempDir dir;
  TempDir half;
  TempDir wide;
  TrainRun fixture(dir.path() + "/x", "dense");
  std::vector<std::vector<uint16_t>> halves;
  Rewrite(fixture.spec.model_id_or_path, half, 1, [&](const TensorEntry& tensor) {
    std::vector<uint16_t>& values = halves.emplace_back(tensor.data.size() / sizeof(float));
    const auto* from = reinterpret_cast<const float*>(tensor.data.data());
    std::transform(from, from + values.size(), values.begin(), Fp16Of);
    return TensorToWrite{tensor.name, DType::kF16, tensor.shape, std::as_bytes(std::span(values))};
  });
  size_t at = 0;
  std::vector<std::vector<float>> floats;
  Rewrite(fixture.spec.model_id_or_path, wide, 1, [&](const TensorEntry& tensor) {
    std::vector<float>& values = floats.emplace_back();
    for (const uint16_t bits : halves[at]) {
      // value = (-1)^s 2^(e - 15) (1 + m / 1024), or m 2^-24 without exponent.
      const int exponent = (bits >> 10) & 0x1F;
      const double mantissa = bits & 0x3FF;
      const double magnitude = exponent == 0 ? std::ldexp(mantissa, -24)
                                             : std::ldexp(1 + mantissa / 1024, exponent - 15);
      values.push_back(static_cast<float>((bits & 0x8000) != 0 ? -magnitude : magnitude));
    }
    ++at;
    return TensorToWrite{tensor.name, DType::kF32, tensor.shape, std::as_bytes(std::span(values))};
  });
  const TrainRun narrow_run = RunOn(dir.path() + "/half", "dense", half.path());
  const TrainRun wide_run = RunOn(dir.path() + "/wide", "dense", wide.path());
  EXPECT_EQ(Losses(narrow_run), Losses(wide_run));
  EXPECT_EQ(ReadFile(narrow_run.TrainedFile(6)).value(), ReadFile(wide_run.TrainedFile(6)).value());
  const auto merged = SafetensorsFile::Open(
      narrow_run.RunFile("exports/checkpoint_000006/merged/consolidated.safetensors"));
  EXPECT_EQ((*merged)->Find("output.weight")->dtype, DType::kBF16);
}

TEST(ModelDirs, OfATiedModelTrainAndAreExportedTied) {
  TempDir dir;
  TempDir model;
  TrainRun fixture(dir.path() + "/x", "dense");
  const std::string from = fixture.spec.model_id_or_path;
  std::vector<TensorToWrite> tensors;
  const auto weights = ModelWeights::Open(from, ReadModelParams(from).value()).value();
  for (const auto& [name, tensor] : weights->tensors()) {
    if (name != "output.weight") {
      tensors.push_back({name, tensor.dtype, tensor.shape, tensor.data});
    }
  }
  ASSERT_TRUE(WriteSafetensors(model.File("consolidated.safetensors"), tensors).ok());
  Json params = ParseJson(ReadFile(from + "/params.json").value()).value();
  params["tied_embeddings"] = true;
  model.Write("params.json", DumpJson(params));
  const TrainRun tied = RunOn(dir.path() + "/tied", "dense", model.path());
  // As a model whose output is a copy of its embeddings.
  tensors.push_back({"output.weight",
                     DType::kF32,
                     weights->At("tok_embeddings.weight").shape,
                     weights->At("tok_embeddings.weight").data});
  TempDir untied_model;
  ASSERT_TRUE(WriteSafetensors(untied_model.File("consolidated.safetensors"), tensors).ok());
  untied_model.Write("params.json", ReadFile(from + "/params.json").value());
  const TrainRun untied = RunOn(dir.path() + "/untied", "dense", untied_model.path());
  EXPECT_EQ(Losses(tied), Losses(untied));
  EXPECT_EQ(ReadFile(tied.TrainedFile(6)).value(), ReadFile(untied.TrainedFile(6)).value());
  const Json config = ParseJson(Exported(tied, "hf/config.json")).value();
  EXPECT_EQ(config["tie_word_embeddings"], true);
  const TrainRun again =
      RunOn(dir.path() + "/again", "dense", tied.RunFile("exports/checkpoint_000006/hf"));
  EXPECT_EQ(
      Losses(again),
      Losses(RunOn(
          dir.path() + "/merged", "dense", tied.RunFile("exports/checkpoint_000006/merged"))));
}

}  // namespace
}  // namespace mft
