// SPDX-License-Identifier: Apache-2.0
#include "worker/train/ranks.h"

#include <algorithm>
#include <cstddef>

#include "common/base/json.h"
#include "common/base/strings.h"
#include "worker/model/status_error.h"

namespace mft {

namespace {
// What is shared as text are plans and errors; a larger size means that the ranks are out of step.
constexpr uint64_t kMaxTextBytes = uint64_t{64} << 20;

RankTransport TransportOf(const World& world) {
  if (world.transport == "tcp") {
    return RankTransport::kTcp;
  }
  return world.transport == "shm" ? RankTransport::kSharedMemory : RankTransport::kAuto;
}

std::string Encode(const Status& status) {
  return DumpJson({{"code", static_cast<int>(status.code())},
                   {"reason", status.reason()},
                   {"message", status.message()}});
}

Status Decode(const std::string& text) {
  MFT_ASSIGN_OR_RETURN(const Json json, ParseJson(text));
  return {static_cast<Code>(IntOr(json, "code", static_cast<int64_t>(Code::kInternal))),
          StringOr(json, "reason", ""),
          StringOr(json, "message", "")};
}
}  // namespace

void Ranks::Check(const Status& status) {
  ThrowIfError(status);
}

void Ranks::Share(std::span<std::byte> bytes) {
  Check(communicator_->Broadcast(bytes, 0));
}

std::string Ranks::ShareText(const std::string& text) {
  uint64_t size = text.size();
  Share(std::as_writable_bytes(std::span(&size, 1)));
  if (size > kMaxTextBytes) {
    throw StatusError(Internal(StrCat("rank 0 sends a text of ", size, " bytes")));
  }
  std::string shared = text;
  shared.resize(size);
  Share(std::as_writable_bytes(std::span(shared)));
  return shared;
}

void Ranks::SumGradient(std::span<float> gradient) {
  Check(device_ != nullptr ? device_->AllReduceSum(gradient)
                           : communicator_->AllReduceSum(gradient));
}

void Ranks::MeetOnDevice(const CudaApi& cuda, bool deterministic) {
  const std::string id = TextOfFirst([&]() -> Result<std::string> {
    const std::vector<std::byte> bytes = cuda.make_communicator_id();
    return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  });
  const auto bytes = std::as_bytes(std::span(id));
  device_ = ValueOrThrow(cuda.communicate({.rank = rank(),
                                           .world_size = size(),
                                           .id = {bytes.begin(), bytes.end()},
                                           .deterministic = deterministic}));
}

void Ranks::Any(std::span<bool> answers) {
  std::vector<double> votes(answers.begin(), answers.end());
  Sum(std::span<double>(votes));
  std::ranges::transform(votes, answers.begin(), [](double vote) { return vote > 0; });
}

std::vector<double> Ranks::Gather(double mine) {
  std::vector<double> values(static_cast<size_t>(size()), 0);
  values[static_cast<size_t>(rank())] = mine;
  Sum(std::span<double>(values));
  return values;
}

void Ranks::FromFirst(std::span<float> values) {
  Share(std::as_writable_bytes(values));
}

void Ranks::OnFirst(const std::function<Status()>& work) {
  if (size() == 1) {
    return Check(work());
  }
  const Status mine = is_first() ? RunCatching(work) : Status::Ok();
  const Status status = Decode(ShareText(Encode(mine)));
  Check(is_first() ? mine : status);
}

std::string Ranks::TextOfFirst(const std::function<Result<std::string>()>& work) {
  std::string text;
  OnFirst([&]() -> Status {
    MFT_ASSIGN_OR_RETURN(text, work());
    return Status::Ok();
  });
  return ShareText(text);
}

void Ranks::ExpectSame(std::string_view what, const std::string& text) {
  const std::string first = ShareText(text);
  if (first != text) {
    throw StatusError(FailedPrecondition(
        StrCat("rank ", rank(), " has other ", what, " than rank 0: ", text, ", not ", first)));
  }
}

Result<std::unique_ptr<Ranks>> MeetOtherRanks(const TrainContext& context,
                                              const StopSignals& signals) {
  const World& world = context.world;
  const bool one_host = world.local_size == world.size && !context.rendezvous_file.empty();
  MFT_ASSIGN_OR_RETURN(std::unique_ptr<Communicator> communicator,
                       MakeCommunicator({.rank = world.rank,
                                         .world_size = world.size,
                                         .rendezvous_file = context.rendezvous_file,
                                         .address = one_host ? "" : world.master_address,
                                         .port = world.master_port,
                                         .token = context.meeting_token,
                                         .transport = TransportOf(world),
                                         .stop = [&signals] { return signals.stop_requested(); }}));
  return std::make_unique<Ranks>(std::move(communicator));
}

}  // namespace mft
