// Surprisal, repetition and loops: golden vectors, labels across steps, and what makes them forget.
#include "track_helpers.h"

#include "track_state.h"

using namespace ring2_test;

namespace {

constexpr double kTolerance = 2e-5;

// Generates tokens one by one from position 5 on; returns the last slice.
ring2_slice generate(Tracked &tracked, const std::vector<int64_t> &tokens, uint64_t key = 1) {
  ring2_slice slice = {};
  for (size_t i = 0; i < tokens.size(); ++i) {
    const auto at = static_cast<int32_t>(i);
    Where where = decode(at + 1, at + 5, key);
    where.prompt_tokens = 5;
    slice = tracked.integers(RING2_HOOK_TOKEN_IDS, where, {tokens[i]});
  }
  return slice;
}

std::vector<int64_t> repeated(const std::vector<int64_t> &period, size_t times) {
  std::vector<int64_t> tokens;
  for (size_t i = 0; i < times; ++i) tokens.insert(tokens.end(), period.begin(), period.end());
  return tokens;
}

std::vector<int64_t> counted(int64_t from, int64_t count) {
  std::vector<int64_t> tokens;
  for (int64_t i = 0; i < count; ++i) tokens.push_back(from + i);
  return tokens;
}

}  // namespace

TEST(TrackSequence, RowsWhoseLabelIsInTheSameStepAreLabelledAtOnce) {
  Tracked tracked;
  Where where;
  tracked.integers(RING2_HOOK_TOKEN_IDS, where, {7, 0, 3});
  // Labels of the rows: 0, 3, and one that is not known yet.
  const ring2_slice logits = tracked.floats(
      RING2_HOOK_FINAL_LOGITS, where, {{2, 1, 0, -1}, {2, 1, 0, -1}, {2, 1, 0, -1}});
  const double lse = 2.440189699;
  EXPECT_NEAR(stat(logits, RING2_STAT_SURPRISAL_MEAN), ((lse - 2) + (lse + 1)) / 2, kTolerance);
  const ring2_point point = tracked.folded(RING2_SIGNAL_TOKEN_SURPRISAL);
  EXPECT_EQ(point.count, 2u);
  EXPECT_EQ(point.hook, uint32_t{RING2_HOOK_FINAL_LOGITS});
}

TEST(TrackSequence, TheLastRowWaitsForTheNextStep) {
  Tracked tracked;
  Where where;
  tracked.integers(RING2_HOOK_TOKEN_IDS, where, {7, 5});
  where.token_start = 1;  // the model computed the last row only
  const ring2_slice logits = tracked.floats(RING2_HOOK_FINAL_LOGITS, where, {{2, 1, 0, -1}});
  EXPECT_FALSE(has(logits, RING2_STAT_SURPRISAL_MEAN));
  const ring2_slice ids = tracked.integers(RING2_HOOK_TOKEN_IDS, decode(1, 2), {1});
  EXPECT_NEAR(stat(ids, RING2_STAT_SURPRISAL_MEAN), 1.440189699, kTolerance);
  const ring2_point point = tracked.folded(RING2_SIGNAL_TOKEN_SURPRISAL);
  EXPECT_EQ(point.count, 1u);
  EXPECT_EQ(point.hook, uint32_t{RING2_HOOK_FINAL_LOGITS});
  EXPECT_EQ(point.phase, uint32_t{RING2_PHASE_DECODE});
  // Used up: the same token once more has no value.
  EXPECT_FALSE(has(tracked.integers(RING2_HOOK_TOKEN_IDS, decode(1, 2), {1}),
                   RING2_STAT_SURPRISAL_MEAN));
}

