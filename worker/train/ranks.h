// SPDX-License-Identifier: Apache-2.0
// What the ranks of a run do together. Every rank makes the same calls in the same order, and
// decides by what they return, which is the same everywhere: so all of them stop, save and fail at
// the same step.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "common/base/status.h"
#include "worker/comm/communicator.h"
#include "worker/comm/device_communicator.h"
#include "worker/kernels/cuda_api.h"
#include "worker/train/stop_signals.h"
#include "worker/train/train_context.h"

namespace mft {

// All functions throw StatusError; RANK_LOST names the rank that is gone. Threads: one at a time.
class Ranks {
 public:
  explicit Ranks(std::unique_ptr<Communicator> communicator)
      : communicator_(std::move(communicator)) {}

  int64_t rank() const { return communicator_->rank(); }
  int64_t size() const { return communicator_->world_size(); }
  bool is_first() const { return rank() == 0; }
  Communicator& communicator() { return *communicator_; }

  // Sums over all ranks, in place; the same bits on every rank.
  void Sum(std::span<float> values) { Check(communicator_->AllReduceSum(values)); }
  void Sum(std::span<double> values) { Check(communicator_->AllReduceSum(values)); }
  // The gradient's, which may be the device's memory.
  void SumGradient(std::span<float> gradient);
  // From here on gradients are of the process's CUDA device, which is open.
  void MeetOnDevice(const CudaApi& cuda, bool deterministic);
  // REQUIRES MeetOnDevice.
  DeviceCommunicator& device_communicator() { return *device_; }
  // Whether any rank says so, of each question.
  void Any(std::span<bool> answers);
  // The number of each rank, by rank.
  std::vector<double> Gather(double mine);
  // Rank 0's values, on every rank.
  void FromFirst(std::span<float> values);

  // Rank 0 does the work while the others wait; where it fails, with a Status or by throwing one,
  // it fails on every rank.
  void OnFirst(const std::function<Status()>& work);
  // The same of work that has a result, which every rank gets.
  std::string TextOfFirst(const std::function<Result<std::string>()>& work);
  template <typename T>
  requires std::is_trivially_copyable_v<T> T ValueOfFirst(const std::function<Result<T>()>& work) {
    T value{};
    OnFirst([&]() -> Status {
      MFT_ASSIGN_OR_RETURN(value, work());
      return Status::Ok();
    });
    Share(std::as_writable_bytes(std::span(&value, 1)));
    return value;
  }

  // FAILED_PRECONDITION on a rank that has another `text` than rank 0.
  void ExpectSame(std::string_view what, const std::string& text);

 private:
  static void Check(const Status& status);
  void Share(std::span<std::byte> bytes);
  std::string ShareText(const std::string& text);

  std::unique_ptr<Communicator> communicator_;
  std::unique_ptr<DeviceCommunicator> device_;  // null: gradients are in the process's memory
};

// Meets the other ranks of the run. CANCELLED where a stop is requested meanwhile; other errors as
// the communicator's.
Result<std::unique_ptr<Ranks>> MeetOtherRanks(const TrainContext& context,
                                              const StopSignals& signals);

}  // namespace mft
