"""An expiry against a workspace made anew from what is left, in one run; and how many files it opens.

    python benchmarks/expiry.py [--events 1000000] [--repeat 1] [--folder DIR]

Events of 26 months, of which the first is due; 20,000 users, 2,000 items, item sums and an EASE model. Beside it: the
same events without those that are due into a new workspace, with profiles and the same model. Whole processes would
add the start of both. Files of events that are opened are counted by the files that the expiry reads.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from persona_cli.api import Workspace
from persona_cli.privacy.retention import plan
from persona_cli.privacy.settling import expire
from persona_cli.workspace import tables
from persona_cli.workspace.home import Home

NOW = datetime(2026, 11, 20, tzinfo=UTC)
CUT = datetime(2024, 10, 20, tzinfo=UTC)


def lines(out: Path, n: int) -> None:
    """Events from a month and a half before the cut until now."""
    rng = np.random.default_rng(7)
    first = CUT - timedelta(days=50)
    seconds = np.sort(rng.integers(0, int((NOW - first).total_seconds()), n)) + int(first.timestamp())
    items = (rng.pareto(1.2, n) * 20).astype(int) % 2_000
    frame = pl.DataFrame({
        "user_id": "u" + pl.Series(rng.integers(0, 20_000, n)).cast(pl.String),
        "item_id": "i" + pl.Series(items).cast(pl.String),
        "event_type": pl.Series(["click", "view", "purchase"]).gather(rng.integers(0, 3, n)),
        "timestamp": pl.Series(seconds),
    })  # fmt: skip
    frame.write_ndjson(out)
    frame.filter(pl.col("timestamp") >= int(CUT.timestamp())).write_ndjson(out.with_suffix(".rest"))


def timed(what: Callable[[], object]) -> float:
    began = time.perf_counter()
    what()
    return time.perf_counter() - began


def filled(root: Path, source: Path) -> Home:
    workspace = Workspace.create(root)
    workspace.ingest(str(source), format="jsonl")
    workspace.train("ease")
    return workspace.home


def opened(home: Home) -> list[str]:
    """Spoil every file of events that is due as a whole: what opens one of them fails."""
    table = tables.open_table(home, "events")
    assert table is not None
    due = [file.path for file in table.files if file.last is not None and file.last < f"{CUT:%Y-%m-%d}"]
    for path in due:
        (table.root / path).write_bytes(b"")
    return due


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "persona-bench")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    source = options.folder / f"expiry-{options.events}.jsonl"
    lines(source, options.events)
    seconds: dict[str, list[float]] = {"expire": [], "plan": [], "anew": []}
    for _ in range(options.repeat):
        with tempfile.TemporaryDirectory(dir=options.folder) as place:
            home = filled(Path(place) / "w", source)
            spoiled = opened(home)
            seconds["plan"].append(timed(lambda home=home: plan(home, NOW)))  # type: ignore[misc]
            due = plan(home, NOW)
            seconds["expire"].append(timed(lambda home=home: expire(home, NOW)))  # type: ignore[misc]
            rest = source.with_suffix(".rest")
            seconds["anew"].append(timed(lambda place=place, rest=rest: filled(Path(place) / "rest", rest)))  # type: ignore[misc]
    anew = statistics.median(seconds["anew"])
    print(f"{sum(one.rows for one in due.due):,} of {options.events:,} events due; {len(spoiled)} files of months that "
          "are due as a whole, none of them opened\n")  # fmt: skip
    print("| what | seconds | x anew |\n|---|---|---|")
    for name, label in (("anew", "a workspace anew from the rest"), ("expire", "expire"), ("plan", "expire --dry-run")):
        median = statistics.median(seconds[name])
        print(f"| {label} | {median:.2f} | {median / anew:.3f} |")


if __name__ == "__main__":
    main()