TEST(TrackSequence, EveryDtypeOfLogitsAndIdsIsRead) {
  for (const ring2::ElementType type :
       {ring2::kFloat32, ring2::kFloat16, ring2::kBfloat16, ring2::kFloat64}) {
    for (const uint32_t dtype : {RING2_DTYPE_INT64, RING2_DTYPE_INT32, RING2_DTYPE_INT16,
                                 RING2_DTYPE_INT8, RING2_DTYPE_UINT8}) {
      Tracked tracked;
      Where where;
      tracked.integers(RING2_HOOK_TOKEN_IDS, where, {0, 2}, 0, dtype);
      const ring2_slice logits = tracked.floats(RING2_HOOK_FINAL_LOGITS, where,
                                                {{2, 1, 0, -1}, {2, 1, 0, -1}}, type);
      EXPECT_NEAR(stat(logits, RING2_STAT_SURPRISAL_MEAN), 2.440189699, kTolerance);
    }
  }
}

TEST(TrackSequence, WhatCannotBeLabelledHasNoValue) {
  Tracked tracked;
  Where where;
  where.token_start = 1;
  const std::vector<double> row = {2, 1, kNaN, -kInfinity};
  const std::vector<double> valid = {2, 1, 0, -kInfinity};
  const auto surprisal_of = [&](const std::vector<double> &logits, int64_t label, int32_t at) {
    tracked.integers(RING2_HOOK_TOKEN_IDS, where, {5});
    tracked.floats(RING2_HOOK_FINAL_LOGITS, where, {logits});
    const ring2_slice ids = tracked.integers(RING2_HOOK_TOKEN_IDS, decode(1, at), {label});
    return has(ids, RING2_STAT_SURPRISAL_MEAN);
  };
  EXPECT_TRUE(surprisal_of(valid, 1, 2));
  EXPECT_FALSE(surprisal_of(row, 1, 2)) << "a NaN in the row";
  EXPECT_FALSE(surprisal_of(valid, 3, 2)) << "a label of probability 0";
  EXPECT_FALSE(surprisal_of(valid, 4, 2)) << "a label outside of the vocabulary";
  EXPECT_FALSE(surprisal_of(valid, -1, 2));
  EXPECT_FALSE(surprisal_of(valid, INT64_MIN, 2));
  EXPECT_FALSE(surprisal_of(valid, INT64_MAX, 2));
  EXPECT_FALSE(surprisal_of(valid, 1, 3)) << "a token was lost in between";
  EXPECT_EQ(tracked.folded(RING2_SIGNAL_TOKEN_SURPRISAL).count, 1u);
}

TEST(TrackSequence, LogitsOfAnotherStepThanTheIdsWaitForTheirOwn) {
  Tracked tracked;
  Where where;
  tracked.integers(RING2_HOOK_TOKEN_IDS, where, {7, 0, 3});
  where.step = 1;
  const ring2_slice logits =
      tracked.floats(RING2_HOOK_FINAL_LOGITS, where, {{2, 1, 0, -1}, {2, 1, 0, -1}});
  EXPECT_FALSE(has(logits, RING2_STAT_SURPRISAL_MEAN));
}

TEST(TrackSequence, RequestsOfOneStepKeepTheirOwnTokens) {
  Tracked tracked;
  for (uint64_t key = 1; key <= 3; ++key) {
    tracked.integers(RING2_HOOK_TOKEN_IDS, decode(1, 9, key), {0});
  }
  for (uint64_t key = 1; key <= 3; ++key) {
    tracked.floats(RING2_HOOK_FINAL_LOGITS, decode(1, 9, key), {{double(key), 1, 0, -1}});
  }
  for (uint64_t key = 1; key <= 3; ++key) {
    const ring2_slice ids = tracked.integers(RING2_HOOK_TOKEN_IDS, decode(2, 10, key), {0});
    const SoftmaxReference softmax({double(key), 1, 0, -1});
    EXPECT_NEAR(stat(ids, RING2_STAT_SURPRISAL_MEAN), softmax.lse - double(key), kTolerance);
  }
}

