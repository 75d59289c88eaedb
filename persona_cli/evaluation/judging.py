"""Who is asked, and how their lists are judged.

The users of an exam as models see them: histories, contexts and what may not be shown, over any vocabulary.

Lists judged against right answers: every metric with its interval, and the lift over the popular list.

Lists are coded once; hits, exposure and ties are all of the same codes. Users are the unit of every interval.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, Self

import numpy as np
import polars as pl
from scipy import sparse

from persona_cli.evaluation.beyond import Background, Beyond, beyond
from persona_cli.evaluation.coded import Floats, Hits, coded_lists, coded_pairs, hits_of, scores_of
from persona_cli.evaluation.exams import Exam
from persona_cli.evaluation.intervals import Interval, lift_intervals, mean_intervals
from persona_cli.evaluation.metrics import ACCURACY, METRICS, values
from persona_cli.evaluation.ties import ndcg_ties
from persona_cli.events.catalogue import described
from persona_cli.models.base import Histories, Interactions
from persona_cli.models.interactions import contexts, dislikes_for, rows_for, times_for
from persona_cli.models.stored import pair_matrix, positions, with_rows
from persona_cli.models.wishes import Wishes, wishes_of
from persona_cli.profiles import preferences
from persona_cli.profiles.history import recent_queries
from persona_cli.profiles.permitted import Purpose
from persona_cli.workspace.home import Home
from persona_cli.workspace.settings import Settings


@dataclass(frozen=True)
class Beside:
    """What may be known beside the rows of `signal_events`; nothing of it by default."""

    describe: Callable[[datetime, pl.Series], pl.DataFrame | None] | None = None
    """Items as they could be known at a moment, given those with events before it: `events.catalogue.described`."""
    told: pl.DataFrame | None = field(default=None, repr=False)
    """What users told, at any time: `profiles.preferences.explicit_events`."""

    @classmethod
    def of(cls, home: Home, as_of: datetime | None = None, *, purpose: Purpose = None) -> Self:
        """What a workspace knows, and what was told before `as_of` by those whom the purpose covers."""
        return cls(partial(described, home), preferences.explicit_events(home, as_of, purpose=purpose))

    def items(self, exam: Exam) -> pl.DataFrame | None:
        """Items as they could be known at the cut; None: there is no catalogue."""
        if self.describe is None:
            return None
        return self.describe(exam.as_of, exam.train["item_id"].drop_nulls().unique())

    def wishes(self, exam: Exam, settings: Settings) -> Wishes | None:
        """What the users asked had said by known events; None where they said nothing."""
        if self.told is None or not self.told.height:
            return None
        said = preferences.spoken_in(preferences.among(self.told, exam.known), exam.known)
        return wishes_of(said, exam.users, settings, lambda: self.items(exam))


@dataclass(frozen=True)
class Asked:
    """Users to be asked about, all aligned with `users`."""

    users: pl.Series
    """user_id, sorted (n_users,)."""
    matrix: Interactions
    """What is known of all users; those who are not in it have no history."""
    places: np.ndarray[tuple[int], np.dtype[np.int64]]
    """Row of each user in `matrix`, -1 for those who are not in it (n_users,)."""
    context: pl.DataFrame
    """device, country: of the latest known event that has one (n_users)."""
    exclude: pl.DataFrame
    """user_id, item_id of pairs that no list may hold."""
    queries: pl.Series | None = field(default=None, repr=False)
    """What each searched for lately (`profiles.history`), by known events (n_users,); None: nothing is known of it."""

    wishes: Wishes | None = field(default=None, repr=False)
    """What they said they want more and less of, by known events; None: nobody said anything, or nobody looked."""

    def histories(self, vocabulary: pl.Series, settings: Settings) -> Histories:
        """What a model with this vocabulary scores them from."""
        rows = with_rows(rows_for(self.matrix, vocabulary, settings), self.places)
        events = np.where(self.places >= 0, np.append(self.matrix.events, 0)[self.places], 0)
        times, dislikes = (
            None if one is None else with_rows(one, self.places)
            for one in (times_for(self.matrix, vocabulary), dislikes_for(self.matrix, vocabulary, settings))
        )
        return Histories(rows, events, self.context, times, dislikes, self.queries)

    def excluded(self, vocabulary: pl.Series) -> sparse.csr_array:
        """What may not be shown: bool (n_users, n_items)."""
        hidden = pair_matrix(self.exclude, self.users, vocabulary)
        wished = None if self.wishes is None else self.wishes.over(vocabulary)
        return hidden if wished is None else sparse.csr_array(hidden + wished.hidden(slice(None))).astype(bool)


def asked(exam: Exam, matrix: Interactions, wishes: Wishes | None = None) -> Asked:
    """The users of an exam; `matrix` and `wishes` are of its known events."""
    users = exam.users
    context, queries = contexts(exam.known, users), searches(exam.known, users)
    exclude = still_barred(exam.exclude, exam.known)
    return Asked(users, matrix, positions(users, matrix.users), context, exclude, queries, wishes)


def still_barred(pairs: pl.DataFrame, known: pl.DataFrame) -> pl.DataFrame:
    """The pairs (user_id, item_id) but those whose block was taken back and that were never had, by `known` events."""
    lifted, pair = preferences.lifted_in(known), ["user_id", "item_id"]
    if not lifted.height:
        return pairs
    had = known.filter(pl.col("consumed") & ~pl.col("never")).select(pair)
    return pairs.join(lifted.join(had, on=pair, how="anti"), on=pair, how="anti")


def searches(events: pl.DataFrame, users: pl.Series) -> pl.Series | None:
    """Recent queries of each user (n_users,); None where no event has one."""
    if "query" not in events.columns or events["query"].null_count() == events.height:
        return None
    return recent_queries(events, users)


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
