// SPDX-License-Identifier: Apache-2.0
#include "worker/kernels/cuda/runtime.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <stdexcept>

namespace mft::cuda {

namespace {
// Pinned memory that uploads go through: while one slab is being copied to the device, the next is
// being filled.
class UploadRing {
 public:
  UploadRing() {
    for (Slab& slab : slabs_) {
      Check(cudaMallocHost(reinterpret_cast<void**>(&slab.data), kSlabBytes),
            "cudaMallocHost of an upload buffer");
      Check(cudaEventCreateWithFlags(&slab.copied, cudaEventDisableTiming), "cudaEventCreate");
    }
  }
  UploadRing(const UploadRing&) = delete;
  UploadRing& operator=(const UploadRing&) = delete;

  void Upload(std::byte* to, const std::byte* from, size_t bytes, cudaStream_t stream) {
    while (bytes > 0) {
      if (used_ == kSlabBytes) {
        NextSlab(stream);
      }
      const size_t piece = std::min(bytes, kSlabBytes - used_);
      std::byte* const pinned = slabs_[at_].data + used_;
      Copy(pinned, from, piece);
      Check(cudaMemcpyAsync(to, pinned, piece, cudaMemcpyHostToDevice, stream),
            "cudaMemcpyAsync to the device");
      used_ += piece;
      to += piece;
      from += piece;
      bytes -= piece;
    }
  }

 private:
  static constexpr size_t kSlabBytes = size_t{16} << 20;
  static constexpr size_t kPartBytes = size_t{1} << 20;
  struct Slab {
    std::byte* data = nullptr;
    cudaEvent_t copied = nullptr;
  };

  void NextSlab(cudaStream_t stream) {
    Check(cudaEventRecord(slabs_[at_].copied, stream), "cudaEventRecord");
    at_ = (at_ + 1) % slabs_.size();
    used_ = 0;
    // An event that was never recorded is done.
    Check(cudaEventSynchronize(slabs_[at_].copied), "cudaEventSynchronize of an upload");
  }

  // By all threads where it is much: pages of a mapped file are read here, for the first time.
  static void Copy(std::byte* to, const std::byte* from, size_t bytes) {
    const auto parts = static_cast<int64_t>((bytes + kPartBytes - 1) / kPartBytes);
#pragma omp parallel for schedule(dynamic, 1) if (parts > 1)
    for (int64_t part = 0; part < parts; ++part) {
      const size_t begin = static_cast<size_t>(part) * kPartBytes;
      std::memcpy(to + begin, from + begin, std::min(kPartBytes, bytes - begin));
    }
  }

  std::array<Slab, 4> slabs_;
  size_t at_ = 0;
  size_t used_ = 0;
};

struct Device {
  int ordinal = 0;
  cudaStream_t stream = nullptr;
  cudaStream_t copies = nullptr;  // beside the kernels
  cudaEvent_t queued = nullptr;   // what one of the two has come to, for the other
  void* scratch = nullptr;
  UploadRing ring;
};

// Lives until the process ends, as CUDA's own context does.
Device* g_device = nullptr;

Device& Opened() {
  if (g_device == nullptr) {
    throw std::logic_error("no CUDA device was opened");
  }
  return *g_device;
}

void* Allocate(size_t bytes) {
  Opened();
  void* data = nullptr;
  const cudaError_t error = cudaMalloc(&data, bytes);
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();  // it is told by the result, and is no error of a later call
    return nullptr;
  }
  Check(error, "cudaMalloc of " + std::to_string(bytes) + " bytes");
  return data;
}

void Release(void* data) {
  // Called by destructors, also after another error, which is the one to be told.
  static_cast<void>(cudaFree(data));
}

void Upload(void* to, const void* from, size_t bytes) {
  Device& device = Opened();
  device.ring.Upload(
      static_cast<std::byte*>(to), static_cast<const std::byte*>(from), bytes, device.stream);
}

void Synchronize() {
  Check(cudaStreamSynchronize(Opened().stream), "cudaStreamSynchronize");
}

void Download(void* to, const void* from, size_t bytes) {
  Check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, Opened().stream),
        "cudaMemcpyAsync from the device");
  Synchronize();
}