TEST(TrackSequence, RepetitionIsTheShareOfFoursSeenBefore) {
  Tracked tracked;
  const ring2_slice slice = generate(tracked, {1, 2, 3, 4, 1, 2, 3, 4, 1, 2});
  EXPECT_NEAR(stat(slice, RING2_STAT_REPETITION), 3.0 / 7, 1e-12);
  EXPECT_EQ(stat(slice, RING2_STAT_TOKENS_TRACKED), 10);
  Tracked fresh;
  EXPECT_FALSE(has(generate(fresh, {1, 2, 3}), RING2_STAT_REPETITION));
  EXPECT_EQ(stat(generate(fresh, counted(1, 500), 2), RING2_STAT_REPETITION), 0);
  EXPECT_FALSE(has(generate(fresh, {1, 2, 3}, 3), RING2_STAT_SURPRISAL_MEAN));
}

TEST(TrackSequence, ALoopIsTheSmallestPeriodThatEndsTheSequenceThreeTimes) {
  const auto period_of = [](std::vector<int64_t> start, const std::vector<int64_t> &end) {
    Tracked tracked;
    start.insert(start.end(), end.begin(), end.end());
    return stat(generate(tracked, start), RING2_STAT_LOOP_PERIOD);
  };
  const std::vector<int64_t> start = counted(100, 20);
  EXPECT_EQ(period_of(start, {}), 0);
  EXPECT_EQ(period_of(start, repeated({5}, 7)), 0) << "seven equal tokens are a rule or padding";
  EXPECT_EQ(period_of(start, repeated({5}, 8)), 1);
  EXPECT_EQ(period_of(start, repeated({5, 6}, 3)), 0);
  EXPECT_EQ(period_of(start, repeated({5, 6}, 4)), 2);
  EXPECT_EQ(period_of(start, repeated({5, 6, 7}, 3)), 3);
  EXPECT_EQ(period_of(start, repeated({5, 6, 7}, 2)), 0);
  EXPECT_EQ(period_of(start, repeated(counted(1, 64), 3)), 64);
  EXPECT_EQ(period_of(start, repeated(counted(1, 65), 3)), 0) << "longer than is looked for";
  EXPECT_EQ(period_of(repeated({5, 6, 7}, 3), {8}), 0) << "it has ended";
  EXPECT_EQ(period_of({}, {5, 5, 5, 5, 5, 5, 5, 5}), 1);
  Tracked tracked;
  EXPECT_FALSE(has(generate(tracked, repeated({5}, 7)), RING2_STAT_LOOP_PERIOD));
}

TEST(TrackSequence, PromptsAreNotGenerated) {
  Tracked tracked;
  Where where;
  EXPECT_FALSE(has(tracked.integers(RING2_HOOK_TOKEN_IDS, where, repeated({5}, 40)),
                   RING2_STAT_TOKENS_TRACKED));
  Where first = decode(1, 38);
  first.prompt_tokens = 40;
  const ring2_slice mixed = tracked.integers(RING2_HOOK_TOKEN_IDS, first, {1, 2, 3, 4, 5});
  EXPECT_EQ(stat(mixed, RING2_STAT_TOKENS_TRACKED), 3);
  Where before = decode(2, 10);
  before.prompt_tokens = 40;
  EXPECT_FALSE(has(tracked.integers(RING2_HOOK_TOKEN_IDS, before, {1}), RING2_STAT_TOKENS_TRACKED));
}

TEST(TrackSequence, AGapBeginsANewHistoryAndARankRepeatsNone) {
  Tracked tracked;
  generate(tracked, {1, 2, 3, 4, 5});
  EXPECT_FALSE(has(tracked.integers(RING2_HOOK_TOKEN_IDS, decode(5, 9), {5}),
                   RING2_STAT_TOKENS_TRACKED))
      << "the same step of another rank";
  EXPECT_EQ(stat(tracked.integers(RING2_HOOK_TOKEN_IDS, decode(6, 10), {6}),
                 RING2_STAT_TOKENS_TRACKED),
            6);
  EXPECT_EQ(stat(tracked.integers(RING2_HOOK_TOKEN_IDS, decode(8, 12), {8}),
                 RING2_STAT_TOKENS_TRACKED),
            1);
}

