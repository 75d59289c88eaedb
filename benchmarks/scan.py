"""privacy scan: recall on the planted secrets by kind; false alarms, and seconds, on the real logs of ../shared/data.

python benchmarks/scan.py [--shared DIR] [--rows N]

Recall: the secrets of tests/privacy/planted.jsonl, each found as its own kind, over the value where it stands. False
alarms: the share of the distinct values of a log that are flagged (every column, numbers as their text). The event
dialects hold real addresses, which their documentation shows; those are listed apart, by what their field is called.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests" / "privacy"))
from planted import KINDS, plants  # noqa: E402

from persona_cli.privacy.detectors import find, mask  # noqa: E402
from persona_cli.privacy.scan import Scanner  # noqa: E402


def recall() -> Counter[str]:
    """How many of the 25 plants of each kind a scan of one row finds, as that kind."""
    found: Counter[str] = Counter()
    for plant in plants():
        scanner = Scanner()
        scanner.add(plant.table, pl.DataFrame({plant.field: [plant.value]}))
        found[plant.kind] += any(one.kind == plant.kind for one in scanner.findings())
    return found


def recall_elsewhere(places: int = 20) -> dict[str, float]:
    """Share by kind of the secrets found when each stands where others were planted: their own names no longer help.

    Passwords and tokens stay out, since only their place makes them such.
    """
    rng, planted = random.Random(7), plants()
    found: dict[str, list[bool]] = {}
    for plant in planted:
        for place in rng.sample([one for one in planted if one.kind != plant.kind], places):
            secret = json.loads(f'"{plant.secret}"') if plant.field == "props" else plant.secret
            secret = json.dumps(secret, ensure_ascii=False)[1:-1] if place.field == "props" else secret
            value = place.value.replace(place.secret, secret)
            if place.field == "props" and f":{secret}}}" in value:
                continue  # a number gave way to a text without quotes
            scanner = Scanner()
            scanner.add(place.table, pl.DataFrame({place.field: [value]}))
            found.setdefault(plant.kind, []).append(any(one.kind == plant.kind for one in scanner.findings()))
    return {kind: sum(found[kind]) / len(found[kind]) for kind in KINDS if kind != "url_secret"}


def tables(folder: Path) -> Iterator[tuple[str, pl.DataFrame]]:
    """Each Parquet file of a log, its columns as texts, whole numbers as ids are written."""
    for file in sorted(folder.glob("*.parquet")):
        yield file.name, pl.read_parquet(file).cast(pl.String, strict=False)


def false_alarms(folder: Path) -> tuple[int, int, Counter[str], float]:
    """(distinct values, flagged values, flagged by kind, seconds), over all columns of all files of a log."""
    values = flagged = 0
    kinds: Counter[str] = Counter()
    seconds = 0.0
    for name, frame in tables(folder):
        values += sum(frame[column].drop_nulls().n_unique() for column in frame.columns)
        scanner, start = Scanner(), time.perf_counter()
        scanner.add(name, frame)
        findings = scanner.findings()
        seconds += time.perf_counter() - start
        flagged += sum(one.values for one in findings)
        kinds.update({one.kind: one.values for one in findings})
    return values, flagged, kinds, seconds


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """(last two keys, text) of every text and whole number of a JSON value."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, f"{name.rpartition('.')[2]}.{key}")
    elif isinstance(value, list):
        for inner in value:
            yield from leaves(inner, name)
    elif isinstance(value, str | int) and not isinstance(value, bool):
        text = str(value)
        if text[:1] in "{[":
            try:
                yield from leaves(json.loads(text), name)
                return
            except ValueError:
                pass
        yield name, text


def dialects(folder: Path) -> Iterator[tuple[str, str, str]]:
    """(file, name of the field, text) of every value of the event dialects."""
    for file in sorted(folder.iterdir()):
        lines = file.read_text(encoding="utf-8").splitlines()
        if file.suffix == ".jsonl":
            for line in lines:
                for name, text in leaves(json.loads(line)):
                    yield file.name, name, text
        elif file.suffix == ".csv":
            for row in csv.DictReader(lines):
                for name, text in leaves({key: text for key, text in row.items() if key}):
                    yield file.name, name, text
        else:
            for row in csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE):
                for text in row:
                    for name, leaf in leaves({"": text}):
                        yield file.name, name, leaf


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, default=HERE.parents[1] / "shared" / "data")
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of made-up events for the time of a scan")
    given = parser.parse_args()
    found = recall()
    print("recall of planted secrets")
    for kind in KINDS:
        print(f"  {kind:<12} {found[kind]:>3} of 25")
    print(f"  {'all':<12} {sum(found.values()):>3} of 300")
    elsewhere = recall_elsewhere()
    print("in the places of other kinds: " + ", ".join(f"{kind} {share:.0%}" for kind, share in elsewhere.items()))
    if given.shared.is_dir():
        print("false alarms on real logs")
        for folder in sorted(path for path in given.shared.iterdir() if any(path.glob("*.parquet"))):
            values, flagged, kinds, seconds = false_alarms(folder)
            share = f"{flagged:>6,} of {values:>9,} values {flagged / values:>8.3%}"
            print(f"  {folder.name:<22} {share} {seconds:>5.1f} s {dict(kinds) or ''}")
        seen: dict[str, set[str]] = {}
        alarms: dict[str, dict[tuple[str, str], tuple[str, str]]] = {}
        for file, name, text in dialects(given.shared / "event-dialects"):
            seen.setdefault(file, set()).add(text)
            for one in find(text, name.removeprefix(".")):
                if one.valid:
                    alarms.setdefault(file, {})[one.kind, one.text] = (name.rpartition(".")[2], mask(one.text))
        for file, texts in seen.items():
            places = Counter(f"{kind} in {name}" for (kind, _), (name, _) in alarms.get(file, {}).items())
            print(f"  {file:<30} {sum(places.values()):>3} of {len(texts):>6,} values: {dict(places) or ''}")
    rows = pl.DataFrame({"n": range(given.rows)})
    events = rows.select(
        user_id=pl.format("u{}", pl.col("n") % 50_000),
        item_id=pl.format("item-{}", pl.col("n") % 9_001),
        page=pl.format("/products/{}", pl.col("n") % 9_001),
        query=pl.when(pl.col("n") % 9 == 0).then(pl.format("blue shoes {}", pl.col("n") % 3_000)),
        props=pl.struct(
            step=pl.col("n") % 7, ref=pl.format("c-{}", "n"), at=pl.lit("2026-03-01T10:00:00Z")
        ).struct.json_encode(),
    )
    scanner, start = Scanner(), time.perf_counter()
    for part in events.iter_slices(50_000):
        scanner.add("events", part)
    print(f"made-up events: {given.rows:,} rows, {time.perf_counter() - start:.1f} s, {scanner.findings()}")


if __name__ == "__main__":
    main()
