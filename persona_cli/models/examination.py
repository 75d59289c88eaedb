"""How much less is looked at further down: the exponent of a position curve, from logged impressions and clicks."""

from __future__ import annotations

import numpy as np
import polars as pl

NEEDED = 200
"""Clicks on items that were shown at several positions, below which nothing is said of positions."""
_HIGHEST = 3.0


def position_exponent(events: pl.DataFrame) -> float | None:
    """η of the chance k^-η that position k (from 1) is looked at; None where too little is logged.

    A click needs a look and a wish. Where the same item was shown at different positions, the wish is the same and the
    look is what differs (Joachims et al. 2017; Agarwal et al. 2019):

        P(a click on item i came at k) = n_ik k^-η / Σ_k' n_ik' k'^-η

    with n_ik impressions of the item at k. η maximises that likelihood over all clicks, whatever the items' own appeal.
    Impressions are events of type `impression`; clicks any event of strength > 0 with a position.
    """
    if not {"position", "event_type", "item_id", "strength"} <= set(events.columns):
        return None
    logged = events.filter(pl.col("item_id").is_not_null() & (pl.col("position") >= 1))
    shown = pl.col("event_type") == "impression"
    counts = (
        logged.group_by("item_id", "position")
        .agg(shown=shown.sum(), clicks=(~shown & (pl.col("strength") > 0)).sum())
        .filter(pl.col("shown") > 0)
        .sort("item_id", "position")
    )
    items = counts["item_id"].rle_id().to_numpy()
    n = np.bincount(items)
    kept = (n[items] > 1) if len(items) else np.zeros(0, dtype=bool)
    items = np.unique(items[kept], return_inverse=True)[1]
    depth = np.log(counts["position"].to_numpy()[kept].astype(np.float64))
    impressions = counts["shown"].to_numpy()[kept].astype(np.float64)
    clicks = counts["clicks"].to_numpy()[kept].astype(np.float64)
    if clicks.sum() < NEEDED:
        return None
    clicks_of = np.bincount(items, clicks)
    exponent = 0.0
    for _ in range(50):  # Newton; the likelihood is concave
        weights = impressions * np.exp(-exponent * depth)
        share = weights / np.bincount(items, weights)[items]
        mean = np.bincount(items, share * depth)
        spread = np.bincount(items, share * (depth - mean[items]) ** 2)
        curvature = float(clicks_of @ spread)
        if curvature <= 0:
            return None
        step = float(clicks_of @ mean - clicks @ depth) / curvature
        exponent = min(max(exponent + step, 0.0), _HIGHEST)
        if abs(step) < 1e-9:
            break
    return exponent


def looks(position: pl.Expr, exponent: float, most: float = 10.0) -> pl.Expr:
    """How much a click at that position stands for: one over the chance of a look, `most` at the most; 1 unknown."""
    weight = pl.max_horizontal(position, pl.lit(1)).cast(pl.Float64).pow(exponent)
    return weight.clip(1.0, most).fill_null(1.0)
