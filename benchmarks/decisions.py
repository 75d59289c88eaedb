"""What keeping decisions costs: lists written with and without `--log`, and joined with what answers to them.

    python benchmarks/decisions.py [--users 300000] [--items 2000] [--top 10] [--answers 0.3]

A new workspace with that many generated users (4 events each), profiles built, the popular list trained. Both sides are
`recommend --out lists.jsonl` in processes of their own, the one without `--log` before and after the other. Then every
so-manieth list is answered by a click on its second item, half of them with its decision_id, these events are ingested,
and `decisions join` is run. Printed are seconds by the clock, processor seconds and lists a second.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl


def persona(*words: str) -> tuple[float, float]:
    """Seconds by the clock and of the processor of one command."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "persona_cli", *words], capture_output=True)
    if done.returncode:
        raise SystemExit(f"persona {' '.join(words)}: {done.stderr.decode()[-600:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter() - began, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=300_000)
    parser.add_argument("--items", type=int, default=2_000)
    parser.add_argument("--top", type=int, default=10)
    parser.add_argument("--answers", type=float, default=0.3)
    given = parser.parse_args()
    n, rng = given.users, np.random.default_rng(3)
    with tempfile.TemporaryDirectory() as folder:
        root, events, lists = (str(Path(folder) / name) for name in ("w", "events.csv", "lists.jsonl"))
        made = pl.DataFrame(
            {"who": np.repeat(np.arange(n), 4), "item": (given.items * rng.random(4 * n) ** 2).astype(int),
             "at": 1_767_225_600_000_000 + rng.integers(0, 60 * 86_400, 4 * n) * 1_000_000}
        )  # fmt: skip
        made.select(
            user_id=pl.format("u{}", pl.col("who").cast(pl.String).str.zfill(7)),
            event_type=pl.lit("click"),
            item_id=pl.format("i{}", "item"),
            timestamp=pl.from_epoch("at", "us").dt.strftime("%Y-%m-%dT%H:%M:%SZ"),
        ).write_csv(events)
        for words in (("init", root), ("ingest", events, "-w", root), ("profile", "build", "-w", root)):
            persona(*words)
        persona("train", "--model", "popular", "-w", root)
        serve = ("recommend", "--top", str(given.top), "--out", lists, "-w", root)
        plain = [persona(*serve)]
        logged = persona(*serve, "--log")
        answering = pl.read_ndjson(lists)
        plain.append(persona(*serve))
        answering = answering.filter(pl.Series(rng.random(answering.height) < given.answers))
        later = pl.lit((time.time_ns() // 1000) + 60_000_000)
        answering.select(
            "user_id",
            event_type=pl.lit("click"),
            item_id=pl.col("items").list.get(1).struct.field("item_id"),
            timestamp=pl.from_epoch(later, "us").dt.strftime("%Y-%m-%dT%H:%M:%SZ"),
            decision_id=pl.when(pl.int_range(pl.len()) % 2 == 0).then("decision_id"),
        ).write_ndjson(Path(folder) / "answers.jsonl")
        persona("ingest", str(Path(folder) / "answers.jsonl"), "-w", root)
        joined = persona("decisions", "join", "-w", root, "--format", "csv", "--out", str(Path(folder) / "rates.csv"))
        rates = pl.read_csv(Path(folder) / "rates.csv")
        told = rates.select(
            clicks=(pl.col("click") * pl.col("decisions")).sum(), decisions=pl.col("decisions").sum()
        ).row(0)
        bytes_ = sum(file.stat().st_size for file in Path(root, "decisions").rglob("*") if file.is_file())
    mean = [sum(part) / len(plain) for part in zip(*plain, strict=True)]
    print(f"{n:,} lists of {given.top}, {given.items:,} items; {answering.height:,} answered")
    print("| | s | processor s | lists/s |\n|---|---|---|---|")
    for name, (clock, processor) in (("recommend", mean), ("recommend --log", logged), ("decisions join", joined)):
        print(f"| {name} | {clock:.1f} | {processor:.1f} | {n / clock:,.0f} |")
    print(f"with / without --log: {mean[0] / logged[0]:.2f} by the clock, {mean[1] / logged[1]:.2f} by processor time")
    print(f"{bytes_ / n:.0f} bytes a decision; joined: {told[0]:,.0f} of {told[1]:,} decisions clicked")


if __name__ == "__main__":
    main()
