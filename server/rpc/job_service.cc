// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/job_service.h"

#include <google/protobuf/util/time_util.h>

#include "common/base/files.h"
#include "common/base/strings.h"
#include "common/checkpoint/checkpoint_dir.h"
#include "server/rpc/chat_stream.h"
#include "server/rpc/errors.h"
#include "server/rpc/job_proto.h"
#include "server/rpc/list_jobs.h"
#include "server/rpc/log_stream.h"
#include "server/rpc/submit.h"
#include "server/rpc/watch_stream.h"

namespace mft::server {

namespace {
grpc::ServerUnaryReactor* Answer(grpc::CallbackServerContext* call, const grpc::Status& status) {
  grpc::ServerUnaryReactor* reactor = call->DefaultReactor();
  reactor->Finish(status);
  return reactor;
}

const grpc::Status& Overloaded() {
  static const grpc::Status status =
      ToGrpcStatus(Unavailable("the daemon is stopping or overloaded; try again"));
  return status;
}

void FillCheckpoints(const JobView& view, v1::ListCheckpointsResponse& response) {
  const std::string& run_dir = view.job.file->spec.run_dir;
  for (const int64_t step : ListCheckpointSteps(run_dir)) {
    v1::Checkpoint& checkpoint = *response.add_checkpoints();
    checkpoint.set_step(step);
    checkpoint.set_path(CheckpointDir(run_dir, step));
    if (const auto manifest = ReadManifest(checkpoint.path()); manifest.ok()) {
      int64_t bytes = 0;
      for (const ManifestFile& file : manifest->files) {
        bytes += file.size;
      }
      checkpoint.set_size_bytes(bytes);
      checkpoint.set_attempt(manifest->attempt);
    }
    if (const auto modified = ModifiedMicros(checkpoint.path() + "/state/MANIFEST");
        modified.ok()) {
      *checkpoint.mutable_create_time() =
          google::protobuf::util::TimeUtil::MicrosecondsToTimestamp(*modified);
    }
  }
}
}  // namespace

grpc::ServerUnaryReactor* JobServiceImpl::SubmitJob(grpc::CallbackServerContext* call,
                                                    const v1::SubmitJobRequest* request,
                                                    v1::SubmitJobResponse* response) {
  grpc::ServerUnaryReactor* reactor = call->DefaultReactor();
  const bool posted = context_.tasks.Post([this, request, response, reactor] {
    Submit(context_, *request, *response, [reactor](const grpc::Status& status) {
      reactor->Finish(status);
    });
  });
  if (!posted) {
    reactor->Finish(Overloaded());
  }
  return reactor;
}

grpc::ServerUnaryReactor* JobServiceImpl::GetJob(grpc::CallbackServerContext* call,
                                                 const v1::GetJobRequest* request,
                                                 v1::Job* response) {
  const JobViewPtr view = context_.loop.snapshot()->Find(request->job_id());
  if (view == nullptr) {
    return Answer(call,
                  ToGrpcStatus(JobNotFound(request->job_id()), {{"job_id", request->job_id()}}));
  }
  *response = JobToProto(*view);
  return Answer(call, grpc::Status::OK);
}

grpc::ServerUnaryReactor* JobServiceImpl::ListJobs(grpc::CallbackServerContext* call,
                                                   const v1::ListJobsRequest* request,
                                                   v1::ListJobsResponse* response) {
  return Answer(call, ToGrpcStatus(ListJobsPage(*context_.loop.snapshot(), *request, *response)));
}

grpc::ServerUnaryReactor* JobServiceImpl::CancelJob(grpc::CallbackServerContext* call,
                                                    const v1::CancelJobRequest* request,
                                                    v1::Job* response) {
  grpc::ServerUnaryReactor* reactor = call->DefaultReactor();
  context_.loop.Cancel(
      {.job_id = request->job_id(), .now = request->now()},
      [reactor, request, response](Result<JobViewPtr> result) {
        if (result.ok()) {
          *response = JobToProto(**result);
        }
        reactor->Finish(ToGrpcStatus(result.status(), {{"job_id", request->job_id()}}));
      });
  return reactor;
}

grpc::ServerWriteReactor<v1::JobEvent>* JobServiceImpl::WatchJob(
    grpc::CallbackServerContext* /*call*/, const v1::WatchJobRequest* request) {
  return StartWatch(context_, *request);
}

grpc::ServerWriteReactor<v1::ReadLogsResponse>* JobServiceImpl::ReadLogs(
    grpc::CallbackServerContext* /*call*/, const v1::ReadLogsRequest* request) {
  return StartReadLogs(context_, *request);
}

grpc::ServerUnaryReactor* JobServiceImpl::ListCheckpoints(grpc::CallbackServerContext* call,
                                                          const v1::ListCheckpointsRequest* request,
                                                          v1::ListCheckpointsResponse* response) {
  const JobViewPtr view = context_.loop.snapshot()->Find(request->job_id());
  if (view == nullptr || view->job.file == nullptr) {
    return Answer(call,
                  ToGrpcStatus(JobNotFound(request->job_id()), {{"job_id", request->job_id()}}));
  }
  grpc::ServerUnaryReactor* reactor = call->DefaultReactor();
  const bool posted = context_.tasks.Post([view, response, reactor] {
    FillCheckpoints(*view, *response);
    reactor->Finish(grpc::Status::OK);
  });
  if (!posted) {
    reactor->Finish(Overloaded());
  }
  return reactor;
}

grpc::ServerBidiReactor<v1::ChatRequest, v1::ChatResponse>* JobServiceImpl::Chat(
    grpc::CallbackServerContext* /*call*/) {
  return StartChat(context_);
}

}  // namespace mft::server
