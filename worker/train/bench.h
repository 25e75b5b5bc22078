// SPDX-License-Identifier: Apache-2.0
// `mft-worker bench`: the speed and memory of training steps of a real model on this machine, on
// random tokens, beside the machine's own matrix product.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <string>
#include <vector>

#include "common/base/status.h"

namespace mft {

struct BenchArgs {
  std::string model_dir;
  int64_t documents = 4;          // of a step, each of
  int64_t document_tokens = 512;  // tokens, or:
  std::string lengths_file;  // the documents of a step: their lengths, separated by white space
  bool full = false;         // every weight is trained, without adapters
  int64_t rank = 16;
  std::vector<std::string> target_modules = {"wq", "wk", "wv", "wo", "w1", "w2", "w3"};
  std::string recompute = "nothing";  // nothing | mlp | block (RecomputePolicy)
  std::string precision = "auto";     // auto | fp32 | bf16 | fp8
  std::string device = "cpu";         // auto | cuda | cpu
  // The shapes of model_dir's params.json with values that the device draws: no file of weights.
  bool random_weights = false;
  int64_t memory_gib = 0;       // more than 0: what memory is planned with, at most
  int64_t rounds = 5;           // timed steps, after one that is not
  bool phases = false;          // time per operation too
  std::string output = "text";  // text | json
};

// A step is whole: gradient of all documents in chunks, clipping, AdamW. INVALID_ARGUMENT and
// NOT_FOUND name the argument or the file.
Status RunBench(const BenchArgs& args, std::ostream& out);

}  // namespace mft
