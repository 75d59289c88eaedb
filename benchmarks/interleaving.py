"""Interleaving: users needed beside an A/B test, false preferences, fairness, and lists merged a second.

    python benchmarks/interleaving.py size [--seeds 20] [--users 20000]
    python benchmarks/interleaving.py null [--runs 100000] [--sizes 100,222,336] [--pool 200000]
    python benchmarks/interleaving.py fair
    python benchmarks/interleaving.py speed [--lists 1000000]

The people who click: 10 sessions each; a session has 30 candidates of its own, of quality q ~ N(0, 1), and shows 10. An
item is clicked with chance 0.33 / (1 + exp(1 - 1.5 q)) times the person's factor, lognormal with sd 1 and mean 1; 70 %
leave after a click, 15 % after an item passed over. Ranker A sees q + shared noise (sd 0.8) + own noise (sd 0.1), B the
same with own noise of sd 0.71: they share 0.77 of their ten items, and A's lists get 3.9 % more clicks.

size   Users for 80 % power at 5 %, both arms together, in closed form: 2 z^2 (var A + var B) / difference^2 of clicks
       a user for the A/B test, z^2 E[d^2] / E[d]^2 of what the lists of a user say for interleaving; and how often
       runs of that size, on users that no other run has, find a preference, and the right one.
null   Two rankings that nobody prefers on average, though each person does: every user has one pair of rankings for
       all ten lists, of rankers that err alike, and which of the two is A is a fair coin. 200,000 users are made; a run
       draws some of them and tosses their coins. How often tests at 5 % find a preference, and how often the test
       does that takes the lists of one user for independent.
fair   What somebody who clicks at random prefers on the counter-example to balanced interleaving: exact.
speed  Lists of 10 merged and credited on one thread, beside a loop over lists in plain Python.
"""

from __future__ import annotations

import argparse
import itertools
import random
import time

import numpy as np
from scipy.special import ndtri

from persona_cli.experiments.clicks import CascadeModel, clicks_on, interleaved_trial
from persona_cli.experiments.interleaving import METHODS, interleave, outcomes
from persona_cli.experiments.merging import TEAM_A, TEAM_B, mixed
from persona_cli.experiments.preference import p_values, tally_users

SESSIONS, CANDIDATES, SHOWN = 10, 30, 10
SHARED, OWN_A, OWN_B, TOP = 0.8, 0.1, 0.71, 0.33
STOP, ABANDON, SPREAD = 0.7, 0.15, 1.0
Z2 = float(ndtri(0.975) + ndtri(0.8)) ** 2


def best(scores: np.ndarray) -> np.ndarray:
    """The SHOWN highest of each row, best first."""
    top = np.argpartition(-scores, SHOWN, axis=1)[:, :SHOWN]
    return np.take_along_axis(top, np.argsort(-np.take_along_axis(scores, top, 1), axis=1), 1)


def sessions(rng: np.random.Generator, n: int, own_b: float = OWN_B, own_a: float = OWN_A) -> tuple:
    """Chances of clicks (n, CANDIDATES) and the two rankings (n, SHOWN) of n sessions."""
    q, shared, a, b = (rng.standard_normal((n, CANDIDATES), dtype=np.float32) for _ in range(4))
    seen = q + SHARED * shared
    return TOP / (1 + np.exp(1 - 1.5 * q)), best(seen + own_a * a), best(seen + own_b * b)


def factors(rng: np.random.Generator, users: int) -> np.ndarray:
    return np.exp(SPREAD * rng.standard_normal(users) - SPREAD**2 / 2)


