// SPDX-License-Identifier: Apache-2.0
#include "worker/data/encode_file.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "common/base/strings.h"

namespace mft::data {
namespace {

// Lines that one thread encodes in a go: long enough that locks do not count, short enough that the
// threads end together.
constexpr size_t kBatchLines = 256;
constexpr size_t kBatchBytes = size_t{256} << 10;
// What is read ahead of the sink: enough to keep the threads busy, little enough to hold in memory.
constexpr size_t kAheadBytes = size_t{8} << 20;
constexpr size_t kAheadBatchesPerThread = 4;

struct Batch {
  std::vector<DataLine> lines;
  size_t bytes = 0;
  std::vector<EncodedLine> encoded;
  bool done = false;
};

// The caller's thread reads and hands over, and encodes too when it has nothing better to do.
class FileEncoder {
 public:
  FileEncoder(LineReader reader,
              const std::string& path,
              const LineEncoder& encoder,
              const EncodeFileOptions& options,
              const LineSink& sink)
      : reader_(std::move(reader)),
        path_(path),
        encoder_(encoder),
        options_(options),
        sink_(sink),
        ahead_(options.threads <= 1 ? 1 : kAheadBatchesPerThread * options.threads) {}

  ~FileEncoder() {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    changed_.notify_all();
  }
  FileEncoder(const FileEncoder&) = delete;
  FileEncoder& operator=(const FileEncoder&) = delete;

  Status Run() {
    for (int i = 1; i < options_.threads; ++i) {
      helpers_.emplace_back([this] { Help(); });
    }
    while (true) {
      MFT_RETURN_IF_ERROR(ReadAhead());
      if (batches_.empty()) {  // only this thread changes the queue's ends
        return Status::Ok();
      }
      EncodeOrWait();
      while (std::unique_ptr<Batch> batch = TakeDone()) {
        MFT_RETURN_IF_ERROR(HandOver(*batch));
        if (options_.stopped()) {
          return {Code::kCancelled, "stopped"};
        }
      }
    }
  }

 private:
  Status ReadAhead() {
    while (more_ && batches_.size() < ahead_ && bytes_ < kAheadBytes) {
      auto batch = std::make_unique<Batch>();
      while (more_ && batch->lines.size() < kBatchLines && batch->bytes < kBatchBytes) {
        DataLine line;
        MFT_ASSIGN_OR_RETURN(more_, reader_.Next(line));
        if (more_) {
          batch->bytes += line.text.size();
          batch->lines.push_back(std::move(line));
        }
      }
      if (batch->lines.empty()) {
        break;
      }
      bytes_ += batch->bytes;
      {
        const std::lock_guard lock(mutex_);
        batches_.push_back(std::move(batch));
      }
      changed_.notify_one();
    }
    return Status::Ok();
  }

  // The first batch that nobody has begun, or nullptr. REQUIRES: mutex_ is held.
  Batch* Claim() { return claimed_ < batches_.size() ? batches_[claimed_++].get() : nullptr; }

  void Encode(Batch& batch) {
    batch.encoded.reserve(batch.lines.size());
    for (const DataLine& line : batch.lines) {
      batch.encoded.push_back(encoder_.Encode(options_.kind, line));
    }
    {
      const std::lock_guard lock(mutex_);
      batch.done = true;
    }
    changed_.notify_all();
  }

  void Help() {
    while (true) {
      Batch* batch = nullptr;
      {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [&] { return stop_ || (batch = Claim()) != nullptr; });
        if (stop_) {
          return;
        }
      }
      Encode(*batch);
    }
  }

  // Returns once a batch was encoded here or the first one is done.
  void EncodeOrWait() {
    Batch* batch = nullptr;
    {
      std::unique_lock lock(mutex_);
      if (batches_.front()->done) {
        return;
      }
      batch = Claim();
      if (batch == nullptr) {
        changed_.wait(lock, [&] { return batches_.front()->done; });
        return;
      }
    }
    Encode(*batch);
  }

  std::unique_ptr<Batch> TakeDone() {
    const std::lock_guard lock(mutex_);
    if (batches_.empty() || !batches_.front()->done) {
      return nullptr;
    }
    std::unique_ptr<Batch> batch = std::move(batches_.front());
    batches_.pop_front();
    --claimed_;
    bytes_ -= batch->bytes;
    return batch;
  }

  Status HandOver(const Batch& batch) const {
    for (size_t i = 0; i < batch.lines.size(); ++i) {
      const EncodedLine& encoded = batch.encoded[i];
      for (const Status& problem : encoded.problems) {
        if (problem.code() == Code::kUnimplemented) {
          return problem.WithContext(StrCat(path_, ":", batch.lines[i].number + 1));
        }
      }
      MFT_RETURN_IF_ERROR(sink_(batch.lines[i], encoded));
    }
    return Status::Ok();
  }

  LineReader reader_;
  const std::string& path_;
  const LineEncoder& encoder_;
  const EncodeFileOptions& options_;
  const LineSink& sink_;
  const size_t ahead_;  // batches
  bool more_ = true;    // to read
  size_t bytes_ = 0;    // of the lines in batches_

  std::mutex mutex_;
  std::condition_variable changed_;
  // Guarded by mutex_: the queue, in the file's order, and Batch::done.
  std::deque<std::unique_ptr<Batch>> batches_;
  size_t claimed_ = 0;  // of batches_, from its front
  bool stop_ = false;

  std::vector<std::jthread> helpers_;  // last: they end before what they use
};

}  // namespace

Status EncodeFile(const std::string& path,
                  const LineEncoder& encoder,
                  const EncodeFileOptions& options,
                  const LineSink& sink) {
  MFT_ASSIGN_OR_RETURN(LineReader reader, LineReader::Open(path));
  return FileEncoder(std::move(reader), path, encoder, options, sink).Run();
}

int DefaultThreads() {
  return static_cast<int>(std::clamp(std::thread::hardware_concurrency(), 1u, 16u));
}

}  // namespace mft::data
