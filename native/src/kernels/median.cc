#include "median.h"

#include <algorithm>

#include "elements.h"

namespace ring2 {
namespace {

// Below, a sample costs more than the look at the bytes that it saves.
constexpr uint64_t kSampledMin = 32 << 10;
// Odd, so that it has a middle. The median's rank in such a sample deviates by 11 from it.
constexpr uint64_t kSamples = 511;
constexpr int64_t kSampleRanks[kPivotsMax] = {-28, -9, 0, 9, 28};
// Where the median of an ordinary row is, in shares of its RMS; 0.67 for a normal distribution.
constexpr double kLikelyShares[kPivotsMax] = {0.25, 0.5, 0.65, 0.8, 1.2};
// Few enough elements to copy and select from, rare enough to be found quickly, and codes enough
// for that to save looks at the bytes: only float32 and float64 ever come to it.
constexpr uint64_t kCandidatesMax = 4096;
constexpr uint64_t kCandidateRarity = 1024;
constexpr uint64_t kCandidateCodesMin = 4096;
constexpr uint64_t kCandidateStretch = 256;

// Calls see(data, count) for each stretch of bytes without a gap.
template <typename See>
void for_each_stretch(const SliceContext &context, const RowWalk &walk, See see) {
  const bool joined = walk.stride_bytes == walk.width * context.element_bytes;
  for (uint64_t outer = 0; outer < walk.outer_count(); ++outer) {
    const uint8_t *data = walk.outer(context.data, outer);
    if (joined) {
      see(data, walk.rows * walk.width);
      continue;
    }
    for (uint64_t row = 0; row < walk.rows; ++row) see(data + row * walk.stride_bytes, walk.width);
  }
}

struct Search {
  const SliceContext &context;
  const RowWalk &walk;
  uint64_t rank;  // of the median, from 0, among `finite` elements
  uint64_t elements;
  uint64_t low, high;  // the median's code is in between, both included
  uint64_t below;      // elements below `low`
  uint64_t up_to;      // finite elements up to `high`

  void count(const uint64_t *pivots, size_t pivot_count, uint64_t *above) const {
    std::fill_n(above, pivot_count, 0);
    const auto kernel = context.kernels->count_above[context.type];
    for_each_stretch(context, walk, [&](const uint8_t *data, uint64_t length) {
      kernel(data, length, pivots, pivot_count, above);
    });
  }

  // pivots: ascending, from low to high - 1.
  void narrow(const uint64_t *pivots, size_t pivot_count) {
    uint64_t above[kPivotsMax];
    count(pivots, pivot_count, above);
    for (size_t i = 0; i < pivot_count; ++i) {
      const uint64_t at_most = elements - above[i];
      if (at_most > rank) {
        high = pivots[i];
        up_to = at_most;
        return;
      }
      low = pivots[i] + 1;
      below = at_most;
    }
  }

  // pivots: ascending codes that may lie outside.
  void narrow_within(uint64_t *pivots) {
    for (size_t i = 0; i < kPivotsMax; ++i) pivots[i] = std::clamp(pivots[i], low, high - 1);
    narrow(pivots, kPivotsMax);
  }

  // Every code when they are few.
  void narrow_evenly() {
    uint64_t pivots[kPivotsMax];
    const uint64_t codes = high - low;
    for (uint64_t i = 0; i < kPivotsMax; ++i) {
      pivots[i] = low + codes / (kPivotsMax + 1) * (i + 1) +
                  codes % (kPivotsMax + 1) * (i + 1) / (kPivotsMax + 1);
    }
    narrow_within(pivots);
  }

  // As if the elements in between were evenly spread over the codes. Bytes that change meanwhile
  // can make nonsense of the counts, and then of the pivots, which narrow_within sets right.
  void narrow_by_interpolation() {
    const double codes = static_cast<double>(high - low);
    const double share = (static_cast<double>(rank - below) + 0.5) /
                         static_cast<double>(std::max<uint64_t>(up_to - below, 1));
    const double middle = codes * std::clamp(share, 0.0, 1.0);
    const double steps[kPivotsMax] = {-codes / 8, -codes / 64, 0, codes / 64, codes / 8};
    uint64_t pivots[kPivotsMax];
    for (size_t i = 0; i < kPivotsMax; ++i) {
      pivots[i] = low + static_cast<uint64_t>(std::clamp(middle + steps[i], 0.0, codes));
    }
    narrow_within(pivots);
  }

