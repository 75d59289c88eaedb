"""From units of variants to a verdict on each metric: sums, lift, corrections, segments, and the words for them.

A unit is whoever was assigned: a frame has one row a unit with the number of its `variant` (0 is the control) and the
columns of every `Question`. All questions are summed in one pass; from there on nothing grows with the units.

Nothing is said of a lift before the numbers of units have been held against the planned shares: where they differ by
more than chance gives once in a thousand, assignment or logging is broken, and so is every figure
(Fabijan et al. 2019).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from persona_cli.errors import Refused, UsageError, nearest
from persona_cli.experiments import inference, power, quantiles, sequential
from persona_cli.experiments.inference import Estimate, Moments
from persona_cli.experiments.quantiles import Quantile
from persona_cli.experiments.verdicts import KINDS, LOOKS, PEEKS, Design, Finding, Question, judged
from persona_cli.profiles import SMALLEST_CELL

MOST_SEGMENTS = 100


class Segment(NamedTuple):
    """The effect on one segment, its own and drawn towards that of all."""

    metric: str
    variant: str
    segment: str
    n: int
    n_control: int
    effect: float
    """Relative, or the difference where the metric has no relative lift."""
    shrunk: float
    low: float
    high: float
    kept: float
    """Share of the segment's own effect in `shrunk`."""
    p_differ: float
    """Of no difference between the segments."""


class Measured(NamedTuple):
    """All that is said of an experiment."""

    design: Design
    counts: tuple[int, ...]
    srm_p: float
    srm: str
    """ok, warns or blocks; adaptive where shares were no plan."""
    findings: tuple[Finding, ...]
    chain: tuple[str, ...]
    """How the corrections came about."""
    segments: tuple[Segment, ...]
    notes: tuple[str, ...]


Arms = Sequence[Moments] | Sequence[Quantile]


def check_design(design: Design) -> None:
    """Raise UsageError for what cannot be a plan."""
    if len(design.variants) < 2:
        seen = f"one variant, {design.variants[0]!r}" if design.variants else "no variant"
        raise UsageError(f"{seen}; at least two are compared")
    if not 0 < design.alpha < 1:
        raise UsageError(f"alpha is {design.alpha:g}; a share between 0 and 1 was expected")
    if design.correction not in power.CORRECTIONS:
        raise UsageError(f"no correction {design.correction!r}{nearest(design.correction, power.CORRECTIONS)}")
    if design.peek is None:
        return
    if design.peek == LOOKS:
        sequential.spending_bounds(design.fractions, design.alpha)  # refuses what cannot be looks
        return
    if design.peek not in PEEKS:
        raise UsageError(f"no way to peek {design.peek!r}{nearest(design.peek, PEEKS)}")
    if design.planned is None or not design.planned > 0:
        raise UsageError(
            "who looks before the end says for how many units the experiment is planned", "--planned 20000"
        )


def check_shares(design: Design, counts: Sequence[int], force: bool = False) -> tuple[float, str]:
    """p of the numbers of units under the planned shares, and ok, warns or blocks; Refused where they block.

    Valid at every look where the design is looked at before its end (Lindon and Malek 2020).
    """
    test = power.srm if design.peek is None else power.sequential_srm
    p = float(test(counts, design.shares).p)
    state = "blocks" if p < power.SRM_BLOCKS else "warns" if p < power.SRM_WARNS else "ok"
    if state == "blocks" and not force:
        seen = " : ".join(f"{n:,}" for n in counts)
        raise Refused(
            f"the shares of the variants are not those planned: {seen} units of {', '.join(design.variants)}, "
            f"p {p:.3g} "
            f"(below {power.SRM_BLOCKS}); assignment or logging is broken, so no lift is to be believed",
            "find the cause: lost or filtered units, redirects, bots; --share NAME=SHARE where the shares were planned "
            "so; --force shows the figures all the same",
        )
    return p, state


def capped(units: pl.DataFrame, questions: Sequence[Question]) -> tuple[pl.DataFrame, list[str]]:
    """Units with the values of winsorised questions cut, over all variants together, and what was cut."""
    cuts, notes = [], []
    for question in questions:
        if question.winsor is None or question.kind not in ("mean", "count", "ratio"):
            continue
        if not 0.5 < question.winsor < 1:
            raise UsageError(f"winsor is {question.winsor:g}; a share between 0.5 and 1 was expected, as 0.99")
        half = len(question.columns) // 2 if question.adjusted else len(question.columns)
        for column in {question.columns[0], *(question.columns[half : half + 1])}:
            top = quantiles.caps(units[column].drop_nulls().to_numpy(), question.winsor)[1]
            cuts.append(pl.col(column).clip(upper_bound=top))
            if column == question.columns[0]:
                cut = int((units[column] > top).sum())
                notes.append(
                    f"{question.name}: {cut:,} values above {top:g} were cut to it; the lift is one of cut values"
                )
    return units.with_columns(cuts), notes


