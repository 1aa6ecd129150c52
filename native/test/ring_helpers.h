// Segments in a throw-away directory, and small records, for the ring's tests.
#ifndef RING2_TEST_HELPERS_H
#define RING2_TEST_HELPERS_H

#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "ring2.h"
#include "ring2_hooks.h"

namespace ring2_test {

inline constexpr uint64_t kDrainBytes = uint64_t{1} << 30;

struct Folder {
  std::string path;

  Folder() {
    char name[] = "/dev/shm/ring2-test-XXXXXX";
    path = mkdtemp(name);
  }
  ~Folder() { std::system(("rm -rf " + path).c_str()); }
  Folder(const Folder &) = delete;
  Folder &operator=(const Folder &) = delete;

  std::string file(const char *name) const { return path + "/ring2." + name; }
};

struct Options {
  uint64_t payload_bytes = 1 << 20;
  uint32_t meta_slots = 256;
  uint32_t when_full = RING2_WHEN_FULL_DROP;
  uint32_t block_timeout_us = 0;
};

inline ring2_producer *open_producer(const Folder &folder, const char *name, Options options = {}) {
  ring2_producer_options facts = {folder.path.c_str(),    name,
                                  options.payload_bytes,  options.meta_slots,
                                  options.when_full,      options.block_timeout_us};
  ring2_producer *producer = nullptr;
  EXPECT_EQ(ring2_producer_open(&facts, &producer), RING2_OK) << ring2_last_error();
  return producer;
}

inline ring2_consumer *open_consumer(const Folder &folder, const char *name) {
  ring2_consumer *consumer = nullptr;
  EXPECT_EQ(ring2_consumer_open(folder.file(name).c_str(), &consumer), RING2_OK)
      << ring2_last_error();
  return consumer;
}

inline int write_step(ring2_producer *producer, int64_t step, uint32_t columns,
                      const std::vector<ring2_step_row> &rows,
                      uint8_t layout = RING2_STEP_BATCHED) {
  ring2_step_header header = {};
  header.step = step;
  header.row_count = static_cast<uint32_t>(rows.size());
  header.columns = columns;
  header.layout = layout;
  return ring2_write_step(producer, &header, rows.data());
}

inline ring2_step_row row(uint64_t key, int32_t start, int32_t end, int32_t index = 0,
                          int32_t row_offset = 0, int32_t kv_offset = 0) {
  ring2_step_row facts = {};
  facts.request_key = key;
  facts.token_start = start;
  facts.token_end = end;
  facts.index = index;
  facts.row_offset = row_offset;
  facts.kv_offset = kv_offset;
  facts.phase = start == 0 ? RING2_PHASE_PREFILL : RING2_PHASE_DECODE;
  return facts;
}

inline ring2_tensor tensor(uint32_t hook, int32_t layer, int64_t step, std::vector<int64_t> dims,
                           uint32_t dtype = RING2_DTYPE_FLOAT32) {
  ring2_tensor facts = {};
  facts.hook = hook;
  facts.layer = layer;
  facts.dtype = dtype;
  facts.ndim = static_cast<uint32_t>(dims.size());
  facts.step = step;
  int64_t stride = 1;
  for (size_t axis = dims.size(); axis-- > 0;) {
    facts.dims[axis] = dims[axis];
    facts.strides[axis] = stride;
    stride *= dims[axis];
  }
  return facts;
}

// One request, one token a step: the smallest attributable tensor of `width` floats.
inline int write_token(ring2_producer *producer, int64_t step, const std::vector<float> &values) {
  const int written = write_step(producer, step, 1, {row(1, static_cast<int32_t>(step),
                                                         static_cast<int32_t>(step) + 1)});
  if (written != RING2_OK) return written;
  const ring2_tensor facts =
      tensor(RING2_HOOK_RESID_PRE, 0, step, {1, 1, static_cast<int64_t>(values.size())});
  return ring2_write_tensor(producer, &facts, values.data());
}

struct Drained {
  std::vector<ring2_slice> slices;
  ring2_drain_result result;

  std::vector<ring2_slice> of(uint32_t kind) const {
    std::vector<ring2_slice> found;
    for (const ring2_slice &slice : slices) {
      if (slice.kind == kind) found.push_back(slice);
    }
    return found;
  }
};

inline Drained drain(ring2_consumer *consumer, uint64_t max_bytes = kDrainBytes) {
  Drained drained;
  drained.slices.resize(4 * RING2_STEP_ROWS_MAX);
  EXPECT_EQ(ring2_drain(consumer, drained.slices.data(), drained.slices.size(), max_bytes,
                        &drained.result),
            RING2_OK)
      << ring2_last_error();
  drained.slices.resize(drained.result.slices);
  return drained;
}

inline std::vector<float> floats(ring2_consumer *consumer, const ring2_slice &slice) {
  std::vector<float> values(slice.elements);
  EXPECT_EQ(ring2_gather(consumer, &slice, values.data()), RING2_OK) << ring2_last_error();
  return values;
}

inline uint64_t lost(ring2_consumer *consumer, uint32_t reason) {
  ring2_segment_info info;
  EXPECT_EQ(ring2_consumer_info(consumer, &info), RING2_OK);
  return info.losses[reason].records;
}

}  // namespace ring2_test
#endif
