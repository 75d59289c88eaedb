"""What the order of candidates is learned from: the last fifth of the events, as it looked from before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse
from threadpoolctl import threadpool_limits

from persona_cli.models.base import Floats, Histories, Training
from persona_cli.models.examination import looks, position_exponent
from persona_cli.models.interactions import contexts, dislikes_for, rows_for, seen_for, times_for
from persona_cli.models.pair_features import Candidates
from persona_cli.models.preparing import prepare
from persona_cli.models.stored import positions
from persona_cli.models.trees import Trees, from_scikit_learn
from persona_cli.profiles.history import recent_queries
from persona_cli.workspace.settings import Settings

LATER = 0.2
"""Share of the events that are right answers."""
FEWEST = 200
"""Right answers among the candidates, below which no order is learned."""
NEGATIVES = 50
"""Candidates of a user that were not wanted, at most; each stands for those that were not taken."""
CHECKED = 2_000
"""Users at most on whom it is seen whether the learned order is better: each by what the other half taught."""
_CROWDED, _ACTIVE_EVENTS, _ACTIVE_SHARE = 0.9, 5, 0.5
_RETURNED = 0.01
_BLOCK = 256
_DEPTH = 20
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Stage(Protocol):
    """The first stage, fitted: what `Ranker` offers."""

    items: pl.Series
    trees: int
    users: int

    def scores(self, histories: Histories) -> Floats: ...
    def described(self, histories: Histories, base: Floats, repeats: bool) -> tuple[Candidates, Floats]: ...


@dataclass(frozen=True)
class Lesson:
    """The past, and what followed."""

    training: Training
    """All before the cut."""
    answers: pl.DataFrame
    """user_id, item_id, weight: what was wanted after it and could have been shown; sorted."""
    settings: Settings
    by_time: bool
    """One instant for everybody; else each user's last events are what followed."""
    repeats: bool
    """Whether items of the history came back."""
    position_exponent: float | None


@dataclass(frozen=True)
class Learned:
    """What was learned of the order."""

    trees: Trees | None
    why: str
    """Why there are no trees, or what they are worth."""
    as_of: int = 0
    """The moment that scores are asked for, microseconds."""
    by_time: bool = True
    repeats: bool = False
    position_exponent: float | None = None

    def said(self) -> dict[str, Any]:
        """For the settings of the model: JSON types."""
        return {
            "learned": self.why,
            "as_of": self.as_of,
            "by_time": self.by_time,
            "repeats": self.repeats,
            "position_exponent": self.position_exponent,
        }

    @classmethod
    def of(cls, settings: Mapping[str, Any], trees: Trees | None) -> Self:
        exponent = settings["position_exponent"]
        return cls(
            trees,
            str(settings["learned"]),
            int(settings["as_of"]),
            bool(settings["by_time"]),
            bool(settings["repeats"]),
            None if exponent is None else float(exponent),
        )


def microseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)


def lesson(training: Training, settings: Settings | None) -> Lesson | str:
    """The past of a training and what followed; or a sentence that says why there is none."""
    if training.events is None or settings is None:
        return "base order: there are no single events to learn from"
    events = training.events.filter(pl.col("item_id").is_not_null() & pl.col("timestamp").is_not_null())
    found = _divided(events)
    if isinstance(found, str):
        return found
    cut, earlier, later = found
    as_of = cut if cut is not None else training.as_of
    past = prepare(earlier, settings, as_of, catalogue=training.catalogue, ordered=True)
    exponent = position_exponent(earlier)
    weight = pl.lit(1.0) if exponent is None else looks(pl.col("position"), exponent)
    wanted = later.filter((pl.col("strength") > 0) & ~pl.col("never")).with_columns(weight=weight)
    wanted = wanted.group_by("user_id", "item_id").agg(pl.col("weight").max()).sort("user_id", "item_id")
    known, seen = past.interactions, past.interactions.seen
    rows, columns = positions(wanted["user_id"], known.users), positions(wanted["item_id"], known.items)
    held = np.diff(known.strengths.indptr) > 0
    open_ = (rows >= 0) & (columns >= 0)
    open_[open_] = held[rows[open_]] & ~_entries(seen, rows[open_], columns[open_])
    answers, rows, columns = wanted.filter(pl.Series(open_)), rows[open_], columns[open_]
    if answers.height < FEWEST:
        return f"base order: {answers.height} later events are too few to learn from; {FEWEST} are needed"
    returned = _entries(known.strengths.astype(bool), rows, columns).mean()
    return Lesson(past, answers, settings, cut is not None, bool(returned >= _RETURNED), exponent)


