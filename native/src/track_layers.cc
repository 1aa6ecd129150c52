// The residual stream against the stream one layer before, and a branch's output against the stream
// that it is added to: token by token, read where both lie.
#include <algorithm>
#include <cmath>

#include "measure.h"
#include "ring2_hooks.h"
#include "track_state.h"
#include "track_stream.h"

namespace ring2 {
namespace {

// Cosine and growth of each token from one layer to the next.
struct LayerComparison {
  Summary cosine;
  double log_growth = 0;
  SampleBatch distance_samples, growth_samples;

  explicit LayerComparison(const SliceContext &context)
      : distance_samples(context, RING2_SIGNAL_LAYER_COSINE_DISTANCE),
        growth_samples(context, RING2_SIGNAL_LAYER_GROWTH) {}

  void add(const PairSums &sums) {
    if (!has_direction(sums.first) || !has_direction(sums.second)) return;
    const double before = std::sqrt(sums.first), after = std::sqrt(sums.second);
    const double value = std::clamp(sums.dot / before / after, -1.0, 1.0);
    cosine.add(value);
    distance_samples.add(1 - value);
    log_growth += std::log(after / before);
    growth_samples.add(after / before);
  }

  void publish(ring2_slice *slice) {
    distance_samples.flush();
    growth_samples.flush();
    if (cosine.count == 0) return;
    set_stat(slice, RING2_STAT_LAYER_COSINE_MEAN, cosine.mean());
    set_stat(slice, RING2_STAT_LAYER_COSINE_MIN, cosine.least);
    set_stat(slice, RING2_STAT_LAYER_GROWTH_MEAN,
             std::exp(log_growth / static_cast<double>(cosine.count)));
  }
};

// The stream that this one is compared with; nullptr when it is not there, or not the one before.
const Place *layer_before(const SliceContext &context, const ring2_track &track,
                          const TrackedRequest &request, const Place &stream) {
  const Place &before = request.residual;
  if ((context.slice->groups & RING2_GROUP_LAYERS) == 0) return nullptr;
  if (!readable(track.ring, before) || !same_tokens(before, stream)) return nullptr;
  if (context.slice->hook != RING2_HOOK_RESID_FINAL) {
    return int64_t{before.layer} + 1 == stream.layer ? &before : nullptr;
  }
  // How many layers the model has is not known here. With a gap in the captured layers the highest
  // of them is likely not the model's last.
  return request.chained && before.layer == track.highest_layer ? &before : nullptr;
}

void measure_residual(const SliceContext &context, ElementType type, const Place &stream,
                      ring2_track *track, TrackedRequest *request) {
  const Place *before = layer_before(context, *track, *request, stream);
  LayerComparison comparison(context);
  StreamRows representation(context, type, stream, track, request);
  for (uint64_t done = 0; done < stream.rows && (before != nullptr || representation.wanted());
       done += kStreamRows) {
    const uint64_t count = std::min<uint64_t>(kStreamRows, stream.rows - done);
    double squares[kStreamRows];
    for (uint64_t i = 0; i < count; ++i) {
      const uint8_t *row = stream.row(done + i);
      const uint8_t *row_before = before != nullptr ? before->row(done + i) : row;
      PairSums sums;
      context.kernels->pair[type](row_before, row, stream.width, &sums);
      if (before != nullptr) comparison.add(sums);
      squares[i] = sums.second;
    }
    if (representation.wanted()) representation.add(done, squares, count);
  }
  comparison.publish(context.slice);
  representation.publish();
  if (context.slice->hook != RING2_HOOK_RESID_PRE) return;
  request->chained = before != nullptr;
  request->residual = stream;
  track->highest_layer = std::max(track->highest_layer, stream.layer);
}

// |branch| / |stream| of each token, the stream as it was before the branch was added.
void measure_contribution(const SliceContext &context, ElementType type, const Place &branch,
                          const ring2_track &track, const Place &stream) {
  if (!readable(track.ring, stream) || !same_tokens(stream, branch)) return;
  if (stream.layer != branch.layer) return;
  Summary ratio;
  SampleBatch samples(context, RING2_SIGNAL_BRANCH_CONTRIBUTION);
  for (uint64_t row = 0; row < branch.rows; ++row) {
    PairSums sums;
    context.kernels->pair[type](stream.row(row), branch.row(row), branch.width, &sums);
    if (!has_direction(sums.first) || !std::isfinite(sums.second)) continue;
    const double value = std::sqrt(sums.second) / std::sqrt(sums.first);
    ratio.add(value);
    samples.add(value);
  }
  samples.flush();
  if (ratio.count > 0) set_stat(context.slice, RING2_STAT_CONTRIBUTION_MEAN, ratio.mean());
}

}  // namespace

bool has_direction(double squares) {
  return std::isfinite(squares) && squares >= kNormMin * kNormMin;
}

void track_stream(const SliceContext &context, ring2_track *track, TrackedRequest *request) {
  ElementType type;
  if (context.slice->ndim != 2 || !element_type_of(context.slice->dtype, &type)) return;
  const Place stream = place_of(context);
  if (stream.data == nullptr) return;
  switch (context.slice->hook) {
    case RING2_HOOK_RESID_MID:
      request->residual_mid = stream;
      return;
    case RING2_HOOK_ATTN_OUT:
      return measure_contribution(context, type, stream, *track, request->residual);
    case RING2_HOOK_MLP_OUT:
      return measure_contribution(context, type, stream, *track, request->residual_mid);
    default:
      measure_residual(context, type, stream, track, request);
  }
}

}  // namespace ring2
