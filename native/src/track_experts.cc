#include "track_experts.h"

#include <algorithm>
#include <cmath>

#include "ring2_hooks.h"
#include "track_place.h"

namespace ring2 {
namespace {

void fold_window(const SliceContext &context, const ExpertWindow &window) {
  const LoadStatistics load = load_statistics(window.chosen);
  fold_value(context, RING2_SIGNAL_EXPERT_MAX_VIOLATION, load.max_violation);
  fold_value(context, RING2_SIGNAL_EXPERT_LOAD_VARIATION, load.variation);
  if (std::isfinite(load.entropy)) {
    fold_value(context, RING2_SIGNAL_EXPERT_LOAD_ENTROPY, load.entropy);
  }
  fold_value(context, RING2_SIGNAL_EXPERT_DEAD_SHARE, load.dead_share);
}

// One token's experts, copied before they are checked; false when one of them does not exist.
bool read_choices(const Place &ids, uint64_t row, uint32_t element_bytes, uint32_t experts,
                  int64_t *choices) {
  for (uint32_t i = 0; i < ids.width; ++i) {
    const uint8_t *at = ids.row(row) + uint64_t{i} * element_bytes;
    if (!integer_at(at, ids.dtype, &choices[i])) return false;
    if (choices[i] < 0 || choices[i] >= int64_t{experts}) return false;
  }
  return true;
}

void count_choices(const SliceContext &context, ExpertLayer *layer) {
  const Place ids = place_of(context);
  int64_t choices[kChoicesMax];
  if (ids.data == nullptr || layer->experts == 0 || ids.width > kChoicesMax) return;
  if (!integer_at(ids.data, ids.dtype, choices)) return;
  ExpertWindow &window = layer->windows[context.slice->phase == RING2_PHASE_DECODE ? 1 : 0];
  window.chosen.resize(layer->experts);
  for (uint64_t row = 0; row < ids.rows; ++row) {
    if (!read_choices(ids, row, context.element_bytes, layer->experts, choices)) {
      ++context.slice->invalid_rows;
      continue;
    }
    for (uint32_t i = 0; i < ids.width; ++i) ++window.chosen[static_cast<size_t>(choices[i])];
    window.total += ids.width;
    if (window.total < kChoicesPerExpert * layer->experts) continue;
    fold_window(context, window);
    window = ExpertWindow();
    window.chosen.resize(layer->experts);
  }
}

}  // namespace

LoadStatistics load_statistics(const std::vector<uint64_t> &counts) {
  const double experts = static_cast<double>(counts.size());
  double total = 0, most = 0, dead = 0;
  for (const uint64_t count : counts) {
    total += static_cast<double>(count);
    most = std::max(most, static_cast<double>(count));
    dead += count == 0;
  }
  const double mean = total / experts;
  double squares = 0, entropy = 0;
  for (const uint64_t count : counts) {
    const double share = static_cast<double>(count) / total;
    squares += (static_cast<double>(count) - mean) * (static_cast<double>(count) - mean);
    if (count > 0) entropy -= share * std::log(share);
  }
  return {most / mean - 1, std::sqrt(squares / experts) / mean, entropy / std::log(experts),
          dead / experts};
}

void track_experts(const SliceContext &context, ExpertLoads *loads) {
  const ring2_slice &slice = *context.slice;
  if (slice.ndim != 2 || slice.layer < 0 || slice.layer >= static_cast<int32_t>(RING2_LAYERS_MAX)) {
    return;
  }
  if (loads->layers.empty()) loads->layers.resize(RING2_LAYERS_MAX);
  ExpertLayer &layer = loads->layers[static_cast<uint32_t>(slice.layer)];
  if (slice.hook == RING2_HOOK_TOPK_IDS) return count_choices(context, &layer);
  const uint32_t experts = slice.dims[1] <= kExpertsMax ? slice.dims[1] : 0;
  if (experts != layer.experts) layer = ExpertLayer{experts, {}};
}

}  // namespace ring2
