"""What `persona privacy records` costs: its parts, and against building the profiles anew, in one run.

    python benchmarks/records.py [--data ../shared/data/ml-1m] [--repeat 3] [--folder DIR]

Ratings of MovieLens 1M in their order, attributes of users, titles of items, item sums as `persona train` keeps them.
Processor seconds of one process, medians; ratios to `profile build --rebuild`.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from persona_cli.events.ingest import ingest
from persona_cli.models import gram_store
from persona_cli.models.interactions import interactions
from persona_cli.privacy.records import risks
from persona_cli.privacy.records.documents import record
from persona_cli.privacy.records.facts import found
from persona_cli.privacy.records.risks import connecting, keys, measures
from persona_cli.profiles.history import history
from persona_cli.profiles.sync import sync
from persona_cli.workspace.home import Home, create


def workspace(data: Path, folder: Path) -> Home:
    home = create(folder / "w")
    ratings = pl.read_parquet(data / "events.parquet")
    minutes = pl.duration(minutes=pl.col("pos") + 60 * (pl.col("user").cast(pl.Int64) % 200))
    ratings.select(
        user_id=pl.col("user").cast(pl.String),
        item_id=pl.col("item").cast(pl.String),
        event_type=pl.lit("rating"),
        value=pl.lit(5.0),
        timestamp=pl.lit(datetime(2026, 1, 1, tzinfo=UTC)) + minutes,
    ).write_parquet(folder / "events.parquet")
    ingest(home, [str(folder / "events.parquet")])
    for kind in ("users", "items"):
        ingest(home, [str(data / f"{kind}.parquet")], kind=kind)
    sync(home)
    gram_store.update(home, interactions(history(home, purpose="model_training"), home.settings), home.settings)
    return home


def seconds(work: Callable[[], Any], repeat: int) -> float:
    taken = []
    for _ in range(repeat):
        began = time.process_time()
        work()
        taken.append(time.process_time() - began)
    return statistics.median(taken)


def security(home: Home) -> None:
    connecting.cache_clear()
    measures(home)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/ml-1m"))
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        home = workspace(given.data, Path(folder))
        parts: dict[str, Callable[[], Any]] = {
            "profile build --rebuild": lambda: sync(home, True),
            "privacy records": lambda: record(home, Path(folder) / "out"),
            "… unicity": lambda: risks.uniqueness(home),
            "… co-occurrences of single people": lambda: risks.co_occurrences(home),
            "… attributes that recognise people": lambda: risks.quasi_identifiers(home, list(keys(home)["users"])),
            "… what tables and files there are": lambda: found(home),
            "… measures of security": lambda: security(home),
        }
        taken = {name: seconds(work, given.repeat) for name, work in parts.items()}
        whole = taken["profile build --rebuild"]
        print("| | processor seconds | of a rebuild |\n|---|---|---|")
        for name, spent in taken.items():
            print(f"| {name} | {spent:.2f} | {spent / whole:.2f} |")


if __name__ == "__main__":
    main()
