"""Several cuts as one figure: the trend over them, and every user's mean over the cuts at which they were asked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from scipy.special import stdtrit

from persona_cli.errors import BadData
from persona_cli.evaluation.baselines import POPULAR
from persona_cli.evaluation.intervals import Interval, lift_intervals, mean_intervals
from persona_cli.evaluation.judging import Judgement


def trend(means: Sequence[float | None], level: float = 0.95) -> Interval | None:
    """Change of a figure from one cut to the next: the least-squares slope over cuts 1 … n, with its interval.

        slope = Σ (j - j̄)(y_j - ȳ) / Σ (j - j̄)²,  slope ± t_{n-2} √(Σ residual² / (n - 2) / Σ (j - j̄)²)

    `means` are the means at each cut, earliest first (n_cuts,). The unit is the cut, not the user: with few cuts the
    interval is wide, and it says whether the figure drifts, not whether it differs between two cuts. None with fewer
    than three cuts, or where a cut has no figure. Draper & Smith, Applied Regression Analysis (1998), chapter 1.
    """
    found = [float(mean) for mean in means if mean is not None]
    if len(found) < 3 or len(found) < len(means):
        return None
    values = np.asarray(found)
    if not np.isfinite(values).all():
        raise BadData("the figure of a cut is NaN or infinite; expected a number for every cut")
    places = np.arange(len(values)) - (len(values) - 1) / 2  # centred (n_cuts,)
    spread = float(places @ places)
    slope = float(places @ values) / spread
    rest = values - values.mean() - slope * places
    freedom = len(values) - 2
    error = float(np.sqrt(max(float(rest @ rest), 0.0) / freedom / spread))
    reach = float(stdtrit(freedom, (1.0 + level) / 2.0)) * error
    return Interval(slope, slope - reach, slope + reach)


def pooled(frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """One row a user of `frames` (user_id and equal columns of figures, one frame a cut): their mean over the cuts.

    A user counts once however often they were asked, so an interval over the users of the result is not too narrow for
    the same people being asked again (clusters of one user's cuts). Sorted by user_id; a null is left out of its mean.
    """
    if not frames:
        raise BadData("there are no cuts to put together; expected at least one")
    columns = frames[0].columns
    if any(set(frame.columns) != set(columns) for frame in frames):
        raise BadData("the cuts have different figures; expected the same columns at every cut")
    stacked = pl.concat([frame.select(columns).with_columns(cut=pl.lit(cut)) for cut, frame in enumerate(frames)])
    # In the order of cuts: the last digits of a sum follow its order.
    return (
        stacked.sort("user_id", "cut")
        .group_by("user_id", maintain_order=True)
        .agg(pl.col(name).mean() for name in columns if name != "user_id")
        .select(columns)
    )


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
