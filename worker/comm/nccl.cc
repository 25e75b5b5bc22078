// SPDX-License-Identifier: Apache-2.0
// The only file that includes NCCL. Its communicators do not block here: a call that is in progress
// is polled, so that a rank that never comes meets our deadline and not NCCL's patience.
#include "worker/comm/nccl.h"

#include <cuda_runtime_api.h>
#include <nccl.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>

#include "common/base/strings.h"
#include "worker/comm/communicator.h"

namespace mft {

namespace {
using SteadyClock = std::chrono::steady_clock;
constexpr auto kPollInterval = std::chrono::microseconds(50);

Status NcclError(ncclResult_t result, ncclComm_t comm, const std::string& call) {
  return Internal(
      StrCat("NCCL: ", call, ": ", ncclGetErrorString(result), ": ", ncclGetLastError(comm)));
}

void CheckCuda(cudaError_t error, const char* call) {
  if (error != cudaSuccess) {
    throw std::runtime_error(StrCat("CUDA: ", call, ": ", cudaGetErrorString(error)));
  }
}

class NcclCommunicator final : public DeviceCommunicator {
 public:
  NcclCommunicator(const DeviceCommOptions& options, cudaStream_t stream)
      : options_(options), stream_(stream) {}
  NcclCommunicator(const NcclCommunicator&) = delete;
  NcclCommunicator& operator=(const NcclCommunicator&) = delete;
  ~NcclCommunicator() override {
    if (done_ != nullptr) {
      // An error of the last exchange has been told.
      static_cast<void>(cudaEventDestroy(done_));
    }
    if (comm_ == nullptr) {
      return;
    }
    if (failed_.ok() && ncclCommFinalize(comm_) != ncclInvalidArgument &&
        WaitForCall(options_.meet_ms).ok()) {
      ncclCommDestroy(comm_);
    } else {
      ncclCommAbort(comm_);
    }
  }

  Status Join() {
    ncclUniqueId id;
    if (options_.id.size() != sizeof id) {
      return InvalidArgument(
          StrCat("a NCCL id has ", sizeof id, " bytes, this one ", options_.id.size()));
    }
    std::memcpy(&id, options_.id.data(), sizeof id);
    if (options_.deterministic) {
      // One way of adding up, whatever NCCL would choose by size and topology.
      setenv("NCCL_ALGO", "Ring", 0);
      setenv("NCCL_PROTO", "Simple", 0);
    }
    CheckCuda(cudaEventCreateWithFlags(&done_, cudaEventDisableTiming), "cudaEventCreate");
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    const ncclResult_t result = ncclCommInitRankConfig(&comm_,
                                                       static_cast<int>(options_.world_size),
                                                       id,
                                                       static_cast<int>(options_.rank),
                                                       &config);
    if (result != ncclSuccess && result != ncclInProgress) {
      return Fail(NcclError(result, comm_, "ncclCommInitRankConfig"));
    }
    const Status joined = WaitForCall(options_.meet_ms);
    if (joined.code() == Code::kDeadlineExceeded) {
      return Fail({Code::kDeadlineExceeded,
                   "RANKS_DID_NOT_MEET",
                   StrCat("rank ",
                          options_.rank,
                          ": not all of ",
                          options_.world_size,
                          " ranks joined NCCL within ",
                          options_.meet_ms / 1000,
                          " s")});
    }
    return joined.ok() ? joined : Fail(joined);
  }

  int64_t rank() const override { return options_.rank; }
  int64_t world_size() const override { return options_.world_size; }

  Status AllReduceSum(std::span<float> values) override {
    return Exchange("ncclAllReduce", [&](cudaStream_t stream) {
      return ncclAllReduce(
          values.data(), values.data(), values.size(), ncclFloat32, ncclSum, comm_, stream);
    });
  }

  Status AllGather(std::span<const std::byte> mine, std::span<std::byte> all) override {
    if (all.size() != mine.size() * static_cast<size_t>(options_.world_size)) {
      return InvalidArgument(StrCat("all-gather of ",
                                    mine.size(),
                                    " bytes of ",
                                    options_.world_size,
                                    " ranks into ",
                                    all.size()));
    }
    return Exchange("ncclAllGather", [&](cudaStream_t stream) {
      return ncclAllGather(mine.data(), all.data(), mine.size(), ncclInt8, comm_, stream);
    });
  }

