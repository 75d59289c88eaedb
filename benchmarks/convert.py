"""Real event logs as the files that `persona ingest` reads: events, items and users, and pairs for `evaluate --test`.

    python benchmarks/convert.py TARGET [NAME ...]

The sets are looked for in $PERSONA_TEST_DATA, else in ../shared/data beside the repository. What is dirty stays dirty:
persona has to cope with it, not this script.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path

import polars as pl

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
# Sets without times: an arbitrary first instant.
BEGINNING = pl.datetime(2000, 1, 1, time_unit="us", time_zone="UTC")


def source() -> Path:
    """The folder that holds the sets."""
    return Path(os.environ.get("PERSONA_TEST_DATA") or SHARED)


def ml_100k(data: Path, target: Path) -> None:
    """Ratings 1 to 5 with times; all 1,682 films and 943 users."""
    events = pl.read_parquet(data / "events.parquet").select(
        user_id=_text("user"),
        event_type=pl.lit("rating"),
        item_id=_text("item"),
        timestamp=_iso(_seconds("timestamp")),
        value=pl.col("rating").cast(pl.Float64),
    )
    events.write_ndjson(target / "events.jsonl")
    tags = pl.col("class").str.split(" ")
    pl.read_parquet(data / "items.parquet").select(
        item_id=_text("item_id"), title="movie_title", category=tags.list.first(), tags=tags
    ).write_ndjson(target / "items.jsonl")
    pl.read_parquet(data / "users.parquet").select(user_id=_text("user_id"), role="occupation").write_ndjson(
        target / "users.jsonl"
    )


def ml_1m(data: Path, target: Path) -> None:
    """Order only: a user's n-th film is watched n minutes after the beginning; events are clicks."""
    events = pl.read_parquet(data / "events.parquet").select(
        user_id=_text("user"),
        event_type=pl.lit("click"),
        item_id=_text("item"),
        timestamp=_iso(BEGINNING + pl.duration(minutes=pl.col("pos"))),
    )
    events.write_ndjson(target / "events.jsonl")
    tags = pl.col("genres").str.split("|")
    pl.read_parquet(data / "items.parquet").select(
        item_id=_text("item"), title="title", category=tags.list.first(), tags=tags
    ).write_ndjson(target / "items.jsonl")


def taobao(data: Path, target: Path) -> None:
    """Nine days of a shop: saved, put into the cart, bought (page views are not in the set); CSV."""
    names = {"fav": "save", "cart": "add_to_cart", "buy": "purchase"}
    events = pl.read_parquet(data / "events.parquet").select(
        user_id=_text("user"),
        event_type=pl.col("event").replace_strict(names),
        item_id=_text("item"),
        timestamp=_iso(_seconds("timestamp")),
    )
    events.write_csv(target / "events.csv")
    _test_pairs(data, target)


def online_retail_2010(data: Path, target: Path) -> None:
    """A year of invoices, dirty: every fourth line has no customer, prices of 0, equal lines, fees among the items."""
    lines = pl.read_parquet(data / "transactions.parquet")
    events = lines.select(
        user_id=pl.when(pl.col("user") != 0).then(_text("user")),
        event_type=pl.lit("purchase"),
        item_id="item",
        timestamp=_iso(pl.col("InvoiceDate").dt.replace_time_zone("UTC")),
        value=(pl.col("Quantity") * pl.col("UnitPrice")).round(2),
        currency=pl.lit("GBP"),
        country="Country",
        invoice=_text("InvoiceNo"),
    )
    events.write_csv(target / "events.csv")
    lines.sort("InvoiceDate", "item", "Description").group_by("item", maintain_order=True).agg(
        pl.col("Description").last(), pl.col("UnitPrice").last()
    ).sort("item").rename({"item": "item_id", "Description": "title", "UnitPrice": "price"}).write_csv(
        target / "items.csv"
    )


def gowalla(data: Path, target: Path) -> None:
    """The published split of check-ins: no times at all, so everything happens at once."""
    pl.read_parquet(data / "train.parquet").select(
        user_id=_text("user"),
        event_type=pl.lit("click"),
        item_id=_text("item"),
        timestamp=_iso(BEGINNING),
    ).write_csv(target / "events.csv")
    _test_pairs(data, target)


SETS: dict[str, Callable[[Path, Path], None]] = {
    "ml-100k": ml_100k,
    "ml-1m": ml_1m,
    "taobao": taobao,
    "online-retail-2010": online_retail_2010,
    "gowalla": gowalla,
}


def convert(name: str, target: Path) -> Path:
    """Write the files of one set into `target/name`, unless they are there; answers that folder."""
    folder = target / name
    finished = folder / "converted"
    if not finished.exists():
        folder.mkdir(parents=True, exist_ok=True)
        SETS[name](source() / name, folder)
        finished.touch()
    return folder


def _test_pairs(data: Path, target: Path) -> None:
    pl.read_parquet(data / "test.parquet").select(user_id=_text("user"), item_id=_text("item")).write_csv(
        target / "test.csv"
    )


def _text(column: str) -> pl.Expr:
    return pl.col(column).cast(pl.String)


def _seconds(column: str) -> pl.Expr:
    return pl.from_epoch(pl.col(column), "s").dt.replace_time_zone("UTC")


def _iso(time: pl.Expr) -> pl.Expr:
    return time.dt.strftime("%Y-%m-%dT%H:%M:%SZ")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(SETS))
    options = parser.parse_args()
    if unknown := set(options.names) - set(SETS):
        parser.error(f"no set is named {', '.join(sorted(unknown))}; known: {', '.join(SETS)}")
    for name in options.names or SETS:
        folder = convert(name, options.target)
        for file in sorted(path for path in folder.iterdir() if path.suffix in (".csv", ".jsonl")):
            print(f"{file}  {file.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
