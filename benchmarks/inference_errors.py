"""How often the tests and intervals of experiments are wrong: python benchmarks/inference_errors.py

Type I     `--runs` A/A experiments of each kind of metric; alpha 5 %, two-sided. Users are drawn one by one, or by the
           exact law of their sums where that is known (binomial, multinomial, order statistics by gamma spacings),
           which is the same.
Coverage   of the 95 % intervals of the difference and the relative lift, the treatment scaled by 1.2; also where
           values are lognormal with sd 2, as they are or cut at a value fixed beforehand.
Peeking    `--paths` A/A experiments of 100,000 users each, half an arm in random order, looked at after every user (the
           intervals are everything before the 100th): false alarms by the end, for normal and Bernoulli (10 %) values.

A figure is a percentage with its Monte-Carlo standard error.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from persona_cli.experiments import inference, quantiles, sequential
from persona_cli.experiments.inference import Estimate, Moments

Floats = NDArray[np.float64]
LIFT = 0.2
BLOCK = 250


def moments(columns: list[np.ndarray]) -> Moments:
    """Moments along the last axis of k arrays (runs, users)."""
    n = float(columns[0].shape[-1])
    centre = [column.mean(axis=-1, dtype=np.float64) for column in columns]
    apart = [column - middle[:, None].astype(column.dtype) for column, middle in zip(columns, centre, strict=True)]
    cross = [[np.einsum("ij,ij->i", a, b).astype(np.float64) for b in apart] for a in apart]
    return Moments(np.full(len(centre[0]), n), np.stack(centre, axis=-1), np.moveaxis(np.array(cross), -1, 0))


def scaled(m: Moments, factor: float, columns: int = 1) -> Moments:
    """The first columns multiplied: an effect in proportion."""
    by = np.ones(m.mean.shape[-1])
    by[:columns] = factor
    return Moments(m.n, m.mean * by, m.cross * by[:, None] * by[None, :])


def blocks(runs: int, draw: Callable[[int], list[np.ndarray]]) -> Moments:
    found = [moments(draw(min(BLOCK, runs - start))) for start in range(0, runs, BLOCK)]
    return Moments(*(np.concatenate(part) for part in zip(*found, strict=True)))


def shares(rng: np.random.Generator, runs: int, n: int, p: float) -> Moments:
    k = rng.binomial(n, p, runs).astype(float)
    return inference.of_sums(np.full(runs, float(n)), k[:, None], k[:, None, None])


def votes(rng: np.random.Generator, runs: int, n: int, promoters: float = 0.45) -> Moments:
    drawn = rng.multinomial(n, [promoters, 0.75 - promoters, 0.25], runs).astype(float)
    total, square = drawn[:, 0] - drawn[:, 2], drawn[:, 0] + drawn[:, 2]
    return inference.of_sums(np.full(runs, float(n)), total[:, None], square[:, None, None])


def gamma_users(rng: np.random.Generator, runs: int, n: int) -> Moments:
    return blocks(runs, lambda size: [rng.standard_gamma(2.0, (size, n), dtype=np.float32)])


def clicks(rng: np.random.Generator, runs: int, n: int) -> Moments:
    """Clicks and impressions of users: geometric sessions, a click rate of their own from beta(1, 9)."""

    def draw(size: int) -> list[np.ndarray]:
        seen = rng.geometric(0.2, (size, n))
        # beta(1, 9) by its inverse
        rate = 1 - rng.random((size, n)) ** (1 / 9)
        return [rng.binomial(seen, rate).astype(np.float32), seen.astype(np.float32)]

    return blocks(runs, draw)


def before_and_now(rng: np.random.Generator, runs: int, n: int) -> Moments:
    """A value that correlates by 0.7 with its past; mean 3."""

    def draw(size: int) -> list[np.ndarray]:
        past = rng.standard_normal((size, n), dtype=np.float32)
        now = np.float32(0.7) * past + np.float32(0.51**0.5) * rng.standard_normal((size, n), dtype=np.float32)
        return [now + np.float32(3), past + np.float32(3)]

    return blocks(runs, draw)


def groups(rng: np.random.Generator, runs: int, n: int) -> Moments:
    """Sums and sizes of clusters of 1 + Poisson(9) members, intraclass correlation 0.2, mean 2."""

    def draw(size: int) -> list[np.ndarray]:
        members = (1 + rng.poisson(9, (size, n))).astype(np.float32)
        own = rng.standard_normal((size, n), dtype=np.float32) * np.float32(0.2**0.5)
        rest = rng.standard_normal((size, n), dtype=np.float32) * np.sqrt(np.float32(0.8) * members)
        return [members * (2 + own) + rest, members]

    return blocks(runs, draw)


def events(rng: np.random.Generator, runs: int, n: int) -> Moments:
    """Overdispersed counts: Poisson with a gamma(0.5) rate, mean 1, variance 3 (negative binomial)."""
    return blocks(runs, lambda size: [rng.poisson(rng.standard_gamma(0.5, (size, n)) * 2).astype(np.float32)])


def lognormal(rng: np.random.Generator, runs: int, n: int, cap: float = np.inf) -> Moments:
    def draw(size: int) -> list[np.ndarray]:
        return [np.minimum(np.exp(2 * rng.standard_normal((size, n), dtype=np.float32)), cap).astype(np.float64)]

    return blocks(runs, draw)


def order_statistics(rng: np.random.Generator, runs: int, n: int, q: float, factor: float) -> quantiles.Quantile:
    """Quantile q of n exponential values a run."""
    se = float(np.sqrt(q * (1 - q) / n))
    low, middle, high = quantiles.places(n, q, se)
    gaps = np.cumsum([rng.standard_gamma(a, runs) for a in (low, middle - low, high - middle, n + 1 - high)], axis=0)
    values = -np.log1p(-gaps[:3] / gaps[3]) * factor
    return quantiles.from_orders(values[0], values[1], values[2], n, se, high - low)


def percent(hits: np.ndarray) -> str:
    share = float(np.mean(hits))
    return f"{100 * share:.2f} ± {100 * (share * (1 - share) / hits.size) ** 0.5:.2f}"


def inside(low: Floats, high: Floats, truth: float) -> np.ndarray:
    return (low <= truth) & (truth <= high)


Kind = tuple[str, str, Callable[[Moments, Moments], Estimate], Callable[[int], Moments], int, float]


def kinds(rng: np.random.Generator) -> Iterator[Kind]:
    """Name, what is drawn, the test, the draw of an arm, columns an effect multiplies, the true mean."""
    yield "proportion", "1,000 users, 10 %", inference.proportion, lambda r: shares(rng, r, 1_000, 0.1), 1, 0.1
    yield "mean", "1,000 users, gamma(2)", inference.mean, lambda r: gamma_users(rng, r, 1_000), 1, 2.0
    yield "ratio", "1,000 users, clicks/impressions", inference.ratio, lambda r: clicks(rng, r, 1_000), 1, 0.1
    yield "CUPED", "1,000 users, normal, rho 0.7", inference.cuped, lambda r: before_and_now(rng, r, 1_000), 1, 3.0
    yield "clustered", "300 clusters of 1-25", inference.clustered, lambda r: groups(rng, r, 300), 1, 2.0
    yield "NPS", "1,000 answers", inference.nps, lambda r: votes(rng, r, 1_000), 1, 20.0
    yield "count", "1,000 users, negative binomial", inference.count, lambda r: events(rng, r, 1_000), 1, 1.0


def type_one(runs: int, rng: np.random.Generator) -> None:
    print(f"\n{runs:,} experiments each; a treatment x {1 + LIFT:g} for coverage\n")
    print("| metric | an arm | type I % | coverage %: difference | relative lift: fieller | delta | log |")
    print("|---|---|---|---|---|---|---|")
    for name, drawn, test, arm, columns, truth in kinds(rng):
        began = time.perf_counter()
        control, treatment = arm(runs), arm(runs)
        false = percent(test(control, treatment).p < 0.05)
        if name == "proportion":
            moved = shares(rng, runs, 1_000, 0.1 * (1 + LIFT))
        elif name == "NPS":
            moved = votes(rng, runs, 1_000, 0.45 + truth * LIFT / 100)
        else:
            moved = scaled(treatment, 1 + LIFT, columns)
        first, gap = test(control, moved), truth * LIFT
        cells = [false, percent(inside(first.low, first.high, gap))]
        for method in inference.RELATIVE:
            found = test(control, moved, relative=method) if name != "NPS" else None  # type: ignore[call-arg]
            cells.append(percent(inside(found.relative_low, found.relative_high, LIFT)) if found else "-")
        print(f"| {name} | {drawn} | {' | '.join(cells)} |", flush=True)
        if name == "CUPED":
            told = f"{test(control, treatment).variance_cut.mean():.4f}"
        print(f"{name}: {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    print(f"\nCUPED takes {told} of the variance away on average; rho^2 is 0.49.", file=sys.stderr)
    for q in (0.5, 0.9):
        control_q, same, moved_q = (order_statistics(rng, runs, 10_000, q, f) for f in (1.0, 1.0, 1 + LIFT))
        found = quantiles.quantile(control_q, moved_q)
        cells = [percent(quantiles.quantile(control_q, same).p < 0.05)]
        cells.append(percent(inside(found.low, found.high, -np.log1p(-q) * LIFT)))
        for method in inference.RELATIVE:
            found = quantiles.quantile(control_q, moved_q, relative=method)
            cells.append(percent(inside(found.relative_low, found.relative_high, LIFT)))
        print(f"| quantile {q:g} | 10,000 users, exponential | {' | '.join(cells)} |", flush=True)


def heavy(runs: int, rng: np.random.Generator) -> None:
    print(f"\nLognormal sd 2, {runs:,} experiments, treatment x {1 + LIFT:g}, coverage %\n")
    print("| arms | values | type I % | difference | relative: fieller | delta | log |")
    print("|---|---|---|---|---|---|---|")
    cuts = {np.inf: "as they are", 2.3263: "cut at the 99th percentile", 3.0902: "cut at the 99.9th percentile"}
    for n0, n1, z in (
        *((5_000, 5_000, z) for z in (np.inf, 3.0902)),
        *((1_000, 9_000, z) for z in (np.inf, 3.0902, 2.3263)),
    ):
        top = float(np.exp(2 * z))
        control, treatment = lognormal(rng, runs, n0, top), lognormal(rng, runs, n1, top)
        moved = scaled(treatment, 1 + LIFT)
        truth = float(np.exp(2.0)) if np.isinf(top) else capped_mean(top)
        found = inference.mean(control, moved)
        cells = [percent(inference.mean(control, treatment).p < 0.05)]
        cells.append(percent(inside(found.low, found.high, truth * LIFT)))
        for method in inference.RELATIVE:
            found = inference.mean(control, moved, relative=method)
            cells.append(percent(inside(found.relative_low, found.relative_high, LIFT)))
        print(f"| {n0:,} : {n1:,} | {cuts[z]} | {' | '.join(cells)} |", flush=True)


def capped_mean(cap: float, sd: float = 2.0) -> float:
    """E min(Y, cap) of a lognormal."""
    from scipy.special import ndtr

    z = np.log(cap) / sd
    return float(np.exp(sd**2 / 2) * ndtr(z - sd) + cap * ndtr(-z))


def peeking(paths: int, rng: np.random.Generator, users: int = 100_000) -> None:
    n = np.arange(1, users + 1, dtype=np.float32)
    first = sequential.FIRST_LOOK - 1
    limits = {
        "naive, 1.96 at every look": np.full(users, 1.959964),
        "open-ended, planned n 100,000": sequential.open_ended_times(n, users),
        "open-ended, planned n 5,000": sequential.open_ended_times(n, 5_000),
        "horizon 100,000": sequential.horizon_constant() * np.sqrt(users / n.astype(float)),
    }
    squares = {name: (limit**2).astype(np.float32)[first:] for name, limit in limits.items()}
    alarms = {(name, law): np.zeros(paths, bool) for law in ("normal", "Bernoulli 10 %") for name in limits}
    for law in ("normal", "Bernoulli 10 %"):
        for path in range(paths):
            if law == "normal":
                y = rng.standard_normal(users, dtype=np.float32)
            else:
                y = (rng.random(users, dtype=np.float32) < 0.1).astype(np.float32)
            treated = rng.integers(0, 2, users, dtype=np.int8).astype(np.float32)
            n1, s1, q1 = np.cumsum(treated), np.cumsum(y * treated), np.cumsum(y * y * treated)
            n0, s0, q0 = n - n1, np.cumsum(y) - s1, np.cumsum(y * y) - q1
            n0, s0, q0, n1, s1, q1 = (part[first:] for part in (n0, s0, q0, n1, s1, q1))
            m0, m1 = s0 / n0, s1 / n1
            variance = (q0 / n0 - m0 * m0) / (n0 - 1) + (q1 / n1 - m1 * m1) / (n1 - 1)
            square = (m1 - m0) ** 2 / variance
            for name, bound in squares.items():
                alarms[name, law][path] = bool((square > bound).any())
    print(f"\nPeeking at every user from the {first + 1}th to the {users:,}th, {paths:,} experiments\n")
    print("| rule | false alarms %, normal | Bernoulli 10 % | width at n 5,000, x fixed | at 100,000 |")
    print("|---|---|---|---|---|")
    for name, limit in limits.items():
        widths = " | ".join(f"{limit[at - 1] / 1.959964:.3f}" for at in (5_000, users))
        rates = " | ".join(percent(alarms[name, law]) for law in ("normal", "Bernoulli 10 %"))
        print(f"| {name} | {rates} | {widths} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--heavy", type=int, default=20_000)
    parser.add_argument("--paths", type=int, default=60_000)
    parser.add_argument("--seed", type=int, default=20261125)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    began = time.perf_counter()
    type_one(options.runs, rng)
    heavy(options.heavy, rng)
    peeking(options.paths, rng)
    print(f"\n{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
