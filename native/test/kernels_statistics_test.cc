// The statistics of whole slices: closed-form values, and what must not change them.
#include <gtest/gtest.h>

#include <numeric>
#include <random>

#include "crc32c.h"
#include "kernels_helpers.h"
#include "ring2_hooks.h"

namespace {

using ring2_test::dense_slice;
using ring2_test::GuardedElements;
using ring2_test::has;
using ring2_test::kInfinity;
using ring2_test::kNaN;

// The tolerance of one statistic on identical input, in nat.
constexpr double kNat = 1e-5;

ring2_slice measured(ring2::ElementType type, uint32_t hook, const std::vector<uint32_t> &dims,
                     const std::vector<double> &values, int32_t token_start = 0) {
  const GuardedElements elements(type, values);
  ring2_slice slice = dense_slice(type, hook, dims);
  slice.token_start = token_start;
  const int status = ring2_measure_memory(elements.data(), elements.bytes(), nullptr, nullptr, &slice);
  EXPECT_EQ(status, RING2_OK) << ring2_last_error();
  return slice;
}

ring2_slice logits_of(const std::vector<double> &values) {
  return measured(ring2::kFloat32, RING2_HOOK_FINAL_LOGITS,
                  {1, static_cast<uint32_t>(values.size())}, values);
}

// [1 head, queries, keys], the last query seeing every key.
ring2_slice pattern_of(const std::vector<double> &values, uint32_t queries, uint32_t keys) {
  return measured(ring2::kFloat32, RING2_HOOK_PATTERN, {1, queries, keys}, values,
                  static_cast<int32_t>(keys - queries));
}

std::vector<double> random_values(size_t count, unsigned seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<double> normal(0, 3);
  std::vector<double> values(count);
  for (double &value : values) value = normal(generator);
  return values;
}

std::vector<double> random_probabilities(size_t count, unsigned seed) {
  std::vector<double> values = random_values(count, seed);
  for (double &value : values) value = std::exp(value);
  const double sum = std::accumulate(values.begin(), values.end(), 0.0);
  for (double &value : values) value /= sum;
  return values;
}

TEST(Moments, GoldenVector) {
  const ring2_slice slice = measured(ring2::kFloat32, RING2_HOOK_RESID_PRE, {1, 4}, {3, -4, 0, 0});
  EXPECT_EQ(slice.stats[RING2_STAT_L2_MEAN], 5);
  EXPECT_EQ(slice.stats[RING2_STAT_L2_MAX], 5);
  EXPECT_EQ(slice.stats[RING2_STAT_RMS_MEAN], 2.5);
  EXPECT_EQ(slice.stats[RING2_STAT_ABS_MAX], 4);
  EXPECT_EQ(slice.stats[RING2_STAT_MEAN], -0.25);
  EXPECT_EQ(slice.stats[RING2_STAT_VARIANCE], 6.1875);
  EXPECT_FALSE(has(slice, RING2_STAT_ENTROPY_MEAN));
}

TEST(Moments, RowsWithNothingFiniteAreSkippedAndGiveNoValue) {
  const ring2_slice slice =
      measured(ring2::kFloat32, RING2_HOOK_RESID_PRE, {2, 2}, {kNaN, kInfinity, -kInfinity, kNaN});
  EXPECT_EQ(slice.skipped_rows, 2u);
  EXPECT_EQ(slice.nan_count, 2u);
  EXPECT_EQ(slice.pos_inf_count, 1u);
  EXPECT_EQ(slice.neg_inf_count, 1u);
  EXPECT_EQ(slice.defined, 0u);
}

TEST(Logits, GoldenVectors) {
  const ring2_slice slice = logits_of({2, 1, 0, -1});
  EXPECT_NEAR(slice.stats[RING2_STAT_LSE_MEAN], 2.440189699, 1e-6);
  EXPECT_NEAR(slice.stats[RING2_STAT_TOP1_PROBABILITY_MEAN], 0.643914260, 1e-6);
  EXPECT_NEAR(slice.stats[RING2_STAT_ENTROPY_MEAN], 0.947536964, 1e-6);
  EXPECT_EQ(slice.stats[RING2_STAT_MARGIN_MEAN], 1);
  EXPECT_EQ(slice.stats[RING2_STAT_LOGIT_MAX_MEAN], 2);
  EXPECT_EQ(slice.top1_id, 0u);
  const ring2_slice halves = logits_of({std::log(0.25), std::log(0.5), std::log(0.25)});
  EXPECT_NEAR(halves.stats[RING2_STAT_ENTROPY_MEAN], 1.039720771, 1e-6);
}

TEST(Logits, UniformRowsReachTheLogarithmOfTheirWidth) {
  for (const size_t width : {2u, 3u, 64u, 4097u, 50000u}) {
    const ring2_slice slice = logits_of(std::vector<double>(width, -7.5));
    const double most = std::log(static_cast<double>(width));
    EXPECT_NEAR(slice.stats[RING2_STAT_ENTROPY_MEAN], most, 2e-6);
    EXPECT_EQ(slice.stats[RING2_STAT_MARGIN_MEAN], 0);
  }
}

TEST(Logits, OneFiniteLogitIsCertain) {
  const ring2_slice slice = logits_of({-kInfinity, 3, -kInfinity});
  EXPECT_EQ(slice.stats[RING2_STAT_ENTROPY_MEAN], 0);
  EXPECT_EQ(slice.stats[RING2_STAT_TOP1_PROBABILITY_MEAN], 1);
  EXPECT_EQ(slice.top1_id, 1u);
  EXPECT_FALSE(has(slice, RING2_STAT_MARGIN_MEAN));
  EXPECT_EQ(slice.neg_inf_count, 2u);
  EXPECT_EQ(slice.invalid_rows, 0u);
}

TEST(Logits, ARowOfMinusInfinityIsSkippedAndOneNaNMakesARowInvalid) {
  const ring2_slice masked = logits_of(std::vector<double>(100, -kInfinity));
  EXPECT_EQ(masked.skipped_rows, 1u);
  EXPECT_EQ(masked.defined, 0u);
  std::vector<double> values = random_values(9000, 3);
  values[8999] = kNaN;
  const ring2_slice bad = logits_of(values);
  EXPECT_EQ(bad.invalid_rows, 1u);
  EXPECT_EQ(bad.nan_count, 1u);
  EXPECT_FALSE(has(bad, RING2_STAT_ENTROPY_MEAN));
  EXPECT_FALSE(has(bad, RING2_STAT_MARGIN_MEAN));
  EXPECT_TRUE(has(bad, RING2_STAT_L2_MEAN));
}

TEST(Logits, AShiftMovesTheSumAndNothingElse) {
  std::vector<double> values = random_values(10000, 4);
  for (double &value : values) value = std::round(value * 64) / 64;
  const ring2_slice before = logits_of(values);
  for (double &value : values) value += 128;
  const ring2_slice after = logits_of(values);
  const auto difference = [&](ring2_stat stat) { return after.stats[stat] - before.stats[stat]; };
  EXPECT_NEAR(difference(RING2_STAT_ENTROPY_MEAN), 0, 1e-6);
  EXPECT_NEAR(difference(RING2_STAT_TOP1_PROBABILITY_MEAN), 0, 1e-6);
  EXPECT_NEAR(difference(RING2_STAT_LSE_MEAN), 128, 1e-5);
  EXPECT_EQ(difference(RING2_STAT_MARGIN_MEAN), 0);
}

TEST(Logits, OrderAndForbiddenTokensDoNotMatter) {
  std::vector<double> values = random_values(9001, 5);
  const ring2_slice before = logits_of(values);
  std::shuffle(values.begin(), values.end(), std::mt19937(6));
  values.insert(values.begin() + 4000, 500, -kInfinity);
  const ring2_slice after = logits_of(values);
  for (const ring2_stat stat : {RING2_STAT_ENTROPY_MEAN, RING2_STAT_LSE_MEAN,
                                RING2_STAT_MARGIN_MEAN, RING2_STAT_TOP1_PROBABILITY_MEAN}) {
    EXPECT_NEAR(after.stats[stat], before.stats[stat], 2e-6);
  }
}

// A row is cut into blocks of 4096: one that spans them must equal the softmax of the whole.
TEST(Logits, BlocksMergeInAnyOrderOfTheirMaxima) {
  for (const double slope : {-1e-2, 0.0, 1e-2, 1.0}) {
    std::vector<double> values = random_values(20001, 7);
    for (size_t i = 0; i < values.size(); ++i) values[i] += slope * static_cast<double>(i);
    const GuardedElements stored(ring2::kFloat32, values);
    const ring2_test::SoftmaxReference expected(stored.values());
    const ring2_slice slice = logits_of(values);
    EXPECT_NEAR(slice.stats[RING2_STAT_ENTROPY_MEAN], expected.entropy, kNat);
    EXPECT_NEAR(slice.stats[RING2_STAT_LSE_MEAN], expected.lse, 1e-5 + 1e-9 * expected.lse);
    EXPECT_LE(slice.stats[RING2_STAT_ENTROPY_MEAN], std::log(20001.0));
  }
}

TEST(Attention, GoldenVector) {
  const std::vector<double> rows = {1,  0,  0,  0, .6, .4, 0,  0,  //
                                    .5, .3, .2, 0, .4, .3, .2, .1};
  const ring2_slice slice = pattern_of(rows, 4, 4);
  const double entropies[] = {0, .673011667, 1.029653015, 1.279854226};
  const double sum = std::accumulate(std::begin(entropies), std::end(entropies), 0.0);
  EXPECT_NEAR(slice.stats[RING2_STAT_ENTROPY_MEAN], sum / 4, 1e-6);
  EXPECT_EQ(slice.stats[RING2_STAT_ENTROPY_MIN], 0);
  EXPECT_NEAR(slice.stats[RING2_STAT_ENTROPY_MAX], entropies[3], 1e-6);
  EXPECT_NEAR(slice.stats[RING2_STAT_ENTROPY_NORMALIZED_MEAN], .943800277, 1e-6);
  EXPECT_NEAR(slice.stats[RING2_STAT_SINK_MASS], .5, 1e-6);
  EXPECT_FALSE(has(slice, RING2_STAT_SINK_SCORE));
}

// From the definition with all keys, key 0 taken out: H' = (H - h_S) / m + ln m.
TEST(Attention, EntropyWithoutTheSinkFollowsItsIdentity) {
  const std::vector<double> p = random_probabilities(40, 8);
  const ring2_slice slice = pattern_of(p, 1, 40);
  double h = 0;
  for (const double value : p) h -= value * std::log(value);
  const double rest = 1 - p[0];
  const double without = (h + p[0] * std::log(p[0])) / rest + std::log(rest);
  EXPECT_NEAR(slice.stats[RING2_STAT_ENTROPY_NO_SINK_MEAN], without / std::log(39.0), kNat);
}

TEST(Attention, ASinkThatLeavesNothingHasNoEntropyWithoutIt) {
  const ring2_slice slice = pattern_of({0.9995, 0.0003, 0.0002}, 1, 3);
  EXPECT_TRUE(has(slice, RING2_STAT_ENTROPY_NORMALIZED_MEAN));
  EXPECT_FALSE(has(slice, RING2_STAT_ENTROPY_NO_SINK_MEAN));
}

TEST(Attention, KeysAfterTheFirstMayChangePlaces) {
  std::vector<double> p = random_probabilities(5000, 9);
  const ring2_slice before = pattern_of(p, 1, 5000);
  std::shuffle(p.begin() + 1, p.end(), std::mt19937(10));
  const ring2_slice after = pattern_of(p, 1, 5000);
  for (const ring2_stat stat : {RING2_STAT_ENTROPY_MEAN, RING2_STAT_ENTROPY_NORMALIZED_MEAN,
                                RING2_STAT_ENTROPY_NO_SINK_MEAN, RING2_STAT_SINK_MASS}) {
    EXPECT_NEAR(after.stats[stat], before.stats[stat], 2e-6);
  }
  EXPECT_LE(before.stats[RING2_STAT_ENTROPY_NORMALIZED_MEAN], 1);
}

TEST(Attention, RowsWithoutMassAreSkipped) {
  const ring2_slice slice = pattern_of({0, 0, 0, .5, .5, 0}, 2, 3);
  EXPECT_EQ(slice.skipped_rows, 1u);
  EXPECT_NEAR(slice.stats[RING2_STAT_ENTROPY_MEAN], std::log(2.0), 1e-6);
}

// 64 queries of two heads; the first looks at key 0 with `share`, the second not.
std::vector<double> two_heads(double share) {
  std::vector<double> values(2 * 64 * 64, 0.0);
  for (size_t query = 0; query < 64; ++query) {
    double *first = &values[query * 64];
    double *second = &values[(64 + query) * 64];
    first[0] += share;
    first[query] += 1 - share;
    second[query] = 1;
  }
  return values;
}

TEST(Attention, TheSinkScoreIsAShareOfHeadsAndNeedsTheFirst64Queries) {
  const auto score = [](const std::vector<double> &values, uint32_t queries, int32_t start) {
    return measured(ring2::kFloat32, RING2_HOOK_PATTERN, {2, queries, 64}, values, start);
  };
  EXPECT_EQ(score(two_heads(0.4), 64, 0).stats[RING2_STAT_SINK_SCORE], 0.5);
  EXPECT_EQ(score(two_heads(0.2), 64, 0).stats[RING2_STAT_SINK_SCORE], 0);
  EXPECT_TRUE(has(score(two_heads(0.2), 64, 0), RING2_STAT_SINK_SCORE));
  EXPECT_FALSE(has(score(two_heads(0.4), 64, 1), RING2_STAT_SINK_SCORE));
  std::vector<double> shorter(2 * 63 * 64, 1.0 / 64);
  EXPECT_FALSE(has(score(shorter, 63, 0), RING2_STAT_SINK_SCORE));
}

TEST(Attention, LeftPaddingOutsideTheSliceIsNotSeen) {
  const std::vector<double> p = random_probabilities(30, 11);
  std::vector<double> batch(4 * 50, kNaN);
  for (size_t key = 0; key < 30; ++key) batch[3 * 50 + 20 + key] = p[key];
  const GuardedElements elements(ring2::kFloat32, batch);
  ring2_slice slice = dense_slice(ring2::kFloat32, RING2_HOOK_PATTERN, {1, 1, 30});
  slice.strides[0] = 200;
  slice.strides[1] = 50;
  slice.token_start = 29;
  const size_t skipped = (3 * 50 + 20) * 4;
  ASSERT_EQ(ring2_measure_memory(elements.data() + skipped, elements.bytes() - skipped, nullptr, nullptr,
                                 &slice),
            RING2_OK);
  const ring2_slice alone = pattern_of(p, 1, 30);
  EXPECT_EQ(slice.nan_count, 0u);
  EXPECT_EQ(slice.stats[RING2_STAT_ENTROPY_MEAN], alone.stats[RING2_STAT_ENTROPY_MEAN]);
}

TEST(Measure, AChecksumOfTheDecodedBytesComesWithTensors) {
  const std::vector<double> values = random_values(5 * 300, 12);
  const GuardedElements elements(ring2::kBfloat16, values);
  for (const uint32_t hook : {RING2_HOOK_RESID_PRE, RING2_HOOK_FINAL_LOGITS, RING2_HOOK_PATTERN}) {
    ring2_slice slice = dense_slice(ring2::kBfloat16, hook, {1, 5, 300});
    slice.action = RING2_ACTION_TENSOR;
    ASSERT_EQ(ring2_measure_memory(elements.data(), elements.bytes(), nullptr, nullptr, &slice), RING2_OK);
    EXPECT_TRUE(slice.flags & RING2_SLICE_HAS_CRC);
    EXPECT_EQ(slice.crc32c, ring2::crc32c(elements.data(), elements.bytes(), 0));
  }
}

TEST(Measure, RefusesWhatItCannotDescribe) {
  const float data[8] = {};
  const auto status = [&](ring2_slice slice) {
    return ring2_measure_memory(data, sizeof data, nullptr, nullptr, &slice);
  };
  const ring2_slice good = dense_slice(ring2::kFloat32, RING2_HOOK_RESID_PRE, {2, 4});
  EXPECT_EQ(status(good), RING2_OK);
  ring2_slice slice = good;
  slice.dims[0] = 3;
  EXPECT_EQ(status(slice), -RING2_E_ARGUMENT);
  slice = good;
  slice.strides[0] = UINT64_MAX / 2;
  EXPECT_EQ(status(slice), -RING2_E_ARGUMENT);
  slice = good;
  slice.strides[1] = 2;
  EXPECT_EQ(status(slice), -RING2_E_ARGUMENT);
  slice = good;
  slice.dtype = 99;
  EXPECT_EQ(status(slice), -RING2_E_ARGUMENT);
  slice = good;
  slice.ndim = 5;
  EXPECT_EQ(status(slice), -RING2_E_ARGUMENT);
  slice = good;
  slice.token_start = -1;
  EXPECT_EQ(status(slice), -RING2_E_ARGUMENT);
  slice = good;
  slice.hook = RING2_HOOK_PATTERN;
  EXPECT_EQ(status(slice), -RING2_E_HOOK);
  EXPECT_NE(std::string(ring2_last_error()).find("heads, queries, keys"), std::string::npos);
}

}  // namespace
