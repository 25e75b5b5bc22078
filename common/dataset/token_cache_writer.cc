// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <optional>
#include <utility>

#include "common/base/crc32c.h"
#include "common/base/files.h"
#include "common/base/ids.h"
#include "common/base/log.h"
#include "common/base/strings.h"
#include "common/dataset/record_file.h"
#include "common/dataset/token_cache.h"
#include "common/dataset/token_cache_format.h"
#include "common/dataset/token_cache_meta.h"

namespace mft {
namespace {

using token_cache_format::Header;
using token_cache_format::Record;

constexpr size_t kBufferBytes = size_t{1} << 20;

template <typename T>
std::string_view BytesOf(std::span<const T> values) {
  return {reinterpret_cast<const char*>(values.data()), values.size_bytes()};
}

class FileTokenCacheWriter final : public TokenCacheWriter {
 public:
  FileTokenCacheWriter(std::string directory, std::string content_key, int32_t vocab_size)
      : directory_(std::move(directory)),
        root_(directory_.substr(0, directory_.find_last_of('/') + 1)),
        content_key_(std::move(content_key)),
        vocab_size_(vocab_size) {}
  ~FileTokenCacheWriter() override;

  Status Init();
  Status BeginSource(std::string_view path, SourceKind kind, double weight) override;
  Status BeginFile(std::string_view path) override;
  Status Add(std::span<const int32_t> tokens,
             std::span<const uint8_t> mask,
             const SampleOrigin& origin) override;
  void AddWarning(int64_t line, std::string_view text) override;
  Status Publish() override;

 private:
  Status Append(std::string_view data);
  Status Flush();
  Status WriteIndex();
  Status VerifyPublished() const;
  Status MoveIntoPlace();
  Status EndFile();

