// SPDX-License-Identifier: Apache-2.0
// Settings and facts of the process's CPU back end.
#pragma once

#include <cstdint>
#include <string>

namespace mft {

// Threads of OpenMP, LibTorch and MKL in this process. REQUIRES: threads >= 1.
void SetCpuThreads(int threads);
int CpuThreads();

std::string TorchVersion();   // "2.11.0+cpu"
std::string CpuCapability();  // what LibTorch's matrix products use: "AVX512"

// The yardstick of benchmarks: FLOPs a second of LibTorch's own product of two matrices of size x
// size, fp32 or bf16, the best of three.
double MatmulFlopsPerSecond(int64_t size, bool bf16);

}  // namespace mft
