// SPDX-License-Identifier: Apache-2.0
#include "common/dataset/token_cache.h"

#include <fcntl.h>
#include <sys/file.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <mutex>
#include <utility>

#include "common/base/crc32c.h"
#include "common/base/files.h"
#include "common/base/ids.h"
#include "common/base/strings.h"
#include "common/dataset/token_cache_format.h"
#include "common/dataset/token_cache_meta.h"

namespace mft {
namespace {

using token_cache_format::Header;
using token_cache_format::Record;

constexpr int64_t kMaxMetaBytes = int64_t{256} << 20;

// A shared lock on the cache's file; waits for one that is just being removed. Invalid where the
// file system knows no locks: then nothing but the caller protects the cache.
UniqueFd LockShared(const std::string& path) {
  Result<UniqueFd> fd = OpenFile(path, O_RDONLY);
  while (fd.ok() && flock(fd->get(), LOCK_SH) != 0) {
    if (errno != EINTR) {
      return {};
    }
  }
  return fd.ok() ? std::move(fd).value() : UniqueFd();
}

class MappedTokenCache final : public TokenCache {
 public:
  MappedTokenCache(UniqueFd lease, MappedFile file, std::string path)
      : lease_(std::move(lease)), file_(std::move(file)), path_(std::move(path)) {}

  Status ReadHead();

  const std::vector<SourceInfo>& sources() const override { return sources_; }
  Status VerifyIndex() const override;
  SampleInfo info(size_t source, int64_t index) const override;
  Result<SampleView> sample(size_t source, int64_t index) const override;
  const std::string& content_key() const override { return content_key_; }
  int32_t vocab_size() const override { return vocab_size_; }

 private:
  Status Bad(std::string_view what) const {
    return {Code::kDataLoss, std::string(kDataCacheGone), StrCat(path_, ": ", what)};
  }
  Result<std::string_view> VerifyHeader();  // gives the meta text
  Status VerifyRecordsHash() const;
  Status VerifyRecords() const;
  Status TakeMeta(std::string_view text);
  Status VerifyTotals(size_t source) const;
  Record RecordAt(int64_t record) const;
  int64_t RecordOf(size_t source, int64_t index) const;

  UniqueFd lease_;  // LockShared
  MappedFile file_;
  std::string path_;
  std::vector<SourceInfo> sources_;
  std::vector<int64_t> first_record_;  // of each source
  std::string content_key_;
  int32_t vocab_size_ = 0;
  const std::byte* records_ = nullptr;
  uint64_t records_offset_ = 0;
  int64_t num_records_ = 0;
  std::string records_sha256_;

