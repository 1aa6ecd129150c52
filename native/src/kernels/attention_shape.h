// Where attention lies, head by head: the statistics of RING2_GROUP_ATTENTION. Fed by the walk of
// attention.cc with the rows that hold probabilities.
#ifndef RING2_KERNELS_ATTENTION_SHAPE_H
#define RING2_KERNELS_ATTENTION_SHAPE_H

#include <memory>

#include "slice.h"

namespace ring2 {

class AttentionShape {
 public:
  AttentionShape(const SliceContext &context, const RowWalk &walk);

  void begin_head();
  // A row whose elements are probabilities with a sum above 0, and that sum.
  void row(const uint8_t *data, uint64_t position, double mass);
  // The row's entropy without key 0, normalised, where it has one.
  void no_sink(double share) { head_no_sink_.add(share); }
  // whole: every row of the head was given to row().
  void end_head(bool whole);
  void publish();

 private:
  // A statistic and the signal of its samples, one of each row that has it.
  struct Mass {
    Summary summary;
    SampleBatch samples;

    Mass(const SliceContext &context, uint32_t signal) : samples(context, signal) {}
    void add(double value) {
      summary.add(value);
      samples.add(value);
    }
    void publish(ring2_slice *slice, ring2_stat stat);
  };

  void add_lookback(const uint8_t *data, uint64_t position, double mass);
  void add_row_to_columns(const uint8_t *data, uint64_t position);
  void merge_columns();

  const SliceContext &context_;
  uint64_t keys_, queries_;
  int64_t prompt_tokens_;  // 0: no lookback
  Mass sink_4_, previous_, self_, recency_, lookback_, top_key_;
  Summary head_no_sink_, heads_;
  uint64_t collapsed_heads_ = 0;
  double row_sum_error_ = 0;
  uint64_t valid_rows_ = 0;
  // Mass of each key over the queries so far: float32 for the last rows, float64 for those before.
  uint64_t columns_ = 0;  // 0: no top key
  uint64_t pending_rows_ = 0;
  std::unique_ptr<float[]> pending_;
  std::unique_ptr<double[]> totals_;
};

}  // namespace ring2
#endif