def keys(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.integers(0, 2**64, n, dtype=np.uint64)


def spread(values: list[float], digits: int = 1) -> str:
    low, middle, high = np.quantile(values, [0.05, 0.5, 0.95])
    return f"{middle:.{digits}f} ({low:.{digits}f} … {high:.{digits}f})"


def size(seeds: int, users: int) -> None:
    methods = ("team-draft", "competitive-pairs", "probabilistic")
    forms = [
        (method, form) for method in methods for form in ("wins", "clicks") if (method, form) != (methods[2], "clicks")
    ]
    overlap, lift, ab = [], [], []
    moments: dict[tuple[str, str], list[tuple[float, float]]] = {form: [] for form in forms}
    per_user: dict[tuple[str, str], list[np.ndarray]] = {form: [] for form in forms}
    arms = []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        chances, a, b = sessions(rng, users * SESSIONS)
        factor = np.repeat(factors(rng, users), SESSIONS)
        model = CascadeModel(chances, STOP, ABANDON)
        overlap.append((a[:, :, None] == b[:, None, :]).any(axis=2).mean())
        each = [
            clicks_on(model, ranking, keys(rng, len(a)), factor).sum(axis=1).reshape(users, SESSIONS).sum(axis=1)
            for ranking in (a, b)
        ]
        arms.append([each[0].mean(), each[1].mean(), each[0].var() + each[1].var()])
        for method in methods:
            merged, clicks = interleaved_trial(model, a, b, keys(rng, len(a)), method, SHOWN, factor)
            said = {"wins": outcomes(merged, clicks, method)}
            said["clicks"] = (clicks * np.where(merged.teams == TEAM_A, 1, -(merged.teams == TEAM_B).astype(int))).sum(
                1
            )
            for form in ("wins", "clicks"):
                if (method, form) in moments:
                    total = said[form].reshape(users, SESSIONS).sum(axis=1).astype(float)
                    moments[method, form].append((total.mean(), (total**2).mean()))
                    per_user[method, form].append(total)
        lift.append(arms[-1][0] / arms[-1][1] - 1)
        ab.append(2 * Z2 * arms[-1][2] / (arms[-1][0] - arms[-1][1]) ** 2)
        print(f"seed {seed}: lift {lift[-1]:.4f}, A/B {ab[-1]:,.0f}", flush=True)
    mean_a, mean_b, variance = np.mean(arms, axis=0)
    pooled = 2 * Z2 * variance / (mean_a - mean_b) ** 2
    # of the difference of two means over all seeds' users, twice relative in the number of users
    error = 2 * np.sqrt(variance / (users * seeds)) / (mean_a - mean_b)
    print(f"\noverlap {np.mean(overlap):.3f}, lift {mean_a / mean_b - 1:.4f}, clicks a session {mean_b / SESSIONS:.3f}")
    print(f"A/B users: {pooled:,.0f} ± {pooled * error:,.0f} over all seeds; by seed {spread(ab, 0)}")
    print(
        "\n| method, statistic | users | x fewer than A/B | by seed | power of such runs | right sign: of those that "
        "found one, of all |"
    )
    print("|---|---|---|---|---|---|")
    for form in forms:
        needed = Z2 * np.mean([m[1] for m in moments[form]]) / np.mean([m[0] for m in moments[form]]) ** 2
        seeds_needed = [Z2 * second / mean**2 for mean, second in moments[form]]
        n = int(np.ceil(needed))
        runs = np.concatenate([x[: len(x) // n * n].reshape(-1, n) for x in per_user[form]])
        found = p_values(tally_users(runs, np.ones_like(runs))) < 0.05
        right = runs.sum(axis=1) > 0
        power, se = found.mean(), np.sqrt(found.mean() * (1 - found.mean()) / len(runs))
        ratio, by_seed = pooled / needed, [x / y for x, y in zip(ab, seeds_needed, strict=True)]
        print(
            f"| {form[0]}, {form[1]} | {needed:,.0f} | **{ratio:.1f}** ± {ratio * error:.1f} | {spread(by_seed)} "
            f"| {100 * power:.1f} ± {100 * se:.1f} % of {len(runs):,} "
            f"| {right[found].sum():,} of {found.sum():,}; {100 * right.mean():.2f} % of {len(runs):,} |"
        )


def null(runs: int, sizes: list[int], pool: int) -> None:
    lists = SESSIONS
    print("| method | users a run | false preferences at 5 %, by user | by list |\n|---|---|---|---|")
    for method in METHODS:
        rng = np.random.default_rng(11)
        kinds, users = (300, pool // 10) if method == "optimised" else (20_000, pool)  # one linear program a pair
        chances, left, right = sessions(rng, kinds, 0.4, 0.4)
        said, seen, squares = [], [], []
        for _ in range(0, users, 10_000):
            pair = np.repeat(rng.integers(0, kinds, 10_000), lists)
            model = CascadeModel(chances[pair], STOP, ABANDON)
            factor = np.repeat(factors(rng, 10_000), lists)
            chance = keys(rng, len(pair))
            merged, clicks = interleaved_trial(model, left[pair], right[pair], chance, method, SHOWN, factor)
            outcome = outcomes(merged, clicks, method).reshape(-1, lists)
            said.append(outcome.sum(axis=1))
            squares.append((outcome**2).sum(axis=1))
            seen.append(clicks.any(axis=1).reshape(-1, lists).sum(axis=1))
        of_user, of_list, clicked = np.concatenate(said), np.concatenate(squares), np.concatenate(seen).astype(float)
        for size in sizes:
            false, naive = 0, 0
            for _ in range(0, runs, 1000):
                who = rng.integers(0, len(of_user), (1000, size))
                side = rng.integers(0, 2, who.shape) * 2 - 1
                sums = tally_users(of_user[who] * side, clicked[who])
                false += int((p_values(sums) < 0.05).sum())
                naive += int((p_values(sums._replace(outcome2=of_list[who].sum(axis=1))) < 0.05).sum())
            rate, beside = false / runs, naive / runs
            error = np.sqrt(rate * (1 - rate) / runs)
            print(f"| {method} | {size} | **{100 * rate:.2f}** ± {100 * error:.2f} | {100 * beside:.1f} |", flush=True)


def fair() -> None:
    n = 200_000
    chance = mixed(np.arange(n, dtype=np.uint64))
    a, b = np.tile([1, 2, 3, 4], (n, 1)), np.tile([2, 3, 4, 1], (n, 1))
    for method in METHODS:
        merged = interleave(a, b, chance, method)
        said = np.zeros(n)
        for clicks in itertools.product([0, 1], repeat=4):
            if any(clicks):
                said += outcomes(merged, np.tile(clicks, (n, 1)), method) / 15
        print(f"| {method} | {said.mean() / 2:+.4f} ± {said.std() / 2 / np.sqrt(n):.4f} |")


def plain(a: list[int], b: list[int], clicked: list[bool], coin: random.Random, length: int) -> int:
    """Team draft and its credit in a loop."""
    items: list[int] = []
    teams: list[int] = []
    taken: set[int] = set()
    first, at = 0, [0, 0]
    sides = (a, b)
    while len(items) < length:
        first = coin.getrandbits(1)
        for team in (first, 1 - first):
            side = sides[team]
            while at[team] < len(side) and side[at[team]] in taken:
                at[team] += 1
            if at[team] < len(side) and len(items) < length:
                items.append(side[at[team]])
                taken.add(side[at[team]])
                teams.append(team)
    lead = sum(1 - 2 * team for team, click in zip(teams, clicked, strict=True) if click)
    return (lead > 0) - (lead < 0)


def speed(lists: int) -> None:
    rng = np.random.default_rng(0)
    _, a, b = sessions(rng, 100_000)
    times = -(-lists // len(a))
    a, b = (np.tile(own.astype(np.int32), (times, 1))[:lists] for own in (a, b))
    clicks = rng.random(a.shape) < 0.1
    chance = keys(rng, lists)
    few = min(lists, 100_000)
    coin = random.Random(0)
    rows = list(zip(a[:few].tolist(), b[:few].tolist(), clicks[:few].tolist(), strict=True))
    started = time.process_time()
    for row in rows:
        plain(*row, coin, SHOWN)
    loop = few / (time.process_time() - started)
    print(f"| team draft, a loop in Python | {loop:,.0f} | 1 |")
    for method in METHODS:
        n = 2000 if method == "optimised" else lists
        best_time = np.inf
        for _ in range(1 if method == "optimised" else 3):
            started = time.process_time()
            outcomes(interleave(a[:n], b[:n], chance[:n], method, SHOWN), clicks[:n], method)
            best_time = min(best_time, time.process_time() - started)
        print(f"| {method} | {n / best_time:,.0f} | {n / best_time / loop:.1f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    sizes = commands.add_parser("size")
    sizes.add_argument("--seeds", type=int, default=20)
    sizes.add_argument("--users", type=int, default=20_000)
    nulls = commands.add_parser("null")
    nulls.add_argument("--runs", type=int, default=100_000)
    nulls.add_argument("--sizes", default="100,222,336", help="users a run")
    nulls.add_argument("--pool", type=int, default=200_000, help="users made")
    commands.add_parser("fair")
    speeds = commands.add_parser("speed")
    speeds.add_argument("--lists", type=int, default=1_000_000)
    asked = parser.parse_args()
    if asked.command == "size":
        size(asked.seeds, asked.users)
    elif asked.command == "null":
        null(asked.runs, [int(size) for size in asked.sizes.split(",")], asked.pool)
    elif asked.command == "fair":
        fair()
    else:
        speed(asked.lists)


if __name__ == "__main__":
    main()
