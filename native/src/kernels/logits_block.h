// Softmax sums, two largest values and moments of a block of one row of logits.
//
// First loop: moments and the largest value. Second loop, from the L1 cache: e^(l - maximum) and
// its weighted sums. The two largest values are looked for only in blocks that beat all earlier
// ones, which are few in any long row.
#ifndef RING2_KERNELS_LOGITS_BLOCK_H
#define RING2_KERNELS_LOGITS_BLOCK_H

#include "moments_block.h"
#include "vector_math.h"

namespace ring2 {
namespace {

constexpr double kNegativeInfinity = -__builtin_inf();
// Above this, differences of float32 logits could overflow; such blocks are done in float64.
constexpr double kLogitSafeMax = 0x1p100;

struct SoftmaxSums {
  Floats weight_a = {}, weight_b = {}, weighted_a = {}, weighted_b = {};
  Floats squared = {};

  RING2_INLINE void step(SoftmaxSums *self, Pair x, Floats maximum) {
    const Floats t_a = larger(x.a - maximum, broadcast(kExponentFloor));
    const Floats t_b = larger(x.b - maximum, broadcast(kExponentFloor));
    const Floats e_a = exp_clamped(t_a);
    const Floats e_b = exp_clamped(t_b);
    self->weight_a += e_a;
    self->weight_b += e_b;
    const Floats weighted_a = t_a * e_a;
    const Floats weighted_b = t_b * e_b;
    self->weighted_a += weighted_a;
    self->weighted_b += weighted_b;
    self->squared += t_a * weighted_a;
    self->squared += t_b * weighted_b;
  }
};

template <typename T>
void softmax_block(const uint8_t *data, size_t count, LogitsBlock *block) {
  const float top = static_cast<float>(block->maximum);
  const Floats maximum = broadcast(top);
  SoftmaxSums even, odd;
  const uint8_t *at = data;
  size_t left = count;
  for (; left >= 2 * kStep; left -= 2 * kStep, at += 2 * kStepBytes<T>) {
    SoftmaxSums::step(&even, T::pair(at), maximum);
    SoftmaxSums::step(&odd, T::pair(at + kStepBytes<T>), maximum);
  }
  if (left >= kStep) {
    SoftmaxSums::step(&even, T::pair(at), maximum);
    left -= kStep;
    at += kStepBytes<T>;
  }
  block->weight = static_cast<double>(
      sum_lanes((even.weight_a + even.weight_b) + (odd.weight_a + odd.weight_b)));
  block->weighted = static_cast<double>(
      sum_lanes((even.weighted_a + even.weighted_b) + (odd.weighted_a + odd.weighted_b)));
  block->squared = static_cast<double>(sum_lanes(even.squared + odd.squared));
  for (; left > 0; --left, at += T::kBytes) {
    const Floats t = larger(broadcast(T::value(at)) - maximum, broadcast(kExponentFloor));
    const double e = static_cast<double>(exp_clamped(t)[0]);
    block->weight += e;
    block->weighted += static_cast<double>(t[0]) * e;
    block->squared += static_cast<double>(t[0]) * static_cast<double>(t[0]) * e;
  }
}

RING2_INLINE void offer(double value, double *first, double *second) {
  if (value > *first) {
    *second = *first;
    *first = value;
  } else if (value > *second) {
    *second = value;
  }
}

// The largest value besides one occurrence of the maximum.
template <typename T>
__attribute__((noinline)) double second_largest(const uint8_t *data, size_t count) {
  Floats first_lanes = broadcast(-__builtin_inff()), second_lanes = first_lanes;
  const uint8_t *at = data;
  size_t left = count;
  for (; left >= kStep; left -= kStep, at += kStepBytes<T>) {
    const Pair x = T::pair(at);
    second_lanes = larger(second_lanes, smaller(x.a, first_lanes));
    first_lanes = larger(first_lanes, x.a);
    second_lanes = larger(second_lanes, smaller(x.b, first_lanes));
    first_lanes = larger(first_lanes, x.b);
  }
  double first = kNegativeInfinity, second = kNegativeInfinity;
  for (size_t lane = 0; lane < kLanes; ++lane) {
    offer(static_cast<double>(first_lanes[lane]), &first, &second);
    offer(static_cast<double>(second_lanes[lane]), &first, &second);
  }
  for (; left > 0; --left, at += T::kBytes) {
    offer(static_cast<double>(T::value(at)), &first, &second);
  }
  return second;
}

template <typename T>
__attribute__((noinline)) uint32_t first_index_of(const uint8_t *data, size_t count, float value) {
  size_t index = 0;
  for (; index + kStep <= count; index += kStep) {
    const Pair x = T::pair(data + index * T::kBytes);
    if (any_bit((x.a == value) | (x.b == value))) break;
  }
  while (index < count && T::value(data + index * T::kBytes) != value) ++index;
  return static_cast<uint32_t>(index);
}

template <typename T>
void find_top(const uint8_t *data, size_t count, double running_maximum, LogitsBlock *block) {
  block->second = kNegativeInfinity;
  block->top_index = 0;
  if (!(block->maximum > running_maximum)) return;
  block->second = second_largest<T>(data, count);
  block->top_index = first_index_of<T>(data, count, static_cast<float>(block->maximum));
}

void softmax_float64(const float *values, size_t count, LogitsBlock *block) {
  for (size_t i = 0; i < count; ++i) {
    const double t = values[i] - block->maximum;
    const double e = __builtin_exp(t);
    block->weight += e;
    // Where e^t is 0, t may be minus infinity, and their product no number.
    if (!(e > 0)) continue;
    block->weighted += t * e;
    block->squared += t * t * e;
  }
}

template <typename T>
__attribute__((noinline)) void careful_logits(const uint8_t *data, size_t count,
                                              double running_maximum, LogitsBlock *block) {
  float values[kBlockElements];
  *block = LogitsBlock{};
  block->maximum = block->second = kNegativeInfinity;
  MomentsBlock *moments = &block->moments;
  const size_t used = keep_finite<T>(data, count, kNegativeInfinity, values, moments);
  block->sum_squares = add_values(values, used, moments);
  if (used == 0) return;
  moments->centred = centred_values(values, used, moments->sum / static_cast<double>(used));
  if (moments->nan + moments->pos_inf > 0) return;
  for (size_t i = 0; i < used; ++i) {
    const double value = static_cast<double>(values[i]);
    if (value > block->maximum) block->maximum = value;
  }
  // -Inf equals no finite maximum and is no larger than any second, so `data` serves for both.
  find_top<T>(data, count, running_maximum, block);
  if (moments->abs_max > kLogitSafeMax) {
    softmax_float64(values, used, block);
  } else {
    softmax_block<Float32>(reinterpret_cast<const uint8_t *>(values), used, block);
  }
}

template <typename T>
struct LogitsFirstPass {
  MomentSums<T> sums;
  Floats squares_a = {}, squares_b = {};
  float maximum;
  double sum_squares;
};

template <typename T>
RING2_INLINE void first_pass(const uint8_t *data, size_t count, LogitsFirstPass<T> *pass) {
  Floats maximum_a = broadcast(-__builtin_inff()), maximum_b = maximum_a;
  const uint8_t *at = data;
  size_t left = count;
  for (; left >= kStep; left -= kStep, at += kStepBytes<T>) {
    prefetch_lines(at, kStepBytes<T>);
    const Pair x = T::pair(at);
    MomentSums<T>::step(&pass->sums, at, &pass->squares_a, &pass->squares_b);
    maximum_a = larger(maximum_a, x.a);
    maximum_b = larger(maximum_b, x.b);
  }
  pass->maximum = largest_lane(larger(maximum_a, maximum_b));
  if (left > 0) {
    alignas(64) uint8_t tail[kStepBytes<T>];
    load_tail<T>(tail, data, at + left * T::kBytes, left);
    MomentSums<T>::step(&pass->sums, tail, &pass->squares_a, &pass->squares_b);
    for (; left > 0; --left, at += T::kBytes) {
      const float value = T::value(at);
      if (value > pass->maximum) pass->maximum = value;
    }
  }
  pass->sum_squares = static_cast<double>(sum_lanes(pass->squares_a + pass->squares_b));
}

template <typename T>
void logits_block(const uint8_t *data, size_t count, double running_maximum,
                  LogitsBlock *block) {
  LogitsFirstPass<T> pass;
  first_pass(data, count, &pass);
  const uint32_t largest = largest_code(pass.sums.largest);
  const float abs_max = largest < T::kInfinity ? T::from_code(largest) : 0.0f;
  if (largest >= T::kInfinity || !squares_are_safe(abs_max)) {
    careful_logits<T>(data, count, running_maximum, block);
    return;
  }
  MomentsBlock *moments = &block->moments;
  *moments = MomentsBlock{};
  moments->used = count;
  moments->abs_max = static_cast<double>(abs_max);
  moments->sum = static_cast<double>(sum_lanes(pass.sums.sum_a + pass.sums.sum_b));
  const BlockShape shape = {count * T::kBytes, 1, count};
  moments->centred = centred_from<T>(pass.sum_squares, moments->sum, static_cast<double>(count),
                                     data, shape);
  block->sum_squares = pass.sum_squares;
  block->maximum = static_cast<double>(pass.maximum);
  find_top<T>(data, count, running_maximum, block);
  softmax_block<T>(data, count, block);
}

}  // namespace
}  // namespace ring2
#endif
