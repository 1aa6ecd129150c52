// A track with the tensors of a few steps in memory, for its tests.
#ifndef RING2_TEST_TRACK_HELPERS_H
#define RING2_TEST_TRACK_HELPERS_H

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <deque>
#include <initializer_list>
#include <string>
#include <vector>

#include "kernels_helpers.h"
#include "ring2.h"
#include "ring2_hooks.h"

namespace ring2_test {

// Which request, step and tokens a tensor belongs to.
struct Where {
  uint64_t key = 1;
  int64_t step = 0;
  int32_t token_start = 0;
  uint32_t phase = RING2_PHASE_PREFILL;
  int32_t layer = -1;
  int32_t prompt_tokens = -1;
  uint32_t groups = RING2_GROUPS_ALL;
  uint64_t position = 0;
};

class Tracked {
 public:
  Tracked() {
    EXPECT_EQ(ring2_track_create(&track_), RING2_OK);
    EXPECT_EQ(ring2_fold_create(&fold_), RING2_OK);
  }
  ~Tracked() {
    ring2_track_destroy(track_);
    ring2_fold_destroy(fold_);
  }
  Tracked(const Tracked &) = delete;
  Tracked &operator=(const Tracked &) = delete;

  ring2_track *track() { return track_; }
  ring2_fold *fold() { return fold_; }

  // Rows of floats [tokens, width], kept as long as this object.
  ring2_slice floats(uint32_t hook, const Where &where,
                     const std::vector<std::vector<double>> &rows,
                     ring2::ElementType type = ring2::kFloat32) {
    const auto width = static_cast<uint32_t>(rows.at(0).size());
    std::vector<uint8_t> bytes(rows.size() * width * bytes_of(type));
    uint8_t *at = bytes.data();
    for (const auto &row : rows) {
      for (const double value : row) {
        put(at, type, value);
        at += bytes_of(type);
      }
    }
    ring2_slice slice = dense_slice(type, hook, {static_cast<uint32_t>(rows.size()), width});
    return measure(slice, where, std::move(bytes));
  }

  // Integers [tokens], or [tokens, width] when width is not 0.
  ring2_slice integers(uint32_t hook, const Where &where, const std::vector<int64_t> &values,
                       uint32_t width = 0, uint32_t dtype = RING2_DTYPE_INT64) {
    const auto count = static_cast<uint32_t>(values.size());
    std::vector<uint8_t> bytes;
    for (const int64_t value : values) {
      const auto *from = reinterpret_cast<const uint8_t *>(&value);
      bytes.insert(bytes.end(), from, from + ring2_dtype_bytes(dtype));
    }
    ring2_slice slice = width == 0 ? dense_slice(ring2::kFloat32, hook, {count})
                                   : dense_slice(ring2::kFloat32, hook, {count / width, width});
    slice.dtype = dtype;
    return measure(slice, where, std::move(bytes));
  }

  // Samples of a signal in the fold, of every series.
  ring2_point folded(uint32_t signal) {
    std::vector<ring2_point> points(256);
    const int count = ring2_fold_read(fold_, points.data(), static_cast<uint32_t>(points.size()));
    ring2_point sum = {};
    for (int i = 0; i < count; ++i) {
      const ring2_point &point = points[static_cast<size_t>(i)];
      if (point.signal != signal) continue;
      sum.hook = point.hook;
      sum.phase = point.phase;
      sum.count += point.count;
      sum.sum += point.sum;
    }
    return sum;
  }

 private:
  ring2_slice measure(ring2_slice slice, const Where &where, std::vector<uint8_t> bytes) {
    slice.request_key = where.key;
    slice.step = where.step;
    slice.token_start = where.token_start;
    slice.token_end = where.token_start + static_cast<int32_t>(slice.dims[0]);
    slice.phase = where.phase;
    slice.layer = where.layer;
    slice.prompt_tokens = where.prompt_tokens;
    slice.groups = where.groups;
    slice.position = where.position;
    memory_.push_back(std::move(bytes));
    EXPECT_EQ(ring2_measure_memory(memory_.back().data(), memory_.back().size(), fold_, track_,
                                   &slice),
              RING2_OK)
        << ring2_last_error();
    return slice;
  }

  ring2_track *track_ = nullptr;
  ring2_fold *fold_ = nullptr;
  std::deque<std::vector<uint8_t>> memory_;
};

inline double stat(const ring2_slice &slice, ring2_stat which) {
  return has(slice, which) ? slice.stats[which] : kNaN;
}

inline Where decode(int64_t step, int32_t token, uint64_t key = 1) {
  Where where;
  where.key = key;
  where.step = step;
  where.token_start = token;
  where.phase = RING2_PHASE_DECODE;
  return where;
}

}  // namespace ring2_test
#endif
