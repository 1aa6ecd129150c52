// The kernels of views: closed-form values in every type, gaps and masks, and refused arguments.
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "kernels_helpers.h"
#include "ring2.h"

namespace {

using ring2_test::dtype_of;
using ring2_test::GuardedElements;
using ring2_test::kInfinity;
using ring2_test::kNaN;

class Views : public testing::TestWithParam<ring2::ElementType> {};

std::vector<double> norms_of(ring2::ElementType type, uint64_t rows, const std::vector<double> &all) {
  const GuardedElements elements(type, all);
  std::vector<double> norms(rows, -1);
  EXPECT_EQ(ring2_view_norms(elements.data(), elements.bytes(), dtype_of(type), rows,
                             all.size() / rows, norms.data()),
            RING2_OK);
  return norms;
}

TEST_P(Views, NormsLeaveOutWhatIsNotFinite) {
  const std::vector<double> norms = norms_of(GetParam(), 3, {3, -4, kNaN, 2, kNaN, kInfinity});
  EXPECT_DOUBLE_EQ(norms[0], 5);
  EXPECT_DOUBLE_EQ(norms[1], 2);
  EXPECT_TRUE(std::isnan(norms[2]));
}

TEST_P(Views, NormsOfRowsLongerThanABlock) {
  const std::vector<double> norms = norms_of(GetParam(), 2, std::vector<double>(2 * 10'000, 0.5));
  EXPECT_NEAR(norms[0], 50, 1e-4);
  EXPECT_NEAR(norms[1], 50, 1e-4);
}

TEST_P(Views, SoftmaxOfARowAndItsLabel) {
  const GuardedElements elements(GetParam(), {0, 1, 0, 0, 0, kNaN, 2, 2, 2});
  const std::vector<double> labels = {1, 0, -1};
  std::vector<ring2_view_softmax> out(3);
  ASSERT_EQ(ring2_view_logits(elements.data(), elements.bytes(), dtype_of(GetParam()), 3, 3,
                              labels.data(), out.data()),
            RING2_OK);
  const double sum = 2 + std::exp(1.0);
  EXPECT_NEAR(out[0].surprisal, std::log(sum) - 1, 1e-6);
  EXPECT_NEAR(out[0].top1_probability, std::exp(1.0) / sum, 1e-6);
  EXPECT_NEAR(out[0].entropy, std::log(sum) - std::exp(1.0) / sum, 1e-6);
  EXPECT_NEAR(out[0].margin, 1, 1e-6);
  EXPECT_TRUE(std::isnan(out[1].entropy)) << "a row with a NaN has no softmax";
  EXPECT_NEAR(out[2].entropy, std::log(3.0), 1e-6);
  EXPECT_TRUE(std::isnan(out[2].surprisal)) << "no label";
}

TEST_P(Views, TopTokensAreOrderedByLogitAndThenById) {
  const GuardedElements elements(GetParam(), {1, 3, -kInfinity, 3, 2});
  std::vector<ring2_view_token> top(3);
  ring2_view_top_facts facts;
  ASSERT_EQ(ring2_view_top(elements.data(), elements.bytes(), dtype_of(GetParam()), 5, 4, 3,
                           top.data(), &facts),
            RING2_OK);
  EXPECT_EQ(top[0].id, 1);
  EXPECT_EQ(top[1].id, 3);
  EXPECT_EQ(top[2].id, 4);
  EXPECT_EQ(facts.rank, 2);
  EXPECT_NEAR(top[2].probability, 1 / (2 * std::exp(1.0) + 1 + std::exp(-1.0)), 1e-6);
}

TEST_P(Views, PatternsAddUpOverHeads) {
  const GuardedElements elements(GetParam(), {1, 0, 0.5, 0.5, 0.5, 0.25, 0.25, kNaN});
  std::vector<float> sums(4, 0);
  ASSERT_EQ(ring2_view_pattern_add(elements.data(), elements.bytes(), dtype_of(GetParam()), 2, 2, 2,
                                   0.5f, sums.data()),
            RING2_OK);
  EXPECT_FLOAT_EQ(sums[0], 0.75f);
  EXPECT_FLOAT_EQ(sums[1], 0.125f);
  EXPECT_FLOAT_EQ(sums[2], 0.375f);
  EXPECT_TRUE(std::isnan(sums[3]));
}

INSTANTIATE_TEST_SUITE_P(Types, Views,
                         testing::Values(ring2::kFloat32, ring2::kFloat16, ring2::kBfloat16,
                                         ring2::kFloat64),
                         [](const auto &tested) { return ring2_test::name_of(tested.param); });

struct Cells {
  std::vector<float> cells;
  std::vector<double> key_mass, lookback;
  double first_key = -1;
};

// Four queries; that of position 2 is not stored.
const std::vector<float> kMatrix = {1,    0,    0,     0,     //
                                    0.5,  0.5,  0,     0,     //
                                    NAN,  NAN,  NAN,   NAN,   //
                                    0.5f, 0.25, 0.125, 0.125};

Cells tile(ring2_view_tile what) {
  Cells result{std::vector<float>(16, -1), std::vector<double>(4, -1), std::vector<double>(4, -1)};
  EXPECT_EQ(ring2_view_pattern_tile(kMatrix.data(), kMatrix.size(), &what, result.cells.data(),
                                    result.key_mass.data(), result.lookback.data(),
                                    &result.first_key),
            RING2_OK);
  return result;
}

TEST(ViewTile, ACellIsTheLargestProbabilityItCovers) {
  const Cells halves = tile({4, 4, 0, 0, 4, 0, 4, 2, 2});
  EXPECT_FLOAT_EQ(halves.cells[0], 1);
  EXPECT_TRUE(std::isnan(halves.cells[1])) << "keys after the queries";
  EXPECT_FLOAT_EQ(halves.cells[2], 0.5);
  EXPECT_FLOAT_EQ(halves.cells[3], 0.125);
  EXPECT_NEAR(halves.key_mass[0], (1 + 1 + 0.75) / 3, 1e-12);
  EXPECT_TRUE(std::isnan(halves.lookback[0])) << "queries of the prompt";
  EXPECT_NEAR(halves.lookback[1], 0.75, 1e-12);
  EXPECT_NEAR(halves.first_key, 2.0 / 3, 1e-12);
}

TEST(ViewTile, ARowThatIsNotStoredHasNoCells) {
  const Cells whole = tile({4, 4, 0, 0, 4, 0, 4, 1, -1});
  for (int key = 0; key < 4; ++key) EXPECT_TRUE(std::isnan(whole.cells[8 + key]));
  EXPECT_TRUE(std::isnan(whole.lookback[3])) << "nobody knows the prompt";
}

TEST(ViewTile, PositionsFollowTheFirstQuery) {
  // The same matrix as the last four queries of six over four keys: no key is masked, and which
  // tokens the keys are is not known.
  const Cells late = tile({4, 4, 2, 0, 4, 0, 4, 1, 3});
  EXPECT_FLOAT_EQ(late.cells[2], 0);
  EXPECT_TRUE(std::isnan(late.cells[3])) << "key 3 comes after position 2";
  EXPECT_TRUE(std::isnan(late.lookback[3]));
}

TEST(ViewArguments, AreRefusedWhenTheyContradictEachOther) {
  double norm;
  const float values[2] = {1, 2};
  EXPECT_EQ(ring2_view_norms(values, 8, RING2_DTYPE_FLOAT32, 2, 2, &norm), -RING2_E_ARGUMENT);
  EXPECT_EQ(ring2_view_norms(values, 8, RING2_DTYPE_INT32, 1, 2, &norm), -RING2_E_ARGUMENT);
  EXPECT_EQ(ring2_view_norms(values, 8, RING2_DTYPE_FLOAT32, UINT64_MAX, 2, &norm),
            -RING2_E_ARGUMENT);
  ring2_view_token top[3];
  ring2_view_top_facts facts;
  EXPECT_EQ(ring2_view_top(values, 8, RING2_DTYPE_FLOAT32, 2, 0, 3, top, &facts), -RING2_E_ARGUMENT);
  float cells[4];
  double mass[2], lookback[2], first;
  for (const ring2_view_tile &bad : {ring2_view_tile{2, 2, 0, 0, 2, 0, 2, 1, -1},
                                     ring2_view_tile{1, 2, 0, 0, 2, 0, 2, 1, -1},
                                     ring2_view_tile{1, 2, 0, 0, 1, 0, 3, 1, -1},
                                     ring2_view_tile{1, 2, 0, 1, 1, 0, 2, 1, -1},
                                     ring2_view_tile{1, 2, 0, 0, 1, 0, 2, 0, -1}}) {
    EXPECT_EQ(ring2_view_pattern_tile(values, 2, &bad, cells, mass, lookback, &first),
              -RING2_E_ARGUMENT);
  }
}

}  // namespace
