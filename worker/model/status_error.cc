// SPDX-License-Identifier: Apache-2.0
#include "worker/model/status_error.h"

#include <new>

#include "worker/kernels/device_error.h"

namespace mft {

namespace {
// LibTorch's messages go on with a stack trace.
std::string FirstLine(const char* text) {
  const std::string message = text;
  return message.substr(0, message.find('\n'));
}
}  // namespace

Status RunCatching(const std::function<Status()>& work) {
  try {
    return work();
  } catch (const StatusError& error) {
    return error.status();
  } catch (const DeviceOutOfMemory& error) {
    return {Code::kResourceExhausted, "OUT_OF_MEMORY", error.what()};
  } catch (const std::bad_alloc&) {
    return {Code::kResourceExhausted, "OUT_OF_MEMORY", "no memory left"};
  } catch (const std::exception& error) {
    return Internal(FirstLine(error.what()));
  }
}

}  // namespace mft
