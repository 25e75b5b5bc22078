// SPDX-License-Identifier: Apache-2.0
// The services over a real control loop with scripted runners, through a real socket.
#include "server/rpc/rpc_server.h"

#include <sys/stat.h>

#include <set>

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include "common/base/files.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "mft/v1/job_service.grpc.pb.h"
#include "mft/v1/node_service.grpc.pb.h"
#include "tests/server/control/harness.h"

namespace mft::server {
namespace {

using testing::Harness;
using ::testing::HasSubstr;

google::rpc::ErrorInfo InfoOf(const grpc::Status& status) {
  google::rpc::Status details;
  google::rpc::ErrorInfo info;
  EXPECT_TRUE(details.ParseFromString(status.error_details()));
  for (const auto& detail : details.details()) {
    if (detail.UnpackTo(&info)) {
      break;
    }
  }
  return info;
}

std::vector<std::string> FieldsOf(const grpc::Status& status) {
  google::rpc::Status details;
  google::rpc::BadRequest bad;
  std::vector<std::string> fields;
  EXPECT_TRUE(details.ParseFromString(status.error_details()));
  for (const auto& detail : details.details()) {
    if (detail.UnpackTo(&bad)) {
      for (const auto& violation : bad.field_violations()) {
        fields.push_back(violation.field());
      }
    }
  }
  return fields;
}

class Rpc : public ::testing::Test {
 protected:
  Rpc() {
    harness_.Start();
    socket_ = temp_.File("dir/s");
    auto server = RpcServer::Start(harness_.loop(), Options("unix:" + socket_));
    MFT_CHECK(server.ok(), server.status().ToString());
    server_ = std::move(server).value();
    const auto channel =
        grpc::CreateChannel(server_->address(), grpc::InsecureChannelCredentials());
    jobs_ = v1::JobService::NewStub(channel);
    node_ = v1::NodeService::NewStub(channel);
  }

  RpcOptions Options(const std::string& listen) const {
    return {.listen = listen,
            .program_dir = MFT_SCRIPTED_DIR,
            .state_dir = "/state",
            .metrics = "127.0.0.1:1"};
  }

  grpc::Status List(const v1::ListJobsRequest& request, v1::ListJobsResponse& response) {
    grpc::ClientContext context;
    response.Clear();
    return jobs_->ListJobs(&context, request, &response);
  }

  // Reads a stream to its end.
  grpc::Status Watch(const v1::WatchJobRequest& request, std::vector<v1::JobEvent>& events) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
    const auto reader = jobs_->WatchJob(&context, request);
    v1::JobEvent event;
    while (reader->Read(&event)) {
      events.push_back(event);
    }
    return reader->Finish();
  }

