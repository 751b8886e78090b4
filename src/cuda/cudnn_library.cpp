#include "cuda/cudnn_library.h"

#include "cuda/recurrence.h"

#if defined(CHARRNN_NO_CUDNN)

namespace charrnn::cuda {
std::string cudnn_status() { return "cuDNN: this build was made without it: cudnn.h was not found"; }
}  // namespace charrnn::cuda

#else

#include <dlfcn.h>

#include <array>
#include <cstdlib>

#include "charrnn/error.h"

namespace charrnn::cuda {

namespace {

constexpr const char* kFile = "libcudnn.so.9";
static_assert(CUDNN_MAJOR == 9, "kFile, and the functions in the table, are those of cuDNN 9");

constexpr const char* kWithout = "; run.implementation fused works without it";

std::string version_text(std::size_t version) {
  return std::to_string(version / 10000) + "." + std::to_string(version / 100 % 100) + "." +
         std::to_string(version % 100);
}

CudnnLibrary find_cudnn() {
  // cuDNN calls cuBLAS on several streams, which picks another algorithm, and so other bits, where the one of its two
  // kinds of work space happens to be taken. One kind alone repeats itself (release notes of cuDNN 8, known issues).
  setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:2", 0);
  if (dlsym(RTLD_DEFAULT, "cudnnCreate") == nullptr) return open_cudnn(kFile);
  return read_cudnn([](const char* name) { return dlsym(RTLD_DEFAULT, name); });
}

}  // namespace

CudnnLibrary read_cudnn(const std::function<void*(const char*)>& find) {
  CudnnLibrary library;
  CudnnFunctions& f = library.functions;
  const auto resolve = [&](auto& function, const char* name) {
    if (!library.problem.empty()) return;
    function = reinterpret_cast<std::remove_reference_t<decltype(function)> >(find(name));
    if (function != nullptr) return;
    library.problem = std::string("cuDNN: the library has no function ") + name + ", expected one of version 9";
    if (f.cudnnGetVersion != nullptr) library.problem += ", found " + version_text(f.cudnnGetVersion());
    library.problem += kWithout;
  };
#define CHARRNN_RESOLVE(name) resolve(f.name, #name);
  CHARRNN_CUDNN_FUNCTIONS(CHARRNN_RESOLVE)
#undef CHARRNN_RESOLVE
  if (!library.problem.empty()) return library;

  library.version = version_text(f.cudnnGetVersion());
  if (f.cudnnGetVersion() / 10000 != CUDNN_MAJOR) {
    library.problem = "cuDNN: the library is of version " + library.version + ", expected 9" + kWithout;
  }
  return library;
}

CudnnLibrary open_cudnn(const char* file) {
  void* const opened = dlopen(file, RTLD_NOW | RTLD_LOCAL);
  if (opened != nullptr) {
    return read_cudnn([opened](const char* name) { return dlsym(opened, name); });
  }
  const char* const reason = dlerror();
  CudnnLibrary library;
  library.problem = std::string("cuDNN: ") + (reason != nullptr ? reason : file) + kWithout;
  return library;
}

const CudnnLibrary& cudnn_library() {
  static const CudnnLibrary library = find_cudnn();
  return library;
}

void check(cudnnStatus_t status, const char* what) {
  if (status == CUDNN_STATUS_SUCCESS) return;
  const CudnnFunctions& f = cudnn_library().functions;
  std::string message = std::string("cudnn: ") + what + ": " + f.cudnnGetErrorString(status);
  std::array<char, 1024> detail{};
  f.cudnnGetLastErrorString(detail.data(), detail.size());
  if (detail.front() != '\0') message += std::string(" (") + detail.data() + ")";
  throw DeviceError(message);
}

std::string cudnn_status() {
  const CudnnLibrary& library = cudnn_library();
  return library.problem.empty() ? library.version : library.problem;
}

}  // namespace charrnn::cuda

#endif
