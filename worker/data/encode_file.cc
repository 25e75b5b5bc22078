// SPDX-License-Identifier: Apache-2.0
#include "worker/data/encode_file.h"

#include <algorithm>
#include <atomic>
#include <thread>
#include <utility>
#include <vector>

#include "common/base/strings.h"

namespace mft::data {
namespace {

// Lines that are encoded together: enough to keep the threads busy, few enough to hold in memory.
constexpr size_t kBlockLines = 1024;
constexpr size_t kBlockBytes = size_t{4} << 20;

std::vector<EncodedLine> EncodeBlock(const std::vector<DataLine>& lines,
                                     const LineEncoder& encoder,
                                     const EncodeFileOptions& options) {
  std::vector<EncodedLine> encoded(lines.size());
  std::atomic<size_t> next{0};
  const auto work = [&] {
    for (size_t i = next++; i < lines.size(); i = next++) {
      encoded[i] = encoder.Encode(options.kind, lines[i]);
    }
  };
  const size_t others = std::min<size_t>(options.threads - 1, lines.size() / 2);
  std::vector<std::jthread> threads;
  for (size_t i = 0; i < others; ++i) {
    threads.emplace_back(work);
  }
  work();
  threads.clear();
  return encoded;
}

Status HandOver(const std::string& path,
                const std::vector<DataLine>& lines,
                const std::vector<EncodedLine>& encoded,
                const LineSink& sink) {
  for (size_t i = 0; i < lines.size(); ++i) {
    for (const Status& problem : encoded[i].problems) {
      if (problem.code() == Code::kUnimplemented) {
        return problem.WithContext(StrCat(path, ":", lines[i].number + 1));
      }
    }
    MFT_RETURN_IF_ERROR(sink(lines[i], encoded[i]));
  }
  return Status::Ok();
}

}  // namespace

Status EncodeFile(const std::string& path,
                  const LineEncoder& encoder,
                  const EncodeFileOptions& options,
                  const LineSink& sink) {
  MFT_ASSIGN_OR_RETURN(LineReader reader, LineReader::Open(path));
  std::vector<DataLine> block;
  size_t bytes = 0;
  for (bool more = true; more;) {
    DataLine line;
    MFT_ASSIGN_OR_RETURN(more, reader.Next(line));
    if (more) {
      bytes += line.text.size();
      block.push_back(std::move(line));
    }
    if (!more || block.size() >= kBlockLines || bytes >= kBlockBytes) {
      MFT_RETURN_IF_ERROR(HandOver(path, block, EncodeBlock(block, encoder, options), sink));
      block.clear();
      bytes = 0;
      if (options.stopped()) {
        return {Code::kCancelled, "stopped"};
      }
    }
  }
  return Status::Ok();
}

int DefaultThreads() {
  return static_cast<int>(std::clamp(std::thread::hardware_concurrency(), 1u, 16u));
}

}  // namespace mft::data
