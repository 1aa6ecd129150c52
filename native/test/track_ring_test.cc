// The track behind a real segment: a producer, a consumer that drains, measures and releases.
#include "ring_helpers.h"
#include "track_helpers.h"

#include "track_state.h"

using namespace ring2_test;

namespace {

constexpr int64_t kWidth = 48;
constexpr int32_t kLayers = 3;

struct Ring {
  Folder folder;
  ring2_producer *producer = nullptr;
  ring2_consumer *consumer = nullptr;
  ring2_track *track = nullptr;

  Ring() {
    Options options;
    options.meta_slots = 1024;
    producer = open_producer(folder, "track", options);
    consumer = open_consumer(folder, "track");
    EXPECT_EQ(ring2_track_create(&track), RING2_OK);
  }
  ~Ring() {
    ring2_track_destroy(track);
    ring2_consumer_close(consumer, 0);
    ring2_producer_close(producer);
  }

  // One step: token ids, the stream of every layer, and logits of the last `logit_rows` columns.
  // The tokens of a request are its key, the elements of layer l are (l + 1)^2 with alternating
  // signs, and the logits are 0, 1, 2, 3.
  void write(int64_t step, const std::vector<ring2_step_row> &rows, uint32_t columns,
             uint8_t layout = RING2_STEP_BATCHED) {
    ASSERT_EQ(write_step(producer, step, columns, rows, layout), RING2_OK);
    const bool batched = layout == RING2_STEP_BATCHED;
    const auto batch = static_cast<int64_t>(batched ? rows.size() : 1);
    ids(step, rows, columns, batched);
    for (int32_t layer = 0; layer < kLayers; ++layer) {
      std::vector<float> stream(static_cast<size_t>(batch * columns * kWidth));
      for (size_t at = 0; at < stream.size(); ++at) {
        const auto size = static_cast<float>((layer + 1) * (layer + 1));
        stream[at] = at % kWidth % 2 == 0 ? size : -size;
      }
      write_tensor(RING2_HOOK_RESID_PRE, layer, step, batch, columns, kWidth, batched, stream);
    }
    const int64_t logit_rows = batched ? 1 : static_cast<int64_t>(rows.size());
    std::vector<float> logits(static_cast<size_t>(batch * logit_rows * 4));
    for (size_t at = 0; at < logits.size(); ++at) logits[at] = static_cast<float>(at % 4);
    write_tensor(RING2_HOOK_FINAL_LOGITS, -1, step, batch, logit_rows, 4, batched, logits);
  }

  void ids(int64_t step, const std::vector<ring2_step_row> &rows, uint32_t columns, bool batched) {
    const auto batch = static_cast<int64_t>(batched ? rows.size() : 1);
    std::vector<int64_t> tokens(static_cast<size_t>(batch) * columns);
    for (const ring2_step_row &row : rows) {
      for (int32_t token = row.token_start; token < row.token_end; ++token) {
        const int32_t column = row.row_offset + token - row.token_start;
        const auto first = static_cast<size_t>(batched ? row.index : 0) * columns;
        tokens[first + static_cast<size_t>(column)] = static_cast<int64_t>(row.request_key % 4);
      }
    }
    std::vector<int64_t> dims = {batch, columns};
    if (!batched) dims = {columns};
    const ring2_tensor facts = tensor(RING2_HOOK_TOKEN_IDS, -1, step, dims, RING2_DTYPE_INT64);
    ASSERT_EQ(ring2_write_tensor(producer, &facts, tokens.data()), RING2_OK);
  }

  void write_tensor(uint32_t hook, int32_t layer, int64_t step, int64_t batch, int64_t rows,
                    int64_t width, bool batched, const std::vector<float> &data) {
    std::vector<int64_t> dims = {batch, rows, width};
    if (!batched) dims = {rows, width};
    const ring2_tensor facts = tensor(hook, layer, step, dims);
    ASSERT_EQ(ring2_write_tensor(producer, &facts, data.data()), RING2_OK) << ring2_last_error();
  }

  // Drains and measures everything.
  Drained measured(uint64_t max_bytes = kDrainBytes) {
    Drained drained = drain(consumer, max_bytes);
    for (ring2_slice &slice : drained.slices) slice.action = RING2_ACTION_STATS;
    EXPECT_EQ(ring2_measure(consumer, nullptr, track, drained.slices.data(),
                            drained.slices.size()),
              RING2_OK)
        << ring2_last_error();
    return drained;
  }
};

std::vector<ring2_slice> of_hook(const Drained &drained, uint32_t hook) {
  std::vector<ring2_slice> found;
  for (const ring2_slice &slice : drained.of(RING2_KIND_TENSOR)) {
    if (slice.hook == hook) found.push_back(slice);
  }
  return found;
}

double log_of_four() { return std::log(1 + std::exp(1) + std::exp(2) + std::exp(3)); }

// Two requests that generate a token in every step, left padded: request 2 joined later.
std::vector<ring2_step_row> two_rows(int32_t token) {
  return {row(1, token, token + 1, 0), row(2, token - 3, token - 2, 1)};
}

}  // namespace

