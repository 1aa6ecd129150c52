// How evenly a router spreads its probability: hooks router_logits and topk_weights, the statistics
// of RING2_GROUP_ROUTER that need one row.
#include <algorithm>
#include <cmath>

#include "row_softmax.h"
#include "slice.h"

namespace ring2 {
namespace {

constexpr uint64_t kChoicesMin = 2;  // fewer have no entropy to normalise by

// A share of the largest entropy, one sample a row.
struct Shares {
  Summary summary;
  SampleBatch samples;
  double most;

  Shares(const SliceContext &context, uint32_t signal, uint64_t choices)
      : samples(context, signal), most(std::log(static_cast<double>(choices))) {}

  void add(double entropy) {
    const double share = std::max(0.0, entropy) / most;
    summary.add(share);
    samples.add(share);
  }
  void publish(ring2_slice *slice, ring2_stat stat) {
    samples.flush();
    if (summary.count > 0) set_stat(slice, stat, summary.mean());
  }
};

// The softmax of one row, false when a NaN or +Inf in it leaves none.
bool softmax_of(const SliceContext &context, const uint8_t *row, uint64_t width,
                RowSoftmax *softmax) {
  for (uint64_t done = 0; done < width; done += kBlockElements) {
    LogitsBlock block;
    const uint8_t *part = row + done * context.element_bytes;
    context.kernels->logits[context.type](part, std::min<uint64_t>(kBlockElements, width - done),
                                          softmax->maximum, &block);
    if (block.moments.nan + block.moments.pos_inf > 0) return false;
    softmax->merge(block, done);
  }
  return true;
}

void router_row(const SliceContext &context, const uint8_t *row, uint64_t width, Shares *shares) {
  RowSoftmax softmax;
  if (!softmax_of(context, row, width, &softmax)) {
    ++context.slice->invalid_rows;
  } else if (softmax.weight > 0) {
    shares->add(softmax.entropy());
  }
}

void weights_row(const SliceContext &context, const uint8_t *row, uint64_t width, Shares *shares) {
  AttentionRow sums;
  context.kernels->attention[context.type](row, width, width, &sums);
  const uint64_t unusable = uint64_t{sums.nan} + sums.pos_inf + sums.neg_inf + sums.negative;
  const double mass = sums.first + sums.rest;
  if (unusable > 0 || !std::isfinite(mass) || !std::isfinite(sums.rest_p_log_p)) {
    ++context.slice->invalid_rows;
  } else if (mass > 0) {
    const double first = sums.first > 0 ? sums.first * std::log(sums.first) : 0;
    shares->add(std::log(mass) - (sums.rest_p_log_p + first) / mass);
  } else {
    ++context.slice->skipped_rows;
  }
}

template <typename Row>
void measure_rows(const SliceContext &context, uint32_t signal, ring2_stat stat, Row add_row) {
  const RowWalk walk = walk_of(*context.slice, context.element_bytes, true);
  if (!wants_group(context, RING2_GROUP_ROUTER) || walk.width < kChoicesMin) return;
  Shares shares(context, signal, walk.width);
  for (uint64_t outer = 0; outer < walk.outer_count(); ++outer) {
    const uint8_t *data = walk.outer(context.data, outer);
    for (uint64_t row = 0; row < walk.rows; ++row) {
      add_row(context, data + row * walk.stride_bytes, walk.width, &shares);
    }
  }
  shares.publish(context.slice, stat);
}

}  // namespace

void measure_router_logits(const SliceContext &context) {
  measure_moments(context);
  measure_rows(context, RING2_SIGNAL_ROUTER_ENTROPY, RING2_STAT_ROUTER_ENTROPY_MEAN, router_row);
}

void measure_expert_weights(const SliceContext &context) {
  measure_moments(context);
  measure_rows(context, RING2_SIGNAL_EXPERT_ENTROPY, RING2_STAT_EXPERT_ENTROPY_MEAN, weights_row);
}

}  // namespace ring2
