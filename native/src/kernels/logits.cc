// Softmax statistics of logits rows, with the moments of the same bytes: hook final_logits.
#include <algorithm>
#include <cmath>

#include "row_softmax.h"
#include "slice.h"

namespace ring2 {
namespace {

struct LogitsRun {
  const SliceContext &context;
  SliceMoments moments;
  RowNorms norms;
  Summary entropy, varentropy, log_sum_exp, top1, margin, margin_probability, maximum;
  SampleBatch entropy_samples, varentropy_samples, top1_samples, margin_samples;
  uint64_t rows_done = 0;

  explicit LogitsRun(const SliceContext &measured)
      : context(measured),
        norms(measured, true),
        entropy_samples(measured, RING2_SIGNAL_LOGITS_ENTROPY),
        varentropy_samples(measured, RING2_SIGNAL_LOGITS_VARENTROPY),
        top1_samples(measured, RING2_SIGNAL_LOGITS_TOP1_PROBABILITY),
        margin_samples(measured, RING2_SIGNAL_LOGITS_MARGIN) {}

  void row(const uint8_t *data, uint64_t width) {
    RowSoftmax softmax;
    double sum_squares = 0;
    uint32_t used = 0;
    uint64_t unusable = 0;
    for (uint64_t done = 0; done < width; done += kBlockElements) {
      const uint64_t count = std::min<uint64_t>(kBlockElements, width - done);
      const uint8_t *part = data + done * context.element_bytes;
      add_to_crc(context, part, count * context.element_bytes);
      LogitsBlock block;
      context.kernels->logits[context.type](part, count, softmax.maximum, &block);
      context.slice->nan_count += block.moments.nan;
      context.slice->pos_inf_count += block.moments.pos_inf;
      context.slice->neg_inf_count += block.moments.neg_inf;
      unusable += block.moments.nan + block.moments.pos_inf;
      moments.merge(block.moments);
      sum_squares += block.sum_squares;
      used += static_cast<uint32_t>(block.moments.used);
      if (unusable == 0) softmax.merge(block, done);
    }
    norms.add(&sum_squares, &used, 1);
    if (context.row_lse != nullptr) {
      const bool valid = unusable == 0 && softmax.weight > 0;
      context.row_lse[rows_done++] = valid ? softmax.log_sum_exp() : NAN;
    }
    finish_row(softmax, unusable);
  }

  void finish_row(const RowSoftmax &softmax, uint64_t unusable) {
    if (unusable > 0) {
      ++context.slice->invalid_rows;
      return;
    }
    if (softmax.weight == 0) {
      ++context.slice->skipped_rows;
      return;
    }
    const double h = softmax.entropy();
    const double spread = softmax.varentropy();
    const double p = 1 / softmax.weight;
    entropy.add(h);
    entropy_samples.add(h);
    varentropy.add(spread);
    varentropy_samples.add(spread);
    log_sum_exp.add(softmax.log_sum_exp());
    top1.add(p);
    top1_samples.add(p);
    maximum.add(softmax.maximum);
    if (std::isfinite(softmax.second)) {
      const double difference = softmax.maximum - softmax.second;
      margin.add(difference);
      margin_samples.add(difference);
      margin_probability.add(-std::expm1(-difference) * p);
    }
    context.slice->top1_id = softmax.top_index;
  }

  void publish() {
    entropy_samples.flush();
    varentropy_samples.flush();
    top1_samples.flush();
    margin_samples.flush();
    ring2_slice *slice = context.slice;
    moments.publish(slice);
    norms.publish(slice);
    if (margin.count > 0) {
      set_stat(slice, RING2_STAT_MARGIN_MEAN, margin.mean());
      set_stat(slice, RING2_STAT_MARGIN_PROBABILITY_MEAN, margin_probability.mean());
    }
    if (entropy.count == 0) return;
    set_stat(slice, RING2_STAT_ENTROPY_MEAN, entropy.mean());
    set_stat(slice, RING2_STAT_ENTROPY_MIN, entropy.least);
    set_stat(slice, RING2_STAT_ENTROPY_MAX, entropy.most);
    set_stat(slice, RING2_STAT_VARENTROPY_MEAN, varentropy.mean());
    set_stat(slice, RING2_STAT_LSE_MEAN, log_sum_exp.mean());
    set_stat(slice, RING2_STAT_TOP1_PROBABILITY_MEAN, top1.mean());
    set_stat(slice, RING2_STAT_LOGIT_MAX_MEAN, maximum.mean());
  }
};

}  // namespace

void measure_logits(const SliceContext &context) {
  LogitsRun run(context);
  const RowWalk walk = walk_of(*context.slice, context.element_bytes, true);
  for (uint64_t outer = 0; outer < walk.outer_count(); ++outer) {
    const uint8_t *data = walk.outer(context.data, outer);
    for (uint64_t row = 0; row < walk.rows; ++row) {
      run.row(data + row * walk.stride_bytes, walk.width);
    }
  }
  run.publish();
}

}  // namespace ring2
