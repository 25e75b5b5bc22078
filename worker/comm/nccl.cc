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
    Leave();
    // An error of the last exchange has been told.
    for (cudaEvent_t event : {done_, queued_, gathered_}) {
      if (event != nullptr) {
        static_cast<void>(cudaEventDestroy(event));
      }
    }
    if (beside_ != nullptr) {
      static_cast<void>(cudaStreamDestroy(beside_));
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
    // Buffers are taken when ranks meet, before memory is planned, and not with the first exchange.
    setenv("NCCL_RUNTIME_CONNECT", "0", 0);
    for (cudaEvent_t* event : {&done_, &queued_, &gathered_}) {
      CheckCuda(cudaEventCreateWithFlags(event, cudaEventDisableTiming), "cudaEventCreate");
    }
    CheckCuda(cudaStreamCreateWithFlags(&beside_, cudaStreamNonBlocking), "cudaStreamCreate");
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
    MFT_RETURN_IF_ERROR(CheckSizes(mine, all));
    return Exchange("ncclAllGather", [&](cudaStream_t stream) {
      return ncclAllGather(mine.data(), all.data(), mine.size(), ncclInt8, comm_, stream);
    });
  }

  // NCCL keeps the order of a communicator's calls whatever streams they are given.
  Status BeginAllGather(std::span<const std::byte> mine, std::span<std::byte> all) override {
    MFT_RETURN_IF_ERROR(CheckSizes(mine, all));
    CheckCuda(cudaEventRecord(queued_, stream_), "cudaEventRecord");
    CheckCuda(cudaStreamWaitEvent(beside_, queued_, 0), "cudaStreamWaitEvent");
    return Queue("ncclAllGather", beside_, gathered_, [&](cudaStream_t stream) {
      return ncclAllGather(mine.data(), all.data(), mine.size(), ncclInt8, comm_, stream);
    });
  }

  Status EndAllGather() override { return failed_.ok() ? WaitForEvent(gathered_) : failed_; }

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
  // Aborts at once: a kernel that waits for a rank that will not come would hold up whoever frees
  // memory of the device on the way out.
  Status Fail(Status status) {
    failed_ = std::move(status);
    if (comm_ != nullptr) {
      ncclCommAbort(std::exchange(comm_, nullptr));
    }
    return failed_;
  }

  void Leave() {
    if (comm_ != nullptr && ncclCommFinalize(comm_) != ncclInvalidArgument &&
        WaitForCall(options_.meet_ms).ok()) {
      ncclCommDestroy(std::exchange(comm_, nullptr));
    }
    if (comm_ != nullptr) {
      ncclCommAbort(std::exchange(comm_, nullptr));
    }
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
        return AsynchronousError(state);
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

  // A rank that went away, or something of this host: memory, devices, interfaces.
  Status AsynchronousError(ncclResult_t error) const {
    return error == ncclRemoteError
               ? Lost(StrCat(ncclGetErrorString(error), ": ", ncclGetLastError(comm_)))
               : NcclError(error, comm_, "an exchange");
  }

  Status TooLong() const {
    return Lost(StrCat("no answer for ", options_.exchange_ms / 1000, " s"));
  }

  Status CheckSizes(std::span<const std::byte> mine, std::span<std::byte> all) const {
    if (all.size() == mine.size() * static_cast<size_t>(options_.world_size)) {
      return Status::Ok();
    }
    return InvalidArgument(StrCat("all-gather of ",
                                  mine.size(),
                                  " bytes of ",
                                  options_.world_size,
                                  " ranks into ",
                                  all.size()));
  }

  // Until the event's stream has come past the exchange.
  Status WaitForEvent(cudaEvent_t event) {
    const auto deadline = SteadyClock::now() + std::chrono::milliseconds(options_.exchange_ms);
    for (;;) {
      const cudaError_t state = cudaEventQuery(event);
      if (state == cudaSuccess) {
        return Status::Ok();
      }
      if (state != cudaErrorNotReady) {
        CheckCuda(state, "cudaEventQuery after an exchange");
      }
      ncclResult_t async = ncclSuccess;
      const ncclResult_t asked = ncclCommGetAsyncError(comm_, &async);
      if (asked != ncclSuccess || async != ncclSuccess) {
        return Fail(AsynchronousError(asked != ncclSuccess ? asked : async));
      }
      if (SteadyClock::now() > deadline) {
        return Fail(TooLong());
      }
      std::this_thread::sleep_for(kPollInterval);
    }
  }

  // Gives the exchange to the stream, and the event after it.
  template <typename Call>
  Status Queue(const char* name, cudaStream_t stream, cudaEvent_t event, const Call& call) {
    if (!failed_.ok()) {
      return failed_;
    }
    const ncclResult_t result = call(stream);
    if (result != ncclSuccess && result != ncclInProgress) {
      return Fail(NcclError(result, comm_, name));
    }
    const Status status = WaitForCall(options_.exchange_ms);
    if (!status.ok()) {
      return Fail(status.code() == Code::kDeadlineExceeded ? TooLong() : status);
    }
    CheckCuda(cudaEventRecord(event, stream), "cudaEventRecord");
    return Status::Ok();
  }

  template <typename Call>
  Status Exchange(const char* name, const Call& call) {
    MFT_RETURN_IF_ERROR(Queue(name, stream_, done_, call));
    return WaitForEvent(done_);
  }

  const DeviceCommOptions options_;
  const cudaStream_t stream_;
  cudaStream_t beside_ = nullptr;  // of gathers beside the stream
  ncclComm_t comm_ = nullptr;
  cudaEvent_t done_ = nullptr;      // of an exchange on the stream
  cudaEvent_t queued_ = nullptr;    // of the stream, before a gather
  cudaEvent_t gathered_ = nullptr;  // of a gather
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
