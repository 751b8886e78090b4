# Whether the CUDA backend (src/cuda, libcharrnn_cuda.so) is built, with which nvcc and for which GPUs. Included by the
# root CMakeLists.txt; sets CHARRNN_HAS_CUDA and leaves the language CUDA enabled where that is true.
#   CHARRNN_CUDA                 AUTO: where nvcc is found; ON: an error where it is not; OFF
#   CHARRNN_CUDA_ARCHITECTURES   auto: the GPUs that are present, else sm_90a alone; all: every one that is supported,
#                                for a build that is given away; or a list for CMAKE_CUDA_ARCHITECTURES: "75-real;90a"
set(CHARRNN_CUDA AUTO CACHE STRING "Build the CUDA backend: AUTO (where nvcc is found), ON, OFF")
set_property(CACHE CHARRNN_CUDA PROPERTY STRINGS AUTO ON OFF)
set(CHARRNN_CUDA_ARCHITECTURES auto CACHE STRING
  "GPUs to make machine code for: auto (those present, else 90a), all, or a list as CMAKE_CUDA_ARCHITECTURES takes it")
set(CHARRNN_HAS_CUDA NO)

# charrnn_find_nvcc(): CMAKE_CUDA_COMPILER: what the user says, tools/setup --cuda has installed, or the system has.
function(charrnn_find_nvcc)
  if(CHARRNN_NVCC AND NOT EXISTS "${CHARRNN_NVCC}")
    message(FATAL_ERROR "${CHARRNN_NVCC}, which this folder was configured with, is gone. "
                        "Remove ${CMAKE_BINARY_DIR}, and it is configured anew")
  endif()
  if(NOT CMAKE_CUDA_COMPILER)
    if(DEFINED ENV{CUDACXX})
      set(CHARRNN_NVCC "$ENV{CUDACXX}" CACHE FILEPATH "nvcc")
    endif()
    find_program(CHARRNN_NVCC nvcc PATHS "${PROJECT_SOURCE_DIR}/build/cuda/nvidia/cu13/bin" NO_DEFAULT_PATH)
    find_program(CHARRNN_NVCC nvcc PATHS /usr/local/cuda/bin /opt/cuda/bin)
    if(CHARRNN_NVCC)
      set(CMAKE_CUDA_COMPILER "${CHARRNN_NVCC}" CACHE FILEPATH "nvcc")
    endif()
  endif()
  mark_as_advanced(CHARRNN_NVCC)
endfunction()

# charrnn_nvcc_version(OUT): such as 13.0, or nothing.
function(charrnn_nvcc_version out)
  execute_process(COMMAND "${CMAKE_CUDA_COMPILER}" --version OUTPUT_VARIABLE text ERROR_QUIET)
  set(version "")
  if(text MATCHES "release ([0-9]+\\.[0-9]+)")
    set(version "${CMAKE_MATCH_1}")
  endif()
  set(${out} "${version}" PARENT_SCOPE)
endfunction()

# charrnn_known_targets(OUT): the numbers that this nvcc makes machine code for: 75 80 ...
function(charrnn_known_targets out)
  execute_process(COMMAND "${CMAKE_CUDA_COMPILER}" --list-gpu-code OUTPUT_VARIABLE text ERROR_QUIET)
  string(REGEX MATCHALL "sm_[0-9]+" names "${text}")
  list(TRANSFORM names REPLACE "sm_" "")
  set(${out} "${names}" PARENT_SCOPE)
endfunction()

# charrnn_present_gpus(OUT): the compute capabilities of this machine's GPUs: 75 90 ...
function(charrnn_present_gpus out)
  set(found "")
  find_program(CHARRNN_NVIDIA_SMI nvidia-smi)
  mark_as_advanced(CHARRNN_NVIDIA_SMI)
  if(CHARRNN_NVIDIA_SMI)
    execute_process(COMMAND "${CHARRNN_NVIDIA_SMI}" --query-gpu=compute_cap --format=csv,noheader
      OUTPUT_VARIABLE text RESULT_VARIABLE code ERROR_QUIET TIMEOUT 30)
    if(code EQUAL 0)
      string(REGEX MATCHALL "[0-9]+\\.[0-9]" found "${text}")
      list(TRANSFORM found REPLACE "\\." "")
      list(REMOVE_DUPLICATES found)
    endif()
  endif()
  set(${out} "${found}" PARENT_SCOPE)
endfunction()

