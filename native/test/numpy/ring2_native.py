"""The statistics functions of libring2 through ctypes, for comparisons with NumPy.

RING2_LIBRARY names the shared library. Not the `ring2` package, which produces: this measures.
"""

import ctypes
import os

import numpy as np

FLOAT32, FLOAT16, BFLOAT16, FLOAT64, INT32 = 1, 2, 3, 4, 8
PATTERN, ATTN_SCORES, FINAL_LOGITS, RESID_PRE, TOKEN_IDS = 5, 4, 19, 0, 18
ACTION_STATS, ACTION_TENSOR = 1, 2
PREFILL, DECODE = 0, 1
HAS_CRC = 4

STATS = (
    "l2_mean l2_max rms_mean rms_max abs_max mean variance entropy_mean entropy_min entropy_max "
    "lse_mean top1_probability_mean margin_mean entropy_normalized_mean entropy_no_sink_mean "
    "sink_mass sink_score logit_max_mean kurtosis_mean kurtosis_max abs_median outlier_ratio "
    "massive_count near_zero_share zero_share l2_no_first_mean head_entropy_min "
    "collapsed_head_share row_sum_error sink_mass_4 top_key_mass previous_token_mass self_mass "
    "recency_mass lookback_ratio varentropy_mean margin_probability_mean surprisal_mean repetition "
    "loop_period tokens_tracked layer_cosine_mean layer_cosine_min layer_growth_mean "
    "contribution_mean token_cosine_mean rank_residual participation_ratio router_entropy_mean "
    "expert_entropy_mean token_outlier channel_outlier first_token_ratio"
).split()
STAT_COUNT = 56
BUCKETS_MAX = 160

_u32, _i32, _u64, _i64, _u16 = (
    ctypes.c_uint32,
    ctypes.c_int32,
    ctypes.c_uint64,
    ctypes.c_int64,
    ctypes.c_uint16,
)


class Slice(ctypes.Structure):
    """ring2_slice of native/include/ring2.h, field by field."""

    _fields_ = [
        ("position", _u64),
        ("request_key", _u64),
        ("step", _i64),
        ("payload_offset", _u64),
        ("payload_bytes", _u64),
        ("captured_realtime_ns", _u64),
        ("kind", _u32),
        ("flags", _u32),
        ("dtype", _u32),
        ("hook", _u32),
        ("layer", _i32),
        ("phase", _u32),
        ("token_start", _i32),
        ("token_end", _i32),
        ("kv_offset", _i32),
        ("ndim", _u32),
        ("dims", _u32 * 4),
        ("strides", _u64 * 4),
        ("tp_rank", _u16),
        ("pp_rank", _u16),
        ("dp_rank", _u16),
        ("ep_rank", _u16),
        ("record_slices", _u32),
        ("slice_index", _u32),
        ("action", _u32),
        ("groups", _u32),
        ("prompt_tokens", _i32),
        ("crc32c", _u32),
        ("elements", _u64),
        ("nan_count", _u64),
        ("pos_inf_count", _u64),
        ("neg_inf_count", _u64),
        ("invalid_rows", _u64),
        ("skipped_rows", _u64),
        ("defined", _u64),
        ("top1_id", _u32),
        ("stats", ctypes.c_double * STAT_COUNT),
    ]

    def values(self):
        """The statistics that are defined, by name."""
        return {name: self.stats[i] for i, name in enumerate(STATS) if self.defined >> i & 1}


class Point(ctypes.Structure):
    """ring2_point of native/include/ring2.h."""

    _fields_ = [
        ("signal", _u32),
        ("hook", _u32),
        ("layer", _i32),
        ("phase", _u32),
        ("count", _u64),
        ("zero_count", _u64),
        ("sum", ctypes.c_double),
        ("min", ctypes.c_double),
        ("max", ctypes.c_double),
        ("scale", _i32),
        ("offset", _i32),
        ("bucket_count", _u32),
        ("reserved", _u32),
        ("exemplar_value", ctypes.c_double),
        ("exemplar_key", _u64),
        ("exemplar_realtime_ns", _u64),
        ("buckets", _u64 * BUCKETS_MAX),
    ]


def _load():
    library = ctypes.CDLL(os.environ["RING2_LIBRARY"])
    pointer = ctypes.c_void_p
    library.ring2_isa.restype = ctypes.c_char_p
    library.ring2_last_error.restype = ctypes.c_char_p
    library.ring2_measure_memory.argtypes = [pointer, _u64, pointer, pointer, ctypes.POINTER(Slice)]
    library.ring2_crc32c.argtypes = [pointer, _u64, _u32]
    library.ring2_crc32c.restype = _u32
    library.ring2_fold_create.argtypes = [ctypes.POINTER(pointer)]
    library.ring2_track_create.argtypes = [ctypes.POINTER(pointer)]
    library.ring2_track_destroy.argtypes = [pointer]
    library.ring2_track_end.argtypes = [pointer, _u64]
    library.ring2_fold_destroy.argtypes = [pointer]
    library.ring2_fold_read.argtypes = [pointer, ctypes.POINTER(Point), _u32]
    library.ring2_fold_record.argtypes = [pointer, _u32, _u32, _i32, _u32, pointer] + [_u64] * 3
    return library


LIBRARY = _load()


def last_error():
    return LIBRARY.ring2_last_error().decode()


def round_to_bfloat16(values):
    """float32 values rounded to the nearest bfloat16, ties to even, as uint16 codes."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    quiet_nan = (bits >> 16) | 0x40
    return np.where(np.isnan(values), quiet_nan, rounded).astype(np.uint16)


def encode(values, dtype):
    """The array a model of this dtype would hold; bfloat16 as uint16 codes."""
    if dtype == BFLOAT16:
        return round_to_bfloat16(values)
    kind = {FLOAT32: np.float32, FLOAT16: np.float16, FLOAT64: np.float64, INT32: np.int32}[dtype]
    with np.errstate(over="ignore"):
        return np.asarray(values).astype(kind)


def decode(encoded, dtype):
    """The exact values of an encoded array as float64."""
    if dtype == BFLOAT16:
        return (encoded.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return encoded.astype(np.float64)


def measure(
    encoded,
    dtype,
    hook=RESID_PRE,
    token_start=0,
    action=ACTION_STATS,
    fold=None,
    flags=0,
    groups=127,
    track=None,
    **fields,
):
    """Measures an array (any strides, dense last axis) and returns its Slice."""
    measured = Slice()
    measured.dtype, measured.hook, measured.ndim = dtype, hook, encoded.ndim
    measured.token_start, measured.action, measured.flags = token_start, action, flags
    measured.layer, measured.request_key, measured.groups = 3, 77, groups
    measured.prompt_tokens = -1
    for name, value in fields.items():
        setattr(measured, name, value)
    for axis in range(encoded.ndim):
        measured.dims[axis] = encoded.shape[axis]
        measured.strides[axis] = encoded.strides[axis] // encoded.itemsize
    reach = sum((n - 1) * s for n, s in zip(encoded.shape, encoded.strides)) + encoded.itemsize
    data_bytes = reach if encoded.size else 0
    status = LIBRARY.ring2_measure_memory(encoded.ctypes.data, data_bytes, fold, track, measured)
    assert status == 0, last_error()
    return measured


def crc32c(data):
    return LIBRARY.ring2_crc32c(data, len(data), 0)
