// CityHash128 of version 1.0.2, the checksum of ClickHouse's compressed frames. Later versions of
// CityHash have other values.
#ifndef RING2_DMI_CITY_HASH_H
#define RING2_DMI_CITY_HASH_H

#include <cstdint>

namespace ring2::dmi {

struct Hash128 {
  uint64_t low;
  uint64_t high;
  bool operator==(const Hash128 &) const = default;
};

Hash128 city_hash_128(const uint8_t *data, uint64_t bytes);

}  // namespace ring2::dmi
#endif
