"""Contextual bandits: regret on stated simulators, and what they would have earned on logs of the Open Bandit data.

    python benchmarks/bandits.py regret [--rounds 20000] [--seeds 20] [--batch 1 1000] [--reward number binary]
    python benchmarks/bandits.py logs [--data ../shared/data] [--resamples 100]

Simulators: 10 arms, 10 features. `number`: x uniform on the unit sphere, θ of each arm on the sphere of radius 0.6,
reward x·θ + N(0, 0.1²), cut at ±1. `binary`: x = (1, z)/√2 with z on the unit sphere of 9 dimensions, reward 1 with
chance 0.5 + 0.4 z·θ, θ of each arm on the unit sphere. Regret: Σ of what the best arm for x would have earned more, in
expectation; mean and 95 % interval over seeds. Batches of b: what is known changes every b rounds, and rewards of a
batch are there one batch later (b = 1: at once). `split`: every arm gets a tenth for ever; `winner`: a split for the
first tenth of rounds, then the arm with the best mean for everybody. The noise that policies reckon with is 0.1², or
0.25 for binary rewards.

Bound for linucb: arms have a θ of their own, so the confidence ellipsoid of Abbasi-Yadkori, Pál and Szepesvári (2011,
theorem 2) holds for all arms with chance 1 - δ with δ / K each; with its radius β (R: sub-Gaussian noise, S: size of θ)
and their lemma 11 summed over arms, regret ≤ 2 β √(2 K d T log(1 + T / (K d λ))). `linucb-bound` runs with that β as
α · sd; that is the policy that the bound is of. The bound is below the trivial one (the largest gap times T) only for
large T; both are printed.

Logs: users' features one-hot (the constant, user_feature_0 … 3), arms are items. Replay (Li, Chu, Langford and Wang
2011): a policy learns from scratch on the log of uniformly chosen items, and only from entries in which it chooses what
was shown; over bootstrap resamples of the log (as Mary, Preux and Nicol 2014), batches of 250. Off-policy: sums of four
fifths of the log, and the exact chances of the policy on the last fifth, by IPS and SNIPS of `experiments.off_policy`.
Warm start: sums of the random log, chances judged on the log of Bernoulli Thompson sampling (BTS), and the other way.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl

from persona_cli.experiments.off_policy import ips, snips, weights
from persona_cli.models.bandits import (
    ONE,
    Policy,
    Sums,
    chances,
    drawn,
    expected,
    nothing,
    posterior,
    quantised,
    sums_of,
)

K, D = 10, 10
SD, DELTA = 0.1, 0.05


def sphere(rng, *shape):
    x = rng.normal(size=shape)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


class Simulator:
    """Several worlds at once, of seeds 0 to n - 1."""

    def __init__(self, n, rounds, kind):
        self.kind, x, theta, noise = kind, [], [], []
        for seed in range(n):
            rng = np.random.default_rng(seed)
            dims = D if kind == "number" else D - 1
            theta.append(sphere(rng, K, dims) * (0.6 if kind == "number" else 1.0))
            x.append(sphere(rng, rounds, dims))
            noise.append(rng.normal(0, SD, rounds) if kind == "number" else rng.random(rounds))
        z, self.theta, self.noise = np.array(x), np.array(theta), np.array(noise)
        self.mean = np.einsum("std,skd->stk", z, self.theta)  # (seeds, rounds, K)
        if kind == "binary":
            self.mean = 0.5 + 0.4 * self.mean
            z = np.concatenate([np.ones((*z.shape[:2], 1)), z], axis=2) / np.sqrt(2)
        self.x = quantised(z) / ONE

    def rewards(self, rounds, arm):
        """Of seeds' arms (seeds, b) in some rounds (b,)."""
        mean = np.take_along_axis(self.mean[:, rounds], arm[..., None], axis=2)[..., 0]
        noise = self.noise[:, rounds]
        return np.clip(mean + noise, -1, 1) if self.kind == "number" else (noise < mean).astype(float)


def added(sums, x, arm, reward):
    """Sums of all seeds after a batch: x (seeds, b, d), arm and reward (seeds, b)."""
    if x.shape[1] == 1:  # as `sums_of`, for all seeds at once
        q, r = quantised(x[:, 0]), quantised(reward[:, 0])
        at = np.arange(len(q)), arm[:, 0]
        sums.n[at] += 1
        sums.a[at] += q[:, :, None] * q[:, None, :]
        sums.b[at] += q * r[:, None]
        sums.c[at] += r * r
        return sums
    parts = [sums_of(x[s], arm[s], reward[s], K) for s in range(len(x))]
    return sums.plus(Sums(*(np.array(part) for part in zip(*parts, strict=True))))


