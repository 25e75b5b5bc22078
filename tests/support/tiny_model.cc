// SPDX-License-Identifier: Apache-2.0
#include "tests/support/tiny_model.h"

#include <cmath>
#include <cstring>
#include <filesystem>
#include <functional>
#include <numeric>
#include <random>
#include <vector>

#include "common/base/files.h"
#include "common/base/json.h"
#include "common/checkpoint/safetensors.h"

namespace mft::testing {
namespace {

void Check(const Status& status) {
  MFT_CHECK(status.ok(), status.ToString());
}

}  // namespace

void WriteTinyModel(const std::string& directory, const ModelParams& params, uint32_t seed) {
  Check(MakeDirs(directory));
  Check(WriteFileAtomic(directory + "/params.json", ModelParamsToJson(params, nullptr)));
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  const std::vector<TensorShape> shapes = ModelTensors(params);
  std::vector<std::vector<float>> values;
  std::vector<TensorToWrite> tensors;
  values.reserve(shapes.size());
  for (const TensorShape& shape : shapes) {
    const int64_t size =
        std::accumulate(shape.shape.begin(), shape.shape.end(), int64_t{1}, std::multiplies<>());
    std::vector<float>& data = values.emplace_back(static_cast<size_t>(size), 1.0F);
    if (shape.shape.size() == 2) {
      const float scale = 1.0F / std::sqrt(static_cast<float>(shape.shape[1]));
      for (float& value : data) {
        value = normal(random) * scale;
      }
    }
    tensors.push_back({.name = shape.name,
                       .dtype = DType::kF32,
                       .shape = shape.shape,
                       .data = std::as_bytes(std::span(data))});
  }
  Check(WriteSafetensors(directory + "/consolidated.safetensors", std::move(tensors)));
}

void WriteSparseModel(const std::string& directory, const ModelParams& params) {
  Check(MakeDirs(directory));
  Check(WriteFileAtomic(directory + "/params.json", ModelParamsToJson(params, nullptr)));
  Json header = Json::object();
  int64_t end = 0;
  for (const TensorShape& shape : ModelTensors(params)) {
    const int64_t begin = end;
    end += 2 *
           std::accumulate(shape.shape.begin(), shape.shape.end(), int64_t{1}, std::multiplies<>());
    header[shape.name] = {
        {"dtype", "BF16"}, {"shape", shape.shape}, {"data_offsets", {begin, end}}};
  }
  std::string text = header.dump();
  text.append((8 - text.size() % 8) % 8, ' ');
  const auto size = static_cast<uint64_t>(text.size());
  std::string file(sizeof(size), '\0');
  std::memcpy(file.data(), &size, sizeof(size));
  const std::string path = directory + "/consolidated.safetensors";
  Check(WriteFileAtomic(path, file + text));
  std::filesystem::resize_file(path, sizeof(size) + size + static_cast<uint64_t>(end));
}

}  // namespace mft::testing
