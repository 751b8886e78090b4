#!/usr/bin/env python3
"""usage: budget_test.py REPOSITORY

Plants faults in a kernel and asks tools/cuda/budget to find each. Exit code 77: there is no nvcc, nothing was tested.
"""
import re
import subprocess
import sys
import tempfile
from pathlib import Path

KERNEL = """
namespace {
__global__ void scale(float* x, int n) {
  __shared__ float factor[4];
  if (threadIdx.x < 4) factor[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  for (int i = threadIdx.x; i < n; i += blockDim.x) x[i] *= factor[i % 4];
}
template <int kStep>
__global__ void add(float* x, int n) {
  for (int i = threadIdx.x * kStep; i < n; i += blockDim.x) x[i] += 1.0F;
}
}  // namespace
void launch(float* x) {
  scale<<<1, 32>>>(x, 32);
  add<2><<<1, 32>>>(x, 32);
}
"""
# 96 sums that are all alive at once, in a kernel that may have 64 registers.
SPILLING = """
namespace {
__global__ void __launch_bounds__(1024) scale(float* x, int n) {
  float sums[96];
#pragma unroll
  for (int k = 0; k < 96; ++k) sums[k] = x[k * 1024 + threadIdx.x];
  for (int i = 0; i < n; ++i) {
#pragma unroll
    for (int k = 0; k < 96; ++k) sums[k] = sums[k] * sums[(k + 7) % 96] + x[i];
  }
#pragma unroll
  for (int k = 0; k < 96; ++k) x[k * 1024 + threadIdx.x] = sums[k];
}
"""
WITH_STACK = """
namespace {
__global__ void scale(float* x, int n) {
  float copies[16];
  for (int k = 0; k < 16; ++k) copies[k] = 0.0F;
  for (int i = 0; i < n; ++i) copies[static_cast<int>(x[i]) & 15] += x[i];
  x[threadIdx.x] = copies[static_cast<int>(x[n]) & 15];
}
"""
BODY = KERNEL[:KERNEL.index("template")]


def main() -> int:
    root = Path(sys.argv[1])
    failures = []
    with tempfile.TemporaryDirectory() as folder:
        file, budget = Path(folder) / "kernel.cu", Path(folder) / "budget.txt"

        def run(*options: str) -> tuple[int, str]:
            command = [root / "tools/cuda/budget", "--targets", "sm_75,sm_90a", "--budget", budget, *options, file]
            done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
            return done.returncode, done.stdout

        def expect(what: str, kernel: str, code: int, pattern: str):
            file.write_text(kernel)
            got, said = run()
            if got != code or not re.search(pattern, said):
                failures.append(f"{what}: exit code {got}, expected {code} and {pattern!r}, said:\n{said}")

        file.write_text(KERNEL)
        code, said = run("--update")
        if code == 3:
            print(said)
            return 77
        if code != 0:
            print(f"the kernel without a fault does not pass:\n{said}")
            return 1
        written = budget.read_text()
        expect("no fault", KERNEL, 0, "2 kernels, 4 reports, all within the budget")
        expect("a spill", KERNEL.replace(BODY, SPILLING), 1, r"scale on sm_75: \d+ bytes of spilled registers")
        expect("stack", KERNEL.replace(BODY, WITH_STACK), 1, r"scale on sm_90a: 64 bytes of stack, expected at most 0")
        expect("more shared memory", KERNEL.replace("factor[4]", "factor[8]"), 1, "32 bytes of shared.* at most 16")
        expect("a warning", KERNEL.replace("__syncthreads();", "int unused; __syncthreads();"), 1,
               r"does not compile for sm_75:[^$]*unused")
        expect("a kernel that the budget lacks", KERNEL.replace("add<2>", "add<3>"), 1, r"add<3> is not in the budget")
        expect("a kernel that is gone", KERNEL.replace("add<2>", "add<3>"), 1, r"add<2> on sm_90a is in the budget, b")
        registers = re.search(r"^ +(?:- +)*(\d+)", written, re.MULTILINE)[1]
        budget.write_text(re.sub(rf"\b{registers}\b", str(int(registers) - 1), written))
        expect("one register too many", KERNEL, 1, rf"{registers} registers, expected at most {int(registers) - 1}")
        budget.write_text(written.replace("# nvcc ", "# nvcc 1."))
        expect("another nvcc's budget", KERNEL, 0, "registers are not compared")
    for failure in failures:
        print(failure)
    print(f"{len(failures)} of 9 expectations failed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