def learned_order(stage: Stage, given: Lesson) -> Learned:
    """Trees over the candidates of `stage`, which is fitted on the past; none where they would not have helped."""
    known = given.training.interactions
    users = given.answers["user_id"].unique().sort()
    random = np.random.default_rng(0)
    asked = np.sort(random.permutation(len(users))[: stage.users])
    half = random.random(len(asked)) < 0.5
    checked = random.random(len(asked)) < CHECKED / len(asked)
    rows = positions(users[asked], known.users)
    histories, seen = histories_of(given, rows, stage.items), seen_for(known, stage.items)[rows]
    answers = _answers(given, users[asked], stage.items)
    parts: list[_Part] = []
    lists: list[_List] = []
    for start in range(0, len(asked), _BLOCK):
        block = slice(start, start + _BLOCK)
        stop = min(start + _BLOCK, len(asked))
        told = histories.block(start, stop)
        found, features = stage.described(told, stage.scores(told), given.repeats)
        open_ = found.there & ~_at(seen[block], found.places)
        weights = _at(answers[block], found.places)
        parts.append(_sampled(found, features, open_, weights, half[block], random))
        lists += _lists(found, features, open_, weights, half[block], checked[block])
    whole = _Part._make(np.concatenate(one) for one in zip(*parts, strict=True))
    wanted, said = int(whole.wanted.sum()), {"by_time": given.by_time, "repeats": given.repeats}
    plain = replace(Learned(None, "", **said), position_exponent=given.position_exponent)
    if wanted < FEWEST:
        return replace(plain, why=f"base order: only {wanted} later events are among the candidates")
    threads = given.settings.whole("compute.solver_threads")
    before, after = np.zeros(len(lists)), np.zeros(len(lists))
    for side in (True, False):
        others = whole.chosen(whole.half != side)
        asked_of = [number for number, one in enumerate(lists) if one.half == side]
        if not asked_of or not others.wanted.any() or others.wanted.all():
            continue
        told_of = [lists[number] for number in asked_of]
        raw = _by_list(_boosted(others, stage.trees, threads), told_of)
        before[asked_of] = [one.ndcg(one.base) for one in told_of]
        after[asked_of] = [one.ndcg(values) for one, values in zip(told_of, raw, strict=True)]
    gain = after - before
    if len(lists) < 2:
        return replace(plain, why="base order: too few users to see whether another is better")
    told_ = (
        f"NDCG@{_DEPTH} of {len(lists):,} users, each by what others taught: {after.mean():.4f}, "
        f"in the order of the base {before.mean():.4f}"
    )
    # A gain within its own standard error is none.
    if gain.mean() <= gain.std(ddof=1) / np.sqrt(len(gain)):
        return replace(plain, why=f"base order: {told_}")
    return replace(plain, trees=_boosted(whole, stage.trees, threads), why=f"{wanted:,} right answers; {told_}")


def histories_of(given: Lesson, rows: NDArray[np.int64], items: pl.Series) -> Histories:
    """The users of these rows as the past knew them, over the vocabulary."""
    known, settings = given.training.interactions, given.settings
    timed, disliked = times_for(known, items), dislikes_for(known, items, settings)
    assert given.training.events is not None
    events, users = given.training.events, known.users[rows]
    return Histories(
        rows_for(known, items, settings)[rows],
        known.events[rows],
        contexts(events, users),
        None if timed is None else timed[rows],
        None if disliked is None else disliked[rows],
        recent_queries(events, users) if "query" in events.columns else None,
    )


class _Part(NamedTuple):
    """Pairs to learn from."""

    features: Floats
    wanted: NDArray[np.bool_]
    weights: NDArray[np.float64]
    half: NDArray[np.bool_]
    """Which half of the users the pair is of."""

    def chosen(self, kept: NDArray[np.bool_]) -> _Part:
        return _Part._make(one[kept] for one in self)


class _List(NamedTuple):
    """The candidates of one user."""

    features: Floats
    base: Floats
    wanted: NDArray[np.bool_]
    half: bool

    def ndcg(self, scores: NDArray[Any]) -> float:
        """Of the candidates in the order of these scores; what is no candidate is not counted."""
        order = np.lexsort((-self.base, -scores))[:_DEPTH]
        discounts = 1.0 / np.log2(np.arange(2, len(order) + 2))
        ideal = discounts[: int(self.wanted.sum())].sum()
        return float(self.wanted[order] @ discounts / ideal) if ideal else 0.0


def _by_list(trees: Trees, lists: list[_List]) -> list[NDArray[np.float64]]:
    """What the trees say of each list's candidates."""
    if not lists:
        return []
    raw = trees.raw(np.concatenate([one.features for one in lists]))
    return np.split(raw, np.cumsum([len(one.features) for one in lists])[:-1])


def _boosted(pairs: _Part, trees: int, threads: int) -> Trees:
    from sklearn.ensemble import HistGradientBoostingClassifier

    model = HistGradientBoostingClassifier(
        max_iter=trees,
        learning_rate=0.05,
        max_leaf_nodes=16,
        max_bins=63,  # more take longer to find than the trees themselves, and are no better
        min_samples_leaf=50,
        l2_regularization=1.0,
        early_stopping=False,
        random_state=0,
    )
    # A feature that nobody has cannot be cut into bins; as a constant it takes no part.
    features = np.where(np.isnan(pairs.features).all(axis=0), np.float32(0.0), pairs.features)
    with threadpool_limits(threads):
        model.fit(features, pairs.wanted, sample_weight=pairs.weights)
    return from_scikit_learn(model)


