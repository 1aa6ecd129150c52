// Likeness of tokens: golden vectors, windows of generated tokens, and their bounds.
#include <algorithm>
#include <random>

#include "track_helpers.h"

#include "track_state.h"

using namespace ring2_test;

namespace {

using Rows = std::vector<std::vector<double>>;

Rows random_rows(size_t tokens, size_t width, uint32_t seed, double shift = 0.5) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal(shift, 1);
  Rows rows(tokens, std::vector<double>(width));
  for (auto &row : rows) {
    for (double &value : row) value = static_cast<double>(static_cast<float>(normal(random)));
  }
  return rows;
}

double dot(const std::vector<double> &a, const std::vector<double> &b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

// By the definitions, pair by pair.
struct Likeness {
  double cosine = 0, residual = 0;

  explicit Likeness(const Rows &rows) {
    const double count = static_cast<double>(rows.size());
    std::vector<double> mean(rows[0].size());
    double squares = 0, centred = 0;
    for (size_t i = 0; i < rows.size(); ++i) {
      for (size_t j = 0; j < rows.size(); ++j) {
        const double length = std::sqrt(dot(rows[i], rows[i]) * dot(rows[j], rows[j]));
        if (i != j) cosine += dot(rows[i], rows[j]) / length / count / (count - 1);
      }
      for (size_t k = 0; k < mean.size(); ++k) mean[k] += rows[i][k] / count;
      squares += dot(rows[i], rows[i]);
    }
    for (std::vector<double> row : rows) {
      for (size_t k = 0; k < mean.size(); ++k) row[k] -= mean[k];
      centred += dot(row, row);
    }
    residual = std::sqrt(centred / squares);
  }
};

ring2_slice prefill(Tracked &tracked, const Rows &rows, int32_t token_start = 0) {
  Where where;
  where.layer = 0;
  where.token_start = token_start;
  return tracked.floats(RING2_HOOK_RESID_PRE, where, rows);
}

ring2_slice decoded(Tracked &tracked, int32_t token, const std::vector<double> &row,
                    uint64_t key = 1, int32_t layer = 0) {
  Where where = decode(token, token, key);
  where.layer = layer;
  return tracked.floats(RING2_HOOK_RESID_PRE, where, {row});
}

bool alike(const ring2_slice &slice) {
  EXPECT_EQ(has(slice, RING2_STAT_TOKEN_COSINE_MEAN), has(slice, RING2_STAT_RANK_RESIDUAL));
  return has(slice, RING2_STAT_TOKEN_COSINE_MEAN);
}

double participation(ring2::ElementType type, const Rows &rows) {
  const auto width = static_cast<uint32_t>(rows[0].size());
  std::vector<std::vector<uint8_t>> encoded;
  std::vector<const uint8_t *> pointers;
  for (const auto &row : rows) {
    encoded.emplace_back(width * bytes_of(type));
    for (uint32_t i = 0; i < width; ++i) put(&encoded.back()[i * bytes_of(type)], type, row[i]);
  }
  for (const auto &row : encoded) pointers.push_back(row.data());
  return ring2::participation_ratio(ring2::selected_kernels(), type, pointers.data(),
                                    static_cast<uint32_t>(rows.size()), width);
}

const Rows kGolden = {{1, 0}, {0, 1}, {1, 1}};

}  // namespace

TEST(TrackRepresentation, GoldenVectors) {
  Tracked tracked;
  const ring2_slice slice = prefill(tracked, kGolden, 1);
  EXPECT_NEAR(stat(slice, RING2_STAT_TOKEN_COSINE_MEAN), .471404521, 1e-7);
  EXPECT_NEAR(stat(slice, RING2_STAT_RANK_RESIDUAL), Likeness(kGolden).residual, 1e-7);
  for (const ring2::ElementType type :
       {ring2::kFloat32, ring2::kFloat16, ring2::kBfloat16, ring2::kFloat64}) {
    EXPECT_NEAR(participation(type, kGolden), 1.6, 1e-6);
  }
  EXPECT_TRUE(std::isnan(participation(ring2::kFloat32, {{1, 2}, {1, 2}})));
  EXPECT_TRUE(std::isnan(participation(ring2::kFloat32, {{1, 2}, {kNaN, 2}})));
  EXPECT_TRUE(std::isnan(participation(ring2::kFloat32, {{1, 2}, {kInfinity, 2}})));
}

