// SPDX-License-Identifier: Apache-2.0
#include "worker/data/corrected_file.h"

#include "common/base/atomic_file.h"
#include "common/base/strings.h"
#include "common/dataset/line_reader.h"

namespace mft::data {

Result<std::string> WriteCorrectedFile(const std::string& path,
                                       const std::vector<bool>& bad_lines) {
  const std::string corrected = path + ".corrected";
  MFT_ASSIGN_OR_RETURN(LineReader reader, LineReader::Open(path));
  MFT_ASSIGN_OR_RETURN(AtomicFile out, AtomicFile::Create(corrected));
  size_t lines = 0;
  DataLine line;
  while (true) {
    MFT_ASSIGN_OR_RETURN(const bool more, reader.Next(line));
    if (!more) {
      break;
    }
    const bool bad = lines < bad_lines.size() && bad_lines[lines];
    ++lines;
    if (!bad) {
      MFT_RETURN_IF_ERROR(out.Write(line.text += '\n'));
    }
  }
  if (lines < bad_lines.size()) {
    return FailedPrecondition(StrCat(path, ": changed while it was read"));
  }
  MFT_RETURN_IF_ERROR(out.Publish());
  return corrected;
}

}  // namespace mft::data
