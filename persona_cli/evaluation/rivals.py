"""Two trained models against each other: how alike their lists are, whom each of them serves better, and at what cost.

    now     both as they were saved, for up to 10,000 users with a history (which ones follows from their ids), with
            the lists that `recommend` would make: overlap, coverage, exposure, popularity, speed
    exam    both recipes trained again on what was before a cut, and judged on what followed: who wins, and for whom

The second is judged over the first. Overlap is of lists of k, a mean over users with 95 % intervals:

    Jaccard     items in both lists / items in either
    RBO         rank-biased overlap, extrapolated, p = 0.9 (Webber, Moffat & Zobel 2010): with A_d the share that the
                first d of both lists have in common, A_k p^k + (1 - p) / p · Σ_d A_d p^d. First ranks weigh most
    same top    share of users with the same item first
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from persona_cli.errors import MissingInput, UsageError, nearest
from persona_cli.evaluation import exams, segments
from persona_cli.evaluation.attributes import attributes, segment_conditions, segments_named
from persona_cli.evaluation.beyond import Background, beyond
from persona_cli.evaluation.coded import coded_lists, coded_pairs, hits_of
from persona_cli.evaluation.comparisons import ALPHA, MARGIN, Comparison, compared, holm
from persona_cli.evaluation.contenders import BASELINE, Contender, Recipe, background, fitted, recipes, sit
from persona_cli.evaluation.diversity import drawn
from persona_cli.evaluation.exams import Exam
from persona_cli.evaluation.intervals import Interval, lift_intervals, mean_interval
from persona_cli.evaluation.judging import Asked, judge, searches, still_barred
from persona_cli.evaluation.metrics import ACCURACY
from persona_cli.events.catalogue import described as items_described
from persona_cli.events.catalogue import unavailable
from persona_cli.models import registry
from persona_cli.models.base import Interactions, reads_order
from persona_cli.models.gram import empty
from persona_cli.models.interactions import contexts, interactions_of, with_times
from persona_cli.models.layered import Layered
from persona_cli.models.popular import Popular
from persona_cli.models.preparing import prepared
from persona_cli.models.ranking import rank
from persona_cli.models.registry import Saved
from persona_cli.models.stored import positions
from persona_cli.models.wishes import wishes_of
from persona_cli.profiles import preferences
from persona_cli.profiles.history import signal_events
from persona_cli.profiles.permitted import MEASURING
from persona_cli.workspace import artifacts
from persona_cli.workspace.home import Home

P = 0.9
"""Persistence of RBO: how likely somebody who looks at one rank looks at the next."""
SERVED = "latest"
"""Names what is served."""
FIGURES = ("coverage", "gini", "popularity_lift", "novelty")
_WARM_UP = 64
"""Users scored before the clock starts, so that mapped files are in memory."""


@dataclass(frozen=True)
class Rival:
    """One of the two."""

    model: str
    """As `ease/3`."""
    base: str | None
    """The model inside a layered one, as `ease/3`."""
    settings: Mapping[str, Any]
    trained_until: str
    bytes: int
    """On disk, with the models inside."""
    fit_seconds: float
    """Training at the cut, from the users' histories on, item sums included."""
    users_per_second: float
    """Lists made now, with compute.threads."""
    figures: Mapping[str, Interval | None]
    """`coverage@20` and so on, of the lists made now."""
    value: Interval
    """The metric in the exam."""
    chosen_later: tuple[str, ...]
    """What of it was chosen with events from after the cut: the exam flatters that."""


@dataclass(frozen=True)
class Overlap:
    """How alike the lists made now are."""

    users: int
    k: int
    jaccard: Interval
    rbo: Interval
    same_top: Interval