  mft::testing::TempDir temp_;
  Harness harness_;
  std::string socket_;
  std::unique_ptr<RpcServer> server_;  // after the harness: it uses the loop
  std::unique_ptr<v1::JobService::Stub> jobs_;
  std::unique_ptr<v1::NodeService::Stub> node_;
};

TEST_F(Rpc, OnlyItsUserReachesTheSocket) {
  struct stat info {};
  ASSERT_EQ(stat(socket_.c_str(), &info), 0);
  EXPECT_TRUE(S_ISSOCK(info.st_mode));
  EXPECT_EQ(info.st_mode & 0777, 0600);
  ASSERT_EQ(stat(temp_.File("dir").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0700);
}

TEST_F(Rpc, ASecondServerLeavesASocketInUseAlone) {
  const auto second = RpcServer::Start(harness_.loop(), Options("unix:" + socket_));
  ASSERT_FALSE(second.ok());
  EXPECT_THAT(second.status().message(), HasSubstr(socket_));
  v1::ListJobsResponse response;
  EXPECT_TRUE(List({}, response).ok());
}

TEST_F(Rpc, AStaleSocketIsReplaced) {
  server_.reset();
  EXPECT_FALSE(PathExists(socket_));
  temp_.Write("dir/s", "left by a daemon that was killed");
  const auto again = RpcServer::Start(harness_.loop(), Options("unix:" + socket_));
  EXPECT_TRUE(again.ok()) << again.status().ToString();
}

TEST_F(Rpc, BadAddressesAreRefusedWithTheReason) {
  const auto refusal = [this](const std::string& listen) {
    const auto server = RpcServer::Start(harness_.loop(), Options(listen));
    return server.ok() ? std::string("accepted") : server.status().message();
  };
  EXPECT_THAT(refusal("unix:/tmp/" + std::string(108, 'x')), HasSubstr("107"));
  EXPECT_THAT(refusal("unix:relative"), HasSubstr("absolute"));
  EXPECT_THAT(refusal("0.0.0.0:0"), HasSubstr("loopback"));
  EXPECT_THAT(refusal("nonsense"), HasSubstr("HOST:PORT"));
  EXPECT_THAT(refusal("127.0.0.1:70000"), HasSubstr("HOST:PORT"));
}

TEST_F(Rpc, PortZeroIsReportedAndATakenPortIsRefused) {
  const auto first = RpcServer::Start(harness_.loop(), Options("127.0.0.1:0"));
  ASSERT_TRUE(first.ok()) << first.status().ToString();
  const std::string address = (*first)->address();
  EXPECT_THAT(address, ::testing::MatchesRegex("127\\.0\\.0\\.1:[1-9][0-9]*"));
  const auto second = RpcServer::Start(harness_.loop(), Options(address));
  ASSERT_FALSE(second.ok());
  EXPECT_THAT(second.status().message(), HasSubstr(address));
}

TEST_F(Rpc, AnUnknownJobIsNotFoundWithItsReasonInEveryCall) {
  const auto expect = [](const grpc::Status& status) {
    EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
    EXPECT_THAT(status.error_message(), HasSubstr("jaaaaaaaaaaa"));
    const google::rpc::ErrorInfo info = InfoOf(status);
    EXPECT_EQ(info.reason(), "JOB_NOT_FOUND");
    EXPECT_EQ(info.domain(), "mftd.dev");
  };
  v1::Job job;
  v1::GetJobRequest get;
  get.set_job_id("jaaaaaaaaaaa");
  grpc::ClientContext get_context;
  expect(jobs_->GetJob(&get_context, get, &job));
  v1::CancelJobRequest cancel;
  cancel.set_job_id("jaaaaaaaaaaa");
  grpc::ClientContext cancel_context;
  expect(jobs_->CancelJob(&cancel_context, cancel, &job));
  v1::WatchJobRequest watch;
  watch.set_job_id("jaaaaaaaaaaa");
  std::vector<v1::JobEvent> events;
  expect(Watch(watch, events));
  v1::ListCheckpointsRequest list;
  list.set_job_id("jaaaaaaaaaaa");
  v1::ListCheckpointsResponse checkpoints;
  grpc::ClientContext list_context;
  expect(jobs_->ListCheckpoints(&list_context, list, &checkpoints));
  v1::ReadLogsRequest read;
  read.set_job_id("jaaaaaaaaaaa");
  grpc::ClientContext read_context;
  expect(jobs_->ReadLogs(&read_context, read)->Finish());
}

TEST_F(Rpc, SubmitListsEveryViolationByField) {
  v1::SubmitJobRequest request;
  request.mutable_spec()->set_model_id_or_path("/no/such/model");
  request.mutable_spec()->set_run_dir(temp_.File("run"));
  request.mutable_spec()->mutable_data()->set_instruct_data("/no/such/data.jsonl");
  request.mutable_spec()->set_seq_len(0);
  request.mutable_spec()->mutable_lora()->set_rank(-1);
  v1::SubmitJobResponse response;
  grpc::ClientContext context;
  grpc::Status status = jobs_->SubmitJob(&context, request, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(InfoOf(status).reason(), "INVALID_JOB_SPEC");
  EXPECT_THAT(FieldsOf(status), ::testing::UnorderedElementsAre("seq_len", "lora.rank"));

  request.mutable_spec()->clear_seq_len();
  request.mutable_spec()->clear_lora();
  grpc::ClientContext again;
  status = jobs_->SubmitJob(&again, request, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("/no/such/model"));
  EXPECT_THAT(status.error_message(), HasSubstr("/no/such/data.jsonl"));
}

TEST_F(Rpc, RelativePathsAreRefused) {
  v1::SubmitJobRequest request;
  request.mutable_spec()->set_model_id_or_path("model");
  request.mutable_spec()->set_run_dir("run");
  request.mutable_spec()->mutable_data()->set_instruct_data("/data.jsonl");
  v1::SubmitJobResponse response;
  grpc::ClientContext context;
  const grpc::Status status = jobs_->SubmitJob(&context, request, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(FieldsOf(status), ::testing::IsSupersetOf({"model_id_or_path", "run_dir"}));
}

TEST_F(Rpc, PagesHoldEveryJobOnceNewestFirst) {
  std::vector<std::string> submitted;
  for (const char* name : {"a", "b", "c", "d", "e"}) {
    submitted.push_back(harness_.Submit(harness_.RunDir(name), 1000, {{"prepare", "hang"}}));
  }
  v1::ListJobsRequest request;
  v1::ListJobsResponse response;
  request.set_page_size(2);
  std::vector<std::string> listed;
  int pages = 0;
  do {
    ASSERT_TRUE(List(request, response).ok());
    ++pages;
    for (const v1::Job& job : response.jobs()) {
      listed.push_back(job.id());
    }
    request.set_page_token(response.next_page_token());
  } while (!response.next_page_token().empty());
  EXPECT_EQ(pages, 3);
  EXPECT_EQ(std::set<std::string>(listed.begin(), listed.end()),
            std::set<std::string>(submitted.begin(), submitted.end()));
  EXPECT_EQ(listed.size(), submitted.size());
  EXPECT_EQ(listed.front(), submitted.back());
}

TEST_F(Rpc, BadPagesAreRefused) {
  harness_.Submit(harness_.RunDir("a"), 1000, {{"prepare", "hang"}});
  harness_.Submit(harness_.RunDir("b"), 1000, {{"prepare", "hang"}});
  v1::ListJobsRequest request;
  v1::ListJobsResponse response;
  request.set_page_size(1);
  ASSERT_TRUE(List(request, response).ok());
  const std::string token = response.next_page_token();
  ASSERT_FALSE(token.empty());
  request.set_page_token(token + "x");
  EXPECT_EQ(InfoOf(List(request, response)).reason(), "INVALID_PAGE_TOKEN");
  request.set_page_token(token);
  request.add_states(v1::RUNNING);  // another filter than the token's
  EXPECT_EQ(InfoOf(List(request, response)).reason(), "INVALID_PAGE_TOKEN");
  request.Clear();
  request.set_page_size(-1);
  EXPECT_EQ(List(request, response).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(Rpc, AWatchHasEveryEventOnceAndEndsAfterTheTerminalOne) {
  const std::string id = harness_.Submit(harness_.RunDir("a"), 200);
  v1::WatchJobRequest request;
  request.set_job_id(id);
  std::vector<v1::JobEvent> events;
  const grpc::Status status = Watch(request, events);
  ASSERT_TRUE(status.ok()) << status.error_message();
  for (size_t i = 0; i < events.size(); ++i) {
    ASSERT_EQ(events[i].sequence(), static_cast<int64_t>(i) + 1);
    ASSERT_EQ(events[i].job_id(), id);
  }
  EXPECT_EQ(testing::Steps(events).size(), 200u);
  ASSERT_TRUE(events.back().has_state_changed());
  EXPECT_EQ(events.back().state_changed().to(), v1::SUCCEEDED);

  // From the middle, out of the history; behind the end there is nothing, in peace.
  request.set_after_sequence(100);
  request.set_epoch(events[0].epoch());
  std::vector<v1::JobEvent> rest;
  ASSERT_TRUE(Watch(request, rest).ok());
  ASSERT_EQ(rest.size(), events.size() - 100);
  EXPECT_EQ(rest[0].SerializeAsString(), events[100].SerializeAsString());
  request.set_after_sequence(static_cast<int64_t>(events.size()));
  rest.clear();
  EXPECT_TRUE(Watch(request, rest).ok());
  EXPECT_TRUE(rest.empty());
}

TEST_F(Rpc, AWatchOfAnotherHistoryIsOutOfRange) {
  const std::string id = harness_.Submit(harness_.RunDir("a"), 1000, {{"prepare", "hang"}});
  v1::WatchJobRequest request;
  request.set_job_id(id);
  std::vector<v1::JobEvent> events;
  request.set_epoch(12345);
  const grpc::Status rebuilt = Watch(request, events);
  EXPECT_EQ(rebuilt.error_code(), grpc::StatusCode::OUT_OF_RANGE);
  EXPECT_EQ(InfoOf(rebuilt).reason(), "EVENTS_REBUILT");
  request.set_epoch(0);
  request.set_after_sequence(1'000'000);
  EXPECT_EQ(Watch(request, events).error_code(), grpc::StatusCode::OUT_OF_RANGE);
  EXPECT_TRUE(events.empty());
}

TEST_F(Rpc, AShutdownEndsOpenStreamsAndLeavesTheJob) {
  const std::string id = harness_.Submit(harness_.RunDir("a"), 1000, {{"prepare", "hang"}});
  v1::WatchJobRequest request;
  request.set_job_id(id);
  grpc::ClientContext context;
  const auto reader = jobs_->WatchJob(&context, request);
  v1::JobEvent event;
  ASSERT_TRUE(reader->Read(&event));
  EXPECT_EQ(server_->num_streams(), 1);
  server_->Shutdown();
  while (reader->Read(&event)) {
  }
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_FALSE(IsFinal(harness_.View(id)->job.state));
}

TEST_F(Rpc, AClientThatGoesAwayEndsItsStream) {
  const std::string id = harness_.Submit(harness_.RunDir("a"), 1000, {{"prepare", "hang"}});
  v1::WatchJobRequest request;
  request.set_job_id(id);
  {
    grpc::ClientContext context;
    const auto reader = jobs_->WatchJob(&context, request);
    v1::JobEvent event;
    ASSERT_TRUE(reader->Read(&event));
    context.TryCancel();
    EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  }
  EXPECT_TRUE(testing::Eventually([this] { return server_->num_streams() == 0; }));
}

TEST_F(Rpc, CancelAnswersWithTheJobAndRefusesAFinishedOne) {
  const std::string id = harness_.Submit(harness_.RunDir("a"), 3);
  ASSERT_TRUE(harness_.WaitFor(id, JobState::kSucceeded));
  v1::CancelJobRequest request;
  request.set_job_id(id);
  v1::Job job;
  grpc::ClientContext context;
  const grpc::Status status = jobs_->CancelJob(&context, request, &job);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(InfoOf(status).reason(), "JOB_FINISHED");
}

TEST_F(Rpc, TheNodeTellsItsAddressesAndDevices) {
  v1::ServerInfo info;
  grpc::ClientContext context;
  ASSERT_TRUE(node_->GetServerInfo(&context, v1::GetServerInfoRequest(), &info).ok());
  EXPECT_EQ(info.state_dir(), "/state");
  EXPECT_EQ(info.listen(), "unix:" + socket_);
  EXPECT_GT(info.pid(), 0);
  v1::ListDevicesResponse devices;
  grpc::ClientContext devices_context;
  ASSERT_TRUE(node_->ListDevices(&devices_context, v1::ListDevicesRequest(), &devices).ok());
  ASSERT_GE(devices.devices_size(), 1);
  EXPECT_EQ(devices.devices(0).kind(), "cpu");
}

}  // namespace
}  // namespace mft::server
