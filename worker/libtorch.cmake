# SPDX-License-Identifier: Apache-2.0
# LibTorch from the PyPI wheel as an imported target of our own: the wheel's find_package insists on a CUDA
# toolkit and edits global flags. Only the CPU libraries are linked; CUDA code lives in a shared object of its own.
set(MFT_TORCH_DIR "${MFT_DEPS_DIR}/torch")
if(NOT EXISTS "${MFT_TORCH_DIR}/lib/libtorch_cpu.so")
  message(FATAL_ERROR "No LibTorch in ${MFT_TORCH_DIR}: run deploy/setup, or configure with -DMFT_BUILD_WORKER=OFF")
endif()
add_library(mft_libtorch INTERFACE)
add_library(mft::libtorch ALIAS mft_libtorch)
target_include_directories(mft_libtorch SYSTEM INTERFACE
  "${MFT_TORCH_DIR}/include" "${MFT_TORCH_DIR}/include/torch/csrc/api/include")
target_link_libraries(mft_libtorch INTERFACE
  "${MFT_TORCH_DIR}/lib/libtorch_cpu.so" "${MFT_TORCH_DIR}/lib/libc10.so" Threads::Threads)
# DT_RPATH, not RUNPATH: it is also searched for the libraries that LibTorch itself needs. Relative first, so that
# an installed tree works; then where deploy/setup put it.
target_link_options(mft_libtorch INTERFACE
  "LINKER:--disable-new-dtags" "LINKER:-rpath,$ORIGIN/../lib/mftd/torch/lib" "LINKER:-rpath,${MFT_TORCH_DIR}/lib"
  "LINKER:-rpath-link,${MFT_TORCH_DIR}/lib:${MFT_DEPS_DIR}/nvidia/cu13/lib")
# The wheel's OpenMP runtime, for kernels compiled with -fopenmp: one thread pool in the process, not two.
add_library(mft_openmp INTERFACE)
add_library(mft::openmp ALIAS mft_openmp)
target_compile_options(mft_openmp INTERFACE -fopenmp)
target_link_libraries(mft_openmp INTERFACE "${MFT_TORCH_DIR}/lib/libgomp.so.1")
