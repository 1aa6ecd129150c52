// The softmax of one row, merged from blocks: with m the largest value so far and t = l - m,
// weight Z = sum of e^t, weighted S = sum of t e^t, squared Q = sum of t^2 e^t.
//
// Merging rescales to the larger maximum (online softmax, Milakov and Gimelshein 2018); the
// weighted sums are kept beside it in the same way.
#ifndef RING2_KERNELS_ROW_SOFTMAX_H
#define RING2_KERNELS_ROW_SOFTMAX_H

#include <cmath>
#include <limits>

#include "kernels.h"

namespace ring2 {

struct SoftmaxWeights {
  double weight, weighted, squared;

  // When the maximum grows by -difference. Each line needs the ones below it as they were.
  void rescale(double difference) {
    const double factor = std::exp(difference);
    if (!(factor > 0)) {
      *this = {0, 0, 0};
      return;
    }
    squared = factor * (squared + difference * (2 * weighted + difference * weight));
    weighted = factor * (weighted + difference * weight);
    weight *= factor;
  }
};

struct RowSoftmax : SoftmaxWeights {
  double maximum = -std::numeric_limits<double>::infinity();
  double second = -std::numeric_limits<double>::infinity();
  uint32_t top_index = 0;

  RowSoftmax() : SoftmaxWeights{0, 0, 0} {}

  void merge(const LogitsBlock &block, uint64_t first_index) {
    if (block.weight == 0) return;
    SoftmaxWeights other = {block.weight, block.weighted, block.squared};
    if (block.maximum > maximum) {
      if (weight > 0) rescale(maximum - block.maximum);
      second = std::fmax(maximum, block.second);
      maximum = block.maximum;
      top_index = static_cast<uint32_t>(first_index + block.top_index);
    } else {
      other.rescale(block.maximum - maximum);
      second = std::fmax(second, block.maximum);
    }
    weight += other.weight;
    weighted += other.weighted;
    squared += other.squared;
  }

  double log_sum_exp() const { return maximum + std::log(weight); }
  double entropy() const { return std::fmax(0.0, std::log(weight) - weighted / weight); }
  double varentropy() const {
    const double mean = weighted / weight;
    return std::fmax(0.0, squared / weight - mean * mean);
  }
};

}  // namespace ring2
#endif
