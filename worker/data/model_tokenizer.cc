// SPDX-License-Identifier: Apache-2.0
#include "worker/data/model_tokenizer.h"

#include <utility>

#include "common/base/strings.h"
#include "common/checkpoint/model_params.h"

namespace mft::data {

Result<ModelTokenizer> ReadModelTokenizer(const std::string& model_dir) {
  MFT_ASSIGN_OR_RETURN(const ModelParams params, ReadModelParams(model_dir));
  ModelTokenizer model = {.vocab_size = static_cast<int32_t>(params.vocab_size)};
  const Result<std::string> path = FindTokenizerFile(model_dir);
  if (!path.ok()) {
    model.no_tokenizer = path.status();
    return model;
  }
  Result<std::unique_ptr<Tokenizer>> loaded = LoadTokenizer(*path);
  if (!loaded.ok()) {
    model.no_tokenizer = loaded.status();
    return model;
  }
  model.tokenizer = std::move(loaded).value();
  if (model.tokenizer->vocab_size() != model.vocab_size) {
    return InvalidArgument(StrCat(*path,
                                  " has ",
                                  model.tokenizer->vocab_size(),
                                  " tokens, but params.json of ",
                                  model_dir,
                                  " says vocab_size ",
                                  model.vocab_size));
  }
  return model;
}

}  // namespace mft::data
