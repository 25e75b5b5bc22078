// SPDX-License-Identifier: Apache-2.0
// Gradients of products in bf16 beside those in fp32, which other tests hold to the reference's
// float64. (The losses of a whole run in bf16: tests/worker/train/trajectory_test.cc.)
#include <cmath>

#include "tests/worker/model/cosine.h"
#include "tests/worker/model/fixture_model.h"
#include "worker/train/adamw.h"

namespace mft {
namespace {

using testing::Cosine;
using testing::FixtureModel;

// All samples of a fixture, as one chunk of documents.
struct Samples {
  explicit Samples(const std::string& path) {
    for (const Json& line : testing::ReadJsonLines(path)) {
      const auto ids = line["tokens"].get<std::vector<int32_t>>();
      for (size_t i = 0; i + 1 < ids.size() && tokens.size() < 500; ++i) {
        tokens.push_back(ids[i]);
        targets.push_back(ids[i + 1]);
        weight.push_back(line["mask"][i + 1].get<int>() != 0 ? 1.0F / 256 : 0.0F);
      }
      if (static_cast<int32_t>(tokens.size()) > cu_seqlens.back()) {
        cu_seqlens.push_back(static_cast<int32_t>(tokens.size()));
      }
    }
  }
  Rows rows() const { return {tokens, targets, weight, cu_seqlens}; }
  std::vector<int32_t> tokens, targets, cu_seqlens = {0};
  std::vector<float> weight;
};

// numerics.md, "Precision": gradient cosine at least 0.999, largest over the steps.
void ExpectGradientsLikeThoseOfFp32(const KernelTable& kernels) {
  FixtureModel wide("dense-bf16");
  FixtureModel narrow("dense-bf16", {}, kernels);
  const Samples samples(wide.dir + "/data.jsonl");
  LoraStore& store = *wide.store;
  for (int64_t step = 1; step <= 20; ++step) {
    SCOPED_TRACE(step);
    std::copy(store.master().begin(), store.master().end(), narrow.store->master().begin());
    store.ZeroGrad();
    narrow.store->ZeroGrad();
    const double loss = wide.model->ForwardBackward(samples.rows());
    const double narrow_loss = narrow.model->ForwardBackward(samples.rows());
    EXPECT_NEAR(narrow_loss / loss, 1, 1e-3);
    EXPECT_NE(narrow_loss, loss);  // it does round
    EXPECT_GE(Cosine(store.grad(), narrow.store->grad()), 0.999);
    AdamWUpdate({store.master(), store.grad(), store.moment1(), store.moment2()},
                {.lr = 3e-3, .beta1 = 0.9, .weight_decay = 0.1, .grad_scale = 1, .update = step});
  }
}

TEST(Bf16, GradientsPointWhereThoseOfFp32Do) {
  if (testing::Bf16Tables().empty()) {
    GTEST_SKIP() << "no AVX512-BF16 here";
  }
  for (const KernelTable* kernels : testing::Bf16Tables()) {
    SCOPED_TRACE(kernels->name);
    ExpectGradientsLikeThoseOfFp32(*kernels);
  }
}

}  // namespace
}  // namespace mft
