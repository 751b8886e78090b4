// The program's commands. Each parses its own arguments, prints, and returns the exit code; errors are thrown.
#pragma once

#include "charrnn/error.h"
#include "cli/options.h"

namespace charrnn {

ExitCode train_command(const Arguments& arguments);
ExitCode sample_command(const Arguments& arguments);
ExitCode eval_command(const Arguments& arguments);
ExitCode inspect_command(const Arguments& arguments);
ExitCode bench_command(const Arguments& arguments);
ExitCode gradcheck_command(const Arguments& arguments);
ExitCode devices_command(const Arguments& arguments);

inline constexpr int kJsonSchema = 1;  // of every object that --json prints

}  // namespace charrnn
