/* libring2: kernels of the codecs of stored rows, and a reader of LZ4 frames. Part of the C ABI, with the
 * conventions of ring2.h. */
#ifndef RING2_CODEC_H
#define RING2_CODEC_H

#include "ring2.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Kernels of the codecs of stored rows; formats and bounds are in docs/codecs.md. Compression itself
 * and the container around the planes are the caller's. All answer RING2_E_ARGUMENT to sizes that do not
 * fit each other and to planes that no encoder makes, and never read or write beyond a buffer. */
#define RING2_CODEC_BYTES_MAX 1073741824u /* of one row */
#define RING2_ABSMAX_BLOCK_MAX 256u

/* Elements of 1, 2, 4 or 8 bytes to planes of their bytes, lowest first, and back; both are `bytes` long. */
RING2_API int ring2_planes_split(const void *elements, uint64_t bytes, uint32_t element_bytes,
                                 void *planes);
RING2_API int ring2_planes_join(const void *planes, uint64_t bytes, uint32_t element_bytes,
                                void *elements);
/* Bits a byte of these has on average when each is coded by itself: 0 to 8. */
RING2_API double ring2_entropy_bits(const void *data, uint64_t bytes);

/* Elements (float32, float16, bfloat16) to codes of 10 or 11 bits in blocks that end with their row.
 * Written to `planes`, one after the other: a scale for each block (bfloat16), the upper 8 bits of each
 * code, the lower 2 or 3 bits packed, and the elements that are kept as they are. planes_bytes: of all
 * these with every element kept. result[0]: elements kept; result[1]: CRC-32C of the elements as decoded. */
RING2_API int ring2_quantise(const void *elements, uint64_t bytes, uint32_t dtype,
                             uint64_t row_elements, uint32_t block_elements, void *planes,
                             uint64_t planes_bytes, uint64_t *result);
RING2_API int ring2_dequantise(const void *planes, uint64_t planes_bytes, uint64_t kept,
                               uint32_t dtype, uint64_t row_elements, uint32_t block_elements,
                               void *elements, uint64_t bytes);

/* Content of one LZ4 frame: its size, up to `most` bytes, and its bytes, exactly out_bytes of them. */
RING2_API int ring2_lz4_size(const void *frame, uint64_t bytes, uint64_t most,
                             uint64_t *content_bytes);
RING2_API int ring2_lz4_decode(const void *frame, uint64_t bytes, void *out, uint64_t out_bytes);

#ifdef __cplusplus
}
#endif
#endif
