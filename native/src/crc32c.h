// CRC-32C (Castagnoli, reflected polynomial 0x82f63b78, as in iSCSI and Parquet): the checksum of
// tensor bytes. Uses the processor's CRC instruction where there is one.
#ifndef RING2_CRC32C_H
#define RING2_CRC32C_H

#include <cstdint>

namespace ring2 {

// seed: 0, or the checksum of the bytes that come before these.
uint32_t crc32c(const uint8_t *data, uint64_t bytes, uint32_t seed);

// The table-driven way, which every machine has; the same result.
uint32_t crc32c_portable(const uint8_t *data, uint64_t bytes, uint32_t seed);

}  // namespace ring2
#endif
