/* The shared-memory layout of a Ring² segment, in plain C.
 *
 * A segment is one file: a 4096-byte header, the meta ring (128-byte descriptors) and the payload
 * ring (bytes). Nothing here is a pointer, so every process may map it where it likes. This file is
 * the only home of these facts: native/gen turns them into TypeScript, and native/README.md tells
 * the protocol in words.
 *
 * Every word has one writer, named beside it. "Producer" is the process that created the segment,
 * "consumer" the one exporter that holds the segment's lock.
 */
#ifndef RING2_LAYOUT_H
#define RING2_LAYOUT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
#define RING2_STATIC_ASSERT(condition, text) static_assert(condition, text)
extern "C" {
#else
#define RING2_STATIC_ASSERT(condition, text) _Static_assert(condition, text)
#endif

#define RING2_MAGIC UINT64_C(0x0000325e474e4952) /* "RING^2\0\0" little-endian */
#define RING2_LAYOUT_VERSION 1u
#define RING2_HEADER_BYTES 4096u
#define RING2_PAYLOAD_ALIGN 64u

#define RING2_HOOKS_MAX 32u   /* hook ids 0..31; DMI's catalogue uses 0..23 */
#define RING2_LAYERS_MAX 256u /* layers 0..255 in the control bitmap */
#define RING2_DIMS_MAX 8u
#define RING2_STEP_ROWS_MAX 1024u
#define RING2_BODY_BYTES_MAX 65536u /* JSON bodies: MODEL, REQUEST, REQUEST_END, VOCABULARY */
#define RING2_LOSS_REASONS_MAX 16u
#define RING2_NAME_BYTES 64u

enum ring2_kind {
  RING2_KIND_MODEL = 1,       /* JSON body */
  RING2_KIND_REQUEST = 2,     /* JSON body */
  RING2_KIND_STEP = 3,        /* ring2_step_header, then its rows */
  RING2_KIND_TENSOR = 4,      /* row-major little-endian elements */
  RING2_KIND_REQUEST_END = 5, /* JSON body */
  RING2_KIND_PROFILE = 6,     /* reserved for operator timings */
  RING2_KIND_GAP = 7,         /* ring2_gap: what was lost before this record */
  RING2_KIND_VOCABULARY = 8   /* JSON body: texts of some of the model's token ids */
};

enum ring2_dtype {
  RING2_DTYPE_FLOAT32 = 1,
  RING2_DTYPE_FLOAT16 = 2,
  RING2_DTYPE_BFLOAT16 = 3,
  RING2_DTYPE_FLOAT64 = 4,
  RING2_DTYPE_INT8 = 5,
  RING2_DTYPE_UINT8 = 6,
  RING2_DTYPE_INT16 = 7,
  RING2_DTYPE_INT32 = 8,
  RING2_DTYPE_INT64 = 9,
  RING2_DTYPE_BOOL = 10
};

enum ring2_phase { RING2_PHASE_PREFILL = 0, RING2_PHASE_DECODE = 1 };

/* How a step's tensors hold several requests: [batch, columns, …] or [rows, …]. */
enum ring2_step_layout { RING2_STEP_BATCHED = 0, RING2_STEP_PACKED = 1 };

/* EXTRA: a step beside a forward's own, whose tensors are samples (attention computed for some
 * queries of one request). They are stored and measured, and nobody expects them. AGAIN: a step that
 * was announced before, word for word: of some tensors of it that come late. It is not counted twice. */
enum ring2_step_flag { RING2_STEP_EXTRA = 1, RING2_STEP_AGAIN = 2 };

/* Which requests and tokens are wanted. SAMPLED_ONLY: only requests whose trace is sampled. PREFILL:
 * tokens of the prompt, too. */
enum ring2_control_flag { RING2_CONTROL_SAMPLED_ONLY = 1, RING2_CONTROL_PREFILL = 2 };

#define RING2_CONTROL_ALL_REQUESTS UINT64_C(0x100000000) /* request_share of every request */
#define RING2_CONTROL_SEQUENCE_CREATED 2u /* as the producer made them: everything is wanted */

/* Why a record is missing. The first group is counted by the producer, the second by the consumer. */
enum ring2_loss {
  RING2_LOSS_META_FULL = 0,     /* no free descriptor */
  RING2_LOSS_PAYLOAD_FULL = 1,  /* no room for the bytes */
  RING2_LOSS_OVERSIZED = 2,     /* larger than the payload ring or a stated bound */
  RING2_LOSS_STEP_LOST = 3,     /* its STEP record was lost, so nobody could attribute it */
  RING2_LOSS_ABORTED = 4,       /* the producer gave up its claim */
  RING2_LOSS_UNSUPPORTED = 5,   /* dtype or device the producer cannot copy */
  RING2_LOSS_LEFTOVER = 6,      /* in an older segment of this name, removed before anyone drained it */
  RING2_LOSS_PRODUCER_DIED = 8, /* claimed, never committed, and the producer is gone */
  RING2_LOSS_CORRUPT = 9,       /* a descriptor or body failed validation */
  RING2_LOSS_UNATTRIBUTED = 10  /* a valid tensor whose STEP is not known */
};

/* State of a descriptor: (position << 2) | one of these. A slot of an earlier lap therefore never
 * looks like the record the consumer waits for. */
enum ring2_slot_state {
  RING2_SLOT_CLAIMED = 1,
  RING2_SLOT_COMMITTED = 2,
  RING2_SLOT_ABORTED = 3
};

typedef struct ring2_loss_count {
  uint64_t records;
  uint64_t bytes;
} ring2_loss_count;

typedef struct ring2_header {
  /* Written once by the producer, before the file gets its name. */
  uint64_t magic;
  uint32_t version;
  uint32_t header_bytes;
  uint64_t meta_offset; /* bytes from the start of the file */
  uint32_t meta_slots;  /* power of two */
  uint32_t meta_slot_bytes;
  uint64_t payload_offset; /* page aligned */
  uint64_t payload_bytes;  /* multiple of 4096 */
  uint64_t boot;           /* random, never 0: tells two segments of one name apart */
  uint32_t producer_pid;
  uint32_t reserved0;
  uint64_t producer_start_ticks; /* field 22 of /proc/PID/stat: tells two processes of one pid apart */
  uint64_t anchor_monotonic_ns;  /* CLOCK_MONOTONIC and CLOCK_REALTIME, read together */
  uint64_t anchor_realtime_ns;
  char name[RING2_NAME_BYTES]; /* NUL-terminated */
  uint64_t producer_pid_namespace; /* inode of /proc/self/ns/pid: where producer_pid means anything */
  uint8_t reserved1[96];

  /* Producer. Own cache lines, so that neither side's polling slows the other's writes. */
  uint64_t meta_head;    /* descriptors ever claimed; release store, pairs with the consumer's load */
  uint64_t payload_head; /* bytes ever claimed, padding included */
  uint8_t reserved2[48];
  uint64_t producer_heartbeat_ns; /* CLOCK_MONOTONIC */
  uint32_t producer_closed;       /* 1 after an orderly close: no more records will come */
  uint32_t reserved3;
  uint64_t committed_records;
  uint64_t committed_bytes;
  uint8_t reserved4[32];
  ring2_loss_count producer_losses[RING2_LOSS_REASONS_MAX];
  uint8_t reserved5[384];

  /* Consumer. */
  uint64_t meta_tail;    /* descriptors released; release store, pairs with the producer's load */
  uint64_t payload_tail; /* bytes released */
  uint8_t reserved6[48];
  uint64_t consumer_heartbeat_ns;
  uint32_t consumer_pid;
  uint32_t reserved7;
  uint64_t consumer_start_ticks;
  uint64_t consumer_generation; /* counts attachments */
  uint64_t losses_counted;      /* meta position up to which consumer_losses are complete */
  uint8_t reserved8[24];
  ring2_loss_count consumer_losses[RING2_LOSS_REASONS_MAX];
  uint8_t reserved9[640];

  /* Control words: written by the consumer, read by the producer before it copies. A set bit means
   * "wanted"; layer -1 (global hooks) is bit 0 of word 0. The producer creates them so that everything
   * is wanted. From control_sequence on they are read and written together, under that number: odd
   * while the consumer writes, and never twice the same for different words. 0 in a segment of a
   * producer that knows only `wanted`. */
  uint64_t wanted[RING2_HOOKS_MAX][RING2_LAYERS_MAX / 64];
  uint32_t control_sequence;
  uint32_t control_flags;         /* ring2_control_flag */
  uint64_t control_request_share; /* of 2^32: which hashes of request ids are wanted */
  uint32_t control_decode_every;  /* positions that this divides; 0: no generated token */
  uint32_t reserved10;
  uint8_t reserved11[1000];
} ring2_header;

RING2_STATIC_ASSERT(offsetof(ring2_header, meta_head) == 256, "producer line");
RING2_STATIC_ASSERT(offsetof(ring2_header, producer_heartbeat_ns) == 320, "producer heartbeat line");
RING2_STATIC_ASSERT(offsetof(ring2_header, producer_losses) == 384, "producer losses");
RING2_STATIC_ASSERT(offsetof(ring2_header, meta_tail) == 1024, "consumer line");
RING2_STATIC_ASSERT(offsetof(ring2_header, consumer_heartbeat_ns) == 1088, "consumer heartbeat line");
RING2_STATIC_ASSERT(offsetof(ring2_header, consumer_losses) == 1152, "consumer losses");
RING2_STATIC_ASSERT(offsetof(ring2_header, wanted) == 2048, "control words");
RING2_STATIC_ASSERT(offsetof(ring2_header, control_sequence) == 3072, "control sequence");
RING2_STATIC_ASSERT(sizeof(ring2_header) == RING2_HEADER_BYTES, "the header is one page");

/* One record of the meta ring. `state` is stored last, with release order; everything else may be
 * read only after an acquire load of it said COMMITTED. */
typedef struct ring2_descriptor {
  uint64_t state;
  uint8_t kind;  /* ring2_kind */
  uint8_t dtype; /* ring2_dtype; TENSOR only */
  uint8_t ndim;  /* TENSOR only */
  uint8_t flags; /* reserved, 0 */
  uint16_t hook; /* TENSOR only */
  int16_t layer; /* -1 for global hooks */
  uint64_t payload_position; /* ever-growing byte position; offset = position % payload_bytes */
  uint64_t payload_bytes;
  uint64_t captured_monotonic_ns;
  int64_t step; /* TENSOR and STEP */
  uint32_t dims[RING2_DIMS_MAX];
  uint16_t tp_rank, pp_rank, dp_rank, ep_rank;
  uint8_t reserved[40];
} ring2_descriptor;

RING2_STATIC_ASSERT(sizeof(ring2_descriptor) == 128, "a descriptor is two cache lines");

/* Body of a STEP record, followed by row_count rows. */
typedef struct ring2_step_header {
  int64_t step;
  uint32_t row_count;
  uint32_t columns; /* batched: the token axis T of the tensors; packed: rows in all */
  uint8_t layout;   /* ring2_step_layout */
  uint8_t flags;    /* ring2_step_flag */
  uint8_t reserved[2];
  uint32_t control_sequence; /* of the control words that the step was captured by; 0: not known */
  uint8_t reserved1[8];
} ring2_step_header;

/* One request's part of a step. Token ranges are half-open logical positions in the request. */
typedef struct ring2_step_row {
  uint64_t request_key; /* as in the REQUEST body; never 0 */
  int32_t token_start;
  int32_t token_end;
  int32_t index;      /* batched: index on the batch axis; packed: order of the request in the step */
  int32_t row_offset; /* first row of this request on the token axis (left padding, or packing) */
  int32_t kv_offset;  /* first key of this request on the key axis of attention tensors */
  uint8_t phase;      /* ring2_phase */
  uint8_t reserved[3];
} ring2_step_row;

RING2_STATIC_ASSERT(sizeof(ring2_step_header) == 32, "step header");
RING2_STATIC_ASSERT(offsetof(ring2_step_header, control_sequence) == 20, "step control sequence");
RING2_STATIC_ASSERT(sizeof(ring2_step_row) == 32, "step row");

/* Body of a GAP record: losses since the last GAP, by reason. */
typedef struct ring2_gap {
  ring2_loss_count losses[RING2_LOSS_REASONS_MAX];
  int64_t first_step; /* -1 when no loss had a step */
  int64_t last_step;
} ring2_gap;

#ifdef __cplusplus
}
#endif
#endif
