// SPDX-License-Identifier: Apache-2.0
#include "server/metrics/metrics.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include <prometheus/client_metric.h>
#include <prometheus/collectable.h>
#include <prometheus/exposer.h>
#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

#include "common/base/files.h"
#include "common/base/strings.h"
#include "common/journal/record.h"
#include "server/metrics/job_series.h"
#include "server/metrics/names.h"

namespace mft::server {

namespace {
using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;

constexpr int64_t kRetentionMicros = int64_t{15} * 60 * 1'000'000;

using Labels = std::vector<std::pair<std::string, std::string>>;

// Collects families in order of their first use; a family without a value is left out.
class Families {
 public:
  void Gauge(const metric::Metric& name, double value, const Labels& labels = {}) {
    Add(name, MetricType::Gauge, labels).gauge.value = value;
  }
  void Counter(const metric::Metric& name, double value, const Labels& labels = {}) {
    Add(name, MetricType::Counter, labels).counter.value = value;
  }
  // A NaN in a gauge makes every comparison false, so what is not finite is not exported
  // (mftd_job_nonfinite_total tells).
  void FiniteGauge(const metric::Metric& name, double value, const Labels& labels) {
    if (std::isfinite(value)) {
      Gauge(name, value, labels);
    }
  }
  void StepHistogram(const metric::Metric& name, const JobSeries& series, const Labels& labels) {
    auto& histogram = Add(name, MetricType::Histogram, labels).histogram;
    uint64_t cumulative = 0;
    for (size_t i = 0; i < series.step_buckets.size(); ++i) {
      cumulative += static_cast<uint64_t>(series.step_buckets[i]);
      const bool last = i == JobSeries::kStepBounds.size();
      histogram.bucket.push_back({cumulative, last ? INFINITY : JobSeries::kStepBounds[i]});
    }
    histogram.sample_count = cumulative;
    histogram.sample_sum = series.step_seconds_sum;
  }
  std::vector<MetricFamily> Take() { return std::move(families_); }

 private:
  ClientMetric& Add(const metric::Metric& name, MetricType type, const Labels& labels) {
    auto family = families_.begin();
    while (family != families_.end() && family->name != name.name) {
      ++family;
    }
    if (family == families_.end()) {
      families_.push_back({std::string(name.name), std::string(name.help), type, {}});
      family = families_.end() - 1;
    }
    ClientMetric& value = family->metric.emplace_back();
    for (const auto& [key, text] : labels) {
      value.label.push_back({key, text});
    }
    return value;
  }

  std::vector<MetricFamily> families_;
};

void AddLoss(Families& families,
             const std::string& job,
             const char* split,
             const std::optional<double>& loss) {
  if (loss) {
    families.FiniteGauge(metric::kJobLoss, *loss, {{"mft_job", job}, {"split", split}});
    families.FiniteGauge(
        metric::kJobPerplexity, std::exp(*loss), {{"mft_job", job}, {"split", split}});
  }
}

void AddJob(Families& families, const JobView& view, const JobSeries& series) {
  const Job& job = view.job;
  const Labels labels = {{"mft_job", job.id}};
  if (job.file != nullptr) {
    const JobSpec& spec = job.file->spec;
    families.Gauge(metric::kJobInfo,
                   1,
                   {{"mft_job", job.id},
                    {"name", Printable(spec.mftd.name, 80)},
                    {"model", Printable(spec.model_id_or_path, 200)},
                    {"method", spec.lora.enable ? "lora" : "full"},
                    {"user", job.file->owner}});
  }
  families.Gauge(metric::kJobStep, static_cast<double>(job.progress.step), labels);
  families.Gauge(metric::kJobStepsPlanned, static_cast<double>(job.progress.max_steps), labels);
  AddLoss(families, job.id, "train", job.progress.train_loss);
  AddLoss(families, job.id, "eval", job.progress.eval_loss);
  families.Counter(metric::kJobTokens, static_cast<double>(series.tokens), labels);
  families.Counter(metric::kJobNonfinite, static_cast<double>(series.nonfinite), labels);
  families.Counter(metric::kJobRestarts, static_cast<double>(series.restarts), labels);
  if (series.has_step) {
    families.FiniteGauge(metric::kJobLearningRate, series.learning_rate, labels);
    families.FiniteGauge(metric::kJobGradNorm, series.grad_norm, labels);
    if (series.expert_imbalance) {
      families.FiniteGauge(metric::kJobExpertImbalance, *series.expert_imbalance, labels);
    }
    families.Gauge(metric::kJobLastStep, series.last_step_seconds, labels);
    families.StepHistogram(metric::kJobStepDuration, series, labels);
  }
  if (series.last_checkpoint_seconds > 0) {
    families.Gauge(metric::kJobLastCheckpoint, series.last_checkpoint_seconds, labels);
    families.Gauge(
        metric::kJobCheckpointBytes, static_cast<double>(series.checkpoint_bytes), labels);
  }
}

void AddDaemon(Families& families, const Snapshot& snapshot, int num_streams) {
  families.Gauge(metric::kBuildInfo, 1, {{"version", std::string(BuildId())}});
  families.Gauge(metric::kReady, snapshot.ready ? 1 : 0);
  std::map<JobState, int> counts;
  for (const auto& [id, view] : snapshot.jobs) {
    ++counts[view->job.state];
  }
  for (const JobState state : kJobStates) {
    families.Gauge(metric::kJobs, counts[state], {{"state", std::string(JobStateName(state))}});
  }
  families.Gauge(metric::kEventStreams, num_streams);
  const LoopStats& stats = snapshot.stats;
  families.Counter(metric::kStoreCommits, static_cast<double>(stats.commits));
  families.Counter(metric::kStoreCommitSeconds, stats.commit_seconds);
  families.Counter(metric::kStoreErrors, static_cast<double>(stats.store_errors));
  families.Counter(metric::kAdopted, static_cast<double>(stats.adopted_attempts));
  families.Counter(metric::kEvents, static_cast<double>(stats.events));
  families.Gauge(metric::kCaches, static_cast<double>(stats.caches));
  families.Gauge(metric::kCacheBytes, static_cast<double>(stats.cache_bytes));
  families.Counter(metric::kCachesRemoved, static_cast<double>(stats.caches_removed));
  families.Counter(metric::kCacheBytesRemoved, static_cast<double>(stats.cache_bytes_removed));
  for (const DeviceView& device : snapshot.devices) {
    if (device.kind == "gpu") {
      const std::string state = !device.available        ? "unavailable"
                                : device.job_ids.empty() ? "free"
                                                         : "allocated";
      for (const char* name : {"free", "allocated", "unavailable"}) {
        families.Gauge(metric::kGpuState,
                       state == name ? 1 : 0,
                       {{"gpu", device.id.substr(device.id.find(':') + 1)},
                        {"UUID", device.uuid},
                        {"state", name}});
      }
    }
  }
}

// The longest wait of a job that has not run yet: a queue that does not move shows before any job
// has started.
void AddQueueWait(Families& families, const Snapshot& snapshot, int64_t now_micros) {
  double longest = 0;
  for (const auto& [id, view] : snapshot.jobs) {
    if (view->job.started_micros == 0 && !IsFinal(view->job.state)) {
      longest =
          std::max(longest, static_cast<double>(now_micros - view->job.created_micros) * 1e-6);
    }
  }
  families.Gauge(metric::kQueueWait, longest);
}
}  // namespace

class Metrics::Impl final : public prometheus::Collectable {
 public:
  explicit Impl(MetricsOptions options) : options_(std::move(options)) {}

