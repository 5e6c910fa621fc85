# hwnas._cuda: the kernels of csrc/cuda. Optional: without nvcc, hwnas is built without it.
set(HWNAS_CUDA AUTO CACHE STRING "Build the CUDA kernels: AUTO (where nvcc works), ON or OFF")
set_property(CACHE HWNAS_CUDA PROPERTY STRINGS AUTO ON OFF)
if(HWNAS_CUDA STREQUAL "OFF")
  return()
endif()

# Machine code for sm_80 (which runs on 8.6 and 8.9, too) and sm_90, PTX for what comes after them.
if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES 80-real 90)
endif()
include(CheckLanguage)
check_language(CUDA)
if(NOT CMAKE_CUDA_COMPILER)
  if(HWNAS_CUDA STREQUAL "ON")
    message(FATAL_ERROR "HWNAS_CUDA=ON, but there is no working nvcc (set CUDACXX to its path).")
  endif()
  message(STATUS "No nvcc: hwnas is built without CUDA kernels")
  return()
endif()
enable_language(CUDA)
if(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS 11.8)
  message(STATUS "nvcc ${CMAKE_CUDA_COMPILER_VERSION} is older than 11.8: no CUDA kernels")
  return()
endif()

file(GLOB cuda_kernels CONFIGURE_DEPENDS csrc/cuda/*.cu)
add_library(hwnas_cuda STATIC ${cuda_kernels})
target_include_directories(hwnas_cuda PUBLIC csrc)
set_target_properties(hwnas_cuda PROPERTIES
  CUDA_STANDARD 17
  CUDA_STANDARD_REQUIRED ON
  CUDA_EXTENSIONS OFF
  CUDA_VISIBILITY_PRESET hidden
  CUDA_RUNTIME_LIBRARY Static  # no CUDA installation is needed to import the module
  INTERPROCEDURAL_OPTIMIZATION OFF)
target_compile_options(hwnas_cuda PRIVATE $<$<BOOL:${HWNAS_WERROR}>:-Werror=all-warnings>)

file(GLOB cuda_bindings CONFIGURE_DEPENDS csrc/bindings_cuda/*.cpp)
pybind11_add_module(_cuda ${cuda_bindings})
target_compile_options(_cuda PRIVATE ${warnings})
target_link_libraries(_cuda PRIVATE hwnas_cuda)
set_target_properties(_cuda PROPERTIES CUDA_RUNTIME_LIBRARY Static)
install(TARGETS _cuda DESTINATION hwnas)
