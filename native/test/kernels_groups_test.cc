// The statistics that a slice has only when their group is wanted: closed-form values, and what
// must not change them.
#include <gtest/gtest.h>

#include <random>

#include "kernels/elements.h"
#include "kernels_helpers.h"
#include "ring2_hooks.h"

namespace {

using ring2_test::dense_slice;
using ring2_test::GuardedElements;
using ring2_test::has;
using ring2_test::kInfinity;
using ring2_test::kNaN;

struct Measured {
  uint32_t groups = RING2_GROUPS_ALL;
  uint32_t phase = RING2_PHASE_PREFILL;
  int32_t token_start = 0;
  int32_t prompt_tokens = -1;
  ring2_fold *fold = nullptr;

  ring2_slice operator()(ring2::ElementType type, uint32_t hook, const std::vector<uint32_t> &dims,
                         const std::vector<double> &values) const {
    const GuardedElements elements(type, values);
    ring2_slice slice = dense_slice(type, hook, dims);
    slice.groups = groups;
    slice.phase = phase;
    slice.token_start = token_start;
    slice.prompt_tokens = prompt_tokens;
    slice.request_key = 7;
    EXPECT_EQ(ring2_measure_memory(elements.data(), elements.bytes(), fold, nullptr, &slice),
              RING2_OK)
        << ring2_last_error();
    return slice;
  }
};

constexpr ring2::ElementType kTypes[] = {ring2::kFloat32, ring2::kFloat16, ring2::kBfloat16,
                                         ring2::kFloat64};

TEST(Groups, OneThatIsNotWantedIsNotDefined) {
  Measured none;
  none.groups = 0;
  const std::vector<double> values(64, 0.125);
  const struct {
    uint32_t hook;
    std::vector<uint32_t> dims;
    uint64_t extra;
  } cases[] = {
      {RING2_HOOK_RESID_PRE, {8, 8}, uint64_t{0xff} << RING2_STAT_KURTOSIS_MEAN},
      {RING2_HOOK_PATTERN, {1, 8, 8}, uint64_t{0x1ff} << RING2_STAT_HEAD_ENTROPY_MIN},
      {RING2_HOOK_ROUTER_LOGITS, {8, 8}, uint64_t{1} << RING2_STAT_ROUTER_ENTROPY_MEAN},
      {RING2_HOOK_TOPK_WEIGHTS, {8, 8}, uint64_t{1} << RING2_STAT_EXPERT_ENTROPY_MEAN},
      {RING2_HOOK_K, {8, 2, 4}, uint64_t{7} << RING2_STAT_TOKEN_OUTLIER},
  };
  for (const auto &expected : cases) {
    const uint64_t without = none(ring2::kFloat32, expected.hook, expected.dims, values).defined;
    const uint64_t with = Measured()(ring2::kFloat32, expected.hook, expected.dims, values).defined;
    EXPECT_EQ(without & expected.extra, 0u) << expected.hook;
    EXPECT_NE(with & expected.extra, 0u) << expected.hook;
    EXPECT_EQ(with & ~expected.extra, without) << expected.hook;
  }
}

TEST(Outliers, GoldenVector) {
  const ring2_slice slice =
      Measured()(ring2::kFloat32, RING2_HOOK_RESID_PRE, {1, 4}, {3, -4, 0, 0});
  EXPECT_NEAR(slice.stats[RING2_STAT_KURTOSIS_MEAN], 2.019895929, 1e-6);
  EXPECT_NEAR(slice.stats[RING2_STAT_KURTOSIS_MAX], 2.019895929, 1e-6);
  EXPECT_EQ(slice.stats[RING2_STAT_ZERO_SHARE], 0.5);
  EXPECT_EQ(slice.stats[RING2_STAT_NEAR_ZERO_SHARE], 0.5);
  EXPECT_TRUE(has(slice, RING2_STAT_ABS_MEDIAN));
  EXPECT_EQ(slice.stats[RING2_STAT_ABS_MEDIAN], 0);
  EXPECT_FALSE(has(slice, RING2_STAT_OUTLIER_RATIO));
  EXPECT_FALSE(has(slice, RING2_STAT_L2_NO_FIRST_MEAN));
}

TEST(Outliers, OneSpikeAmongMany) {
  std::mt19937 generator(1);
  std::normal_distribution<double> normal(0, 0.5);
  std::vector<double> values(4096);
  for (double &value : values) value = normal(generator);
  values[1415] = 2000;
  for (const ring2::ElementType type : kTypes) {
    const ring2_slice slice = Measured()(type, RING2_HOOK_RESID_FINAL, {1, 4096}, values);
    EXPECT_NEAR(slice.stats[RING2_STAT_KURTOSIS_MAX], 4092, 1);
    EXPECT_EQ(slice.stats[RING2_STAT_MASSIVE_COUNT], 1);
    EXPECT_NEAR(slice.stats[RING2_STAT_OUTLIER_RATIO], 2000 / 0.337, 150);
  }
}

TEST(Outliers, ThePositionThatIsLeftOutIsTheRequestsFirst) {
  Measured measured;
  const std::vector<double> rows = {30, 40, 3, 4, 6, 8};
  ring2_slice slice = measured(ring2::kFloat32, RING2_HOOK_RESID_MID, {3, 2}, rows);
  EXPECT_EQ(slice.stats[RING2_STAT_L2_NO_FIRST_MEAN], 7.5);
  measured.token_start = 9;
  slice = measured(ring2::kFloat32, RING2_HOOK_RESID_MID, {3, 2}, rows);
  EXPECT_EQ(slice.stats[RING2_STAT_L2_NO_FIRST_MEAN], slice.stats[RING2_STAT_L2_MEAN]);
}

// Every code of the 16-bit types, in any order: the median is the middle one.
TEST(Outliers, TheMedianOfAllCodesIsTheMiddleOne) {
  for (const ring2::ElementType type : {ring2::kFloat16, ring2::kBfloat16}) {
    std::vector<double> values;
    for (uint64_t code = 0; code < ring2::infinity_code(type); ++code) {
      values.push_back(ring2::code_value(type, code) * (code % 3 == 0 ? -1 : 1));
    }
    std::shuffle(values.begin(), values.end(), std::mt19937(2));
    const uint32_t count = static_cast<uint32_t>(values.size());
    const ring2_slice slice = Measured()(type, RING2_HOOK_RESID_PRE, {1, count}, values);
    EXPECT_EQ(slice.stats[RING2_STAT_ABS_MEDIAN], ring2::code_value(type, (count - 1) / 2));
  }
}

TEST(Outliers, CodesGrowWithWhatTheyStandFor) {
  for (const ring2::ElementType type : kTypes) {
    const uint64_t step = type == ring2::kFloat64 ? 0x0001234567890123 : type == 0 ? 65521 : 1;
    for (uint64_t code = 0; code + step < ring2::infinity_code(type); code += step) {
      const double value = ring2::code_value(type, code);
      const double next = ring2::code_value(type, code + 1);
      ASSERT_LT(value, next);
      ASSERT_EQ(ring2::code_at_most(type, value), code);
      if (type != ring2::kFloat64) {
        ASSERT_EQ(ring2::code_at_most(type, (value + next) / 2), code);
      }
      uint8_t element[8] = {};
      ring2_test::put(element, type, -value);
      ASSERT_EQ(ring2::element_code(type, element), code);
      ASSERT_EQ(ring2::element_value(type, element), -value);
    }
    EXPECT_EQ(ring2::code_at_most(type, kInfinity), ring2::infinity_code(type) - 1);
  }
}

TEST(AttentionShape, GoldenVector) {
  const std::vector<double> rows = {1,  0,  0, 0, .6, .4, 0,  0,
                                    .5, .3, .2, 0, .4, .3, .2, .1};
  for (const ring2::ElementType type : {ring2::kFloat32, ring2::kFloat64}) {
    const ring2_slice slice = Measured()(type, RING2_HOOK_PATTERN, {1, 4, 4}, rows);
    EXPECT_NEAR(slice.stats[RING2_STAT_TOP_KEY_MASS], .625, 1e-6);
    EXPECT_NEAR(slice.stats[RING2_STAT_PREVIOUS_TOKEN_MASS], .366666667, 1e-6);
    EXPECT_NEAR(slice.stats[RING2_STAT_SELF_MASS], .425, 1e-6);
    EXPECT_NEAR(slice.stats[RING2_STAT_ROW_SUM_ERROR], 0, 2e-7);
    EXPECT_FALSE(has(slice, RING2_STAT_SINK_MASS_4));
    EXPECT_FALSE(has(slice, RING2_STAT_RECENCY_MASS));
    EXPECT_FALSE(has(slice, RING2_STAT_LOOKBACK_RATIO));
  }
}

// One query at position 5 after a prompt of 4: 0.6 on the prompt, 0.4 on two new keys.
TEST(AttentionShape, LookbackComparesMeansAndNotSums) {
  Measured decode;
  decode.phase = RING2_PHASE_DECODE;
  decode.token_start = 5;
  decode.prompt_tokens = 4;
  const std::vector<double> row = {.3, .1, .1, .1, .15, .25};
  const ring2_slice slice = decode(ring2::kFloat32, RING2_HOOK_PATTERN, {1, 1, 6}, row);
  EXPECT_NEAR(slice.stats[RING2_STAT_LOOKBACK_RATIO], .15 / (.15 + .2), 1e-6);
  EXPECT_NEAR(slice.stats[RING2_STAT_SINK_MASS_4], .6, 1e-6);
  EXPECT_FALSE(has(slice, RING2_STAT_TOP_KEY_MASS));
  decode.prompt_tokens = 6;
  EXPECT_FALSE(has(decode(ring2::kFloat32, RING2_HOOK_PATTERN, {1, 1, 6}, row),
                   RING2_STAT_LOOKBACK_RATIO));
}

TEST(LogitsVarentropy, GoldenVectors) {
  const auto measured = [](const std::vector<double> &row) {
    return Measured()(ring2::kFloat32, RING2_HOOK_FINAL_LOGITS,
                      {1, static_cast<uint32_t>(row.size())}, row);
  };
  const ring2_slice slice = measured({2, 1, 0, -1});
  EXPECT_NEAR(slice.stats[RING2_STAT_VARENTROPY_MEAN], .616586275, 1e-6);
  EXPECT_NEAR(slice.stats[RING2_STAT_MARGIN_PROBABILITY_MEAN], .643914260 * (1 - std::exp(-1)),
              1e-6);
  const ring2_slice halves = measured({std::log(.5), std::log(.25), std::log(.25)});
  EXPECT_NEAR(halves.stats[RING2_STAT_VARENTROPY_MEAN], .120113253, 1e-6);
  EXPECT_EQ(measured(std::vector<double>(5000, 3.5)).stats[RING2_STAT_VARENTROPY_MEAN], 0);
  const ring2_slice one = measured({-kInfinity, 3, -kInfinity});
  EXPECT_EQ(one.stats[RING2_STAT_VARENTROPY_MEAN], 0);
  EXPECT_FALSE(has(one, RING2_STAT_MARGIN_PROBABILITY_MEAN));
}

// The maximum grows from block to block, so that every block is rescaled.
TEST(LogitsVarentropy, RescalingFromBlockToBlockKeepsIt) {
  std::vector<double> row(20000);
  for (size_t i = 0; i < row.size(); ++i) row[i] = static_cast<double>(i) / 2500 + (i % 7);
  const ring2_slice rising = Measured()(ring2::kFloat64, RING2_HOOK_FINAL_LOGITS, {1, 20000}, row);
  const ring2_test::SoftmaxReference softmax(row);
  double expected = 0;
  for (const double logit : row) {
    const double log_p = logit - softmax.lse;
    expected += std::exp(log_p) * (log_p + softmax.entropy) * (log_p + softmax.entropy);
  }
  EXPECT_NEAR(rising.stats[RING2_STAT_VARENTROPY_MEAN], expected, 1e-9);
  const ring2_slice single = Measured()(ring2::kFloat32, RING2_HOOK_FINAL_LOGITS, {1, 20000}, row);
  EXPECT_NEAR(single.stats[RING2_STAT_VARENTROPY_MEAN], expected, 1e-5 * expected);
}

TEST(Router, GoldenVectors) {
  const auto router = [](uint32_t hook, const std::vector<double> &row) {
    return Measured()(ring2::kFloat32, hook, {1, static_cast<uint32_t>(row.size())}, row);
  };
  const double h = 1.039720771 / std::log(3.0);
  EXPECT_NEAR(router(RING2_HOOK_TOPK_WEIGHTS, {1, .5, .5}).stats[RING2_STAT_EXPERT_ENTROPY_MEAN], h,
              1e-6);
  EXPECT_NEAR(router(RING2_HOOK_ROUTER_LOGITS, {std::log(2), 0, 0})
                  .stats[RING2_STAT_ROUTER_ENTROPY_MEAN],
              h, 1e-6);
  EXPECT_EQ(router(RING2_HOOK_TOPK_WEIGHTS, {1, 0}).stats[RING2_STAT_EXPERT_ENTROPY_MEAN], 0);
  EXPECT_FALSE(has(router(RING2_HOOK_TOPK_WEIGHTS, {1}), RING2_STAT_EXPERT_ENTROPY_MEAN));
}

// 8 tokens of one head and two channels: token 0 is small, the last large; channel 1 is 3 times
// channel 0.
TEST(KeyValue, GoldenVector) {
  std::vector<double> values;
  for (const double size : {0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 4.0}) {
    values.push_back(size);
    values.push_back(3 * size);
  }
  Measured measured;
  ring2_slice slice = measured(ring2::kFloat32, RING2_HOOK_K, {8, 1, 2}, values);
  EXPECT_NEAR(slice.stats[RING2_STAT_TOKEN_OUTLIER], 4, 1e-6);
  EXPECT_NEAR(slice.stats[RING2_STAT_CHANNEL_OUTLIER], 3, 1e-6);
  EXPECT_NEAR(slice.stats[RING2_STAT_FIRST_TOKEN_RATIO], .5, 1e-6);
  measured.token_start = 8;
  slice = measured(ring2::kFloat32, RING2_HOOK_K, {8, 1, 2}, values);
  EXPECT_TRUE(has(slice, RING2_STAT_TOKEN_OUTLIER));
  EXPECT_FALSE(has(slice, RING2_STAT_FIRST_TOKEN_RATIO));
}

// How many samples of each signal were folded.
std::vector<uint64_t> samples_of(uint32_t hook, const std::vector<uint32_t> &dims, double value,
                                 uint32_t phase = RING2_PHASE_PREFILL) {
  ring2_fold *fold = nullptr;
  EXPECT_EQ(ring2_fold_create(&fold), RING2_OK);
  uint64_t count = 1;
  for (const uint32_t dim : dims) count *= dim;
  std::vector<double> values(count, value);
  values[0] *= 2;
  Measured measured;
  measured.fold = fold;
  measured.phase = phase;
  measured.token_start = phase == RING2_PHASE_DECODE ? static_cast<int32_t>(dims.back()) - 1 : 0;
  measured.prompt_tokens = 2;
  measured(ring2::kFloat32, hook, dims, values);
  std::vector<ring2_point> points(64);
  const int read = ring2_fold_read(fold, points.data(), 64);
  std::vector<uint64_t> samples(RING2_SIGNAL_COUNT, 0);
  for (int i = 0; i < read; ++i) samples[points[static_cast<size_t>(i)].signal] = points[i].count;
  ring2_fold_destroy(fold);
  return samples;
}

TEST(Groups, EverySignalIsFoldedAsOftenAsItsPopulationHasMembers) {
  const auto outliers = samples_of(RING2_HOOK_RESID_PRE, {3, 10}, 1);
  EXPECT_EQ(outliers[RING2_SIGNAL_KURTOSIS], 1u);  // the other rows are constant
  EXPECT_EQ(outliers[RING2_SIGNAL_OUTLIER_RATIO], 1u);
  EXPECT_EQ(outliers[RING2_SIGNAL_NEAR_ZERO_SHARE], 1u);
  const auto prefill = samples_of(RING2_HOOK_PATTERN, {2, 20, 20}, 0.05);
  EXPECT_EQ(prefill[RING2_SIGNAL_ATTENTION_SELF_MASS], 40u);
  EXPECT_EQ(prefill[RING2_SIGNAL_ATTENTION_PREVIOUS_TOKEN_MASS], 38u);
  EXPECT_EQ(prefill[RING2_SIGNAL_ATTENTION_SINK_MASS_4], 32u);
  EXPECT_EQ(prefill[RING2_SIGNAL_ATTENTION_RECENCY_MASS], 8u);
  EXPECT_EQ(prefill[RING2_SIGNAL_ATTENTION_TOP_KEY_MASS], 2u);
  EXPECT_EQ(prefill[RING2_SIGNAL_ATTENTION_COLLAPSED_HEADS], 1u);
  EXPECT_EQ(prefill[RING2_SIGNAL_ATTENTION_LOOKBACK_RATIO], 0u);
  const auto decode = samples_of(RING2_HOOK_PATTERN, {3, 1, 20}, 0.05, RING2_PHASE_DECODE);
  EXPECT_EQ(decode[RING2_SIGNAL_ATTENTION_LOOKBACK_RATIO], 3u);
  EXPECT_EQ(decode[RING2_SIGNAL_ATTENTION_TOP_KEY_MASS], 0u);
  EXPECT_EQ(samples_of(RING2_HOOK_FINAL_LOGITS, {4, 9}, 1)[RING2_SIGNAL_LOGITS_VARENTROPY], 4u);
  EXPECT_EQ(samples_of(RING2_HOOK_ROUTER_LOGITS, {4, 9}, 1)[RING2_SIGNAL_ROUTER_ENTROPY], 4u);
  EXPECT_EQ(samples_of(RING2_HOOK_TOPK_WEIGHTS, {4, 9}, 1)[RING2_SIGNAL_EXPERT_ENTROPY], 4u);
  const auto keys = samples_of(RING2_HOOK_V, {9, 5, 4}, 1);
  EXPECT_EQ(keys[RING2_SIGNAL_KV_TOKEN_OUTLIER], 5u);
  EXPECT_EQ(keys[RING2_SIGNAL_KV_CHANNEL_OUTLIER], 5u);
  EXPECT_EQ(keys[RING2_SIGNAL_KV_FIRST_TOKEN_RATIO], 5u);
}

TEST(Groups, MassiveActivationsAddUpInTheCounters) {
  ring2_fold *fold = nullptr;
  ASSERT_EQ(ring2_fold_create(&fold), RING2_OK);
  std::vector<double> values(300, 0.01);
  values[4] = values[250] = -300;
  values[5] = kNaN;
  Measured measured;
  measured.fold = fold;
  for (int slice = 0; slice < 3; ++slice) {
    measured(ring2::kBfloat16, RING2_HOOK_RESID_PRE, {3, 100}, values);
  }
  ring2_counts counts[2];
  ASSERT_EQ(ring2_fold_counts(fold, counts, 2), 1);
  EXPECT_EQ(counts[0].massive, 6u);
  EXPECT_EQ(counts[0].nan, 3u);
  ring2_fold_destroy(fold);
}

}  // namespace
