// SPDX-License-Identifier: Apache-2.0
// Compiled with the target flags of its name (CMakeLists.txt).
#include "worker/kernels/row_kernels_table.h"

namespace mft {

const RowKernels& RowKernelsBaseline() {
  return kRowKernels;
}

}  // namespace mft