  std::string directory_;  // absolute
  std::string root_;       // the directory that it is in
  std::string content_key_;
  int32_t vocab_size_;
  std::string temporary_;  // directory; empty once published or given up
  std::string path_;       // the file in it
  UniqueFd fd_;            // locked, so that others see that this writer lives
  std::string buffer_;
  uint64_t offset_ = 0;  // of the next byte to append
  std::vector<SourceInfo> sources_;
  std::optional<RecordFile> records_;  // since Init
  std::optional<RecordFile> chunked_;  // of the current file: they go behind its lines
};

FileTokenCacheWriter::~FileTokenCacheWriter() {
  if (!temporary_.empty()) {
    LogIfError(RemoveTree(temporary_), "removing an unpublished token cache");
  }
}

Status FileTokenCacheWriter::Init() {
  MFT_RETURN_IF_ERROR(MakeDirs(root_));
  LogIfError(RemoveStaleTokenCaches(root_), "removing what killed writers left");
  temporary_ = JoinPath(root_, StrCat(token_cache_format::kTemporaryPrefix, RandomHex(8)));
  if (mkdir(temporary_.c_str(), 0755) != 0) {
    const int error = errno;
    return ErrnoStatus(error, StrCat("creating ", std::exchange(temporary_, "")));
  }
  path_ = JoinPath(temporary_, token_cache_format::kFileName);
  Result<UniqueFd> locked = TryLockFile(path_);
  struct stat info {};
  const bool removed =
      locked.ok() ? !locked->valid() || fstat(locked->get(), &info) != 0 || info.st_nlink == 0
                  : locked.status().code() == Code::kNotFound;
  if (removed) {  // RemoveStaleTokenCaches came between mkdir, open and lock
    return Unavailable(StrCat(path_, ": removed by another process"));
  }
  MFT_RETURN_IF_ERROR(locked.status());
  fd_ = std::move(locked).value();
  records_.emplace(temporary_);
  chunked_.emplace(temporary_);
  return Append(std::string(sizeof(Header), '\0'));
}

Status FileTokenCacheWriter::Append(std::string_view data) {
  offset_ += data.size();
  if (data.size() >= kBufferBytes) {  // a long sample is not copied once more
    MFT_RETURN_IF_ERROR(Flush());
    return WriteAll(fd_.get(), data, path_);
  }
  buffer_.append(data);
  return buffer_.size() < kBufferBytes ? Status::Ok() : Flush();
}

Status FileTokenCacheWriter::Flush() {
  MFT_RETURN_IF_ERROR(WriteAll(fd_.get(), buffer_, path_));
  buffer_.clear();
  return Status::Ok();
}

Status FileTokenCacheWriter::BeginSource(std::string_view path, SourceKind kind, double weight) {
  if (!std::isfinite(weight) || weight <= 0) {
    return InvalidArgument(StrCat("source ", path, ": weight ", weight, " is not positive"));
  }
  if (!sources_.empty() && kind < sources_.back().kind) {
    return InvalidArgument(StrCat("source ",
                                  path,
                                  ": ",
                                  SourceKindName(kind),
                                  " sources come before ",
                                  SourceKindName(sources_.back().kind)));
  }
  MFT_RETURN_IF_ERROR(EndFile());
  sources_.push_back({.path = Printable(path, 4096), .kind = kind, .weight = weight});
  return Status::Ok();
}

Status FileTokenCacheWriter::BeginFile(std::string_view path) {
  MFT_CHECK(!sources_.empty(), std::string(path));
  MFT_RETURN_IF_ERROR(EndFile());
  SourceInfo& source = sources_.back();
  source.files.push_back({.path = Printable(path, 4096), .first_sample = source.samples});
  return Status::Ok();
}

Status FileTokenCacheWriter::EndFile() {
  if (!chunked_ || chunked_->size() == 0) {
    return Status::Ok();
  }
  const auto move = [this](std::string_view bytes) {
    for (size_t at = 0; at < bytes.size(); at += sizeof(Record)) {
      Record record;
      std::memcpy(&record, bytes.data() + at, sizeof(record));
      MFT_RETURN_IF_ERROR(records_->Add(record));
    }
    return Status::Ok();
  };
  MFT_RETURN_IF_ERROR(chunked_->ForEachBlock(move));
  return chunked_->Clear();
}

Status FileTokenCacheWriter::Add(std::span<const int32_t> tokens,
                                 std::span<const uint8_t> mask,
                                 const SampleOrigin& origin) {
  MFT_CHECK(!sources_.empty() && !sources_.back().files.empty(), "Add before BeginFile");
  SourceInfo& source = sources_.back();
  CachedFile& file = source.files.back();
  const auto refuse = [&](const auto&... what) {
    return InvalidArgument(StrCat(file.path, ":", origin.line + 1, ": ", what...));
  };
  if (tokens.size() != mask.size() || tokens.size() > token_cache_format::kMaxSampleTokens ||
      origin.line < 0 || origin.line > std::numeric_limits<uint32_t>::max()) {
    return refuse(tokens.size(), " tokens with a mask of ", mask.size(), " do not fit");
  }
  Record record = {.offset = offset_,
                   .length = static_cast<uint32_t>(tokens.size()),
                   .line = static_cast<uint32_t>(origin.line)};
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] < 0 || tokens[i] >= vocab_size_ || mask[i] > 1) {
      return refuse("token id ",
                    tokens[i],
                    " with mask ",
                    int{mask[i]},
                    " at ",
                    i,
                    " (vocabulary of ",
                    vocab_size_,
                    ")");
    }
    record.loss_tokens += i > 0 ? mask[i] : 0;
  }
  record.crc32c = Crc32c(BytesOf(mask), Crc32c(BytesOf(tokens)));
  MFT_RETURN_IF_ERROR(Append(BytesOf(tokens)));
  MFT_RETURN_IF_ERROR(Append(BytesOf(mask)));
  MFT_RETURN_IF_ERROR(Append(std::string(-offset_ % sizeof(int32_t), '\0')));
  MFT_RETURN_IF_ERROR((origin.chunked ? chunked_ : records_)->Add(record));
  file.samples += 1;
  file.line_samples += origin.chunked ? 0 : 1;
  source.samples += 1;
  source.tokens += record.length;
  source.loss_tokens += record.loss_tokens;
  return Status::Ok();
}

void FileTokenCacheWriter::AddWarning(int64_t line, std::string_view text) {
  constexpr size_t kMaxTextBytes = 1000;
  MFT_CHECK(!sources_.empty() && !sources_.back().files.empty(), "AddWarning before BeginFile");
  CachedFile& file = sources_.back().files.back();
  ++file.num_warnings;
  if (file.warnings.size() < kMaxFileWarnings) {
    file.warnings.push_back({.line = line, .text = Printable(text, kMaxTextBytes)});
  }
}

