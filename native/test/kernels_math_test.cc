// e^t and ln p of the kernels against libm, over their whole ranges, without and with fused
// multiply-add.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <vector>

#define RING2_VECTOR_BYTES 16
#include "kernels/vector_math.h"
#include "kernels_wide.h"

namespace {

using Function = std::function<void(const float *, float *, size_t)>;

constexpr size_t kBatch = 16;

void baseline_exp(const float *t, float *result, size_t count) {
  for (size_t i = 0; i < count; i += ring2::kLanes) {
    const ring2::Floats e = ring2::exp_clamped(ring2::load<ring2::Floats>(t + i));
    std::memcpy(result + i, &e, sizeof e);
  }
}

void baseline_log(const float *p, float *result, size_t count) {
  for (size_t i = 0; i < count; i += ring2::kLanes) {
    const ring2::Floats log = ring2::log_clamped(ring2::load<ring2::Floats>(p + i));
    std::memcpy(result + i, &log, sizeof log);
  }
}

std::vector<float> apply(const Function &function, std::vector<float> arguments) {
  arguments.resize((arguments.size() + kBatch - 1) / kBatch * kBatch, arguments.back());
  std::vector<float> results(arguments.size());
  function(arguments.data(), results.data(), arguments.size());
  return results;
}

// Largest error of e^t relative to libm over [floor, 0].
double exp_error(const Function &exp) {
  std::vector<float> arguments;
  for (int i = 0; i <= 2000000; ++i) arguments.push_back(ring2::kExponentFloor * i / 2e6f);
  const std::vector<float> results = apply(exp, arguments);
  double worst = 0;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const double expected = std::exp(static_cast<double>(arguments[i]));
    worst = std::max(worst, std::fabs(results[i] / expected - 1));
  }
  return worst;
}

// Largest error of ln p over the normal numbers up to 4, as a share of 1 + |ln p|.
double log_error(const Function &log) {
  std::vector<float> arguments;
  for (float p = ring2::kSmallestNormal; p < 4; p *= 1.00003f) arguments.push_back(p);
  for (int i = -50000; i < 50000; ++i) arguments.push_back(1 + i * 6e-8f);
  const std::vector<float> results = apply(log, arguments);
  double worst = 0;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const double expected = std::log(static_cast<double>(arguments[i]));
    worst = std::max(worst, std::fabs(results[i] - expected) / (1 + std::fabs(expected)));
  }
  return worst;
}

TEST(KernelMath, ExponentialIsWithinFourUnitsInTheLastPlace) {
  EXPECT_LT(exp_error(baseline_exp), 4.8e-7);
}

TEST(KernelMath, LogarithmIsWithinTwoUnitsInTheLastPlace) {
  EXPECT_LT(log_error(baseline_log), 2.4e-7);
}

TEST(KernelMath, ExponentialOfZeroAndLogarithmOfOneAreExact) {
  EXPECT_EQ(apply(baseline_exp, {0.0f})[0], 1.0f);
  EXPECT_EQ(apply(baseline_log, {1.0f})[0], 0.0f);
}

TEST(KernelMath, LogarithmOfZeroIsFiniteSoThatZeroTimesItIsZero) {
  const std::vector<float> results = apply(baseline_log, {0.0f, -0.0f, 1e-45f});
  EXPECT_NEAR(results[0], -87.3365, 1e-3);
  EXPECT_NEAR(results[1], -87.3365, 1e-3);
  EXPECT_NEAR(results[2], -87.3365, 1e-3);
}

#if defined(__x86_64__)
TEST(KernelMath, FusedMultiplyAddKeepsTheErrors) {
  if (!ring2::machine_runs(ring2::kAvx2Kernels)) GTEST_SKIP() << "this machine has no AVX2";
  EXPECT_LT(exp_error(ring2::wide_exp), 4.8e-7);
  EXPECT_LT(log_error(ring2::wide_log), 2.4e-7);
  EXPECT_EQ(apply(ring2::wide_exp, {0.0f})[0], 1.0f);
  EXPECT_EQ(apply(ring2::wide_log, {1.0f})[0], 0.0f);
}
#endif

}  // namespace
