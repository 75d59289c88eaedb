"""Users in buckets: the part of profiles and history that a user's rows lie in, and events shared out by it.

The bucket of a user is `crc32(user_id) % profiles.buckets`: stable across machines, versions and Python's hash seed.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl

from persona_cli.profiles.coding import Coded, Encoder, by_distinct, run_starts
from persona_cli.workspace import artifacts
from persona_cli.workspace.home import Home

# Fewer events than this are shared out in memory.
IN_MEMORY = 2_000_000
Load = Callable[[], Coded]


def buckets_of(users: pl.Series, n: int) -> pl.Series:
    """The bucket of each user (n_rows,) Int32."""
    return by_distinct(users, partial(_bucket, n), pl.Int32).alias("bucket")


def _bucket(n: int, user: str) -> int:
    return zlib.crc32(user.encode()) % n


@contextlib.contextmanager
def shared_out(
    home: Home, events: Iterable[pl.LazyFrame], texts: Sequence[str], n: int
) -> Iterator[list[tuple[int, Load]]]:
    """(bucket, what loads its events) by `user_id`, in order of buckets; the columns `texts` are coded.

    `events` come in pieces, each of which fits in memory. Many go through temporary files of the workspace: memory
    then holds a piece as text, twice `IN_MEMORY` events as numbers, the distinct texts, and later the loaded buckets.
    """
    encoder = Encoder(texts)
    bucket_of = np.zeros(0, dtype=np.int32)  # by the encoder's number of the user
    with contextlib.ExitStack() as stack:
        folder: Path | None = None
        writer = stack.enter_context(ThreadPoolExecutor(1))
        writes: list[Future[None]] = []
        waiting: list[pl.DataFrame] = []
        for piece in events:
            batch = piece.collect()
            if not batch.height:
                continue
            rows = encoder.encode(batch)
            del batch
            new = encoder.seen("user_id", len(bucket_of))
            bucket_of = np.concatenate([bucket_of, buckets_of(new, n).to_numpy()])
            waiting.append(rows.with_columns(bucket=pl.Series(bucket_of[rows["user_id"].to_numpy()])))
            if sum(part.height for part in waiting) > IN_MEMORY:
                if folder is None:
                    folder = stack.enter_context(artifacts.scratch(home.root))
                    stack.callback(writer.shutdown)  # nothing is written any more when the folder is removed
                if writes:
                    writes[-1].result()
                writes.append(writer.submit(_spill, waiting, folder, len(writes)))
                waiting = []
        if folder is not None and waiting:
            writes.append(writer.submit(_spill, waiting, folder, len(writes)))
        for write in writes:
            write.result()
        encoder.finish()
        if folder is None:
            yield [(bucket, partial(encoder.decoded, part)) for bucket, part in _by_bucket(waiting)]
        else:
            written = {bucket: sorted(folder.glob(f"{bucket}-*.arrow")) for bucket in range(n)}
            yield [(bucket, partial(_read, encoder, files)) for bucket, files in written.items() if files]


def _by_bucket(parts: list[pl.DataFrame]) -> Iterator[tuple[int, pl.DataFrame]]:
    """Each bucket with its rows, in order of buckets."""
    if not parts:
        return
    rows = pl.concat(parts, how="diagonal")
    order = np.argsort(rows["bucket"].to_numpy().astype(np.uint16), kind="stable")
    rows = rows[order]
    numbers = rows["bucket"].to_numpy()
    starts = run_starts(numbers)
    for start, end in zip(starts, np.append(starts[1:], len(numbers)), strict=True):
        yield int(numbers[start]), rows[int(start) : int(end)].drop("bucket")


def _spill(parts: list[pl.DataFrame], folder: Path, number: int) -> None:
    for bucket, rows in _by_bucket(parts):
        rows.write_ipc(folder / f"{bucket}-{number}.arrow", compression="lz4")


def _read(encoder: Encoder, files: list[Path]) -> Coded:
    return encoder.decoded(pl.concat([pl.read_ipc(file) for file in files], how="diagonal"))