@dataclass(frozen=True)
class Rivalry:
    """What a comparison of two models comes to."""

    exam: Mapping[str, Any]
    """The split, for machines."""
    headline: str
    metric: str
    first: Rival
    second: Rival
    overlap: Overlap
    comparison: Comparison
    """The second over the first, paired by user."""
    better_for: tuple[int, int, int]
    """Users whom the first serves better, whom the second does, and whom both serve alike."""
    segments: list[dict[str, Any]]
    """By group of users: segmentation, group, users, first, second, difference, p, p_holm, verdict, better_for."""


def rivalry(
    home: Home,
    first: str,
    second: str,
    metric: str | None = None,
    margin: float = MARGIN,
    slices: Sequence[str] = (),
) -> Rivalry:
    """Compare the saved models `first` and `second`: `ease`, `ease/3`, or `latest` for what is served.

    `metric` is one that users have, such as ndcg@20 (the default, at the largest of evaluate.k). `slices` are further
    groups of users, as conditions on what was known at the cut, also `segment:NAME`. UsageError for a name
    or metric that is none and for one model twice; MissingInput for a model that was not trained, or no events.
    """
    saved = [registry.load_model(home, None if name == SERVED else name) for name in (first, second)]
    names = [one.reference for one in saved]
    if names[0] == names[1]:
        raise UsageError(f"{names[0]} would be compared with itself", "persona model list")
    measured, k = _metric(metric, home.settings.wholes("evaluate.k"))
    events = signal_events(home, purpose=MEASURING).collect()
    exam = exams.by_split(events, "time", home.settings.number("evaluate.test_share"))
    segment_conditions(home, exam, segments_named(slices))
    *wanted, baseline = recipes(home, names)

    learned = interactions_of(exam.train, home.settings)
    taking, seconds = [], []
    for recipe in wanted:
        began = time.monotonic()
        taking += fitted(home, [recipe], exam, learned, reuse=False)
        seconds.append(time.monotonic() - began)
    taking.append(_baseline(baseline, exam, learned))
    sitting = sit(home, wanted, exam, k + 1, saved=taking, baselines=False)
    judged = judge(
        sitting.lists,
        exam.answers,
        sitting.background,
        [k],
        BASELINE,
        home.settings.whole("evaluate.bootstrap"),
        boundaries=sitting.boundaries,
    )
    frames = {name: judged[name].per_user for name in names}
    del sitting
    lists, speeds, told = _now(home, saved, wanted, exam, events, k)
    sides = []
    for one, recipe, fit, speed in zip(saved, wanted, seconds, speeds, strict=True):
        value = judged[one.reference].metrics[measured]
        assert value is not None
        later = recipe.chosen if recipe.chosen_after(exam.asked_from) else ()
        figures = _figures(lists[one.reference], told, exam, k)
        sides.append(_rival(home, one, fit, speed, figures, value, later))
    (comparison,) = compared(frames, measured, [(names[1], names[0])], margin)
    return Rivalry(
        exam.split,
        exam.headline,
        measured,
        sides[0],
        sides[1],
        overlap(lists[names[0]], lists[names[1]], k),
        comparison,
        _better_for(*(frames[name][measured].to_numpy() for name in names)),
        by_group(frames, measured, attributes(home, exam, home.settings, segments_named(slices)), margin, slices),
    )


