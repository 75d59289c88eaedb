"""Experiments played many times on people made from the workspace, before anybody real is asked.

    aa          both arms get A's lists: how often a difference is found that is not there, and what could be found
    ab          A against B: power, users and days needed
    interleave  both merged into one list: the same, beside an A/B test of the same people
    bandit      people come in batches, and shares follow what was earned: regret, and what can still be concluded

Differences are B less A; above 0 is better for B. Everything is over all runs at once: leading axes are runs and looks.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from persona_cli.evaluation.intervals import wilson
from persona_cli.experiments import allocation, inference, power, preference
from persona_cli.experiments.behaviour import Behaviour
from persona_cli.experiments.inference import Estimate, Moments
from persona_cli.experiments.merging import Floats, uniforms
from persona_cli.experiments.playing import (
    ARM,
    LEAST_USERS,
    METRICS,
    Advance,
    Plan,
    Truth,
    World,
    joined,
    played,
    sums_upto,
)
from persona_cli.experiments.sequential import open_ended

BATCHES = 20
"""Of a bandit: so often shares are made anew."""
_BARS = 30


@dataclass(frozen=True)
class Simulated:
    """What a simulation came to."""

    document: dict[str, Any]
    """For JSON and for pages."""
    rows: dict[str, NDArray[Any]]
    """One row a run."""


def simulate(behaviour: Behaviour, plan: Plan, advance: Advance = lambda amount: None) -> Simulated:
    """Play `plan` on people as `behaviour` has them; `advance` is told of people done. UsageError as `Plan.checked`."""
    plan.checked()
    world = World(behaviour, behaviour.spread.factors())
    play = {"aa": _tests, "ab": _tests, "interleave": _interleavings, "bandit": _bandits}[plan.kind]
    document, rows = play(world, plan, advance)
    return Simulated({**_stated(behaviour, plan), **document}, {"run": np.arange(1, plan.runs + 1), **rows})


def _estimates(control: Moments, treatment: Moments, plan: Plan) -> Estimate:
    kinds = {"clicks": inference.mean, "clicked": inference.proportion, "ctr": inference.ratio}
    return kinds[plan.metric](control, treatment, plan.alpha)


def _tests(world: World, plan: Plan, advance: Advance) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """A/A and A/B tests: arms by a coin a person."""
    ends, truth = plan.sizes(), Truth(plan)
    arms: tuple[list[Moments], list[Moments]] = ([], [])
    for keys, acted in played(world, plan, advance):
        treated = uniforms(keys, ARM) < 0.5
        truth.add(acted)
        arms[0].append(sums_upto(acted[:, :, 0:2], ~treated, ends))
        arms[1].append(sums_upto(acted[:, :, 2:4], treated, ends))
    with np.errstate(all="ignore"):
        found = _estimates(joined(arms[0]), joined(arms[1]), plan)
    true = truth.done()
    last = {name: value[:, -1] for name, value in found._asdict().items()}
    p = np.where(np.isnan(found.p), 1.0, found.p)
    document = {
        "truth": true,
        "estimate": _spread_of(last["difference"], last["low"], last["high"], true["difference"]),
        "lift": _quantiles(last["relative"]),
        "curve": _curve(ends, p, plan),
        "found": _share(p[:, -1] < plan.alpha),
        "distribution": _bars(last["difference"]),
        "needed": None,
    }
    columns = (
        "difference",
        "low",
        "high",
        "relative",
        "relative_low",
        "relative_high",
        "p",
        "n_control",
        "n_treatment",
    )
    rows = {name: last[name] for name in columns}
    half = plan.users / 2
    smallest = float(
        power.detectable((true["variance_a"] + true["variance_b"]) / 2, half, half, plan.alpha, plan.power)
    )
    document["detectable"] = {"difference": smallest, "lift": smallest / true["a"] if true["a"] else None}
    if plan.kind == "aa":
        always = open_ended(found.difference, found.se, ends.astype(float), plan.users, plan.alpha).p
        document["peeking"] = {
            "looks": len(ends),
            "fixed": _share((p < plan.alpha).any(axis=1)),
            "always_valid": _share((always < plan.alpha).any(axis=1)),
        }
        return document, rows
    document["needed"] = needed = _needed_test(world, plan, true)
    document["planned"] = _formula(plan, true, needed)
    document["sign"] = _signs(last["difference"], p[:, -1], true["difference"], plan)
    return document, rows


def _interleavings(world: World, plan: Plan, advance: Advance) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    ends, truth = plan.sizes(), Truth(plan)
    starts = np.concatenate(([0], ends[:-1]))
    tallies = []
    said_sum = said_square = lists = 0.0
    for _, acted in played(world, plan, advance):
        truth.add(acted)
        said, seen = acted[:, :, 4], acted[:, :, 5]
        parts = ((seen > 0).astype(np.float64), seen, said, said * said, said * seen, seen * seen)
        tallies.append([np.add.reduceat(part, starts, axis=1).cumsum(axis=1) for part in parts])
        said_sum, said_square = said_sum + float(said.sum()), said_square + float((said * said).sum())
        lists += float(seen.sum())
    sums = preference.Tally(*(np.concatenate(part) for part in zip(*tallies, strict=True)))
    p = preference.p_values(sums)
    final = preference.Tally(*(part[:, -1] for part in sums))
    value = final.outcome / np.maximum(final.lists, 1) / 2
    low, high = preference.interval(final, float(special.ndtri(1 - plan.alpha / 2)) ** 2)
    n, true = plan.users * plan.runs, truth.done()
    mean, square = said_sum / n, said_square / n
    error = float(np.sqrt(max(square - mean**2, 0.0) / n))
    whole = said_sum / lists / 2 if lists else 0.0
    test = _needed_test(world, plan, true)
    needed: dict[str, Any] | None = None
    if abs(mean) > 2 * error:
        users = float(power.size(square, mean, plan.alpha, plan.power, 0.0))
        needed = {"users": int(np.ceil(users)), "days": world.behaviour.people.days_for(users)}
    beside: dict[str, Any] = {"needed": test, "ratio": None}
    if needed and test:
        # both sizes go with 1 / mean^2
        relative = 2 * float(np.hypot(error / mean, true["error"] / true["difference"]))
        ratio = test["users"] / needed["users"]
        beside |= {"ratio": ratio, "low": ratio * np.exp(-1.96 * relative), "high": ratio * np.exp(1.96 * relative)}
    document = {
        "truth": {**true, "preference": whole, "preference_error": error * n / lists / 2 if lists else None},
        "estimate": _spread_of(value, low, high, whole),
        "curve": _curve(ends, p, plan),
        "found": _share(p[:, -1] < plan.alpha),
        "distribution": _bars(value),
        "needed": needed,
        "ab": beside,
        "sign": _signs(value, p[:, -1], whole, plan),
    }
    rows = {"preference": value, "low": low, "high": high, "p": p[:, -1], "users_clicking": final.users}
    return document, rows | {"clicked_lists": final.lists}


def _bandits(world: World, plan: Plan, advance: Advance) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Batches of people; shares of the next follow from all that the ones before have earned."""
    truth = Truth(plan)
    edges = np.linspace(0, plan.users, min(BATCHES, plan.users) + 1).astype(np.int64)
    kind: allocation.Kind = "binary" if plan.metric == "clicked" else "number"
    logs = []
    for keys, acted in played(world, plan, advance):
        truth.add(acted)
        arm, rewards = uniforms(keys, ARM), acted[:, :, [0, 2]]
        arms = allocation.Arms(*(np.zeros((len(keys), 2)) for _ in range(3)))
        taken: list[NDArray[np.float64]] = []
        for start, stop in itertools.pairwise(edges):
            shares = np.full((len(keys), 2), 0.5)
            if taken:
                shares = allocation.shares(arms, plan.policy, kind, floor=plan.floor)
            by_b = arm[:, start:stop] < shares[:, 1:]
            served = np.stack([~by_b, by_b], axis=2)  # (c, batch, 2)
            earned = rewards[:, start:stop] * served
            batch = allocation.Arms(
                served.sum(axis=1).astype(np.float64), earned.sum(axis=1), (earned * earned).sum(axis=1)
            )
            arms = arms.plus(batch)
            taken.append(np.stack([*batch, shares]))  # (4, c, 2)
        logs.append(np.stack(taken, axis=-1))  # (4, c, 2, n_batches)
    n, total, square, share = np.concatenate(logs, axis=1)  # each (runs, 2, n_batches)
    true = truth.done()
    gap, better = abs(true["difference"]), int(true["difference"] > 0)
    worse = n[:, 1 - better]  # people who did not get the better one (runs, n_batches)
    sizes = np.diff(edges).astype(np.float64)
    means = [allocation.adaptive_mean(n[:, one], total[:, one], square[:, one], share[:, one], sizes) for one in (0, 1)]
    apart = allocation.adaptive_difference(means[1], means[0])
    times = float(special.ndtri(1 - plan.alpha / 2))
    low, high = apart.value - times * apart.se, apart.value + times * apart.se
    count, summed = n.sum(axis=-1), total.sum(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        plain = summed / count
        se = np.sqrt(np.maximum(square.sum(axis=-1) - count * plain**2, 0.0) / (count - 1) / count)
    naive, naive_se = plain[:, 1] - plain[:, 0], np.hypot(se[:, 0], se[:, 1])
    regret = gap * worse.cumsum(axis=-1)
    told = (low > 0) | (high < 0)
    document = {
        "truth": true,
        "estimate": _spread_of(apart.value, low, high, true["difference"]),
        "naive": _spread_of(naive, naive - times * naive_se, naive + times * naive_se, true["difference"]),
        "found": _share(told),
        "regret": {
            **_quantiles(regret[:, -1]),
            "equal_split": gap * plan.users / 2,
            "share_of_equal": float(worse.sum() / (plan.users * plan.runs / 2)),
            "unit": METRICS[plan.metric],
        },
        "batches": [
            {"users": int(stop), "regret": float(regret[:, at].mean()), "equal": gap * float(stop) / 2}
            | {"share_b": float(share[:, 1, at].mean())}
            for at, stop in enumerate(edges[1:])
        ],
        "distribution": _bars(apart.value),
        "needed": _needed_test(world, plan, true),
        "sign": _signs(apart.value, np.where(told, 0.0, 1.0), true["difference"], plan),
    }
    rows = {"regret": regret[:, -1], "users_b": count[:, 1], "share_b": share[:, 1, -1], "difference": apart.value}
    return document, rows | {"low": low, "high": high, "naive": naive}


def _needed_test(world: World, plan: Plan, true: dict[str, Any]) -> dict[str, Any] | None:
    """Users of both arms, and days, for an A/B test of the asked power; None where no difference is told from 0."""
    if not abs(true["difference"]) > 2 * true["error"]:
        return None
    arm = power.size(true["variance_a"], true["difference"], plan.alpha, plan.power, true["variance_b"])
    users = 2 * int(np.ceil(float(arm)))
    return {"users": users, "days": world.behaviour.people.days_for(users)}


def _formula(plan: Plan, true: dict[str, Any], needed: dict[str, Any] | None) -> list[dict[str, float]]:
    """Power by the closed form, from a tenth of the users simulated to twice those needed."""
    top = max(plan.users, 2 * needed["users"] if needed else 0)
    users = np.unique(np.geomspace(max(LEAST_USERS, plan.users / 10), top, 25).round())
    variance = (true["variance_a"] + true["variance_b"]) / 2
    chances = power.power_of(variance, true["difference"], users / 2, users / 2, plan.alpha)
    return [{"users": float(n), "power": float(chance)} for n, chance in zip(users, chances, strict=True)]


def _curve(ends: NDArray[np.int64], p: Floats, plan: Plan) -> list[dict[str, float]]:
    """The share of runs that find something with the first so many users, by its 95 % interval."""
    return [{"users": int(n), **_share(p[:, at] < plan.alpha)} for at, n in enumerate(ends)]


def _share(said: NDArray[np.bool_] | np.bool_) -> dict[str, float]:
    """A share of runs with its Monte-Carlo interval (Wilson, 95 %)."""
    value = float(said.mean())
    low, high = wilson(said.sum(), said.size)
    return {"value": value, "low": float(low), "high": float(high)}


def _signs(value: Floats, p: Floats, truth: float, plan: Plan) -> dict[str, Any]:
    """Of the runs that found something, how many found it on the right side; None where there is none."""
    told = p < plan.alpha
    right = int((np.sign(value[told]) == np.sign(truth)).sum())
    return {"told": int(told.sum()), "right": right if truth else None}


def _spread_of(value: Floats, low: Floats, high: Floats, truth: float) -> dict[str, Any]:
    """The estimate over runs, and how often its interval holds the truth."""
    return {**_quantiles(value), "truth": truth, "coverage": _share((low <= truth) & (truth <= high))}


def _quantiles(value: Floats) -> dict[str, Any]:
    known = value[np.isfinite(value)]
    if not len(known):
        return dict.fromkeys(("mean", "sd", "q05", "median", "q95"))
    q05, median, q95 = np.quantile(known, [0.05, 0.5, 0.95])
    sd = float(known.std(ddof=1)) if len(known) > 1 else None
    return {"mean": float(known.mean()), "sd": sd, "q05": float(q05), "median": float(median), "q95": float(q95)}


def _bars(value: Floats) -> list[dict[str, float]]:
    """Runs by estimate: equal steps from the least to the largest."""
    known = value[np.isfinite(value)]
    if not len(known) or known.min() == known.max():
        return []
    counts, edges = np.histogram(known, min(_BARS, max(5, int(len(known) ** 0.5))))
    return [
        {"low": float(low), "high": float(high), "runs": int(count)}
        for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True)
    ]


