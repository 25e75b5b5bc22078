// SPDX-License-Identifier: Apache-2.0
#include "worker/data/prepare.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "common/base/files.h"
#include "common/base/strings.h"
#include "common/dataset/batcher.h"
#include "common/dataset/cache_key.h"
#include "common/dataset/line_reader.h"
#include "common/dataset/token_cache.h"
#include "common/journal/record.h"
#include "worker/data/data_check.h"
#include "worker/data/data_files.h"
#include "worker/data/encode_file.h"
#include "worker/data/line_encoder.h"
#include "worker/data/model_tokenizer.h"

namespace mft::data {
namespace {

Status ValidationFailed(std::string message) {
  return {Code::kInvalidArgument, "VALIDATION_FAILED", std::move(message)};
}

class Preparation {
 public:
  Preparation(const PrepareRequest& request, PrepareObserver& observer)
      : request_(request),
        observer_(observer),
        check_(DataCheckOptionsFor(request.spec),
               [this](const Finding& finding) { Tell(finding); }) {}
  Result<PreparedData> Run();

 private:
  void Tell(const Finding& finding) {
    if (finding.warning) {
      observer_.Warning(StrCat(FindingPlace(finding), ": ", finding.message));
    } else {
      observer_.Problem(FindingText(finding));
    }
  }
  Status LoadModel();
  Status HashFiles();
  std::string Key() const;
  Result<std::unique_ptr<TokenCache>> FindCache();
  Status Repeat(const TokenCache& cache);
  Status Build();
  Status Judge() const;
  Status ReadSource(const DataFiles& source);
  Status ReadFileLines(SourceKind kind, const DataFile& file);
  Status Take(const DataFile& file, const DataLine& line, const EncodedLine& encoded);
  Result<PreparedData> Finish(bool reused);

