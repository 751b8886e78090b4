#include "devices/cuda_library.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <cstdlib>
#include <filesystem>
#include <system_error>

namespace charrnn {

namespace {

namespace fs = std::filesystem;

/// The library's place, or an empty path.
fs::path find_beside_program() {
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error);
  if (error) return {};
  const fs::path folder = program.parent_path();
  for (const fs::path& place : {folder / kCudaLibraryFile, folder.parent_path() / "lib" / kCudaLibraryFile}) {
    if (fs::exists(place, error)) return place;
  }
  return {};
}

std::string last_dl_error() {
  const char* const text = dlerror();
  return text == nullptr ? "the loader gives no reason" : text;
}

}  // namespace

CudaLibrary open_cuda_library() {
  CudaLibrary library;
  const char* const named = std::getenv(kCudaLibraryVariable);
  library.asked_for = named != nullptr && *named != '\0';
  // Absolute: dlopen looks for a name without a slash in the system's folders.
  std::error_code error;
  const fs::path file = library.asked_for ? fs::absolute(named, error) : find_beside_program();
  library.file = file.string();
  if (file.empty()) {
    library.missing =
        fmt::format("this build has no CUDA backend ({} was not found beside the program)", kCudaLibraryFile);
    return library;
  }
  const std::string name =
      library.asked_for ? fmt::format("{} ({})", library.file, kCudaLibraryVariable) : library.file;
  if (!fs::exists(file, error)) {
    library.missing = fmt::format("{}: there is no such file", name);
    return library;
  }
  void* const handle = dlopen(library.file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    library.missing = fmt::format("{} cannot be loaded: {}", name, last_dl_error());
    return library;
  }
  // A pointer to an object as a pointer to a function: what POSIX asks of dlsym's users.
  const auto entry = reinterpret_cast<CudaPluginEntry>(dlsym(handle, kCudaPluginSymbol));
  if (entry == nullptr) {
    library.missing =
        fmt::format("{} is no CUDA backend of this program: it has no symbol {}", name, kCudaPluginSymbol);
    return library;
  }
  const CudaPlugin* const plugin = entry();
  if (plugin->abi != kCudaPluginAbi) {
    library.missing = fmt::format(
        "{} is of another build: its interface has number {}, the program's {}; take both from the same build", name,
        plugin->abi, kCudaPluginAbi);
    return library;
  }
  library.plugin = plugin;
  return library;
}

}  // namespace charrnn
