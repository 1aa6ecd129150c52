// The few device operations that the kernels are made of, over CUDA, or, with RING2_CUDA_SIMULATED, over
// C++ threads, so that the kernels' own source runs under g++ and its sanitizers (test/simulation.h).
//
// The scopes are part of the meaning: "device" orders threads of one GPU, "system" orders the GPU and
// the host. ld.acquire and st.release need sm_70 and PTX 6.0.
#ifndef RING2_CUDA_DEVICE_H
#define RING2_CUDA_DEVICE_H

#ifdef RING2_CUDA_SIMULATED
#include "simulation.h"
#else
#include <stdint.h>

#define RING2_KERNEL extern "C" __global__ void
#define RING2_DEVICE static __device__ __forceinline__
#define RING2_BLOCK_SHARED(Type, name) __shared__ Type name

RING2_DEVICE uint32_t thread_index() { return threadIdx.x; }
RING2_DEVICE uint32_t block_index() { return blockIdx.x; }
RING2_DEVICE uint32_t block_threads() { return blockDim.x; }
RING2_DEVICE uint32_t grid_blocks() { return gridDim.x; }
RING2_DEVICE void block_barrier() { __syncthreads(); }
RING2_DEVICE void system_fence() { __threadfence_system(); }
RING2_DEVICE void back_off() { __nanosleep(64); }

RING2_DEVICE uint64_t load_acquire_system(const uint64_t *word) {
  uint64_t value;
  asm volatile("ld.acquire.sys.global.u64 %0, [%1];" : "=l"(value) : "l"(word) : "memory");
  return value;
}

RING2_DEVICE void store_release_system(uint64_t *word, uint64_t value) {
  asm volatile("st.release.sys.global.u64 [%0], %1;" ::"l"(word), "l"(value) : "memory");
}

RING2_DEVICE void store_relaxed_system(uint64_t *word, uint64_t value) {
  asm volatile("st.relaxed.sys.global.u64 [%0], %1;" ::"l"(word), "l"(value) : "memory");
}

RING2_DEVICE void store_release_device(uint32_t *word, uint32_t value) {
  asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(word), "r"(value) : "memory");
}

RING2_DEVICE uint64_t load_acquire_device(const uint64_t *word) {
  uint64_t value;
  asm volatile("ld.acquire.gpu.global.u64 %0, [%1];" : "=l"(value) : "l"(word) : "memory");
  return value;
}

RING2_DEVICE void store_release_device(uint64_t *word, uint64_t value) {
  asm volatile("st.release.gpu.global.u64 [%0], %1;" ::"l"(word), "l"(value) : "memory");
}

// Acquire and release at device scope: what came before it is visible to whoever counts after.
RING2_DEVICE uint64_t count_device(uint64_t *word) {
  static_assert(sizeof(unsigned long long) == sizeof(uint64_t), "CUDA's own name of 64 bits");
  __threadfence();
  const uint64_t before = atomicAdd(reinterpret_cast<unsigned long long *>(word), 1ull);
  __threadfence();
  return before;
}

RING2_DEVICE bool try_lock_device(uint32_t *word) {
  const bool taken = atomicCAS(word, 0u, 1u) == 0u;
  __threadfence();
  return taken;
}

struct Vector16 {
  uint4 value;
};
#endif

#endif