def overlap(first: pl.DataFrame, second: pl.DataFrame, k: int) -> Overlap:
    """How alike two sets of lists (user_id, item_id, rank) are in their first k, over users with a list in either."""
    one, other = (lists.filter(pl.col("rank") <= k).select("user_id", "item_id", "rank") for lists in (first, second))
    users = pl.concat([one["user_id"], other["user_id"]]).unique().sort()
    lengths = [np.bincount(positions(lists["user_id"], users), minlength=len(users)) for lists in (one, other)]
    common = one.join(other, on=["user_id", "item_id"], suffix=" there")
    depth = common.select(pl.max_horizontal("rank", "rank there")).to_series().to_numpy()
    both = np.zeros((len(users), k), dtype=np.int64)  # (n_users, k): items that become common at rank d
    np.add.at(both, (positions(common["user_id"], users), depth - 1), 1)
    shared = both.cumsum(axis=1)  # (n_users, k): |first d of one ∩ first d of the other|
    ranks = np.arange(1, k + 1)
    longer = np.maximum(*lengths)  # a list that ends is compared as far as the longer one goes
    agreement = shared / np.minimum(ranks, longer[:, None])
    weights = (1 - P) / P * P**ranks
    rbo = agreement @ weights + agreement[:, -1] * P**k
    jaccard = shared[:, -1] / (lengths[0] + lengths[1] - shared[:, -1])
    return Overlap(len(users), k, mean_interval(jaccard), mean_interval(rbo), mean_interval(shared[:, 0].astype(float)))


