// SPDX-License-Identifier: Apache-2.0
// The data files of a job: which there are, and what is in them.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "common/config/job_spec.h"
#include "common/config/source_list.h"
#include "common/dataset/token_cache.h"

namespace mft::data {

// A file as it was when it was hashed.
struct DataFile {
  std::string path;
  std::string hash;  // SHA-256
  int64_t bytes = 0;
  int64_t modified_nanos = 0;
};

struct DataFiles {
  std::string path;  // of the source
  SourceKind kind = SourceKind::kInstruct;
  double weight = 1.0;
  std::vector<DataFile> files;
};

// The files of one source, not yet hashed.
Result<DataFiles> ListSourceFiles(const DataSource& source, SourceKind kind);

// All sources in the order of the token cache: text, conversations and, unless `no_eval`,
// evaluation. Files are not yet hashed. NOT_FOUND and INVALID_ARGUMENT name the source.
Result<std::vector<DataFiles>> ListDataFiles(const JobSpec& spec);

// Fills in hash, size and time. CANCELLED once `stopped` says so.
Status HashDataFile(DataFile& file, const std::function<bool()>& stopped);

// FAILED_PRECONDITION where the file is not as it was when it was hashed.
Status CheckUnchanged(const DataFile& file);

}  // namespace mft::data