def play(world, policy, batch):
    """Regret of each seed after every tenth of the rounds (seeds, 10)."""
    n, rounds = world.x.shape[:2]
    lost = np.zeros((n, rounds))
    rng = np.random.default_rng(99)
    uniform = rng.random((n, rounds))
    sums = Sums(*(np.stack([part] * n) for part in nothing(K, D)))
    waiting, known = None, None
    for start in range(0, rounds, batch):
        at = np.arange(start, min(start + batch, rounds))
        x = world.x[:, at]
        if policy == "split":
            arm = (uniform[:, at] * K).astype(np.int64)
        elif policy == "winner":
            arm = (uniform[:, at] * K).astype(np.int64)
            if start >= rounds // 10:
                arm[:] = world_best(world, rounds // 10, uniform)[:, None]
        else:
            known = renewed(known, sums, policy, waiting, batch)
            arm, _ = drawn(chances(policy, known, x).p, uniform[:, at])
        gap = world.mean[:, at].max(axis=2) - np.take_along_axis(world.mean[:, at], arm[..., None], axis=2)[..., 0]
        lost[:, at] = gap
        came = (x, arm, world.rewards(at, arm))
        if policy in ("split", "winner"):
            continue
        if batch == 1:
            sums, waiting = added(sums, *came), came
        else:  # there one batch later
            if waiting is not None:
                sums = added(sums, *waiting)
            waiting = came
    return np.cumsum(lost, axis=1)[:, rounds // 10 - 1 :: rounds // 10]


def world_best(world, tried, uniform):
    """The arm with the best mean reward of the first rounds, split evenly (seeds,)."""
    arm = (uniform[:, :tried] * K).astype(np.int64)
    reward = world.rewards(np.arange(tried), arm)
    means = [[reward[s][arm[s] == k].mean() for k in range(K)] for s in range(len(arm))]
    return np.argmax(means, axis=1)


def renewed(known, sums, policy, waiting, batch):
    """The posterior; after a single reward that of its arm alone."""
    if known is None or batch > 1:
        return posterior(sums, policy)
    at = np.arange(len(sums.n)), waiting[1][:, 0]
    part = posterior(Sums(*(each[at][:, None] for each in sums)), policy)
    known.mean[at], known.spread[at] = part.mean[:, 0], part.spread[:, 0]
    return known


def bound(kind, rounds):
    """β and the bound on regret, of `linucb-bound` (noise 0.1, or 0.5 for rewards of 0 and 1)."""
    r, size = (SD, 0.6) if kind == "number" else (0.5, np.sqrt(2 * 0.25 + 2 * 0.16))
    beta = size + r * np.sqrt(2 * np.log(K / DELTA) + D * np.log(1 + rounds / D))
    return r, beta, 2 * beta * np.sqrt(2 * K * D * rounds * np.log(1 + rounds / (K * D)))


def regret(args):
    for kind in args.reward:
        world = Simulator(args.seeds, args.rounds, kind)
        r, beta, limit = bound(kind, args.rounds)
        noise = r * r
        largest = float((world.mean.max(2) - world.mean.min(2)).sum(1).mean())
        print(f"\n{kind}: bound {limit:,.0f} (β {beta:.2f}); the worst arm always: {largest:,.0f}", flush=True)
        print("batch  policy          regret  95 %             per round of last tenth  T/4→T  s", flush=True)
        policies = {
            "thompson": Policy("thompson", 0.0, noise=noise),
            "linucb": Policy("linucb", 0.0, noise=noise),
            "linucb-bound": Policy("linucb", 0.0, alpha=beta / r, noise=noise),
            "epsilon 0.05": Policy("epsilon", 0.05, noise=noise),
            "thompson 0.05": Policy("thompson", 0.05, noise=noise),
            "split": "split",
            "winner": "winner",
        }
        for batch in args.batch:
            for name, policy in policies.items():
                if args.only and name not in args.only:
                    continue
                began = time.perf_counter()
                found = play(world, policy, batch)
                last = found[:, -1]
                half = 1.96 * last.std(ddof=1) / np.sqrt(len(last))
                end = (found[:, -1] - found[:, -2]).mean() / (args.rounds // 10)
                growth = last.mean() / (0.5 * (found[:, 1] + found[:, 2])).mean()
                print(
                    f"{batch:5}  {name:14} {last.mean():8,.1f}  ±{half:<8,.1f}  {end:.5f}  {growth:.2f}"
                    f"  {time.perf_counter() - began:.0f}",
                    flush=True,
                )


def read(folder, name):
    rows = pl.read_parquet(folder / f"{name}.parquet").sort("timestamp", "")
    return rows.select("item_id", "click", "propensity_score", *(f"user_feature_{i}" for i in range(4)))


def features(parts):
    """One-hot features of several logs over the same vocabularies."""
    columns = [f"user_feature_{i}" for i in range(4)]
    values = [(c, v) for c in columns for v in pl.concat([p[c] for p in parts]).unique().sort()]
    return [
        np.stack([np.ones(p.height), *((p[c] == v).to_numpy().astype(float) for c, v in values)], axis=1) for p in parts
    ]


def by_policy():
    plain = {name: Policy(name, 0.05) for name in ("thompson", "linucb", "epsilon")}
    return {**plain, "thompson, ridge 100": Policy("thompson", 0.05, ridge=100.0)}


def target(policy, sums, x, arm):
    """The policy's chance of the logged arm (n,)."""
    cells, place = np.unique(x, axis=0, return_inverse=True)
    return chances(policy, posterior(sums, policy), cells).p[place.reshape(-1), arm]


def replay(policy, x, arm, click, k, rng, batch=250):
    """Matches and clicks of a policy that learns as it goes, on one resample of the log."""
    order = rng.integers(0, len(arm), len(arm))
    sums, matched, clicks = nothing(k, x.shape[1]), 0, 0.0
    for part in np.array_split(order, len(order) // batch):
        known = posterior(sums, policy)
        mean, variance = expected(known, x[part])
        score = mean
        if policy.name == "thompson":  # a draw of each θ: the same law as its chances
            score = rng.normal(mean, np.sqrt(variance))
        elif policy.name == "linucb":
            score = mean + np.sqrt(variance)
        best = (np.round(score, 12) + 1e-13 * rng.random(score.shape)).argmax(axis=1)
        spread = rng.random(len(part)) < policy.epsilon
        chosen = np.where(spread, rng.integers(0, k, len(part)), best)
        hit = part[chosen == arm[part]]
        matched, clicks = matched + len(hit), clicks + click[hit].sum()
        sums = sums.plus(sums_of(x[hit], arm[hit], click[hit], k))
    return matched, clicks


def interval(values):
    return f"{np.mean(values):.4f} ({np.quantile(values, 0.025):.4f}-{np.quantile(values, 0.975):.4f})"


def logs(args):
    for campaign in ("all", "men"):
        folder = args.data / f"open-bandit-{campaign}"
        parts = {name: read(folder, name) for name in ("random", "bts")}
        xs = dict(zip(parts, features(list(parts.values())), strict=True))
        arms = {name: part["item_id"].to_numpy().astype(np.int64) for name, part in parts.items()}
        clicks = {name: part["click"].to_numpy().astype(float) for name, part in parts.items()}
        shown = {name: part["propensity_score"].to_numpy() for name, part in parts.items()}
        k = int(max(arm.max() for arm in arms.values())) + 1
        print(f"\n{campaign}: {k} arms, {xs['random'].shape[1]} features", flush=True)
        for name, click in clicks.items():
            half = 1.96 * click.std() / np.sqrt(len(click))
            print(f"  logged {name:8} {click.mean():.4f} ({click.mean() - half:.4f}-{click.mean() + half:.4f})")
        for name, policy in by_policy().items():
            rng = np.random.default_rng(0)
            x, arm, click = xs["random"], arms["random"], clicks["random"]
            runs = np.array([replay(policy, x, arm, click, k, rng) for _ in range(args.resamples)])
            print(
                f"  {name:19} replay: {runs[:, 0].mean():,.0f} matches, CTR {interval(runs[:, 1] / runs[:, 0])}",
                flush=True,
            )
            fold = np.random.default_rng(1).permutation(len(arm)) % 5
            w = np.zeros(len(arm))
            for one in range(5):
                rest, ours = fold != one, fold == one
                sums = sums_of(x[rest], arm[rest], click[rest], k)
                w[ours] = target(policy, sums, x[ours], arm[ours])
            told("  cross-fitted on random", click, w, shown["random"])
            for source, other in (("random", "bts"), ("bts", "random")):
                sums = sums_of(xs[source], arms[source], clicks[source], k)
                p = target(policy, sums, xs[other], arms[other])
                told(f"  learned on {source}, judged on {other}", clicks[other], p, shown[other])


def told(what, click, p, propensity):
    found = weights(propensity, p)
    one, two = ips(click, found.w), snips(click, found.w)
    print(
        f"            {what}: IPS {one.value:.4f} ({one.low:.4f}-{one.high:.4f}), SNIPS {two.value:.4f} "
        f"({two.low:.4f}-{two.high:.4f}), ESS {found.ess:,.0f}, mean weight {found.mean:.2f}",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("regret", "logs"))
    parser.add_argument("--rounds", type=int, default=20_000)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 1000])
    parser.add_argument("--reward", nargs="+", default=["number", "binary"])
    parser.add_argument("--only", nargs="+", help="names of policies")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--resamples", type=int, default=100)
    args = parser.parse_args()
    (regret if args.what == "regret" else logs)(args)


if __name__ == "__main__":
    sys.exit(main())