def by_group(
    frames: Mapping[str, pl.DataFrame],
    metric: str,
    attributes: pl.DataFrame,
    margin: float = MARGIN,
    slices: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """The comparison within each group of users that `segments.groups` shows, and within each of the `slices`; p
    corrected over all of them (Holm).

    `frames`: the first model and the second, each with user_id and the metric, sorted as `attributes` are.
    """
    (first, one), (second, other) = frames.items()
    assert one["user_id"].equals(attributes["user_id"]) and other["user_id"].equals(attributes["user_id"])
    rows: list[dict[str, Any]] = []
    of_slices = [segments.Group(one, segments.rows_within(attributes, one)) for one in slices]
    for segmentation, shown in {**segments.groups(attributes), **({"slice": of_slices} if slices else {})}.items():
        for group in shown:
            own = {first: one[group.rows], second: other[group.rows]}
            (found,) = compared(own, metric, [(second, first)], margin)
            values = [own[name][metric].to_numpy() for name in (first, second)]
            rows.append(
                {
                    "segmentation": segmentation,
                    "group": group.name,
                    "users": found.users,
                    "first": float(values[0].mean()),
                    "second": float(values[1].mean()),
                    "difference": found.difference._asdict(),
                    "p": found.p,
                    "better_for": list(_better_for(*values)),
                }
            )
    for row, p in zip(rows, holm([row["p"] for row in rows]), strict=True):
        better = "better" if row["difference"]["value"] > 0 else "worse"
        row |= {"p_holm": p, "verdict": better if p < ALPHA else "within noise"}
    return rows


def _metric(wanted: str | None, lengths: Sequence[int]) -> tuple[str, int]:
    """The metric and its k."""
    text = wanted or f"ndcg@{max(lengths)}"
    name, _, depth = text.partition("@")
    if name not in ACCURACY or not (depth.isascii() and depth.isdigit() and int(depth) > 0):
        known = [f"{metric}@{k}" for metric in ACCURACY for k in lengths]
        raise UsageError(f"{text!r} is no metric that users have{nearest(text, known)}", "persona compare --help")
    return f"{name}@{int(depth)}", int(depth)


def _baseline(recipe: Recipe, exam: Exam, learned: Interactions) -> Contender:
    """The popular list at the cut, which needs no item sums."""
    training = prepared(learned, exam.train, recipe.settings, exam.as_of, gram=empty())
    return Contender(recipe, recipe.unfitted().fit(training))


def _now(
    home: Home, saved: Sequence[Saved], wanted: Sequence[Recipe], exam: Exam, events: pl.DataFrame, k: int
) -> tuple[dict[str, pl.DataFrame], list[float], Background]:
    """Lists of the saved models by reference, users a second for each, and what the lists are relative to."""
    matrix = interactions_of(events, home.settings)
    if any(reads_order(one.model) for one in saved):
        matrix = with_times(matrix, events)
    users = matrix.users.gather(drawn(matrix.users))
    hidden = events.filter((pl.col("consumed") | pl.col("never")) & pl.col("item_id").is_not_null())
    pairs = hidden.join(users.to_frame(), on="user_id", how="semi").select("user_id", "item_id").unique()
    said = preferences.spoken_in(preferences.explicit_events(home, purpose=MEASURING), events)
    wishes = wishes_of(said, users, home.settings, lambda: items_described(home))
    places, queries = positions(users, matrix.users), searches(events, users)
    roster = Asked(users, matrix, places, contexts(events, users), still_barred(pairs, events), queries, wishes)
    until = exams.after(events)
    never, popular = unavailable(home, until), _popular(home)
    few = replace(
        roster,
        users=users[:_WARM_UP],
        places=places[:_WARM_UP],
        context=roster.context[:_WARM_UP],
        queries=None if queries is None else queries[:_WARM_UP],
        wishes=None,
    )
    lists, speeds = {}, []
    for one, recipe in zip(saved, wanted, strict=True):
        fill = None if isinstance(one.model, Popular | Layered) else popular
        rank(one.model, few, k, recipe.settings, fill=fill, never=never)
        began = time.perf_counter()
        lists[one.reference] = rank(one.model, roster, k, recipe.settings, fill=fill, never=never)
        speeds.append(len(users) / max(time.perf_counter() - began, 1e-9))
    models = [one.model for one in saved] + ([] if popular is None else [popular])
    now = replace(exam, train=events, known=events, as_of=until)
    told = background(home, now, matrix, matrix, [one.items for one in models], None)
    return lists, speeds, told


def _popular(home: Home) -> Popular | None:
    """What goes on where a model says nothing; None where it was never trained."""
    try:
        found = registry.load_model(home, BASELINE).model
    except MissingInput:
        return None
    assert isinstance(found, Popular)
    return found


def _figures(lists: pl.DataFrame, told: Background, exam: Exam, k: int) -> dict[str, Interval | None]:
    """FIGURES of the lists made now."""
    answers = coded_pairs(exam.answers, told.items)
    coded = coded_lists(lists, answers.items)
    found = beyond(lists, coded, hits_of(coded, answers), told, [k])
    figures: dict[str, Interval | None] = {}
    for key in (f"{name}@{k}" for name in FIGURES):
        if key in found.per_user:
            figures[key] = mean_interval(found.per_user[key])
        elif key in found.ratios:
            pair = found.ratios[key]
            figures[key] = lift_intervals(pair[:, :1], pair[:, 1:])[0]
        else:
            value = found.whole[key]
            figures[key] = None if value is None else Interval(value, None, None)
    return figures


def _rival(
    home: Home,
    saved: Saved,
    fit_seconds: float,
    users_per_second: float,
    figures: Mapping[str, Interval | None],
    value: Interval,
    later: tuple[str, ...],
) -> Rival:
    return Rival(
        saved.reference,
        saved.parts.get("individual"),
        saved.manifest["settings"],
        saved.manifest["trained_until"],
        sum(_bytes(home, reference) for reference in _with_parts(home, saved.reference)),
        round(fit_seconds, 3),
        round(users_per_second, 1),
        figures,
        value,
        later,
    )


def _with_parts(home: Home, reference: str) -> set[str]:
    """The reference and those of all models inside, each once."""
    parts = artifacts.read_manifest(home.path("models", reference)).get("parts", {}).values()
    return {reference}.union(*(_with_parts(home, part) for part in parts))


def _bytes(home: Home, reference: str) -> int:
    files = artifacts.read_manifest(home.path("models", reference))["files"]
    return sum(int(entry["bytes"]) for entry in files.values())


def _better_for(first: NDArray[np.float64], second: NDArray[np.float64]) -> tuple[int, int, int]:
    """Users whom the first serves better, whom the second does, and whom both serve alike."""
    alike = np.isclose(first, second, rtol=0.0, atol=1e-12)
    more, less = (int(np.count_nonzero(won & ~alike)) for won in (first > second, second > first))
    return more, less, int(alike.sum())
