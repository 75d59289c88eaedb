"""Write native JSON lines for the ingest benchmark: N events, 500,000 users, 50,000 items, 90 days, 0.1 % bad lines.

    python benchmarks/native_lines.py OUT.jsonl --rows 10000000 [--shuffle] [--start-day 0] [--seed 7]

User activity is log-normal, item popularity Zipf, times are sorted unless --shuffle.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import polars as pl

USERS, ITEMS, DAYS = 500_000, 50_000, 90
START_US = 1_767_225_600_000_000  # 2026-01-01T00:00:00Z
DAY_US = 86_400_000_000
BAD_LINES = [
    '{"user_id":"u17","event_type":"click","item_id":"i5","timest',
    "not json at all",
    '{"event_type":"click","item_id":"i5","timestamp":"2026-01-05T00:00:00Z"}',
    '{"user_id":"u17","event_type":"click","item_id":"i5","timestamp":"yesterday"}',
    '{"user_id":{"id":17},"event_type":"click","item_id":"i5","timestamp":"2026-01-05T00:00:00Z"}',
]


def write(out: Path, rows: int, *, shuffle: bool, start_day: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    user_p = rng.lognormal(0.0, 1.3, USERS)
    user_cdf = np.cumsum(user_p / user_p.sum())
    item_cdf = np.cumsum(1.0 / np.arange(1, ITEMS + 1) ** 0.9)
    item_cdf /= item_cdf[-1]
    types = np.array(["click", "view", "dwell", "purchase", "save", "search"])
    type_cdf = np.cumsum([0.35, 0.4, 0.15, 0.02, 0.05, 0.03])
    devices = np.array(["mobile", "desktop", "tablet"])
    pages = np.array(["/home", "/search", "/item", "/cart", "/account"])
    countries = np.array(["US", "DE", "FR", "IN", "BR", "JP"])
    times = np.sort(rng.integers(0, DAYS * DAY_US, rows)) + START_US + start_day * DAY_US
    if shuffle:
        rng.shuffle(times)
    block = 1_000_000
    with out.open("wb") as file:
        for at in range(0, rows, block):
            n = min(block, rows - at)
            stamp = pl.Series(times[at : at + n]).cast(pl.Datetime("us"))
            frame = pl.DataFrame(
                {
                    "user_id": pl.Series(np.searchsorted(user_cdf, rng.random(n))).cast(pl.String),
                    "event_type": types[np.searchsorted(type_cdf, rng.random(n)).clip(0, 5)],
                    "target": pages[rng.integers(0, 5, n)],
                    "item_id": pl.Series(np.searchsorted(item_cdf, rng.random(n))).cast(pl.String),
                    "timestamp": stamp,
                    "value": np.round(rng.lognormal(2, 1, n), 2),
                    "device": devices[rng.integers(0, 3, n)],
                    "page": pages[rng.integers(0, 5, n)],
                    "country": countries[rng.integers(0, 6, n)],
                }
            )
            text = _lines(frame)
            bad = np.flatnonzero(rng.random(n) < 0.001)
            text = text.scatter(bad, [BAD_LINES[i % len(BAD_LINES)] for i in range(len(bad))])
            pl.DataFrame({"line": text}).write_csv(file, include_header=False, quote_style="never", separator="\x01")


def _lines(frame: pl.DataFrame) -> pl.Series:
    parts = [
        pl.lit('{"user_id":"u'), pl.col("user_id"),
        pl.lit('","event_type":"'), pl.col("event_type"),
        pl.lit('","target":"'), pl.col("target"),
        pl.lit('","item_id":"i'), pl.col("item_id"),
        pl.lit('","timestamp":"'), pl.col("timestamp").dt.strftime("%Y-%m-%dT%H:%M:%S%.3fZ"),
        pl.lit('","value":'), pl.col("value").cast(pl.String),
        pl.lit(',"context":{"device":"'), pl.col("device"),
        pl.lit('","page":"'), pl.col("page"),
        pl.lit('","country":"'), pl.col("country"), pl.lit('"}}'),
    ]  # fmt: skip
    return frame.select(pl.concat_str(parts).alias("line")).to_series()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--shuffle", action="store_true")
    parser.add_argument("--start-day", type=int, default=0)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    write(options.out, options.rows, shuffle=options.shuffle, start_day=options.start_day, seed=options.seed)
