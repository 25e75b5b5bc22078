// SPDX-License-Identifier: Apache-2.0
// Encodes a file of conversations with 1 and more threads, as mft-data does, and prints the best
// time of each; data_encode_bench.py compares it with mistral-common.
//   data_encode_bench FILE TOKENIZER REPEATS DUMP THREADS...
// DUMP gets the tokens (int32) of all samples, then their masks (a byte each).
#include <time.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "common/base/files.h"
#include "common/base/strings.h"
#include "common/tokenizer/tokenizer.h"
#include "worker/data/encode_file.h"
#include "worker/data/line_encoder.h"

namespace {

using mft::Result;
using mft::Status;

struct Encoded {
  double seconds = 0;
  double cpu_seconds = 0;       // of all threads
  size_t count = 0;             // of tokens
  std::vector<int32_t> tokens;  // where they are collected
  std::vector<uint8_t> mask;
};

double CpuSeconds() {
  timespec time{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

Result<Encoded> EncodeOnce(const std::string& file,
                           const mft::Tokenizer& tokenizer,
                           int threads,
                           bool collect) {
  const mft::data::LineEncoder encoder(
      {.tokenizer = &tokenizer, .vocab_size = tokenizer.vocab_size()});
  Encoded result;
  const double cpu_begin = CpuSeconds();
  const auto begin = std::chrono::steady_clock::now();
  MFT_RETURN_IF_ERROR(mft::data::EncodeFile(
      file,
      encoder,
      {.kind = mft::SourceKind::kInstruct, .threads = threads},
      [&](const mft::DataLine& line, const mft::data::EncodedLine& encoded) {
        if (!encoded.problems.empty()) {
          return encoded.problems[0].WithContext(mft::StrCat("line ", line.number + 1));
        }
        for (const mft::EncodedSample& sample : encoded.samples) {
          result.count += sample.tokens.size();
          if (!collect) {
            continue;
          }
          result.tokens.insert(result.tokens.end(), sample.tokens.begin(), sample.tokens.end());
          result.mask.insert(result.mask.end(), sample.mask.begin(), sample.mask.end());
        }
        return Status::Ok();
      }));
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  result.cpu_seconds = CpuSeconds() - cpu_begin;
  return result;
}

// Untimed.
Status Dump(const std::vector<std::string>& args) {
  MFT_ASSIGN_OR_RETURN(const std::unique_ptr<mft::Tokenizer> tokenizer,
                       mft::LoadTokenizer(args[1]));
  MFT_ASSIGN_OR_RETURN(const Encoded encoded, EncodeOnce(args[0], *tokenizer, 2, true));
  std::string bytes(reinterpret_cast<const char*>(encoded.tokens.data()),
                    encoded.tokens.size() * sizeof(int32_t));
  bytes.append(encoded.mask.begin(), encoded.mask.end());
  return mft::WriteFileAtomic(args[3], bytes);
}

Status Run(const std::vector<std::string>& args) {
  const int repeats = std::atoi(args[2].c_str());
  for (size_t i = 4; i < args.size(); ++i) {
    double best = 0;
    double best_cpu = 0;
    size_t tokens = 0;
    for (int repeat = 0; repeat < repeats; ++repeat) {
      // A fresh tokenizer each time: its caches start empty, as in a new process.
      MFT_ASSIGN_OR_RETURN(const std::unique_ptr<mft::Tokenizer> tokenizer,
                           mft::LoadTokenizer(args[1]));
      MFT_ASSIGN_OR_RETURN(const Encoded encoded,
                           EncodeOnce(args[0], *tokenizer, std::atoi(args[i].c_str()), false));
      best = repeat == 0 ? encoded.seconds : std::min(best, encoded.seconds);
      best_cpu = repeat == 0 ? encoded.cpu_seconds : std::min(best_cpu, encoded.cpu_seconds);
      tokens = encoded.count;
    }
    std::printf("{\"threads\": %s, \"seconds\": %.6f, \"cpu_seconds\": %.6f, \"tokens\": %zu}\n",
                args[i].c_str(),
                best,
                best_cpu,
                tokens);
  }
  return Dump(args);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 6) {
    std::fputs("usage: data_encode_bench FILE TOKENIZER REPEATS DUMP THREADS...\n", stderr);
    return 2;
  }
  const Status status = Run(std::vector<std::string>(argv + 1, argv + argc));
  if (!status.ok()) {
    std::fprintf(stderr, "data_encode_bench: %s\n", status.ToString().c_str());
    return 1;
  }
  return 0;
}
