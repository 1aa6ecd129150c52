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
        result = {
            "entropy_mean": h.mean(),
            "entropy_min": h.min(),
            "entropy_max": h.max(),
            "lse_mean": lse.mean(),
            "top1_probability_mean": p.max(axis=1).mean(),
            "logit_max_mean": maximum.mean(),
        }
        if valid.shape[1] > 1:
            two = np.sort(valid, axis=1)[:, -2:]
            margins = (two[:, 1] - two[:, 0])[np.isfinite(two[:, 0])]
            if margins.size:
                result["margin_mean"] = margins.mean()
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
