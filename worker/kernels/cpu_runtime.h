// SPDX-License-Identifier: Apache-2.0
// Settings and facts of the process's CPU back end.
#pragma once

#include <string>

namespace mft {

// Threads of OpenMP, LibTorch and MKL in this process. REQUIRES: threads >= 1.
void SetCpuThreads(int threads);
int CpuThreads();

std::string TorchVersion();   // "2.11.0+cpu"
std::string CpuCapability();  // what LibTorch's matrix products use: "AVX512"

}  // namespace mft
