// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace mft::data {

// From here on SIGTERM and SIGINT ask to stop instead of ending the process, and SIGUSR1 does
// nothing. A runner starts its processes with these signals blocked (durability.md, "Signals");
// they are unblocked.
void HandleStopSignals();

// The signal that asked to stop; 0: none did.
int StopSignal();

}  // namespace mft::data
