"""Who is in which variant: pure functions of a person's first id, the layer's key and the experiment's salt.

Three independent draws of a person decide. The position in the layer says which of its experiments, whose parts do not
overlap, may have the person at all; two draws by the experiment's salt say whether they are enrolled (a larger ramp
only adds people, and moves nobody) and in which variant they are (cumulated shares). An id hashes to the same draws for
ever and everywhere, whoever else is there: blake2b, a keyed hash of which neither key nor other draws can be told.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from persona_cli.errors import UsageError
from persona_cli.profiles.draws import positions

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
NOBODY = -1
"""The variant of those who are in none."""
_SMALLEST = 1e-9


def layer_key(salt: bytes, layer: str) -> bytes:
    """The key (32 bytes) of a layer, from the workspace's salt and its name."""
    return hashlib.blake2b(layer.encode(), key=salt, digest_size=32, person=b"layer").digest()


class Part(NamedTuple):
    """A part of a layer, from `begin` up to but without `end`."""

    begin: float = 0.0
    end: float = 1.0

    def overlaps(self, other: Part) -> bool:
        return self.begin < other.end - _SMALLEST and other.begin < self.end - _SMALLEST


WHOLE = Part()


def free_part(taken: Mapping[str, Part], size: float | None, layer: str) -> Part:
    """The first free part of a layer that is `size` large (None: the largest there is).

    `taken` is what each experiment of the layer has. UsageError where nothing as large is left, or a size is none.
    """
    if size is not None and not 0 < size <= 1:
        raise UsageError(f"a part of a layer of {size:g}; expected a share over 0, up to 1")
    gaps, at = list[Part](), 0.0
    for part in sorted(taken.values()):
        if part.begin > at + _SMALLEST:
            gaps.append(Part(at, part.begin))
        at = max(at, part.end)
    if at < 1 - _SMALLEST:
        gaps.append(Part(at, 1.0))
    largest = max(gaps, key=lambda gap: gap.end - gap.begin, default=None)
    if size is None:
        if largest is not None:
            return largest
    else:
        for gap in gaps:
            if gap.end - gap.begin >= size - _SMALLEST:
                return Part(round(gap.begin, 9), min(round(gap.begin + size, 9), gap.end))
    left = 0.0 if largest is None else largest.end - largest.begin
    wanted = "part" if size is None else f"part of {size:.3g}"
    who = f"{', '.join(sorted(taken))} {'has' if len(taken) == 1 else 'have'}"
    raise UsageError(
        f"the layer {layer!r} has no {wanted} left: {who} {f'all but {left:.3g}' if left else 'all'} of it",
        "stop one of them and start it with a --part, or give --layer another name: experiments of different layers "
        "have the same people",
    )


def checked_shares(shares: Sequence[float], variants: Sequence[str]) -> tuple[float, ...]:
    """Shares of the variants that add up to 1; equal ones where none are given. UsageError for others."""
    if not shares:
        return (1.0 / len(variants),) * len(variants)
    if len(shares) != len(variants):
        raise UsageError(
            f"{len(shares)} shares for {len(variants)} variants ({', '.join(variants)}); expected one each"
        )
    if min(shares) <= 0:
        raise UsageError(f"a share of {min(shares):g}; every variant needs a share over 0", "leave the variant away")
    if abs(sum(shares) - 1) > 1e-6:
        added = " + ".join(f"{share:g}" for share in shares)
        raise UsageError(f"the shares {added} add up to {sum(shares):g}; expected 1")
    total = sum(shares)
    return tuple(share / total for share in shares)


def by_shares(draw: Floats, shares: Sequence[float]) -> Ints:
    """The variant (n,) whose cumulated share holds each draw (n,); nobody is in a variant with a share of 0."""
    edges = np.cumsum(np.asarray(shares, dtype=np.float64))[:-1]
    chosen = np.searchsorted(edges, draw, side="right")
    # Rounding of the sum may leave a draw just under 1 to a last variant that has nothing.
    last = int(np.flatnonzero(np.asarray(shares) > 0)[-1])
    return np.minimum(chosen, last).astype(np.int64)


def allotted(
    ids: pl.Series,
    key: bytes,
    salt: bytes,
    shares: Sequence[float],
    *,
    part: Part = WHOLE,
    ramp: float = 1.0,
    dropped: Sequence[int] = (),
) -> Ints:
    """The variant of each id (n,), by number, or NOBODY for those outside the part or not enrolled yet.

    `key` is the layer's, `salt` the experiment's. Those of a `dropped` variant get the first that is not.
    """
    position = positions(ids, key)[:, 0]
    drawn = positions(ids, salt, 2)
    inside = (position >= part.begin) & (position < part.end) & (drawn[:, 0] < ramp)
    chosen = by_shares(drawn[:, 1], shares)
    if dropped:
        kept = next(number for number in range(len(shares)) if number not in dropped)
        chosen = np.where(np.isin(chosen, dropped), kept, chosen)
    return np.where(inside, chosen, NOBODY)
