"""Users in buckets: the part of profiles and history that a user's rows lie in, and events shared out by it.

The bucket of a user is `crc32(user_id) % profiles.buckets`: stable across machines, versions and Python's hash seed.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from persona_cli.workspace import artifacts
from persona_cli.workspace.home import Home

# Fewer events than this are shared out in memory.
IN_MEMORY = 2_000_000
BATCH = 500_000


def buckets_of(users: pl.Series, n: int) -> pl.Series:
    """The bucket of each user (n_rows,) Int32."""
    distinct = users.unique()
    numbers = [zlib.crc32(user.encode()) % n for user in distinct]
    return users.replace_strict(distinct, pl.Series(numbers, dtype=pl.Int32), return_dtype=pl.Int32).alias("bucket")


@contextlib.contextmanager
def shared_out(home: Home, events: pl.LazyFrame, n: int) -> Iterator[Iterator[tuple[int, pl.DataFrame]]]:
    """(bucket, its events) in order of buckets, by `user_id`; many events go through temporary files of the workspace.

    Memory holds at most `IN_MEMORY` events and a batch, then one bucket at a time.
    """
    with contextlib.ExitStack() as stack:
        folder: Path | None = None
        waiting: list[pl.DataFrame] = []
        spilled = 0
        for batch in events.collect_batches(chunk_size=BATCH):
            waiting.append(batch)
            if sum(part.height for part in waiting) > IN_MEMORY:
                folder = folder or stack.enter_context(artifacts.scratch(home.root))
                _spill(pl.concat(waiting), n, folder, spilled)
                waiting, spilled = [], spilled + 1
        if folder is None:
            yield _in_memory(pl.concat(waiting) if waiting else events.limit(0).collect(), n)
            return
        if waiting:
            _spill(pl.concat(waiting), n, folder, spilled)
            waiting = []
        yield _from_files(folder, n)


def _spill(events: pl.DataFrame, n: int, folder: Path, number: int) -> None:
    for bucket, part in _in_memory(events, n):
        part.write_ipc(folder / f"{bucket}-{number}.arrow", compression="lz4")


def _in_memory(events: pl.DataFrame, n: int) -> Iterator[tuple[int, pl.DataFrame]]:
    bucketed = events.with_columns(buckets_of(events["user_id"], n))
    parts = bucketed.partition_by("bucket", include_key=False, as_dict=True)
    for key in sorted(parts):
        yield int(key[0]), parts.pop(key)


def _from_files(folder: Path, n: int) -> Iterator[tuple[int, pl.DataFrame]]:
    for bucket in range(n):
        files = sorted(folder.glob(f"{bucket}-*.arrow"))
        if files:
            yield bucket, pl.concat([pl.read_ipc(file) for file in files])