Status FileTokenCacheWriter::WriteIndex() {
  MFT_RETURN_IF_ERROR(EndFile());
  MFT_RETURN_IF_ERROR(Append(std::string(-offset_ % alignof(Record), '\0')));
  const std::string meta = TokenCacheMetaText({.content_key = content_key_, .sources = sources_});
  Header header;
  header.version = kTokenCacheVersion;
  header.vocab_size = vocab_size_;
  header.records_offset = offset_;
  header.num_records = static_cast<uint64_t>(records_->size());
  header.meta_bytes = meta.size();
  Sha256 records_hash;
  MFT_RETURN_IF_ERROR(records_->ForEachBlock([&](std::string_view bytes) {
    records_hash.Update(bytes);
    return Append(bytes);
  }));
  records_hash.FinishHex().copy(header.records_sha256.data(), header.records_sha256.size());
  token_cache_format::HeadHash(header, meta)
      .copy(header.head_sha256.data(), header.head_sha256.size());
  MFT_RETURN_IF_ERROR(Append(meta));
  MFT_RETURN_IF_ERROR(Flush());
  if (lseek(fd_.get(), 0, SEEK_SET) != 0) {
    return ErrnoStatus(errno, path_);
  }
  return WriteAll(fd_.get(), {reinterpret_cast<const char*>(&header), sizeof(header)}, path_);
}

// Ok if a sound cache of the same key is there, DATA_LOSS if a damaged one is.
Status FileTokenCacheWriter::VerifyPublished() const {
  MFT_ASSIGN_OR_RETURN(const std::unique_ptr<TokenCache> cache, TokenCache::Open(directory_));
  if (cache->content_key() != content_key_) {
    return AlreadyExists("a cache of other data");
  }
  return VerifyTokenCache(*cache, [] { return false; });
}

Status FileTokenCacheWriter::MoveIntoPlace() {
  for (int attempt = 0; attempt < 2; ++attempt) {
    // rename(2) replaces an empty directory and refuses any other.
    if (rename(temporary_.c_str(), directory_.c_str()) == 0) {
      temporary_.clear();
      fd_.reset();  // readers lock it now
      return Status::Ok();
    }
    const int error = errno;
    if (error != EEXIST && error != ENOTEMPTY) {
      return ErrnoStatus(error, StrCat("publishing ", directory_));
    }
    const Status other = VerifyPublished();
    if (other.ok()) {
      return Status::Ok();  // somebody else was faster; the destructor removes ours
    }
    if (other.code() != Code::kDataLoss) {
      return AlreadyExists(StrCat(directory_, ": exists and is no cache of this data"));
    }
    LogWarning(StrCat("replacing a damaged token cache: ", other.message()));
    const std::string damaged =
        JoinPath(root_, StrCat(token_cache_format::kTemporaryPrefix, RandomHex(8)));
    if (rename(directory_.c_str(), damaged.c_str()) != 0 && errno != ENOENT) {
      return ErrnoStatus(errno, StrCat("moving away ", directory_));
    }
    LogIfError(RemoveTree(damaged), "removing a damaged token cache");
  }
  return AlreadyExists(StrCat(directory_, ": a damaged cache keeps coming back"));
}

Status FileTokenCacheWriter::Publish() {
  MFT_RETURN_IF_ERROR(WriteIndex());
  MFT_RETURN_IF_ERROR(Fsync(fd_.get(), path_));
  MFT_RETURN_IF_ERROR(FsyncDir(temporary_));
  MFT_RETURN_IF_ERROR(MoveIntoPlace());
  return FsyncDir(root_);
}

}  // namespace

Result<std::unique_ptr<TokenCacheWriter>> TokenCacheWriter::Create(const std::string& directory,
                                                                   const std::string& content_key,
                                                                   int32_t vocab_size) {
  if (vocab_size < 1) {
    return InvalidArgument(StrCat("vocabulary of size ", vocab_size));
  }
  std::unique_ptr<FileTokenCacheWriter> writer;
  Status status;
  for (int attempt = 0; attempt < 3; ++attempt) {
    writer =
        std::make_unique<FileTokenCacheWriter>(AbsolutePath(directory), content_key, vocab_size);
    status = writer->Init();
    if (status.code() != Code::kUnavailable) {
      break;
    }
  }
  MFT_RETURN_IF_ERROR(status);
  return std::unique_ptr<TokenCacheWriter>(std::move(writer));
}

}  // namespace mft
