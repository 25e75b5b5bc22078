// SPDX-License-Identifier: Apache-2.0
// Between plain structs and mft.v1 messages. Specs travel through JSON, whose field list is
// VisitFields.
#pragma once

#include "common/config/yaml_reader.h"
#include "mft/v1/job.pb.h"
#include "mft/v1/job_spec.pb.h"
#include "server/events/snapshot.h"
#include "server/jobs/estimate.h"

namespace mft::server {

// Parsed and validated; violations name fields by their proto path, which is the YAML path.
JobSpecResult SpecFromProto(const v1::JobSpec& proto);
v1::JobSpec SpecToProto(const JobSpec& spec);

v1::Job JobToProto(const JobView& view);
v1::Estimate EstimateToProto(const JobEstimate& estimate);

}  // namespace mft::server