def moments(
    units: pl.DataFrame, questions: Sequence[Question], by: Sequence[str] = ("variant",)
) -> dict[tuple[Any, ...], dict[str, Moments]]:
    """Moments of every question but quantiles by the groups of `by`, in one pass. Units without a value are left out.

    Values are summed as deviations from the mean of all, so that a small spread beside a large mean loses no digits.
    """
    asked = [question for question in questions if question.kind != "quantile"]
    needed = sorted({column for question in asked for column in question.columns})
    if not needed:
        return {}
    about = units.lazy().select(
        *(pl.col(name).mean().alias(f"mean {name}") for name in needed),
        *(pl.col(name).null_count().alias(f"null {name}") for name in needed),
    )
    known = about.collect().row(0, named=True)
    centre = {name: known[f"mean {name}"] or 0.0 for name in needed}
    sums: list[pl.Expr] = []
    for number, question in enumerate(asked):
        columns = [pl.col(name).cast(pl.Float64) - centre[name] for name in question.columns]
        if any(known[f"null {name}"] for name in question.columns):
            there = pl.all_horizontal(pl.col(name).is_not_null() for name in question.columns)
            columns = [pl.when(there).then(column) for column in columns]
        sums.append(columns[0].count().alias(f"{number} n"))
        for i, left in enumerate(columns):
            sums.append(left.sum().alias(f"{number} {i}"))
            sums += [(left * columns[j]).sum().alias(f"{number} {i} {j}") for j in range(i, len(columns))]
    found = units.lazy().group_by(*by).agg(sums).collect()
    tables: dict[tuple[Any, ...], dict[str, Moments]] = {}
    for row in found.iter_rows(named=True):
        of_group = {}
        for number, question in enumerate(asked):
            k = range(len(question.columns))
            products = [[row[f"{number} {min(i, j)} {max(i, j)}"] for j in k] for i in k]
            around = inference.of_sums(row[f"{number} n"], [row[f"{number} {i}"] for i in k], products)
            shift = np.array([centre[name] for name in question.columns])
            of_group[question.name] = around._replace(mean=around.mean + shift)
        tables[tuple(row[name] for name in by)] = of_group
    return tables


def arms_of(units: pl.DataFrame, questions: Sequence[Question], variants: int) -> dict[str, Arms]:
    """What each question needs of each variant: name → (variants,) Moments, or quantiles of units."""
    tables = moments(units, questions)
    found: dict[str, Arms] = {}
    for question in questions:
        if question.kind == "quantile":
            values = units.select("variant", value=pl.col(question.columns[0]).cast(pl.Float64)).drop_nulls()
            found[question.name] = [
                quantiles.of_users(values.filter(pl.col("variant") == one)["value"].to_numpy(), question.q)
                for one in range(variants)
            ]
        else:
            k = len(question.columns)
            empty = Moments(np.zeros(()), np.zeros(k), np.zeros((k, k)))
            found[question.name] = [tables.get((one,), {}).get(question.name, empty) for one in range(variants)]
    return found


def estimate(question: Question, control: Any, treatment: Any, alpha: float = 0.05) -> Estimate:
    """The comparison that a question's kind asks for; Moments, or Quantile for quantiles."""
    kind = question.kind
    if kind == "quantile":
        return quantiles.quantile(control, treatment, alpha)
    if kind == "nps":
        return inference.nps(control, treatment, alpha)
    if question.adjusted:
        return inference.cuped(control, treatment, "ratio" if kind == "ratio" else "mean", alpha)
    simple = {
        "mean": inference.mean,
        "proportion": inference.proportion,
        "ratio": inference.ratio,
        "count": inference.count,
    }
    if kind not in simple:
        raise UsageError(f"no metric of kind {kind!r}{nearest(kind, KINDS)}")
    return simple[kind](control, treatment, alpha)


def peeked(found: Estimate, design: Design, share: float = 1.0) -> Estimate:
    """The estimate with intervals and p that hold at every look, where the design is looked at before its end.

    `share` of all units are in these two variants, and so of the units planned.
    """
    if design.peek is None or not np.isfinite(found.difference):
        return found
    if design.peek == LOOKS:
        held = sequential.at_look(float(found.difference), float(found.se), design.fractions, design.alpha)
    else:
        assert design.planned is not None
        look = {"open": sequential.open_ended, "horizon": sequential.horizon}[design.peek]
        n = found.n_control + found.n_treatment
        held = look(found.difference, found.se, n, design.planned * share, design.alpha)
    # the same number of standard errors for the relative lift, by the delta method
    with np.errstate(divide="ignore", invalid="ignore"):
        times = np.where(found.se > 0, (held.high - found.difference) / found.se, 0.0)
        reach = times * found.relative_se
    low, high = found.relative - reach, found.relative + reach
    return found._replace(low=held.low, high=held.high, relative_low=low, relative_high=high, p=held.p)


