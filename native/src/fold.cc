#include "fold.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "error.h"

namespace ring2 {
namespace {

constexpr int32_t kTableScale = 8;
constexpr uint32_t kTableBuckets = 1u << kTableScale;
// Cells are narrower than the narrowest bucket of an octave, so each holds at most one boundary.
constexpr uint32_t kTableCells = 2 * kTableBuckets;
constexpr uint32_t kMantissaBits = 52;
constexpr uint32_t kCellShift = kMantissaBits - (kTableScale + 1);
constexpr uint64_t kMantissaMask = (uint64_t{1} << kMantissaBits) - 1;

struct BucketTable {
  // Mantissa bits of 2^(j / kTableBuckets); the last one stands for 2.
  std::array<uint64_t, kTableBuckets + 1> boundary;
  // The first boundary that is not below the cell.
  std::array<uint16_t, kTableCells> first;

  BucketTable() {
    for (uint32_t j = 0; j < kTableBuckets; ++j) {
      const double value = std::exp2(static_cast<double>(j) / kTableBuckets);
      std::memcpy(&boundary[j], &value, sizeof value);
      boundary[j] &= kMantissaMask;
    }
    boundary[kTableBuckets] = kMantissaMask + 1;
    uint16_t j = 0;
    for (uint32_t cell = 0; cell < kTableCells; ++cell) {
      while (boundary[j] < (uint64_t{cell} << kCellShift)) ++j;
      first[cell] = j;
    }
  }
};

const BucketTable bucket_table;

inline int32_t coarse_bucket(double value, int32_t scale) {
  uint64_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const uint64_t mantissa = bits & kMantissaMask;
  const int32_t exponent = static_cast<int32_t>(bits >> kMantissaBits) - 1023;
  const uint32_t guess = bucket_table.first[mantissa >> kCellShift];
  const int32_t above = mantissa > bucket_table.boundary[guess] ? 1 : 0;
  const int32_t fine = exponent * static_cast<int32_t>(kTableBuckets) +
                       static_cast<int32_t>(guess) + above - 1;
  return fine >> (kTableScale - scale);
}

int32_t fine_bucket(double value, int32_t scale) {
  uint64_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const int32_t per_octave = 1 << scale;
  const int32_t octave = (static_cast<int32_t>(bits >> kMantissaBits) - 1023) * per_octave;
  if ((bits & kMantissaMask) == 0) return octave - 1;
  bits = (bits & kMantissaMask) | uint64_t{1023} << kMantissaBits;
  double mantissa;
  std::memcpy(&mantissa, &bits, sizeof bits);
  const double position = std::log2(mantissa) * per_octave;
  const int32_t whole = static_cast<int32_t>(position);
  const int32_t index = static_cast<double>(whole) == position ? whole - 1 : whole;
  // Rounding of the logarithm may not carry a value into another octave.
  return octave + std::clamp(index, 0, per_octave - 1);
}

void lower_scale(ring2_point *point, int32_t by) {
  const int32_t offset = point->offset >> by;
  uint32_t used = 0;
  for (uint32_t i = 0; i < point->bucket_count; ++i) {
    const uint64_t count = point->buckets[i];
    const int32_t index = (point->offset + static_cast<int32_t>(i)) >> by;
    const uint32_t slot = static_cast<uint32_t>(index - offset);
    if (slot >= used) {
      point->buckets[slot] = 0;
      used = slot + 1;
    }
    point->buckets[slot] += count;
  }
  for (uint32_t i = used; i < point->bucket_count; ++i) point->buckets[i] = 0;
  point->offset = offset;
  point->bucket_count = used;
  point->scale -= by;
}

// Counts a sample outside the buckets in use: widens them, at a lower scale when they would be more
// than RING2_BUCKETS_MAX.
void widen_for(ring2_point *point, double value) {
  int32_t index = fold_bucket(value, point->scale);
  if (point->bucket_count == 0) {
    point->offset = index;
    point->bucket_count = 1;
    point->buckets[0] = 1;
    return;
  }
  int64_t low = std::min(index, point->offset);
  int64_t high = std::max<int64_t>(index, point->offset + int64_t{point->bucket_count} - 1);
  int32_t by = 0;
  while ((high >> by) - (low >> by) >= RING2_BUCKETS_MAX) ++by;
  if (by > 0) {
    lower_scale(point, by);
    index = fold_bucket(value, point->scale);
    low = std::min(index, point->offset);
    high = std::max<int64_t>(index, point->offset + int64_t{point->bucket_count} - 1);
  }
  const uint32_t shift = static_cast<uint32_t>(point->offset - low);
  if (shift > 0) {
    std::memmove(point->buckets + shift, point->buckets, point->bucket_count * sizeof(uint64_t));
    std::memset(point->buckets, 0, shift * sizeof(uint64_t));
  }
  point->offset = static_cast<int32_t>(low);
  point->bucket_count = static_cast<uint32_t>(high - low + 1);
  ++point->buckets[index - point->offset];
}

uint64_t hash_of(const FoldKey &key) {
  uint64_t hash = key.signal;
  hash = hash * 0x9e3779b97f4a7c15u + key.hook;
  hash = hash * 0x9e3779b97f4a7c15u + static_cast<uint32_t>(key.layer);
  hash = hash * 0x9e3779b97f4a7c15u + key.phase;
  return (hash ^ (hash >> 32)) * 0x9e3779b97f4a7c15u >> 32;
}

bool is_of(const ring2_point &point, const FoldKey &key) {
  return point.signal == key.signal && point.hook == key.hook && point.layer == key.layer &&
         point.phase == key.phase;
}

bool is_of(const ring2_counts &counts, const FoldKey &key) {
  return counts.hook == key.hook && counts.layer == key.layer;
}

// A hash index over entries that are only ever added. Slots hold 1 + the entry's number.
template <typename Entry, uint32_t kEntriesMax>
class Index {
 public:
  // The entry of `key`; a new one when there is none; nullptr when there is no room for it.
  Entry *find_or_add(const FoldKey &key, const Entry &fresh) {
    uint64_t slot = hash_of(key) & (kSlots - 1);
    for (; slots_[slot] != 0; slot = (slot + 1) & (kSlots - 1)) {
      Entry *entry = entries_[slots_[slot] - 1].get();
      if (is_of(*entry, key)) return entry;
    }
    if (entries_.size() == kEntriesMax) return nullptr;
    std::unique_ptr<Entry> entry(new (std::nothrow) Entry(fresh));
    if (entry == nullptr) return nullptr;
    entries_.push_back(std::move(entry));
    slots_[slot] = static_cast<uint32_t>(entries_.size());
    return entries_.back().get();
  }

