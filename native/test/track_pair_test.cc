// The kernels for pairs of rows: every flavour against plain float64, at odd widths, and with
// unreadable memory right behind the last element.
#include <memory>
#include <random>

#include "kernels_helpers.h"
#include "kernels_wide.h"

#include <gtest/gtest.h>

using namespace ring2_test;
using ring2::ElementType;
using ring2::Kernels;

namespace {

constexpr ElementType kTypes[] = {ring2::kFloat32, ring2::kFloat16, ring2::kBfloat16,
                                  ring2::kFloat64};
constexpr size_t kWidths[] = {1, 2, 3, 15, 16, 17, 31, 32, 33, 64, 65, 130, 576, 4095, 4097};

class PairFlavour : public testing::TestWithParam<const Kernels *> {
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

std::vector<double> normal_values(size_t count, uint32_t seed, double scale = 1) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal(0.3, 2);
  std::vector<double> values(count);
  for (double &value : values) value = normal(random) * scale;
  return values;
}

void expect_near(double value, double expected, double scale) {
  EXPECT_NEAR(value, expected, 2e-6 * scale);
}

void expect_pair(const Kernels &kernels, ElementType type, const GuardedElements &first,
                 const GuardedElements &second) {
  const std::vector<double> x = first.values(), y = second.values();
  double dot = 0, x_squares = 0, y_squares = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    dot += x[i] * y[i];
    x_squares += x[i] * x[i];
    y_squares += y[i] * y[i];
  }
  ring2::PairSums sums;
  kernels.pair[type](first.data(), second.data(), x.size(), &sums);
  expect_near(sums.first, x_squares, x_squares);
  expect_near(sums.second, y_squares, y_squares);
  expect_near(sums.dot, dot, std::sqrt(x_squares * y_squares));
}

}  // namespace

TEST_P(PairFlavour, ProductsAndSquaresEqualTheReference) {
  for (const ElementType type : kTypes) {
    for (const size_t width : kWidths) {
      const GuardedElements first(type, normal_values(width, 1));
      const GuardedElements second(type, normal_values(width, 2), 6);
      expect_pair(*GetParam(), type, first, second);
    }
  }
}

TEST_P(PairFlavour, SquaresOutsideOfFloat32StayExact) {
  for (const ElementType type : {ring2::kFloat32, ring2::kBfloat16}) {
    for (const double scale : {1e-37, 1e-25, 1e20, 1e37}) {
      const GuardedElements first(type, normal_values(333, 1, scale));
      const GuardedElements second(type, normal_values(333, 2));
      expect_pair(*GetParam(), type, first, second);
      expect_pair(*GetParam(), type, second, first);
    }
  }
}

TEST_P(PairFlavour, ElementsThatAreNotFiniteShow) {
  for (const ElementType type : kTypes) {
    for (const double odd : {kNaN, kInfinity, -kInfinity}) {
      std::vector<double> values = normal_values(70, 1);
      values[67] = odd;
      const GuardedElements first(type, values);
      const GuardedElements second(type, normal_values(70, 2));
      ring2::PairSums sums;
      GetParam()->pair[type](first.data(), second.data(), 70, &sums);
      EXPECT_FALSE(std::isfinite(sums.first));
      EXPECT_TRUE(std::isfinite(sums.second));
    }
  }
}

TEST_P(PairFlavour, SumsOfRowsHaveTheNormsOfTheReference) {
  for (const ElementType type : kTypes) {
    for (const size_t width : kWidths) {
      const GuardedElements first(type, normal_values(width, 1));
      const GuardedElements second(type, normal_values(width, 2));
      const uint8_t *rows[] = {first.data(), second.data()};
      const float scales[] = {0.5f, -2.0f};
      const size_t length = (width + ring2::kRowSumsMultiple - 1) / ring2::kRowSumsMultiple *
                            ring2::kRowSumsMultiple;
      std::vector<float> sum(length), scaled(length);
      GetParam()->add_rows[type](rows, scales, 2, width, sum.data(), scaled.data());
      const std::vector<double> x = first.values(), y = second.values();
      double sum_squares = 0, scaled_squares = 0, distance = 0;
      for (size_t i = 0; i < width; ++i) {
        sum_squares += (x[i] + y[i]) * (x[i] + y[i]);
        scaled_squares += (0.5 * x[i] - 2 * y[i]) * (0.5 * x[i] - 2 * y[i]);
        distance += y[i] * y[i];
      }
      double of_sum = 0, of_scaled = 0;
      for (const float value : sum) of_sum += double(value) * double(value);
      for (const float value : scaled) of_scaled += double(value) * double(value);
      expect_near(of_sum, sum_squares, sum_squares);
      expect_near(of_scaled, scaled_squares, scaled_squares);
      // first - (first + second) = -second, when the order of the sums is the rows' own.
      const double centred = GetParam()->centred[type](first.data(), width, sum.data());
      expect_near(centred, distance, distance + 1e-6 * sum_squares);
    }
  }
}

TEST_P(PairFlavour, GramSumsEqualTheReference) {
  for (const ElementType type : kTypes) {
    for (const size_t width : {1u, 3u, 32u, 127u, 128u, 129u, 300u}) {
      for (const size_t count : {2u, 3u, 33u, 64u}) {
        std::vector<std::unique_ptr<GuardedElements>> rows;
        std::vector<const uint8_t *> pointers;
        std::vector<std::vector<double>> x;
        std::vector<double> mean(width);
        for (size_t i = 0; i < count; ++i) {
          rows.push_back(std::make_unique<GuardedElements>(
              type, normal_values(width, static_cast<uint32_t>(i + 1))));
          pointers.push_back(rows[i]->data());
          x.push_back(rows[i]->values());
          for (size_t k = 0; k < width; ++k) mean[k] += x[i][k] / double(count);
        }
        double trace = 0, squares = 0;
        for (size_t i = 0; i < count; ++i) {
          for (size_t j = 0; j < count; ++j) {
            double product = 0;
            for (size_t k = 0; k < width; ++k) product += (x[i][k] - mean[k]) * (x[j][k] - mean[k]);
            trace += i == j ? product : 0;
            squares += product * product;
          }
        }
        ring2::GramSums sums;
        GetParam()->gram[type](pointers.data(), count, width, &sums);
        EXPECT_NEAR(sums.trace, trace, 1e-5 * trace);
        EXPECT_NEAR(sums.squares, squares, 2e-5 * squares);
      }
    }
  }
}

#if defined(__x86_64__)
INSTANTIATE_TEST_SUITE_P(Kernels, PairFlavour,
                         testing::Values(&ring2::kPortableKernels, &ring2::kAvx2Kernels,
                                         &ring2::kWideKernels, &ring2::kAvx512Kernels),
                         [](const auto &info) { return std::string(info.param->name); });
#else
INSTANTIATE_TEST_SUITE_P(Kernels, PairFlavour, testing::Values(&ring2::kPortableKernels),
                         [](const auto &info) { return std::string(info.param->name); });
#endif
