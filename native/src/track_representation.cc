// How alike the tokens of a request are: mean cosine of all pairs, distance from the mean token,
// and participation ratio.
//
// The mean cosine of n rows u of length 1 over all pairs of different rows is (|sum u|^2 / n - 1) /
// (n - 1), so one sum replaces the pairs; see docs/statistics.md.
#include "track_representation.h"

#include <algorithm>
#include <cmath>

#include "ring2_hooks.h"
#include "track_stream.h"

namespace ring2 {
namespace {

constexpr uint32_t kWindowLayers = RING2_LAYERS_MAX + 1;  // the last one is resid_final
// Below this share of the squares, what is left of them without the mean is summed once more from
// the rows: the difference of two near numbers in float32 has lost too many digits.
constexpr double kCentredShareMin = 1.0 / 64;

// Longer rows leave the range of the float32 sums.
constexpr double kNormMax = 1e30;

bool is_usable(double squares) { return has_direction(squares) && squares <= kNormMax * kNormMax; }

uint32_t padded(uint32_t width) {
  return (width + kRowSumsMultiple - 1) / kRowSumsMultiple * kRowSumsMultiple;
}

template <typename Values>
double squares_of(const Values &values) {
  double sums[4] = {};
  for (size_t i = 0; i < values.size(); ++i) {
    sums[i % 4] += static_cast<double>(values[i]) * static_cast<double>(values[i]);
  }
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

void add_rows(const SliceContext &context, ElementType type, const uint8_t *const *rows,
             const double *squares, uint64_t count, uint32_t width, StreamSums *sums) {
  float scales[kStreamRows];
  for (uint64_t i = 0; i < count; ++i) {
    scales[i] = static_cast<float>(1 / std::sqrt(squares[i]));
    sums->squares += squares[i];
  }
  context.kernels->add_rows[type](rows, scales, count, width, sums->rows.data(),
                                  sums->units.data());
  sums->count += count;
}

// The window of this layer, made when a token begins one; nullptr: there is no room, or nothing.
std::unique_ptr<StreamWindow> *window_of(const ring2_slice &slice, uint32_t width,
                                         ring2_track *track, TrackedRequest *request) {
  const bool final = slice.hook == RING2_HOOK_RESID_FINAL;
  if (!final && (slice.layer < 0 || slice.layer >= static_cast<int32_t>(RING2_LAYERS_MAX))) {
    return nullptr;
  }
  auto &windows = request->windows.by_layer;
  if (windows.empty()) {
    if (!take_window_bytes(track, request, kWindowLayers * sizeof windows[0])) return nullptr;
    windows.resize(kWindowLayers);
  }
  auto &window = windows[final ? kWindowLayers - 1 : static_cast<uint32_t>(slice.layer)];
  if (window == nullptr) {
    if (!take_window_bytes(track, request, StreamSums::bytes_of(width))) return nullptr;
    window = std::make_unique<StreamWindow>();
    window->sums.start(width);
    window->width = width;
  }
  return &window;
}

void drop_window(ring2_track *track, TrackedRequest *request,
                 std::unique_ptr<StreamWindow> *window) {
  const uint64_t bytes = StreamSums::bytes_of((*window)->width);
  track->window_bytes -= bytes;
  request->windows.bytes -= bytes;
  window->reset();
}

}  // namespace

uint64_t StreamSums::bytes_of(uint32_t width) {
  return sizeof(StreamWindow) + 2 * sizeof(float) * uint64_t{padded(width)};
}

void StreamSums::start(uint32_t width) {
  rows.assign(padded(width), 0);
  units.assign(padded(width), 0);
  squares = 0;
  count = 0;
}

double participation_ratio(const Kernels &kernels, ElementType type, const uint8_t *const *rows,
                           uint32_t count, uint32_t width) {
  GramSums gram;
  kernels.gram[type](rows, count, width, &gram);
  return gram.trace * gram.trace / gram.squares;
}

StreamRows::StreamRows(const SliceContext &context, ElementType type, const Place &stream,
                       ring2_track *track, TrackedRequest *request)
    : context_(context), type_(type), stream_(stream), track_(track), request_(request) {
  wanted_ = (context.slice->groups & RING2_GROUP_REPRESENTATION) != 0 &&
            stream.width <= kStreamWidthMax;
  prefill_ = context.slice->phase != RING2_PHASE_DECODE;
  if (!prefill_) return;
  wanted_ = wanted_ && stream.rows >= (stream.token_start == 0 ? 3 : 2);
  if (!wanted_) return;
  StreamScratch &scratch = track->stream;
  scratch.part.start(stream.width);
  scratch.row_total.assign(padded(stream.width), 0);
  scratch.unit_total.assign(padded(stream.width), 0);
}

// Position 0 is left out: its norm and direction are its own (an attention sink).
bool StreamRows::takes(uint64_t row, double squares) {
  if (stream_.token_start == 0 && row == 0) return false;
  if (is_usable(squares)) return true;
  ++left_out_;
  if (squares < kNormMin * kNormMin) ++context_.slice->skipped_rows;
  return false;
}

void StreamRows::add(uint64_t first, const double *squares, uint64_t count) {
  if (prefill_) return add_prefill(first, squares, count);
  for (uint64_t i = 0; i < count; ++i) add_decode(first + i, squares[i]);
}

void StreamRows::add_prefill(uint64_t first, const double *squares, uint64_t count) {
  const uint8_t *rows[kStreamRows];
  double kept[kStreamRows];
  uint64_t taken = 0;
  for (uint64_t i = 0; i < count; ++i) {
    if (!takes(first + i, squares[i])) continue;
    rows[taken] = stream_.row(first + i);
    kept[taken++] = squares[i];
  }
  StreamSums &part = track_->stream.part;
  if (part.count + taken > kWindowTokens) flush_part();
  add_rows(context_, type_, rows, kept, taken, stream_.width, &part);
}

// Float32 sums of a few rows, into float64 ones of all.
void StreamRows::flush_part() {
  StreamScratch &scratch = track_->stream;
  StreamSums &part = scratch.part;
  for (size_t i = 0; i < part.rows.size(); ++i) {
    scratch.row_total[i] += static_cast<double>(part.rows[i]);
    scratch.unit_total[i] += static_cast<double>(part.units[i]);
  }
  used_ += part.count;
  squares_ += part.squares;
  part.start(stream_.width);
}

void StreamRows::add_decode(uint64_t row, double squares) {
  const auto position = static_cast<int32_t>(stream_.token_start + static_cast<int64_t>(row));
  auto *place = window_of(*context_.slice, stream_.width, track_, request_);
  if (place == nullptr) return;
  StreamWindow &window = **place;
  const bool fresh = window.tokens == 0;
  // The same token once more comes from another rank.
  if (!fresh && window.step == stream_.step && position < window.next) return;
  const bool goes_on = window.next == position && window.dtype == stream_.dtype;
  if (!fresh && (!goes_on || window.width != stream_.width)) {
    drop_window(track_, request_, place);
    return add_decode(row, squares);
  }
  window.step = stream_.step;
  window.next = position + 1;
  window.dtype = stream_.dtype;
  ++window.tokens;
  if (takes(row, squares)) {
    const uint8_t *at = stream_.row(row);
    add_rows(context_, type_, &at, &squares, 1, stream_.width, &window.sums);
  }
  if (window.tokens < kWindowTokens) return;
  const StreamSums &sums = window.sums;
  const double count = static_cast<double>(sums.count);
  publish_likeness(count, squares_of(sums.units), sums.squares - squares_of(sums.rows) / count,
                   sums.squares);
  drop_window(track_, request_, place);
}

// Squares of the distances of the used rows from their mean.
double StreamRows::centred_squares(double count) {
  StreamScratch &scratch = track_->stream;
  scratch.mean.resize(scratch.row_total.size());
  for (size_t i = 0; i < scratch.mean.size(); ++i) {
    scratch.mean[i] = static_cast<float>(scratch.row_total[i] / count);
  }
  double squares = 0;
  for (uint64_t row = stream_.token_start == 0 ? 1 : 0; row < stream_.rows; ++row) {
    const uint8_t *at = stream_.row(row);
    if (left_out_ > 0) {
      PairSums sums;
      context_.kernels->pair[type_](at, at, stream_.width, &sums);
      if (!is_usable(sums.second)) continue;
    }
    squares += context_.kernels->centred[type_](at, stream_.width, scratch.mean.data());
  }
  return squares;
}

void StreamRows::publish() {
  if (!wanted_ || !prefill_) return;
  flush_part();
  publish_prefill();
  if (stream_.rows > kParticipationTokens) publish_participation();
}

void StreamRows::publish_prefill() {
  const StreamScratch &scratch = track_->stream;
  const double count = static_cast<double>(used_);
  if (used_ < 2) return;
  double centred = squares_ - squares_of(scratch.row_total) / count;
  if (centred < kCentredShareMin * squares_) {
    centred = centred_squares(count);
  }
  publish_likeness(count, squares_of(scratch.unit_total), centred, squares_);
}

void StreamRows::publish_likeness(double count, double unit_squares, double centred,
                                  double squares) {
  if (count < 2) return;
  const double cosine = (unit_squares / count - 1) / (count - 1);
  if (std::isfinite(cosine)) {
    const double clamped = std::clamp(cosine, -1 / (count - 1), 1.0);
    set_stat(context_.slice, RING2_STAT_TOKEN_COSINE_MEAN, clamped);
    fold_value(context_, RING2_SIGNAL_TOKEN_COSINE_DISTANCE, 1 - clamped);
  }
  const double residual = std::sqrt(std::max(centred, 0.0) / squares);
  if (std::isfinite(centred) && std::isfinite(residual)) {
    set_stat(context_.slice, RING2_STAT_RANK_RESIDUAL, std::min(residual, 1.0));
    fold_value(context_, RING2_SIGNAL_RANK_RESIDUAL, std::min(residual, 1.0));
  }
}

void StreamRows::publish_participation() {
  const uint8_t *rows[kParticipationTokens];
  for (uint64_t i = 0; i < kParticipationTokens; ++i) {
    rows[i] = stream_.row(stream_.rows - kParticipationTokens + i);
  }
  const double ratio = participation_ratio(*context_.kernels, type_, rows, kParticipationTokens,
                                           stream_.width);
  if (!std::isfinite(ratio)) return;
  set_stat(context_.slice, RING2_STAT_PARTICIPATION_RATIO, ratio);
  fold_value(context_, RING2_SIGNAL_PARTICIPATION_RATIO, ratio);
}

}  // namespace ring2
