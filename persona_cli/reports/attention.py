"""The page of a dwell fit: the sentences, the histogram with the curves of its components, and the parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from persona_cli.errors import Unavailable
from persona_cli.profiles.dwell import DwellFit
from persona_cli.profiles.mixture import Mixture
from persona_cli.reports import charts, pages
from persona_cli.reports.pages import Html, Section

_CURVE = 161  # points of a curve


def html(sentences: Sequence[str], fit: DwellFit | None, signals: Sequence[Mapping[str, Any]]) -> str:
    """The page; without the extra `report` it has the tables and says what is missing instead of the chart."""
    top = [pages.paragraph(text, "lead" if n == 0 else "") for n, text in enumerate(sentences)]
    sections = [Section("Signals", [_signals(signals)])]
    if fit is not None:
        sections = [Section("Seconds", _seconds(fit)), Section("Parameters", [_parameters(fit)]), *sections]
    return pages.page("Signals and dwell", top, sections, "shares are of recorded events")


def _seconds(fit: DwellFit) -> list[Html]:
    told = "bars: recorded events; lines: what the fit expects of each component and of all, on a logarithmic axis"
    try:
        drawn = charts.histogram(
            _bars(fit),
            _curves(fit),
            x="seconds",
            y="events by log-seconds",
            label="histogram of dwell seconds and the densities of the components",
        )
    except Unavailable as missing:
        body = [pages.paragraph(f"{missing.message}: {missing.hint}", "note")]
    else:
        body = [pages.figure(drawn, told)]
    rows: list[list[object]] = [
        [f"{low:.4g} to {high:.4g}", pages.number(n, f"{n:,}"), *(f"{part * n:,.0f}" for part in share)]
        for (low, high, n), share in zip(fit.histogram, _by_component(fit), strict=True)
        if n
    ]
    table = pages.table(["seconds", "events", *fit.roles], rows, "events by seconds, and whose they are by the fit")
    return [*body, pages.details("figures", [table])]


def _parameters(fit: DwellFit) -> Html:
    parts = zip(fit.roles, *fit.mixture, fit.shares, strict=True)
    rows: list[list[object]] = [
        [role, f"{share:.1%}", f"{np.exp(mean):,.4g}", f"{mean:.4f}", f"{sd:.4f}", f"{weight:.4f}"]
        for role, weight, mean, sd, share in parts
    ]
    columns = ["component", "share", "median seconds", "mean of log", "sd of log", "weight before the cut"]
    return pages.table(columns, rows, f"of {fit.events:,} events in steps of {fit.resolution:g} s")


def _signals(signals: Sequence[Mapping[str, Any]]) -> Html:
    rows: list[list[object]] = [
        [
            row["signal"],
            "" if row["strength"] is None else row["strength"],
            f"{row['events']:,}",
            row["needed"] or "",
            row["note"],
        ]
        for row in signals
    ]
    return pages.table(["signal", "strength", "events", "needed", "note"], rows)


def _bars(fit: DwellFit) -> list[dict[str, float]]:
    """Bins as densities over log-seconds, so that the area of a bar is its number of events."""
    return [
        {"low": low, "high": high, "y": n / float(np.log(high / low))} for low, high, n in fit.histogram if high > low
    ]


def _curves(fit: DwellFit) -> list[dict[str, Any]]:
    low, high = fit.histogram[0][0], fit.histogram[-1][1]
    z = np.linspace(np.log(low), np.log(high), _CURVE)
    density = _densities(z, fit.mixture)
    total = density.sum(axis=1)
    # Among what was recorded: the area under all curves within the limits is the number of events.
    scale = fit.events / float(np.trapezoid(total, z))
    named = [
        (f"{role} {n + 1}" if fit.roles.count(role) > 1 else role, density[:, n]) for n, role in enumerate(fit.roles)
    ]
    return [
        {"series": name, "x": float(np.exp(at)), "y": float(value * scale)}
        for name, column in [*named, ("all", total)]
        for at, value in zip(z, column, strict=True)
    ]


def _by_component(fit: DwellFit) -> Any:
    middles = np.array([(np.log(low) + np.log(high)) / 2 for low, high, _ in fit.histogram])
    density = _densities(middles, fit.mixture)
    return density / np.maximum(density.sum(axis=1, keepdims=True), 1e-300)


def _densities(z: Any, mixture: Mixture) -> Any:
    """(n, k): weight times normal density of log-seconds."""
    scaled = (z[:, None] - mixture.means) / mixture.sds
    return mixture.weights * np.exp(-0.5 * scaled**2) / mixture.sds / np.sqrt(2 * np.pi)