  mutable std::mutex verifying_;                   // one VerifyIndex at a time
  mutable std::atomic<bool> index_sound_ = false;  // set behind what follows
  // A bit a sample: its bytes were those of the checksum. A long sample is asked for piece by
  // piece, and would be read as a whole each time.
  mutable std::vector<std::atomic<uint64_t>> sound_;
};

Result<std::string_view> MappedTokenCache::VerifyHeader() {
  const auto bytes = file_.bytes();
  Header header;
  if (bytes.size() < sizeof(header)) {
    return Bad(StrCat("a token cache of ", bytes.size(), " bytes: shorter than its header"));
  }
  std::memcpy(&header, bytes.data(), sizeof(header));
  if (header.magic != token_cache_format::kMagic) {
    return Bad("not a token cache: unknown first bytes");
  }
  if (header.version != kTokenCacheVersion) {
    return Bad(StrCat("token cache of version ",
                      header.version,
                      "; this build reads version ",
                      kTokenCacheVersion));
  }
  const uint64_t size = bytes.size();
  const bool records_fit = header.records_offset >= sizeof(header) &&
                           header.records_offset % alignof(Record) == 0 &&
                           header.records_offset <= size &&
                           header.num_records <= (size - header.records_offset) / sizeof(Record);
  const uint64_t records_end = header.records_offset + header.num_records * sizeof(Record);
  if (!records_fit || header.meta_bytes != size - records_end ||
      header.meta_bytes > static_cast<uint64_t>(kMaxMetaBytes)) {
    return Bad("the index does not fit the file: cut off or damaged");
  }
  const auto* text = reinterpret_cast<const char*>(bytes.data());
  const std::string_view meta(text + records_end, header.meta_bytes);
  const std::string_view expected(header.head_sha256.data(), header.head_sha256.size());
  if (token_cache_format::HeadHash(header, meta) != expected) {
    return Bad("the header and the list of sources do not match their checksum");
  }
  if (header.vocab_size < 1) {
    return Bad(StrCat("vocabulary of size ", header.vocab_size));
  }
  vocab_size_ = header.vocab_size;
  records_ = bytes.data() + header.records_offset;
  records_offset_ = header.records_offset;
  num_records_ = static_cast<int64_t>(header.num_records);
  records_sha256_.assign(header.records_sha256.data(), header.records_sha256.size());
  return meta;
}

Status MappedTokenCache::VerifyRecordsHash() const {
  const std::string_view records(reinterpret_cast<const char*>(records_),
                                 static_cast<size_t>(num_records_) * sizeof(Record));
  return Sha256Hex(records) == records_sha256_ ? Status::Ok()
                                               : Bad("the index does not match its checksum");
}

Status MappedTokenCache::VerifyRecords() const {
  for (int64_t i = 0; i < num_records_; ++i) {
    const Record record = RecordAt(i);
    const bool inside = record.length <= token_cache_format::kMaxSampleTokens &&
                        record.offset % 4 == 0 && record.offset >= sizeof(Header) &&
                        record.offset <= records_offset_ &&
                        uint64_t{record.length} * 5 <= records_offset_ - record.offset;
    if (!inside) {
      return Bad(StrCat("sample ",
                        i,
                        " lies outside the data: offset ",
                        record.offset,
                        ", length ",
                        record.length));
    }
    if (record.loss_tokens > 0 && record.loss_tokens >= record.length) {
      return Bad(StrCat("sample ",
                        i,
                        " counts ",
                        record.loss_tokens,
                        " loss tokens in ",
                        record.length,
                        " tokens"));
    }
  }
  return Status::Ok();
}

Status MappedTokenCache::TakeMeta(std::string_view text) {
  Result<TokenCacheMeta> meta = ParseTokenCacheMeta(text);
  if (!meta.ok()) {
    return Bad(meta.status().message());
  }
  content_key_ = std::move(meta->content_key);
  sources_ = std::move(meta->sources);
  int64_t next = 0;
  for (const SourceInfo& source : sources_) {
    if (source.samples > num_records_ - next) {
      return Bad(StrCat("source ", source.path, " has more samples than the index"));
    }
    first_record_.push_back(next);
    next += source.samples;
  }
  if (next != num_records_) {
    return Bad(StrCat("the sources hold ", next, " samples, the index ", num_records_));
  }
  return Status::Ok();
}

Status MappedTokenCache::VerifyTotals(size_t source) const {
  int64_t tokens = 0;
  int64_t loss_tokens = 0;
  for (int64_t i = 0; i < sources_[source].samples; ++i) {
    const Record record = RecordAt(first_record_[source] + i);
    tokens += record.length;
    loss_tokens += record.loss_tokens;
  }
  if (tokens != sources_[source].tokens || loss_tokens != sources_[source].loss_tokens) {
    return Bad(StrCat("totals of source ", sources_[source].path, " do not match the index"));
  }
  return Status::Ok();
}

Status MappedTokenCache::ReadHead() {
  MFT_ASSIGN_OR_RETURN(const std::string_view meta, VerifyHeader());
  return TakeMeta(meta);
}

Status MappedTokenCache::VerifyIndex() const {
  const std::lock_guard lock(verifying_);
  if (index_sound_) {
    return Status::Ok();
  }
  MFT_RETURN_IF_ERROR(VerifyRecordsHash());
  MFT_RETURN_IF_ERROR(VerifyRecords());
  for (size_t source = 0; source < sources_.size(); ++source) {
    MFT_RETURN_IF_ERROR(VerifyTotals(source));
  }
  sound_ = std::vector<std::atomic<uint64_t>>(static_cast<size_t>(num_records_) / 64 + 1);
  index_sound_ = true;
  return Status::Ok();
}

Record MappedTokenCache::RecordAt(int64_t record) const {
  Record value;
  std::memcpy(&value, records_ + record * sizeof(Record), sizeof(value));
  return value;
}

int64_t MappedTokenCache::RecordOf(size_t source, int64_t index) const {
  MFT_CHECK(
      index_sound_ && source < sources_.size() && index >= 0 && index < sources_[source].samples,
      StrCat("sample ", index, " of source ", source));
  return first_record_[source] + index;
}

SampleInfo MappedTokenCache::info(size_t source, int64_t index) const {
  const Record record = RecordAt(RecordOf(source, index));
  return {.length = record.length, .loss_tokens = record.loss_tokens, .line = record.line};
}

Result<SampleView> MappedTokenCache::sample(size_t source, int64_t index) const {
  const int64_t number = RecordOf(source, index);
  const Record record = RecordAt(number);
  const std::byte* data = file_.bytes().data() + record.offset;
  std::atomic<uint64_t>& sound = sound_[static_cast<size_t>(number) / 64];
  const uint64_t bit = uint64_t{1} << (number % 64);
  if ((sound & bit) == 0) {
    const std::string_view bytes(reinterpret_cast<const char*>(data), size_t{record.length} * 5);
    if (Crc32c(bytes) != record.crc32c) {
      return Bad(StrCat("sample ",
                        index,
                        " of source ",
                        sources_[source].path,
                        " does not match its checksum; the data has to be prepared again"));
    }
    sound |= bit;
  }
  return SampleView{
      .tokens = {reinterpret_cast<const int32_t*>(data), record.length},
      .mask = {reinterpret_cast<const uint8_t*>(data) + size_t{record.length} * 4, record.length}};
}

}  // namespace

Result<std::unique_ptr<TokenCache>> TokenCache::Open(const std::string& directory) {
  const std::string path = JoinPath(directory, token_cache_format::kFileName);
  UniqueFd lease = LockShared(path);
  MFT_ASSIGN_OR_RETURN(MappedFile file, MappedFile::Open(path));
  auto cache = std::make_unique<MappedTokenCache>(std::move(lease), std::move(file), path);
  MFT_RETURN_IF_ERROR(cache->ReadHead());
  return std::unique_ptr<TokenCache>(std::move(cache));
}

Status VerifyTokenCache(const TokenCache& cache, const std::function<bool()>& stopped) {
  constexpr int64_t kTokensBetweenQuestions = int64_t{1} << 20;
  MFT_RETURN_IF_ERROR(cache.VerifyIndex());
  int64_t tokens = kTokensBetweenQuestions;
  for (size_t source = 0; source < cache.sources().size(); ++source) {
    for (int64_t i = 0; i < cache.sources()[source].samples; ++i) {
      MFT_ASSIGN_OR_RETURN(const SampleView sample, cache.sample(source, i));
      tokens += static_cast<int64_t>(sample.tokens.size()) + 1;
      if (tokens >= kTokensBetweenQuestions) {
        tokens = 0;
        if (stopped()) {
          return {Code::kCancelled, "stopped"};
        }
      }
    }
  }
  return Status::Ok();
}

}  // namespace mft
