// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/rpc_server.h"

#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>

#include "common/base/strings.h"
#include "server/rpc/job_service.h"
#include "server/rpc/node_service.h"

namespace mft::server {

namespace {
constexpr int kTaskThreads = 4;
constexpr int kChats = 8;
constexpr int kTickMs = 500;
constexpr auto kDrain = std::chrono::seconds(3);

std::string UserName() {
  const passwd* user = getpwuid(geteuid());
  return user != nullptr ? user->pw_name : StrCat("uid ", geteuid());
}

void Configure(grpc::ServerBuilder& builder) {
  builder.SetMaxReceiveMessageSize(4 << 20);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 60'000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 20'000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 30'000);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, 128);
  builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, 16 << 10);
  // Without this a second server would share the port instead of failing.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
}
}  // namespace

class RpcServer::Impl {
 public:
  Impl(ControlLoop& loop,
       const RpcOptions& options,
       Listener listener,
       std::unique_ptr<EventReader> reader)
      : listener_(std::move(listener)),
        address_(listener_.address),
        reader_(std::move(reader)),
        tasks_(kTaskThreads),
        chats_(kChats),
        reader_tasks_(1),
        ticker_(kTickMs),
        context_{.loop = loop,
                 .tasks = tasks_,
                 .chats = chats_,
                 .ticker = ticker_,
                 .streams = streams_,
                 .reader = *reader_,
                 .reader_tasks = reader_tasks_,
                 .program_dir = options.program_dir,
                 .owner = UserName(),
                 .state_dir = options.state_dir,
                 .listen = options.listen,
                 .metrics = options.metrics},
        jobs_(context_),
        node_(context_) {}

  ~Impl() { Shutdown(); }

  Status Listen() {
    grpc::EnableDefaultHealthCheckService(true);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
    grpc::ServerBuilder builder;
    Configure(builder);
    int port = 0;
    builder.AddListeningPort(listener_.address, grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(&jobs_);
    builder.RegisterService(&node_);
    // The socket is made with the rights of the daemon's user only; there is no moment in which it
    // has more.
    const mode_t old_mask = umask(0177);
    server_ = builder.BuildAndStart();
    umask(old_mask);
    if (server_ == nullptr) {
      return AlreadyExists(
          StrCat("cannot listen on ", listener_.address, ": is the address in use?"));
    }
    if (!listener_.is_unix) {
      address_ = StrCat(listener_.address.substr(0, listener_.address.rfind(':')), ":", port);
    }
    server_->GetHealthCheckService()->SetServingStatus("mft.v1.JobService", true);
    server_->GetHealthCheckService()->SetServingStatus("mft.v1.NodeService", true);
    return Status::Ok();
  }

  void Shutdown() {
    if (server_ != nullptr) {
      server_->GetHealthCheckService()->SetServingStatus(false);
      streams_.CloseAll(grpc::Status(grpc::StatusCode::UNAVAILABLE, "the daemon is stopping"));
      server_->Shutdown(std::chrono::system_clock::now() + kDrain);
      chats_.Shutdown();
      tasks_.Shutdown();
      reader_tasks_.Shutdown();
      server_->Wait();
      server_.reset();
      if (listener_.is_unix) {
        unlink(listener_.path.c_str());
      }
    }
  }

  const std::string& address() const { return address_; }
  int num_streams() const { return streams_.size(); }

 private:
  Listener listener_;
  std::string address_;
  std::unique_ptr<EventReader> reader_;
  StreamRegistry streams_;
  TaskPool tasks_, chats_, reader_tasks_;
  Ticker ticker_;
  ServiceContext context_;
  JobServiceImpl jobs_;
  NodeServiceImpl node_;
  std::unique_ptr<grpc::Server> server_;
};

Result<std::unique_ptr<RpcServer>> RpcServer::Start(ControlLoop& loop, const RpcOptions& options) {
  MFT_ASSIGN_OR_RETURN(Listener listener, ClaimListener(options.listen));
  MFT_ASSIGN_OR_RETURN(auto reader, loop.OpenEventReader());
  auto impl = std::make_unique<Impl>(loop, options, std::move(listener), std::move(reader));
  MFT_RETURN_IF_ERROR(impl->Listen());
  return std::unique_ptr<RpcServer>(new RpcServer(std::move(impl)));
}

RpcServer::RpcServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
RpcServer::~RpcServer() = default;
void RpcServer::Shutdown() {
  impl_->Shutdown();
}
const std::string& RpcServer::address() const {
  return impl_->address();
}
int RpcServer::num_streams() const {
  return impl_->num_streams();
}

}  // namespace mft::server
