"""Several exams put together: each user's mean over the cuts they were asked at, so that people count once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from persona_cli.evaluation.baselines import POPULAR
from persona_cli.evaluation.intervals import Interval, lift_intervals, mean_intervals
from persona_cli.evaluation.judging import Judgement
from persona_cli.evaluation.rolling import pooled


def over_cuts(judgements: Sequence[dict[str, Judgement]], bootstrap: int) -> dict[str, Judgement]:
    """One judgement a model: accuracy from each user's mean, with intervals over users; the rest as means over cuts.

    What lists as a whole have (coverage, novelty and so on) differs from cut to cut by more than users do, so its mean
    has no interval; the calibration is the last cut's.
    """
    if len(judgements) == 1:
        return judgements[0]
    frames = {name: pooled([at[name].per_user for at in judgements]) for name in judgements[0]}
    columns = next(iter(frames.values())).columns[1:]
    values = {name: frame.select(columns).to_numpy() for name, frame in frames.items()}  # (n_users, n_columns)
    found = {}
    for name, frame in frames.items():
        means = dict(zip(columns, mean_intervals(values[name], bootstrap=bootstrap), strict=True))
        metrics = {
            key: means[key] if key in means else _mean([at[name].metrics.get(key) for at in judgements])
            for key in judgements[-1][name].metrics
        }
        lift: dict[str, Interval | None] = {}
        if name != POPULAR and POPULAR in values:
            lift = dict(zip(columns, lift_intervals(values[name], values[POPULAR], bootstrap=bootstrap), strict=True))
        curve = {
            metric: [
                (k, float(np.mean([at[name].curve[metric][place][1] for at in judgements])))
                for place, (k, _) in enumerate(points)
            ]
            for metric, points in judgements[-1][name].curve.items()
        }
        found[name] = Judgement(metrics, lift, frame, curve, judgements[-1][name].calibration)
    return found


def attributes_over_cuts(frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """What is known of each user at the last cut they were asked at, sorted by user_id."""
    return pl.concat(frames).unique("user_id", keep="last", maintain_order=True).sort("user_id")


def _mean(figures: Sequence[Interval | None]) -> Interval | None:
    stated = [figure.value for figure in figures if figure is not None]
    return Interval(float(np.mean(stated)), None, None) if stated else None