  const PrepareRequest& request_;
  PrepareObserver& observer_;
  ModelTokenizer model_;
  std::unique_ptr<LineEncoder> encoder_;
  std::vector<DataFiles> sources_;
  std::string key_;
  std::string directory_;
  std::unique_ptr<TokenCacheWriter> writer_;  // null once there is a problem
  DataCheck check_;
};

bool ChunksConversations(const JobSpec& spec) {
  return spec.data.instruct.shuffle && spec.data.instruct.dynamic_chunk_fn_call;
}

Status Preparation::LoadModel() {
  MFT_ASSIGN_OR_RETURN(model_, ReadModelTokenizer(request_.spec.model_id_or_path));
  encoder_ = std::make_unique<LineEncoder>(
      LineEncoderOptions{.tokenizer = model_.tokenizer.get(),
                         .no_tokenizer = model_.no_tokenizer,
                         .vocab_size = model_.vocab_size,
                         .dynamic_chunking = ChunksConversations(request_.spec)});
  return Status::Ok();
}

Status Preparation::HashFiles() {
  MFT_ASSIGN_OR_RETURN(sources_, ListDataFiles(request_.spec));
  for (DataFiles& source : sources_) {
    for (DataFile& file : source.files) {
      MFT_RETURN_IF_ERROR(HashDataFile(file, [this] { return observer_.Stopped(); }));
    }
  }
  return Status::Ok();
}

std::string Preparation::Key() const {
  CacheKeyInput input = {.vocab_size = model_.vocab_size,
                         .dynamic_chunking = ChunksConversations(request_.spec)};
  if (model_.tokenizer != nullptr) {
    input.tokenizer_hash = model_.tokenizer->file_hash();
    input.tokenizer_version = TokenizerVersionName(model_.tokenizer->version());
  }
  for (const DataFiles& source : sources_) {
    CacheKeySource key = {.kind = source.kind, .file_hashes = {}};
    for (const DataFile& file : source.files) {
      key.file_hashes.push_back(file.hash);
    }
    input.sources.push_back(std::move(key));
  }
  return TokenCacheKey(input);
}

Status Preparation::Take(const DataFile& file, const DataLine& line, const EncodedLine& encoded) {
  check_.Add(file.path, line, encoded);
  if (check_.problems() > 0) {
    writer_.reset();  // what it holds will not be published: give the disk back, and go on checking
    return Status::Ok();
  }
  for (const std::string& warning : encoded.warnings) {
    writer_->AddWarning(line.number, warning);
  }
  bool chunked = false;
  for (const EncodedSample& sample : encoded.samples) {
    MFT_RETURN_IF_ERROR(
        writer_->Add(sample.tokens, sample.mask, {.line = line.number, .chunked = chunked}));
    chunked = true;
  }
  return Status::Ok();
}

Status Preparation::ReadFileLines(SourceKind kind, const DataFile& file) {
  MFT_RETURN_IF_ERROR(EncodeFile(
      file.path,
      *encoder_,
      {.kind = kind,
       .threads = request_.threads,
       .stopped = [this] { return observer_.Stopped(); }},
      [&](const DataLine& line, const EncodedLine& encoded) { return Take(file, line, encoded); }));
  return CheckUnchanged(file);
}

Status Preparation::ReadSource(const DataFiles& source) {
  check_.BeginSource(source);
  if (writer_ != nullptr) {
    MFT_RETURN_IF_ERROR(writer_->BeginSource(source.path, source.kind, source.weight));
  }
  for (const DataFile& file : source.files) {
    observer_.Phase(kPhaseTokenizing, file.path);
    if (writer_ != nullptr) {
      MFT_RETURN_IF_ERROR(writer_->BeginFile(file.path));
    }
    MFT_RETURN_IF_ERROR(ReadFileLines(source.kind, file));
  }
  check_.EndSource();
  return Status::Ok();
}

Status Preparation::Judge() const {
  if (check_.problems() == 0) {
    return Status::Ok();
  }
  return ValidationFailed(StrCat(check_.problems(),
                                 check_.problems() == 1 ? " problem" : " problems",
                                 " in the data; the first: ",
                                 check_.first_problem()));
}

Status Preparation::Build() {
  MFT_ASSIGN_OR_RETURN(writer_, TokenCacheWriter::Create(directory_, key_, model_.vocab_size));
  for (const DataFiles& source : sources_) {
    MFT_RETURN_IF_ERROR(ReadSource(source));
  }
  MFT_RETURN_IF_ERROR(Judge());
  const Status published = writer_->Publish();
  writer_.reset();
  return published;
}

// What the job will make of the cache: refuses data without anything to train on.
Result<PreparedData> Preparation::Finish(bool reused) {
  MFT_ASSIGN_OR_RETURN(const std::unique_ptr<TokenCache> cache, TokenCache::Open(directory_));
  // The daemon evicts by age, and will hear of this use only later. Best effort: a cache that is
  // evicted is made again.
  utimensat(AT_FDCWD, directory_.c_str(), nullptr, 0);
  const JobSpec& spec = request_.spec;
  const int ranks = static_cast<int>(spec.mftd.ranks);
  MFT_ASSIGN_OR_RETURN(const BatcherOptions options, BatcherOptionsFor(spec, ranks, 0));
  const Status trainable = Batcher::Create(*cache, options).status();
  if (trainable.reason() == "NO_TRAINABLE_TOKENS") {
    observer_.Problem(trainable.message());
    return ValidationFailed(trainable.message());
  }
  MFT_RETURN_IF_ERROR(trainable);
  PreparedData data = {.directory = directory_, .reused = reused};
  double rows = 0;
  for (size_t s = 0; s < cache->sources().size(); ++s) {
    const SourceInfo& source = cache->sources()[s];
    if (source.kind == SourceKind::kEval) {
      data.eval_samples += source.samples;
      continue;
    }
    data.samples += source.samples;
    data.tokens += source.tokens;
    data.loss_tokens += source.loss_tokens;
    for (int64_t i = 0; i < source.samples; ++i) {
      const SampleInfo sample = cache->info(s, i);
      rows += sample.loss_tokens > 0 ? static_cast<double>(sample.length - 1) : 0;
    }
  }
  const auto step_rows = static_cast<double>(spec.seq_len) * static_cast<double>(spec.batch_size) *
                         static_cast<double>(spec.num_microbatches) * ranks;
  data.steps_per_epoch = rows / step_rows;
  data.epochs = static_cast<double>(spec.max_steps) / data.steps_per_epoch;
  return data;
}

// A sound cache of this data, or null. Its bytes are read here, and not only opened: a worker that
// met a damaged sample sends the job here to have the cache made again.
Result<std::unique_ptr<TokenCache>> Preparation::FindCache() {
  Result<std::unique_ptr<TokenCache>> existing = TokenCache::Open(directory_);
  if (!existing.ok() || (*existing)->content_key() != key_) {
    return std::unique_ptr<TokenCache>();
  }
  const Status sound = VerifyTokenCache(**existing, [this] { return observer_.Stopped(); });
  if (sound.code() == Code::kDataLoss) {
    observer_.Warning(StrCat("the token cache is damaged and made again: ", sound.message()));
    return std::unique_ptr<TokenCache>();
  }
  MFT_RETURN_IF_ERROR(sound);
  return existing;
}

bool SameFiles(const std::vector<SourceInfo>& cached, const std::vector<DataFiles>& sources) {
  return std::equal(cached.begin(),
                    cached.end(),
                    sources.begin(),
                    sources.end(),
                    [](const SourceInfo& a, const DataFiles& b) {
                      return a.kind == b.kind && a.files.size() == b.files.size();
                    });
}

// Says of a reused cache what was said when it was made: by lines as it remembers them, with the
// names that the files have now, and by sources as this job's settings judge them.
Status Preparation::Repeat(const TokenCache& cache) {
  if (!SameFiles(cache.sources(), sources_)) {
    return DataLoss(
        StrCat(directory_, ": the token cache has the key of this data, and other files"));
  }
  for (size_t s = 0; s < sources_.size(); ++s) {
    check_.BeginSource(sources_[s]);
    for (size_t f = 0; f < sources_[s].files.size(); ++f) {
      const CachedFile& file = cache.sources()[s].files[f];
      const std::string& path = sources_[s].files[f].path;
      for (const LineWarning& warning : file.warnings) {
        observer_.Warning(StrCat(path, ":", warning.line + 1, ": ", warning.text));
      }
      const int64_t more = file.num_warnings - static_cast<int64_t>(file.warnings.size());
      if (more > 0) {
        observer_.Warning(StrCat(path, ": ", more, " more warnings of single lines"));
      }
      for (int64_t i = 0; i < file.samples; ++i) {
        check_.AddCached(cache.info(s, file.first_sample + i), i >= file.line_samples);
      }
    }
    check_.EndSource();
  }
  return Judge();
}

Result<PreparedData> Preparation::Run() {
  observer_.Phase(kPhaseValidating, "");
  MFT_RETURN_IF_ERROR(LoadModel());
  MFT_RETURN_IF_ERROR(HashFiles());
  key_ = Key();
  directory_ =
      request_.directory.empty() ? JoinPath(request_.cache_root, key_) : request_.directory;
  MFT_ASSIGN_OR_RETURN(const std::unique_ptr<TokenCache> existing, FindCache());
  MFT_RETURN_IF_ERROR(existing != nullptr ? Repeat(*existing) : Build());
  return Finish(existing != nullptr);
}

}  // namespace

Result<PreparedData> PrepareData(const PrepareRequest& request, PrepareObserver& observer) {
  return Preparation(request, observer).Run();
}

}  // namespace mft::data