TEST(TrackSequence, EndForgetsARequest) {
  Tracked tracked;
  generate(tracked, {1, 2, 3, 4, 5});
  EXPECT_EQ(ring2_track_end(tracked.track(), 1), RING2_OK);
  EXPECT_EQ(ring2_track_end(tracked.track(), 1), RING2_OK);
  EXPECT_EQ(tracked.track()->history_bytes, 0u);
  EXPECT_EQ(stat(tracked.integers(RING2_HOOK_TOKEN_IDS, decode(6, 10), {6}),
                 RING2_STAT_TOKENS_TRACKED),
            1);
  EXPECT_EQ(ring2_track_end(nullptr, 1), -RING2_E_ARGUMENT);
}

TEST(TrackSequence, OfTooManyRequestsTheLeastRecentlyUsedIsForgotten) {
  Tracked tracked;
  tracked.integers(RING2_HOOK_TOKEN_IDS, decode(0, 5, 1), {7});
  tracked.integers(RING2_HOOK_TOKEN_IDS, decode(0, 5, 2), {7});
  tracked.integers(RING2_HOOK_TOKEN_IDS, decode(1, 6, 1), {7});
  for (uint64_t key = 3; key <= ring2::kTrackRequestsMax + 1; ++key) {
    tracked.integers(RING2_HOOK_TOKEN_IDS, decode(0, 5, key), {7});
  }
  EXPECT_EQ(tracked.track()->requests.size(), ring2::kTrackRequestsMax);
  const auto tokens = [&](uint64_t key) {
    const int32_t next = key == 1 ? 7 : 6;
    return stat(tracked.integers(RING2_HOOK_TOKEN_IDS, decode(2, next, key), {7}),
                RING2_STAT_TOKENS_TRACKED);
  };
  EXPECT_EQ(tokens(1), 3) << "it was used after request 2";
  EXPECT_EQ(tokens(2), 1);
}

TEST(TrackSequence, TooManyDifferentFoursEndRepetitionAndNotLoops) {
  Tracked tracked;
  const auto most = static_cast<int64_t>(ring2::kDistinctGramsMax);
  ring2_slice slice = tracked.integers(RING2_HOOK_TOKEN_IDS, decode(1, 5), counted(0, most + 3));
  EXPECT_EQ(stat(slice, RING2_STAT_REPETITION), 0);
  EXPECT_LE(tracked.track()->history_bytes, ring2::kTrackHistoryBytesMax);
  const auto next = static_cast<int32_t>(5 + most + 3);
  slice = tracked.integers(RING2_HOOK_TOKEN_IDS, decode(2, next), {-1, -1, -1, -1, -1, -1, -1, -1});
  EXPECT_FALSE(has(slice, RING2_STAT_REPETITION));
  EXPECT_EQ(stat(slice, RING2_STAT_LOOP_PERIOD), 1);
  EXPECT_EQ(stat(slice, RING2_STAT_TOKENS_TRACKED), double(most + 11));
  EXPECT_EQ(tracked.track()->history_bytes, 0u);
}

TEST(TrackSequence, HistoriesOfManyRequestsStayInTheirBound) {
  Tracked tracked;
  const std::vector<int64_t> tokens = counted(0, 60000);
  for (uint64_t key = 1; key <= 80; ++key) {
    const ring2_slice slice = tracked.integers(RING2_HOOK_TOKEN_IDS, decode(1, 5, key), tokens);
    EXPECT_EQ(stat(slice, RING2_STAT_REPETITION), 0);
    EXPECT_LE(tracked.track()->history_bytes, ring2::kTrackHistoryBytesMax);
  }
  EXPECT_LT(tracked.track()->requests.size(), 80u);
}

TEST(TrackSequence, WithoutItsGroupNothingIsTracked) {
  Tracked tracked;
  Where where = decode(1, 5);
  where.groups = RING2_GROUPS_ALL & ~RING2_GROUP_SEQUENCE;
  const ring2_slice slice = tracked.integers(RING2_HOOK_TOKEN_IDS, where, {1, 2, 3, 4, 5});
  EXPECT_EQ(slice.defined, 0u);
  EXPECT_TRUE(tracked.track()->requests.empty());
}
