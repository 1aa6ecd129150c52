"""Reads a forward pass's arguments: how many rows, which token positions, where padding is.

Pure functions on tensors; nothing here knows requests, hooks or segments. Positions are logical:
padding has none. A row whose real tokens are not in one piece cannot be described by a STEP and is
left out.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ._native import LAYOUT_BATCHED, LAYOUT_PACKED, PHASE_DECODE, PHASE_PREFILL


class Row(NamedTuple):
    """One batch row's part of a forward pass; see ring2_step_row."""

    index: int
    token_start: int
    token_end: int
    row_offset: int
    kv_offset: int


class Forward(NamedTuple):
    """A forward pass before it runs."""

    layout: int
    batch: int
    columns: int
    past: int  # columns of the key axis that earlier passes filled
    phase: int
    rows: tuple[Row, ...]
    irregular: int  # rows left out because their tokens are not in one piece
    keys_in_one_piece: bool  # whether [kv_offset, …) of the key axis are the request's keys
    token_ids: Any  # the input_ids tensor, or None
    cache: Any


def argument_binder(forward: Callable[..., Any]) -> Callable[[tuple, dict], dict[str, Any]]:
    """A function that names positional arguments as ``forward`` does."""
    try:
        names = tuple(inspect.signature(forward).parameters)
    except (TypeError, ValueError):
        names = ()

    def bind(args: tuple, kwargs: dict) -> dict[str, Any]:
        if not args:
            return kwargs
        return {**dict(zip(names, args, strict=False)), **kwargs}

    return bind


def past_columns(cache: Any, cache_position: Any) -> int:
    """Columns of the key axis that are filled before this forward pass."""
    if cache_position is not None:
        return int(cache_position.reshape(-1)[0])
    if cache is None:
        return 0
    if hasattr(cache, "get_seq_length"):
        return int(cache.get_seq_length())
    if isinstance(cache, (tuple, list)) and cache and cache[0] is not None:
        return int(cache[0][0].shape[-2])
    return 0


def valid_columns(mask: Any, batch: int, past: int, columns: int) -> Any:
    """A bool tensor [batch, past + columns], false on padding; None when nothing is padded.

    ``mask`` is what Transformers passes: [batch, keys], a prepared [batch, 1, queries, keys]
    (boolean, or additive), a dict of those by attention type, or None.
    """
    import torch

    if isinstance(mask, Mapping):
        mask = mask.get("full_attention", next(iter(mask.values()), None))
    if not isinstance(mask, torch.Tensor):
        return None
    total = past + columns
    if mask.ndim == 4:
        # Some query sees every key that is not padding; the last one may have a window.
        seen = mask[:, 0, :, :total]
        if seen.dtype == torch.bool:
            valid = seen
        elif seen.is_floating_point():
            valid = seen > torch.finfo(seen.dtype).min / 2
        else:
            valid = seen != 0
        valid = valid.any(dim=1)
    elif mask.ndim == 2:
        valid = mask[:, :total] != 0
    else:
        return None
    if valid.shape[1] < total:
        missing = valid.new_ones((valid.shape[0], total - valid.shape[1]))
        valid = torch.cat((missing, valid), dim=1)
    if bool(valid.all()):
        return None
    return valid.expand(batch, total)


def plain_rows(batch: int, past: int, columns: int) -> tuple[Row, ...]:
    """Rows of a batch without padding."""
    return tuple(Row(index, past, past + columns, 0, 0) for index in range(batch))


def padded_rows(valid: Any, past: int, positions: Any) -> tuple[tuple[Row, ...], int, bool]:
    """Rows of a padded batch, the number of rows left out, and whether keys are in one piece."""
    columns = valid.shape[1] - past
    fresh = valid[:, past:].int()
    counts = fresh.sum(dim=1).tolist()
    first = fresh.argmax(dim=1).tolist()
    last = (columns - 1 - fresh.flip(1).argmax(dim=1)).tolist()
    before = valid[:, :past].sum(dim=1).tolist()
    first_key = valid.int().argmax(dim=1).tolist()
    rows: list[Row] = []
    irregular = 0
    one_piece = True
    for index, count in enumerate(counts):
        if count == 0:
            continue
        if last[index] - first[index] + 1 != count:
            irregular += 1
            continue
        start = before[index]
        if positions is not None:
            start = int(positions[index if positions.shape[0] > 1 else 0, first[index]])
        if first_key[index] + before[index] != past + first[index]:
            one_piece = False
        rows.append(Row(index, start, start + count, first[index], first_key[index]))
    return tuple(rows), irregular, one_piece


def model_input(arguments: Mapping[str, Any]) -> tuple[Any, Any]:
    """(the tensor that carries batch and tokens, token ids or None)."""
    import torch

    ids = arguments.get("input_ids")
    if isinstance(ids, torch.Tensor):
        return ids, ids
    embeds = arguments.get("inputs_embeds")
    if isinstance(embeds, torch.Tensor):
        return embeds, None
    for value in arguments.values():
        if isinstance(value, torch.Tensor) and value.ndim > 0:
            return value, None if value.is_floating_point() else value
    return None, None


def holds_values(arguments: Mapping[str, Any]) -> bool:
    """False for a pass on meta or fake tensors, which have shapes alone."""
    import torch

    tensor, _ = model_input(arguments)
    if tensor is None or type(tensor) is torch.Tensor:
        return tensor is None or not tensor.is_meta
    return not tensor.is_meta and not isinstance(tensor, torch._subclasses.FakeTensor)


def read_forward(arguments: Mapping[str, Any]) -> Forward | None:
    """What this forward pass processes; None when no tensor says so.

    Integers are [batch, tokens] or [tokens]; floats are [batch, tokens, …] or [tokens, width]
    (one request, packed).
    """
    tensor, token_ids = model_input(arguments)
    if tensor is None:
        return None
    batched = tensor.ndim >= (3 if tensor.is_floating_point() else 2)
    cache = arguments.get("past_key_values")
    if not batched:
        columns = tensor.shape[0]
        rows = plain_rows(1, 0, columns)
        return Forward(
            LAYOUT_PACKED, 1, columns, 0, PHASE_PREFILL, rows, 0, True, token_ids, cache
        )
    batch, columns = tensor.shape[0], tensor.shape[1]
    past = past_columns(cache, arguments.get("cache_position"))
    mask = arguments.get("attention_mask")
    valid = valid_columns(mask, batch, past, columns)
    irregular, one_piece = 0, True
    if valid is None:
        rows = plain_rows(batch, past, columns)
    else:
        # A prepared 4-D mask may hide keys for other reasons than padding (a sliding window).
        prepared = getattr(mask, "ndim", 4) == 4
        positions = arguments.get("position_ids") if prepared else None
        rows, irregular, one_piece = padded_rows(valid, past, positions)
    phase = PHASE_PREFILL if past == 0 or columns > 1 else PHASE_DECODE
    return Forward(
        LAYOUT_BATCHED, batch, columns, past, phase, rows, irregular, one_piece, token_ids, cache
    )
