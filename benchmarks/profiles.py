"""Profiles of many users: built from nothing, after an increment, and of one user at a past moment.

    python benchmarks/profiles.py [--rows 10000000] [--users 500000] [--repeat 3] [--folder DIR]

Sittings of about five events, log-normal activity, Zipf items, 90 days, stored by the code that ingest stores by.
Each increment is another day with events of 1 % of the users. The rebuild is a whole process, increments are timed as
processes and as calls. The peer of `persona profile show USER --as-of T` is a process in which polars scans
the same columns of the same files for that user and the time before T.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from persona_cli.events.batch import event_ids, rows_schema
from persona_cli.events.store import EventStore
from persona_cli.profiles.fold import NEEDED
from persona_cli.profiles.read import profile, profiles
from persona_cli.profiles.sync import sync
from persona_cli.workspace import home as homes
from persona_cli.workspace import tables

START = datetime(2026, 1, 1, tzinfo=UTC)
DAYS, ITEMS, LENGTH = 90, 50_000, 5
DAY = 86_400_000_000
BLOCK = 1_000_000
PERSONA = [sys.executable, "-m", "persona_cli"]
PEER = """
import sys
from datetime import datetime
import polars as pl
files, columns = sys.argv[3].split(","), sys.argv[4].split(",")
rows = pl.scan_parquet(files).filter(
    (pl.col("user_id") == sys.argv[1]) & (pl.col("timestamp") < datetime.fromisoformat(sys.argv[2]))
).select(columns).collect()
print(rows.height)
"""


def add_events(home: homes.Home, rows: int, users: np.ndarray, start: int, days: int, seed: int) -> None:
    """About `rows` events of `users` (drawn by activity) from microsecond `start` on, through the store of ingest."""
    rng = np.random.default_rng(seed)
    cdf = np.cumsum(np.random.default_rng(1).lognormal(0.0, 1.3, len(users)))
    item_cdf = np.cumsum(1.0 / np.arange(1, ITEMS + 1) ** 0.9)
    type_cdf = np.cumsum([0.35, 0.4, 0.15, 0.02, 0.05])
    types = np.array(["click", "view", "dwell", "purchase", "save", "search"])
    devices, countries = np.array(["mobile", "desktop", "tablet"]), np.array(["US", "DE", "FR", "IN", "BR", "JP"])
    lengths = rng.geometric(1 / LENGTH, 2 * rows // LENGTH)
    sittings = int(np.searchsorted(np.cumsum(lengths), rows))
    lengths = lengths[:sittings]
    n = int(lengths.sum())
    began = np.repeat(rng.integers(0, days * DAY, sittings), lengths)
    place = np.arange(n) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    moment = start + began + place * 40_000_000 + rng.integers(0, 40_000_000, n)
    order = np.argsort(moment)
    sitter = np.searchsorted(cdf, rng.random(sittings) * cdf[-1])
    sitter[: len(users)] = rng.permutation(len(users))[:sittings]  # everyone comes at least once
    owner = users[np.repeat(sitter, lengths)][order]
    device = np.repeat(rng.integers(0, 3, sittings), lengths)[order]
    moment = moment[order]
    store = EventStore(home, "keep-first", datetime.now(UTC), ["benchmark"])
    schema = rows_schema("events")
    for at in range(0, n, BLOCK):
        size = min(BLOCK, n - at)
        part = slice(at, at + size)
        frame = pl.DataFrame(
            {
                "user_id": "u" + pl.Series(owner[part]).cast(pl.String),
                "event_type": types[np.searchsorted(type_cdf, rng.random(size))],
                "item_id": "i" + pl.Series(np.searchsorted(item_cdf, rng.random(size) * item_cdf[-1])).cast(pl.String),
                "timestamp": pl.Series(moment[part]).cast(pl.Datetime("us", "UTC")),
                "value": np.round(rng.lognormal(2, 1, size), 2),
                "device": devices[device[part]],
                "country": countries[owner[part] % 6],
                "given": pl.Series([False]).new_from_index(0, size),
                "line": pl.int_range(1, size + 1, eager=True),
            }
        ).to_arrow()
        columns = [
            frame[name].cast(field.type) if name in frame.column_names else pa.nulls(size, field.type)
            for name, field in zip(schema.names, schema, strict=True)
        ]
        table = pa.table(columns, schema=schema)
        table = table.set_column(schema.get_field_index("event_id"), "event_id", event_ids(table))
        store.add(table, 0)
    store.finish()
    store.commit({})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--users", type=int, default=500_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "persona-bench-profiles")
    options = parser.parse_args()
    workspace: Path = options.folder / "workspace"
    shutil.rmtree(workspace, ignore_errors=True)
    workspace.parent.mkdir(parents=True, exist_ok=True)
    home = homes.create(workspace)
    start = int(START.timestamp()) * 1_000_000
    add_events(home, options.rows, np.arange(options.users), start, DAYS, 7)
    build = [*PERSONA, "profile", "build", "-w", str(workspace), "--quiet"]
    rows: list[tuple[str, list[tuple[float, float]], str]] = [("rebuild", [timed(build)], "rebuild")]
    rng = np.random.default_rng(3)
    few = options.users // 100
    increments, inside = [], []
    for day in range(2 * options.repeat):
        touched = rng.choice(options.users, few, replace=False)
        add_events(home, few * LENGTH, touched, start + (DAYS + day) * DAY, 1, 100 + day)
        (increments if day % 2 else inside).append(timed(build) if day % 2 else timed_here(lambda: sync(home)))
    rows += [
        ("increment, 1 % of the users", increments, "rebuild"),
        ("the same, without starting a process", inside, "rebuild"),
    ]
    table = tables.open_table(home, "events")
    assert table is not None
    moment = START + timedelta(days=DAYS // 2)
    user = f"u{options.users // 3}"
    columns = [name for name in NEEDED if name in table.schema.names]
    files = ",".join(str(table.root / file.path) for file in table.files)
    peer = [sys.executable, "-c", PEER, user, moment.isoformat(), files, ",".join(columns)]
    show = [*PERSONA, "profile", "show", user, "--as-of", moment.isoformat(), "-w", str(workspace), "--json"]
    both = [(timed(peer), timed(show)) for _ in range(2 * options.repeat + 1)]
    rows += [("polars scan", [pair[0] for pair in both], "polars scan")]
    rows += [("`profile show --as-of`", [pair[1] for pair in both], "polars scan")]
    scan = pl.scan_parquet(files.split(",")).select(columns)
    scan = scan.filter((pl.col("user_id") == user) & (pl.col("timestamp") < moment))
    calls = [(timed_here(scan.collect), timed_here(lambda: profile(home, user, moment))) for _ in range(len(both))]
    rows += [("polars scan, as a call", [pair[0] for pair in calls], "polars scan, as a call")]
    rows += [("`Workspace.profile(…, as_of)`, as a call", [pair[1] for pair in calls], "polars scan, as a call")]
    rows += [("all profiles as read", [timed_here(lambda: profiles(home).collect())], "rebuild")]
    rows += [("all profiles as of the middle", [timed_here(lambda: profiles(home, as_of=moment).collect())], "rebuild")]
    print(f"{options.rows:,} events, {options.users:,} users; load average {os.getloadavg()[0]:.1f}")
    print("| step | seconds | x | processor seconds | x | of |\n|---|---|---|---|---|---|")
    medians = {name: [statistics.median(part) for part in zip(*runs, strict=True)] for name, runs, _ in rows}
    for name, _, of in rows:
        (seconds, cpu), (whole, whole_cpu) = medians[name], medians[of]
        print(f"| {name} | {seconds:.2f} | {seconds / whole:.3f} | {cpu:.2f} | {cpu / whole_cpu:.3f} | {of} |")


def timed(command: list[str]) -> tuple[float, float]:
    """Seconds and processor seconds of a whole process."""
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{command} ended with {os.waitstatus_to_exitcode(status)}")
    return time.monotonic() - began, usage.ru_utime + usage.ru_stime


def timed_here(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds and processor seconds of a call."""
    began, used = time.monotonic(), time.process_time()
    work()
    return time.monotonic() - began, time.process_time() - used


if __name__ == "__main__":
    main()
