// The stream against the layer before, and branches against the stream: values, and what must not
// be compared.
#include <random>

#include "track_helpers.h"

#include "track.h"
#include "track_state.h"

using namespace ring2_test;

namespace {

using Rows = std::vector<std::vector<double>>;

constexpr double kTolerance = 2e-6;

Rows random_rows(size_t tokens, size_t width, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal(0.2, 2);
  Rows rows(tokens, std::vector<double>(width));
  for (auto &row : rows) {
    for (double &value : row) value = normal(random);
  }
  return rows;
}

ring2_slice residual(Tracked &tracked, int32_t layer, const Rows &rows, Where where = {}) {
  where.layer = layer;
  return tracked.floats(RING2_HOOK_RESID_PRE, where, rows);
}

ring2_slice final_residual(Tracked &tracked, const Rows &rows, const Where &where = {}) {
  return tracked.floats(RING2_HOOK_RESID_FINAL, where, rows);
}

bool compared(const ring2_slice &slice) {
  EXPECT_EQ(has(slice, RING2_STAT_LAYER_COSINE_MEAN), has(slice, RING2_STAT_LAYER_COSINE_MIN));
  EXPECT_EQ(has(slice, RING2_STAT_LAYER_COSINE_MEAN), has(slice, RING2_STAT_LAYER_GROWTH_MEAN));
  return has(slice, RING2_STAT_LAYER_COSINE_MEAN);
}

}  // namespace

TEST(TrackLayers, EachTokenIsComparedWithItselfOneLayerBefore) {
  Tracked tracked;
  EXPECT_FALSE(compared(residual(tracked, 0, {{1, 0}, {0, 2}, {3, 4}})));
  const ring2_slice slice = residual(tracked, 1, {{2, 0}, {2, 0}, {3, 4}});
  EXPECT_NEAR(stat(slice, RING2_STAT_LAYER_COSINE_MEAN), 2.0 / 3, kTolerance);
  EXPECT_NEAR(stat(slice, RING2_STAT_LAYER_COSINE_MIN), 0, kTolerance);
  EXPECT_NEAR(stat(slice, RING2_STAT_LAYER_GROWTH_MEAN), std::cbrt(2.0), kTolerance);
  EXPECT_EQ(tracked.folded(RING2_SIGNAL_LAYER_COSINE_DISTANCE).count, 3u);
  EXPECT_NEAR(tracked.folded(RING2_SIGNAL_LAYER_COSINE_DISTANCE).sum, 1, kTolerance);
  EXPECT_NEAR(tracked.folded(RING2_SIGNAL_LAYER_GROWTH).sum, 4, kTolerance);
}

TEST(TrackLayers, TheFinalStreamFollowsTheLastLayer) {
  Tracked tracked;
  residual(tracked, 0, {{1, 0}});
  residual(tracked, 1, {{1, 0}});
  const ring2_slice slice = final_residual(tracked, {{0, -3}});
  EXPECT_NEAR(stat(slice, RING2_STAT_LAYER_COSINE_MEAN), 0, kTolerance);
  EXPECT_NEAR(stat(slice, RING2_STAT_LAYER_GROWTH_MEAN), 3, kTolerance);
}

TEST(TrackLayers, TheFinalStreamIsNotComparedAcrossAGap) {
  Tracked gap;
  residual(gap, 0, {{1, 0}});
  residual(gap, 4, {{1, 0}});
  EXPECT_FALSE(compared(final_residual(gap, {{0, -3}})));
  Tracked missing;
  for (int32_t layer = 0; layer < 3; ++layer) residual(missing, layer, {{1, 0}});
  Where next;
  next.step = 1;
  residual(missing, 0, {{1, 0}}, next);
  residual(missing, 1, {{1, 0}}, next);
  EXPECT_FALSE(compared(final_residual(missing, {{0, -3}}, next))) << "layer 2 was lost";
}

TEST(TrackLayers, OnlyTheVeryLayerBeforeIsCompared) {
  Tracked tracked;
  const Rows rows = {{1, 2}, {3, 4}};
  residual(tracked, 3, rows);
  EXPECT_FALSE(compared(residual(tracked, 5, rows))) << "a layer is missing";
  EXPECT_FALSE(compared(residual(tracked, 4, rows))) << "out of order";
  EXPECT_TRUE(compared(residual(tracked, 5, rows)));
  EXPECT_FALSE(compared(residual(tracked, 5, rows))) << "the same layer again";
  Where other;
  other.step = 1;
  EXPECT_FALSE(compared(residual(tracked, 6, rows, other))) << "another step";
  EXPECT_FALSE(compared(residual(tracked, 7, {{1, 2}}, other))) << "other tokens";
  EXPECT_FALSE(compared(residual(tracked, 8, {{1, 2, 3}}, other))) << "another width";
  other.token_start = 1;
  EXPECT_FALSE(compared(residual(tracked, 9, {{1, 2, 3}}, other))) << "another position";
  EXPECT_TRUE(compared(residual(tracked, 10, {{1, 2, 3}}, other)));
  EXPECT_EQ(ring2_track_end(tracked.track(), 1), RING2_OK);
  EXPECT_FALSE(compared(residual(tracked, 11, {{1, 2, 3}}, other))) << "the request has ended";
}

TEST(TrackLayers, AnotherDtypeOrRankIsNotCompared) {
  Tracked tracked;
  Where where;
  where.layer = 0;
  tracked.floats(RING2_HOOK_RESID_PRE, where, {{1, 2}}, ring2::kBfloat16);
  EXPECT_FALSE(compared(residual(tracked, 1, {{1, 2}})));
  const float row[] = {1, 2};
  ring2_slice slice = dense_slice(ring2::kFloat32, RING2_HOOK_RESID_PRE, {1, 2});
  slice.request_key = 1;
  slice.token_end = 1;
  slice.layer = 2;
  slice.groups = RING2_GROUPS_ALL;
  slice.tp_rank = 1;
  ASSERT_EQ(ring2_measure_memory(row, sizeof row, nullptr, tracked.track(), &slice), RING2_OK);
  EXPECT_FALSE(compared(slice));
}