  Status Broadcast(std::span<std::byte> bytes, int64_t root) override {
    return Exchange("ncclBroadcast", [&](cudaStream_t stream) {
      return ncclBroadcast(bytes.data(),
                           bytes.data(),
                           bytes.size(),
                           ncclInt8,
                           static_cast<int>(root),
                           comm_,
                           stream);
    });
  }

 private:
  Status Fail(Status status) {
    failed_ = std::move(status);
    return failed_;
  }

  // Until the call that NCCL has begun is made. DEADLINE_EXCEEDED.
  Status WaitForCall(int64_t wait_ms) {
    const auto deadline = SteadyClock::now() + std::chrono::milliseconds(wait_ms);
    for (;;) {
      ncclResult_t state = ncclSuccess;
      const ncclResult_t result = ncclCommGetAsyncError(comm_, &state);
      if (result != ncclSuccess) {
        return NcclError(result, comm_, "ncclCommGetAsyncError");
      }
      if (state == ncclSuccess) {
        return Status::Ok();
      }
      if (state != ncclInProgress) {
        return Lost(ncclGetErrorString(state));
      }
      if (SteadyClock::now() > deadline) {
        return {Code::kDeadlineExceeded, "", ""};
      }
      std::this_thread::sleep_for(kPollInterval);
    }
  }

  Status Lost(const std::string& what) const {
    return {Code::kUnavailable,
            std::string(kReasonRankLost),
            StrCat("rank ", options_.rank, ": a rank was lost in an exchange by NCCL: ", what)};
  }

  Status TooLong() const {
    return Lost(StrCat("no answer for ", options_.exchange_ms / 1000, " s"));
  }

  // Until the stream has come past the exchange.
  Status WaitForStream() {
    const auto deadline = SteadyClock::now() + std::chrono::milliseconds(options_.exchange_ms);
    for (;;) {
      const cudaError_t state = cudaEventQuery(done_);
      if (state == cudaSuccess) {
        return Status::Ok();
      }
      if (state != cudaErrorNotReady) {
        CheckCuda(state, "cudaEventQuery after an exchange");
      }
      ncclResult_t async = ncclSuccess;
      if (ncclCommGetAsyncError(comm_, &async) != ncclSuccess || async != ncclSuccess) {
        return Lost(ncclGetErrorString(async));
      }
      if (SteadyClock::now() > deadline) {
        return TooLong();
      }
      std::this_thread::sleep_for(kPollInterval);
    }
  }

  template <typename Call>
  Status Exchange(const char* name, const Call& call) {
    if (!failed_.ok()) {
      return failed_;
    }
    const ncclResult_t result = call(stream_);
    if (result != ncclSuccess && result != ncclInProgress) {
      return Fail(NcclError(result, comm_, name));
    }
    Status status = WaitForCall(options_.exchange_ms);
    if (status.ok()) {
      CheckCuda(cudaEventRecord(done_, stream_), "cudaEventRecord");
      status = WaitForStream();
    } else if (status.code() == Code::kDeadlineExceeded) {
      status = TooLong();
    }
    return status.ok() ? status : Fail(std::move(status));
  }

  const DeviceCommOptions options_;
  const cudaStream_t stream_;
  ncclComm_t comm_ = nullptr;
  cudaEvent_t done_ = nullptr;
  Status failed_ = Status::Ok();
};
}  // namespace

std::vector<std::byte> MakeNcclId() {
  ncclUniqueId id;
  const ncclResult_t result = ncclGetUniqueId(&id);
  if (result != ncclSuccess) {
    throw std::runtime_error(StrCat("NCCL: ncclGetUniqueId: ", ncclGetErrorString(result)));
  }
  const auto* const bytes = reinterpret_cast<const std::byte*>(&id);
  return {bytes, bytes + sizeof id};
}

Result<std::unique_ptr<DeviceCommunicator>> MakeNcclCommunicator(const DeviceCommOptions& options,
                                                                 CUstream_st* stream) {
  auto communicator = std::make_unique<NcclCommunicator>(options, stream);
  MFT_RETURN_IF_ERROR(communicator->Join());
  return std::unique_ptr<DeviceCommunicator>(std::move(communicator));
}

}  // namespace mft
