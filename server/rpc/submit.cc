// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/submit.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "common/base/files.h"
#include "common/base/ids.h"
#include "common/base/strings.h"
#include "common/checkpoint/model_weights.h"
#include "server/rpc/errors.h"
#include "server/rpc/job_proto.h"

namespace mft::server {

namespace {
constexpr size_t kMaxRequestId = 128;
constexpr size_t kMaxKey = 1024;

// The API takes absolute paths only: the daemon's working directory means nothing to a client.
void RequireAbsolute(const std::string& path,
                     const char* field,
                     std::vector<Violation>& violations) {
  if (!path.empty() && path[0] != '/') {
    violations.push_back(
        {field, 0, StrCat("must be an absolute path, not ", Printable(path, 200))});
  }
}

std::vector<Violation> CheckOnNode(const JobSpec& spec, std::string_view device) {
  std::vector<Violation> violations;
  RequireAbsolute(spec.model_id_or_path, "model_id_or_path", violations);
  RequireAbsolute(spec.run_dir, "run_dir", violations);
  RequireAbsolute(spec.mftd.init_adapter, "mftd.init_adapter", violations);
  RequireAbsolute(spec.mftd.resume_from, "mftd.resume_from", violations);
  if (violations.empty()) {
    violations = CheckPaths(spec);
  }
  const auto device_violations = CheckDevice(spec, device);
  violations.insert(violations.end(), device_violations.begin(), device_violations.end());
  return violations;
}

struct NodeDevice {
  std::string device;
  int cores = 1;  // for each rank
};

NodeDevice ResolveDevice(const Snapshot& snapshot, const JobSpec& spec) {
  const int on_a_node = RanksOnANode(static_cast<int>(spec.mftd.ranks), snapshot.training_node);
  const bool has_gpu = snapshot.training_node.gpus > 0;
  return {.device = spec.mftd.device == "auto" ? (has_gpu ? "cuda" : "cpu") : spec.mftd.device,
          .cores = std::max(1, snapshot.training_node.cores / on_a_node)};
}

// An estimate is a service, not a condition: where it cannot be made, its notes say why.
v1::Estimate Estimate(const JobSpec& spec, const NodeDevice& node) {
  const auto params = ReadModelParams(spec.model_id_or_path);
  const auto data = DataFactsFromFiles(spec);
  if (!params.ok() || !data.ok()) {
    v1::Estimate estimate;
    estimate.add_notes(
        StrCat("no estimate: ", params.ok() ? data.status().message() : params.status().message()));
    return estimate;
  }
  // The CPU's activations are fp32 in memory, whatever it multiplies.
  const bool fp32 = spec.mftd.precision == "fp32" || node.device == "cpu";
  const int cores = spec.mftd.threads > 0 ? static_cast<int>(spec.mftd.threads) : node.cores;
  const Result<int64_t> bytes = WeightFileBytes(spec.model_id_or_path);
  return EstimateToProto(
      EstimateJob(spec,
                  *params,
                  *data,
                  {.device = node.device, .precision = fp32 ? "fp32" : "bf16", .cores = cores},
                  bytes.ok() ? *bytes : 0));
}

// Of the key itself nothing is told.
Status CheckKey(const std::string& key) {
  const bool printable =
      std::all_of(key.begin(), key.end(), [](char c) { return c > ' ' && c < '\x7f'; });
  return key.size() <= kMaxKey && printable
             ? Status::Ok()
             : InvalidArgument(StrCat("wandb_api_key must have at most ",
                                      kMaxKey,
                                      " printable ASCII characters, no spaces"));
}

v1::Job DryRunJob(const JobSpec& spec, v1::Estimate estimate) {
  v1::Job job;
  job.set_name(spec.mftd.name);
  *job.mutable_spec() = SpecToProto(spec);
  *job.mutable_estimate() = std::move(estimate);
  return job;
}
}  // namespace

void Submit(const ServiceContext& context,
            const v1::SubmitJobRequest& request,
            v1::SubmitJobResponse& response,
            std::function<void(const grpc::Status&)> done) {
  if (request.request_id().size() > kMaxRequestId) {
    done(ToGrpcStatus(InvalidArgument(StrCat(
        "request_id has ", request.request_id().size(), " bytes, the limit is ", kMaxRequestId))));
    return;
  }
  if (const Status status = CheckKey(request.wandb_api_key()); !status.ok()) {
    done(ToGrpcStatus(status));
    return;
  }
  JobSpecResult parsed = SpecFromProto(request.spec());
  if (!parsed.violations.empty()) {
    done(ToGrpcStatus(parsed.violations));
    return;
  }
  // The hash is of what the client said, before this node filled anything in.
  const std::string hash = Sha256Hex(DumpJson(JobSpecToJson(parsed.spec)));
  const NodeDevice node = ResolveDevice(*context.loop.snapshot(), parsed.spec);
  const auto violations = CheckOnNode(parsed.spec, node.device);
  if (!violations.empty()) {
    done(ToGrpcStatus(violations));
    return;
  }
  if (const Status status = MakePathsAbsolute(parsed.spec, "/");
      !status.ok()) {  // fills in the name, cleans the paths
    done(ToGrpcStatus(status));
    return;
  }
  response.mutable_warnings()->Add(parsed.warnings.begin(), parsed.warnings.end());
  v1::Estimate estimate = Estimate(parsed.spec, node);
  SubmitRequest submit{.spec = parsed.spec,
                       .owner = context.owner,
                       .request_id = request.request_id(),
                       .request_hash = hash,
                       .wandb_key = request.wandb_api_key(),
                       .estimate = estimate,
                       .validate_only = request.validate_only()};
  context.loop.Submit(std::move(submit),
                      [&response, spec = std::move(parsed.spec), estimate, done = std::move(done)](
                          Result<JobViewPtr> result) {
                        if (!result.ok()) {
                          done(ToGrpcStatus(result.status(), {{"run_dir", spec.run_dir}}));
                          return;
                        }
                        *response.mutable_job() =
                            *result == nullptr ? DryRunJob(spec, estimate) : JobToProto(**result);
                        done(grpc::Status::OK);
                      });
}

}  // namespace mft::server
