"""Dwell that is attention: how likely seconds on a page were spent reading it, and not in a tab that was left open.

Seconds are a mixture of log-normal distributions (`mixture`): reading, an idle tab and, where the data asks for it by
BIC, a glance of a few seconds (a bounce). A target with enough events has a mixture of its own, drawn towards that of
all: the mode of the posterior where the fit of all stands for so many more events (Gauvain & Lee, Maximum a
posteriori estimation for multivariate Gaussian mixture observations, IEEE Trans. Speech and Audio Processing 2, 1994).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import polars as pl

from persona_cli.profiles import mixture as mixtures
from persona_cli.profiles.mixture import Durations, Floats, Mixture, share_error

Role = Literal["bounce", "engaged", "idle"]
BOUNCE_MEDIAN = 10.0
"""Seconds: a component whose median is shorter is a glance, if a longer one is left to be the reading."""
IDLE_MEDIAN = 120.0
"""Seconds: the longest component is an idle tab only if its median is longer."""
RESOLUTIONS = (60.0, 30.0, 15.0, 10.0, 5.0, 1.0, 0.1, 0.01)
"""Steps that recorded seconds may come in, coarsest first; finer ones count as 0.001."""
_WHOLE = 0.99  # share of the values that must be multiples of a resolution
_TARGET_STEPS = 60
_TARGETS_AT_ONCE = 2048
_HISTOGRAM = 10  # bins a factor of e


@dataclass(frozen=True)
class DwellFit:
    """What seconds mean in one workspace."""

    mixture: Mixture
    roles: tuple[Role, ...]
    """Of each component, by ascending median: bounces before engaged ones before idle ones."""
    resolution: float
    """Seconds that recorded values are multiples of."""
    high: float
    """Longer ones were never recorded, in seconds; inf: all were."""
    shares: tuple[float, ...]
    """Of each component among what was recorded."""
    bic: tuple[float, ...]
    """Of 1, 2 and 3 components."""
    events: int
    idle_time: float
    """Share of the recorded time that was idle."""
    histogram: tuple[tuple[float, float, int], ...]
    """(from, to, events), seconds; bins of about equal width in logs that hold whole recorded values."""
    share_error: float | None = None
    """Standard error of the share of reading (`profiles.mixture`); None: not known."""

    def said(self) -> dict[str, Any]:
        """As JSON types, numbers with six significant digits, so that no last bit makes another fit."""
        parts = zip(self.roles, self.mixture.weights, self.mixture.means, self.mixture.sds, self.shares, strict=True)
        components = [
            {"role": role, "weight": _six(weight), "log_mean": _six(mean), "log_sd": _six(sd), "share": _six(share)}
            for role, weight, mean, sd, share in parts
        ]
        return {
            "components": components,
            "resolution": self.resolution,
            "longest": self.high if np.isfinite(self.high) else None,
            "events": self.events,
            "bic": [round(value, 1) for value in self.bic],
            "idle_time": _six(self.idle_time),
            "share_error": None if self.share_error is None else _six(self.share_error),
            "histogram": [[_six(low), _six(high), n] for low, high, n in self.histogram],
        }

    @classmethod
    def of(cls, said: dict[str, Any]) -> Self:
        parts = said["components"]
        columns = (np.array([part[name] for part in parts]) for name in ("weight", "log_mean", "log_sd"))
        return cls(
            Mixture(*columns),
            tuple(part["role"] for part in parts),
            said["resolution"],
            np.inf if said["longest"] is None else said["longest"],
            tuple(part["share"] for part in parts),
            tuple(said["bic"]),
            said["events"],
            said["idle_time"],
            tuple((low, high, n) for low, high, n in said["histogram"]),
            said.get("share_error"),
        )

    def share(self, role: Role) -> float:
        """Of the recorded events."""
        return sum(share for one, share in zip(self.roles, self.shares, strict=True) if one == role)

    def median(self, role: Role) -> float | None:
        """Seconds, of the heaviest component of the role; None without one."""
        of_role = [n for n, one in enumerate(self.roles) if one == role]
        return float(np.exp(self.mixture.means[max(of_role, key=lambda n: self.shares[n])])) if of_role else None

    def idle_from(self) -> float | None:
        """Seconds from which a tab is more likely idle than not; None where none are."""
        seconds = np.exp(np.linspace(np.log(self.resolution / 2), np.log(min(self.high, 86_400.0)), 4001))
        idle = probabilities(self, seconds)["idle"] >= 0.5
        return float(seconds[np.argmax(idle)]) if idle.any() else None


def fit_dwell(seconds: Floats, high: float = np.inf) -> DwellFit:
    """The mixture of 1, 2 or 3 components that has the smallest BIC; seconds (n,) above 0, none longer than `high`.

    ValueError where fewer than two different durations are there.
    """
    resolution = resolution_of(seconds)
    durations = mixtures.rounded(seconds, resolution, high)
    if len(durations.counts) < 2:
        raise ValueError("fewer than two different durations")
    fitted = [mixtures.fit(durations, n) for n in (1, 2, 3)]
    bic = tuple(mixtures.bic(durations, one) for one in fitted)
    best = fitted[int(np.argmin(bic))]
    best, roles = _with_roles(best)
    shares = mixtures.recorded_shares(durations, best)
    found = DwellFit(
        best,
        roles,
        resolution,
        high,
        tuple(float(share) for share in shares),
        bic,
        int(durations.total),
        0.0,
        _histogram(seconds, resolution, high),
        share_error(durations, best, [n for n, role in enumerate(roles) if role == "engaged"]),
    )
    idle = probabilities(found, seconds)["idle"]
    return DwellFit(**{**vars(found), "idle_time": float((idle * seconds).sum() / seconds.sum())})


def resolution_of(seconds: Floats) -> float:
    """The coarsest step of which nearly all values are multiples."""
    for step in RESOLUTIONS:
        off = np.abs(seconds / step - np.rint(seconds / step))
        if np.mean(off < 1e-6) >= _WHOLE:
            return step
    return 0.001


def probabilities(fit: DwellFit, seconds: Floats, mixture: Mixture | None = None) -> dict[Role, Floats]:
    """Of each role, given seconds (n,): arrays (n,) that add up to 1.

    `mixture`: of the target of each event instead, arrays (n, k). Where seconds say nothing (null, negative) the shares
    of the roles among all recorded are answered. The odds of idle against the rest only rise with time, and those of a
    bounce only fall: of two normal curves the wider one is on top again in both tails, but a second on a page is no
    idle tab; beyond the turning point the odds stay as they are there.
    """
    weights, means, sds = fit.mixture if mixture is None else mixture
    known = np.isfinite(seconds) & (seconds >= 0)
    z = np.log(np.where(known, np.maximum(seconds, fit.resolution / 2), 1.0))[:, None]
    weights, means, sds = (np.broadcast_to(part, (len(seconds), len(fit.roles))) for part in (weights, means, sds))
    of = {role: [n for n, one in enumerate(fit.roles) if one == role] for role in ("bounce", "engaged", "idle")}

    def odds(above: Sequence[int], below: Sequence[int]) -> Floats:
        """Of the longer components `above` against the shorter ones `below`, as they never fall with time (n,)."""
        total = np.zeros(len(seconds))
        for one in above:
            against = np.zeros(len(seconds))
            for other in below:
                pair = (weights[:, [one, other]], means[:, [one, other]], sds[:, [one, other]])
                against += np.exp(-np.clip(_rising_log_odds(z[:, 0], *pair), -500, 500))
            total += 1 / np.maximum(against, 1e-300)
        return total

    everything = np.ones(len(seconds))
    rest = [*of["bounce"], *of["engaged"]]
    idle = _share_of(odds(of["idle"], rest)) if of["idle"] and rest else everything * bool(of["idle"])
    reading = _share_of(odds(of["engaged"], of["bounce"])) if of["bounce"] and of["engaged"] else everything
    found: dict[Role, Floats] = {"bounce": (1 - idle) * (1 - reading), "engaged": (1 - idle) * reading, "idle": idle}
    return {role: np.where(known, value, fit.share(role)) for role, value in found.items()}


def fit_targets(fit: DwellFit, events: pl.DataFrame, prior: float) -> pl.DataFrame:
    """The mixture of each target: kind, target, events, users, weights, means and sds (lists of k), sorted.

    `events` has kind, target, user_id and seconds; the fit of all stands for `prior` events more.
    """
    keys = events.group_by("kind", "target").agg(pl.len().alias("events"), pl.col("user_id").n_unique().alias("users"))
    keys = keys.sort("kind", "target")
    places = keys.select("kind", "target").with_row_index("row")
    rows = events.join(places, on=("kind", "target"))
    bins, place = _coarse(rows["seconds"].to_numpy(), fit)
    counted = np.zeros((keys.height, len(bins.counts)))
    np.add.at(counted, (rows["row"].to_numpy()[place >= 0], place[place >= 0]), 1.0)
    parts = [
        _posterior(bins, counted[start : start + _TARGETS_AT_ONCE], fit, prior)
        for start in range(0, keys.height, _TARGETS_AT_ONCE)
    ]
    k = len(fit.roles)
    columns = {
        name: pl.Series(np.round(np.concatenate([part[n] for part in parts]), 6))
        .reshape((keys.height, k))
        .arr.to_list()
        if parts
        else pl.Series([], dtype=pl.List(pl.Float64))
        for n, name in enumerate(("weights", "means", "sds"))
    }
    return keys.with_columns(**columns)


def _posterior(bins: Durations, counted: Floats, fit: DwellFit, prior: float) -> Mixture:
    """Arrays (n_targets, k): steps of EM as though `prior` events of the global fit had been recorded too."""
    weights, means, sds = (np.tile(part, (len(counted), 1)) for part in fit.mixture)
    pseudo = prior * fit.mixture.weights
    lengths = np.diff(bins.starts, append=len(bins.nodes))
    z = bins.nodes[:, None]
    for _ in range(_TARGET_STEPS):
        density = np.exp(-0.5 * ((z - means[:, None, :]) / sds[:, None, :]) ** 2) / sds[:, None, :]
        joint = bins.shares[:, None] * density * weights[:, None, :]  # (n_targets, n_nodes, k)
        whole = np.add.reduceat(joint.sum(axis=2), bins.starts, axis=1)
        ratio = np.repeat(counted / np.maximum(whole, 1e-300), lengths, axis=1)
        taken = joint * ratio[:, :, None]
        out = mixtures.outside(bins.low, bins.high, Mixture(weights, means, sds))
        missing = weights * out.mass  # (2, n_targets, k): of each component, beyond the limits
        missing *= counted.sum(axis=1)[:, None] / np.maximum(1 - missing.sum(axis=(0, 2)), 1e-12)[:, None]
        number = taken.sum(axis=1) + missing.sum(axis=0) + pseudo
        means = ((taken * z).sum(axis=1) + (missing * out.mean).sum(axis=0) + pseudo * fit.mixture.means) / number
        spread = (taken * (z - means[:, None, :]) ** 2).sum(axis=1)
        spread += (missing * (out.variance + (out.mean - means) ** 2)).sum(axis=0)
        spread += pseudo * (fit.mixture.sds**2 + (fit.mixture.means - means) ** 2)
        sds = np.maximum(np.sqrt(spread / number), mixtures.SMALLEST_SD)
        weights = number / number.sum(axis=1, keepdims=True)
    return Mixture(weights, means, sds)


def _coarse(seconds: Floats, fit: DwellFit) -> tuple[Durations, Any]:
    """Bins for all targets together, and the bin of each event (n,); -1: none."""
    edges = np.array([low for low, _, _ in fit.histogram] + [fit.histogram[-1][1]])
    recorded = np.rint(seconds / fit.resolution) * fit.resolution
    place = np.searchsorted(edges, recorded, side="right") - 1
    place = np.where((place >= 0) & (place < len(edges) - 1), place, -1)
    nodes, shares, starts = mixtures.quadrature(np.log(edges[:-1]), np.log(edges[1:]), wide=4)
    counts = np.bincount(place[place >= 0], minlength=len(edges) - 1).astype(float)
    return Durations(counts, nodes, shares, starts, float(np.log(edges[0])), float(np.log(fit.high))), place


def _histogram(seconds: Floats, resolution: float, high: float) -> tuple[tuple[float, float, int], ...]:
    places = np.rint(seconds / resolution)
    places = places[places > 0]
    n = max(int(np.ceil(np.log(places.max()) * _HISTOGRAM)), 1)
    upto = np.unique(np.rint(np.exp(np.arange(0, n + 1) / _HISTOGRAM)))  # whole multiples, the last of each bin
    counts = np.bincount(np.searchsorted(upto, places), minlength=len(upto))
    ends = np.minimum((upto + 0.5) * resolution, high)
    begins = np.append(resolution / 2, ends[:-1])
    found = zip(begins.tolist(), ends.tolist(), counts.tolist(), strict=False)
    return tuple((low, end, n) for low, end, n in found if low < end)


def _with_roles(mixture: Mixture) -> tuple[Mixture, tuple[Role, ...]]:
    medians = np.exp(mixture.means)
    roles: list[Role] = ["engaged"] * len(medians)
    if len(medians) > 1 and medians[-1] > IDLE_MEDIAN:
        roles[-1] = "idle"
    for n, median in enumerate(medians):
        if median < BOUNCE_MEDIAN and "engaged" in roles[n + 1 :]:
            roles[n] = "bounce"
    return mixture, tuple(roles)


def _rising_log_odds(z: Floats, weights: Floats, means: Floats, sds: Floats) -> Floats:
    """log-odds of the first against the second of two components (n, 2) at z (n,), held beyond their turning point."""
    one, other = sds[:, 0] ** -2, sds[:, 1] ** -2
    curvature = other - one  # of the log-odds: above 0, the first is the wider
    with np.errstate(divide="ignore", invalid="ignore"):
        turn = (other * means[:, 1] - one * means[:, 0]) / curvature
    z = np.where(curvature > 0, np.maximum(z, turn), np.where(curvature < 0, np.minimum(z, turn), z))
    log = np.log(np.maximum(weights, 1e-300)) - np.log(sds) - 0.5 * ((z[:, None] - means) / sds) ** 2
    return np.asarray(log[:, 0] - log[:, 1])


def _share_of(odds: Floats) -> Floats:
    return odds / (1 + odds)


def _six(value: float) -> float:
    return float(f"{value:.6g}")
