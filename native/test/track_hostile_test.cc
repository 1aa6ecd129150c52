// Whatever slices say and whatever lies in the memory, also when it changes between two reads:
// nothing outside of it is read, bounds hold, and every value is a finite number in its range.
#include <memory>
#include <random>

#include "track_helpers.h"

#include "track.h"
#include "track_state.h"

using namespace ring2_test;

namespace {

constexpr size_t kBytes = 16384;

constexpr uint32_t kHooks[] = {RING2_HOOK_TOKEN_IDS,   RING2_HOOK_FINAL_LOGITS,
                               RING2_HOOK_RESID_PRE,   RING2_HOOK_RESID_FINAL,
                               RING2_HOOK_RESID_MID,   RING2_HOOK_ATTN_OUT,
                               RING2_HOOK_MLP_OUT,     RING2_HOOK_ROUTER_LOGITS,
                               RING2_HOOK_TOPK_IDS};

struct Chooser {
  std::mt19937 random{7};

  template <typename T>
  T of(const std::vector<T> &values) {
    return values[random() % values.size()];
  }
  uint32_t below(uint32_t count) { return random() % count; }
};

// The next tensor of the same step.
void go_on(ring2_slice *slice, const ring2_slice &previous) {
  const uint32_t hook = slice->hook;
  const uint32_t groups = slice->groups;
  *slice = previous;
  slice->hook = hook;
  slice->groups = groups;
  if (hook == RING2_HOOK_RESID_PRE && slice->layer < 255) slice->layer += 1;
}

// Fields that mostly fit each other, and sometimes do not.
ring2_slice random_slice(Chooser &choose, const ring2_slice &previous) {
  ring2_slice slice = {};
  slice.kind = RING2_KIND_TENSOR;
  slice.action = RING2_ACTION_STATS;
  slice.hook = kHooks[choose.below(std::size(kHooks))];
  const bool ids = slice.hook == RING2_HOOK_TOKEN_IDS || slice.hook == RING2_HOOK_TOPK_IDS;
  slice.dtype = choose.below(10) == 0 ? 1 + choose.below(10)
                : ids ? choose.of<uint32_t>({RING2_DTYPE_INT64, RING2_DTYPE_INT32,
                                             RING2_DTYPE_INT16, RING2_DTYPE_UINT8})
                      : choose.of<uint32_t>({RING2_DTYPE_FLOAT32, RING2_DTYPE_BFLOAT16});
  slice.ndim = slice.hook == RING2_HOOK_TOKEN_IDS ? 1 : 2;
  if (choose.below(20) == 0) slice.ndim = 1 + choose.below(4);
  const uint32_t dims[] = {choose.of<uint32_t>({1, 1, 2, 3, 40, 70}),
                           choose.of<uint32_t>({1, 2, 5, 16, 33}), choose.below(2) + 1, 1};
  uint64_t stride = 1;
  for (uint32_t axis = slice.ndim; axis-- > 0;) {
    slice.dims[axis] = dims[axis];
    slice.strides[axis] = stride;
    stride *= dims[axis];
  }
  slice.request_key = choose.below(3);
  slice.step = choose.below(4);
  slice.position = choose.below(100);
  slice.layer = choose.of<int32_t>({-1, 0, 1, 2, 255, 256, INT32_MAX, INT32_MIN});
  slice.phase = choose.of<uint32_t>({RING2_PHASE_PREFILL, RING2_PHASE_DECODE, 77});
  slice.token_start = choose.of<int32_t>({0, 1, 2, 5, INT32_MAX - 70, INT32_MAX});
  const int64_t end = int64_t{slice.token_start} + slice.dims[0];
  slice.token_end = end > INT32_MAX || choose.below(20) == 0 ? -5 : static_cast<int32_t>(end);
  slice.prompt_tokens = choose.of<int32_t>({-1, 0, 3, INT32_MAX, INT32_MIN});
  slice.groups = choose.below(4) == 0 ? choose.below(128) : uint32_t{RING2_GROUPS_ALL};
  slice.tp_rank = static_cast<uint16_t>(choose.below(10) == 0);
  if (slice.ndim == previous.ndim && choose.below(4) != 0) go_on(&slice, previous);
  return slice;
}

void expect_in_range(const ring2_slice &slice) {
  for (uint32_t i = 0; i < RING2_STAT_COUNT; ++i) {
    if ((slice.defined >> i & 1) == 0) continue;
    ASSERT_TRUE(std::isfinite(slice.stats[i])) << i;
  }
  const auto between = [&](ring2_stat which, double least, double most) {
    if (!has(slice, which)) return;
    ASSERT_GE(slice.stats[which], least) << which;
    ASSERT_LE(slice.stats[which], most) << which;
  };
  between(RING2_STAT_SURPRISAL_MEAN, 0, HUGE_VAL);
  between(RING2_STAT_REPETITION, 0, 1);
  between(RING2_STAT_LOOP_PERIOD, 0, 64);
  between(RING2_STAT_LAYER_COSINE_MEAN, -1, 1);
  between(RING2_STAT_LAYER_GROWTH_MEAN, 0, HUGE_VAL);
  between(RING2_STAT_CONTRIBUTION_MEAN, 0, HUGE_VAL);
  between(RING2_STAT_TOKEN_COSINE_MEAN, -1, 1);
  between(RING2_STAT_RANK_RESIDUAL, 0, 1);
  between(RING2_STAT_PARTICIPATION_RATIO, 0.99, 64);
}

}  // namespace