TEST(TrackRepresentation, PositionZeroIsLeftOut) {
  Tracked tracked;
  Rows rows = kGolden;
  rows.insert(rows.begin(), {1000, -2000});
  EXPECT_NEAR(stat(prefill(tracked, rows), RING2_STAT_TOKEN_COSINE_MEAN), .471404521, 1e-7);
  EXPECT_FALSE(alike(prefill(tracked, {{1, 2}, {3, 4}}))) << "one token is no pair";
  EXPECT_TRUE(alike(prefill(tracked, {{1, 2}, {3, 4}}, 7)));
  EXPECT_FALSE(alike(prefill(tracked, {{1, 2}})));
}

TEST(TrackRepresentation, SumsEqualPairsForAnyNumberOfTokens) {
  for (const size_t tokens : {2u, 7u, 8u, 9u, 31u, 32u, 33u, 63u, 64u, 100u}) {
    for (const size_t width : {3u, 64u, 333u}) {
      Tracked tracked;
      const Rows rows = random_rows(tokens, width, static_cast<uint32_t>(tokens));
      const ring2_slice slice = prefill(tracked, rows, 1);
      const Likeness expected(rows);
      EXPECT_NEAR(stat(slice, RING2_STAT_TOKEN_COSINE_MEAN), expected.cosine, 1e-6);
      EXPECT_NEAR(stat(slice, RING2_STAT_RANK_RESIDUAL), expected.residual, 1e-6);
    }
  }
}

TEST(TrackRepresentation, ZeroRowsAreSkippedAndCounted) {
  Tracked tracked;
  Rows rows = kGolden;
  rows.insert(rows.begin() + 1, {0, 0});
  rows.push_back({kNaN, 1});
  rows.push_back({0, 0});
  const ring2_slice slice = prefill(tracked, rows, 1);
  EXPECT_NEAR(stat(slice, RING2_STAT_TOKEN_COSINE_MEAN), .471404521, 1e-7);
  EXPECT_EQ(slice.skipped_rows, 2u);
  EXPECT_EQ(slice.nan_count, 1u);
}

TEST(TrackRepresentation, ACollapseKeepsItsDigits) {
  for (const double spread : {1e-2, 1e-4, 1e-5}) {
    Tracked tracked;
    Rows rows = random_rows(80, 500, 1, 0);
    for (auto &row : rows) {
      for (size_t k = 0; k < row.size(); ++k) {
        row[k] = static_cast<double>(static_cast<float>(10 + row[k] * spread));
      }
    }
    const ring2_slice slice = prefill(tracked, rows, 1);
    const Likeness expected(rows);
    const double tolerance = 1e-4 * expected.residual + 1e-8;
    EXPECT_NEAR(stat(slice, RING2_STAT_RANK_RESIDUAL), expected.residual, tolerance);
    // The same beside a row that is left out.
    rows.push_back(std::vector<double>(500, 0));
    EXPECT_NEAR(stat(prefill(tracked, rows, 1), RING2_STAT_RANK_RESIDUAL), expected.residual,
                tolerance);
  }
  Tracked same;
  const ring2_slice slice = prefill(same, Rows(40, std::vector<double>(64, 3.7)), 1);
  EXPECT_NEAR(stat(slice, RING2_STAT_TOKEN_COSINE_MEAN), 1, 1e-6);
  EXPECT_LE(stat(slice, RING2_STAT_TOKEN_COSINE_MEAN), 1);
  EXPECT_NEAR(stat(slice, RING2_STAT_RANK_RESIDUAL), 0, 1e-6);
}

