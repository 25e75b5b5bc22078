// SPDX-License-Identifier: Apache-2.0
#include "worker/data/parquet.h"

#include <fcntl.h>
#include <unistd.h>

#include <string_view>

#include "common/base/files.h"
#include "common/base/strings.h"

namespace mft::data {

Status RefuseParquet(const std::string& path) {
  constexpr std::string_view kMagic = "PAR1";
  char begin[kMagic.size()] = {};
  ssize_t got = 0;
  const auto fd = OpenFile(path, O_RDONLY | O_NONBLOCK);
  if (fd.ok()) {
    got = pread(fd->get(), begin, sizeof(begin), 0);
  }
  const bool magic = got > 0 && std::string_view(begin, static_cast<size_t>(got)) == kMagic;
  if (magic || path.ends_with(".parquet")) {
    return InvalidArgument(StrCat(
        path,
        " is a Parquet file, which is not read; make JSON Lines of it with Python's pyarrow, as "
        "worker/data/README.md shows"));
  }
  return Status::Ok();
}

}  // namespace mft::data