  void reserve() {
    slots_.assign(kSlots, 0);
    entries_.reserve(kEntriesMax);
  }

  const std::vector<std::unique_ptr<Entry>> &entries() const { return entries_; }

 private:
  static constexpr uint32_t kSlots = 2 * kEntriesMax;
  static_assert((kSlots & (kSlots - 1)) == 0, "slots are addressed by a mask");
  std::vector<uint32_t> slots_;
  std::vector<std::unique_ptr<Entry>> entries_;
};

}  // namespace
}  // namespace ring2

struct ring2_fold {
  ring2::Index<ring2_point, ring2::kFoldSeriesMax> series;
  ring2::Index<ring2_counts, ring2::kFoldCountsMax> counts;
  uint64_t refused = 0;
};

namespace ring2 {
namespace {

ring2_point fresh_point(const FoldKey &key) {
  ring2_point point{};
  point.signal = key.signal;
  point.hook = key.hook;
  point.layer = key.layer;
  point.phase = key.phase;
  point.scale = kFoldScaleMax;
  point.min = HUGE_VAL;
  return point;
}

template <typename Bucket>
void add_samples(ring2_point *point, const double *values, uint64_t count, Bucket bucket) {
  double sum = 0, least = point->min, most = point->max;
  for (uint64_t i = 0; i < count; ++i) {
    const double value = values[i] > 0 ? values[i] : 0;
    sum += value;
    least = value < least ? value : least;
    most = value > most ? value : most;
    if (value < kFoldZeroBelow) {
      ++point->zero_count;
      continue;
    }
    const uint32_t slot = static_cast<uint32_t>(bucket(value, point->scale) - point->offset);
    if (slot < point->bucket_count) {
      ++point->buckets[slot];
    } else {
      widen_for(point, value);
    }
  }
  point->count += count;
  point->sum += sum;
  point->min = least;
  point->max = most;
}

void keep_exemplar(ring2_point *point, const double *values, uint64_t count, uint64_t request_key,
                   uint64_t realtime_ns) {
  if (request_key == 0 || count == 0) return;
  const double largest = std::max(0.0, *std::max_element(values, values + count));
  if (point->exemplar_key != 0 && largest <= point->exemplar_value) return;
  point->exemplar_value = largest;
  point->exemplar_key = request_key;
  point->exemplar_realtime_ns = realtime_ns;
}

}  // namespace

int32_t fold_bucket(double value, int32_t scale) {
  return scale <= kTableScale ? coarse_bucket(value, scale) : fine_bucket(value, scale);
}

void fold_samples(ring2_fold *fold, const FoldKey &key, const double *values, uint64_t count,
                  uint64_t request_key, uint64_t realtime_ns) {
  if (count == 0) return;
  ring2_point *point = fold->series.find_or_add(key, fresh_point(key));
  if (point == nullptr) {
    fold->refused += count;
    return;
  }
  keep_exemplar(point, values, count, request_key, realtime_ns);
  // A series settles at a coarse scale after its first samples, so the choice is made per batch;
  // fold_bucket serves both while it still has a fine one.
  if (point->scale <= kTableScale) {
    add_samples(point, values, count, coarse_bucket);
  } else {
    add_samples(point, values, count, fold_bucket);
  }
}

void fold_counts(ring2_fold *fold, const ring2_counts &counts) {
  const FoldKey key = {0, counts.hook, counts.layer, 0};
  ring2_counts fresh{};
  fresh.hook = counts.hook;
  fresh.layer = counts.layer;
  ring2_counts *entry = fold->counts.find_or_add(key, fresh);
  if (entry == nullptr) {
    ++fold->refused;
    return;
  }
  entry->elements += counts.elements;
  entry->nan += counts.nan;
  entry->pos_inf += counts.pos_inf;
  entry->neg_inf += counts.neg_inf;
  entry->invalid_rows += counts.invalid_rows;
  entry->skipped_rows += counts.skipped_rows;
  entry->massive += counts.massive;
}

}  // namespace ring2

