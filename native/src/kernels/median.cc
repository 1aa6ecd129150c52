#include "median.h"

#include <algorithm>

#include "elements.h"

namespace ring2 {
namespace {

// Slices up to this stay in a core's own cache, where looking again costs less than many pivots do.
constexpr uint64_t kCachedBytes = 256 << 10;
// Odd, so that it has a middle; pivots lie kSampleStep apart around it: with 511 samples the median
// is among the pivots 499 times in 500.
constexpr uint64_t kSamples = 511;
constexpr uint64_t kSampleStep = 5;
// Few enough elements to copy and select from; only float32 and float64 ever come to it.
constexpr uint64_t kCandidatesMax = 4096;

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
  uint64_t elements, finite;
  uint64_t low, high;              // the median's code is in between, both included
  uint64_t below = 0;              // elements below `low`
  uint64_t up_to;                  // finite elements up to `high`

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

  void narrow_at(uint64_t pivot) {
    pivot = std::clamp(pivot, low, high - 1);
    narrow(&pivot, 1);
  }

  // As many pivots as there are, evenly spaced codes apart.
  void narrow_evenly() {
    uint64_t pivots[kPivotsMax];
    for (uint64_t i = 0; i < kPivotsMax; ++i) {
      const uint64_t step = (high - low) / (kPivotsMax + 1);
      const uint64_t rest = (high - low) % (kPivotsMax + 1);
      pivots[i] = low + step * (i + 1) + rest * (i + 1) / (kPivotsMax + 1);
      pivots[i] = std::min(pivots[i], high - 1);
    }
    narrow(pivots, kPivotsMax);
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
    const uint64_t first = kSamples / 2 - kPivotsMax / 2 * kSampleStep;
    for (uint64_t i = 0; i < kPivotsMax; ++i) {
      pivots[i] = std::clamp(codes[first + i * kSampleStep], low, high - 1);
    }
    narrow(pivots, kPivotsMax);
  }

  uint64_t among_candidates() const {
    uint64_t codes[kCandidatesMax];
    uint64_t kept = 0;
    for_each_stretch(context, walk, [&](const uint8_t *data, uint64_t length) {
      for (uint64_t i = 0; i < length; ++i, data += context.element_bytes) {
        const uint64_t code = element_code(context.type, data);
        if (code - low <= high - low && kept < kCandidatesMax) codes[kept++] = code;
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
                     uint64_t largest, uint64_t guess) {
  const uint64_t elements = context.slice->elements;
  Search search = {context, walk, (used - 1) / 2, elements, used, 0, largest, 0, used};
  const bool cached = elements * context.element_bytes <= kCachedBytes;
  if (search.low < search.high) {
    cached ? search.narrow_at(guess) : search.narrow_by_sample();
  }
  while (search.low < search.high) {
    const bool wide = search.high - search.low > kPivotsMax;
    if (cached) {
      search.narrow_at(search.low + (search.high - search.low) / 2);
    } else if (wide && search.up_to - search.below <= kCandidatesMax) {
      return search.among_candidates();
    } else {
      search.narrow_evenly();
    }
  }
  return search.low;
}

}  // namespace ring2
