"""People made from the workspace, and what they do under two models: the part of a simulation that takes the time.

A simulated person is one of `behaviour.People`, drawn with replacement, with visits, a factor of readiness and a chance
of its own. What they would do under A and under B is both known, with the same chance at each place, so that the truth
is known too; an experiment sees one of them. Lists stay as they were at the cut, whatever was clicked.

Chance is counted from (seed, run, person, visit), never drawn from a stream: blocks and threads change nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from persona_cli.errors import UsageError, nearest
from persona_cli.experiments import inference
from persona_cli.experiments.allocation import Policy
from persona_cli.experiments.behaviour import Behaviour
from persona_cli.experiments.clicks import CascadeModel, PositionModel, clicks_on, interleaved_trial
from persona_cli.experiments.inference import Moments
from persona_cli.experiments.interleaving import outcomes
from persona_cli.experiments.merging import Floats, uniforms
from persona_cli.models.topk import in_order
from persona_cli.profiles.draws import STEP, Keys, mixed

Kind = Literal["aa", "ab", "interleave", "bandit"]
KINDS: tuple[Kind, ...] = ("aa", "ab", "interleave", "bandit")
METRICS = {
    "clicks": "clicks a user",
    "clicked": "share of users who click",
    "ctr": "clicks an item shown (ratio of sums)",
}
LOOKS = 10
LEAST_USERS = 20
_AT_ONCE = 2_000_000  # people held at once, whole runs of them
_LISTS = 50_000  # lists worked on at once
_DRAWN, _FACTOR, ARM = range(3)  # the random numbers of a person

Advance = Callable[[float], None]


@dataclass(frozen=True)
class Plan:
    """What is simulated."""

    kind: Kind
    users: int = 2000
    """People in a run, both arms together."""
    runs: int = 1000
    seed: int = 0
    metric: str = "clicks"
    alpha: float = 0.05
    power: float = 0.8
    method: str = "team-draft"
    """How lists are interleaved."""
    policy: Policy = "thompson"
    floor: float = 0.05
    """Of a bandit: the least share of an arm."""
    threads: int = 1

    def checked(self) -> None:
        """Raise UsageError for what cannot be simulated."""
        if self.kind not in KINDS:
            raise UsageError(f"no simulation {self.kind!r}{nearest(self.kind, KINDS)}")
        if self.metric not in METRICS:
            raise UsageError(f"no metric {self.metric!r} of simulated clicks{nearest(self.metric, METRICS)}")
        if self.users < LEAST_USERS:
            raise UsageError(f"{self.users} users a run; expected at least {LEAST_USERS}")
        if self.runs < 1:
            raise UsageError(f"{self.runs} runs; expected 1 or more")
        if not 0 < self.alpha < self.power < 1:
            raise UsageError(f"alpha is {self.alpha:g} and power {self.power:g}; expected 0 < alpha < power < 1")
        if self.kind == "bandit" and self.metric == "ctr":
            raise UsageError("a bandit is paid by user; --metric ctr is by item shown", "--metric clicks or clicked")
        if self.kind == "bandit" and self.policy == "ucb1" and self.metric != "clicked":
            raise UsageError("ucb1 needs rewards from 0 to 1", "--metric clicked")
        if not 0 < self.floor <= 0.5:
            raise UsageError(f"a floor of {self.floor:g} for each of two arms; expected more than 0 and at most 0.5")

    def sizes(self) -> NDArray[np.int64]:
        """Users at each look, the last at all of them (n_looks,)."""
        looks = np.ceil(self.users * np.arange(1, LOOKS + 1) / LOOKS - 1e-9).astype(np.int64)
        return np.unique(looks[looks >= min(LEAST_USERS, self.users)])


@dataclass(frozen=True)
class World:
    """Behaviour made ready to be drawn from."""

    behaviour: Behaviour
    factors: Floats

    def act(self, keys: Keys, plan: Plan) -> Floats:
        """What people (n,) do: columns clicks and items shown under A, the same under B and, interleaved, what their
        lists say for B and how many were clicked: (n, 4) or (n, 6)."""
        people = self.behaviour.people
        row = np.minimum((uniforms(keys, _DRAWN) * len(people.a)).astype(np.int64), len(people.a) - 1)
        drawn = (uniforms(keys, _FACTOR) * len(self.factors)).astype(np.int64)
        visits = people.visits[row]
        who = np.repeat(np.arange(len(keys)), visits)
        visit = np.arange(len(who)) - np.repeat(np.cumsum(visits) - visits, visits)
        lists = mixed(mixed(keys[who]) + (visit.astype(np.uint64) + np.uint64(1)) * STEP)
        found = np.zeros((len(keys), 6 if plan.kind == "interleave" else 4))
        for start in range(0, len(who), _LISTS):
            part = slice(start, start + _LISTS)
            at, key = row[who[part]], lists[part]
            model = self.behaviour.clicking.of(people.relevant[at])
            factor = self.factors[drawn[who[part]]]
            counted = functools.partial(np.bincount, who[part], minlength=len(keys))
            for side, shown in enumerate((people.a, people.b)):
                if side and plan.kind == "aa":
                    break
                clicks = clicks_on(model, shown[at], key, factor).sum(axis=1)
                found[:, 2 * side] += counted(weights=clicks)
                found[:, 2 * side + 1] += counted(weights=(shown[at] >= 0).sum(axis=1))
            if plan.kind == "interleave":
                said, seen = _interleaved(model, people.a[at], people.b[at], key, plan.method, factor)
                found[:, 4] -= counted(weights=said)
                found[:, 5] += counted(weights=seen)
        if plan.kind == "aa":
            found[:, 2:4] = found[:, :2]
        if plan.metric == "clicked":
            found[:, [0, 2]] = found[:, [0, 2]] > 0
        return found


def _interleaved(
    model: PositionModel | CascadeModel, a: Any, b: Any, keys: Keys, method: str, factor: Floats
) -> tuple[Floats, NDArray[np.bool_]]:
    """What merged lists (n,) say for A, and whether they were clicked."""
    length = max(a.shape[1], b.shape[1])
    merged, clicks = interleaved_trial(model, a, b, mixed(keys ^ STEP), method, length, factor)
    return outcomes(merged, clicks, method), np.any(clicks & (merged.items >= 0), axis=1)


def played(world: World, plan: Plan, advance: Advance) -> Iterator[tuple[Keys, Floats]]:
    """Keys (c, users) and what they do (c, users, columns) of chunks of whole runs."""
    seed = mixed(np.array([plan.seed % 2**64], dtype=np.uint64) + STEP)
    at_once = max(1, _AT_ONCE // plan.users)
    block = max(1, int(_LISTS / world.behaviour.people.visits.mean()))

    def keys(start: int, stop: int) -> Keys:
        return mixed(mixed(seed + np.arange(start, stop).astype(np.uint64) * STEP))

    for first in range(0, plan.runs, at_once):
        begin, end = first * plan.users, min(first + at_once, plan.runs) * plan.users
        parts = []
        starts = range(begin, end, block)
        for part in in_order(lambda s, e: world.act(keys(s, e), plan), starts, block, end, plan.threads):
            parts.append(part)
            advance(len(part))
        acted = np.concatenate(parts)
        yield keys(begin, end).reshape(-1, plan.users), acted.reshape(-1, plan.users, acted.shape[1])


def sums_upto(values: Floats, inside: NDArray[np.bool_], ends: NDArray[np.int64]) -> Moments:
    """Moments (c, n_looks) of those inside (c, users) among the first `ends` people of values (c, users, columns)."""
    columns = values.shape[2]
    starts = np.concatenate(([0], ends[:-1]))

    def upto(what: Floats) -> Floats:
        return np.asarray(np.add.reduceat(what, starts, axis=1).cumsum(axis=1))

    kept = values * inside[:, :, None]
    products = np.empty((len(values), len(ends), columns, columns))
    for i in range(columns):
        for j in range(i, columns):
            products[:, :, i, j] = products[:, :, j, i] = upto(kept[:, :, i] * kept[:, :, j])
    return inference.of_sums(upto(inside.astype(np.float64)), upto(kept), products)


def joined(parts: list[Moments]) -> Moments:
    return Moments(*(np.concatenate(fields) for fields in zip(*parts, strict=True)))


class Truth:
    """What all people would do under A and under B: the means, and the variance that a person brings to each arm."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.n = plan, 0
        self.total, self.product = np.zeros(4), np.zeros((4, 4))

    def add(self, acted: Floats) -> None:
        flat = acted[:, :, :4].reshape(-1, 4)
        self.n += len(flat)
        self.total += flat.sum(axis=0)
        for i in range(4):
            for j in range(4):
                self.product[i, j] += (flat[:, i] * flat[:, j]).sum()

    def done(self) -> dict[str, Any]:
        moments = inference.of_sums(self.n, self.total, self.product)
        kind = "ratio" if self.plan.metric == "ctr" else "mean"
        covariance = moments.covariance()
        values, gradients, variances = [], [], []
        for side in (0, 2):
            own = moments.columns(side, side + 1)
            value, gradient = inference.linear(own, own, kind)
            slope = np.zeros(4)
            slope[side : side + len(gradient)] = gradient
            values.append(float(value))
            gradients.append(slope)
            variances.append(float(inference.quadratic(slope, covariance, slope)))
        apart = gradients[1] - gradients[0]
        paired = float(inference.quadratic(apart, covariance, apart))
        difference = values[1] - values[0]
        return {
            "a": values[0],
            "b": values[1],
            "difference": difference,
            "error": float(np.sqrt(max(paired, 0.0) / self.n)),
            "lift": difference / values[0] if values[0] else None,
            "variance_a": variances[0],
            "variance_b": variances[1],
            "people": self.n,
        }