TEST(TrackLayers, RequestsOfOneStepAreComparedEachWithItself) {
  Tracked tracked;
  for (int32_t layer = 0; layer < 3; ++layer) {
    for (uint64_t key = 1; key <= 3; ++key) {
      Where where;
      where.key = key;
      const double size = std::pow(double(key), layer);
      const ring2_slice slice = residual(tracked, layer, {{size, size}}, where);
      if (layer == 0) continue;
      EXPECT_NEAR(stat(slice, RING2_STAT_LAYER_GROWTH_MEAN), double(key), kTolerance);
    }
  }
}

TEST(TrackLayers, WhatWasReleasedIsNotReadAgain) {
  Tracked tracked;
  Where where;
  where.position = 10;
  residual(tracked, 0, {{1, 2}}, where);
  where.position = 11;
  ring2::track_set_ring(tracked.track(), nullptr, 0, 10);
  EXPECT_TRUE(compared(residual(tracked, 1, {{1, 2}}, where)));
  ring2::track_set_ring(tracked.track(), nullptr, 0, 12);
  where.position = 12;
  EXPECT_FALSE(compared(residual(tracked, 2, {{1, 2}}, where)));
  EXPECT_TRUE(compared(residual(tracked, 3, {{1, 2}}, where)));
  // A place outside of the ring that is measured now: a track that was given to another consumer.
  const uint8_t ring[64] = {};
  ring2::track_set_ring(tracked.track(), ring, sizeof ring, 0);
  EXPECT_FALSE(compared(residual(tracked, 4, {{1, 2}}, where)));
}

TEST(TrackLayers, RowsWithoutADirectionAreLeftOut) {
  Tracked tracked;
  residual(tracked, 0, {{0, 0}, {1, 0}, {kNaN, 1}, {kInfinity, 1}, {1, 0}, {1e-30, 0}});
  const ring2_slice slice = residual(tracked, 1, {{1, 0}, {0, 0}, {1, 0}, {1, 0}, {0, 5}, {1, 0}});
  EXPECT_NEAR(stat(slice, RING2_STAT_LAYER_COSINE_MEAN), 0, kTolerance);
  EXPECT_NEAR(stat(slice, RING2_STAT_LAYER_GROWTH_MEAN), 5, 1e-5);
  EXPECT_EQ(tracked.folded(RING2_SIGNAL_LAYER_GROWTH).count, 1u);
  Tracked none;
  residual(none, 0, {{0, 0}});
  EXPECT_FALSE(compared(residual(none, 1, {{1, 1}})));
}

TEST(TrackLayers, BranchesAreWeighedAgainstTheStreamBeforeThem) {
  Tracked tracked;
  Where where;
  where.layer = 2;
  const auto contribution = [&](uint32_t hook, const Rows &rows) {
    return stat(tracked.floats(hook, where, rows), RING2_STAT_CONTRIBUTION_MEAN);
  };
  contribution(RING2_HOOK_RESID_PRE, {{3, 4}, {0, 2}, {0, 0}});
  EXPECT_NEAR(contribution(RING2_HOOK_ATTN_OUT, {{0, 1}, {2, 0}, {7, 7}}), 0.6, kTolerance);
  EXPECT_TRUE(std::isnan(contribution(RING2_HOOK_MLP_OUT, {{0, 1}, {2, 0}, {7, 7}})))
      << "resid_mid has not come";
  contribution(RING2_HOOK_RESID_MID, {{0, 1}, {0, 1}, {0, 1}});
  EXPECT_NEAR(contribution(RING2_HOOK_MLP_OUT, {{3, 4}, {0, 0}, {0, 1}}), 2, kTolerance);
  EXPECT_EQ(tracked.folded(RING2_SIGNAL_BRANCH_CONTRIBUTION).count, 5u);
  where.layer = 3;
  EXPECT_TRUE(std::isnan(contribution(RING2_HOOK_ATTN_OUT, {{0, 1}, {2, 0}, {7, 7}})))
      << "resid_pre of another layer";
}

TEST(TrackLayers, LargeAndTinyValuesKeepTheirRatio) {
  for (const double scale : {1e-30, 1e-10, 1e18, 1e30}) {
    Tracked tracked;
    Rows rows = random_rows(5, 300, 3);
    for (auto &row : rows) {
      for (double &value : row) value *= scale;
    }
    residual(tracked, 0, rows);
    for (auto &row : rows) {
      for (double &value : row) value *= 2;
    }
    const ring2_slice slice = residual(tracked, 1, rows);
    if (scale < 1e-20) {
      EXPECT_FALSE(compared(slice)) << "shorter than 1e-12";
      continue;
    }
    EXPECT_NEAR(stat(slice, RING2_STAT_LAYER_COSINE_MEAN), 1, kTolerance);
    EXPECT_NEAR(stat(slice, RING2_STAT_LAYER_GROWTH_MEAN), 2, 1e-5);
  }
}

TEST(TrackLayers, WithoutItsGroupNothingIsCompared) {
  Tracked tracked;
  Where where;
  where.groups = RING2_GROUPS_ALL & ~RING2_GROUP_LAYERS;
  residual(tracked, 0, {{1, 2}}, where);
  EXPECT_FALSE(compared(residual(tracked, 1, {{1, 2}}, where)));
}
