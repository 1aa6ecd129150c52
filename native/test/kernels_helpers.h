// Shared by the tests of the statistics: element encoders, a buffer with an unreadable page right
// behind it, and plain float64 references.
#ifndef RING2_TEST_KERNELS_HELPERS_H
#define RING2_TEST_KERNELS_HELPERS_H

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/kernels.h"
#include "ring2.h"

namespace ring2_test {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

inline size_t bytes_of(ring2::ElementType type) {
  const size_t bytes[] = {4, 2, 2, 8};
  return bytes[type];
}

inline uint32_t dtype_of(ring2::ElementType type) {
  const uint32_t dtypes[] = {RING2_DTYPE_FLOAT32, RING2_DTYPE_FLOAT16, RING2_DTYPE_BFLOAT16,
                             RING2_DTYPE_FLOAT64};
  return dtypes[type];
}

inline const char *name_of(ring2::ElementType type) {
  const char *names[] = {"float32", "float16", "bfloat16", "float64"};
  return names[type];
}

// float16 by the definition, value by value; slow and obvious.
inline double half_value(uint16_t code) {
  const int exponent = code >> 10 & 0x1f;
  const double fraction = code & 0x3ff;
  const double sign = code & 0x8000 ? -1 : 1;
  if (exponent == 31) return fraction > 0 ? kNaN : sign * kInfinity;
  if (exponent == 0) return sign * std::ldexp(fraction, -24);
  return sign * std::ldexp(1024 + fraction, exponent - 25);
}

inline uint16_t half_code(double value) {
  if (std::isnan(value)) return 0x7e00;
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  const double magnitude = std::fabs(value);
  if (magnitude >= 65520) return static_cast<uint16_t>(sign | 0x7c00);
  // Codes of magnitudes are ordered as the magnitudes are: find the nearest from below.
  uint16_t low = 0, high = 0x7c00;
  while (high - low > 1) {
    const uint16_t middle = static_cast<uint16_t>((low + high) / 2);
    (half_value(middle) <= magnitude ? low : high) = middle;
  }
  return static_cast<uint16_t>(sign | low);
}

inline void put(uint8_t *at, ring2::ElementType type, double value) {
  const float single = static_cast<float>(value);
  uint32_t bits;
  std::memcpy(&bits, &single, sizeof bits);
  const uint16_t half =
      type == ring2::kFloat16 ? half_code(value) : static_cast<uint16_t>(bits >> 16);
  if (type == ring2::kFloat64) {
    std::memcpy(at, &value, 8);
  } else if (type == ring2::kFloat32) {
    std::memcpy(at, &single, 4);
  } else {
    std::memcpy(at, &half, 2);
  }
}

inline double get(const uint8_t *at, ring2::ElementType type) {
  if (type == ring2::kFloat64) {
    double value;
    std::memcpy(&value, at, 8);
    return value;
  }
  if (type == ring2::kFloat32) {
    float value;
    std::memcpy(&value, at, 4);
    return static_cast<double>(value);
  }
  uint16_t code;
  std::memcpy(&code, at, 2);
  if (type == ring2::kFloat16) return half_value(code);
  const uint32_t bits = uint32_t{code} << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return static_cast<double>(value);
}

// Elements that end exactly where readable memory ends (or `gap` bytes before).
class GuardedElements {
 public:
  GuardedElements(ring2::ElementType type, const std::vector<double> &values, size_t gap = 0)
      : type_(type), count_(values.size()) {
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const size_t bytes = count_ * bytes_of(type);
    mapped_ = (bytes + gap + page - 1) / page * page + page;
    void *base = mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED) throw std::runtime_error("mmap failed");
    base_ = static_cast<uint8_t *>(base);
    data_ = base_ + mapped_ - page - gap - bytes;
    for (size_t i = 0; i < count_; ++i) put(data_ + i * bytes_of(type), type, values[i]);
    if (mprotect(base_ + mapped_ - page, page, PROT_NONE) != 0) {
      throw std::runtime_error("mprotect failed");
    }
  }
  ~GuardedElements() { munmap(base_, mapped_); }
  GuardedElements(const GuardedElements &) = delete;
  GuardedElements &operator=(const GuardedElements &) = delete;

  const uint8_t *data() const { return data_; }
  size_t bytes() const { return count_ * bytes_of(type_); }
  // What was stored, exactly.
  std::vector<double> values() const {
    std::vector<double> values(count_);
    for (size_t i = 0; i < count_; ++i) values[i] = get(data_ + i * bytes_of(type_), type_);
    return values;
  }

 private:
  ring2::ElementType type_;
  size_t count_, mapped_;
  uint8_t *base_, *data_;
};

// A dense slice of these dims, as ring2_measure_memory takes it.
inline ring2_slice dense_slice(ring2::ElementType type, uint32_t hook,
                               const std::vector<uint32_t> &dims) {
  ring2_slice slice = {};
  slice.kind = RING2_KIND_TENSOR;
  slice.dtype = dtype_of(type);
  slice.hook = hook;
  slice.action = RING2_ACTION_STATS;
  slice.ndim = static_cast<uint32_t>(dims.size());
  uint64_t stride = 1;
  for (size_t axis = dims.size(); axis-- > 0;) {
    slice.dims[axis] = dims[axis];
    slice.strides[axis] = stride;
    stride *= dims[axis];
  }
  return slice;
}

inline bool has(const ring2_slice &slice, ring2_stat stat) { return slice.defined >> stat & 1; }

// Softmax of finite or -Inf logits in float64: log-sum-exp and entropy.
struct SoftmaxReference {
  double maximum = -kInfinity, lse = 0, entropy = 0;

  explicit SoftmaxReference(const std::vector<double> &logits) {
    for (const double logit : logits) maximum = std::max(maximum, logit);
    double weight = 0, weighted = 0;
    for (const double logit : logits) {
      if (logit == -kInfinity) continue;
      const double e = std::exp(logit - maximum);
      weight += e;
      if (e > 0) weighted += (logit - maximum) * e;
    }
    lse = maximum + std::log(weight);
    entropy = std::log(weight) - weighted / weight;
  }
};

}  // namespace ring2_test
#endif