def _sampled(
    found: Candidates,
    features: Floats,
    open_: NDArray[np.bool_],
    weights: NDArray[np.float64],
    half: NDArray[np.bool_],
    random: np.random.Generator,
) -> _Part:
    """All that was wanted and some of what was not, each standing for as many as were left out."""
    # Drawn for every place, so that a user's draw depends on the users before and not on blocks.
    lots = np.where(open_ & (weights == 0), random.random(open_.shape), 2.0)
    ranks = np.argsort(np.argsort(lots, axis=1, kind="stable"), axis=1)
    spare = (open_ & (weights == 0)).sum(axis=1, keepdims=True)  # (n_users, 1)
    kept = open_ & ((weights > 0) | (ranks < NEGATIVES))
    standing = np.where(weights > 0, weights, np.maximum(spare / NEGATIVES, 1.0))
    of_pairs = kept[found.there]
    owner = np.broadcast_to(half[:, None], kept.shape)
    return _Part(features[of_pairs], weights[kept] > 0, standing[kept], owner[kept])


def _lists(
    found: Candidates,
    features: Floats,
    open_: NDArray[np.bool_],
    weights: NDArray[np.float64],
    half: NDArray[np.bool_],
    checked: NDArray[np.bool_],
) -> list[_List]:
    """The whole lists of the users that the order is tried on, who want something that is in them."""
    ends = np.concatenate(([0], np.cumsum(found.there.sum(axis=1))))
    made = []
    for user in np.flatnonzero(checked & ((weights > 0) & open_).any(axis=1)):
        of_pairs = open_[user][found.there[user]]
        told = features[ends[user] : ends[user + 1]][of_pairs]
        wanted = weights[user, open_[user]] > 0
        made.append(_List(told, found.base[user, open_[user]], wanted, bool(half[user])))
    return made


def _answers(given: Lesson, users: pl.Series, items: pl.Series) -> sparse.csr_array:
    """Weight of each right answer (n_users, n_items)."""
    rows, columns = positions(given.answers["user_id"], users), positions(given.answers["item_id"], items)
    kept = (rows >= 0) & (columns >= 0)
    matrix = sparse.csr_array(
        (given.answers["weight"].to_numpy()[kept], (rows[kept], columns[kept])), shape=(len(users), len(items))
    )
    matrix.sort_indices()
    return matrix


def _at(matrix: sparse.csr_array, places: NDArray[np.int64]) -> NDArray[Any]:
    """The entries of each row at these places (n_users, n_candidates)."""
    return np.asarray(np.take_along_axis(matrix.toarray(), places, axis=1))


def _entries(matrix: sparse.csr_array, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether the matrix has an entry there (n,)."""
    keys = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr)) * matrix.shape[1] + matrix.indices
    return np.isin(rows * matrix.shape[1] + columns, keys)


def _divided(events: pl.DataFrame) -> tuple[datetime | None, pl.DataFrame, pl.DataFrame] | str:
    """The cut (None: each user's own), what was before it, and what followed."""
    if events.height < FEWEST:
        return f"base order: {events.height} events are too few to learn from"
    times = np.sort(events["timestamp"].dt.epoch("us").to_numpy())
    _, counts = np.unique(times // 1_000_000, return_counts=True)
    if counts.max() >= _CROWDED * len(times):
        return "base order: most events are of one second, so there is no past to learn from"
    cut = int(times[int(len(times) * (1.0 - LATER))])
    last = events.group_by("user_id").agg(pl.len(), pl.col("timestamp").dt.epoch("us").max().alias("last"))
    active = last.filter(pl.col("len") >= _ACTIVE_EVENTS)
    after = active.filter(pl.col("last") >= cut).height
    if cut > times[0] and after >= _ACTIVE_SHARE * active.height:
        moment = _EPOCH + timedelta(microseconds=cut)
        return moment, events.filter(pl.col("timestamp") < moment), events.filter(pl.col("timestamp") >= moment)
    # As few users go on after any one instant, each has a past of its own.
    keys = [
        name
        for name in ("user_id", "timestamp", "item_id", "strength", "consumed", "never", "event_type")
        if name in events
    ]
    ordered = events.sort(keys).with_columns(
        rank=pl.int_range(pl.len()).over("user_id"), n=pl.len().over("user_id").cast(pl.Int64)
    )
    later = (pl.col("n") > 1) & (pl.col("rank") >= pl.col("n") - (pl.col("n") * LATER).floor().clip(1))
    return None, ordered.filter(~later).drop("rank", "n"), ordered.filter(later).drop("rank", "n")
