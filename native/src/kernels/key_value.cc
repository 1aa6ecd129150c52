#include "key_value.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <new>

#include "elements.h"
#include "ring2_hooks.h"

namespace ring2 {
namespace {

// With fewer tokens their median says nothing.
constexpr uint32_t kTokensMin = 8;
// 8 MiB of norms. A slice with more rows has none of these values.
constexpr uint64_t kRowsMax = 1 << 20;
// Tokens whose squares are summed in float32 before they go to float64.
constexpr uint64_t kPendingTokensMax = 64;
constexpr double kLargest = std::numeric_limits<double>::max();

template <typename Value>
std::unique_ptr<Value[]> zeros(uint64_t count) {
  return std::unique_ptr<Value[]>(new (std::nothrow) Value[count]());
}

// The lower median of the values that are numbers; 0 when there are none.
double lower_median(const double *values, uint64_t count, double *room, uint64_t *numbers) {
  double *end = std::copy_if(values, values + count, room, [](double v) { return !std::isnan(v); });
  *numbers = static_cast<uint64_t>(end - room);
  if (*numbers == 0) return 0;
  double *middle = room + (*numbers - 1) / 2;
  std::nth_element(room, middle, end);
  return *middle;
}

// After lower_median: the largest is behind the middle or the middle itself.
double largest_of(const double *room, uint64_t numbers) {
  return *std::max_element(room + (numbers - 1) / 2, room + numbers);
}

void add_ratio(double value, double median, Summary *summary, SampleBatch *samples) {
  if (!(median > 0) || !(value / median <= kLargest)) return;
  summary->add(value / median);
  samples->add(value / median);
}

}  // namespace

bool has_key_value(const SliceContext &context) {
  const ring2_slice &slice = *context.slice;
  if (slice.hook != RING2_HOOK_K && slice.hook != RING2_HOOK_V) return false;
  return wants_group(context, RING2_GROUP_KV) && slice.ndim == 3 && slice.dims[0] >= kTokensMin &&
         uint64_t{slice.dims[0]} * slice.dims[1] <= kRowsMax;
}

KeyValueRows::KeyValueRows(const SliceContext &context)
    : context_(context),
      tokens_(context.slice->dims[0]),
      heads_(context.slice->dims[1]),
      width_(context.slice->dims[2]),
      norms_(zeros<double>(tokens_ * heads_)),
      pending_(zeros<float>(heads_ * width_)),
      squares_(zeros<double>(heads_ * width_)),
      missing_(zeros<uint32_t>(heads_ * width_)),
      sorted_(zeros<double>(std::max(tokens_, width_))),
      token_samples_(context, RING2_SIGNAL_KV_TOKEN_OUTLIER),
      channel_samples_(context, RING2_SIGNAL_KV_CHANNEL_OUTLIER),
      first_samples_(context, RING2_SIGNAL_KV_FIRST_TOKEN_RATIO) {
  const bool complete = norms_ != nullptr && pending_ != nullptr && squares_ != nullptr &&
                        missing_ != nullptr && sorted_ != nullptr;
  if (!complete) norms_.reset();
}

void KeyValueRows::row(const RowMoments &row) {
  if (norms_ == nullptr) return;
  const uint64_t token = rows_ / heads_;
  const uint64_t head = rows_ % heads_;
  ++rows_;
  const bool has_norm = row.used > 0 && row.sum_squares <= kLargest;
  norms_[head * tokens_ + token] =
      has_norm ? std::sqrt(row.sum_squares) : std::numeric_limits<double>::quiet_NaN();
  add_channels(row, head);
  if (head + 1 < heads_) return;
  if (++pending_tokens_ == kPendingTokensMax) merge_channels();
}

void KeyValueRows::add_channels(const RowMoments &row, uint64_t head) {
  if (row.plain) {
    context_.kernels->add_squares[context_.type](row.data, width_, &pending_[head * width_]);
    return;
  }
  for (uint64_t channel = 0; channel < width_; ++channel) {
    const uint8_t *at = row.data + channel * context_.element_bytes;
    const uint64_t index = head * width_ + channel;
    if (element_code(context_.type, at) >= infinity_code(context_.type)) {
      ++missing_[index];
      continue;
    }
    const double value = element_value(context_.type, at);
    squares_[index] += value * value;
  }
}

void KeyValueRows::merge_channels() {
  for (uint64_t index = 0; index < heads_ * width_; ++index) {
    squares_[index] += static_cast<double>(pending_[index]);
    pending_[index] = 0;
  }
  pending_tokens_ = 0;
}

void KeyValueRows::publish_head(uint64_t head) {
  const double *norms = &norms_[head * tokens_];
  uint64_t numbers = 0;
  const double median = lower_median(norms, tokens_, sorted_.get(), &numbers);
  if (numbers >= kTokensMin) {
    add_ratio(largest_of(sorted_.get(), numbers), median, &token_outlier_, &token_samples_);
    if (context_.slice->token_start == 0 && !std::isnan(norms[0])) {
      add_ratio(norms[0], median, &first_token_, &first_samples_);
    }
  }
  double *rms = &squares_[head * width_];
  for (uint64_t channel = 0; channel < width_; ++channel) {
    const double used = static_cast<double>(tokens_ - missing_[head * width_ + channel]);
    rms[channel] = used >= kTokensMin ? std::sqrt(rms[channel] / used)
                                      : std::numeric_limits<double>::quiet_NaN();
  }
  const double typical = lower_median(rms, width_, sorted_.get(), &numbers);
  if (numbers < 2) return;
  add_ratio(largest_of(sorted_.get(), numbers), typical, &channel_outlier_, &channel_samples_);
}

void KeyValueRows::publish(const RowWalk &, const SliceMoments &) {
  if (norms_ == nullptr) return;
  merge_channels();
  for (uint64_t head = 0; head < heads_; ++head) publish_head(head);
  token_samples_.flush();
  channel_samples_.flush();
  first_samples_.flush();
  ring2_slice *slice = context_.slice;
  if (token_outlier_.count > 0) set_stat(slice, RING2_STAT_TOKEN_OUTLIER, token_outlier_.most);
  if (channel_outlier_.count > 0) {
    set_stat(slice, RING2_STAT_CHANNEL_OUTLIER, channel_outlier_.most);
  }
  if (first_token_.count > 0) {
    set_stat(slice, RING2_STAT_FIRST_TOKEN_RATIO, first_token_.mean());
  }
}

}  // namespace ring2
