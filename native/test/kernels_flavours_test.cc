// Every instruction set's kernels against plain float64, on odd widths, all types, any alignment,
// with an unreadable page right behind the last element.
#include <gtest/gtest.h>

#include <numeric>
#include <random>

#include "kernels/elements.h"
#include "kernels_helpers.h"
#include "kernels_wide.h"

namespace {

using ring2::AttentionRow;
using ring2::ElementType;
using ring2::Kernels;
using ring2::LogitsBlock;
using ring2::MomentsBlock;
using ring2::RowSquares;
using ring2_test::GuardedElements;
using ring2_test::kInfinity;
using ring2_test::kNaN;

constexpr ElementType kTypes[] = {ring2::kFloat32, ring2::kFloat16, ring2::kBfloat16,
                                  ring2::kFloat64};
constexpr size_t kWidths[] = {1,  2,  3,  7,  8,  15,  16,  17,   31,   32,  33,
                              63, 64, 65, 96, 127, 576, 1023, 4095, 4096};

class Flavour : public testing::TestWithParam<const Kernels *> {
 protected:
  void SetUp() override {
#if defined(__x86_64__)
    const Kernels *needed = GetParam() == &ring2::kWideKernels ? &ring2::kAvx2Kernels : GetParam();
#else
    const Kernels *needed = GetParam();
#endif
    if (!ring2::machine_runs(*needed)) {
      GTEST_SKIP() << "this machine cannot run " << needed->name;
    }
  }
};

std::vector<double> normal_values(size_t count, double mean, double deviation) {
  std::mt19937 generator(static_cast<unsigned>(count));
  std::normal_distribution<double> normal(mean, deviation);
  std::vector<double> values(count);
  for (double &value : values) value = normal(generator);
  return values;
}

std::vector<double> probabilities(size_t count) {
  std::vector<double> values = normal_values(count, 0, 2);
  double sum = 0;
  for (double &value : values) sum += value = std::exp(value);
  for (double &value : values) value /= sum;
  return values;
}

void expect_moments(const MomentsBlock &block, const std::vector<double> &values) {
  double sum = 0, magnitude = 0, abs_max = 0, centred = 0;
  for (const double value : values) {
    sum += value;
    magnitude += std::fabs(value);
    abs_max = std::max(abs_max, std::fabs(value));
  }
  const double mean = sum / static_cast<double>(values.size());
  for (const double value : values) centred += (value - mean) * (value - mean);
  EXPECT_EQ(block.used, values.size());
  EXPECT_EQ(block.nan + block.pos_inf + block.neg_inf, 0u);
  EXPECT_NEAR(block.sum, sum, 1e-6 * magnitude);
  EXPECT_EQ(block.abs_max, abs_max);
  EXPECT_NEAR(block.centred, centred, 1e-5 * centred + 1e-12 * magnitude * magnitude);
}

double squares_of(const std::vector<double> &values, size_t from, size_t count) {
  double squares = 0;
  for (size_t i = from; i < from + count; ++i) squares += values[i] * values[i];
  return squares;
}

TEST_P(Flavour, MomentsOfRowsEqualFloat64) {
  for (const ElementType type : kTypes) {
    for (const size_t width : kWidths) {
      const size_t rows = std::min<size_t>(ring2::kBlockElements / width, 5);
      for (const double mean : {0.0, 1.0, 50.0}) {
        SCOPED_TRACE(testing::Message()
                     << ring2_test::name_of(type) << " " << rows << " x " << width);
        const GuardedElements elements(type, normal_values(rows * width, mean, 1.5));
        MomentsBlock block;
        RowSquares squares;
        const size_t row_bytes = width * ring2_test::bytes_of(type);
        GetParam()->moments[type](elements.data(), {row_bytes, rows, width}, -kInfinity, &block,
                                  &squares);
        const std::vector<double> values = elements.values();
        expect_moments(block, values);
        for (size_t row = 0; row < rows; ++row) {
          const double expected = squares_of(values, row * width, width);
          EXPECT_NEAR(squares.of_row[row], expected, 2e-6 * expected);
        }
      }
    }
  }
}

TEST_P(Flavour, LogitsEqualFloat64) {
  for (const ElementType type : kTypes) {
    for (const size_t width : kWidths) {
      for (const double spread : {0.01, 3.0, 15.0}) {
        SCOPED_TRACE(testing::Message() << ring2_test::name_of(type) << " " << width);
        const GuardedElements elements(type, normal_values(width, 5, spread));
        const std::vector<double> values = elements.values();
        LogitsBlock block;
        GetParam()->logits[type](elements.data(), width, -kInfinity, &block);
        const ring2_test::SoftmaxReference expected(values);
        EXPECT_EQ(block.maximum, expected.maximum);
        EXPECT_NEAR(block.maximum + std::log(block.weight), expected.lse, 2e-6);
        const double entropy = std::log(block.weight) - block.weighted / block.weight;
        EXPECT_NEAR(entropy, expected.entropy, 2e-6);
        double squared = 0;
        for (const double value : values) {
          const double t = value - expected.maximum;
          squared += t * t * std::exp(t);
        }
        EXPECT_NEAR(block.squared, squared, 3e-6 * squared);
        const auto top = std::max_element(values.begin(), values.end());
        EXPECT_EQ(block.top_index, static_cast<uint32_t>(top - values.begin()));
        std::vector<double> sorted = values;
        std::sort(sorted.rbegin(), sorted.rend());
        EXPECT_EQ(block.second, width > 1 ? sorted[1] : -kInfinity);
        expect_moments(block.moments, values);
      }
    }
  }
}

TEST_P(Flavour, AttentionRowsEqualFloat64) {
  for (const ElementType type : kTypes) {
    for (const size_t visible : kWidths) {
      for (const size_t hidden : {0u, 1u, 40u}) {
        SCOPED_TRACE(testing::Message() << ring2_test::name_of(type) << " " << visible);
        std::vector<double> row = probabilities(visible);
        row.resize(visible + hidden, 0.0);
        const GuardedElements elements(type, row);
        const std::vector<double> values = elements.values();
        AttentionRow sums;
        GetParam()->attention[type](elements.data(), visible + hidden, visible, &sums);
        double rest = 0, p_log_p = 0;
        for (size_t key = 1; key < visible; ++key) {
          rest += values[key];
          if (values[key] > 0) p_log_p += values[key] * std::log(values[key]);
        }
        EXPECT_EQ(sums.first, values[0]);
        EXPECT_NEAR(sums.rest, rest, 5e-7);
        EXPECT_NEAR(sums.rest_p_log_p, p_log_p, 4e-6);
        EXPECT_EQ(sums.nan + sums.pos_inf + sums.neg_inf + sums.negative, 0u);
      }
    }
  }
}

TEST_P(Flavour, PlacesAndColumnsOfAttentionEqualFloat64) {
  for (const ElementType type : kTypes) {
    for (const size_t keys : kWidths) {
      SCOPED_TRACE(testing::Message() << ring2_test::name_of(type) << " " << keys);
      const GuardedElements elements(type, probabilities(keys));
      const std::vector<double> values = elements.values();
      const auto sum = [&](size_t from, size_t to) {
        return std::accumulate(values.begin() + static_cast<ptrdiff_t>(from),
                               values.begin() + static_cast<ptrdiff_t>(to), 0.0);
      };
      ring2::AttentionPlaces places;
      GetParam()->attention_places[type](elements.data(), keys - 1, &places);
      EXPECT_NEAR(places.first_four, sum(0, std::min<size_t>(keys, 4)), 2e-7);
      EXPECT_NEAR(places.recent, sum(keys - std::min<size_t>(keys, 16), keys), 2e-7);
      EXPECT_EQ(places.self, values.back());
      EXPECT_EQ(places.previous, keys > 1 ? values[keys - 2] : 0);
      EXPECT_NEAR(GetParam()->sum[type](elements.data(), keys), sum(0, keys), 5e-7);
      for (const size_t count : {keys, keys - keys / 3, size_t{1}}) {
        std::vector<float> columns((keys + ring2::kColumnsStep - 1) / ring2::kColumnsStep *
                                       ring2::kColumnsStep,
                                   0.5f);
        GetParam()->add_columns[type](elements.data(), keys, count, columns.data());
        for (size_t key = 0; key < columns.size(); ++key) {
          EXPECT_NEAR(columns[key], 0.5 + (key < count ? values[key] : 0), 1e-7);
        }
      }
    }
  }
}

TEST_P(Flavour, CentralMomentsAndSquaresOfColumnsEqualFloat64) {
  for (const ElementType type : kTypes) {
    for (const size_t width : kWidths) {
      SCOPED_TRACE(testing::Message() << ring2_test::name_of(type) << " " << width);
      const GuardedElements elements(type, normal_values(width, 30, 10));
      const std::vector<double> values = elements.values();
      ring2::CentralMoments moments;
      GetParam()->central[type](elements.data(), width, 0.03125, 0.9375, &moments);
      double second = 0, fourth = 0;
      for (const double value : values) {
        const double square = std::pow(value * 0.03125 - 0.9375, 2);
        second += square;
        fourth += square * square;
      }
      EXPECT_NEAR(moments.second, second, 3e-6 * second);
      EXPECT_NEAR(moments.fourth, fourth, 5e-6 * fourth);
      std::vector<float> columns(width, 1.0f);
      GetParam()->add_squares[type](elements.data(), width, columns.data());
      for (size_t i = 0; i < width; ++i) {
        EXPECT_NEAR(columns[i], 1 + values[i] * values[i], 2e-7 * (1 + values[i] * values[i]));
      }
    }
  }
}

TEST_P(Flavour, ElementsAboveAMagnitudeAreCountedExactly) {
  for (const ElementType type : kTypes) {
    for (const size_t width : {1u, 7u, 33u, 576u, 4097u, 300001u}) {
      std::vector<double> input = normal_values(width, 0, 1);
      if (width > 30) input[3] = kNaN, input[20] = -kInfinity, input[width - 1] = 0;
      const GuardedElements elements(type, input);
      const std::vector<double> values = elements.values();
      const double limits[ring2::kPivotsMax] = {0, 0.125, 0.6875, 1, 3};
      for (const size_t pivot_count : {size_t{1}, size_t{2}, ring2::kPivotsMax}) {
        uint64_t pivots[ring2::kPivotsMax], above[ring2::kPivotsMax] = {};
        for (size_t i = 0; i < pivot_count; ++i) pivots[i] = ring2::code_at_most(type, limits[i]);
        GetParam()->count_above[type](elements.data(), width, pivots, pivot_count, above);
        for (size_t i = 0; i < pivot_count; ++i) {
          const auto is_above = [&](double x) { return !(std::fabs(x) <= limits[i]); };
          EXPECT_EQ(above[i], static_cast<uint64_t>(
                                  std::count_if(values.begin(), values.end(), is_above)));
        }
      }
    }
  }
}

TEST_P(Flavour, EveryAlignmentGivesTheSameSums) {
  for (const ElementType type : kTypes) {
    const std::vector<double> values = normal_values(100, 0, 1);
    MomentsBlock first = {};
    for (size_t gap = 0; gap < 64; ++gap) {
      const GuardedElements elements(type, values, gap);
      MomentsBlock block;
      RowSquares squares;
      GetParam()->moments[type](elements.data(), {0, 1, 100}, -kInfinity, &block, &squares);
      if (gap == 0) first = block;
      EXPECT_EQ(block.sum, first.sum);
      EXPECT_EQ(block.centred, first.centred);
      EXPECT_EQ(block.abs_max, first.abs_max);
    }
  }
}

// Whatever the position, in a step or in the tail, one bad element must be seen.
TEST_P(Flavour, OneBadElementIsFoundAtEveryPosition) {
  for (const ElementType type : kTypes) {
    for (const double bad : {kNaN, kInfinity, -kInfinity}) {
      for (size_t position = 0; position < 70; ++position) {
        SCOPED_TRACE(testing::Message() << ring2_test::name_of(type) << " at " << position);
        std::vector<double> values = normal_values(70, 0.5, 0.1);
        values[position] = bad;
        const GuardedElements elements(type, values);
        MomentsBlock moments;
        RowSquares squares;
        LogitsBlock logits;
        AttentionRow row;
        GetParam()->moments[type](elements.data(), {0, 1, 70}, -kInfinity, &moments, &squares);
        GetParam()->logits[type](elements.data(), 70, -kInfinity, &logits);
        GetParam()->attention[type](elements.data(), 70, 70, &row);
        for (const MomentsBlock *block : {&moments, &logits.moments}) {
          EXPECT_EQ(block->nan, std::isnan(bad) ? 1u : 0u);
          EXPECT_EQ(block->pos_inf, bad == kInfinity ? 1u : 0u);
          EXPECT_EQ(block->neg_inf, bad == -kInfinity ? 1u : 0u);
          EXPECT_EQ(block->used, 69u);
          EXPECT_TRUE(std::isfinite(block->sum) && std::isfinite(block->centred));
        }
        EXPECT_EQ(row.nan + row.pos_inf + row.neg_inf, 1u);
      }
    }
  }
}

TEST_P(Flavour, EveryHalfPrecisionCodeIsWidenedExactly) {
  for (uint32_t code = 0; code < 0x10000; ++code) {
    const double value = ring2_test::half_value(static_cast<uint16_t>(code));
    if (!std::isfinite(value)) continue;
    uint16_t elements[33];
    for (uint16_t &element : elements) element = static_cast<uint16_t>(code);
    LogitsBlock block;
    const uint8_t *data = reinterpret_cast<const uint8_t *>(elements);
    GetParam()->logits[ring2::kFloat16](data, 33, -kInfinity, &block);
    ASSERT_EQ(block.maximum, value);
    ASSERT_EQ(block.second, value);
    ASSERT_EQ(block.moments.abs_max, std::fabs(value));
    ASSERT_NEAR(block.sum_squares, 33 * value * value, 1e-6 * 33 * value * value);
  }
}

std::string flavour_name(const testing::TestParamInfo<const Kernels *> &info) {
  return info.param->name;
}

#if defined(__x86_64__)
INSTANTIATE_TEST_SUITE_P(Kernels, Flavour,
                         testing::Values(&ring2::kPortableKernels, &ring2::kAvx2Kernels,
                                         &ring2::kWideKernels, &ring2::kAvx512Kernels),
                         flavour_name);
#else
INSTANTIATE_TEST_SUITE_P(Kernels, Flavour, testing::Values(&ring2::kPortableKernels), flavour_name);
#endif

}  // namespace
