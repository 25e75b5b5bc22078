// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/node_service.h"

#include <unistd.h>

#include <google/protobuf/stubs/common.h>
#include <google/protobuf/util/time_util.h>
#include <grpcpp/grpcpp.h>

#include "common/base/strings.h"
#include "common/journal/record.h"

namespace mft::server {

namespace {
// A node's cores are one device that several jobs share; GPUs belong to one job each.
std::string StateOf(const DeviceView& device) {
  if (!device.available) {
    return "unavailable";
  }
  const bool taken = device.kind == "cpu" ? device.cores_free == 0 : !device.job_ids.empty();
  return taken ? "allocated" : "free";
}

std::string DetailOf(const DeviceView& device) {
  return device.kind == "cpu" ? StrCat(device.cores_free, " of ", device.cores, " cores are free")
                              : device.detail;
}
}  // namespace

grpc::ServerUnaryReactor* NodeServiceImpl::GetServerInfo(
    grpc::CallbackServerContext* call,
    const v1::GetServerInfoRequest* /*request*/,
    v1::ServerInfo* response) {
  const SnapshotPtr snapshot = context_.loop.snapshot();
  response->set_version(std::string(BuildId()));
  response->set_epoch(snapshot->epoch);
  *response->mutable_start_time() =
      google::protobuf::util::TimeUtil::MicrosecondsToTimestamp(snapshot->start_micros);
  response->set_state_dir(context_.state_dir);
  response->set_listen(context_.listen);
  response->set_metrics(context_.metrics);
  response->set_pid(getpid());
  auto& libraries = *response->mutable_libraries();
  libraries["grpc"] = grpc::Version();
  libraries["protobuf"] = google::protobuf::internal::VersionString(GOOGLE_PROTOBUF_VERSION);
  grpc::ServerUnaryReactor* reactor = call->DefaultReactor();
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

grpc::ServerUnaryReactor* NodeServiceImpl::ListDevices(grpc::CallbackServerContext* call,
                                                       const v1::ListDevicesRequest* /*request*/,
                                                       v1::ListDevicesResponse* response) {
  for (const DeviceView& view : context_.loop.snapshot()->devices) {
    v1::Device& device = *response->add_devices();
    device.set_id(view.id);
    device.set_kind(view.kind);
    device.set_name(view.name);
    device.set_uuid(view.uuid);
    device.set_memory_bytes(view.memory_bytes);
    device.set_memory_free_bytes(view.memory_free_bytes);
    device.set_state(StateOf(view));
    device.set_job_id(Join(view.job_ids, ","));
    device.set_detail(DetailOf(view));
  }
  grpc::ServerUnaryReactor* reactor = call->DefaultReactor();
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

}  // namespace mft::server
