// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>

#include "common/base/status.h"
#include "common/dataset/line_reader.h"
#include "common/dataset/token_cache.h"
#include "worker/data/line_encoder.h"

namespace mft::data {

struct EncodeFileOptions {
  SourceKind kind = SourceKind::kInstruct;
  int threads = 1;
  std::function<bool()> stopped = [] { return false; };  // asked after each batch of lines
};

using LineSink = std::function<Status(const DataLine& line, const EncodedLine& encoded)>;

// Encodes the lines of a file with several threads and hands each to `sink`, in order, on the
// caller's thread. Ends with the first failure of the sink, with CANCELLED once `stopped` says so,
// and with UNIMPLEMENTED at the first line that needs what this version has not: the others would
// need it too. Holds a few megabytes of lines, or the longest.
Status EncodeFile(const std::string& path,
                  const LineEncoder& encoder,
                  const EncodeFileOptions& options,
                  const LineSink& sink);

// What EncodeFile is given on this machine when nothing else is asked for.
int DefaultThreads();

}  // namespace mft::data
