// Findings, counted calls and settings: what the rest of the library shares.
#pragma once

#include <mutex>
#include <string>

#include "host_cuda/host_cuda.h"

namespace host_cuda {

/// One lock for everything: interface functions hold it while they run, and with them the kernels that they run.
std::recursive_mutex& lock();

Settings& settings();

/// A finding at an instruction of the code under test; the same kind at the same place is reported once.
void report_at(const char* kind, const std::string& text, const void* instruction);
/// "src/file.cu:12" of an instruction, or its address.
std::string source_line(const void* instruction);

void reset_reports();

}  // namespace host_cuda
