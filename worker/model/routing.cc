// SPDX-License-Identifier: Apache-2.0
#include "worker/model/routing.h"

#include <algorithm>

namespace mft {

Routing::Routing(const MoeParams& params, int64_t max_rows)
    : experts_(params.num_experts),
      visits_(params.num_experts_per_tok),
      begin_(static_cast<size_t>(experts_) + 1),
      next_(static_cast<size_t>(experts_)) {
  const auto all = static_cast<size_t>(max_rows * visits_);
  for (std::vector<int32_t>* list : {&chosen_, &row_, &visit_, &pack_row_}) {
    list->resize(all);
  }
  for (std::vector<float>* list : {&weight_, &weighted_, &factor_, &grouped_weighted_}) {
    list->resize(all);
  }
  pack_.resize(all);
}

void Routing::Group(int64_t rows) {
  const auto visits = static_cast<size_t>(rows * visits_);
  std::fill(begin_.begin(), begin_.end(), 0);
  for (size_t i = 0; i < visits; ++i) {
    ++begin_[static_cast<size_t>(chosen_[i]) + 1];
  }
  for (size_t e = 0; e < next_.size(); ++e) {
    begin_[e + 1] += begin_[e];
    next_[e] = begin_[e];
  }
  for (size_t i = 0; i < visits; ++i) {
    const auto at = static_cast<size_t>(next_[static_cast<size_t>(chosen_[i])]++);
    row_[at] = static_cast<int32_t>(i / static_cast<size_t>(visits_));
    visit_[at] = static_cast<int32_t>(i);
    factor_[at] = weight_[i];
  }
}

void Routing::GroupDropout(const Dropout& dropout, int64_t begin) {
  for (int64_t i = 0; i < begin_.back(); ++i) {
    const auto at = static_cast<size_t>(i);
    pack_[at] = dropout.pack[begin + row_[at]];
    pack_row_[at] = dropout.row[begin + row_[at]];
  }
}

Dropout Routing::DropoutOf(const Dropout& dropout, int64_t expert) const {
  Dropout own = dropout;
  own.expert = expert;
  own.pack = pack_.data() + begin(expert);
  own.row = pack_row_.data() + begin(expert);
  return own;
}

View Routing::Weighted(int64_t rows) {
  for (int64_t i = 0; i < rows * visits_; ++i) {
    const auto at = static_cast<size_t>(i);
    weighted_[static_cast<size_t>(visit_[at])] = grouped_weighted_[at];
  }
  return MatrixView(weighted_.data(), rows, visits_);
}

}  // namespace mft