# charrnn_cuda_targets(OUT): what CMAKE_CUDA_ARCHITECTURES becomes.
function(charrnn_cuda_targets out)
  charrnn_known_targets(known)
  set(targets "")
  if(CHARRNN_CUDA_ARCHITECTURES STREQUAL "all")
    # 61 and 70 (TITAN Xp, TITAN V) are known to CUDA 12 alone, 100 and 120 from 12.8 on. 90a: the 90 of Hopper with
    # what only Hopper has; there is no other 9.x, so it needs no plain 90.
    foreach(number 61 70 75 80 86 89 90 100 120)
      if(number IN_LIST known)
        string(REGEX REPLACE "^90$" "90a" target ${number})
        list(APPEND targets ${target}-real)
      endif()
    endforeach()
    # For GPUs without machine code here. Machine code runs on later GPUs of the same first digits (8.6 on 8.7, 10.0 on
    # 10.3, 12.0 on 12.1), so those are 11.0 and what is yet to come: the driver compiles PTX for a GPU of its number or
    # above. 90 is the highest plain number below 11.0, and it lets kernels use what 8.0 brought (16-bit matrix
    # instructions, asynchronous copies), which PTX of 75 would not.
    list(APPEND targets 90-virtual)
  elseif(CHARRNN_CUDA_ARCHITECTURES STREQUAL "auto")
    charrnn_present_gpus(gpus)
    foreach(number ${gpus})
      if(number IN_LIST known)
        string(REGEX REPLACE "^90$" "90a" target ${number})
        list(APPEND targets ${target}-real)
      else()
        message(STATUS "CUDA: this nvcc makes no code for the GPU of compute capability ${number} that is present")
      endif()
    endforeach()
    if(NOT targets)
      set(targets 90a-real)
    endif()
  else()
    set(targets "${CHARRNN_CUDA_ARCHITECTURES}")
  endif()
  set(${out} "${targets}" PARENT_SCOPE)
endfunction()

if(NOT CHARRNN_CUDA STREQUAL "AUTO" AND NOT CHARRNN_CUDA STREQUAL "ON" AND NOT CHARRNN_CUDA STREQUAL "OFF")
  message(FATAL_ERROR "CHARRNN_CUDA is ${CHARRNN_CUDA}, expected AUTO, ON or OFF")
endif()
if(NOT CHARRNN_CUDA STREQUAL "OFF")
  set(charrnn_no_cuda "")
  charrnn_find_nvcc()
  if(NOT CMAKE_CUDA_COMPILER)
    set(charrnn_no_cuda "nvcc was not found; tools/setup --cuda installs it, -DCMAKE_CUDA_COMPILER=FILE names it")
  else()
    charrnn_nvcc_version(charrnn_cuda_version)
    if(charrnn_cuda_version STREQUAL "")
      set(charrnn_no_cuda "${CMAKE_CUDA_COMPILER} does not run, or is no nvcc")
    elseif(charrnn_cuda_version VERSION_LESS 12.0)
      set(charrnn_no_cuda "${CMAKE_CUDA_COMPILER} is of CUDA ${charrnn_cuda_version}, expected 12.0 or newer")
    endif()
  endif()
  if(charrnn_no_cuda STREQUAL "")
    set(CHARRNN_HAS_CUDA YES)
  elseif(CHARRNN_CUDA STREQUAL "ON")
    message(FATAL_ERROR "CHARRNN_CUDA=ON, but ${charrnn_no_cuda}")
  else()
    message(STATUS "CUDA: no backend: ${charrnn_no_cuda}")
    unset(CHARRNN_NVCC CACHE)   # searched for anew next time
    unset(CMAKE_CUDA_COMPILER CACHE)
  endif()
endif()

if(CHARRNN_HAS_CUDA)
  charrnn_cuda_targets(CMAKE_CUDA_ARCHITECTURES)
  if(NOT CMAKE_CUDA_HOST_COMPILER)
    set(CMAKE_CUDA_HOST_COMPILER "${CMAKE_CXX_COMPILER}")   # else nvcc takes the first g++ that it finds
  endif()
  enable_language(CUDA)
  # CMake before 3.25.2 does not know that nvcc has C++20.
  foreach(option CMAKE_CUDA20_STANDARD_COMPILE_OPTION CMAKE_CUDA20_EXTENSION_COMPILE_OPTION)
    if(NOT ${option})
      set(${option} "-std=c++20")
    endif()
  endforeach()
  set(CMAKE_CUDA_STANDARD 20)
  set(CMAKE_CUDA_STANDARD_REQUIRED ON)
  set(CMAKE_CUDA_EXTENSIONS OFF)
  find_package(CUDAToolkit REQUIRED)
  message(STATUS "CUDA: nvcc ${CMAKE_CUDA_COMPILER_VERSION} for ${CMAKE_CUDA_ARCHITECTURES}")
endif()
