"""What experiments of a workspace brought: everybody from their first exposure on, by the metrics asked for.

Units are people whom analytics cover and who were exposed: where impressions of the surface are sent, those whose
decision was seen, else those to whom one was delivered. Whoever was seen in two variants is left out and counted; a
variant that was dropped takes the people along who are drawn for it, since later they are given another.

A bandit's shares follow outcomes, so its means are weighted by the chance that each person had (`allocation`), period
by period; its shares are not held against a plan.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from persona_cli.errors import BadData, MissingInput, Refused, UsageError, nearest
from persona_cli.experiments import allocation, inference, metrics, power
from persona_cli.experiments.assignment import allotted, layer_key
from persona_cli.experiments.inference import Estimate
from persona_cli.experiments.measured import rounded_row
from persona_cli.experiments.measuring import Measured, capped, measure, moments
from persona_cli.experiments.preference import PLANNED_USERS, Preference, measure_pairs, measure_preferences
from persona_cli.experiments.running import AB, BANDIT, INTERLEAVE, Experiment, load
from persona_cli.experiments.verdicts import GOAL, GUARDRAIL, LOOKS, Design, Question, judged
from persona_cli.feedback import decisions as logged
from persona_cli.feedback.decisions import MERGED
from persona_cli.feedback.outcomes import Joined, join
from persona_cli.profiles import SMALLEST_CELL, segments
from persona_cli.profiles.identity import assignment_ids
from persona_cli.profiles.people import people as profiled
from persona_cli.profiles.permitted import ANALYTICS
from persona_cli.workspace import artifacts
from persona_cli.workspace.home import Home


class Exposed(NamedTuple):
    """Who was in an experiment."""

    people: pl.DataFrame
    """user_id, variant (its name), at: the first exposure; sorted by user_id."""
    names: tuple[str, ...]
    """Variants that are compared, the control first."""
    shares: tuple[float, ...]
    crossed: int
    """People seen in two of these variants, left out."""
    moved: int
    """People drawn for a variant that was dropped, left out."""


class Look(NamedTuple):
    """A look that was planned when the experiment was started."""

    number: int
    of: int
    people: int
    fraction: float
    """Of the people planned, at most 1."""
    until: datetime
    metrics: tuple[str, ...]


class Result(NamedTuple):
    """A measured experiment, and the sums that it follows from (no person is in them)."""

    measured: Measured
    sums: pl.DataFrame
    """metric, variant, n, mean (k,), cross (k * k,): `inference.Moments` of every metric but quantiles."""
    until: datetime
    look: Look | None


def exposed(home: Home, experiment: Experiment, until: datetime) -> Exposed:
    """People of an experiment with their first exposure before `until`."""
    made = _seen(join(home, experiment.started, until, until), experiment).decisions
    first = made.group_by("user_id", "variant").agg(pl.col("at").min())
    gone = experiment.dropped if experiment.kind == AB else ()
    names = tuple(name for name in experiment.names if name not in gone)
    moved = 0
    if gone:
        ids = assignment_ids(home, first["user_id"])
        key, salt = layer_key(home.salt, experiment.layer), bytes.fromhex(experiment.salt)
        drawn = allotted(ids, key, salt, experiment.shares)
        lost = pl.Series(np.isin(drawn, [experiment.names.index(name) for name in gone]))
        moved = first.filter(lost)["user_id"].n_unique()
        first = first.filter(~lost)
    first = first.filter(pl.col("variant").is_in(list(names)))
    both = first["user_id"].is_duplicated()
    crossed = first.filter(both)["user_id"].n_unique()
    kept = [share for name, share in zip(experiment.names, experiment.shares, strict=True) if name in names]
    return Exposed(
        first.filter(~both).select("user_id", "variant", "at").sort("user_id"),
        names, tuple(share / sum(kept) for share in kept), crossed, moved,
    )  # fmt: skip


def _seen(found: Joined, experiment: Experiment) -> Joined:
    """What is of an experiment and was exposed, `variant` its name alone."""
    pattern = f"(?:^|,){re.escape(experiment.name)}:([^,]+)"
    made = found.decisions.with_columns(pl.col("variant").str.extract(pattern, 1))
    made = made.filter(pl.col("variant").is_not_null() & (pl.col("exposed") | ~pl.col("tracked")))
    return Joined(
        made, found.items.join(made.select("decision_id"), on="decision_id", how="semi", maintain_order="left")
    )


def measure_experiment(
    home: Home,
    name: str,
    until: datetime,
    *,
    asked: Sequence[str] = (),
    segment: str | None = None,
    alpha: float = 0.05,
    correction: str = "holm",
    peek: str | None = None,
    planned: float | None = None,
    force: bool = False,
) -> Result:
    """An ab experiment or bandit as of `until`, by the metrics `asked` for, else those it was started with.

    Where looks were planned, and `peek` is None, this is the next of them, or the last one again (see `_next_look`).
    Raises UsageError for an interleaved experiment or one without a metric, and what `measuring.measure` raises.
    """
    experiment = load(home, name)
    if experiment.kind == INTERLEAVE:
        raise UsageError(f"lists of {name} are interleaved", f"persona measure interleave {name}")
    goals = tuple(asked) or ((experiment.metric,) if experiment.metric else ())
    if not goals:
        raise UsageError(f"{name} was started without a metric", "--metric NAME; persona metric list")
    guardrails = tuple(one for one in experiment.guardrails if one not in goals)
    read = metrics.named(home, (*goals, *guardrails))
    questions = [one.question(number, GOAL if number < len(goals) else GUARDRAIL) for number, one in enumerate(read)]
    whole, look = exposed(home, experiment, until), None
    again: list[str] = []
    fractions: tuple[float, ...] = ()
    if experiment.looks is not None and peek is None:
        until, whole, look, fractions, again = _next_look(home, experiment, read, until, whole)
        peek = LOOKS
    frame = metrics.units(home, read, whole.people, until)
    codes = {one: number for number, one in enumerate(whole.names)}
    frame = frame.with_columns(pl.col("variant").replace_strict(codes, return_dtype=pl.Int64))
    planned = planned if planned is not None else experiment.planned_units
    design = Design(
        whole.names, whole.shares, alpha, correction, peek, planned, experiment.looks or 1, fractions
    )  # fmt: skip
    notes = [*again, *_notes(whole, read, until)]
    if experiment.kind == BANDIT:
        if peek is not None or segment is not None:
            raise UsageError(f"{name} is a bandit: neither --peek nor --segment knows how its shares came about")
        found = _bandit(experiment, frame, whole.people["at"], questions, design, notes)
    else:
        if segment is not None:
            frame = frame.with_columns(_segment(home, segment, frame["user_id"], experiment.started))
        column = "segment" if segment is not None else None
        found = measure(frame, questions, design, segment=column, notes=notes, force=force)
    return Result(found, _sums(frame, questions, whole.names), until, look)


def looks_of(home: Home, name: str, asked: Sequence[str], before: datetime) -> list[Look]:
    """Looks at these metrics that are kept in reports/, in order; each at more of the plan than the one before."""
    found: dict[datetime, Look] = {}
    for path in home.path("reports").glob(f"experiment-{name}-*/measured.json"):
        said = json.loads(path.read_text(encoding="utf-8"))
        look = said.get("look")
        if said["experiment"] == name and look is not None and tuple(look["metrics"]) == tuple(asked):
            one = Look(**{**look, "until": datetime.fromisoformat(look["until"]), "metrics": tuple(look["metrics"])})
            found[one.until] = one
    kept: list[Look] = []
    for at in sorted(found):
        if at <= before and (not kept or found[at].fraction > kept[-1].fraction):
            kept.append(found[at])
    return kept


def _next_look(
    home: Home, experiment: Experiment, read: Sequence[metrics.Metric], until: datetime, whole: Exposed
) -> tuple[datetime, Exposed, Look, tuple[float, ...], list[str]]:
    """As of when, whom, which look, the shares of the plan at all looks so far, and what is to be told of it.

    People count once the longest window of the metrics is over for them. What was looked at is not looked at twice:
    with no more people than at the look before, or once the plan is over, its figures are shown again, as of then.
    """
    planned, of = experiment.planned_units, experiment.looks
    assert planned is not None and of is not None
    names = tuple(one.name for one in read)
    window = max((one.window_days for one in read if one.window_days is not None), default=0.0)

    def over(all_: Exposed, at: datetime) -> Exposed:
        ended = pl.col("at") + pl.duration(seconds=window * 86400) <= at
        return all_._replace(people=all_.people.filter(ended))

    kept = looks_of(home, experiment.name, names, until)
    now = over(whole, until)
    n = now.people.height
    notes = []
    if kept and (n <= kept[-1].people or kept[-1].fraction >= 1):
        last = kept[-1]
        why = "the plan is over" if last.fraction >= 1 else "no more people than then"
        notes.append(f"as at look {last.number}, of {last.until:%Y-%m-%d %H:%M} UTC: {why}")
        until, now = last.until, over(exposed(home, experiment, last.until), last.until)
        return until, now, last, tuple(one.fraction for one in kept), notes
    look = Look(len(kept) + 1, of, n, min(n / planned, 1.0), until, names)
    waiting = whole.people.height - n
    if waiting >= SMALLEST_CELL:
        notes.append(f"{waiting:,} people count from a later look on: their {window:g} days are not over yet")
    return until, now, look, (*(one.fraction for one in kept), look.fraction), notes


def _notes(whole: Exposed, read: Sequence[metrics.Metric], until: datetime) -> list[str]:
    notes = []
    if whole.crossed:
        notes.append(f"{whole.crossed:,} people were seen in more than one variant and are left out")
    if whole.moved:
        notes.append(f"{whole.moved:,} people of dropped variants are left out")
    for one in read:
        if one.window_days is not None:
            still = whole.people.filter(pl.col("at") + pl.duration(days=one.window_days) > until).height
            if still >= SMALLEST_CELL:
                notes.append(f"{one.name}: the {one.window_days:g} days of {still:,} people are not over yet")
    return notes


def _segment(home: Home, name: str, users: pl.Series, at: datetime) -> pl.Series:
    """The segment (n_users,) of each as of the start: in or out of [segments.NAME], or a column of profiles."""
    known = profiled(home, at, purpose=ANALYTICS)
    conditions = segments.conditions(home)
    if name in conditions:
        inside = conditions[name].mask(known)
        values = known.select("user_id", segment=pl.when(inside).then(pl.lit(name)).otherwise(pl.lit(f"not {name}")))
    elif name in known.columns and name != "user_id":
        values = known.select("user_id", segment=pl.col(name).cast(pl.String))
    else:
        there = [*conditions, *(one for one in segments.columns(home) if one in known.columns)]
        raise UsageError(f"no segment and no column is named {name!r}{nearest(name, there)}", "persona segment list")
    return users.to_frame("user_id").join(values, on="user_id", how="left", maintain_order="left")["segment"]


def _bandit(
    experiment: Experiment,
    frame: pl.DataFrame,
    at: pl.Series,
    questions: Sequence[Question],
    design: Design,
    notes: Sequence[str],
) -> Measured:
    """Means of variants under shares that followed outcomes: adaptively weighted, by periods between allocations."""
    starts = np.array([one.at.timestamp() for one in experiment.allocations])
    period = np.clip(np.searchsorted(starts, at.dt.epoch("us").to_numpy() / 1e6, side="right") - 1, 0, None)
    variant = frame["variant"].to_numpy()
    counts = np.bincount(variant, minlength=len(design.variants))
    for name, n in zip(design.variants, counts, strict=True):
        if n < SMALLEST_CELL:
            raise Refused(f"the variant {name!r} has {n} people; figures are shown from {SMALLEST_CELL} on")
    shares = np.array([one.shares for one in experiment.allocations])  # (n_periods, k)
    frame, cut = capped(frame, questions)
    made: list[tuple[Question, str, Estimate]] = []
    for question in questions:
        if question.kind not in ("mean", "proportion"):
            raise UsageError(f"{question.name} is a {question.kind}; a bandit is measured by what each person brings")
        value = frame[question.columns[0]].to_numpy()
        means = []
        for one in range(len(design.variants)):
            inside = variant == one
            n, total, square, batch = (
                np.bincount(period, weights=weights, minlength=len(starts)).astype(np.float64)
                for weights in (inside, inside * value, inside * value**2, np.ones_like(value))
            )
            used = (shares[:, one] > 0) & (batch > 0)
            means.append(allocation.adaptive_mean(n[used], total[used], square[used], shares[used, one], batch[used]))
        for one in range(1, len(design.variants)):
            control, treatment = means[0], means[one]
            arms = inference.Arms(
                *(control.value, treatment.value, control.se**2, treatment.se**2, np.zeros(()), np.array(np.inf)),
                *(np.array(float(counts[0])), np.array(float(counts[one]))),
            )
            plain = question._replace(adjusted=False)
            made.append((plain, design.variants[one], inference.compare(arms, design.alpha)))
    findings, chain = judged(made, design)
    said = "shares followed outcomes: means are weighted by each person's chance, and no plan of shares is tested"
    every = (*notes, *cut, said)
    return Measured(design, tuple(int(n) for n in counts), math.nan, "adaptive", findings, chain, (), every)


def _sums(frame: pl.DataFrame, questions: Sequence[Question], names: Sequence[str]) -> pl.DataFrame:
    """Sums of cells of at least `SMALLEST_CELL` people."""
    rows = [
        {
            "metric": question.name, "variant": names[variant], "n": int(found[question.name].n),
            "mean": found[question.name].mean.tolist(), "cross": found[question.name].cross.ravel().tolist(),
        }
        for (variant,), found in sorted(moments(frame, questions).items())
        for question in questions
        if float(found[question.name].n) >= SMALLEST_CELL
    ]  # fmt: skip
    numbers = pl.List(pl.Float64())
    schema = {"metric": pl.String(), "variant": pl.String(), "n": pl.Int64(), "mean": numbers, "cross": numbers}
    return pl.DataFrame(rows, schema=schema)


def measure_interleaved(
    home: Home, name: str, until: datetime, *, alpha: float = 0.05, planned: float | None = None
) -> dict[tuple[int, int], Preference]:
    """Which of each two interleaved rankings people prefer, by the clicks on lists exposed before `until`.

    Raises UsageError for an experiment of another kind, Refused below 20 people who clicked, BadData for decisions
    whose teams do not fit their lists.
    """
    experiment = load(home, name)
    if experiment.kind != INTERLEAVE:
        raise UsageError(f"{name} is of the kind {experiment.kind}", f"persona measure experiment {name}")
    found = _seen(join(home, experiment.started, until, until), experiment)
    made = found.decisions.filter(pl.col("variant") == MERGED).select("decision_id", "user_id")
    choices = logged.read(home, since=experiment.started, until=until).select("decision_id", "choice")
    told = choices.filter(pl.col("choice").is_not_null()).collect()
    clicks = found.items.sort("decision_id", "position").group_by("decision_id", maintain_order=True)
    lists = made.join(told, on="decision_id").join(clicks.agg(pl.col("clicks")), on="decision_id").sort("decision_id")
    if not lists.height:
        raise MissingInput(f"no list of {name} was exposed yet", f"persona recommend --interleave {name} --log")
    shape = {
        "teams": pl.List(pl.String), "credit": pl.List(pl.Float64), "rank_a": pl.List(pl.Int64),
        "rank_b": pl.List(pl.Int64),
    }  # fmt: skip
    try:
        read = lists["choice"].str.json_decode(pl.Struct(shape)).struct.unnest()
    except pl.exceptions.PolarsError as error:
        raise BadData(f"a decision of {name} does not say whose its entries are: {error}") from error
    there = [column for column in read.columns if read[column].null_count() < read.height]
    whole = pl.concat([lists.select("user_id", "clicks"), read.select(there)], how="horizontal")
    people, rankers = planned or experiment.planned_units or PLANNED_USERS, len(experiment.variants)
    if rankers > 2:
        found_pairs = measure_pairs(whole, rankers, 1 - alpha, people)
    else:
        found_pairs = {(0, 1): measure_preferences(whole, experiment.method, 1 - alpha, people)}
    if next(iter(found_pairs.values())).users < SMALLEST_CELL:
        raise Refused(
            f"fewer than {SMALLEST_CELL} people clicked on a list of {name}; figures are shown from there on",
            "wait for more clicks",
        )
    return found_pairs


def preference_words(found: Preference, names: Sequence[str]) -> list[str]:
    """First who is preferred, then whether that is enough to stop at any time."""
    a, b = names
    signed = (found.preference, found.low, found.high)
    better, worse = (a, b) if found.preference >= 0 else (b, a)
    if found.preference < 0:
        signed = (-signed[0], -signed[2], -signed[1])
    ends = f"{100 * signed[1]:+.1f} … {100 * signed[2]:+.1f}".replace("-", "−")
    head = f"{better} wins {50 + 100 * signed[0]:.1f} % of clicked lists against {worse}"
    lead = f"{head}, {100 * signed[0]:+.1f} points from a draw ({ends}), p {found.p:.3g}"
    enough = found.low > 0 or found.high < 0
    anytime = (found.always_low, found.always_high)
    if found.preference < 0:
        anytime = (-anytime[1], -anytime[0])
    always = f"{100 * anytime[0]:+.1f} … {100 * anytime[1]:+.1f}".replace("-", "−")
    return [
        f"{lead}: {f'{better} is preferred' if enough else 'not enough to tell'}",
        f"for those who look at any time, {better} is {always} points from a draw: "
        + ("enough to stop" if found.stop else "not enough to stop yet"),
        f"{found.users:,} people clicked on {found.clicked:,} of {found.lists:,} lists: {a} won {found.wins_a:,}, "
        f"{b} {found.wins_b:,}, {found.ties:,} said nothing ({found.method})",
    ]


def preference_documents(found: Mapping[tuple[int, int], Preference], names: Sequence[str]) -> list[dict[str, Any]]:
    """A document a pair; of several pairs with p corrected over all (Holm), and the words for it."""
    pairs = [((names[one], names[other]), pair) for (one, other), pair in found.items()]
    held = power.correct([pair.p for _, pair in pairs], 1 - pairs[0][1].confidence).p.tolist()
    made = []
    for (two, pair), p in zip(pairs, held, strict=True):
        words = preference_words(pair, two)
        more = {"p_corrected": p} if len(pairs) > 1 else {}
        if more:
            alpha = 1 - pair.confidence
            note = "" if pair.p > alpha or p <= alpha else ", not enough once all pairs are counted"
            words.append(f"p {p:.3g} over {len(pairs)} pairs (Holm){note}")
        made.append({"words": words, "a": two[0], "b": two[1], **rounded_row({**pair._asdict(), **more})})
    return made


def write(home: Home, name: str, run: str, said: dict[str, Any], sums: pl.DataFrame | None = None) -> Path:
    """The result as reports/experiment-NAME-RUN/ (measured.json, sums.parquet): the folder. Nobody is named in it."""
    folder = home.path("reports", f"experiment-{name}-{run}")
    with artifacts.publish(folder) as made:
        text = json.dumps(said, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        (made / "measured.json").write_text(text, encoding="utf-8")
        if sums is not None:
            sums.write_parquet(made / "sums.parquet")
    return folder