TEST(TrackRepresentation, ParticipationIsOfTheLastSixtyFourTokensOfALongerPrefill) {
  const size_t tokens = 90;
  const Rows rows = random_rows(tokens, 130, 4);
  const Rows last(rows.end() - 64, rows.end());
  Tracked tracked;
  const ring2_slice slice = prefill(tracked, rows);
  EXPECT_NEAR(stat(slice, RING2_STAT_PARTICIPATION_RATIO), participation(ring2::kFloat64, last),
              1e-4);
  EXPECT_EQ(tracked.folded(RING2_SIGNAL_PARTICIPATION_RATIO).count, 1u);
  EXPECT_FALSE(has(prefill(tracked, last), RING2_STAT_PARTICIPATION_RATIO));
  Rows next = last;
  next.push_back(last[0]);
  EXPECT_TRUE(has(prefill(tracked, next), RING2_STAT_PARTICIPATION_RATIO));
}

TEST(TrackRepresentation, AWindowIsCompleteWithItsThirtySecondToken) {
  Tracked tracked;
  const Rows rows = random_rows(70, 100, 9);
  for (int32_t token = 0; token < 70; ++token) {
    const ring2_slice slice = decoded(tracked, 10 + token, rows[static_cast<size_t>(token)]);
    ASSERT_EQ(alike(slice), token % 32 == 31) << token;
    if (token % 32 != 31) continue;
    const Likeness expected(Rows(rows.begin() + token - 31, rows.begin() + token + 1));
    EXPECT_NEAR(stat(slice, RING2_STAT_TOKEN_COSINE_MEAN), expected.cosine, 1e-6);
    EXPECT_NEAR(stat(slice, RING2_STAT_RANK_RESIDUAL), expected.residual, 1e-6);
  }
  EXPECT_EQ(tracked.folded(RING2_SIGNAL_TOKEN_COSINE_DISTANCE).count, 2u);
  EXPECT_EQ(tracked.folded(RING2_SIGNAL_RANK_RESIDUAL).count, 2u);
  EXPECT_GT(tracked.track()->window_bytes, 0u);
  ring2_track_end(tracked.track(), 1);
  EXPECT_EQ(tracked.track()->window_bytes, 0u);
}

TEST(TrackRepresentation, WindowsOfRequestsAndLayersAreTheirOwn) {
  Tracked tracked;
  const Rows rows = random_rows(32, 20, 2);
  for (int32_t token = 0; token < 32; ++token) {
    for (uint64_t key = 1; key <= 2; ++key) {
      for (int32_t layer = 0; layer < 2; ++layer) {
        std::vector<double> row = rows[static_cast<size_t>(token)];
        row[0] += 10.0 * static_cast<double>(key) + layer;
        const ring2_slice slice = decoded(tracked, 5 + token, row, key, layer);
        if (token < 31) continue;
        Rows own = rows;
        for (auto &each : own) each[0] += 10.0 * static_cast<double>(key) + layer;
        EXPECT_NEAR(stat(slice, RING2_STAT_TOKEN_COSINE_MEAN), Likeness(own).cosine, 1e-6);
      }
    }
  }
}

TEST(TrackRepresentation, SeveralTokensOfOneStepGoOnTheWindow) {
  Tracked tracked;
  const Rows rows = random_rows(40, 50, 3);
  Where where = decode(1, 5);
  where.layer = 0;
  EXPECT_FALSE(alike(tracked.floats(RING2_HOOK_RESID_PRE, where, {rows[0], rows[1], rows[2]})));
  where = decode(2, 8);
  where.layer = 0;
  const ring2_slice slice =
      tracked.floats(RING2_HOOK_RESID_PRE, where, Rows(rows.begin() + 3, rows.end()));
  EXPECT_NEAR(stat(slice, RING2_STAT_TOKEN_COSINE_MEAN),
              Likeness(Rows(rows.begin(), rows.begin() + 32)).cosine, 1e-6);
}

