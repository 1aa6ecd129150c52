// Expert loads: the golden vector, whole windows, and ids that are none.
#include "track_helpers.h"

#include "track_state.h"

using namespace ring2_test;

namespace {

Where at_layer(int32_t layer, uint32_t phase = RING2_PHASE_PREFILL) {
  Where where;
  where.layer = layer;
  where.phase = phase;
  return where;
}

// Teaches the number of experts.
void router(Tracked &tracked, int32_t layer, size_t experts) {
  tracked.floats(RING2_HOOK_ROUTER_LOGITS, at_layer(layer),
                 {std::vector<double>(experts, 0.5)});
}

ring2_slice choose(Tracked &tracked, const Where &where, const std::vector<int64_t> &ids,
                   uint32_t width, uint32_t dtype = RING2_DTYPE_INT64) {
  return tracked.integers(RING2_HOOK_TOPK_IDS, where, ids, width, dtype);
}

// Four experts of which each is chosen this often out of every 12.
std::vector<int64_t> choices(int64_t times) {
  std::vector<int64_t> ids;
  for (int64_t i = 0; i < times; ++i) {
    for (const int64_t id : {0, 0, 0, 3, 0, 1, 3, 1, 0, 3, 3, 0}) ids.push_back(id);
  }
  return ids;
}

}  // namespace

TEST(TrackExperts, GoldenVector) {
  const ring2::LoadStatistics load = ring2::load_statistics({6, 2, 0, 4});
  EXPECT_NEAR(load.max_violation, 1, 1e-12);
  EXPECT_NEAR(load.variation, .745355992, 1e-9);
  EXPECT_NEAR(load.entropy, .729573959, 1e-9);
  EXPECT_NEAR(load.dead_share, .25, 1e-12);
  EXPECT_NEAR(ring2::load_statistics({5, 5}).entropy, 1, 1e-12);
  EXPECT_TRUE(std::isnan(ring2::load_statistics({5}).entropy));
}

TEST(TrackExperts, AWindowIsFoldedWhenEveryExpertWasExpectedAThousandTimes) {
  Tracked tracked;
  router(tracked, 5, 4);
  // 4000 choices of 12 make no whole number: the last tokens end the window.
  choose(tracked, at_layer(5), choices(333), 2);
  EXPECT_EQ(tracked.folded(RING2_SIGNAL_EXPERT_MAX_VIOLATION).count, 0u);
  choose(tracked, at_layer(5), {0, 0, 0, 3}, 2);
  for (const uint32_t signal :
       {RING2_SIGNAL_EXPERT_MAX_VIOLATION, RING2_SIGNAL_EXPERT_LOAD_VARIATION,
        RING2_SIGNAL_EXPERT_LOAD_ENTROPY, RING2_SIGNAL_EXPERT_DEAD_SHARE}) {
    EXPECT_EQ(tracked.folded(signal).count, 1u) << signal;
  }
  EXPECT_NEAR(tracked.folded(RING2_SIGNAL_EXPERT_MAX_VIOLATION).sum, 1, 0.01);
  EXPECT_NEAR(tracked.folded(RING2_SIGNAL_EXPERT_LOAD_VARIATION).sum, .745355992, 0.01);
  EXPECT_NEAR(tracked.folded(RING2_SIGNAL_EXPERT_LOAD_ENTROPY).sum, .729573959, 0.01);
  EXPECT_NEAR(tracked.folded(RING2_SIGNAL_EXPERT_DEAD_SHARE).sum, .25, 1e-12);
  // The next one begins at nothing.
  choose(tracked, at_layer(5), choices(333), 2);
  EXPECT_EQ(tracked.folded(RING2_SIGNAL_EXPERT_DEAD_SHARE).count, 1u);
  choose(tracked, at_layer(5), choices(700), 2);
  EXPECT_EQ(tracked.folded(RING2_SIGNAL_EXPERT_DEAD_SHARE).count, 4u) << "several in one slice";
}

TEST(TrackExperts, LayersAndPhasesHaveTheirOwnWindows) {
  Tracked tracked;
  for (const int32_t layer : {0, 1}) {
    router(tracked, layer, 4);
    for (const uint32_t phase : {RING2_PHASE_PREFILL, RING2_PHASE_DECODE}) {
      choose(tracked, at_layer(layer, phase), choices(300), 2);
    }
  }
  EXPECT_EQ(tracked.folded(RING2_SIGNAL_EXPERT_DEAD_SHARE).count, 0u);
  choose(tracked, at_layer(1, RING2_PHASE_DECODE), choices(40), 2);
  EXPECT_EQ(tracked.folded(RING2_SIGNAL_EXPERT_DEAD_SHARE).count, 1u);
  EXPECT_EQ(tracked.folded(RING2_SIGNAL_EXPERT_DEAD_SHARE).phase, uint32_t{RING2_PHASE_DECODE});
}

TEST(TrackExperts, WithoutTheNumberOfExpertsThereIsNoValue) {
  Tracked tracked;
  const ring2_slice slice = choose(tracked, at_layer(0), choices(2000), 2);
  EXPECT_EQ(slice.invalid_rows, 0u);
  EXPECT_EQ(tracked.folded(RING2_SIGNAL_EXPERT_DEAD_SHARE).count, 0u);
  router(tracked, 0, ring2::kExpertsMax + 1);
  choose(tracked, at_layer(0), choices(2000), 2);
  EXPECT_EQ(tracked.folded(RING2_SIGNAL_EXPERT_DEAD_SHARE).count, 0u);
}

TEST(TrackExperts, IdsThatAreNoExpertMakeTheirTokenInvalid) {
  for (const uint32_t dtype : {RING2_DTYPE_INT64, RING2_DTYPE_INT32, RING2_DTYPE_INT16}) {
    Tracked tracked;
    router(tracked, 0, 4);
    const ring2_slice slice =
        choose(tracked, at_layer(0), {0, 4, 1, -1, 2, 3, 0, 32767, -32768, 1}, 2, dtype);
    EXPECT_EQ(slice.invalid_rows, 4u);
    EXPECT_EQ(tracked.track()->experts.layers[0].windows[0].total, 2u);
  }
  Tracked wide;
  router(wide, 0, 4);
  const ring2_slice slice = choose(wide, at_layer(0), {0, INT64_MAX, INT64_MIN, 1}, 2);
  EXPECT_EQ(slice.invalid_rows, 2u);
}

TEST(TrackExperts, OddShapesAndTypesAreLeftAlone) {
  Tracked tracked;
  router(tracked, 0, 4);
  EXPECT_EQ(tracked.floats(RING2_HOOK_TOPK_IDS, at_layer(0), {{0, 1}}).invalid_rows, 0u);
  choose(tracked, at_layer(0), {1, 2, 3}, 0);
  choose(tracked, at_layer(-1), {1, 2}, 2);
  choose(tracked, at_layer(RING2_LAYERS_MAX), {1, 2}, 2);
  choose(tracked, at_layer(0), std::vector<int64_t>(ring2::kChoicesMax + 1, 1),
         ring2::kChoicesMax + 1);
  EXPECT_EQ(tracked.track()->experts.layers[0].windows[0].total, 0u);
}

TEST(TrackExperts, AnotherNumberOfExpertsBeginsANewWindow) {
  Tracked tracked;
  router(tracked, 0, 4);
  choose(tracked, at_layer(0), choices(300), 2);
  router(tracked, 0, 8);
  choose(tracked, at_layer(0), {7, 6}, 2);
  EXPECT_EQ(tracked.track()->experts.layers[0].windows[0].total, 2u);
}