  void narrow_by_rms(double rms) {
    uint64_t pivots[kPivotsMax];
    for (size_t i = 0; i < kPivotsMax; ++i) {
      pivots[i] = code_at_most(context.type, rms * kLikelyShares[i]);
    }
    narrow_within(pivots);
  }

  const uint8_t *element(uint64_t index) const {
    const uint64_t row = index / walk.width;
    return walk.outer(context.data, row / walk.rows) + row % walk.rows * walk.stride_bytes +
           index % walk.width * context.element_bytes;
  }

  void narrow_by_sample() {
    uint64_t codes[kSamples];
    const uint64_t apart = elements / kSamples;
    // Jittered, or the sample could see a few columns only.
    uint64_t state = 1;
    for (uint64_t i = 0; i < kSamples; ++i) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      codes[i] = element_code(context.type, element(i * apart + (state >> 33) % apart));
    }
    std::sort(codes, codes + kSamples);
    uint64_t pivots[kPivotsMax];
    for (size_t i = 0; i < kPivotsMax; ++i) {
      pivots[i] = codes[static_cast<int64_t>(kSamples / 2) + kSampleRanks[i]];
    }
    narrow_within(pivots);
  }

  // Whether elements of a stretch are candidates, when that is quicker to ask than to look.
  bool has_candidates(const uint8_t *data, uint64_t length) const {
    if (low == 0) return true;
    const uint64_t pivots[2] = {low - 1, high};
    uint64_t above[2] = {0, 0};
    context.kernels->count_above[context.type](data, length, pivots, 2, above);
    return above[0] != above[1];
  }

  uint64_t among_candidates() const {
    uint64_t codes[kCandidatesMax];
    uint64_t kept = 0;
    const auto keep = [&](const uint8_t *data, uint64_t length) {
      for (uint64_t i = 0; i < length; ++i, data += context.element_bytes) {
        const uint64_t code = element_code(context.type, data);
        if (code - low <= high - low && kept < kCandidatesMax) codes[kept++] = code;
      }
    };
    for_each_stretch(context, walk, [&](const uint8_t *data, uint64_t length) {
      for (uint64_t done = 0; done < length; done += kCandidateStretch) {
        const uint8_t *at = data + done * context.element_bytes;
        const uint64_t part = std::min(kCandidateStretch, length - done);
        if (has_candidates(at, part)) keep(at, part);
      }
    });
    // There are as many as were counted, unless a producer that misbehaves has changed its bytes.
    if (kept == 0) return low;
    const uint64_t place = std::min(rank - below, kept - 1);
    std::nth_element(codes, codes + place, codes + kept);
    return codes[place];
  }
};

}  // namespace

uint64_t count_above(const SliceContext &context, const RowWalk &walk, uint64_t pivot) {
  uint64_t above = 0;
  const auto kernel = context.kernels->count_above[context.type];
  for_each_stretch(context, walk, [&](const uint8_t *data, uint64_t length) {
    kernel(data, length, &pivot, 1, &above);
  });
  return above;
}

uint64_t median_code(const SliceContext &context, const RowWalk &walk, uint64_t used,
                     uint64_t largest, double rms) {
  const uint64_t elements = context.slice->elements;
  Search search = {context, walk, (used - 1) / 2, elements, 0, largest, 0, used};
  if (search.low < search.high) {
    elements < kSampledMin ? search.narrow_by_rms(rms) : search.narrow_by_sample();
  }
  for (bool even = false; search.low < search.high; even = !even) {
    const uint64_t codes = search.high - search.low;
    const uint64_t candidates = search.up_to - search.below;
    if (codes > kCandidateCodesMin && candidates <= kCandidatesMax &&
        candidates <= elements / kCandidateRarity) {
      return search.among_candidates();
    }
    // Interpolation alone could creep; every other step shrinks the range to a sixth.
    even || codes <= kPivotsMax ? search.narrow_evenly() : search.narrow_by_interpolation();
  }
  return search.low;
}

}  // namespace ring2
