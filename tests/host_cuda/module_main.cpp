// usage: host_cuda_module_main LIBRARY FAULT
// Opens the library of test_module.cu, runs it on this thread and on another one, and ends: with code 86 if the library
// was left with findings.
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <thread>

int main(int count, char** arguments) {
  if (count != 3) return 2;
  void* library = dlopen(arguments[1], RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    std::fprintf(stderr, "%s\n", dlerror());
    return 2;
  }
  const auto run = reinterpret_cast<int (*)(int)>(dlsym(library, "run_module"));
  const int fault = std::atoi(arguments[2]);
  int failed = run(fault);
  std::thread([&] { failed += run(fault); }).join();
  return failed == 0 ? 0 : 1;
}
