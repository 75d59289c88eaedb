"""Judging lists: ten metrics with intervals, beside RecTools' `calc_metrics` on the same lists, in one run.

    python benchmarks/judging.py --peer-python VENV/bin/python [--users 1000000] [--items 50000] [--repeat 3]

The peer lives in an environment of its own (rectools==0.19 wants numpy < 2): `--peer-python` is that environment's.
Lists of 20 and about 7 right answers a user are written to Parquet by a process of their own; each side reads them
first, then only the computation is timed, the best of the repeats. persona computes recall, capped recall, precision,
NDCG, MAP, MRR, hit rate and RBP with 95 % intervals, coverage, and novelty with its interval, and then all that
`judge` says of one model. The peer computes recall, NDCG, MAP and MRR without intervals, once with ids as the text they
are and once as whole numbers; its NDCG is given the divisor with which it equals ours, and is timed without it too.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

K = 20
PEER = """
import json, sys, time
import pandas as pd
from rectools import Columns
from rectools.metrics import MAP, MRR, NDCG, Recall, calc_metrics
folder, ids, achievable, repeat = sys.argv[1:]
lists = pd.read_parquet(f"{folder}/lists.parquet", columns=["user_id", "item_id", "rank"])
answers = pd.read_parquet(f"{folder}/answers.parquet")
lists.columns, answers.columns = [Columns.User, Columns.Item, Columns.Rank], [Columns.User, Columns.Item]
if ids == "whole numbers":
    for frame in (lists, answers):
        for name in (Columns.User, Columns.Item):
            frame[name] = frame[name].str[1:].astype("int64")
ndcg = NDCG(k=20, divide_by_achievable=achievable == "yes")
metrics = {"recall@20": Recall(k=20), "ndcg@20": ndcg, "map@20": MAP(k=20), "mrr@20": MRR(k=20)}
seconds = []
for _ in range(int(repeat)):
    began = time.perf_counter()
    found = calc_metrics(metrics, reco=lists, interactions=answers)
    seconds.append(time.perf_counter() - began)
print(json.dumps({"seconds": min(seconds), **{name: float(value) for name, value in found.items()}}))
"""


def make(folder: Path, n_users: int, n_items: int, wanted: int = 7) -> None:
    """Lists of different items, about `wanted` right answers a user, a quarter of them in the list; popularity."""
    draws = np.random.default_rng(20)
    start, step = draws.integers(0, n_items, (n_users, 1)), draws.integers(1, 97, (n_users, 1))
    items = (start + step * np.arange(K)) % n_items  # (n_users, K)
    hit = draws.random((n_users, wanted)) < 0.25
    rank = np.minimum(draws.geometric(0.15, (n_users, wanted)) - 1, K - 1)
    right = np.where(hit, np.take_along_axis(items, rank, axis=1), draws.integers(0, n_items, (n_users, wanted)))
    users = pl.select(pl.format("u{}", pl.Series(np.arange(n_users)).cast(pl.String).str.zfill(8))).to_series()
    names = pl.select(pl.format("i{}", pl.Series(np.arange(n_items)).cast(pl.String).str.zfill(6))).to_series()

    def frame(places: np.ndarray) -> pl.DataFrame:
        owners = users.gather(np.repeat(np.arange(n_users), places.shape[1]))
        return pl.DataFrame({"user_id": owners, "item_id": names.gather(places.ravel())})

    scores = -np.sort(-draws.random((n_users, K)), axis=1)  # (n_users, K)
    ranks = np.tile(np.arange(1, K + 1), n_users)
    frame(items).with_columns(rank=ranks, score=scores.ravel()).write_parquet(folder / "lists.parquet")
    frame(right).unique().sort("user_id", "item_id").write_parquet(folder / "answers.parquet")
    had = pl.DataFrame({"item_id": names, "users": draws.integers(1, n_users // 2, n_items)})
    had.write_parquet(folder / "popularity.parquet")


def ten(lists: pl.DataFrame, answers: pl.DataFrame, had: pl.DataFrame, n_users: int) -> dict[str, float]:
    """Ten metrics, nine of them with intervals."""
    from persona_cli.evaluation.coded import coded_lists, coded_pairs, hits_of
    from persona_cli.evaluation.diversity import coverage, self_information
    from persona_cli.evaluation.intervals import mean_intervals
    from persona_cli.evaluation.metrics import values

    wanted = coded_pairs(answers, had["item_id"])
    coded = coded_lists(lists, wanted.items)
    table = values(hits_of(coded, wanted), [K])
    means = mean_intervals(table.drop("user_id").to_numpy())
    covered = coverage(coded.shown(K))
    bits = self_information(had["users"].to_numpy(), n_users)
    novelty = mean_intervals(coded.means(bits, K)[1])[0]
    if any(interval.low is None for interval in [*means, novelty]):
        raise SystemExit("an interval is missing")
    figures = dict(zip(table.columns[1:], [interval.value for interval in means], strict=True))
    return {**figures, f"coverage@{K}": covered, f"novelty@{K}": novelty.value}


def everything(lists: pl.DataFrame, answers: pl.DataFrame, had: pl.DataFrame, n_users: int) -> dict[str, float]:
    """All that `judge` says of one model: what needs no catalogue and no histories, and curves."""
    from persona_cli.evaluation.beyond import Background
    from persona_cli.evaluation.judging import judge

    judged = judge({"model": lists}, answers, Background(had["item_id"], had, n_users), [K], "popular")["model"]
    return {name: interval.value for name, interval in judged.metrics.items() if interval is not None}


def peak_gib() -> float:
    """Largest resident memory of this process so far."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 2**20
    return 0.0