def _stated(behaviour: Behaviour, plan: Plan) -> dict[str, Any]:
    """What was asked, and what it rests on."""
    people, clicking, spread = behaviour.people, behaviour.clicking, behaviour.spread
    shares = people.relevant_share()
    told = {"stop": clicking.stop, "abandon": clicking.abandon}
    if clicking.model == "position":
        told = {"examination": clicking.examination.tolist()}
    asked: dict[str, Any] = {"interleave": {"method": plan.method}}.get(plan.kind, {})
    if plan.kind == "bandit":
        asked = {"policy": plan.policy, "floor": plan.floor}
    return {
        "kind": plan.kind,
        "a": people.labels[0],
        "b": people.labels[1],
        "users": plan.users,
        "runs": plan.runs,
        "seed": plan.seed,
        "metric": plan.metric,
        "alpha": plan.alpha,
        "power": plan.power,
        **asked,
        "headline": people.headline,
        "people": {
            "users": len(people.a),
            "lists": people.a.shape[1],
            "overlap": people.overlap(),
            "relevant_a": shares[0],
            "relevant_b": shares[1],
            "days": people.days,
            "visits": float(people.visits.mean()),
        },
        "clicks": {"model": clicking.model, "fitted_on": clicking.lists, "relevant": clicking.relevant}
        | {"base": clicking.base, "told": clicking.told, **told},
        "spread": {"law": spread.law, "size": spread.size, "people": spread.people, "from": spread.source},
        "notes": list(behaviour.notes),
    }
