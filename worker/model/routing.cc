// SPDX-License-Identifier: Apache-2.0
#include "worker/model/routing.h"

#include <algorithm>

namespace mft {

Routing::Routing(const MoeParams& params, int64_t max_rows, const KernelTable& kernels)
    : kernels_(kernels),
      experts_(params.num_experts),
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
  TakeLists(all);
}

void Routing::TakeLists(size_t visits) {
  if (kernels_.memory == nullptr) {
    at_ = {weight_.data(),
           weighted_.data(),
           factor_.data(),
           grouped_weighted_.data(),
           chosen_.data(),
           row_.data(),
           visit_.data(),
           pack_row_.data(),
           pack_.data()};
    return;
  }
  constexpr size_t kLists = 8;  // of four bytes a visit, and one of eight
  on_device_ = AllocateOnDevice(
      *kernels_.memory, visits * (kLists + 2) * sizeof(float), "the lists of a router");
  auto* const pack = reinterpret_cast<int64_t*>(on_device_.get());
  auto* const floats = reinterpret_cast<float*>(pack + visits);
  auto* const ints = reinterpret_cast<int32_t*>(floats + 4 * visits);
  at_ = {floats,
         floats + visits,
         floats + 2 * visits,
         floats + 3 * visits,
         ints,
         ints + visits,
         ints + 2 * visits,
         ints + 3 * visits,
         pack};
}

template <typename T>
void Routing::Upload(T* to, const std::vector<T>& from, size_t count) const {
  if (kernels_.memory != nullptr) {
    kernels_.memory->upload(to, from.data(), count * sizeof(T));
  }
}

void Routing::Group(int64_t rows) {
  const auto visits = static_cast<size_t>(rows * visits_);
  if (kernels_.memory != nullptr) {
    kernels_.memory->download(chosen_.data(), at_.chosen, visits * sizeof(int32_t));
    kernels_.memory->download(weight_.data(), at_.weight, visits * sizeof(float));
  }
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
  Upload(at_.row, row_, visits);
  Upload(at_.visit, visit_, visits);
  Upload(at_.factor, factor_, visits);
}

void Routing::GroupDropout(const Dropout& dropout, int64_t begin) {
  const int64_t* const pack = dropout.host_pack ? dropout.host_pack : dropout.pack;
  const int32_t* const row = dropout.host_row ? dropout.host_row : dropout.row;
  const auto visits = static_cast<size_t>(begin_.back());
  for (size_t at = 0; at < visits; ++at) {
    pack_[at] = pack[begin + row_[at]];
    pack_row_[at] = row[begin + row_[at]];
  }
  Upload(at_.pack, pack_, visits);
  Upload(at_.pack_row, pack_row_, visits);
}

Dropout Routing::DropoutOf(const Dropout& dropout, int64_t expert) const {
  Dropout own = dropout;
  own.expert = expert;
  own.pack = at_.pack + begin(expert);
  own.row = at_.pack_row + begin(expert);
  return own;
}

View Routing::Weighted(int64_t rows) {
  if (kernels_.memory != nullptr) {
    // Every visit is one: what is added to zero is copied.
    const View weighted = MatrixView(at_.weighted, rows * visits_, 1);
    kernels_.zero(weighted);
    kernels_.scatter_add_rows(
        weighted, MatrixView(at_.grouped_weighted, rows * visits_, 1), at_.visit);
    return MatrixView(at_.weighted, rows, visits_);
  }
  for (int64_t i = 0; i < rows * visits_; ++i) {
    const auto at = static_cast<size_t>(i);
    weighted_[static_cast<size_t>(visit_[at])] = grouped_weighted_[at];
  }
  return MatrixView(weighted_.data(), rows, visits_);
}

}  // namespace mft