TEST(TrackHostile, RandomSlicesOfChangingMemoryStayInTheirBounds) {
  Tracked tracked;
  Chooser choose;
  // Exactly as long as what is read from it may reach: a sanitizer sees one byte more.
  const auto memory = std::make_unique<uint8_t[]>(kBytes);
  uint64_t seen = 0;
  ring2_slice previous = {};
  for (int i = 0; i < 20000; ++i) {
    // Small integers, small floats, or anything.
    const uint32_t kind = choose.below(4);
    for (size_t at = choose.below(64); at < kBytes; at += 1 + choose.below(200)) {
      memory[at] = static_cast<uint8_t>(kind == 0 ? choose.random() : choose.below(64));
    }
    ring2_slice slice = previous = random_slice(choose, previous);
    uint64_t bytes = 1;
    for (uint32_t axis = 0; axis < slice.ndim; ++axis) bytes *= slice.dims[axis];
    bytes *= ring2_dtype_bytes(slice.dtype);
    if (bytes > kBytes) continue;
    // At the end of the memory, so that a read behind the slice is one behind the memory.
    const uint8_t *data = memory.get() + (kBytes - bytes);
    if (choose.below(50) == 0) {
      ring2::track_set_ring(tracked.track(), choose.below(2) == 0 ? nullptr : memory.get(), kBytes,
                            choose.below(100));
    }
    if (choose.below(100) == 0) ring2_track_end(tracked.track(), choose.below(3));
    ASSERT_EQ(ring2_measure_memory(data, bytes, tracked.fold(), tracked.track(), &slice), RING2_OK)
        << ring2_last_error();
    ASSERT_NO_FATAL_FAILURE(expect_in_range(slice));
    seen |= slice.defined;
    ASSERT_LE(tracked.track()->requests.size(), 3u);
  }
  for (uint32_t i = RING2_STAT_SURPRISAL_MEAN; i <= RING2_STAT_PARTICIPATION_RATIO; ++i) {
    EXPECT_TRUE(seen >> i & 1) << "statistic " << i << " never had a value: this tests little";
  }
  for (uint64_t key = 0; key < 3; ++key) ring2_track_end(tracked.track(), key);
  EXPECT_EQ(tracked.track()->history_bytes, 0u);
  EXPECT_EQ(tracked.track()->window_bytes, 0u);
}
