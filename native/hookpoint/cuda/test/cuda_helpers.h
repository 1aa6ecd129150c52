// A segment, a simulated GPU with its way into it, and a reader, for the tests of the CUDA part.
#ifndef RING2_CUDA_TEST_HELPERS_H
#define RING2_CUDA_TEST_HELPERS_H

#include <chrono>
#include <cstring>
#include <functional>
#include <thread>
#include <vector>

#include "../../../test/ring_helpers.h"
#include "ring2_cuda.h"
#include "simulated_driver.h"

namespace ring2_cuda_test {

using namespace ring2_test;

struct Seen {
  uint32_t kind, hook;
  int32_t layer;
  int64_t step;
  std::vector<uint8_t> bytes;
  bool attributed;
};

class Gpu {
 public:
  explicit Gpu(uint64_t ring_bytes = 1 << 20, Options options = {4 << 20, 4096}) {
    producer = open_producer(folder, "gpu", options);
    consumer = open_consumer(folder, "gpu");
    stream = ring2_simulation::create_stream();
    cuda = ring2_cuda_open(producer, 0, ring_bytes);
    EXPECT_NE(cuda, nullptr) << ring2_cuda_error();
  }
  ~Gpu() {
    close();
    ring2_simulation::destroy_stream(stream);
    ring2_producer_close(producer);
    ring2_consumer_close(consumer, 0);
  }
  Gpu(const Gpu &) = delete;
  Gpu &operator=(const Gpu &) = delete;

  void close() {
    ring2_cuda_close(cuda);
    cuda = nullptr;
  }

  void step(int64_t number, uint32_t columns) {
    ring2_step_header header = {};
    header.step = number;
    header.row_count = 1;
    header.columns = columns;
    header.layout = RING2_STEP_PACKED;
    const int32_t start = static_cast<int32_t>(number) * 64;
    const ring2_step_row rows = row(1, start, start + static_cast<int32_t>(columns));
    EXPECT_EQ(ring2_write_step(producer, &header, &rows), RING2_OK);
    ring2_cuda_step_written(producer, &header, &rows);
  }

  int capture(const ring2_tensor &facts, const void *data, int64_t step_number) {
    return ring2_cuda_capture(cuda, stream, &facts, data, step_number);
  }

  // Takes what there is now.
  void read() {
    const Drained drained = drain(consumer);
    for (const ring2_slice &slice : drained.slices) {
      const bool attributed = (slice.flags & RING2_SLICE_UNATTRIBUTED) == 0;
      Seen one = {slice.kind, slice.hook, slice.layer, slice.step, {}, attributed};
      if (slice.kind == RING2_KIND_TENSOR) {
        one.bytes.resize(slice.payload_bytes + 1);
        EXPECT_EQ(ring2_gather(consumer, &slice, one.bytes.data()), RING2_OK);
        one.bytes.resize(slice.payload_bytes);
      }
      seen.push_back(std::move(one));
    }
    EXPECT_EQ(ring2_release(consumer, drained.result.next_position), RING2_OK);
  }

  size_t tensors() const { return count(RING2_KIND_TENSOR); }
  size_t count(uint32_t kind) const {
    size_t found = 0;
    for (const Seen &one : seen) found += one.kind == kind;
    return found;
  }
  std::vector<Seen> all(uint32_t kind) const {
    std::vector<Seen> found;
    for (const Seen &one : seen) {
      if (one.kind == kind) found.push_back(one);
    }
    return found;
  }

  // Reads until `enough`; a test that never gets there fails instead of hanging.
  bool read_until(const std::function<bool()> &enough) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (!enough()) {
      if (std::chrono::steady_clock::now() > deadline) return false;
      std::this_thread::sleep_for(std::chrono::microseconds(100));
      read();
    }
    // The kernels have read what they were given: the test may free it.
    ring2_simulation::synchronize(stream);
    return true;
  }

  ring2_cuda_counts counts() const {
    ring2_cuda_counts now;
    ring2_cuda_count(cuda, &now);
    return now;
  }

  Folder folder;
  ring2_producer *producer = nullptr;
  ring2_consumer *consumer = nullptr;
  CUstream stream = nullptr;
  ring2_cuda *cuda = nullptr;
  std::vector<Seen> seen;
};

inline std::vector<uint8_t> noise(size_t bytes, uint32_t seed) {
  std::vector<uint8_t> values(bytes);
  uint32_t state = seed * 2654435761u + 1;
  for (uint8_t &value : values) {
    state = state * 1664525u + 1013904223u;
    value = static_cast<uint8_t>(state >> 24);
  }
  return values;
}

}  // namespace ring2_cuda_test

#endif
