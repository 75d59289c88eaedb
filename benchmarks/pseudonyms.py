"""What pseudonyms cost beside reading and writing the same records, and unicity beside plain sets.

python benchmarks/pseudonyms.py --shared ../shared/data

The events of ml-1m as JSON lines, CSV and Parquet. The peer of pseudonymising parses every record, makes one HMAC for
each id and writes the record: `json.loads` and `json.dumps`, the csv module, and a dictionary of the ids in polars;
persona also checks every record and measures unicity. The peer of unicity draws 4 items of each user and intersects the
sets of users who have them. Processor seconds of one process, median of `--rounds`.
"""

from __future__ import annotations

import argparse
import csv
import hmac
import io
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import polars as pl

from persona_cli.privacy.anonymity import matrix_of, unicity
from persona_cli.privacy.pseudonymize import naming, pseudonymize_file
from persona_cli.privacy.pseudonyms import places
from persona_cli.privacy.recipients import Key

KEY = Key.of(bytes(range(32)))


def seconds(work: Callable[[], object], rounds: int) -> float:
    taken = []
    for _ in range(rounds):
        began = time.process_time()
        work()
        taken.append(time.process_time() - began)
    return statistics.median(taken)


def mac(text: str) -> str:
    return hmac.digest(KEY.secret, text.encode(), "sha256").hex()[:32]


def plain_json(source: Path, out: Path) -> None:
    with source.open() as lines, out.open("w") as stream:
        for line in lines:
            record = json.loads(line)
            record["user_id"] = mac(record["user_id"])
            stream.write(json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n")


def plain_csv(source: Path, out: Path) -> None:
    with source.open(newline="") as lines, out.open("w", newline="") as stream:
        reader, writer = csv.reader(lines), csv.writer(stream)
        names = next(reader)
        writer.writerow(names)
        user = names.index("user_id")
        for row in reader:
            row[user] = mac(row[user])
            writer.writerow(row)


def plain_parquet(source: Path, out: Path) -> None:
    rows = pl.read_parquet(source)
    ids = rows["user_id"].unique()
    named = pl.Series([mac(id) for id in ids])
    rows.with_columns(pl.col("user_id").replace_strict(ids, named)).write_parquet(out, compression="zstd")


def sets(users: list[str], items: list[str], seed: int) -> float:
    """The share of users who are alone with 4 of their items, with sets."""
    rng = random.Random(seed)
    holders: dict[str, set[str]] = {}
    histories: dict[str, set[str]] = {}
    for user, item in zip(users, items, strict=True):
        holders.setdefault(item, set()).add(user)
        histories.setdefault(user, set()).add(item)
    drawn = [rng.sample(sorted(own), 4) for own in histories.values() if len(own) >= 4]
    return sum(len(set.intersection(*(holders[item] for item in four))) == 1 for four in drawn) / len(drawn)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    events = pl.read_parquet(given.shared / "ml-1m" / "events.parquet").rename({"user": "user_id", "item": "item_id"})
    events = events.with_columns(pl.col("user_id", "item_id").cast(pl.String))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        events.write_ndjson(folder / "in.jsonl")
        events.write_csv(folder / "in.csv")
        events.write_parquet(folder / "in.parquet")
        print("| format | peer, s | pseudonymize, s | ratio |\n|---|---|---|---|")
        for format, peer in (("jsonl", plain_json), ("csv", plain_csv), ("parquet", plain_parquet)):
            source = folder / f"in.{format}"
            theirs = seconds(lambda s=source, p=peer: p(s, folder / "peer"), given.rounds)  # type: ignore[misc]
            ours = seconds(
                lambda s=source, f=format: pseudonymize_file(  # type: ignore[misc]
                    s, folder / f"out.{f}", io.BytesIO(), naming(KEY, "bench"), places([])
                ),
                given.rounds,
            )
            print(f"| {format} | {theirs:.2f} | {ours:.2f} | {ours / theirs:.2f} |")
    users, items = events["user_id"].to_list(), events["item_id"].to_list()
    theirs = seconds(lambda: sets(users, items, 0), given.rounds)
    ours = seconds(lambda: unicity(matrix_of(events["user_id"], events["item_id"])), given.rounds)
    found = unicity(matrix_of(events["user_id"], events["item_id"]))
    print(f"\nunicity: sets {theirs:.2f} s, sparse products {ours:.2f} s: {ours / theirs:.2f}")
    print(f"sets {sets(users, items, 0):.4f}, products {found.share:.4f} ({found.low:.4f}–{found.high:.4f})")
    for many in (2, 4, 6, 8):
        one = unicity(matrix_of(events["user_id"], events["item_id"]), many)
        print(f"{many} items: {one.share:.1%} ({one.low:.1%}–{one.high:.1%})")


if __name__ == "__main__":
    main()
