"""How often intervals hold the truth, and how often the paired test raises a false alarm, on simulated users.

    python benchmarks/inference.py [--runs 5000] [--null-runs 20000]

Users' values are drawn from four populations whose means are known: hits and misses (2 % and 20 % of users have a
hit), NDCG (0 for 70 %, else Beta(1.5, 3)) and recall of one to three right answers. The second model of a pair has
another list for 30 % of the users, drawn from the same population, so the two are equal in truth. Prints Markdown.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable

import numpy as np

from persona_cli.evaluation.comparisons import holm, no_worse, paired_p, users_needed
from persona_cli.evaluation.intervals import difference_intervals, lift_intervals, mean_intervals

Draws = np.random.Generator
Values = np.ndarray


def hits(share: float) -> Callable[[Draws, tuple[int, int]], Values]:
    return lambda draws, shape: (draws.random(shape) < share).astype(float)


def ndcg(draws: Draws, shape: tuple[int, int]) -> Values:
    return np.where(draws.random(shape) < 0.3, draws.beta(1.5, 3.0, shape), 0.0)


def recall(draws: Draws, shape: tuple[int, int]) -> Values:
    wanted = draws.integers(1, 4, shape)
    return draws.binomial(wanted, 0.15) / wanted


POPULATIONS: dict[str, tuple[Callable[[Draws, tuple[int, int]], Values], float]] = {
    "hit rate 2 %": (hits(0.02), 0.02),
    "hit rate 20 %": (hits(0.2), 0.2),
    "NDCG, 70 % zeros": (ndcg, 0.3 * 1.5 / 4.5),
    "recall, 1 to 3 answers": (recall, 0.15),
}


def pair(
    draw: Callable[[Draws, tuple[int, int]], Values], draws: Draws, shape: tuple[int, int]
) -> tuple[Values, Values]:
    """Two models that are equal in truth: (n_users, runs) each."""
    first = draw(draws, shape)
    return first, np.where(draws.random(shape) < 0.3, draw(draws, shape), first)


def held(intervals: list, truth: float) -> tuple[float, int]:
    """Share of the stated intervals that hold the truth, and how many are stated."""
    stated = [one for one in intervals if one is not None and one.low is not None and one.high is not None]
    return sum(one.low - 1e-12 <= truth <= one.high + 1e-12 for one in stated) / max(len(stated), 1), len(stated)


def coverage(runs: int) -> None:
    print(
        f"Share of 95 % intervals that hold the truth, {runs:,} runs (standard error {math.sqrt(0.0475 / runs):.2%})\n"
    )
    print("| population | users | mean | paired difference | lift |\n|---|---|---|---|---|")
    for name, (draw, mean) in POPULATIONS.items():
        for n in (100, 1_000, 10_000):
            draws = np.random.default_rng(n)
            found = [[], [], []]
            block = max(1, min(runs, 4_000_000 // n))
            for start in range(0, runs, block):
                first, second = pair(draw, draws, (n, min(block, runs - start)))
                found[0] += mean_intervals(first)
                found[1] += difference_intervals(second, first)
                found[2] += lift_intervals(second, first)
            shares = [held(one, truth) for one, truth in zip(found, (mean, 0.0, 0.0), strict=True)]
            cells = [f"{share:.1%}" + ("" if n_ == runs else f" of {n_:,} stated") for share, n_ in shares]
            print(f"| {name} | {n:,} | {' | '.join(cells)} |", flush=True)


def false_alarms(runs: int) -> None:
    print(f"\nFalse alarms of the paired test at 5 %, {runs:,} runs (standard error {math.sqrt(0.0475 / runs):.2%})")
    print(
        'of five comparisons after Holm (a fifth of the runs), and of "no worse than 1 %" where the loss is just that\n'
    )
    print("| population | users | paired test | any of five, Holm | no worse |\n|---|---|---|---|---|")
    for name, (draw, _) in POPULATIONS.items():
        for n in (200, 1_000):
            draws = np.random.default_rng(n + 1)
            chances, wrongly = [], 0
            block = 2_000_000 // n
            for start in range(0, runs, block):
                first, second = pair(draw, draws, (n, min(block, runs - start)))
                chances += [paired_p(second[:, run], first[:, run]) for run in range(first.shape[1])]
                # Equal in truth but for a loss of exactly the margin.
                wrongly += sum(
                    no_worse(0.99 * second[:, run], first[:, run], 0.01, 0.05) for run in range(first.shape[1])
                )
            alarms = float(np.mean(np.asarray(chances) < 0.05))
            families = [min(holm(chances[start : start + 5])) < 0.05 for start in range(0, len(chances) - 4, 5)]
            print(f"| {name} | {n:,} | {alarms:.2%} | {np.mean(families):.2%} | {wrongly / runs:.2%} |", flush=True)


def power(runs: int) -> None:
    print(f"\nPower at the users that `users_needed` asks for (goal 80 %), {runs:,} runs\n")
    print("| population | true difference | users needed | found |\n|---|---|---|---|")
    for name, better in (("hit rate 20 %", 0.05), ("NDCG, 70 % zeros", 0.01), ("recall, 1 to 3 answers", 0.02)):
        draw, mean = POPULATIONS[name]
        draws = np.random.default_rng(7)

        def both(shape: tuple[int, int]) -> tuple[Values, Values]:
            first, second = pair(draw, draws, shape)  # noqa: B023
            return first, second * (1.0 + better / mean)  # noqa: B023

        first, second = both((200_000, 1))
        needed = users_needed(float((second - first).var(ddof=1)), better)
        assert needed is not None
        found = 0
        for _ in range(runs):
            first, second = both((needed, 1))
            found += paired_p(second[:, 0], first[:, 0]) < 0.05
        print(f"| {name} | {better} | {needed:,} | {found / runs:.1%} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5_000)
    parser.add_argument("--null-runs", type=int, default=20_000)
    given = parser.parse_args()
    began = time.monotonic()
    coverage(given.runs)
    false_alarms(given.null_runs)
    power(max(500, given.runs // 5))
    print(f"\n{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