void Copy(void* to, const void* from, size_t bytes) {
  Check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, Opened().stream),
        "cudaMemcpyAsync within the device");
}

void* AllocatePinned(size_t bytes) {
  Opened();
  void* data = nullptr;
  const cudaError_t error = cudaMallocHost(&data, bytes);
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    return nullptr;
  }
  Check(error, "cudaMallocHost of " + std::to_string(bytes) + " bytes");
  return data;
}

void ReleasePinned(void* data) {
  // As Release.
  static_cast<void>(cudaFreeHost(data));
}

// What `later` is given from here on begins when `earlier` has done what it was given.
void Order(cudaStream_t earlier, cudaStream_t later) {
  Check(cudaEventRecord(Opened().queued, earlier), "cudaEventRecord");
  Check(cudaStreamWaitEvent(later, Opened().queued, 0), "cudaStreamWaitEvent");
}

void BeginCopy(void* to, const void* pinned, size_t bytes) {
  const Device& device = Opened();
  Order(device.stream, device.copies);
  Check(cudaMemcpyAsync(to, pinned, bytes, cudaMemcpyHostToDevice, device.copies),
        "cudaMemcpyAsync of pinned memory to the device");
}

void JoinCopies() {
  Order(Opened().copies, Opened().stream);
}

int64_t FreeBytes() {
  size_t free = 0;
  size_t total = 0;
  Check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
  return static_cast<int64_t>(free);
}
}  // namespace

void Check(cudaError_t error, const std::string& call) {
  if (error != cudaSuccess) {
    throw std::runtime_error("CUDA: " + call + ": " + cudaGetErrorName(error) + ": " +
                             cudaGetErrorString(error));
  }
}

void OpenDevice(int ordinal) {
  if (g_device != nullptr) {
    if (g_device->ordinal != ordinal) {
      throw std::logic_error("CUDA device " + std::to_string(g_device->ordinal) +
                             " is open, a process has one");
    }
    return;
  }
  Check(cudaSetDevice(ordinal), "cudaSetDevice " + std::to_string(ordinal));
  auto device = std::make_unique<Device>();
  device->ordinal = ordinal;
  Check(cudaStreamCreateWithFlags(&device->stream, cudaStreamNonBlocking), "cudaStreamCreate");
  Check(cudaStreamCreateWithFlags(&device->copies, cudaStreamNonBlocking), "cudaStreamCreate");
  Check(cudaEventCreateWithFlags(&device->queued, cudaEventDisableTiming), "cudaEventCreate");
  Check(cudaMalloc(&device->scratch, kScratchBytes), "cudaMalloc of the kernels' scratch");
  g_device = device.release();
}

int DeviceOrdinal() {
  return Opened().ordinal;
}

cudaStream_t ComputeStream() {
  return Opened().stream;
}

int ComputeCapability() {
  int major = 0;
  int minor = 0;
  const int ordinal = Opened().ordinal;
  Check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, ordinal),
        "cudaDeviceGetAttribute");
  Check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, ordinal),
        "cudaDeviceGetAttribute");
  return 10 * major + minor;
}

void* KernelScratch(size_t bytes) {
  if (bytes > kScratchBytes) {
    throw std::length_error("a kernel wants " + std::to_string(bytes) +
                            " bytes of scratch, it has " + std::to_string(kScratchBytes));
  }
  return Opened().scratch;
}

const DeviceMemory& Memory() {
  static constexpr DeviceMemory memory = {.allocate = Allocate,
                                          .release = Release,
                                          .upload = Upload,
                                          .download = Download,
                                          .synchronize = Synchronize,
                                          .free_bytes = FreeBytes,
                                          .copy = Copy,
                                          .allocate_pinned = AllocatePinned,
                                          .release_pinned = ReleasePinned,
                                          .begin_copy = BeginCopy,
                                          .join_copies = JoinCopies};
  return memory;
}

}  // namespace mft::cuda
