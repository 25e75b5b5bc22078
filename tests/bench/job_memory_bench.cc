// SPDX-License-Identifier: Apache-2.0
// Peak memory of one training step in a process of its own beside the formula of the README:
//   job_memory_bench [LAYERS DIM HIDDEN DOCUMENTS ROWS_OF_A_DOCUMENT [keep]]
#include <cstdio>
#include <cstdlib>
#include <string>

#include "common/base/strings.h"
#include "tests/worker/train/memory_run.h"

int main(int argc, char** argv) {
  const auto number = [&](int i, int64_t otherwise) {
    return argc > i ? std::strtoll(argv[i], nullptr, 10) : otherwise;
  };
  const int64_t dim = number(2, 1024);
  const bool keep = argc > 6 && std::string(argv[6]) == "keep";
  const auto f = mft::testing::MeasureMemory(
      {.params = {.dim = dim,
                  .n_layers = number(1, 48),
                  .head_dim = 64,
                  .hidden_dim = number(3, 1024),
                  .n_heads = dim / 64,
                  .n_kv_heads = dim / 256,
                  .vocab_size = 32'768},
       .policy = keep ? mft::RecomputePolicy::kNothing : mft::RecomputePolicy::kBlock,
       .documents = number(4, 1),
       .document_rows = number(5, 6144)});
  const auto line = [](const char* name, int64_t bytes) {
    std::printf("%-46s %s\n", name, mft::FormatBytes(bytes).c_str());
  };
  line("weights", f.weights);
  line("LoRA states", f.lora_states);
  line("activations kept", f.kept);
  line("weights + LoRA states + 1.3 x kept", f.bound());
  line("peak of the process (VmHWM)", f.peak);
  line("of which the program before it loads anything", f.program);
  line("full logits, which are never there", f.full_logits);
  return f.peak <= f.bound() ? 0 : 1;
}
