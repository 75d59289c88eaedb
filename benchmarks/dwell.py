"""Dwell fits on simulated mixtures, whose truth is known, and on the session gaps of real logs.

    python benchmarks/dwell.py
    python benchmarks/dwell.py --shared ../shared/data     also the gaps of taobao and ml-100k (not part of the project)

Simulated: log-normal reading (median 40 s, sd of logs 0.8) and idle tabs (sd 0.9), whole seconds, cut off at 30
minutes. The median of idle is 480 s, where the true mixture separates them with an AUC of 0.98, or 310 s: with 0.95.
The standard error is that of Cramér and Rao at the true mixture: no unbiased estimate has a smaller one; less what the
drawn labels vary by themselves, since the error is that against the labels drawn.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import polars as pl
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from persona_cli.profiles.dwell import DwellFit, fit_dwell, probabilities
from persona_cli.profiles.mixture import Durations, Mixture, quadrature, recorded_shares, share_error
from persona_cli.profiles.sessions import with_dwell, with_sessions

GAP = 1800.0
READING = (np.log(40.0), 0.8)
IDLE_SD = 0.9


def drawn(n: int, idle: float, median: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    idles = rng.random(3 * n) < idle
    z = np.where(idles, rng.normal(np.log(median), IDLE_SD, 3 * n), rng.normal(*READING, 3 * n))
    seconds = np.rint(np.exp(z))
    seen = (np.exp(z) <= GAP) & (seconds > 0)
    return seconds[seen][:n], idles[seen][:n]


def best_auc(seconds: np.ndarray, idles: np.ndarray, idle: float, median: float) -> float:
    z = np.log(seconds)
    odds = np.log(idle / (1 - idle)) - np.log(IDLE_SD) - 0.5 * ((z - np.log(median)) / IDLE_SD) ** 2
    odds += np.log(READING[1]) + 0.5 * ((z - READING[0]) / READING[1]) ** 2
    return float(roc_auc_score(idles, odds))


def least_error(n: int, idle: float, median: float) -> float:
    """In points, by the expected counts of whole seconds."""
    truth = Mixture(np.array([1 - idle, idle]), np.array([READING[0], np.log(median)]), np.array([READING[1], IDLE_SD]))
    ends = np.log(np.append(np.arange(0.5, GAP), GAP))
    reached = norm.cdf((ends[:, None] - truth.means) / truth.sds) @ truth.weights
    chances = np.diff(reached) / (reached[-1] - reached[0])
    nodes, shares, starts = quadrature(ends[:-1], ends[1:])
    durations = Durations(n * chances, nodes, shares, starts, ends[0], ends[-1])
    error, share = share_error(durations, truth, [0]), float(recorded_shares(durations, truth)[0])
    assert error is not None
    return float(100 * np.sqrt(error**2 - share * (1 - share) / n))


def simulated(repeat: int) -> None:
    print(
        "| events | idle median | idle drawn | engaged share | largest error of",
        repeat,
        "seeds (points) | least standard error (points) | beyond 2 points, of 100 | AUC | best AUC |",
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for median, n in ((480.0, 20_000), (310.0, 20_000), (310.0, 100_000)):
        for idle in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6):
            errors, aucs, bests, shares = [], [], [], []
            for seed in range(repeat):
                seconds, idles = drawn(n, idle, median, seed)
                fit = fit_dwell(seconds, GAP)
                shares.append(1 - idles.mean())
                errors.append(abs(fit.share("engaged") - shares[-1]) * 100)
                aucs.append(roc_auc_score(idles, probabilities(fit, seconds)["idle"]))
                bests.append(best_auc(seconds, idles, idle, median))
            least = least_error(n, idle, median)
            print(
                f"| {n:,} | {median:.0f} s | {idle:.0%} | {np.mean(shares):.3f} | {max(errors):.2f} "
                f"| {least:.2f} | {200 * norm.cdf(-2 / least):.0f} | {np.mean(aucs):.4f} | {np.mean(bests):.4f} |",
                flush=True,
            )


def said(name: str, fit: DwellFit, dropped: float, seconds: float) -> None:
    parts = zip(fit.roles, fit.mixture.means, fit.mixture.sds, fit.shares, strict=True)
    components = "; ".join(f"{role} {share:.0%}, {np.exp(mean):.3g} s, {sd:.2f}" for role, mean, sd, share in parts)
    beyond = fit.idle_from()
    worse = ", ".join(f"{bic - min(fit.bic):,.0f}" for bic in fit.bic)
    print(
        f"| {name} | {fit.events:,} | {dropped:.0%} | {fit.resolution:g} s | {components} | {worse} "
        f"| {'-' if beyond is None else f'{beyond / 60:.1f} min'} | {fit.idle_time:.0%} | {_distance(fit):.3f} "
        f"| {seconds:.1f} |"
    )


def _distance(fit: DwellFit) -> float:
    """The largest distance of the distribution functions, recorded and fitted, at the ends of the histogram's bins."""
    from scipy.special import ndtr

    ends = np.array([fit.histogram[0][0], *(high for _, high, _ in fit.histogram)])
    reached = ndtr((np.log(ends)[:, None] - fit.mixture.means) / fit.mixture.sds) @ fit.mixture.weights
    expected = (reached - reached[0]) / (reached[-1] - reached[0])
    recorded = np.append(0, np.cumsum([n for _, _, n in fit.histogram])) / fit.events
    return float(np.abs(expected - recorded).max())


def real(shared: Path) -> None:
    print(
        "\n| gaps of | gaps | of 0 s, left out | steps | components: share, median, sd of logs "
        "| BIC above the best (1, 2, 3) | idle beyond | time idle | largest distance | seconds |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name in ("taobao", "ml-100k"):
        log = pl.read_parquet(shared / name / "events.parquet")
        events = log.select(
            user_id=pl.col("user").cast(pl.String),
            item_id=pl.col("item").cast(pl.String),
            timestamp=pl.from_epoch("timestamp").cast(pl.Datetime("us", "UTC")),
            session_id=pl.lit(None, pl.String),
        )
        gaps = with_dwell(with_sessions(events, GAP / 60))["seconds"].drop_nulls().to_numpy()
        began = time.monotonic()
        fit = fit_dwell(gaps[gaps > 0], GAP)
        said(name, fit, float((gaps == 0).mean()), time.monotonic() - began)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, help="the folder with taobao/ and ml-100k/")
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    if options.repeat:
        simulated(options.repeat)
    if options.shared is not None:
        real(options.shared)
