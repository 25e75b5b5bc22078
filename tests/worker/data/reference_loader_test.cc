// SPDX-License-Identifier: Apache-2.0
// From data files to batches as mistral-finetune makes them (tests/fixtures/data: its own loader,
// packer and tokenisation).
#include <deque>
#include <map>

#include <gtest/gtest.h>

#include "common/base/files.h"
#include "common/dataset/batcher.h"
#include "common/dataset/reference_packer.h"
#include "common/dataset/token_cache.h"
#include "tests/support/tokenizers.h"
#include "tests/worker/data/prepare_fixture.h"

namespace mft {
namespace {

using testing::Fixture;
using testing::ReadJsonLines;

class ReferenceLoader : public testing::PrepareFixture {
 protected:
  ReferenceLoader() {
    UseTokenizer("spm-v3");
    spec_.mftd.packing = "reference";
  }

  void UseTokenizer(const std::string& name) {
    const std::string model = dir_.File("model-" + name);
    spec_.model_id_or_path = model;
    if (!IsDirectory(model)) {
      MakeModel(testing::NamedTokenizer(name).vocab_size(), model);
      testing::WriteTokenizer(name, model);
    }
  }

  std::unique_ptr<TokenCache> Open() {
    const auto data = Prepare();
    EXPECT_TRUE(data.ok()) << data.status().ToString();
    auto cache = TokenCache::Open(data->directory).value();
    EXPECT_TRUE(cache->VerifyIndex().ok());
    return cache;
  }

  void ExpectTraining(const Json& expected, const std::string& where) {
    const auto cache = Open();
    auto options =
        BatcherOptionsFor(spec_, expected["world"].get<int>(), expected["rank"].get<int>());
    ASSERT_TRUE(options.ok());
    auto batcher = Batcher::Create(*cache, *options);
    ASSERT_TRUE(batcher.ok()) << batcher.status().ToString();
    int64_t step = 0;
    for (const Json& batch : expected["batches"]) {
      const auto made = (*batcher)->Step(++step);
      ASSERT_TRUE(made.ok());
      ExpectSame(made->micro[0], batch, StrCat(where, ", batch ", step));
    }
  }

  // Evaluation as mistral-finetune does it, on top of its packer: sources in order, the rest of
  // each padded, what does not fill a batch dropped. The product evaluates differently.
  void ExpectEvaluation(const Json& expected, const std::string& where) {
    const auto cache = Open();
    const auto seq_len = expected["seq_len"].get<int64_t>();
    const auto batch_size = expected["batch_size"].get<size_t>();
    std::vector<MicroBatch> sequences;
    for (uint32_t source = 0; source < cache->sources().size(); ++source) {
      if (cache->sources()[source].kind == SourceKind::kEval) {
        PackRank(*cache, source, expected, seq_len, sequences);
      }
    }
    std::vector<MicroBatch> batches;
    for (size_t i = 0; i + batch_size <= sequences.size(); i += batch_size) {
      MicroBatch batch = sequences[i];
      for (size_t j = 1; j < batch_size; ++j) {
        Join(sequences[i + j], batch);
      }
      batches.push_back(batch);
    }
    ASSERT_GE(batches.size(), expected["batches"].size()) << where;
    for (size_t i = 0; i < expected["batches"].size(); ++i) {
      ExpectSame(batches[i], expected["batches"][i], StrCat(where, ", batch ", i));
    }
  }

 private:
  static void PackRank(const TokenCache& cache,
                       uint32_t source,
                       const Json& expected,
                       int64_t seq_len,
                       std::vector<MicroBatch>& out) {
    ReferencePacker packer(seq_len);
    std::deque<Pack> full;
    for (int64_t i = 0; i < cache.sources()[source].samples; ++i) {
      if (cache.info(source, i).line % expected["world"].get<int>() ==
          expected["rank"].get<int>()) {
        packer.Add(*cache.sample(source, i), source, i, full);
      }
    }
    for (const Pack& pack : full) {
      ASSERT_TRUE(AppendRows(cache, pack, out.emplace_back()).ok());
    }
    if (packer.partial().loss_tokens > 0) {
      MicroBatch& rest = out.emplace_back();
      ASSERT_TRUE(AppendRows(cache, packer.partial(), rest).ok());
      rest.x.resize(seq_len, 0);
      rest.y.resize(seq_len, 0);
      rest.mask.resize(seq_len, 0);
      rest.cu_seqlens.push_back(static_cast<int32_t>(seq_len));
    }
  }

  static void Join(const MicroBatch& from, MicroBatch& to) {
    const auto offset = static_cast<int32_t>(to.x.size());
    to.x.insert(to.x.end(), from.x.begin(), from.x.end());
    to.y.insert(to.y.end(), from.y.begin(), from.y.end());
    to.mask.insert(to.mask.end(), from.mask.begin(), from.mask.end());
    for (size_t i = 1; i < from.cu_seqlens.size(); ++i) {
      to.cu_seqlens.push_back(from.cu_seqlens[i] + offset);
    }
  }

