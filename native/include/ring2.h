/* libring2: the one C ABI of Ring².
 *
 * Producers (an inference process) open a segment and claim, fill and commit records. One consumer
 * (the exporter) drains validated records, measures tensor statistics and releases the space.
 *
 * Every function returns RING2_OK, RING2_FULL where that is said, or a negative error of
 * ring2_errors.h, whose text ring2_last_error() holds for the calling thread. No function throws,
 * blocks (unless the producer chose `block`), or reads outside the segment whatever it contains.
 */
#ifndef RING2_H
#define RING2_H

#include "ring2_control.h"
#include "ring2_errors.h"
#include "ring2_layout.h"

#ifdef __cplusplus
extern "C" {
#endif

#define RING2_OK 0
#define RING2_FULL 1 /* not an error: counted in the segment, and announced by a GAP */

/* Text of the calling thread's last error: what was expected, what came, what to do. Never NULL. */
RING2_API const char *ring2_last_error(void);
RING2_API const char *ring2_version(void);
RING2_API uint32_t ring2_dtype_bytes(uint32_t dtype); /* 0 for an unknown dtype */
RING2_API uint64_t ring2_monotonic_ns(void);

/* ---------------------------------------------------------------- producer */

typedef struct ring2_producer ring2_producer;

enum ring2_when_full { RING2_WHEN_FULL_DROP = 0, RING2_WHEN_FULL_BLOCK = 1 };

typedef struct ring2_producer_options {
  const char *directory;     /* NULL: /dev/shm */
  const char *name;          /* [A-Za-z0-9._-]{1,63}; the file is ring2.<name> */
  uint64_t payload_bytes;    /* rounded up to 4096; at least 65536 */
  uint32_t meta_slots;       /* power of two, 64 … 2^20; 0: chosen from payload_bytes */
  uint32_t when_full;        /* ring2_when_full */
  uint32_t block_timeout_us; /* with BLOCK: how long one claim may wait */
} ring2_producer_options;

/* Creates a segment and links it under its name. A leftover of a dead producer of the same name is
 * moved aside (ring2.<name>~<boot>) for an exporter to drain; a live one is RING2_E_NAME_TAKEN. */
RING2_API int ring2_producer_open(const ring2_producer_options *options, ring2_producer **out);
/* Marks the segment closed; removes it when nothing is left to drain. */
RING2_API int ring2_producer_close(ring2_producer *producer);
RING2_API int ring2_producer_heartbeat(ring2_producer *producer);
RING2_API const ring2_header *ring2_producer_header(const ring2_producer *producer);

/* 1 when the exporter wants this hook and layer now, else 0. Asks the segment, not a snapshot. */
RING2_API int ring2_wants(const ring2_producer *producer, uint32_t hook, int32_t layer);

typedef struct ring2_tensor {
  uint32_t hook;
  int32_t layer; /* -1 for global hooks */
  uint32_t dtype;
  uint32_t ndim;
  int64_t step;
  int64_t dims[RING2_DIMS_MAX];
  int64_t strides[RING2_DIMS_MAX]; /* in elements; used by ring2_write_tensor only */
  uint16_t tp_rank, pp_rank, dp_rank, ep_rank;
} ring2_tensor;

typedef struct ring2_claim {
  void *payload; /* where the bytes go, 64-byte aligned, contiguous */
  uint64_t payload_bytes;
  uint64_t position; /* of the descriptor */
} ring2_claim;

/* Claim, write into claim->payload, then commit or abort; from any number of threads. */
RING2_API int ring2_claim_tensor(ring2_producer *producer, const ring2_tensor *tensor, ring2_claim *out);
RING2_API int ring2_commit(ring2_producer *producer, const ring2_claim *claim);
RING2_API int ring2_abort(ring2_producer *producer, const ring2_claim *claim);

/* One copy of the elements, gathered row-major when the strides are not contiguous. */
RING2_API int ring2_write_tensor(ring2_producer *producer, const ring2_tensor *tensor, const void *data);

/* Part of axis 0 of a tensor: entries [start, start + count). */
typedef struct ring2_run {
  uint32_t start;
  uint32_t count;
} ring2_run;

/* As ring2_write_tensor, but only of the runs of axis 0, one behind the other: the record's axis 0 is
 * as long as they are together. `tensor` describes the source. */
RING2_API int ring2_write_tensor_runs(ring2_producer *producer, const ring2_tensor *tensor,
                                      const void *data, const ring2_run *runs, uint32_t run_count);
/* kind: MODEL, REQUEST or REQUEST_END; json: UTF-8, at most RING2_BODY_BYTES_MAX. */
RING2_API int ring2_write_json(ring2_producer *producer, uint32_t kind, const char *json, uint64_t bytes);
/* On RING2_FULL the step's tensors are refused too (STEP_LOST): nobody could attribute them. */
RING2_API int ring2_write_step(ring2_producer *producer, const ring2_step_header *header,
                               const ring2_step_row *rows);
/* Counts a tensor the producer had to give up before a claim (RING2_LOSS_UNSUPPORTED). */
RING2_API int ring2_count_loss(ring2_producer *producer, uint32_t reason, uint64_t records, uint64_t bytes);

/* ---------------------------------------------------------------- consumer */

typedef struct ring2_consumer ring2_consumer;

typedef struct ring2_segment_info {
  char name[RING2_NAME_BYTES];
  uint64_t boot;
  uint64_t meta_slots;
  uint64_t payload_bytes;
  uint64_t meta_head, meta_tail;
  uint64_t payload_head, payload_tail;
  uint64_t committed_records, committed_bytes;
  uint64_t anchor_monotonic_ns, anchor_realtime_ns;
  uint64_t producer_heartbeat_ns, consumer_heartbeat_ns;
  uint32_t producer_pid;
  uint32_t producer_alive; /* pid and start time still match */
  uint32_t producer_closed;
  uint32_t consumer_pid;
  ring2_loss_count losses[RING2_LOSS_REASONS_MAX]; /* both sides' */
} ring2_segment_info;

/* Reads a segment's counters without taking it: for `rings`. */
RING2_API int ring2_segment_peek(const char *path, ring2_segment_info *out);

/* Takes the segment (one consumer at a time, kernel-released lock) and continues at meta_tail. */
RING2_API int ring2_consumer_open(const char *path, ring2_consumer **out);
/* remove != 0: unlinks the segment; only when the producer is gone and everything is released. */
RING2_API int ring2_consumer_close(ring2_consumer *consumer, int remove);
RING2_API int ring2_consumer_info(ring2_consumer *consumer, ring2_segment_info *out);
/* The mapped payload ring, payload_bytes long; slices are offsets into it. */
RING2_API void *ring2_consumer_payload(ring2_consumer *consumer);
/* Continues at `position` (meta positions): what is below is already safe elsewhere. */
RING2_API int ring2_consumer_seek(ring2_consumer *consumer, uint64_t position);
/* Teaches the consumer a STEP body from before the position it continues at. */
RING2_API int ring2_consumer_add_step(ring2_consumer *consumer, const void *body, uint64_t bytes);
/* Sets or clears the wanted bits of one hook; layer -2: every layer. */
RING2_API int ring2_consumer_want(ring2_consumer *consumer, uint32_t hook, int32_t layer, int wanted);
enum ring2_slice_flag {
  RING2_SLICE_CONTIGUOUS = 1,   /* bytes at payload_offset are the slice, row-major */
  RING2_SLICE_UNATTRIBUTED = 2, /* no STEP known: the whole tensor, request_key 0 */
  RING2_SLICE_HAS_CRC = 4,
  RING2_SLICE_EXTRA = 8 /* of a step that is RING2_STEP_EXTRA */
};

/* What to do with a slice; written by the caller between drain and measure. */
enum ring2_action { RING2_ACTION_DROP = 0, RING2_ACTION_STATS = 1, RING2_ACTION_TENSOR = 2 };

/* Statistics of one slice. Rows are along the last axis. A field is a value only if its bit is set
 * in `defined`; definitions, units and sources are in docs/statistics.md. */
enum ring2_stat {
  RING2_STAT_L2_MEAN = 0,        /* mean over rows of the row's L2 norm */
  RING2_STAT_L2_MAX = 1,
  RING2_STAT_RMS_MEAN = 2,       /* L2 / sqrt(width) */
  RING2_STAT_RMS_MAX = 3,
  RING2_STAT_ABS_MAX = 4,
  RING2_STAT_MEAN = 5,           /* population moments over all finite elements */
  RING2_STAT_VARIANCE = 6,
  RING2_STAT_ENTROPY_MEAN = 7,   /* nat; logits: softmax; pattern: per (head, query) */
  RING2_STAT_ENTROPY_MIN = 8,
  RING2_STAT_ENTROPY_MAX = 9,
  RING2_STAT_LSE_MEAN = 10,      /* log-sum-exp of logits */
  RING2_STAT_TOP1_PROBABILITY_MEAN = 11,
  RING2_STAT_MARGIN_MEAN = 12,   /* ln(p1/p2) of logits */
  RING2_STAT_ENTROPY_NORMALIZED_MEAN = 13, /* pattern: H / ln(visible keys), rows with ≥ 2 keys */
  RING2_STAT_ENTROPY_NO_SINK_MEAN = 14,    /* pattern: without key 0, / ln(visible keys − 1), ≥ 3 keys */
  RING2_STAT_SINK_MASS = 15,     /* pattern: mean over heads and queries ≥ 1 of the mass on key 0 */
  RING2_STAT_SINK_SCORE = 16,    /* pattern: Gu et al., share of heads with alpha_0 > 0.3, T = 64 */
  RING2_STAT_LOGIT_MAX_MEAN = 17,
  RING2_STAT_KURTOSIS_MEAN = 18, /* residual stream: Pearson m4/m2^2 of a row, mean over rows */
  RING2_STAT_KURTOSIS_MAX = 19,
  RING2_STAT_ABS_MEDIAN = 20,    /* lower median of |x| over the slice */
  RING2_STAT_OUTLIER_RATIO = 21, /* abs_max / abs_median */
  RING2_STAT_MASSIVE_COUNT = 22, /* |x| > 100 and |x| > 1000 * abs_median */
  RING2_STAT_NEAR_ZERO_SHARE = 23, /* |x| <= 1e-3 of the row's RMS */
  RING2_STAT_ZERO_SHARE = 24,
  RING2_STAT_L2_NO_FIRST_MEAN = 25, /* l2_mean without position 0 */
  RING2_STAT_HEAD_ENTROPY_MIN = 26, /* pattern: least head's mean entropy_no_sink */
  RING2_STAT_COLLAPSED_HEAD_SHARE = 27, /* pattern: share of heads with that mean < 0.05 */
  RING2_STAT_ROW_SUM_ERROR = 28, /* pattern: largest |sum - 1| of a row */
  RING2_STAT_SINK_MASS_4 = 29,   /* pattern: mass on keys 0..3, queries >= 4 */
  RING2_STAT_TOP_KEY_MASS = 30,  /* pattern: mean over heads of max_k alpha_k, prefill from token 0 */
  RING2_STAT_PREVIOUS_TOKEN_MASS = 31,
  RING2_STAT_SELF_MASS = 32,
  RING2_STAT_RECENCY_MASS = 33,  /* pattern: mass on the last 16 keys, queries >= 16 */
  RING2_STAT_LOOKBACK_RATIO = 34, /* pattern, decode: Chuang et al. 2024, mean over heads and queries */
  RING2_STAT_VARENTROPY_MEAN = 35, /* nat^2 */
  RING2_STAT_MARGIN_PROBABILITY_MEAN = 36, /* p1 - p2 of logits */
  RING2_STAT_SURPRISAL_MEAN = 37, /* nat; on the slice that completes the pair of logits row and token */
  RING2_STAT_REPETITION = 38,    /* token_ids: seq-rep-4 of the tokens generated so far */
  RING2_STAT_LOOP_PERIOD = 39,   /* token_ids: period p <= 64 of the last max(3p, 8) tokens; 0: none */
  RING2_STAT_TOKENS_TRACKED = 40, /* token_ids: generated tokens that the two above are over */
  RING2_STAT_LAYER_COSINE_MEAN = 41, /* resid_pre, resid_final: cosine to the stream one layer before */
  RING2_STAT_LAYER_COSINE_MIN = 42,
  RING2_STAT_LAYER_GROWTH_MEAN = 43, /* geometric mean of the ratio of norms to one layer before */
  RING2_STAT_CONTRIBUTION_MEAN = 44, /* attn_out over resid_pre, mlp_out over resid_mid: ratio of norms */
  RING2_STAT_TOKEN_COSINE_MEAN = 45, /* residual stream: mean cosine of all pairs of tokens but token 0 */
  RING2_STAT_RANK_RESIDUAL = 46, /* |X - 1 mean(X)^T|_F / |X|_F, without token 0 */
  RING2_STAT_PARTICIPATION_RATIO = 47, /* of exactly the last 64 tokens of a prefill */
  RING2_STAT_ROUTER_ENTROPY_MEAN = 48, /* router_logits: H / ln E */
  RING2_STAT_EXPERT_ENTROPY_MEAN = 49, /* topk_weights: H / ln k of the normalised weights */
  RING2_STAT_TOKEN_OUTLIER = 50, /* k, v: largest head's max/median norm over the tokens */
  RING2_STAT_CHANNEL_OUTLIER = 51, /* k, v: largest head's max/median RMS over the channels */
  RING2_STAT_FIRST_TOKEN_RATIO = 52, /* k, v: norm of token 0 / median, mean over heads */
  RING2_STAT_COUNT = 56
};

/* Which statistics are wanted beyond norms, moments, entropies and sink mass; bits of ring2_slice.groups.
 * Each costs time of its own. */
enum ring2_group {
  RING2_GROUP_OUTLIERS = 1,       /* kurtosis … l2_no_first */
  RING2_GROUP_ATTENTION = 2,      /* head_entropy_min … lookback_ratio */
  RING2_GROUP_SEQUENCE = 4,       /* surprisal, repetition, loops */
  RING2_GROUP_LAYERS = 8,         /* layer cosine, growth, contribution */
  RING2_GROUP_REPRESENTATION = 16, /* token cosine, rank residual, participation ratio */
  RING2_GROUP_ROUTER = 32,
  RING2_GROUP_KV = 64,
  RING2_GROUPS_ALL = 127
};

typedef struct ring2_slice {
  uint64_t position;       /* meta position of the record */
  uint64_t request_key;
  int64_t step;
  uint64_t payload_offset; /* in the payload ring: of the slice, or of the body */
  uint64_t payload_bytes;  /* decoded bytes of the slice, or of the body */
  uint64_t captured_realtime_ns;
  uint32_t kind;           /* ring2_kind; STEP, JSON kinds and GAP have only the fields above */
  uint32_t flags;          /* ring2_slice_flag */
  uint32_t dtype;
  uint32_t hook;
  int32_t layer;
  uint32_t phase;
  int32_t token_start, token_end;
  int32_t kv_offset;
  uint32_t ndim;           /* of the slice: without the batch axis */
  uint32_t dims[4];        /* row-major logical shape; ndim ≤ 4 */
  uint64_t strides[4];     /* in elements, from payload_offset */
  uint16_t tp_rank, pp_rank, dp_rank, ep_rank;
  uint32_t record_slices;  /* slices of this record in the batch; the last one has slice_index + 1 == it */
  uint32_t slice_index;
  uint32_t action;         /* in: ring2_action */
  uint32_t groups;         /* in: ring2_group bits; ring2_drain sets all */
  int32_t prompt_tokens;   /* in: tokens of the request's prompt; -1: not known */
  uint32_t crc32c;         /* of the decoded bytes, when action is TENSOR */
  uint64_t elements;
  uint64_t nan_count, pos_inf_count, neg_inf_count;
  uint64_t invalid_rows, skipped_rows;
  uint64_t defined;        /* bit i: stats[i] is a value */
  uint32_t top1_id;        /* argmax of the last logits row */
  double stats[RING2_STAT_COUNT];
} ring2_slice;

typedef struct ring2_drain_result {
  uint64_t slices;         /* written to the caller's array */
  uint64_t next_position;  /* where the next drain begins */
  uint64_t head_position;  /* records claimed so far */
  uint64_t payload_bytes;  /* bytes of the drained records */
  uint32_t finished;       /* 1: the producer is gone or closed, and nothing is left to drain */
  uint32_t waiting;        /* 1: stopped at a record that a live producer has not committed yet */
} ring2_drain_result;

/* Takes committed records in order, validates them, and cuts each TENSOR into one slice per request
 * of its STEP. max_slices must be at least RING2_STEP_ROWS_MAX. The bytes stay borrowed from the
 * ring until ring2_release. */
RING2_API int ring2_drain(ring2_consumer *consumer, ring2_slice *slices, uint64_t max_slices,
                          uint64_t max_bytes, ring2_drain_result *result);
/* Gives everything below `position` back to the producer. */
RING2_API int ring2_release(ring2_consumer *consumer, uint64_t position);
/* Copies a slice row-major into `out` (payload_bytes long), for slices that are not contiguous. */
RING2_API int ring2_gather(ring2_consumer *consumer, const ring2_slice *slice, void *out);

/* -------------------------------------------------------------- statistics */

typedef struct ring2_fold ring2_fold;

/* What is folded, one sample per row (L2: per token; attention: per head and query). */
enum ring2_signal {
  RING2_SIGNAL_L2_NORM = 0,
  RING2_SIGNAL_LOGITS_ENTROPY = 1,
  RING2_SIGNAL_LOGITS_TOP1_PROBABILITY = 2,
  RING2_SIGNAL_LOGITS_MARGIN = 3,
  RING2_SIGNAL_ATTENTION_ENTROPY = 4,         /* normalized */
  RING2_SIGNAL_ATTENTION_ENTROPY_NO_SINK = 5, /* normalized, without key 0 */
  RING2_SIGNAL_ATTENTION_SINK_MASS = 6,
  RING2_SIGNAL_KURTOSIS = 7,                   /* per token */
  RING2_SIGNAL_OUTLIER_RATIO = 8,              /* per slice */
  RING2_SIGNAL_NEAR_ZERO_SHARE = 9,            /* per slice */
  RING2_SIGNAL_ATTENTION_SINK_MASS_4 = 10,     /* per head and query, as all of attention but where said */
  RING2_SIGNAL_ATTENTION_TOP_KEY_MASS = 11,    /* per head */
  RING2_SIGNAL_ATTENTION_PREVIOUS_TOKEN_MASS = 12,
  RING2_SIGNAL_ATTENTION_SELF_MASS = 13,
  RING2_SIGNAL_ATTENTION_RECENCY_MASS = 14,
  RING2_SIGNAL_ATTENTION_LOOKBACK_RATIO = 15,
  RING2_SIGNAL_ATTENTION_COLLAPSED_HEADS = 16, /* share of heads, per slice */
  RING2_SIGNAL_LOGITS_VARENTROPY = 17,
  RING2_SIGNAL_TOKEN_SURPRISAL = 18,
  RING2_SIGNAL_LAYER_COSINE_DISTANCE = 19,     /* 1 - cosine, per token */
  RING2_SIGNAL_LAYER_GROWTH = 20,              /* per token */
  RING2_SIGNAL_BRANCH_CONTRIBUTION = 21,       /* per token */
  RING2_SIGNAL_TOKEN_COSINE_DISTANCE = 22,     /* 1 - mean cosine, per prefill slice or decode window */
  RING2_SIGNAL_RANK_RESIDUAL = 23,             /* likewise */
  RING2_SIGNAL_PARTICIPATION_RATIO = 24,       /* per prefill slice of at least 65 tokens */
  RING2_SIGNAL_ROUTER_ENTROPY = 25,            /* per token */
  RING2_SIGNAL_EXPERT_ENTROPY = 26,            /* per token */
  RING2_SIGNAL_EXPERT_MAX_VIOLATION = 27,      /* per window of 1000 expected tokens per expert */
  RING2_SIGNAL_EXPERT_LOAD_VARIATION = 28,     /* likewise */
  RING2_SIGNAL_EXPERT_LOAD_ENTROPY = 29,       /* likewise */
  RING2_SIGNAL_EXPERT_DEAD_SHARE = 30,         /* likewise */
  RING2_SIGNAL_KV_TOKEN_OUTLIER = 31,          /* per head and prefill slice */
  RING2_SIGNAL_KV_CHANNEL_OUTLIER = 32,        /* likewise */
  RING2_SIGNAL_KV_FIRST_TOKEN_RATIO = 33,      /* likewise */
  RING2_SIGNAL_REQUEST_REPETITION = 34,        /* per request, by ring2_fold_record */
  RING2_SIGNAL_COUNT = 35
};

#define RING2_BUCKETS_MAX 160u

/* One series: a base-2 exponential histogram (OpenTelemetry data model), cumulative. */
typedef struct ring2_point {
  uint32_t signal;
  uint32_t hook;
  int32_t layer;
  uint32_t phase;
  uint64_t count;
  uint64_t zero_count;
  double sum, min, max;
  int32_t scale;
  int32_t offset; /* index of buckets[0] */
  uint32_t bucket_count;
  uint32_t reserved;
  double exemplar_value; /* the largest sample since the last read; valid when exemplar_key != 0 */
  uint64_t exemplar_key; /* request_key */
  uint64_t exemplar_realtime_ns;
  uint64_t buckets[RING2_BUCKETS_MAX];
} ring2_point;

/* Counters that are not histograms, per (hook, layer). */
typedef struct ring2_counts {
  uint32_t hook;
  int32_t layer;
  uint64_t elements, nan, pos_inf, neg_inf, invalid_rows, skipped_rows, massive;
} ring2_counts;

RING2_API int ring2_fold_create(ring2_fold **out);
RING2_API int ring2_fold_destroy(ring2_fold *fold);
/* Writes up to max points and returns how many there are (≥ 0), or an error. Clears exemplars. */
RING2_API int ring2_fold_read(ring2_fold *fold, ring2_point *points, uint32_t max);
RING2_API int ring2_fold_counts(ring2_fold *fold, ring2_counts *counts, uint32_t max);
/* Folds bare samples, for tests and benchmarks. */
RING2_API int ring2_fold_record(ring2_fold *fold, uint32_t signal, uint32_t hook, int32_t layer,
                                uint32_t phase, const double *values, uint64_t count, uint64_t key,
                                uint64_t realtime_ns);

/* What statistics over several tensors of a request remember: token histories, windows of decode
 * steps, expert loads, and where in the ring the layer before lies. One per consumer; bounded memory.
 * What it no longer knows gives no value. */
typedef struct ring2_track ring2_track;

RING2_API int ring2_track_create(ring2_track **out);
RING2_API int ring2_track_destroy(ring2_track *track);
/* Forgets a request that has ended. */
RING2_API int ring2_track_end(ring2_track *track, uint64_t request_key);

/* Measures every attributed slice whose action is not DROP, in place, and folds it. One pass over the bytes;
 * TENSOR slices get their CRC-32C too. fold may be NULL; so may track: the statistics over several
 * tensors are then not defined. */
RING2_API int ring2_measure(ring2_consumer *consumer, ring2_fold *fold, ring2_track *track,
                            ring2_slice *slices, uint64_t count);

/* The same on memory that is not a ring: slice->strides and dims describe `data`, which must stay as
 * it is while `track`, if given, is used. For tests and NumPy comparisons. */
RING2_API int ring2_measure_memory(const void *data, uint64_t data_bytes, ring2_fold *fold,
                                   ring2_track *track, ring2_slice *slice);

/* What a page shows of stored tensors. Dense, row-major memory of a floating-point ring2_dtype;
 * data_bytes must be what the axes take. No state, so every thread may call them. */

/* L2 norm of each row over its finite elements; NaN for a row without any. */
RING2_API int ring2_view_norms(const void *data, uint64_t data_bytes, uint32_t dtype, uint64_t rows,
                               uint64_t width, double *norms);

/* One row of logits; NaN where undefined. Natural logarithms. */
typedef struct ring2_view_softmax {
  double entropy;
  double top1_probability;
  double margin;    /* largest logit less the second largest */
  double surprisal; /* -ln of the label's probability */
} ring2_view_softmax;

/* labels: a token id for each row, below 0 for none. */
RING2_API int ring2_view_logits(const void *data, uint64_t data_bytes, uint32_t dtype, uint64_t rows,
                                uint64_t width, const double *labels, ring2_view_softmax *out);

typedef struct ring2_view_token {
  double id;
  double probability;
  double logit;
} ring2_view_token;

typedef struct ring2_view_top_facts {
  double entropy; /* NaN: the row has no softmax, and `out` was not written */
  double rank;    /* how many ids come before the label; -1 without a label */
} ring2_view_top_facts;

/* The `count` largest of one row of logits, largest first, of equal ones the lower id first. */
RING2_API int ring2_view_top(const void *data, uint64_t data_bytes, uint32_t dtype, uint64_t width,
                             int64_t label, uint64_t count, ring2_view_token *out,
                             ring2_view_top_facts *facts);

/* Adds the rows [queries, keys] of every head of an attention pattern, times scale, to `sums`. */
RING2_API int ring2_view_pattern_add(const void *data, uint64_t data_bytes, uint32_t dtype,
                                     uint64_t heads, uint64_t queries, uint64_t keys, float scale,
                                     float *sums);

/* Which part of a pattern [queries, keys], and how many tokens a side of one cell covers. */
typedef struct ring2_view_tile {
  uint64_t queries, keys;
  uint64_t first_query; /* position of the first query */
  uint64_t query_start, query_end, key_start, key_end; /* indices, half open */
  uint64_t cell;
  int64_t prompt; /* tokens of the prompt; below 0 when that is not known */
} ring2_view_tile;

/* cells [rows, columns]: the largest probability that each covers, NaN where no query is stored (a row
 * of NaN) or its keys are masked (a 0 behind the query). key_mass [columns]: mean mass per query.
 * lookback [rows]: share of mass on keys of the prompt, NaN for its own queries. first_key: mean
 * mass on key 0. */
RING2_API int ring2_view_pattern_tile(const float *matrix, uint64_t floats,
                                      const ring2_view_tile *what, float *cells, double *key_mass,
                                      double *lookback, double *first_key);

RING2_API uint32_t ring2_crc32c(const void *data, uint64_t bytes, uint32_t seed);
/* CRC-32C of each of `count` parts of the memory; parts holds offset and size of each in turn. */
RING2_API int ring2_crc32c_parts(const void *data, uint64_t data_bytes, const uint64_t *parts,
                                 uint64_t count, uint32_t *sums);
/* Which kernels run: "avx512", "avx2" or "portable". RING2_ISA in the environment lowers the choice. */
RING2_API const char *ring2_isa(void);

#ifdef __cplusplus
}
#endif
#endif
