// SIGINT and SIGTERM as a flag that the run polls: the first one asks to save and end, a second one ends at once.
#pragma once

namespace charrnn {

void install_stop_handlers();
/// The first signal that came, or 0.
int stop_signal();

}  // namespace charrnn
