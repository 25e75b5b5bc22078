// SPDX-License-Identifier: Apache-2.0
#include "worker/data/validate.h"

#include <utility>

#include "worker/data/corrected_file.h"
#include "worker/data/encode_file.h"

namespace mft::data {
namespace {

class Validation {
 public:
  explicit Validation(const ValidateRequest& request)
      : request_(request), check_(request.check, request.report) {}

  Result<ValidateReport> Run() {
    for (const DataFiles& source : request_.sources) {
      check_.BeginSource(source);
      for (const DataFile& file : source.files) {
        MFT_RETURN_IF_ERROR(File(source.kind, file.path));
      }
      check_.EndSource();
    }
    return ValidateReport{.sources = check_.sources(),
                          .corrected = std::move(corrected_),
                          .problems = check_.problems()};
  }

 private:
  Status File(SourceKind kind, const std::string& path) {
    std::vector<bool> bad_lines;  // up to the last bad one
    const Status read =
        EncodeFile(path,
                   *request_.encoder,
                   {.kind = kind, .threads = request_.threads, .stopped = request_.stopped},
                   [&](const DataLine& line, const EncodedLine& encoded) {
                     if (request_.create_corrected && !encoded.problems.empty()) {
                       bad_lines.resize(static_cast<size_t>(line.number), false);
                       bad_lines.push_back(true);
                     }
                     check_.Add(path, line, encoded);
                     bytes_ += static_cast<int64_t>(line.text.size()) + 1;
                     request_.progress(path, bytes_);
                     return Status::Ok();
                   });
    if (read.code() == Code::kUnimplemented || read.code() == Code::kCancelled) {
      return read;
    }
    if (!read.ok()) {
      check_.AddProblem(path, 0, read);
      return Status::Ok();
    }
    if (!bad_lines.empty()) {
      MFT_ASSIGN_OR_RETURN(std::string written, WriteCorrectedFile(path, bad_lines));
      corrected_.push_back(std::move(written));
    }
    return Status::Ok();
  }

  const ValidateRequest& request_;
  DataCheck check_;
  std::vector<std::string> corrected_;
  int64_t bytes_ = 0;
};

}  // namespace

Result<ValidateReport> ValidateData(const ValidateRequest& request) {
  return Validation(request).Run();
}

}  // namespace mft::data
