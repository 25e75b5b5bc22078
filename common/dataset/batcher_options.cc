// SPDX-License-Identifier: Apache-2.0
#include "common/config/source_list.h"
#include "common/dataset/batcher.h"

namespace mft {

Result<BatcherOptions> BatcherOptionsFor(const JobSpec& spec, int world_size, int rank) {
  BatcherOptions options = {.seed = spec.seed,
                            .seq_len = spec.seq_len,
                            .batch_size = spec.batch_size,
                            .num_microbatches = spec.num_microbatches,
                            .world_size = world_size,
                            .rank = rank,
                            .packing = spec.mftd.packing,
                            .loss_norm = spec.mftd.loss_norm,
                            .shuffle_text = spec.data.shuffle,
                            .shuffle_instruct = spec.data.instruct.shuffle,
                            .weights = {}};
  for (const std::string& text : {spec.data.data, spec.data.instruct_data}) {
    MFT_ASSIGN_OR_RETURN(const std::vector<DataSource> sources, ParseSources(text));
    for (const DataSource& source : sources) {
      options.weights.push_back(source.weight);
    }
  }
  return options;
}

}  // namespace mft
