// The device operations of src/device.h over C++ threads: each thread of a simulated block is a thread, so
// the kernels' own source runs under g++, ASan and TSan. What it shows is our logic; it says nothing of
// how a GPU orders memory.
#ifndef RING2_CUDA_SIMULATION_H
#define RING2_CUDA_SIMULATION_H

#include <stdint.h>

#include <barrier>
#include <thread>

namespace ring2_simulation {

struct Block {
  explicit Block(uint32_t threads) : barrier(threads) {}
  std::barrier<> barrier;
  alignas(16) unsigned char shared[256] = {};
};

struct Thread {
  uint32_t thread = 0, block = 0, threads = 1, blocks = 1;
  Block *in = nullptr;
};

inline thread_local Thread current;

}  // namespace ring2_simulation

#define RING2_KERNEL void
#define RING2_DEVICE static inline
#define RING2_BLOCK_SHARED(Type, name)                                                \
  static_assert(sizeof(Type) <= sizeof(ring2_simulation::Block::shared));             \
  Type &name = *reinterpret_cast<Type *>(ring2_simulation::current.in->shared)

RING2_DEVICE uint32_t thread_index() { return ring2_simulation::current.thread; }
RING2_DEVICE uint32_t block_index() { return ring2_simulation::current.block; }
RING2_DEVICE uint32_t block_threads() { return ring2_simulation::current.threads; }
RING2_DEVICE uint32_t grid_blocks() { return ring2_simulation::current.blocks; }
RING2_DEVICE void block_barrier() { ring2_simulation::current.in->barrier.arrive_and_wait(); }
// The release store that follows orders what comes before it, in C++ as on the GPU.
RING2_DEVICE void system_fence() {}
RING2_DEVICE void back_off() { std::this_thread::yield(); }

RING2_DEVICE uint64_t load_acquire_system(const uint64_t *word) {
  return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}
RING2_DEVICE void store_release_system(uint64_t *word, uint64_t value) {
  __atomic_store_n(word, value, __ATOMIC_RELEASE);
}
RING2_DEVICE void store_relaxed_system(uint64_t *word, uint64_t value) {
  __atomic_store_n(word, value, __ATOMIC_RELAXED);
}
RING2_DEVICE uint64_t load_acquire_device(const uint64_t *word) {
  return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}
RING2_DEVICE void store_release_device(uint32_t *word, uint32_t value) {
  __atomic_store_n(word, value, __ATOMIC_RELEASE);
}
RING2_DEVICE void store_release_device(uint64_t *word, uint64_t value) {
  __atomic_store_n(word, value, __ATOMIC_RELEASE);
}
RING2_DEVICE uint64_t count_device(uint64_t *word) {
  return __atomic_fetch_add(word, 1u, __ATOMIC_ACQ_REL);
}
RING2_DEVICE bool try_lock_device(uint32_t *word) {
  uint32_t expected = 0;
  return __atomic_compare_exchange_n(word, &expected, 1u, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
}

struct Vector16 {
  uint64_t low, high;
};

#endif