  std::vector<MetricFamily> Collect() const override {
    const SnapshotPtr snapshot = options_.snapshot();
    const JobSeriesTable::Copy series = series_.Get();
    const Clock& clock = options_.clock != nullptr ? *options_.clock : SystemClock();
    Families families;
    AddDaemon(families, *snapshot, options_.num_streams());
    if (const auto free = FreeDiskBytes(options_.state_dir); free.ok()) {
      families.Gauge(metric::kDiskFree, static_cast<double>(*free), {{"path", options_.state_dir}});
    }
    for (const auto& [key, count] : series.finished) {
      families.Counter(metric::kJobsFinished,
                       static_cast<double>(count),
                       {{"result", key.first}, {"reason", key.second}});
    }
    AddQueueWait(families, *snapshot, clock.WallMicros());
    for (const auto& [id, view] : snapshot->jobs) {
      if (view->job.ended_micros > 0 &&
          clock.WallMicros() - view->job.ended_micros > kRetentionMicros) {
        series_.Remove(id);
        continue;
      }
      const auto found = series.jobs.find(id);
      AddJob(families, *view, found == series.jobs.end() ? JobSeries() : found->second);
    }
    return families.Take();
  }

  MetricsOptions options_;
  mutable JobSeriesTable series_;
  std::string address_;
  std::unique_ptr<prometheus::Exposer> exposer_;
};

Metrics::Metrics(MetricsOptions options) : impl_(std::make_shared<Impl>(std::move(options))) {}
Metrics::~Metrics() = default;

Status Metrics::Start() {
  const std::string& address = impl_->options_.address;
  try {
    impl_->exposer_ = std::make_unique<prometheus::Exposer>(address, 2);
  } catch (const std::exception& error) {
    return AlreadyExists(StrCat(
        "cannot serve metrics on ", address, ": is the address in use? (", error.what(), ")"));
  }
  const auto ports = impl_->exposer_->GetListeningPorts();
  const size_t colon = address.rfind(':');
  impl_->address_ = ports.empty() || colon == std::string::npos
                        ? address
                        : StrCat(address.substr(0, colon), ":", ports[0]);
  impl_->exposer_->RegisterCollectable(impl_);
  return Status::Ok();
}

void Metrics::OnEvent(const v1::JobEvent& event) {
  impl_->series_.OnEvent(event);
}
const std::string& Metrics::address() const {
  return impl_->address_;
}
std::string Metrics::Render() const {
  return prometheus::TextSerializer().Serialize(impl_->Collect());
}

}  // namespace mft::server
