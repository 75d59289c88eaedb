"""Whether a metric is better, worse or not known yet, with the chance of false findings held over all that is asked,
and the words for it.

Words come first wherever an experiment is shown: "visits: b +4.2 % (1.1 … 7.3) against a: enough to ship". A metric
that is neither better nor worse says what it can be at most, and how many more units would tell, if the truth is what
is seen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from persona_cli.experiments import power, sequential
from persona_cli.experiments.inference import Estimate

KINDS = ("mean", "proportion", "ratio", "count", "nps", "quantile")
DIRECTIONS = UP, DOWN = ("up", "down")
PEEKS = OPEN, HORIZON = ("open", "horizon")
LOOKS = "looks"
GOAL, GUARDRAIL = "goal", "guardrail"
BETTER, WORSE, UNKNOWN = "better", "worse", "unknown"


class Question(NamedTuple):
    """A metric as columns of the frame of units."""

    name: str
    kind: str
    columns: tuple[str, ...]
    """value[, denominator], and the same of the time before where `adjusted`; null: the unit has no value."""
    adjusted: bool = False
    direction: str = UP
    q: float = 0.5
    """Of the kind quantile."""
    winsor: float | None = None
    """Share of units whose value is kept; larger values are cut to the largest of those."""
    role: str = GOAL


class Design(NamedTuple):
    """What was planned."""

    variants: tuple[str, ...]
    """The control first."""
    shares: tuple[float, ...] | None = None
    """Of the variants; equal where None."""
    alpha: float = 0.05
    correction: str = "holm"
    peek: str | None = None
    planned: float | None = None
    """Units of all variants together that the experiment is planned for; `peek` needs it, but for `LOOKS`."""
    looks: int = 1
    """Looks that were planned, of `LOOKS`."""
    fractions: tuple[float, ...] = ()
    """Shares of the information at the looks so far, this one last, of `LOOKS`."""


class Finding(NamedTuple):
    """One metric of one variant against the control; NaN where there is no such figure."""

    metric: str
    kind: str
    role: str
    direction: str
    variant: str
    control: str
    n: int
    n_control: int
    value: float
    value_control: float
    difference: float
    low: float
    high: float
    relative: float
    relative_low: float
    relative_high: float
    se: float
    p: float
    p_corrected: float
    variance_cut: float
    """Share of the variance that the time before explained."""
    verdict: str
    more_units: float
    """Of all variants compared: how many more find a difference as large as the seen one with 80 % power."""
    words: str


def judged(
    found: Sequence[tuple[Question, str, Estimate]], design: Design
) -> tuple[tuple[Finding, ...], tuple[str, ...]]:
    """Findings with p corrected over all of them, and the chain of corrections (empty for a single test)."""
    names = tuple(f"{question.name} of {variant}" for question, variant, _ in found)
    # what nobody differs in cannot be a false finding either, and costs the others nothing
    p = [math.nan if float(one.se) == 0 and float(one.difference) == 0 else float(one.p) for _, _, one in found]
    fixed = power.correct(p, design.alpha, design.correction, names)
    tests = sum(not math.isnan(one) for one in p)
    findings = tuple(
        _finding(question, variant, one, float(corrected), design, tests)
        for (question, variant, one), corrected in zip(found, fixed.p, strict=True)
    )
    return findings, fixed.chain if tests > 1 else ()


def _finding(question: Question, variant: str, e: Estimate, corrected: float, design: Design, tests: int) -> Finding:
    gap, p = float(e.difference), float(e.p)
    good = gap > 0 if question.direction == UP else gap < 0
    verdict = UNKNOWN if not corrected <= design.alpha or gap == 0 else BETTER if good else WORSE
    made = Finding(
        question.name if question.kind != "quantile" else f"{question.name} q{question.q:g}",
        question.kind, question.role, question.direction, variant, design.variants[0],
        int(e.n_treatment), int(e.n_control), float(e.treatment), float(e.control), gap, float(e.low), float(e.high),
        float(e.relative), float(e.relative_low), float(e.relative_high), float(e.se), p, corrected,
        float(e.variance_cut), verdict, _more_units(e, design), "",
    )  # fmt: skip
    return made._replace(words=words(made, design.alpha, tests))


def _more_units(e: Estimate, design: Design) -> float:
    """Units of both arms beyond those there are; the variance of the difference falls as they grow together.

    Who looks on the way is held to more standard errors: those of the end of the plan, or of now where there is none.
    """
    gap, se = float(e.difference), float(e.se)
    alpha = design.alpha
    if design.peek == OPEN:
        alpha = sequential.alone((float(e.high) - gap) / se) if se > 0 else alpha
    elif design.peek == HORIZON:
        alpha = sequential.alone(sequential.horizon_constant(alpha))
    elif design.peek == LOOKS:
        alpha = sequential.alone(sequential.last_bound(design.looks, alpha))
    if not (gap and se > 0 and math.isfinite(gap)):
        return math.nan
    n0, n1 = float(e.n_control), float(e.n_treatment)
    needed = float(power.size(se**2 * n0, abs(gap), alpha, treatment_variance=0.0)) / n0
    return max(math.ceil((needed - 1) * (n0 + n1)), 0)


def words(f: Finding, alpha: float = 0.05, tests: int = 1) -> str:
    """One sentence: the lift with its interval, and what it is good for."""
    shown, low, high = lift(f)
    better, worst = (high, low) if f.direction == UP else (low, high)
    head = f"{f.metric}: {f.variant} {shown} against {f.control}"
    if math.isnan(f.p):
        return f"{f.metric}: {f.variant} cannot be compared with {f.control}: too few units have a value"
    if f.se == 0 and f.difference == 0:
        what = "nobody has any of it" if f.value == 0 else f"everybody has {f.value:.5g}"
        return f"{f.metric}: {what} in {f.variant} or in {f.control}: nothing to tell yet"
    if f.role == GUARDRAIL:
        if f.verdict == WORSE:
            return f"{head}: worse; a reason to stop"
        return f"{head}: {'better' if f.verdict == BETTER else f'no harm seen; at worst {worst}'}"
    if f.verdict == BETTER:
        return f"{head}: enough to ship"
    if f.verdict == WORSE:
        return f"{head}: worse"
    why = f" once {tests} tests are counted" if f.p <= alpha else ""
    more = ""
    if math.isfinite(f.more_units) and f.more_units > 0:
        there = f.n + f.n_control
        many = f"{f.more_units:,.0f}" if f.more_units < 100 * there else f"more than {100 * there:,}"
        more = f"; {many} more units needed if the truth is what is seen"
    bound = f": at most {better}" if better else ""
    return f"{head}: not enough to tell{why}{bound}{more}"


def lift(f: Finding) -> tuple[str, str, str]:
    """The relative lift in percent, `+4.2 % (1.1 … 7.3)`, with its ends; the difference where there is none.

    As many digits as the interval's width bears.
    """
    relative = all(map(math.isfinite, (f.relative, f.relative_low, f.relative_high)))
    scale, unit = (100.0, " %") if relative else (1.0, " points" if f.kind == "nps" else "")
    middle, low, high = (
        (f.relative, f.relative_low, f.relative_high) if relative else (f.difference, f.low, f.high)
    )  # fmt: skip
    if not all(map(math.isfinite, (low, high))):
        return f"{scale * middle:+.3g}{unit} (unbounded)", "", ""
    half = scale * (high - low) / 2
    digits = min(max(1 - math.floor(math.log10(half)), 0), 9) if half > 0 else 1

    def text(value: float, sign: str) -> str:
        return f"{scale * value:{sign}.{digits}f}".replace("-", "−")

    ends = f"{text(low, '')} … {text(high, '')}"
    return f"{text(middle, '+')}{unit} ({ends})", f"{text(low, '+')}{unit}", f"{text(high, '+')}{unit}"
