// Entropy and sink statistics of attention patterns [heads, queries, keys]: hook pattern.
//
// The slice's first key is the request's first key, so query i of the slice sees
// token_start + i + 1 keys, at most all of them. Probabilities are normalised by their row's sum
// for entropies and left as they are for masses on key 0, as in the definitions cited in
// docs/statistics.md.
#include <algorithm>
#include <cmath>

#include "attention_shape.h"
#include "slice.h"

namespace ring2 {
namespace {

// Gu et al. 2025: a head is a sink when the mean attention on key 0 over the first 64 queries
// exceeds 0.3. The share falls with the number of queries, which is therefore fixed.
constexpr uint64_t kSinkQueries = 64;
constexpr double kSinkThreshold = 0.3;
// With less than this beside key 0, what is left says nothing about the other keys.
constexpr double kRestMin = 1e-3;

// A query's maximal entropy, ln n, for the numbers of visible keys that a slice has. Every head
// asks for the same ones.
struct LogCounts {
  static constexpr uint64_t kKept = 1024;
  uint64_t first;
  double of_count[kKept];

  LogCounts(uint64_t least, uint64_t most) : first(least) {
    for (uint64_t n = least; n <= most && n - least < kKept; ++n) of_count[n - least] = exact(n);
  }
  static double exact(uint64_t n) { return std::log(static_cast<double>(n)); }
  double operator()(uint64_t n) const { return n - first < kKept ? of_count[n - first] : exact(n); }
};

double not_negative(double value) { return value > 0 ? value : 0; }

// ln of a row's sum, which is 1 but for the type's rounding: a short series then does.
double log_of_mass(double mass) {
  const double x = mass - 1;
  if (x > 1e-3 || x < -1e-3) return std::log(mass);
  return x * (1 - x * (1.0 / 2 - x * (1.0 / 3 - x * (1.0 / 4))));
}

struct AttentionRun {
  const SliceContext &context;
  AttentionShape *shape;  // nullptr: not wanted
  uint64_t keys;
  LogCounts log_counts;
  Summary entropy, normalized, no_sink, sink_mass;
  uint64_t scored_heads = 0, sink_heads = 0;
  SampleBatch normalized_samples, no_sink_samples, sink_mass_samples;

  AttentionRun(const SliceContext &measured, const RowWalk &walk, AttentionShape *wanted)
      : context(measured),
        shape(wanted),
        keys(walk.width),
        log_counts(std::min(keys, token_start()), std::min(keys, token_start() + walk.rows)),
        normalized_samples(measured, RING2_SIGNAL_ATTENTION_ENTROPY),
        no_sink_samples(measured, RING2_SIGNAL_ATTENTION_ENTROPY_NO_SINK),
        sink_mass_samples(measured, RING2_SIGNAL_ATTENTION_SINK_MASS) {}

  uint64_t token_start() const { return static_cast<uint64_t>(context.slice->token_start); }

  // False when the row has no value.
  bool row(const uint8_t *data, uint64_t position, double *first) {
    const uint64_t visible = std::min(keys, position + 1);
    AttentionRow sums;
    context.kernels->attention[context.type](data, keys, visible, &sums);
    ring2_slice *slice = context.slice;
    slice->nan_count += sums.nan;
    slice->pos_inf_count += sums.pos_inf;
    slice->neg_inf_count += sums.neg_inf;
    const uint64_t unusable = uint64_t{sums.nan} + sums.pos_inf + sums.neg_inf + sums.negative;
    if (unusable > 0 || !std::isfinite(sums.rest) || !std::isfinite(sums.rest_p_log_p)) {
      ++slice->invalid_rows;
      return false;
    }
    if (!(sums.first + sums.rest > 0)) {
      ++slice->skipped_rows;
      return false;
    }
    add_values(sums, visible, position);
    if (shape != nullptr) shape->row(data, position, sums.first + sums.rest);
    *first = sums.first;
    return true;
  }

  void add_values(const AttentionRow &sums, uint64_t visible, uint64_t position) {
    const double mass = sums.first + sums.rest;
    const double first_p_log_p = sums.first > 0 ? sums.first * std::log(sums.first) : 0;
    const double h = not_negative(log_of_mass(mass) - (sums.rest_p_log_p + first_p_log_p) / mass);
    entropy.add(h);
    if (position >= 1) {
      sink_mass.add(sums.first);
      sink_mass_samples.add(sums.first);
    }
    if (visible >= 2) {
      const double share = h / log_counts(visible);
      normalized.add(share);
      normalized_samples.add(share);
    }
    if (visible >= 3 && sums.rest >= kRestMin * mass) {
      const double rest_h = not_negative(std::log(sums.rest) - sums.rest_p_log_p / sums.rest);
      const double share = rest_h / log_counts(visible - 1);
      no_sink.add(share);
      no_sink_samples.add(share);
      if (shape != nullptr) shape->no_sink(share);
    }
  }

  void head(const uint8_t *data, const RowWalk &walk) {
    const bool scored = token_start() == 0 && walk.rows >= kSinkQueries;
    const uint64_t row_bytes = keys * context.element_bytes;
    double alpha = 0;
    bool whole = true, scored_whole = scored;
    if (shape != nullptr) shape->begin_head();
    for (uint64_t query = 0; query < walk.rows; ++query) {
      const uint8_t *at = data + query * walk.stride_bytes;
      add_to_crc(context, at, row_bytes);
      double first = 0;
      const bool valid = row(at, token_start() + query, &first);
      whole = whole && valid;
      if (query >= kSinkQueries) continue;
      alpha += first / static_cast<double>(kSinkQueries);
      scored_whole = scored_whole && valid;
    }
    if (shape != nullptr) shape->end_head(whole);
    if (!scored_whole) return;
    ++scored_heads;
    sink_heads += alpha > kSinkThreshold;
  }

  void publish() {
    normalized_samples.flush();
    no_sink_samples.flush();
    sink_mass_samples.flush();
    ring2_slice *slice = context.slice;
    if (entropy.count > 0) {
      set_stat(slice, RING2_STAT_ENTROPY_MEAN, entropy.mean());
      set_stat(slice, RING2_STAT_ENTROPY_MIN, entropy.least);
      set_stat(slice, RING2_STAT_ENTROPY_MAX, entropy.most);
    }
    if (normalized.count > 0) {
      set_stat(slice, RING2_STAT_ENTROPY_NORMALIZED_MEAN, normalized.mean());
    }
    if (no_sink.count > 0) set_stat(slice, RING2_STAT_ENTROPY_NO_SINK_MEAN, no_sink.mean());
    if (sink_mass.count > 0) set_stat(slice, RING2_STAT_SINK_MASS, sink_mass.mean());
    if (scored_heads > 0) {
      const double share = static_cast<double>(sink_heads) / static_cast<double>(scored_heads);
      set_stat(slice, RING2_STAT_SINK_SCORE, share);
    }
  }
};

void measure_heads(const SliceContext &context, const RowWalk &walk, AttentionShape *shape) {
  AttentionRun run(context, walk, shape);
  for (uint64_t head = 0; head < walk.outer_count(); ++head) {
    run.head(walk.outer(context.data, head), walk);
  }
  run.publish();
}

}  // namespace

void measure_attention(const SliceContext &context) {
  const RowWalk walk = walk_of(*context.slice, context.element_bytes, false);
  if (!wants_group(context, RING2_GROUP_ATTENTION)) return measure_heads(context, walk, nullptr);
  AttentionShape shape(context, walk);
  measure_heads(context, walk, &shape);
  shape.publish();
}

}  // namespace ring2