TEST(TrackRing, LayersTokensAndLogitsOfABatchAreFollowed) {
  Ring ring;
  ring.write(0, {row(1, 0, 5, 0), row(2, 0, 2, 1, 3)}, 5);
  const Drained prefill = ring.measured();
  for (const ring2_slice &slice : of_hook(prefill, RING2_HOOK_RESID_PRE)) {
    ASSERT_EQ(has(slice, RING2_STAT_LAYER_COSINE_MEAN), slice.layer > 0);
    if (slice.layer == 0) continue;
    const double growth = std::pow(double(slice.layer + 1) / slice.layer, 2);
    EXPECT_NEAR(stat(slice, RING2_STAT_LAYER_COSINE_MEAN), 1, 1e-6);
    EXPECT_NEAR(stat(slice, RING2_STAT_LAYER_GROWTH_MEAN), growth, 1e-5);
  }
  for (int64_t step = 1; step <= 10; ++step) {
    ring.write(step, two_rows(static_cast<int32_t>(step) + 4), 1);
    const Drained drained = ring.measured();
    const std::vector<ring2_slice> ids = of_hook(drained, RING2_HOOK_TOKEN_IDS);
    ASSERT_EQ(ids.size(), 2u);
    for (const ring2_slice &slice : ids) {
      EXPECT_NEAR(stat(slice, RING2_STAT_SURPRISAL_MEAN),
                  log_of_four() - double(slice.request_key), 2e-5);
      EXPECT_EQ(stat(slice, RING2_STAT_TOKENS_TRACKED), double(step));
      EXPECT_EQ(has(slice, RING2_STAT_LOOP_PERIOD), step >= 8);
      EXPECT_EQ(slice.stats[RING2_STAT_LOOP_PERIOD], step >= 8 ? 1 : 0);
    }
    EXPECT_EQ(ring2_track_end(ring.track, 99), RING2_OK);
  }
}

TEST(TrackRing, PackedRequestsAreFollowedToo) {
  Ring ring;
  const auto rows = [](int32_t token) -> std::vector<ring2_step_row> {
    return {row(1, token, token + 1, 0, 0), row(2, token, token + 1, 1, 1),
            row(3, token, token + 1, 2, 2)};
  };
  ring.write(0, rows(7), 3, RING2_STEP_PACKED);
  ring.write(1, rows(8), 3, RING2_STEP_PACKED);
  const Drained drained = ring.measured();
  const std::vector<ring2_slice> ids = of_hook(drained, RING2_HOOK_TOKEN_IDS);
  ASSERT_EQ(ids.size(), 6u);
  for (size_t i = 3; i < 6; ++i) {
    EXPECT_NEAR(stat(ids[i], RING2_STAT_SURPRISAL_MEAN), log_of_four() - double(i - 2), 2e-5);
  }
  for (const ring2_slice &slice : of_hook(drained, RING2_HOOK_RESID_PRE)) {
    EXPECT_EQ(has(slice, RING2_STAT_LAYER_GROWTH_MEAN), slice.layer > 0);
  }
}

TEST(TrackRing, WhatWasReleasedInBetweenGivesNoValue) {
  Ring ring;
  ring.write(0, {row(1, 7, 8)}, 1);
  // The step's record, token ids and the first layer; then the rest.
  const uint64_t step_bytes = sizeof(ring2_step_header) + sizeof(ring2_step_row);
  const Drained part = ring.measured(step_bytes + sizeof(int64_t) + 1);
  ASSERT_EQ(of_hook(part, RING2_HOOK_RESID_PRE).size(), 1u);
  ASSERT_EQ(ring2_release(ring.consumer, part.result.next_position), RING2_OK);
  const Drained rest = ring.measured();
  const std::vector<ring2_slice> stream = of_hook(rest, RING2_HOOK_RESID_PRE);
  ASSERT_EQ(stream.size(), 2u);
  EXPECT_FALSE(has(stream[0], RING2_STAT_LAYER_COSINE_MEAN)) << "layer 0 was released";
  EXPECT_TRUE(has(stream[1], RING2_STAT_LAYER_COSINE_MEAN));
  // The logits wait for their label, and are released before it comes.
  ASSERT_EQ(ring2_release(ring.consumer, rest.result.next_position), RING2_OK);
  ring.write(1, {row(1, 8, 9)}, 1);
  const Drained next = ring.measured();
  EXPECT_FALSE(has(of_hook(next, RING2_HOOK_TOKEN_IDS).at(0), RING2_STAT_SURPRISAL_MEAN));
  ring.write(2, {row(1, 9, 10)}, 1);
  const Drained last = ring.measured();
  EXPECT_TRUE(has(of_hook(last, RING2_HOOK_TOKEN_IDS).at(0), RING2_STAT_SURPRISAL_MEAN));
  EXPECT_EQ(stat(of_hook(last, RING2_HOOK_TOKEN_IDS).at(0), RING2_STAT_TOKENS_TRACKED), 3)
      << "histories need nothing of the ring";
}

TEST(TrackRing, ManyLapsOfTheRingNeverReadWhatIsGone) {
  Ring ring;
  // A megabyte of ring and three of steps: every place is written over again and again.
  for (int64_t step = 0; step < 1500; ++step) {
    ring.write(step, two_rows(static_cast<int32_t>(step) + 10), 1);
    if (step % 7 != 6) continue;
    const Drained drained = ring.measured();
    for (const ring2_slice &slice : of_hook(drained, RING2_HOOK_RESID_PRE)) {
      if (slice.layer == 0) continue;
      ASSERT_NEAR(stat(slice, RING2_STAT_LAYER_COSINE_MEAN), 1, 1e-6);
    }
    ASSERT_EQ(ring2_release(ring.consumer, drained.result.next_position), RING2_OK);
  }
}
