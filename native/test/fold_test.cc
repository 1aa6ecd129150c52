// Folding into base-2 exponential histograms: exact bounds, scales, exemplars and limits.
#include "fold.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <memory>
#include <random>
#include <vector>

#include "kernels_helpers.h"

namespace {

struct FoldDeleter {
  void operator()(ring2_fold *fold) const { ring2_fold_destroy(fold); }
};
using Fold = std::unique_ptr<ring2_fold, FoldDeleter>;

Fold create() {
  ring2_fold *fold = nullptr;
  EXPECT_EQ(ring2_fold_create(&fold), RING2_OK);
  return Fold(fold);
}

int record(const Fold &fold, const std::vector<double> &values, uint64_t key = 1,
           uint64_t time = 10, int32_t layer = 0) {
  return ring2_fold_record(fold.get(), RING2_SIGNAL_L2_NORM, 0, layer, 0, values.data(),
                           values.size(), key, time);
}

ring2_point only_point(const Fold &fold) {
  ring2_point point = {};
  EXPECT_EQ(ring2_fold_read(fold.get(), &point, 1), 1);
  return point;
}

TEST(FoldBucket, PowersOfTwoAreTheUpperBoundsOfTheirBuckets) {
  for (int32_t scale = ring2::kFoldScaleMin; scale <= ring2::kFoldScaleMax; ++scale) {
    for (int exponent = -60; exponent <= 60; ++exponent) {
      const double value = std::ldexp(1.0, exponent);
      const double above = std::nextafter(value, 2 * value);
      // (base^i, base^(i+1)] with base^(i+1) >= 2^exponent, the least such i.
      const double per_octave = std::ldexp(1.0, scale);
      const int32_t expected = static_cast<int32_t>(std::ceil(exponent * per_octave)) - 1;
      EXPECT_EQ(ring2::fold_bucket(value, scale), expected) << value << " at " << scale;
      const int32_t next = static_cast<int32_t>(std::floor(exponent * per_octave));
      EXPECT_EQ(ring2::fold_bucket(above, scale), next) << above << " at " << scale;
    }
  }
}

TEST(FoldBucket, EveryValueLiesWithinItsBounds) {
  std::mt19937 generator(1);
  std::lognormal_distribution<double> spread(0, 8);
  for (int32_t scale = -4; scale <= 20; ++scale) {
    for (int i = 0; i < 2000; ++i) {
      const double value = spread(generator);
      const int32_t index = ring2::fold_bucket(value, scale);
      const double position = std::ldexp(std::log2(value), scale);
      EXPECT_GT(position, index - 1e-8 * std::ldexp(1.0, std::max(scale, 0)));
      EXPECT_LE(position, index + 1 + 1e-8 * std::ldexp(1.0, std::max(scale, 0)));
    }
  }
}

TEST(FoldBucket, ABucketHoldsTwoBucketsOfTheNextScale) {
  std::mt19937 generator(2);
  std::uniform_real_distribution<double> mantissa(1, 2);
  for (int i = 0; i < 100000; ++i) {
    const double value = mantissa(generator);
    for (int32_t scale = -3; scale < 8; ++scale) {
      EXPECT_EQ(ring2::fold_bucket(value, scale), ring2::fold_bucket(value, scale + 1) >> 1);
    }
  }
}

TEST(Fold, OneValueStaysAtTheFinestScale) {
  const Fold fold = create();
  ASSERT_EQ(record(fold, {3.5, 3.5, 3.5}), RING2_OK);
  const ring2_point point = only_point(fold);
  EXPECT_EQ(point.scale, 20);
  EXPECT_EQ(point.bucket_count, 1u);
  EXPECT_EQ(point.buckets[0], 3u);
  EXPECT_EQ(point.offset, ring2::fold_bucket(3.5, 20));
  EXPECT_EQ(point.count, 3u);
  EXPECT_EQ(point.sum, 10.5);
  EXPECT_EQ(point.min, 3.5);
  EXPECT_EQ(point.max, 3.5);
}

TEST(Fold, WideRangesLowerTheScaleAndLoseNoSample) {
  for (const double deviation : {1e-4, 0.1, 1.0, 5.0, 30.0}) {
    const Fold fold = create();
    std::mt19937 generator(3);
    std::lognormal_distribution<double> spread(1, deviation);
    std::vector<double> all;
    for (int batch = 0; batch < 50; ++batch) {
      std::vector<double> values;
      for (int i = 0; i < 101; ++i) values.push_back(spread(generator));
      ASSERT_EQ(record(fold, values), RING2_OK);
      all.insert(all.end(), values.begin(), values.end());
    }
    const ring2_point point = only_point(fold);
    ASSERT_LE(point.bucket_count, RING2_BUCKETS_MAX);
    std::vector<uint64_t> expected(point.bucket_count);
    uint64_t zeros = 0;
    for (const double value : all) {
      if (value < ring2::kFoldZeroBelow) {
        ++zeros;
      } else {
        const int32_t slot = ring2::fold_bucket(value, point.scale) - point.offset;
        ASSERT_GE(slot, 0);
        ASSERT_LT(slot, static_cast<int32_t>(point.bucket_count));
        ++expected[static_cast<size_t>(slot)];
      }
    }
    EXPECT_EQ(point.zero_count, zeros);
    for (size_t i = 0; i < expected.size(); ++i) EXPECT_EQ(point.buckets[i], expected[i]);
    EXPECT_GT(expected.front(), 0u);
    EXPECT_GT(expected.back(), 0u);
    // No finer scale would have done: it would need more than the most buckets.
    if (point.scale < ring2::kFoldScaleMax) {
      EXPECT_GT(2 * (point.bucket_count + 1), RING2_BUCKETS_MAX);
    }
  }
}

TEST(Fold, TheWholeRangeOfFloat64Fits) {
  const Fold fold = create();
  const double most = std::numeric_limits<double>::max();
  ASSERT_EQ(record(fold, {1e-9, 1, most}), RING2_OK);
  const ring2_point point = only_point(fold);
  EXPECT_EQ(point.max, most);
  uint64_t counted = 0;
  for (uint32_t i = 0; i < point.bucket_count; ++i) counted += point.buckets[i];
  EXPECT_EQ(counted, 3u);
  EXPECT_GE(point.scale, ring2::kFoldScaleMin);
}

TEST(Fold, ZeroAndNoiseAroundItAreZeros) {
  const Fold fold = create();
  ASSERT_EQ(record(fold, {0, -0.0, 1e-12, -1e-9, 1}), RING2_OK);
  const ring2_point point = only_point(fold);
  EXPECT_EQ(point.zero_count, 4u);
  EXPECT_EQ(point.count, 5u);
  EXPECT_EQ(point.min, 0);
  EXPECT_EQ(point.bucket_count, 1u);
}

TEST(Fold, WhatIsNoMeasurementIsRefusedWhole) {
  const Fold fold = create();
  for (const double bad : {ring2_test::kNaN, ring2_test::kInfinity, -ring2_test::kInfinity, -1.0}) {
    EXPECT_EQ(record(fold, {1, 2, bad}), -RING2_E_ARGUMENT);
  }
  EXPECT_EQ(ring2_fold_read(fold.get(), nullptr, 0), 0);
  EXPECT_EQ(ring2_fold_record(fold.get(), RING2_SIGNAL_COUNT, 0, 0, 0, nullptr, 0, 0, 0),
            -RING2_E_ARGUMENT);
  EXPECT_EQ(ring2_fold_read(nullptr, nullptr, 0), -RING2_E_ARGUMENT);
}

TEST(Fold, TheExemplarIsTheLargestSampleSinceTheLastRead) {
  const Fold fold = create();
  ASSERT_EQ(record(fold, {1, 5, 2}, 100, 1), RING2_OK);
  ASSERT_EQ(record(fold, {4}, 200, 2), RING2_OK);
  ASSERT_EQ(record(fold, {9}, 0, 3), RING2_OK);  // no request: no exemplar
  ring2_point point = only_point(fold);
  EXPECT_EQ(point.exemplar_value, 5);
  EXPECT_EQ(point.exemplar_key, 100u);
  EXPECT_EQ(point.exemplar_realtime_ns, 1u);
  EXPECT_EQ(only_point(fold).exemplar_key, 0u);
  ASSERT_EQ(record(fold, {3}, 300, 4), RING2_OK);
  point = only_point(fold);
  EXPECT_EQ(point.exemplar_value, 3);
  EXPECT_EQ(point.exemplar_key, 300u);
  EXPECT_EQ(point.count, 6u);
}

TEST(Fold, ReadingInPartsKeepsTheExemplarsNotRead) {
  const Fold fold = create();
  ASSERT_EQ(record(fold, {1}, 7, 1, 0), RING2_OK);
  ASSERT_EQ(record(fold, {1}, 8, 1, 1), RING2_OK);
  ring2_point points[2];
  EXPECT_EQ(ring2_fold_read(fold.get(), nullptr, 0), 2);
  EXPECT_EQ(ring2_fold_read(fold.get(), points, 1), 2);
  EXPECT_EQ(points[0].exemplar_key, 7u);
  EXPECT_EQ(ring2_fold_read(fold.get(), points, 2), 2);
  EXPECT_EQ(points[0].exemplar_key, 0u);
  EXPECT_EQ(points[1].exemplar_key, 8u);
}

TEST(Fold, SeriesPastTheLimitAreRefusedAndCounted) {
  const Fold fold = create();
  for (uint32_t i = 0; i < ring2::kFoldSeriesMax; ++i) {
    ASSERT_EQ(record(fold, {1}, 1, 1, static_cast<int32_t>(i)), RING2_OK);
  }
  EXPECT_EQ(ring2_fold_counts(fold.get(), nullptr, 0), 0);
  ASSERT_EQ(record(fold, {1, 2, 3}, 1, 1, -1), RING2_OK);
  EXPECT_EQ(ring2_fold_read(fold.get(), nullptr, 0), static_cast<int>(ring2::kFoldSeriesMax));
  ring2_counts counts;
  ASSERT_EQ(ring2_fold_counts(fold.get(), &counts, 1), 1);
  EXPECT_EQ(counts.hook, UINT32_MAX);
  EXPECT_EQ(counts.layer, -1);
  EXPECT_EQ(counts.elements, 3u);
  ASSERT_EQ(record(fold, {1}, 1, 1, 5), RING2_OK);  // a known series goes on
  ASSERT_EQ(ring2_fold_counts(fold.get(), &counts, 1), 1);
  EXPECT_EQ(counts.elements, 3u);
}

TEST(Fold, CountsAddUpForEachHookAndLayer) {
  const Fold fold = create();
  const std::vector<double> values = {1, ring2_test::kNaN, ring2_test::kInfinity, 2};
  const ring2_test::GuardedElements elements(ring2::kFloat32, values);
  for (const int32_t layer : {0, 1, 1}) {
    ring2_slice slice = ring2_test::dense_slice(ring2::kFloat32, 0, {2, 2});
    slice.layer = layer;
    ASSERT_EQ(ring2_measure_memory(elements.data(), elements.bytes(), fold.get(), nullptr, &slice),
              RING2_OK);
  }
  ring2_counts counts[3];
  ASSERT_EQ(ring2_fold_counts(fold.get(), counts, 3), 2);
  EXPECT_EQ(counts[0].layer, 0);
  EXPECT_EQ(counts[0].elements, 4u);
  EXPECT_EQ(counts[1].layer, 1);
  EXPECT_EQ(counts[1].elements, 8u);
  EXPECT_EQ(counts[1].nan, 2u);
  EXPECT_EQ(counts[1].pos_inf, 2u);
}

}  // namespace