TEST(TrackRepresentation, AGapOrAnotherShapeBeginsANewWindow) {
  Tracked tracked;
  const std::vector<double> row = {1, 2, 3};
  for (int32_t token = 0; token < 20; ++token) decoded(tracked, token + 5, row);
  int32_t token = 40;
  for (; token < 71; ++token) EXPECT_FALSE(alike(decoded(tracked, token, row)));
  EXPECT_FALSE(alike(decoded(tracked, token - 1, row))) << "the same token of another rank";
  EXPECT_TRUE(alike(decoded(tracked, token, row)));
  for (token = 72; token < 90; ++token) decoded(tracked, token, row);
  for (; token < 121; ++token) EXPECT_FALSE(alike(decoded(tracked, token, {1, 2, 3, 4})));
  EXPECT_TRUE(alike(decoded(tracked, token, {1, 2, 3, 4})));
}

TEST(TrackRepresentation, WindowsStayInTheirBoundAndAreNotTakenFromThoseThatGoOn) {
  Tracked tracked;
  // Room for the windows of three requests, and not for a fourth.
  const uint64_t own = ring2::StreamSums::bytes_of(64) + (RING2_LAYERS_MAX + 1) * sizeof(void *);
  tracked.track()->window_bytes = ring2::kTrackWindowBytesMax - 3 * own - own / 2;
  const std::vector<double> row(64, 1.0);
  uint64_t completed = 0;
  for (int32_t token = 0; token < 32; ++token) {
    for (uint64_t key = 1; key <= 6; ++key) {
      completed += alike(decoded(tracked, token + 5, row, key));
      ASSERT_LE(tracked.track()->window_bytes, ring2::kTrackWindowBytesMax);
    }
  }
  EXPECT_EQ(completed, 3u);
}

TEST(TrackRepresentation, WindowsOfAnIdleRequestAreGivenToOthers) {
  Tracked tracked;
  tracked.track()->window_bytes = ring2::kTrackWindowBytesMax;  // all of it is in use
  decoded(tracked, 5, {1, 2});
  auto &idle = tracked.track()->requests.front();
  EXPECT_TRUE(idle.windows.by_layer.empty());
  idle.windows.bytes = ring2::kTrackWindowBytesMax;
  decoded(tracked, 5, {1, 2}, 2);
  EXPECT_EQ(tracked.track()->window_bytes, ring2::kTrackWindowBytesMax);
  tracked.track()->slices += ring2::kTrackIdleSlices;
  decoded(tracked, 6, {1, 2}, 2);
  EXPECT_LT(tracked.track()->window_bytes, ring2::kTrackWindowBytesMax);
  EXPECT_EQ(tracked.track()->requests.size(), 1u);
}

TEST(TrackRepresentation, RowsBeyondTheRangeOfTheSumsAreLeftOut) {
  Tracked tracked;
  Rows rows = kGolden;
  rows.push_back({3e38, 3e38});
  rows.push_back({-1e31, 1e31});
  const ring2_slice slice = prefill(tracked, rows, 1);
  EXPECT_NEAR(stat(slice, RING2_STAT_TOKEN_COSINE_MEAN), .471404521, 1e-7);
  EXPECT_NEAR(stat(slice, RING2_STAT_RANK_RESIDUAL), Likeness(kGolden).residual, 1e-7);
  EXPECT_EQ(slice.skipped_rows, 0u);
}

TEST(TrackRepresentation, TooWideAStreamHasNoValue) {
  Tracked tracked;
  const Rows rows(3, std::vector<double>(ring2::kStreamWidthMax + 1, 1.0));
  EXPECT_FALSE(alike(prefill(tracked, rows, 1)));
  EXPECT_EQ(tracked.track()->window_bytes, 0u);
}
