/* What the exporter wants of a producer: the control words of a segment as one copy, and the questions
 * it answers. Part of ring2.h, which includes it; native/README.md tells the protocol.
 */
#ifndef RING2_CONTROL_WORDS_H
#define RING2_CONTROL_WORDS_H

#include "ring2_layout.h"

#ifdef __cplusplus
extern "C" {
#endif

#define RING2_API __attribute__((visibility("default")))

typedef struct ring2_producer ring2_producer;
typedef struct ring2_consumer ring2_consumer;

/* What the exporter wants, as of one moment. A producer takes one at the beginning of a step, asks it
 * about everything in that step and writes its `sequence` into the STEP, so that the exporter knows
 * what it can expect. */
typedef struct ring2_control {
  uint32_t sequence;
  uint32_t flags;         /* ring2_control_flag */
  uint64_t request_share; /* 0 … RING2_CONTROL_ALL_REQUESTS */
  uint32_t decode_every;
  uint32_t nothing; /* 1: null mode, whatever the request and the token */
  uint64_t wanted[RING2_HOOKS_MAX][RING2_LAYERS_MAX / 64];
} ring2_control;

/* A consistent copy; never waits. While the words are being written, and in a segment whose control
 * words are broken, it is the last good copy. */
RING2_API int ring2_take_control(ring2_producer *producer, ring2_control *out);
/* 1 when this hook and layer are wanted, else 0. layer -1: a global hook. */
RING2_API int ring2_control_wants(const ring2_control *control, uint32_t hook, int32_t layer);
/* 1 when nothing at all is wanted: write no STEP and no REQUEST. */
RING2_API int ring2_control_wants_nothing(const ring2_control *control);
/* Decided by ring2_request_hash of the external request id, so that every rank and engine agrees.
 * trace_sampled: 1 when the request came with a sampled trace context. */
RING2_API int ring2_control_wants_request(const ring2_control *control, const char *request_id,
                                          uint64_t bytes, int trace_sampled);
/* Whether any of a row's tokens [token_start, token_end) is wanted: a row is captured whole. */
RING2_API int ring2_control_wants_tokens(const ring2_control *control, uint32_t phase,
                                         int32_t token_start, int32_t token_end);
/* Upper half of the 64-bit FNV-1a hash (Fowler, Noll, Vo) after the mixing of MurmurHash3's
 * finalizer. The same id has the same hash in every version. */
RING2_API uint32_t ring2_request_hash(const char *request_id, uint64_t bytes);

/* Writes the control words if they differ from those in the segment (sequence and nothing of `control`
 * are not looked at), and says under which sequence they stand now. */
RING2_API int ring2_consumer_set_control(ring2_consumer *consumer, const ring2_control *control,
                                         uint32_t *sequence);
/* What stands in the segment; sequence 0: the producer knows only `wanted`. */
RING2_API int ring2_consumer_control(ring2_consumer *consumer, ring2_control *out);

#ifdef __cplusplus
}
#endif
#endif
