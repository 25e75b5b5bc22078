// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/chat_stream.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <future>
#include <memory>
#include <mutex>

#include "common/base/strings.h"
#include "common/checkpoint/checkpoint_dir.h"
#include "server/rpc/chat_process.h"
#include "server/rpc/errors.h"

namespace mft::server {

namespace {
constexpr int kDefaultMaxTokens = 256;
constexpr size_t kMaxTurns = 64;        // waiting ones
constexpr size_t kMaxResponses = 4096;  // waiting ones: a client that does not read is cut off

Status Finished(const Json& line) {
  const Json& error = line["error"];
  return {Code::kInvalidArgument,
          StringOr(error, "code", "GENERATE_FAILED"),
          StringOr(error, "message", "generation failed")};
}

struct ChatPlan {
  std::vector<std::string> arguments;
  int64_t step = 0;
};

Result<ChatPlan> PlanChat(const JobView& view, const v1::ChatOpen& open) {
  if (view.job.file == nullptr) {
    return FailedPrecondition(StrCat("job ", view.job.id, ": ", view.job.file_problem));
  }
  const JobSpec& spec = view.job.file->spec;
  ChatPlan plan{.arguments = {"generate", "--model"}};
  if (open.base()) {
    plan.arguments.push_back(spec.model_id_or_path);
    return plan;
  }
  const auto steps = ListCheckpointSteps(spec.run_dir);
  if (steps.empty()) {
    return Status(Code::kFailedPrecondition,
                  "NO_CHECKPOINT",
                  StrCat("job ", view.job.id, " has no checkpoint yet in ", spec.run_dir));
  }
  const int64_t best = spec.mftd.keep_best ? BestCheckpointStep(spec.run_dir) : 0;
  const int64_t result = best > 0 ? best : steps.back();  // of the run so far
  plan.step = open.step() == 0 ? result : open.step();
  if (std::find(steps.begin(), steps.end(), plan.step) == steps.end()) {
    return Status(Code::kNotFound,
                  "CHECKPOINT_NOT_FOUND",
                  StrCat("job ", view.job.id, " has no checkpoint of step ", plan.step));
  }
  const std::string consolidated = JoinPath(CheckpointDir(spec.run_dir, plan.step), "consolidated");
  if (!spec.save_adapters) {  // merged, or fully trained: a model of its own
    plan.arguments.push_back(consolidated);
    return plan;
  }
  plan.arguments.insert(plan.arguments.end(),
                        {spec.model_id_or_path,
                         "--adapter",
                         JoinPath(consolidated, "lora.safetensors"),
                         "--scaling",
                         StrCat(spec.lora.scaling)});
  return plan;
}

class ChatStream final : public grpc::ServerBidiReactor<v1::ChatRequest, v1::ChatResponse>,
                         public std::enable_shared_from_this<ChatStream> {
 public:
  explicit ChatStream(const ServiceContext& context) : context_(context) {}

  void Start() {
    self_ = shared_from_this();
    key_ = context_.streams.Add(
        [self = shared_from_this()](const grpc::Status& status) { self->End(status); });
    if (key_ == 0) {
      End(grpc::Status(grpc::StatusCode::UNAVAILABLE, "the daemon is stopping"));
      return;
    }
    StartRead(&request_);
  }

  void OnReadDone(bool ok) override {
    if (!ok) {
      {
        const std::lock_guard lock(mutex_);
        reads_done_ = true;
        if (opened_) {
          turns_changed_.notify_all();
          return;  // the conversation's thread finishes after the last turn
        }
      }
      End(grpc::Status(grpc::StatusCode::INVALID_ARGUMENT,
                       "the first message must open the conversation"));
      return;
    }
    if (!Accept()) {
      End(ToGrpcStatus(InvalidArgument(
          "the first message must be `open`, each further one a `turn`; at most 64 may wait")));
      return;
    }
    StartRead(&request_);
  }

  void OnWriteDone(bool ok) override {
    {
      const std::lock_guard lock(mutex_);
      writing_ = false;
      if (ok) {
        responses_.pop_front();
      }
    }
    if (!ok) {
      End(grpc::Status(grpc::StatusCode::CANCELLED, "the client went away"));
    }
    Flush();
  }

  void OnCancel() override { End(grpc::Status(grpc::StatusCode::CANCELLED, "cancelled")); }

  void OnDone() override {
    context_.streams.Remove(key_);
    const auto dying = std::move(self_);
  }

 private:
  bool Accept() {
    const std::lock_guard lock(mutex_);
    if (!opened_) {
      if (!request_.has_open()) {
        return false;
      }
      opened_ = context_.chats.Post(
          [self = shared_from_this(), open = request_.open()] { self->Run(open); });
      return opened_;
    }
    if (!request_.has_turn() || turns_.size() >= kMaxTurns) {
      return false;
    }
    turns_.push_back(request_.turn().text());
    turns_changed_.notify_all();
    return true;
  }

  // On a thread of the chat pool from here to Respond.
  void Run(const v1::ChatOpen& open) {
    const Status status = Converse(open);
    {
      const std::lock_guard lock(mutex_);
      process_ = nullptr;
    }
    End(ToGrpcStatus(status, {{"job_id", open.job_id()}}));
  }

  Status Converse(const v1::ChatOpen& open) {
    const JobViewPtr view = context_.loop.snapshot()->Find(open.job_id());
    if (view == nullptr) {
      return JobNotFound(open.job_id());
    }
    MFT_ASSIGN_OR_RETURN(const ChatPlan plan, PlanChat(*view, open));
    MFT_ASSIGN_OR_RETURN(const Slot slot, TakeSlot(open.job_id()));
    const Status status = ConverseInSlot(open, plan, slot);
    context_.loop.ReleaseSlot(slot.id);
    return status;
  }

  Result<Slot> TakeSlot(const std::string& holder) {
    // shared_ptr: the control thread may answer after this thread has given up.
    auto promise = std::make_shared<std::promise<Result<Slot>>>();
    auto future = promise->get_future();
    context_.loop.AcquireSlot(
        {.device = "cpu", .cores = 1, .holder = holder},
        [promise](Result<Slot> slot) { promise->set_value(std::move(slot)); });
    return future.get();
  }

  Status ConverseInSlot(const v1::ChatOpen& open, const ChatPlan& plan, const Slot& slot) {
    MFT_ASSIGN_OR_RETURN(const std::shared_ptr<ChatProcess> process, StartProcess(plan, slot));
    MFT_ASSIGN_OR_RETURN(const Json first, process->Receive());
    if (!BoolOr(first, "ready", false)) {
      return Internal("mft-worker generate did not say that it is ready");
    }
    v1::ChatResponse ready;
    ready.mutable_ready()->set_step(plan.step);
    Respond(std::move(ready));
    Json messages = Json::array();
    std::string text;
    while (NextTurn(text)) {
      messages.push_back({{"role", "user"}, {"content", text}});
      MFT_RETURN_IF_ERROR(process->Send(RequestFor(open, messages)));
      MFT_ASSIGN_OR_RETURN(std::string answer, Answer(*process));
      messages.push_back({{"role", "assistant"}, {"content", std::move(answer)}});
    }
    return Status::Ok();
  }

  Result<std::shared_ptr<ChatProcess>> StartProcess(const ChatPlan& plan, const Slot& slot) {
    MFT_ASSIGN_OR_RETURN(auto started,
                         ChatProcess::Start(JoinPath(context_.program_dir, "mft-worker"),
                                            plan.arguments,
                                            std::max(1, slot.lease.cores)));
    const std::shared_ptr<ChatProcess> process = std::move(started);
    const std::lock_guard lock(mutex_);
    if (finish_requested_) {
      return Status(Code::kCancelled, "cancelled");
    }
    process_ = process;
    return process;
  }

  static Json RequestFor(const v1::ChatOpen& open, const Json& messages) {
    Json request = {{"messages", messages},
                    {"max_tokens", open.max_tokens() > 0 ? open.max_tokens() : kDefaultMaxTokens},
                    {"temperature", open.temperature()},
                    {"top_p", open.top_p() > 0 ? open.top_p() : 1.0},
                    {"seed", open.seed()}};
    if (!open.system_prompt().empty()) {
      request["system_prompt"] = open.system_prompt();
    }
    return request;
  }

  // Passes the pieces of one answer on and returns it whole.
  Result<std::string> Answer(ChatProcess& process) {
    std::string answer;
    while (true) {
      MFT_ASSIGN_OR_RETURN(const Json line, process.Receive());
      if (line.contains("error")) {
        return Finished(line);
      }
      v1::ChatResponse response;
      if (BoolOr(line, "done", false)) {
        v1::ChatDone& done = *response.mutable_done();
        done.set_finish_reason(StringOr(line, "finish_reason", ""));
        done.set_prompt_tokens(static_cast<int32_t>(IntOr(line, "prompt_tokens", 0)));
        done.set_completion_tokens(static_cast<int32_t>(IntOr(line, "completion_tokens", 0)));
        done.set_seconds(DoubleOr(line, "seconds", 0));
        Respond(std::move(response));
        return answer;
      }
      const std::string piece = StringOr(line, "text", "");
      answer += piece;
      response.set_text(piece);
      Respond(std::move(response));
    }
  }

  bool NextTurn(std::string& text) {
    std::unique_lock lock(mutex_);
    turns_changed_.wait(lock,
                        [this] { return !turns_.empty() || reads_done_ || finish_requested_; });
    if (finish_requested_ || turns_.empty()) {
      return false;
    }
    text = std::move(turns_.front());
    turns_.pop_front();
    return true;
  }

  void Respond(v1::ChatResponse response) {
    bool too_many = false;
    {
      const std::lock_guard lock(mutex_);
      too_many = responses_.size() >= kMaxResponses;
      if (!too_many) {
        responses_.push_back(std::move(response));
      }
    }
    if (too_many) {
      End(ToGrpcStatus(ResourceExhausted("the client does not read the answer")));
    }
    Flush();
  }

  // Writes the next response, or finishes once asked to: with OK only after everything is written.
  void Flush() {
    bool finish = false;
    const v1::ChatResponse* next = nullptr;
    {
      const std::lock_guard lock(mutex_);
      if (writing_ || finished_) {
        return;
      }
      if (finish_requested_ && (!finish_status_.ok() || responses_.empty())) {
        finished_ = finish = true;
      } else if (!responses_.empty()) {
        writing_ = true;
        next = &responses_.front();  // a deque: the element stays where it is
      }
    }
    if (finish) {
      Finish(finish_status_);
    } else if (next != nullptr) {
      StartWrite(next);
    }
  }

  void End(const grpc::Status& status) {
    {
      const std::lock_guard lock(mutex_);
      if (!finish_requested_) {
        finish_requested_ = true;
        finish_status_ = status;
      }
      if (process_ != nullptr) {
        process_->Kill();
      }
      turns_changed_.notify_all();
    }
    Flush();
  }

  const ServiceContext context_;
  uint64_t key_ = 0;
  v1::ChatRequest request_;           // of the read under way
  std::shared_ptr<ChatStream> self_;  // gRPC's reference, dropped in OnDone

  std::mutex mutex_;  // guards what follows
  std::condition_variable turns_changed_;
  bool opened_ = false;
  bool reads_done_ = false;
  bool writing_ = false;
  bool finish_requested_ = false;
  bool finished_ = false;
  grpc::Status finish_status_;
  std::deque<std::string> turns_;
  std::deque<v1::ChatResponse> responses_;
  std::shared_ptr<ChatProcess> process_;  // shared_ptr: the thread uses it, End kills it
};
}  // namespace

grpc::ServerBidiReactor<v1::ChatRequest, v1::ChatResponse>* StartChat(
    const ServiceContext& context) {
  const auto stream = std::make_shared<ChatStream>(context);
  stream->Start();
  return stream.get();
}

}  // namespace mft::server
