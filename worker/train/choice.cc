// SPDX-License-Identifier: Apache-2.0
#include "worker/train/choice.h"

#include <cmath>

namespace mft {

bool Choice::Observe(int64_t step, double loss, double min_delta) {
  last_loss = std::isfinite(loss) ? loss : kNone;
  if (last_loss < reference_loss - min_delta) {
    reference_loss = last_loss;
    waited = 0;
  } else {
    ++waited;
  }
  if (last_loss >= best_loss) {
    return false;
  }
  best_loss = last_loss;
  best_step = step;
  return true;
}

}  // namespace mft
