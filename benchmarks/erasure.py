"""1,000 users of MovieLens 1M forgotten: their part of the statistics subtracted, against one rebuild, in one run.

    python benchmarks/erasure.py --shared ../shared/data [--users 1000] [--repeat 3] [--folder DIR]

Statistics are what every model stands on: history, profiles and the item sums. Subtracting reads the rows of those who
go; the rebuild folds the events that stay. Both start from the same workspace, whose events were removed before, and
must end in the same digest. Beside them the whole of `forget` (events, rejected lines, statistics, an EASE model fitted
again, old versions deleted) and of `verify-erasure`, and a workspace made anew from a file without these users.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from persona_cli.api import Workspace
from persona_cli.models import gram_store
from persona_cli.models.interactions import interactions_of
from persona_cli.privacy import places
from persona_cli.privacy.erasure import forget, verify
from persona_cli.privacy.places import Needles
from persona_cli.privacy.searching import Residue
from persona_cli.privacy.settling import bring_profiles
from persona_cli.profiles.history import history, signal_events
from persona_cli.profiles.sync import sync
from persona_cli.workspace.home import Home, open_home


def timed(what: Callable[[], Any]) -> float:
    began = time.perf_counter()
    what()
    return time.perf_counter() - began


def events_of(shared: Path) -> pl.DataFrame:
    found = pl.read_parquet(shared / "ml-1m" / "events.parquet").rename({"user": "user_id", "item": "item_id"})
    at = pl.lit(datetime(2020, 1, 1, tzinfo=UTC)) + pl.duration(hours=pl.col("pos"))
    return found.select(pl.col("user_id", "item_id").cast(pl.String), event_type=pl.lit("click"), timestamp=at)


def filled(root: Path, source: Path) -> Home:
    workspace = Workspace.create(root)
    workspace.ingest(str(source))
    workspace.train("ease")
    return workspace.home


def summed_anew(home: Home) -> None:
    shutil.rmtree(home.path("models", "gram"))
    matrix = interactions_of(signal_events(home).collect(), home.settings, history(home))
    gram_store.update(home, matrix, home.settings)


def once(home: Home, gone: pl.Series, rest: Path, here: Path) -> dict[str, float]:
    """Seconds of each step, each in a copy of the workspace; what must be equal is."""
    one, other, whole = (open_home(Path(shutil.copytree(home.root, here / name))) for name in ("one", "other", "whole"))
    users = gone.to_list()
    needles = Needles(frozenset(users))
    seconds = {"events removed": timed(lambda: places.remove(one, needles))}
    places.remove(other, needles)
    seconds["history and profiles, subtracted"] = timed(lambda: bring_profiles(one, gone))
    seconds["item sums, subtracted"] = timed(lambda: gram_store.subtract(one, gone))
    seconds["history and profiles, rebuilt"] = timed(lambda: sync(other, rebuild=True))
    seconds["item sums, rebuilt"] = timed(lambda: summed_anew(other))
    assert gram_store.stored_digest(one) == gram_store.stored_digest(other)
    assert history(one).equals(history(other))
    seconds["forget"] = timed(lambda: forget(whole, users))
    left: list[Residue] = []
    seconds["verify-erasure"] = timed(lambda: left.extend(verify(whole, users)))
    assert gram_store.stored_digest(whole) == gram_store.stored_digest(other) and not left, left[:5]
    seconds["a new workspace"] = timed(lambda: filled(here / "new", rest))
    for name in ("one", "other", "whole", "new"):
        shutil.rmtree(here / name)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--users", type=int, default=1000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        here = Path(folder)
        events = events_of(given.shared)
        everybody = events["user_id"].unique().sort()
        gone = everybody.sample(given.users, seed=7).sort()
        source, rest = here / "events.parquet", here / "rest.parquet"
        events.write_parquet(source)
        events.filter(~pl.col("user_id").is_in(gone.implode())).write_parquet(rest)
        home = filled(here / "w", source)
        for _ in range(given.repeat):
            seconds = once(home, gone, rest, here)
            for what, took in seconds.items():
                found.setdefault(what, []).append(took)
    best = {what: min(took) for what, took in found.items()}
    print(f"{given.users:,} of {len(everybody):,} users, best of {given.repeat} (median)\n")
    print("| what | s |\n|---|---|")
    for what, took in found.items():
        print(f"| {what} | {min(took):.2f} ({statistics.median(took):.2f}) |")
    for name in ("history and profiles", "item sums"):
        print(f"\n{name}: subtracted / rebuilt {best[f'{name}, subtracted'] / best[f'{name}, rebuilt']:.2f}")
    parts = [
        sum(best[f"{name}, {how}"] for name in ("history and profiles", "item sums"))
        for how in ("subtracted", "rebuilt")
    ]
    print(f"\nstatistics: {parts[0]:.2f} s subtracted, {parts[1]:.2f} s rebuilt: {parts[0] / parts[1]:.2f}")
    print(f"\nforget / a new workspace: {best['forget'] / best['a new workspace']:.2f}")


if __name__ == "__main__":
    main()
