"""A small causal transformer evaluated by numpy alone: what a sequence of items says of the item that comes next.

    x_t = √dim · E[item_t]
    x  += attention(norm(x)) W_out + b_out,   x += max(0, norm(x) W_up + b_up) W_down + b_down     (in every block)
    attention of t to s <= t by exp(query_t · key_s / √head + distance[t - s])
    state = norm(x_last),   logit_i = state · E_i + bias_i

Pre-norm blocks (Xiong et al. 2020) of causal self-attention (Vaswani et al. 2017) that knows positions by how far apart
they are (Raffel et al. 2020): that the latest items say most is learned in an epoch so. The items that are read and
those that are scored share their vectors E.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from persona_cli.models.base import Floats

Arrays = Mapping[str, Floats]
NORM_EPSILON = 1e-5
# Sequences are padded to a multiple of this many items, and those of one length are stacked to so many rows. Shapes
# then follow from a sequence's own length, and with them the kernels of BLAS and the last bits of what they answer.
_STEP, _ROWS = 8, 1024


def latest(rows: sparse.csr_array, times: sparse.csr_array | None, length: int) -> list[NDArray[Any]]:
    """The last `length` items of every row, oldest first (n_users).

    By time, where instants are known, and by position where two are equal. Else by strength, the weakest first:
    strengths fade, so what is strong is likely to be late.
    """
    keys = (rows if times is None else times).data
    users = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
    order = np.lexsort((rows.indices, keys, users))  # rows stay together
    items = rows.indices[order]
    return [items[max(start, stop - length) : stop] for start, stop in zip(rows.indptr, rows.indptr[1:], strict=False)]


def states(arrays: Arrays, heads: int, sequences: list[NDArray[Any]]) -> Floats:
    """The state after each sequence (n_sequences, dim); zeros after an empty one."""
    longest, dim = arrays["0.distance"].shape[1], arrays["items"].shape[1]
    found = np.zeros((len(sequences), dim), dtype=np.float32)
    lengths = np.array([len(sequence) for sequence in sequences], dtype=np.int64)
    padded = np.minimum(-(-lengths // _STEP) * _STEP, longest)
    for width in np.unique(padded[lengths > 0]):
        users = np.flatnonzero(padded == width)
        size = -(-_ROWS // int(width))
        for start in range(0, len(users), size):
            chosen = users[start : start + size]
            items = np.zeros((size, int(width)), dtype=np.int64)
            last = np.zeros(size, dtype=np.int64)
            for row, user in enumerate(chosen):
                items[row, : lengths[user]] = sequences[user]
                last[row] = lengths[user] - 1
            found[chosen] = _read(arrays, heads, items, last)[: len(chosen)]
    return found


def _read(arrays: Arrays, heads: int, items: NDArray[np.int64], last: NDArray[np.int64]) -> Floats:
    """States (n, dim) at the positions `last` of `items` (n, width); what comes after them changes nothing."""
    n, width = items.shape
    dim = arrays["items"].shape[1]
    head = dim // heads
    every = np.arange(n)
    x = arrays["items"][items] * np.float32(dim**0.5)  # (n, width, dim)
    ages = np.arange(width)[:, None] - np.arange(width)  # (width, width): of what is read, where it is read
    blocks = sum(name.endswith(".qkv") for name in arrays)
    for number in range(blocks):
        own = {name.partition(".")[2]: array for name, array in arrays.items() if name.startswith(f"{number}.")}
        y = _norm(x, own["norm1"], own["norm1_shift"])
        keys_values = _affine(y, own["qkv"][:, dim:], own["qkv_shift"][dim:])  # (n, width, 2 dim)
        if number == blocks - 1:  # nothing reads the other positions from here on
            x, y, ages = x[every, last][:, None], y[every, last][:, None], ages[last][:, None]  # ages (n, 1, width)
        offset = np.where(ages < 0, np.float32(-np.inf), own["distance"][:, np.maximum(ages, 0)])
        if number == blocks - 1:
            offset = offset.swapaxes(0, 1)  # (n, heads, 1, width)
        queries = _affine(y, own["qkv"][:, :dim], own["qkv_shift"][:dim]).reshape(n, -1, heads, head)
        keys, values = keys_values.reshape(n, width, 2, heads, head).transpose(2, 0, 3, 1, 4)
        logits = (queries.transpose(0, 2, 1, 3) @ keys.transpose(0, 1, 3, 2)) * np.float32(head**-0.5) + offset
        weights = np.exp(logits - logits.max(axis=-1, keepdims=True))  # (n, heads, positions, width)
        weights /= weights.sum(axis=-1, keepdims=True)
        together = (weights @ values).transpose(0, 2, 1, 3).reshape(x.shape)
        x = x + _affine(together, own["out"], own["out_shift"])
        y = _norm(x, own["norm2"], own["norm2_shift"])
        up = np.maximum(_affine(y, own["up"], own["up_shift"]), np.float32(0))
        x = x + _affine(up, own["down"], own["down_shift"])
    return _norm(x[:, 0], arrays["norm"], arrays["norm_shift"])


def _affine(x: Floats, weights: Floats, shift: Floats) -> Floats:
    made: Floats = (x.reshape(-1, x.shape[-1]) @ weights).reshape(*x.shape[:-1], -1) + shift
    return made


def _norm(x: Floats, scale: Floats, shift: Floats) -> Floats:
    """Layer normalisation over the last axis (Ba, Kiros & Hinton 2016)."""
    centred = x - x.mean(axis=-1, keepdims=True)
    spread = np.sqrt(np.square(centred).mean(axis=-1, keepdims=True) + np.float32(NORM_EPSILON))
    made: Floats = centred / spread * scale + shift
    return made
