"""What an experiment says, for people (words first, then tables) and for programs (a document, or one row a figure)."""

from __future__ import annotations

import math
from typing import Any

from persona_cli.experiments import sequential
from persona_cli.experiments.measuring import Measured
from persona_cli.experiments.verdicts import GUARDRAIL, LOOKS, Finding, lift
from persona_cli.reports.parts import Part

_SHARES = {
    "ok": "as planned",
    "warns": "further from the plan than chance gives once in a hundred: look into how units are assigned and logged",
    "adaptive": "shares followed outcomes",
    "blocks": "NOT as planned: assignment or logging is broken, and no figure below is to be believed",
}


def document(found: Measured) -> dict[str, Any]:
    """All of it, as JSON has it; figures to 12 digits, so that no order of sums shows."""
    design = found.design
    n = len(design.variants)
    shares = design.shares or (1 / n,) * n
    return {
        "words": sentences(found),
        "variants": [
            {"variant": name, "units": units, "planned_share": _rounded(share)}
            for name, units, share in zip(design.variants, found.counts, shares, strict=True)
        ],
        "srm": {"p": _rounded(found.srm_p), "state": found.srm},
        "alpha": design.alpha,
        "correction": design.correction,
        "peek": design.peek,
        "planned": design.planned,
        "looks": list(design.fractions),
        "metrics": records(found),
        "chain": list(found.chain),
        "segments": [rounded_row(one._asdict()) for one in found.segments],
        "notes": list(found.notes),
    }


def records(found: Measured) -> list[dict[str, Any]]:
    """One row a metric and variant."""
    return [rounded_row(one._asdict()) for one in found.findings]


def sentences(found: Measured) -> list[str]:
    """What is to be read first: a mismatch of shares, then each metric, guardrails last."""
    counts = " : ".join(f"{n:,}" for n in found.counts)
    p = "" if math.isnan(found.srm_p) else f", p {found.srm_p:.3g}"
    shares = f"{counts} units of {', '.join(found.design.variants)}{p}: {_SHARES[found.srm]}"
    goals = [one.words for one in found.findings if one.role != GUARDRAIL]
    return [shares, *goals, *(f"guardrail {one.words}" for one in found.findings if one.role == GUARDRAIL)]


def parts(found: Measured) -> list[Part]:
    """Sentences, corrections, figures, segments."""
    design = found.design
    level = f"{100 * (1 - design.alpha):g} %"
    made = [Part(sentences(found)), Part((_held(found, level), *found.notes))]
    made.append(Part((), _COLUMNS, [_row(one) for one in found.findings]))
    if found.chain:
        made.append(Part(found.chain))
    for metric, variant in dict.fromkeys((one.metric, one.variant) for one in found.segments):
        rows = [one for one in found.segments if (one.metric, one.variant) == (metric, variant)]
        head = (
            f"{metric} of {variant} by segment, drawn towards the effect on all; that segments differ at all has "
            f"p {rows[0].p_differ:.3g}." + (" These intervals are for one look at the end." if design.peek else "")
        )
        cells = [
            (
                *(one.segment, f"{one.n_control:,}", f"{one.n:,}"),
                *(f"{value:+.4f}" for value in (one.effect, one.shrunk, one.low, one.high)),
            )
            for one in rows
        ]
        made.append(Part((head,), ("segment", design.variants[0], variant, "own", "drawn", "low", "high"), cells))
    return made


def _held(found: Measured, level: str) -> str:
    """When the intervals hold."""
    design = found.design
    if found.srm == "adaptive":
        return f"Intervals hold {level}, for one look at the end."
    if design.peek == LOOKS:
        at, spent = design.fractions, sequential.spent(design.fractions, design.alpha)[-1]
        return (
            f"Intervals hold {level} over all looks: this is look {len(at)} of {design.looks} planned, at "
            f"{100 * at[-1]:.3g} % of the plan; {spent:.2g} of alpha {design.alpha:g} is spent."
        )
    return {
        None: f"Intervals hold {level}, for one look at the end; --peek or --looks for more.",
        "open": f"Intervals hold {level} at every look, narrowest near {design.planned or 0:,.0f} units.",
        "horizon": f"Intervals hold {level} at every look up to {design.planned or 0:,.0f} units.",
    }[design.peek]


_COLUMNS = ("metric", "variant", "units", "control", "value", "lift", "difference", "low", "high", "p", "corrected")


def _row(one: Finding) -> tuple[str, ...]:
    figures = (one.value_control, one.value)
    return (
        one.metric,
        one.variant,
        f"{one.n + one.n_control:,}",
        *(_short(value) for value in figures),
        lift(one)[0] if math.isfinite(one.relative) else "",
        *(_short(value) for value in (one.difference, one.low, one.high)),
        *(f"{p:.3g}" if math.isfinite(p) else "" for p in (one.p, one.p_corrected)),
    )


def _short(value: float) -> str:
    return f"{value:.5g}" if math.isfinite(value) else ""


def _rounded(value: Any) -> Any:
    return float(f"{value:.12g}") if isinstance(value, float) and math.isfinite(value) else value


def rounded_row(row: dict[str, Any]) -> dict[str, Any]:
    """A row with its numbers to 12 digits."""
    return {name: _rounded(value) for name, value in row.items()}
