// One block of the LZ4 format, without a frame around it.
#ifndef RING2_CODEC_LZ4_H
#define RING2_CODEC_LZ4_H

#include <cstdint>

namespace ring2 {

// True when the block holds exactly `content_bytes` bytes, which are in `content` then.
bool decode_lz4_block(const uint8_t *block, uint64_t bytes, uint8_t *content, uint64_t content_bytes);

}  // namespace ring2
#endif
