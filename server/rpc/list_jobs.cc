// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/list_jobs.h"

#include <algorithm>
#include <charconv>
#include <set>
#include <utility>

#include "common/base/ids.h"
#include "common/base/strings.h"
#include "server/rpc/job_proto.h"

namespace mft::server {

namespace {
constexpr int kDefaultPage = 50;
constexpr int kMaxPage = 1000;

// The key of the last job of a page: jobs stand by (created, id), newest first.
using Key = std::pair<int64_t, std::string>;

Key KeyOf(const JobView& view) {
  return {view.job.created_micros, view.job.id};
}

std::string FilterText(const v1::ListJobsRequest& request) {
  std::set<int> states(request.states().begin(), request.states().end());
  std::string text;
  for (const int state : states) {
    text += StrCat(state, ",");
  }
  return text;
}

// "<created>.<id>.<check>": the check ties a token to its filter and catches damage; it grants
// nothing.
std::string Token(const Key& key, const std::string& filter) {
  const std::string body = StrCat(key.first, ".", key.second);
  return StrCat(body, ".", Sha256Hex(StrCat(body, "|", filter)).substr(0, 16));
}

Result<Key> ParseToken(const std::string& token, const std::string& filter) {
  const Status bad(Code::kInvalidArgument,
                   "INVALID_PAGE_TOKEN",
                   "page_token is damaged or belongs to another filter");
  const auto parts = Split(token, '.');
  Key key;
  if (parts.size() != 3 ||
      std::from_chars(parts[0].data(), parts[0].data() + parts[0].size(), key.first).ec !=
          std::errc()) {
    return bad;
  }
  key.second = parts[1];
  if (Token(key, filter) != token) {
    return bad;
  }
  return key;
}
}  // namespace

Status ListJobsPage(const Snapshot& snapshot,
                    const v1::ListJobsRequest& request,
                    v1::ListJobsResponse& response) {
  if (request.page_size() < 0) {
    return InvalidArgument(StrCat("page_size must not be negative, it is ", request.page_size()));
  }
  const int size =
      request.page_size() == 0 ? kDefaultPage : std::min(request.page_size(), kMaxPage);
  const std::string filter = FilterText(request);
  const std::set<int> states(request.states().begin(), request.states().end());
  auto at = snapshot.newest_first.begin();
  if (!request.page_token().empty()) {
    MFT_ASSIGN_OR_RETURN(const Key last, ParseToken(request.page_token(), filter));
    at = std::find_if(at, snapshot.newest_first.end(), [&](const JobViewPtr& view) {
      return KeyOf(*view) < last;
    });
  }
  for (; at != snapshot.newest_first.end(); ++at) {
    if (!states.empty() && !states.contains(static_cast<int>((*at)->job.state))) {
      continue;
    }
    if (response.jobs_size() == size) {
      const v1::Job& last = response.jobs(size - 1);
      response.set_next_page_token(Token(KeyOf(*snapshot.Find(last.id())), filter));
      break;
    }
    *response.add_jobs() = JobToProto(**at);
  }
  return Status::Ok();
}

}  // namespace mft::server
