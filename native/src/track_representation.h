// How alike the tokens of a request are in the residual stream: mean cosine, rank residual and
// participation ratio, over a prefill slice or windows of generated tokens.
#ifndef RING2_TRACK_REPRESENTATION_H
#define RING2_TRACK_REPRESENTATION_H

#include <cstdint>
#include <memory>
#include <vector>

#include "track_place.h"

namespace ring2 {

constexpr uint32_t kWindowTokens = 32;
constexpr uint32_t kParticipationTokens = kGramRows;
// Wider streams have no such statistics.
constexpr uint32_t kStreamWidthMax = 65536;
// Below this norm a row has no direction.
constexpr double kNormMin = 1e-12;

// Sums of rows and of rows of length 1, in float32 lanes; `count` rows went in.
struct StreamSums {
  std::vector<float> rows, units;
  double squares = 0;  // of every element of the rows
  uint64_t count = 0;

  static uint64_t bytes_of(uint32_t width);
  void start(uint32_t width);
};

// A window of generated tokens at one layer.
struct StreamWindow {
  StreamSums sums;
  int64_t step = -1;
  int32_t next = -1;  // position that goes on
  uint32_t tokens = 0;
  uint32_t dtype = 0, width = 0;
};

// By layer of resid_pre; the last one is resid_final.
struct RequestWindows {
  std::vector<std::unique_ptr<StreamWindow>> by_layer;
  uint64_t bytes = 0;
};

// What measuring one slice needs, kept from slice to slice.
struct StreamScratch {
  StreamSums part;                       // up to kWindowTokens rows
  std::vector<double> row_total, unit_total;
  std::vector<float> mean;
};

// Of rows without one that is not finite: tr(G)^2 / |G|_F^2, G the Gram matrix of the centred rows.
// NaN when they are all the same. count: 2 to kParticipationTokens.
double participation_ratio(const Kernels &kernels, ElementType type, const uint8_t *const *rows,
                           uint32_t count, uint32_t width);

}  // namespace ring2
#endif
