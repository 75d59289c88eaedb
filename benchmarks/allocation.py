"""Bandit allocation: regret, and the coverage of intervals afterwards: python benchmarks/allocation.py

Regret: 10 variants (.1, 3 x .05, 3 x .02, 3 x .01), one person at a time, T people, many runs at once.
Coverage: Thompson shares by batch with a floor, on variants that are alike (where means mislead most) and that differ;
the share of runs whose 95 % interval holds the truth, by the plain mean and by doubly robust scores.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from persona_cli.experiments.allocation import Arms, adaptive_mean, shares, ucb1

RATES = np.array([0.1] + [0.05] * 3 + [0.02] * 3 + [0.01] * 3)


def regret(policy: str, people: int, runs: int, seed: int, discount: float = 1.0) -> np.ndarray:
    """Expected reward lost against the best variant (runs,)."""
    rng = np.random.default_rng(seed)
    k, every = len(RATES), np.arange(runs)
    n, won = np.zeros((runs, k)), np.zeros((runs, k))
    lost = np.zeros(runs)
    for _ in range(people):
        if policy == "thompson":
            chosen = np.argmax(rng.beta(1 + won, 1 + n - won), axis=1)
        elif policy == "ucb1":
            chosen = np.argmax(ucb1(Arms(n, won, won)), axis=1)
        else:
            chosen = rng.integers(0, k, runs)
        if discount < 1:
            n, won = n * discount, won * discount
        n[every, chosen] += 1
        won[every, chosen] += rng.random(runs) < RATES[chosen]
        lost += RATES[0] - RATES[chosen]
    return lost


def coverage(rates: np.ndarray, batches: int, size: int, runs: int, floor: float, seed: int) -> tuple[np.ndarray, ...]:
    """Whether intervals of plain means and of doubly robust scores hold the truth (2, runs, k); the errors of both."""
    rng = np.random.default_rng(seed)
    k = len(rates)
    arms = Arms(*(np.zeros((runs, k)) for _ in range(3)))
    history = []
    for _ in range(batches):
        share = shares(arms, floor=floor)
        n = rng.multinomial(size, share).astype(float)
        won = rng.binomial(n.astype(int), rates).astype(float)
        history.append((n, won, share))
        arms = arms.plus(Arms(n, won, won))
    n, won, share = (np.stack(part, axis=-1) for part in zip(*history, strict=True))
    mean = arms.total / np.maximum(arms.n, 1)
    se = np.sqrt(np.maximum(mean * (1 - mean), 1e-12) / np.maximum(arms.n, 1))
    plain = np.abs(mean - rates) <= 1.96 * se
    found = adaptive_mean(n, won, won, share, np.full(share.shape, float(size)))
    return np.stack([plain, (found.low <= rates) & (rates <= found.high)]), mean - rates, found.value - rates


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--people", type=int, default=20_000)
    parser.add_argument("--worlds", type=int, default=4_000)
    options = parser.parse_args()
    print(f"{len(RATES)} variants, {options.people:,} people, {options.runs} runs")
    print("| policy | regret | standard error | seconds |\n|---|---|---|---|")
    for policy in ("thompson", "ucb1", "equal shares"):
        began = time.perf_counter()
        lost = regret(policy, options.people, options.runs, 17)
        error = lost.std(ddof=1) / np.sqrt(options.runs)
        print(f"| {policy} | {lost.mean():.1f} | {error:.1f} | {time.perf_counter() - began:.0f} |", flush=True)
    worlds = {
        "alike: .1, .1, .1": np.array([0.1, 0.1, 0.1]),
        "near: .1, .11, .12": np.array([0.1, 0.11, 0.12]),
        "apart: .05, .1, .2": np.array([0.05, 0.1, 0.2]),
    }
    print(f"\n{options.worlds:,} runs of 50 batches of 200 people, floor 5 %")
    print("| variants | interval | coverage by variant | bias by variant |\n|---|---|---|---|")
    for name, rates in worlds.items():
        inside, plain, adaptive = coverage(rates, 50, 200, options.worlds, 0.05, 23)
        for label, held, off in zip(("plain mean", "doubly robust scores"), inside, (plain, adaptive), strict=True):
            held_by = ", ".join(f"{share:.3f}" for share in held.mean(axis=0))
            print(f"| {name} | {label} | {held_by} | {', '.join(f'{x:+.5f}' for x in off.mean(axis=0))} |", flush=True)
    print(f"Monte-Carlo error of a coverage: ± {np.sqrt(0.05 * 0.95 / options.worlds):.4f}")


if __name__ == "__main__":
    main()
