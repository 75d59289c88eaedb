"""Recommendation quality on published splits: Recall@20 and NDCG@20, all items ranked, training pairs excluded.

    python benchmarks/quality.py [--sets gowalla,yelp2018,ml-1m-ultragcn] [--mode a|b] [--model NAME] [--data DIR]

Mode a is what a user types: the training pairs are ingested into a new workspace, `persona train [--model NAME]` makes
every choice from them alone, `persona evaluate --test` scores `latest`. Each command is a process of its own; printed
are its seconds by the clock, its processor seconds and its peak memory.

Mode b is how the published figures came about: settings of `spectral` are chosen on 2,500 random users of the test
file, over the grids below, and measured on the other users. It runs in this process.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import convert
import numpy as np
import polars as pl
from scipy import sparse

from persona_cli.models.base import Histories, Interactions, Training
from persona_cli.models.gram import Gram
from persona_cli.models.spectral import AUTO_FACTORS, Spectral
from persona_cli.models.spectral_tuning import Choice, Cut, Tuning, by_rule
from persona_cli.models.topk import topk

K = 20
DEVELOPMENT = 2500
GRIDS = {
    "item": (0.25, 0.3, 0.35, 0.4),
    "ridge": (0.01, 0.02, 0.03, 0.06),
    "left": (0.6, 0.7, 0.8, 0.9),
    "output": (-0.4, -0.35, -0.3, -0.25, -0.2, -0.15, -0.1, -0.05, 0.0),
    "right": (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5),
    "weight": (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.3),
}


@dataclass
class Spent:
    """What commands took."""

    seconds: float = 0.0
    processor: float = 0.0
    peak_mib: float = 0.0


def run(words: list[str], spent: Spent) -> str:
    """stdout of one persona command."""
    print("$ persona " + " ".join(words), file=sys.stderr)
    began = time.monotonic()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen([sys.executable, "-m", "persona_cli", *words], stdout=output)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"persona {' '.join(words)} ended with {process.returncode}")
        output.seek(0)
        text = output.read()
    spent.seconds += time.monotonic() - began
    spent.processor += usage.ru_utime + usage.ru_stime
    spent.peak_mib = max(spent.peak_mib, usage.ru_maxrss / 1024)
    return text


def as_typed(name: str, data: Path, folder: Path, model: str | None, settings: list[str]) -> None:
    """Rows of mode a."""
    files = folder / name
    files.mkdir(parents=True)
    convert.gowalla(data / name, files)
    workspace = folder / f"workspace-{name}"
    subprocess.run([sys.executable, "-m", "persona_cli", "init", "--quiet", str(workspace)], check=True)
    where = ["-w", str(workspace)]
    run(["ingest", *where, str(files / "events.csv"), "--max-rejected", "1.0", "--json"], Spent())
    train, evaluate = Spent(), Spent()
    chosen = [word for setting in settings for word in ("--set", setting)]
    named = [] if model is None else ["--model", model]
    trained = json.loads(run(["train", *where, *named, *chosen, "--json"], train))
    typed = " ".join(["persona train", *named, *chosen])
    for shown in ["layered", *named[1:]]:
        asked = ["evaluate", *where, "--test", str(files / "test.csv"), "--model", shown, "--k", str(K), "--json"]
        entries = json.loads(run(asked, evaluate))["models"]
        evaluate_of = next(entry["metrics"] for entry in entries if entry["model"].startswith(shown))
        figures = [f"{evaluate_of[f'{figure}@{K}']['value']:.4f}" for figure in ("recall", "ndcg")]
        served = trained["latest"] if shown == "layered" else shown
        row = [name, "a", served, *figures, *_cells(train), f"{evaluate.peak_mib:,.0f}", f"`{typed}`"]
        print(f"| {' | '.join(row)} |", flush=True)


def _cells(spent: Spent) -> list[str]:
    return [f"{spent.seconds:.0f}", f"{spent.processor:.0f}", f"{spent.peak_mib:,.0f}"]


@dataclass(frozen=True)
class Split:
    """A published split as matrices over all items that either part names."""

    known: sparse.csr_array
    wanted: sparse.csr_array
    users: pl.Series
    items: pl.Series

    @classmethod
    def read(cls, folder: Path) -> Split:
        parts = [pl.read_parquet(folder / f"{part}.parquet").unique() for part in ("train", "test")]
        both = pl.concat(parts)
        users, items = (both[column].unique().sort() for column in ("user", "item"))
        matrices = []
        for part in parts:
            at = tuple(ids.search_sorted(part[column]).to_numpy() for ids, column in ((users, "user"), (items, "item")))
            matrix = sparse.csr_array((np.ones(part.height, np.float32), at), shape=(len(users), len(items)))
            matrix.sort_indices()
            matrices.append(matrix)
        return cls(*matrices, users.cast(pl.String), items.cast(pl.String))

    def histories(self, users: np.ndarray) -> Histories:
        rows = self.known[users]
        nowhere = {name: pl.Series([None] * len(users), dtype=pl.String) for name in ("device", "country")}
        return Histories(rows, np.diff(rows.indptr).astype(np.int64), pl.DataFrame(nowhere))

    def training(self) -> Training:
        events = np.diff(self.known.indptr).astype(np.int64)
        seen = self.known.astype(bool)
        counts = np.bincount(self.known.indices, minlength=len(self.items)).astype(np.int64)
        none = sparse.csr_array((len(self.items), len(self.items)), dtype=np.int64)
        matrix = Interactions(self.users, self.items, self.known, seen, events)
        return Training(matrix, Gram(self.items, none, counts), pl.DataFrame(), datetime(2000, 1, 2, tzinfo=UTC))


def figures(model: Spectral, split: Split, users: np.ndarray) -> tuple[float, float]:
    """Mean Recall@20 and NDCG@20 of these users."""
    discounts = 1 / np.log2(np.arange(2, K + 2))
    recall = gain = 0.0
    for start in range(0, len(users), 1000):
        block = users[start : start + 1000]
        scores = model.scores(split.histories(block))
        known, wanted = split.known[block], split.wanted[block]
        scores[np.repeat(np.arange(len(block)), np.diff(known.indptr)), known.indices] = -np.inf
        places, _ = topk(scores, K)
        hits = np.asarray(wanted[np.repeat(np.arange(len(block)), K), places.ravel()]).reshape(places.shape) > 0
        lengths = np.diff(wanted.indptr)
        recall += float((hits.sum(axis=1) / lengths).sum())
        gain += float(((hits * discounts).sum(axis=1) / np.cumsum(discounts)[np.minimum(lengths, K) - 1]).sum())
    return recall / len(users), gain / len(users)


def on_test_users(name: str, data: Path, threads: int) -> None:
    """The row of mode b."""
    began, processor = time.monotonic(), time.process_time()
    split = Split.read(data / name)
    judged = np.flatnonzero(np.diff(split.wanted.indptr))
    shuffled = np.random.default_rng(1).permutation(judged)
    asked, others = np.sort(shuffled[:DEVELOPMENT]), np.sort(shuffled[DEVELOPMENT:])
    made = Cut(split.known, asked, sparse.csr_array(split.wanted[asked].astype(bool)))
    degrees = np.maximum(np.bincount(split.known.indices, minlength=len(split.items)), 1).astype(np.float64)
    rule = by_rule(len(split.users), degrees)
    with _said("choosing"):
        choice: Choice = Tuning(made, threads, GRIDS, margin=0.0, factors=AUTO_FACTORS).choose(rule, ())
    with _said("fitting"):
        model = Spectral(**asdict(choice), solver_threads=threads).fit(split.training())
    with _said("measuring"):
        recall, gain = figures(model, split, others)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    spent = Spent(time.monotonic() - began, time.process_time() - processor, peak)
    words = ", ".join(f"{key} {value:g}" for key, value in asdict(choice).items())
    row = [name, "b", "spectral", f"{recall:.4f}", f"{gain:.4f}", *_cells(spent), "", words]
    print(f"| {' | '.join(row)} |", flush=True)


@contextmanager
def _said(what: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    print(f"{what}: {time.monotonic() - began:.1f} s", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", default="gowalla,yelp2018,ml-1m-ultragcn", help="names of folders in --data")
    parser.add_argument("--mode", choices=["a", "b"], default="a")
    parser.add_argument("--model", help="mode a: train this one; default: what train chooses")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="mode a: a setting of train")
    parser.add_argument("--threads", type=int, default=1, help="mode b: threads of solvers")
    parser.add_argument("--data", type=Path, default=convert.source())
    options = parser.parse_args()
    print(
        "| set | mode | model | Recall@20 | NDCG@20 | s | processor s | MiB | MiB to evaluate | command or settings |"
    )
    print("|" + "---|" * 10)
    for name in options.sets.split(","):
        if options.mode == "b":
            on_test_users(name, options.data, options.threads)
            continue
        folder = Path(tempfile.mkdtemp(prefix="persona-quality-"))
        try:
            as_typed(name, options.data, folder, options.model, options.set)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
