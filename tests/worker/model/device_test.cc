// SPDX-License-Identifier: Apache-2.0
// A model on a device against the same model on the CPU: losses, gradients, updates. The device is
// the emulated one, whose memory no layer may touch by itself; where there is a GPU, tests/gpu has
// the same on it.
#include <cmath>
#include <cstring>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/worker/model/cosine.h"
#include "tests/worker/model/device_kernels.h"
#include "tests/worker/model/fixture_model.h"
#include "tests/worker/model/random_weights.h"
#include "worker/model/device_weights.h"
#include "worker/model/full_store.h"
#include "worker/train/adamw.h"
#include "worker/train/grad_clip.h"
#include "worker/train/optimizer.h"

namespace mft {
namespace {

using testing::BatchOf;
using testing::Cosine;
using testing::DeviceKernels;
using testing::FixtureBatch;

std::vector<float> GradOf(ParamStore& store) {
  std::vector<float> values(store.grad().size());
  if (store.device() == nullptr) {
    std::copy(store.grad().begin(), store.grad().end(), values.begin());
  } else {
    store.device()->memory->download(
        values.data(), store.grad().data(), values.size() * sizeof(float));
  }
  return values;
}

double LargestDifference(const std::vector<float>& a, const std::vector<float>& b) {
  double difference = 0;
  double largest = 1e-30;
  for (size_t i = 0; i < a.size(); ++i) {
    difference = std::max(difference, std::abs(static_cast<double>(a[i]) - b[i]));
    largest = std::max(largest, std::abs(static_cast<double>(b[i])));
  }
  return difference / largest;
}

// A fixture's model with its adapter on some kernels' device.
struct Model {
  Model(const std::string& folder, const KernelTable& kernels, TransformerOptions options = {}) {
    const std::string dir = testing::Fixture("train/" + folder);
    const Json config = Json::parse(std::ifstream(dir + "/config.json"));
    const ModelParams params = ReadModelParams(dir + "/model").value();
    const auto files = ModelWeights::Open(dir + "/model", params).value();
    weights = kernels.memory == nullptr
                  ? MakeResidentWeights(files)
                  : MakeDeviceWeights({params, kernels}, FillFromFiles(*files, kernels));
    store = std::make_unique<LoraStore>(
        params,
        LoraStoreOptions{.rank = config["lora"]["rank"].get<int64_t>(),
                         .scaling = config["lora"]["scaling"].get<double>(),
                         .target_modules = {"wq", "wk", "wv", "wo", "w1", "w2", "w3"},
                         .kernels = &kernels});
    testing::LoadAdapter(*store, dir + "/lora_init.safetensors");
    // B is 0 at first: other values reach all of the backward pass.
    testing::Noise(7).Fill(store->master(), 0.1F);
    store->Upload();
    options.max_rows = 512;
    options.max_positions = 512;
    if (kernels.memory != nullptr) {
      options.sizes = GpuSizes(512);
    }
    model = std::make_unique<Transformer>(*weights, *store, kernels, options);
  }

  // Two chunks of a step.
  double Step(const Rows& rows) {
    store->ZeroGrad();
    model->AddForwardBackward(rows);
    model->AddForwardBackward(rows);
    return model->TakeLoss();
  }

