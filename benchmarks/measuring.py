"""What a lift table costs beside one group-by: python benchmarks/measuring.py [--rows 50_000_000] [--folder DIR]

A made-up outcome log (Parquet, one row an outcome, ten rows a user, 20 metrics: ten counts and ten amounts) is measured
by `persona measure --from` with every metric, and grouped by user and variant with the sum of the same 20 columns by
polars alone. Each in a process of its own, in turn, `--times` times; the best time and the largest memory count.
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
import pyarrow as pa
import pyarrow.parquet as pq

METRICS = 20
BLOCK = 1_000_000
VALUES = [f"m{number:02d}" for number in range(METRICS)]


def write(path: Path, rows: int) -> None:
    """Rows of users in no order; variant b brings 1 % more of every metric."""
    rng = np.random.default_rng(0)
    users = max(rows // 10, 1)
    arm = rng.integers(0, 2, users, dtype=np.int8)
    names = pa.array(["a", "b"])
    writer = None
    for start in range(0, rows, BLOCK):
        n = min(BLOCK, rows - start)
        user = rng.integers(0, users, n, dtype=np.int32)
        variant = pa.DictionaryArray.from_arrays(pa.array(arm[user]), names).cast(pa.string())
        table = {"user": pa.array(user), "variant": variant}
        for number, name in enumerate(VALUES):
            rate = (0.1 + 0.02 * number) * (1 + 0.01 * arm[user])
            if number % 2:
                amount = np.where(rng.random(n) < rate, rng.exponential(20.0, n), 0.0)
                table[name] = pa.array(np.round(amount, 2).astype(np.float32))
            else:
                table[name] = pa.array(rng.poisson(rate).astype(np.int16))
        block = pa.table(table)
        writer = writer or pq.ParquetWriter(path, block.schema, compression="lz4")
        writer.write_table(block)
    assert writer is not None
    writer.close()


def grouped(path: Path) -> None:
    sums = pl.scan_parquet(path).group_by("user", "variant").agg(pl.col(VALUES).sum()).collect(engine="streaming")
    assert sums.height


def measured(path: Path) -> None:
    from persona_cli.cli.main import run

    values = [word for name in VALUES for word in ("--value", name)]
    words = ["measure", "--from", str(path), "--unit", "user", "--variant", "variant", *values, "--json"]
    assert run([*words, "--out", str(path.with_suffix(".json"))]) == 0


WAYS = {"group-by": grouped, "lift table": measured}


def one(way: str, path: Path) -> tuple[float, float]:
    """Seconds and GiB of a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--way", way, "--folder", str(path)], check=True, capture_output=True, text=True
    )
    seconds, memory = done.stdout.split()[-2:]
    return float(seconds), float(memory)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=50_000_000)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=None, help="where the log is made, and deleted afterwards")
    parser.add_argument("--way", choices=[*WAYS], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.way:
        start = time.perf_counter()
        WAYS[given.way](given.folder)
        seconds = time.perf_counter() - start
        print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
        return
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        path = Path(folder) / "log.parquet"
        write(path, given.rows)
        found: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
        for _ in range(given.times):
            for way in WAYS:
                found[way].append(one(way, path))
        size = path.stat().st_size / 2**30
    print(f"{given.rows:,} rows x {METRICS} metrics, {size:.2f} GiB of Parquet, best of {given.times}\n")
    print("| way | seconds | of the group-by | GiB |\n|---|---|---|---|")
    least = min(seconds for seconds, _ in found["group-by"])
    for way, times in found.items():
        best, most = min(seconds for seconds, _ in times), max(memory for _, memory in times)
        print(f"| {way} | {best:.1f} | {best / least:.2f} | {most:.2f} |")


if __name__ == "__main__":
    main()
