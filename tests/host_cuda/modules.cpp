#include "host_cuda/modules.h"

#include <link.h>
#include <sys/mman.h>

#include <map>
#include <vector>

#include "host_cuda/checker.h"
#include "host_cuda/memory.h"

namespace host_cuda {

namespace {

struct Shared {
  Span range;
  Cell* cells = nullptr;
};

struct Modules {
  std::vector<Shared> shared;           // of this thread
  std::map<const char*, Shared> known;  // by where they begin: cells are kept
};

Modules& modules() {
  static auto* const only = new Modules;
  return *only;
}

// Thread-local storage of every module for the thread that asks: its place differs from thread to thread, and is not
// there before the thread has touched it.
int collect(dl_phdr_info* module, std::size_t /*size*/, void* /*unused*/) {
  if (module->dlpi_tls_data == nullptr) return 0;
  for (int i = 0; i < module->dlpi_phnum; ++i) {
    const auto& header = module->dlpi_phdr[i];
    if (header.p_type != PT_TLS) continue;
    const Span range{static_cast<const char*>(module->dlpi_tls_data), header.p_memsz};
    Shared& known = modules().known[range.begin];
    if (known.range.bytes < range.bytes) {
      known.range = range;
      known.cells = static_cast<Cell*>(reserve(range.bytes * sizeof(Cell)));
    }
    modules().shared.push_back({range, known.cells});
  }
  return 0;
}

int is_read_only(dl_phdr_info* module, std::size_t /*size*/, void* wanted) {
  for (int i = 0; i < module->dlpi_phnum; ++i) {
    const auto& header = module->dlpi_phdr[i];
    if (header.p_type != PT_LOAD || (header.p_flags & PF_W) != 0) continue;
    const Span range{reinterpret_cast<const char*>(module->dlpi_addr + header.p_vaddr), header.p_memsz};
    if (range.holds(wanted)) return 1;
  }
  return 0;
}

void look_again() {
  modules().shared.clear();
  dl_iterate_phdr(collect, nullptr);
}

Cell* known_cells(const void* address) {
  for (const Shared& one : modules().shared) {
    if (one.range.holds(address)) return one.cells + (static_cast<const char*>(address) - one.range.begin);
  }
  return nullptr;
}

}  // namespace

void kernel_begins(const void* /*kernel*/) { modules().shared.clear(); }

Cell* static_shared(const void* address) {
  Cell* cells = known_cells(address);
  if (cells != nullptr) return cells;
  look_again();
  return known_cells(address);
}

void forget_static_shared() {
  for (const auto& [begin, one] : modules().known) {
    madvise(one.cells, one.range.bytes * sizeof(Cell), MADV_DONTNEED);
  }
}

bool read_only(const void* address) { return dl_iterate_phdr(is_read_only, const_cast<void*>(address)) != 0; }

}  // namespace host_cuda