def best(repeat: int, work: object, *given: object) -> tuple[float, dict[str, float]]:
    """Seconds of the fastest of the runs, and what the last one found."""
    seconds, found = [], {}
    for _ in range(repeat):
        began = time.perf_counter()
        found = work(*given)  # type: ignore[operator]
        seconds.append(time.perf_counter() - began)
    return min(seconds), found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--items", type=int, default=50_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--peer-python", help="python of an environment with RecTools; without it there is no ratio")
    parser.add_argument("--make", type=Path, metavar="FOLDER", help="only write the lists into this folder")
    given = parser.parse_args()
    if given.make:
        make(given.make, given.users, given.items)
        return
    with tempfile.TemporaryDirectory() as folder:
        sizes = ["--users", str(given.users), "--items", str(given.items)]
        subprocess.run([sys.executable, __file__, "--make", folder, *sizes], check=True)
        lists, answers, had = (
            pl.read_parquet(f"{folder}/{name}.parquet") for name in ("lists", "answers", "popularity")
        )
        print(f"{given.users:,} users, lists of {K}, {answers.height:,} right answers, {given.items:,} items\n")
        print("| | metrics | intervals | seconds | users/s | x RecTools |\n|---|---|---|---|---|---|")
        ours, figures = best(given.repeat, ten, lists, answers, had, given.users)
        memory = peak_gib()
        judged, all_figures = best(given.repeat, everything, lists, answers, had, given.users)
        whole_memory = peak_gib()
        del lists, answers
        off, rows = 0.0, []
        kinds = [("text", "yes"), ("whole numbers", "yes"), ("whole numbers", "no")] if given.peer_python else []
        for ids, achievable in kinds:
            command = [given.peer_python, "-c", PEER, folder, ids, achievable, str(given.repeat)]
            out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            done = json.loads(out.splitlines()[-1])
            taken = done.pop("seconds")
            # RecTools divides average precision by all right answers, persona by those that k places can hold: with
            # fewer answers than places they are one. Its usual NDCG has the ideal of k hits for everybody.
            compared = [name for name in done if achievable == "yes" or name != f"ndcg@{K}"]
            off = max([off, *(abs(figures[name] - done[name]) for name in compared)])
            rows.append((f"RecTools, ids as {ids}{'' if achievable == 'yes' else ', its usual NDCG'}", taken))
        fastest = min([taken for _, taken in rows], default=0.0)

        def line(who: str, metrics: int, intervals: int, seconds: float) -> None:
            ratio = f"{fastest / seconds:.2f}" if fastest else "-"
            print(f"| {who} | {metrics} | {intervals} | {seconds:.2f} | {given.users / seconds:,.0f} | {ratio} |")

        line("persona", len(figures), len(figures) - 1, ours)
        line("persona, all of `judge`", len(all_figures), len(all_figures) - 4, judged)
        for who, taken in rows:
            line(who, 4, 0, taken)
        print(f"\nx RecTools: over its fastest. persona's peak memory: {memory:.2f} GiB for ten metrics, ", end="")
        print(f"{whole_memory:.2f} GiB for all, frames included")
        if rows:
            print(f"largest difference in recall, NDCG, MAP and MRR: {off:.1e}")


if __name__ == "__main__":
    main()
