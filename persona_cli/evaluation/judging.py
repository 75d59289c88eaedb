"""Lists judged against right answers: every metric with its interval, and the lift over the popular list.

Lists are coded once; hits, exposure and ties are all of the same codes. Users are the unit of every interval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from persona_cli.evaluation.beyond import Background, Beyond, beyond
from persona_cli.evaluation.coded import Floats, Hits, coded_lists, coded_pairs, hits_of, scores_of
from persona_cli.evaluation.intervals import Interval, lift_intervals, mean_intervals
from persona_cli.evaluation.metrics import ACCURACY, METRICS, values
from persona_cli.evaluation.ties import ndcg_ties

LEVEL = 0.95
CURVES = ("recall", "ndcg", "precision")
_POINTS = (1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200, 300, 500, 700, 1000)


@dataclass(frozen=True)
class Judgement:
    """What one model reached."""

    metrics: dict[str, Interval | None]
    """`recall@10` and so on; None where there is nothing to state (no list at all, no catalogue)."""
    lift: dict[str, Interval | None]
    """mean / mean of the baseline - 1 of every accuracy metric, paired by user; None over a baseline of 0."""
    per_user: pl.DataFrame = field(repr=False)
    """user_id and every accuracy metric, one row a user asked about, sorted by user_id."""
    curve: dict[str, list[tuple[int, float]]] = field(default_factory=dict, repr=False)
    """Means of recall, NDCG and precision at growing k."""
    calibration: list[dict[str, Any]] | None = field(default=None, repr=False)
    """Hit rate by score at the largest k, from low scores to high; None where scores say nothing."""


def judge(
    lists: Mapping[str, pl.DataFrame],
    answers: pl.DataFrame,
    background: Background,
    ks: Sequence[int],
    baseline: str,
    bootstrap: int = 0,
    seed: int = 0,
    boundaries: Mapping[str, pl.DataFrame] | None = None,
) -> dict[str, Judgement]:
    """Judge the lists of every model on the same users; `baseline` names the one that lifts are over, if it is there.

    Lists (user_id, item_id, rank, score) hold max(ks) + 1 entries a user, so that a tie across the cut is seen;
    `boundaries` says of a model who shares the last score, as `ranking.ranked_with_ties` does. The users are those of
    `answers`, whatever lists there are: a missing list scores 0. BadData where lists or answers are none.
    """
    wanted = coded_pairs(answers, background.items)
    found: dict[str, tuple[pl.DataFrame, Beyond, dict[str, list[tuple[int, float]]]]] = {}
    for name, frame in lists.items():
        coded = coded_lists(frame, wanted.items)  # one vocabulary: an item has one code in answers and lists
        hits = hits_of(coded, wanted)
        tied = ndcg_ties(coded, scores_of(frame, coded), hits, ks, (boundaries or {}).get(name))
        columns = [pl.Series(f"ndcg_ties@{k}", tied[k]) for k in ks]
        found[name] = (values(hits, ks).hstack(columns), beyond(frame, coded, hits, background, ks), _curve(hits, ks))
    base = found[baseline][0] if baseline in found else None
    judged: dict[str, Judgement] = {}
    for name, (per_user, more, curve) in found.items():
        names = per_user.columns[1:]
        matrix = per_user.select(names).to_numpy()  # (n_users, n_columns)
        stated: dict[str, Interval | None] = dict(
            zip(names, mean_intervals(matrix, LEVEL, seed, bootstrap), strict=True)
        )
        stated |= _stated(more, bootstrap, seed)
        lifts: dict[str, Interval | None] = {}
        if base is not None and name != baseline:
            over = base.select(names).to_numpy()
            lifts = dict(zip(names, lift_intervals(matrix, over, LEVEL, seed, bootstrap), strict=True))
        ordered = {f"{metric}@{k}": stated[f"{metric}@{k}"] for k in ks for metric in METRICS}
        judged[name] = Judgement(ordered, lifts, per_user, curve, more.bins)
    return judged


def as_json(interval: Interval | None) -> dict[str, float | None] | None:
    """{"value", "low", "high"}."""
    return None if interval is None else {"value": interval.value, "low": interval.low, "high": interval.high}


def stacked(judged: Mapping[str, Judgement]) -> pl.DataFrame:
    """All per-user values as one long table: model, user_id, metrics; models in the order given, users sorted."""
    frames = [one.per_user.select(pl.lit(name).alias("model"), pl.all()) for name, one in judged.items()]
    return pl.concat(frames)


def _stated(more: Beyond, bootstrap: int, seed: int) -> dict[str, Interval | None]:
    """The metrics beyond accuracy: means and ratios of means with an interval, figures of all lists without one."""
    found: dict[str, Interval | None] = {
        key: None if value is None else Interval(value, None, None) for key, value in more.whole.items()
    }
    by_length: dict[int, list[str]] = {}
    for key, column in more.per_user.items():
        by_length.setdefault(len(column), []).append(key)
    for keys in by_length.values():  # one set of resampled users serves all columns over the same users
        matrix = np.column_stack([more.per_user[key] for key in keys])
        found |= dict(zip(keys, mean_intervals(matrix, LEVEL, seed, bootstrap), strict=True))
    for key, pair in more.ratios.items():
        found[key] = lift_intervals(pair[:, :1], pair[:, 1:], LEVEL, seed, bootstrap)[0]
    return found


def _curve(hits: Hits, ks: Sequence[int]) -> dict[str, list[tuple[int, float]]]:
    """Means at growing k, up to the largest asked for."""
    depths = sorted({k for k in _POINTS if k < max(ks)} | {max(ks)})

    def mean(name: str, k: int) -> float:
        of = ACCURACY[name].of
        assert of is not None
        column: Floats = of(hits, k)
        return float(column.mean()) if len(column) else 0.0

    return {name: [(k, mean(name, k)) for k in depths] for name in CURVES}
