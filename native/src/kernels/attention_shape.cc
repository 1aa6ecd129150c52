#include "attention_shape.h"

#include <algorithm>
#include <cmath>
#include <new>

namespace ring2 {
namespace {

// A head whose mean entropy without the sink is below this share of the most possible has
// collapsed: this project's convention, no paper's.
constexpr double kCollapsedBelow = 0.05;
constexpr uint64_t kSinkKeys = 4;
// Rows that columns are summed over in float32 before they go to float64.
constexpr uint64_t kPendingRowsMax = 128;

// Keys that at least half of the queries see: the mean over a few queries is no property of a key.
uint64_t judged_keys(uint64_t keys, uint64_t queries) {
  return std::min(keys, queries / 2 + 1);
}

uint64_t rounded_up(uint64_t columns) {
  return (columns + kColumnsStep - 1) / kColumnsStep * kColumnsStep;
}

}  // namespace

void AttentionShape::Mass::publish(ring2_slice *slice, ring2_stat stat) {
  samples.flush();
  if (summary.count > 0) set_stat(slice, stat, summary.mean());
}

AttentionShape::AttentionShape(const SliceContext &context, const RowWalk &walk)
    : context_(context),
      keys_(walk.width),
      queries_(walk.rows),
      prompt_tokens_(context.slice->phase == RING2_PHASE_DECODE
                         ? std::max<int64_t>(context.slice->prompt_tokens, 0)
                         : 0),
      sink_4_(context, RING2_SIGNAL_ATTENTION_SINK_MASS_4),
      previous_(context, RING2_SIGNAL_ATTENTION_PREVIOUS_TOKEN_MASS),
      self_(context, RING2_SIGNAL_ATTENTION_SELF_MASS),
      recency_(context, RING2_SIGNAL_ATTENTION_RECENCY_MASS),
      lookback_(context, RING2_SIGNAL_ATTENTION_LOOKBACK_RATIO),
      top_key_(context, RING2_SIGNAL_ATTENTION_TOP_KEY_MASS) {
  const ring2_slice &slice = *context.slice;
  if (slice.phase != RING2_PHASE_PREFILL || slice.token_start != 0 || queries_ < 2) return;
  // A pattern from token 0 has at least as many queries as columns, so these are the square root of
  // what the slice itself takes. Without memory for them there is no value.
  const uint64_t columns = judged_keys(keys_, queries_);
  pending_.reset(new (std::nothrow) float[rounded_up(columns)]);
  totals_.reset(new (std::nothrow) double[columns]);
  if (pending_ != nullptr && totals_ != nullptr) columns_ = columns;
}

void AttentionShape::begin_head() {
  head_no_sink_ = {};
  pending_rows_ = 0;
  if (columns_ == 0) return;
  std::fill_n(pending_.get(), rounded_up(columns_), 0.0f);
  std::fill_n(totals_.get(), columns_, 0.0);
}

void AttentionShape::row(const uint8_t *data, uint64_t position, double mass) {
  ++valid_rows_;
  row_sum_error_ = std::max(row_sum_error_, std::fabs(mass - 1));
  if (columns_ > 0) add_row_to_columns(data, position);
  // With fewer keys than tokens nobody knows which token a key is.
  if (position >= keys_) return;
  AttentionPlaces places;
  context_.kernels->attention_places[context_.type](data, position, &places);
  self_.add(places.self);
  if (position >= 1) previous_.add(places.previous);
  if (position >= kSinkKeys) sink_4_.add(places.first_four);
  if (position >= kRecentKeys) recency_.add(places.recent);
  const uint64_t prompt = static_cast<uint64_t>(prompt_tokens_);
  if (prompt > 0 && position >= prompt) add_lookback(data, position, mass);
}

// The shorter part is summed and the longer one is what remains: its mean then errs by no more than
// the row's sum does, however little mass it has.
void AttentionShape::add_lookback(const uint8_t *data, uint64_t position, double mass) {
  const uint64_t context_keys = static_cast<uint64_t>(prompt_tokens_);
  const uint64_t new_keys = position + 1 - context_keys;
  const auto sum = context_.kernels->sum[context_.type];
  const bool sums_new = new_keys <= context_keys;
  const uint64_t new_bytes = context_keys * context_.element_bytes;
  const double shorter = sums_new ? sum(data + new_bytes, new_keys) : sum(data, context_keys);
  const double longer = std::max(0.0, mass - shorter);
  const double context_mean = (sums_new ? longer : shorter) / static_cast<double>(context_keys);
  const double new_mean = (sums_new ? shorter : longer) / static_cast<double>(new_keys);
  if (context_mean + new_mean > 0) lookback_.add(context_mean / (context_mean + new_mean));
}

void AttentionShape::add_row_to_columns(const uint8_t *data, uint64_t position) {
  const uint64_t seen = std::min(columns_, position + 1);
  context_.kernels->add_columns[context_.type](data, keys_, seen, pending_.get());
  if (++pending_rows_ == kPendingRowsMax) merge_columns();
}

void AttentionShape::merge_columns() {
  for (uint64_t key = 0; key < columns_; ++key) {
    totals_[key] += static_cast<double>(pending_[key]);
    pending_[key] = 0;
  }
  pending_rows_ = 0;
}

void AttentionShape::end_head(bool whole) {
  if (head_no_sink_.count > 0) {
    heads_.add(head_no_sink_.mean());
    collapsed_heads_ += head_no_sink_.mean() < kCollapsedBelow;
  }
  if (columns_ == 0 || !whole) return;
  merge_columns();
  double top = 0;
  for (uint64_t key = 0; key < columns_; ++key) {
    top = std::max(top, totals_[key] / static_cast<double>(queries_ - key));
  }
  top_key_.add(top);
}

void AttentionShape::publish() {
  ring2_slice *slice = context_.slice;
  sink_4_.publish(slice, RING2_STAT_SINK_MASS_4);
  previous_.publish(slice, RING2_STAT_PREVIOUS_TOKEN_MASS);
  self_.publish(slice, RING2_STAT_SELF_MASS);
  recency_.publish(slice, RING2_STAT_RECENCY_MASS);
  lookback_.publish(slice, RING2_STAT_LOOKBACK_RATIO);
  top_key_.publish(slice, RING2_STAT_TOP_KEY_MASS);
  if (valid_rows_ > 0) set_stat(slice, RING2_STAT_ROW_SUM_ERROR, row_sum_error_);
  if (heads_.count == 0) return;
  const double share =
      static_cast<double>(collapsed_heads_) / static_cast<double>(heads_.count);
  set_stat(slice, RING2_STAT_HEAD_ENTROPY_MIN, heads_.least);
  set_stat(slice, RING2_STAT_COLLAPSED_HEAD_SHARE, share);
  fold_value(context_, RING2_SIGNAL_ATTENTION_COLLAPSED_HEADS, share);
}

}  // namespace ring2
