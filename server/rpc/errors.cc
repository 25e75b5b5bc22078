// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/errors.h"

#include "common/base/strings.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace mft::server {

namespace {
constexpr size_t kMaxListed = 50;

grpc::Status WithDetails(Code code, const std::string& message, google::rpc::Status& details) {
  details.set_code(static_cast<int>(code));
  details.set_message(message);
  return {static_cast<grpc::StatusCode>(code), message, details.SerializeAsString()};
}

void AddErrorInfo(google::rpc::Status& details,
                  const std::string& reason,
                  const std::map<std::string, std::string>& metadata) {
  google::rpc::ErrorInfo info;
  info.set_reason(reason);
  info.set_domain(kErrorDomain);
  info.mutable_metadata()->insert(metadata.begin(), metadata.end());
  details.add_details()->PackFrom(info);
}
}  // namespace

grpc::Status ToGrpcStatus(const Status& status,
                          const std::map<std::string, std::string>& metadata) {
  if (status.ok()) {
    return grpc::Status::OK;
  }
  google::rpc::Status details;
  AddErrorInfo(details,
               status.reason().empty() ? std::string(CodeName(status.code())) : status.reason(),
               metadata);
  return WithDetails(status.code(), Printable(status.message(), 4000), details);
}

grpc::Status ToGrpcStatus(std::span<const Violation> violations) {
  google::rpc::Status details;
  AddErrorInfo(details, "INVALID_JOB_SPEC", {{"violations", std::to_string(violations.size())}});
  google::rpc::BadRequest bad;
  std::string message;
  for (const Violation& violation : violations.first(std::min(violations.size(), kMaxListed))) {
    auto& field = *bad.add_field_violations();
    field.set_field(violation.path);
    field.set_description(Printable(violation.message, 500));
    message += StrCat(message.empty() ? "" : "\n",
                      violation.path,
                      violation.path.empty() ? "" : ": ",
                      Printable(violation.message, 500));
  }
  details.add_details()->PackFrom(bad);
  return WithDetails(Code::kInvalidArgument, Printable(message, 4000), details);
}

Status JobNotFound(const std::string& job_id) {
  return {Code::kNotFound,
          "JOB_NOT_FOUND",
          StrCat("there is no job ", Printable(job_id, 80), "; mftctl ls lists them")};
}

}  // namespace mft::server
