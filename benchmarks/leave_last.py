"""What comes next: each user's last item is hidden, and every item the user has not had is ranked; HR@10 and NDCG@10.

    python benchmarks/leave_last.py [--sets ml-1m,s3rec-beauty] [--models knn,sequence] [--set model.sequence.epochs=12]

The protocol of the published tables for leave-last-out in time: all items of the set are ranked, without sampled
negatives, and those of the user's own history are left out (the code behind the figures of SASRec, BERT4Rec and SASRec+
does so too). Training is all but each user's last item; what a model holds back to choose by, it takes from there.

taobao has instants, and is cut once for all users: before the last fifth of its events and after. Wanted is all that a
user with a history takes up later; HR@10 is the share of users of whom the list holds something.

Models are at the settings by rule, apart from what --set changes. Each is trained in a process of its own; seconds by
the clock, its processor seconds and its peak memory include scoring.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from persona_cli.models import kinds
from persona_cli.models.base import Histories
from persona_cli.models.interactions import interactions, rows_for, times_for, with_times
from persona_cli.models.preparing import prepare
from persona_cli.models.stored import positions
from persona_cli.models.topk import topk
from persona_cli.profiles.history import fold_history
from persona_cli.workspace.settings import Settings, load

SEQUENCES = ("ml-1m", "beauty-bert4rec", "s3rec-beauty", "s3rec-sports-outdoors", "s3rec-toys-games")
MODELS = ("popular", "knn", "ease", "spectral", "als", "sequence")
K, BLOCK = 10, 1024
LATER = 0.2
START = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Split:
    """Events to learn from, and what users took up afterwards (user_id, item_id)."""

    known: pl.DataFrame
    wanted: pl.DataFrame


def split(folder: Path) -> Split:
    events = pl.read_parquet(folder / "events.parquet")
    if "pos" in events.columns:
        dated = events.with_columns(timestamp=START + pl.duration(seconds="pos"))
        last = pl.col("pos") == pl.col("pos").max().over("user")
        known, later = dated.filter(~last), dated.filter(last)
    else:
        dated = events.with_columns(timestamp=pl.from_epoch("timestamp", time_unit="s").dt.replace_time_zone("UTC"))
        cut = dated["timestamp"].quantile(1 - LATER)
        known, later = dated.filter(pl.col("timestamp") < cut), dated.filter(pl.col("timestamp") >= cut)
        later = later.join(known, on="user", how="semi").join(known, on=["user", "item"], how="anti")
    named = [pl.col("user").cast(pl.String).alias("user_id"), pl.col("item").cast(pl.String).alias("item_id")]
    return Split(
        known.select(
            *named,
            pl.col("timestamp").cast(pl.Datetime("us", "UTC")),
            event_type=pl.lit("click"),
            value=pl.lit(None, dtype=pl.Float64),
            device=pl.lit(None, dtype=pl.String),
            country=pl.lit(None, dtype=pl.String),
            strength=pl.lit(1000, dtype=pl.Int64),
            never=pl.lit(False),
            consumed=pl.lit(True),
        ),
        later.select(named).unique().sort("user_id", "item_id"),
    )


def figures(folder: Path, name: str, settings: Settings) -> tuple[int, float, float]:
    """Users asked, HR@10 and NDCG@10."""
    parts = split(folder)
    end = parts.known["timestamp"].max()
    assert isinstance(end, datetime)
    model = kinds.unfitted(name, settings)
    model.fit(prepare(parts.known, settings, end + timedelta(seconds=1), ordered=True))
    matrix = with_times(interactions(fold_history(parts.known), settings), parts.known)
    rows, times = rows_for(matrix, model.items, settings), times_for(matrix, model.items)
    asked = parts.wanted["user_id"].unique().sort()
    users = positions(asked, matrix.users)
    owner = positions(parts.wanted["user_id"], asked)
    columns = positions(parts.wanted["item_id"], model.items)  # -1: nobody had it before, no list can hold it
    sizes = np.bincount(owner, minlength=len(asked))
    truth = np.zeros((BLOCK, len(model.items)), dtype=bool)
    discounts = 1 / np.log2(np.arange(2, K + 2))
    hits = gains = 0.0
    for start in range(0, len(users), BLOCK):
        block = users[start : start + BLOCK]
        nowhere = {column: pl.Series([None] * len(block), dtype=pl.String) for column in ("device", "country")}
        own = rows[block]
        who = Histories(own, matrix.events[block], pl.DataFrame(nowhere), None if times is None else times[block])
        scores = np.array(model.scores(who))
        scores[np.repeat(np.arange(len(block)), np.diff(own.indptr)), own.indices] = -np.inf
        here = (owner >= start) & (owner < start + len(block)) & (columns >= 0)
        truth[:] = False
        truth[owner[here] - start, columns[here]] = True
        right = np.take_along_axis(truth[: len(block)], topk(scores, K)[0], axis=1)
        ideal = np.cumsum(discounts)[np.minimum(sizes[start : start + len(block)], K) - 1]
        hits += float(right.any(axis=1).sum())
        gains += float((right @ discounts / ideal).sum())
    return len(users), hits / len(users), gains / len(users)


def measured(folder: Path, name: str, flags: dict[str, str]) -> list[str]:
    """A row of the table."""
    settings = load(None, {}).with_flags(flags)
    began = time.monotonic()
    n_users, rate, ndcg = figures(folder, name, settings)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    processor, peak = usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024
    spent = [f"{time.monotonic() - began:,.0f}", f"{processor:,.0f}", f"{peak:,.0f}"]
    return [folder.name, name, f"{n_users:,}", f"{rate:.4f}", f"{ndcg:.4f}", *spent]


def main() -> None:
    default = os.environ.get("PERSONA_TEST_DATA", Path(__file__).parents[2] / "shared" / "data")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", default=",".join((*SEQUENCES, "taobao")), metavar="NAME,NAME")
    parser.add_argument("--models", default=",".join(MODELS), metavar="NAME,NAME")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting; may repeat")
    parser.add_argument("--data", type=Path, default=Path(default), help="folder of the sets; default: %(default)s")
    options = parser.parse_args()
    flags = dict(one.split("=", 1) for one in options.set)
    head = ["set", "model", "users", f"HR@{K}", f"NDCG@{K}", "seconds", "processor", "peak MiB"]
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}", flush=True)
    apart = multiprocessing.get_context("spawn")
    for name in options.sets.split(","):
        for model in options.models.split(","):
            with ProcessPoolExecutor(1, mp_context=apart) as pool:
                row = pool.submit(measured, options.data / name, model, flags).result()
            print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