def measure(
    units: pl.DataFrame,
    questions: Sequence[Question],
    design: Design,
    *,
    counts: Sequence[int] | None = None,
    given: Mapping[str, Arms] | None = None,
    segment: str | None = None,
    notes: Sequence[str] = (),
    force: bool = False,
) -> Measured:
    """The verdict on every question: frame of units in, figures and words out.

    `counts` are units of each variant (of the frame where None); `given` holds arms that were summed elsewhere;
    `segment` is a column of the frame. Raises UsageError for a plan that is none, Refused for a sample ratio mismatch
    unless `force`, or where a variant has fewer than 20 units.
    """
    check_design(design)
    if counts is None:
        seen = dict(units.group_by("variant").len().iter_rows())
        counts = [int(seen.get(one, 0)) for one in range(len(design.variants))]
    for name, n in zip(design.variants, counts, strict=True):
        if n < SMALLEST_CELL:
            raise Refused(
                f"the variant {name!r} has {n} units; figures are shown from {SMALLEST_CELL} on", "wait for more units"
            )
    p, state = check_shares(design, counts, force)
    units, cut = capped(units, questions)
    own = [question for question in questions if question.name not in (given or {})]
    arms: dict[str, Any] = {**arms_of(units, own, len(design.variants)), **(given or {})}
    found = []
    for question in questions:
        control, *treatments = arms[question.name]
        for name, n, treatment in zip(design.variants[1:], counts[1:], treatments, strict=True):
            share = (counts[0] + n) / sum(counts)
            e = peeked(estimate(question, control, treatment, design.alpha), design, share)
            found.append((question, name, _hidden(e) if min(control.n, treatment.n) < SMALLEST_CELL else e))
    findings, chain = judged(found, design)
    parts = _segments(units, own, design, segment) if segment is not None else ()
    return Measured(design, tuple(counts), p, state, findings, chain, parts, (*notes, *cut))


def _hidden(e: Estimate) -> Estimate:
    """The estimate of so few units that have a value that nothing of it is shown."""
    nothing = Estimate(*(np.full_like(e.difference, np.nan) for _ in e))
    return nothing._replace(n_control=np.zeros_like(e.n_control), n_treatment=np.zeros_like(e.n_treatment))


def _segments(units: pl.DataFrame, questions: Sequence[Question], design: Design, segment: str) -> tuple[Segment, ...]:
    """Effects by segments with `SMALLEST_CELL` units in both arms, drawn towards their mean (Morris 1983)."""
    plain = [question for question in questions if question.kind != "quantile"]
    kept = units.filter(pl.col(segment).is_not_null())
    names = sorted(kept[segment].cast(pl.String).unique().to_list())
    if len(names) > MOST_SEGMENTS:
        raise UsageError(f"{segment} has {len(names):,} values; segments are at most {MOST_SEGMENTS}")
    tables = moments(kept.with_columns(pl.col(segment).cast(pl.String)), plain, ("variant", segment))
    found: list[Segment] = []
    for question in plain:
        for number, variant in enumerate(design.variants[1:], 1):
            rows = []
            for name in names:
                control, treatment = (tables.get((one, name), {}).get(question.name) for one in (0, number))
                if control is None or treatment is None or min(control.n, treatment.n) < SMALLEST_CELL:
                    continue
                e = estimate(question, control, treatment, design.alpha)
                rows.append((name, e))
            whole = all(np.isfinite(e.relative) and float(e.relative_se) > 0 for _, e in rows)
            usable = [
                (name, e, float(e.relative if whole else e.difference), float(e.relative_se if whole else e.se))
                for name, e in rows
            ]
            usable = [row for row in usable if row[3] > 0]
            if len(usable) < 2:
                continue
            drawn = power.shrink([row[2] for row in usable], [row[3] for row in usable], design.alpha)
            for at, (name, e, effect, _) in enumerate(usable):
                found.append(
                    Segment(
                        question.name,
                        variant,
                        name,
                        int(e.n_treatment),
                        int(e.n_control),
                        effect,
                        float(drawn.effect[at]),
                        float(drawn.low[at]),
                        float(drawn.high[at]),
                        float(drawn.weight[at]),
                        drawn.p,
                    )
                )
    return tuple(found)
