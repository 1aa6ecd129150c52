#include "track_place.h"

#include <cstring>

namespace ring2 {
namespace {

template <typename Integer>
int64_t load(const uint8_t *at) {
  Integer value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

}  // namespace

Place place_of(const SliceContext &context) {
  const ring2_slice &slice = *context.slice;
  Place place;
  if (slice.ndim < 1 || slice.ndim > 2 || slice.dims[0] == 0) return place;
  if (slice.token_start < 0 || slice.token_end < slice.token_start) return place;
  if (static_cast<uint32_t>(slice.token_end - slice.token_start) != slice.dims[0]) return place;
  place.rows = slice.dims[0];
  place.width = slice.ndim == 2 ? slice.dims[1] : 1;
  if (place.width == 0) return place;
  place.stride_bytes = slice.strides[0] * context.element_bytes;
  place.extent_bytes =
      (place.rows - 1) * place.stride_bytes + uint64_t{place.width} * context.element_bytes;
  place.position = slice.position;
  place.step = slice.step;
  place.dtype = slice.dtype;
  place.layer = slice.layer;
  place.token_start = slice.token_start;
  place.token_end = slice.token_end;
  const uint16_t ranks[4] = {slice.tp_rank, slice.pp_rank, slice.dp_rank, slice.ep_rank};
  std::memcpy(place.ranks, ranks, sizeof ranks);
  place.data = context.data;
  return place;
}

bool readable(const RingView &ring, const Place &place) {
  if (place.data == nullptr || place.position < ring.released) return false;
  if (ring.payload == nullptr) return true;
  // As integers: pointers into different mappings have no order.
  const auto base = reinterpret_cast<uintptr_t>(ring.payload);
  const auto at = reinterpret_cast<uintptr_t>(place.data);
  return at >= base && at - base <= ring.payload_bytes &&
         place.extent_bytes <= ring.payload_bytes - (at - base);
}

bool same_tokens(const Place &a, const Place &b) {
  return a.step == b.step && a.token_start == b.token_start && a.token_end == b.token_end &&
         a.rows == b.rows && a.width == b.width && a.dtype == b.dtype &&
         std::memcmp(a.ranks, b.ranks, sizeof a.ranks) == 0;
}

Place last_row(const Place &place) {
  Place row = place;
  row.data = place.row(place.rows - 1);
  row.extent_bytes = place.extent_bytes - (place.rows - 1) * place.stride_bytes;
  row.rows = 1;
  row.token_start = place.token_end - 1;
  return row;
}

bool integer_at(const uint8_t *at, uint32_t dtype, int64_t *value) {
  switch (dtype) {
    case RING2_DTYPE_INT64:
      *value = load<int64_t>(at);
      return true;
    case RING2_DTYPE_INT32:
      *value = load<int32_t>(at);
      return true;
    case RING2_DTYPE_INT16:
      *value = load<int16_t>(at);
      return true;
    case RING2_DTYPE_INT8:
      *value = load<int8_t>(at);
      return true;
    case RING2_DTYPE_UINT8:
      *value = load<uint8_t>(at);
      return true;
    default:
      return false;
  }
}

}  // namespace ring2