extern "C" {

RING2_API int ring2_fold_create(ring2_fold **out) {
  if (out == nullptr) return ring2_set_error(RING2_E_ARGUMENT, "a null place for the fold");
  try {
    auto fold = std::make_unique<ring2_fold>();
    fold->series.reserve();
    fold->counts.reserve();
    *out = fold.release();
    return RING2_OK;
  } catch (const std::bad_alloc &) {
    return ring2_set_error(RING2_E_MEMORY, "an empty fold of less than 1 MiB");
  }
}

RING2_API int ring2_fold_destroy(ring2_fold *fold) {
  delete fold;
  return RING2_OK;
}

RING2_API int ring2_fold_read(ring2_fold *fold, ring2_point *points, uint32_t max) {
  if (fold == nullptr || (points == nullptr && max > 0)) {
    return ring2_set_error(RING2_E_ARGUMENT, "a null fold, or null points with max %u", max);
  }
  const auto &entries = fold->series.entries();
  for (size_t i = 0; i < entries.size() && i < max; ++i) {
    points[i] = *entries[i];
    entries[i]->exemplar_value = 0;
    entries[i]->exemplar_key = 0;
    entries[i]->exemplar_realtime_ns = 0;
  }
  return static_cast<int>(entries.size());
}

RING2_API int ring2_fold_counts(ring2_fold *fold, ring2_counts *counts, uint32_t max) {
  if (fold == nullptr || (counts == nullptr && max > 0)) {
    return ring2_set_error(RING2_E_ARGUMENT, "a null fold, or null counts with max %u", max);
  }
  const auto &entries = fold->counts.entries();
  for (size_t i = 0; i < entries.size() && i < max; ++i) counts[i] = *entries[i];
  if (fold->refused == 0) return static_cast<int>(entries.size());
  if (entries.size() < max) {
    ring2_counts *refused = &counts[entries.size()];
    *refused = ring2_counts{};
    refused->hook = UINT32_MAX;
    refused->layer = -1;
    refused->elements = fold->refused;
  }
  return static_cast<int>(entries.size() + 1);
}

RING2_API int ring2_fold_record(ring2_fold *fold, uint32_t signal, uint32_t hook, int32_t layer,
                                uint32_t phase, const double *values, uint64_t count, uint64_t key,
                                uint64_t realtime_ns) {
  if (fold == nullptr || (values == nullptr && count > 0)) {
    return ring2_set_error(RING2_E_ARGUMENT, "a null fold, or null values");
  }
  if (signal >= RING2_SIGNAL_COUNT) {
    return ring2_set_error(RING2_E_ARGUMENT, "signal %u; expected less than %d", signal,
                           RING2_SIGNAL_COUNT);
  }
  for (uint64_t i = 0; i < count; ++i) {
    if (std::isfinite(values[i]) && values[i] >= -ring2::kFoldNegativeMax) continue;
    return ring2_set_error(RING2_E_ARGUMENT, "sample %llu is %g; expected finite, not negative",
                           static_cast<unsigned long long>(i), values[i]);
  }
  ring2::fold_samples(fold, {signal, hook, layer, phase}, values, count, key, realtime_ns);
  return RING2_OK;
}

}  // extern "C"