  static void ExpectSame(const MicroBatch& batch, const Json& expected, const std::string& where) {
    EXPECT_EQ(batch.x, expected["x"].get<std::vector<int32_t>>()) << where;
    EXPECT_EQ(batch.y, expected["y"].get<std::vector<int32_t>>()) << where;
    std::string mask;
    for (const uint8_t bit : batch.mask) {
      mask += bit != 0 ? '1' : '0';
    }
    const std::string all(batch.mask.size(), '1');
    EXPECT_EQ(mask, expected["mask"].is_null() ? all : expected["mask"].get<std::string>())
        << where;
    std::vector<int32_t> sizes;
    for (size_t i = 1; i < batch.cu_seqlens.size(); ++i) {
      sizes.push_back(batch.cu_seqlens[i] - batch.cu_seqlens[i - 1]);
    }
    EXPECT_EQ(sizes, expected["sizes"].get<std::vector<int32_t>>()) << where;
  }
};

TEST_F(ReferenceLoader, GivesThePackingBatchesOfTheReference) {
  int number = 0;
  for (const Json& expected : ReadJsonLines(Fixture("data/packing.jsonl"))) {
    const std::string where = StrCat("packing.jsonl:", ++number);
    const bool text = expected["kind"] == "text";
    const bool eval = expected["eval"].get<bool>();
    const std::string chats = Fixture("data/packing.data.jsonl");
    spec_.data.data = text ? Fixture("data/packing.text.jsonl") : "";
    spec_.data.instruct_data = text ? "" : chats;
    spec_.data.eval_instruct_data = eval ? chats : "";
    spec_.no_eval = !eval;
    spec_.seq_len = expected["seq_len"].get<int64_t>();
    spec_.batch_size = expected["batch_size"].get<int64_t>();
    eval ? ExpectEvaluation(expected, where) : ExpectTraining(expected, where);
  }
}

// "loader.a.jsonl:3,loader.b.jsonl:1" with paths.
std::string WithPaths(const std::string& sources) {
  std::string out;
  for (const std::string& source : Split(sources, ',')) {
    out += source.empty() ? "" : StrCat(out.empty() ? "" : ",", Fixture("data/extended/" + source));
  }
  return out;
}

TEST_F(ReferenceLoader, GivesTheLoaderBatchesOfTheReference) {
  int number = 0;
  for (const Json& expected : ReadJsonLines(Fixture("data/extended/loader.jsonl"))) {
    const std::string where = StrCat("loader.jsonl:", ++number);
    UseTokenizer(expected["tokenizer"].get<std::string>());
    const bool eval = expected["eval"].get<bool>();
    const std::string chats = WithPaths(expected["instruct"].get<std::string>());
    spec_.data.data = WithPaths(expected["text"].get<std::string>());
    spec_.data.instruct_data = chats;
    spec_.data.eval_instruct_data = eval ? chats : "";
    spec_.no_eval = !eval;
    spec_.seq_len = expected["seq_len"].get<int64_t>();
    spec_.batch_size = expected["batch_size"].get<int64_t>();
    eval ? ExpectEvaluation(expected, where) : ExpectTraining(expected, where);
  }
}

TEST_F(ReferenceLoader, ChunksToolConversationsAsTheReference) {
  std::map<int, std::string> samples;
  for (const Json& line : ReadJsonLines(Fixture("data/extended/samples.jsonl"))) {
    samples[line["case"].get<int>()] = line["sample"].dump();
  }
  spec_.data.instruct = {.shuffle = true, .dynamic_chunk_fn_call = true};
  for (const Json& expected : ReadJsonLines(Fixture("data/extended/chunking.jsonl"))) {
    const int number = expected["case"].get<int>();
    spec_.data.instruct_data = dir_.Write(StrCat("case-", number, ".jsonl"), samples.at(number));
    const auto cache = Open();
    const auto& chunks = expected["chunks"];
    ASSERT_EQ(cache->sources()[0].samples, static_cast<int64_t>(1 + chunks.size())) << number;
    for (size_t i = 0; i < chunks.size(); ++i) {
      const SampleView sample = *cache->sample(0, static_cast<int64_t>(1 + i));
      EXPECT_EQ(std::vector(sample.tokens.begin(), sample.tokens.end()),
                chunks[i]["tokens"].get<std::vector<int32_t>>())
          << "case " << number << ", chunk " << i;
      std::string mask;
      for (const uint8_t bit : sample.mask) {
        mask += bit != 0 ? '1' : '0';
      }
      EXPECT_EQ(mask, chunks[i]["mask"].get<std::string>()) << "case " << number << ", chunk " << i;
    }
  }
}

}  // namespace
}  // namespace mft
