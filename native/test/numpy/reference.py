"""The statistics in plain NumPy float64, written from docs/statistics.md, not from the kernels."""

import numpy as np


def moments(values):
    """Row norms and population moments over the finite elements; rows along the last axis."""
    rows = values.reshape(-1, values.shape[-1])
    finite = np.isfinite(rows)
    kept = np.where(finite, rows, 0)
    used = finite.sum(axis=1)
    squares = (kept**2).sum(axis=1)[used > 0]
    counts = used[used > 0]
    result = {}
    if counts.size:
        norms, rms = np.sqrt(squares), np.sqrt(squares / counts)
        elements = rows[finite]
        result = {
            "l2_mean": norms.mean(),
            "l2_max": norms.max(),
            "rms_mean": rms.mean(),
            "rms_max": rms.max(),
            "abs_max": np.abs(elements).max(),
            "mean": elements.mean(),
            "variance": elements.var(),
        }
    return result, int((used == 0).sum())


def entropy(p):
    """-sum p ln p of each row, with 0 ln 0 = 0."""
    return -np.where(p > 0, p * np.log(np.where(p > 0, p, 1)), 0).sum(axis=-1)


def logits(values):
    """Softmax statistics over valid rows, and the indexes of those rows."""
    rows = values.reshape(-1, values.shape[-1])
    invalid = (np.isnan(rows) | (rows == np.inf)).any(axis=1)
    skipped = ~invalid & (rows == -np.inf).all(axis=1)
    valid = rows[~invalid & ~skipped]
    result = {}
    if valid.size:
        maximum = valid.max(axis=1)
        weights = np.exp(valid - maximum[:, None])
        lse = maximum + np.log(weights.sum(axis=1))
        p = weights / weights.sum(axis=1, keepdims=True)
        h = entropy(p)
        log_p = np.where(p > 0, np.log(np.where(p > 0, p, 1)), 0)
        result = {
            "entropy_mean": h.mean(),
            "entropy_min": h.min(),
            "entropy_max": h.max(),
            "varentropy_mean": (p * (log_p + h[:, None]) ** 2).sum(axis=1).mean(),
            "lse_mean": lse.mean(),
            "top1_probability_mean": p.max(axis=1).mean(),
            "logit_max_mean": maximum.mean(),
        }
        if valid.shape[1] > 1:
            two = np.sort(valid, axis=1)[:, -2:]
            several = np.isfinite(two[:, 0])
            if several.any():
                result["margin_mean"] = (two[:, 1] - two[:, 0])[several].mean()
                two_p = np.sort(p, axis=1)[several, -2:]
                result["margin_probability_mean"] = (two_p[:, 1] - two_p[:, 0]).mean()
    return result, int(invalid.sum()), int(skipped.sum())


def attention(p, token_start):
    """Statistics of a pattern [heads, queries, keys] without NaN or infinities."""
    heads, queries, keys = p.shape
    mass = p.sum(axis=2)
    position = np.broadcast_to(token_start + np.arange(queries), (heads, queries))
    visible = np.minimum(position + 1, keys)
    valid = mass > 0
    q = p / np.where(valid, mass, 1)[:, :, None]
    h = entropy(q)
    result = {}
    if valid.any():
        result["entropy_mean"] = h[valid].mean()
        result["entropy_min"] = h[valid].min()
        result["entropy_max"] = h[valid].max()
    several = valid & (visible >= 2)
    if several.any():
        result["entropy_normalized_mean"] = (h[several] / np.log(visible[several])).mean()
    rest = q[:, :, 1:].sum(axis=2)
    apart = valid & (visible >= 3) & (rest >= 1e-3)
    if apart.any():
        h_rest = entropy(q[:, :, 1:] / np.where(rest > 0, rest, 1)[:, :, None])
        result["entropy_no_sink_mean"] = (h_rest[apart] / np.log(visible[apart] - 1)).mean()
    later = valid & (position >= 1)
    if later.any():
        result["sink_mass"] = p[:, :, 0][later].mean()
    if token_start == 0 and queries >= 64:
        whole = valid[:, :64].all(axis=1)
        if whole.any():
            alpha = p[whole, :64, 0].mean(axis=1)
            result["sink_score"] = (alpha > 0.3).mean()
    return result, int((~valid).sum())


def heads_without_sink(p, token_start):
    """Mean over queries of each head's normalised entropy without key 0; NaN: it has none."""
    heads, queries, keys = p.shape
    means = np.full(heads, np.nan)
    for head in range(heads):
        values = []
        for query in range(queries):
            row = p[head, query]
            visible = min(keys, token_start + query + 1)
            rest = row[1:].sum()
            if row.sum() > 0 and visible >= 3 and rest >= 1e-3 * row.sum():
                values.append(entropy(row[1:] / rest) / np.log(visible - 1))
        if values:
            means[head] = np.mean(values)
    return means


def mean_at(values, where):
    """The mean of the values where it is true, or None."""
    return values[where].mean() if where.any() else None


def lookback(p, token_start, prompt_tokens):
    """Ratios of the mean attention on the prompt to that plus the mean on what follows."""
    ratios = []
    for head in p:
        for query, row in enumerate(head):
            position = token_start + query
            if row.sum() == 0 or not 0 < prompt_tokens <= position < row.size:
                continue
            context, new = row[:prompt_tokens].mean(), row[prompt_tokens : position + 1].mean()
            if context + new > 0:
                ratios.append(context / (context + new))
    return np.mean(ratios) if ratios else None


def top_key(p):
    """Mean over heads without empty rows of the largest mean mass of a key of the first half."""
    heads, queries, keys = p.shape
    tops = []
    for head in p[(p.sum(axis=2) > 0).all(axis=1)]:
        judged = range(min(keys, queries // 2 + 1))
        tops.append(max(head[key:, key].mean() for key in judged))
    return np.mean(tops) if tops and queries >= 2 else None


def attention_shape(p, token_start, decode=False, prompt_tokens=-1):
    """The group ATTENTION of a pattern [heads, queries, keys] without NaN or infinities."""
    heads, queries, keys = p.shape
    valid = p.sum(axis=2) > 0
    if not valid.any():
        return {}
    position = np.broadcast_to(token_start + np.arange(queries), (heads, queries))
    key = np.arange(keys)
    at = position[:, :, None]
    placed = valid & (position < keys)
    result = {
        "row_sum_error": np.abs(p.sum(axis=2) - 1)[valid].max(),
        "self_mass": mean_at((p * (key == at)).sum(axis=2), placed),
        "previous_token_mass": mean_at((p * (key == at - 1)).sum(axis=2), placed & (position >= 1)),
        "sink_mass_4": mean_at((p * (key < 4)).sum(axis=2), placed & (position >= 4)),
        "recency_mass": mean_at(
            (p * ((key > at - 16) & (key <= at))).sum(axis=2), placed & (position >= 16)
        ),
        "lookback_ratio": lookback(p, token_start, prompt_tokens) if decode else None,
        "top_key_mass": top_key(p) if token_start == 0 and not decode else None,
    }
    means = heads_without_sink(p, token_start)
    means = means[~np.isnan(means)]
    if means.size:
        result["head_entropy_min"] = means.min()
        result["collapsed_head_share"] = (means < 0.05).mean()
    return {name: value for name, value in result.items() if value is not None}