  std::unique_ptr<WeightSource> weights;
  std::unique_ptr<LoraStore> store;
  std::unique_ptr<Transformer> model;
};

// The first microbatch of a fixture, with packs for dropout.
struct Batch {
  explicit Batch(const std::string& folder) {
    const std::string dir = testing::Fixture("train/" + folder);
    micro.push_back(BatchOf(testing::ReadJsonLines(dir + "/batches.jsonl")[0]));
    testing::Normalise(micro, true);
    for (size_t i = 0; i + 1 < micro[0].cu_seqlens.size(); ++i) {
      pack.push_back(static_cast<int64_t>(i) + 5);
      pack_row.push_back(3);
    }
  }
  Rows rows() const {
    Rows rows = micro[0].rows();
    rows.pack = pack;
    rows.pack_row = pack_row;
    rows.step = 4;
    return rows;
  }
  std::vector<FixtureBatch> micro;
  std::vector<int64_t> pack;
  std::vector<int32_t> pack_row;
};

const KernelTable& OnDevice(const std::string& folder, bool bf16) {
  const ModelParams params =
      ReadModelParams(testing::Fixture("train/" + folder) + "/model").value();
  return DeviceKernels(bf16, params.head_dim);
}

class Device : public ::testing::TestWithParam<const char*> {};

TEST_P(Device, InFp32GivesTheLossAndGradientsOfTheCpu) {
  const Batch batch(GetParam());
  for (const double dropout : {0.0, 0.3}) {
    for (const RecomputePolicy policy : {RecomputePolicy::kNothing, RecomputePolicy::kBlock}) {
      SCOPED_TRACE(::testing::Message() << dropout << " " << static_cast<int>(policy));
      const TransformerOptions options{.policy = policy, .dropout = dropout, .seed = 9};
      Model cpu(GetParam(), CpuKernels(), options);
      Model device(GetParam(), OnDevice(GetParam(), false), options);
      const double expected = cpu.Step(batch.rows());
      EXPECT_NEAR(device.Step(batch.rows()) / expected, 1, 1e-6);
      EXPECT_LT(LargestDifference(GradOf(*device.store), GradOf(*cpu.store)), 2e-5);
      EXPECT_NEAR(device.model->Loss(batch.rows()) / cpu.model->Loss(batch.rows()), 1, 1e-6);
    }
  }
}

// numerics.md, "Precision": gradient cosine at least 0.999.
TEST_P(Device, InBf16StaysNearTheCpu) {
  const Batch batch(GetParam());
  Model cpu(GetParam(), CpuKernels());
  Model device(GetParam(), OnDevice(GetParam(), true), {.policy = RecomputePolicy::kNothing});
  const double expected = cpu.Step(batch.rows());
  EXPECT_NEAR(device.Step(batch.rows()) / expected, 1, 3e-3);
  const std::vector<float> kept = GradOf(*device.store);
  EXPECT_GE(Cosine(kept, GradOf(*cpu.store)), 0.999);
  for (const RecomputePolicy policy : {RecomputePolicy::kMlp, RecomputePolicy::kBlock}) {
    Model again(GetParam(), OnDevice(GetParam(), true), {.policy = policy});
    again.Step(batch.rows());
    EXPECT_EQ(kept, GradOf(*again.store)) << static_cast<int>(policy);
  }
}

TEST_P(Device, UpdatesAsTheCpuDoes) {
  const Batch batch(GetParam());
  Model cpu(GetParam(), CpuKernels());
  Model device(GetParam(), OnDevice(GetParam(), false));
  for (int64_t update = 1; update <= 3; ++update) {
    for (Model* model : {&cpu, &device}) {
      model->Step(batch.rows());
      const double norm = GradNorm(*model->store);
      UpdateWeights(*model->store,
                    {.lr = 1e-2,
                     .beta1 = 0.9,
                     .weight_decay = 0.1,
                     .grad_scale = ClipFactor(norm, 0.5),
                     .update = update});
    }
    EXPECT_NEAR(GradNorm(*device.store) / GradNorm(*cpu.store), 1, 1e-4);
  }
  device.store->Download();
  const std::vector<float> expected(cpu.store->master().begin(), cpu.store->master().end());
  const std::vector<float> actual(device.store->master().begin(), device.store->master().end());
  EXPECT_LT(LargestDifference(actual, expected), 1e-4);
}

INSTANTIATE_TEST_SUITE_P(Fixtures,
                         Device,
                         ::testing::Values("dense", "dense-headdim", "moe"),
                         [](const auto& folder) {
                           std::string name = folder.param;
                           std::erase(name, '-');
                           return name;
                         });

TEST(DeviceFullStore, TrainsEveryWeightAsTheCpuDoes) {
  const std::string dir = testing::Fixture("train/full");
  const ModelParams params = ReadModelParams(dir + "/model").value();
  const auto files = ModelWeights::Open(dir + "/model", params).value();
  const Batch batch("full");
  const LoraStore none(params, {.target_modules = {}, .training = false});
  std::vector<std::vector<float>> gradients;
  std::vector<double> losses;
  for (const KernelTable* kernels : {&CpuKernels(), &DeviceKernels(false, params.head_dim)}) {
    FullStore store(*files, kernels);
    const auto weights = store.AsWeights();
    Transformer model(*weights, none, *kernels, {.max_rows = 512, .max_positions = 512});
    store.ZeroGrad();
    losses.push_back(model.ForwardBackward(batch.rows()));
    gradients.push_back(GradOf(store));
  }
  EXPECT_NEAR(losses[1] / losses[0], 1, 1e-6);
  EXPECT_LT(LargestDifference(gradients[1], gradients[0]), 2e-5);
}

}  // namespace
}  // namespace mft
