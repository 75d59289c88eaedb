"""The Gram of a workspace on disk, brought up to date by the users whose rows changed.

    models/gram/<version>/
        manifest.json               weights_digest (signals, half-life, cap, exponent), digest of the Gram, update
        items.parquet users.npy     vocabulary and users per item
        cells.{data,indices,indptr}.npy   upper triangle, mapped into memory
        rows/<bucket>.parquet       user_id, items (positions), values: what each user has put into the sum

A stored row is compared with the row that today's history gives, so nothing has to be tracked between runs: whatever
happened to the events (added, undone, late, forgotten), the users whose rows differ are subtracted and added anew.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from persona_cli.errors import BadData, MissingInput
from persona_cli.models.base import Interactions
from persona_cli.models.gram import Gram, gram_of_rows, quantise, threads_of
from persona_cli.models.stored import (
    load_array,
    load_items,
    load_sparse,
    positions,
    save_array,
    save_items,
    save_sparse,
    union,
    with_columns,
)
from persona_cli.profiles import signals
from persona_cli.profiles.buckets import buckets_of
from persona_cli.workspace import artifacts, locks
from persona_cli.workspace.home import Home
from persona_cli.workspace.settings import Settings

log = logging.getLogger("persona")
NAME = "gram"
KEPT = 2
"""Versions on disk: the newest, and the one before it, which a run under way may have mapped."""
# Part of the digest: another number makes everything that was summed by older rules be summed again.
_VERSION = 1


@dataclass(frozen=True)
class Rows:
    """What each user has put into a Gram."""

    users: pl.Series
    """user_id String, sorted, only users with a row that is not empty (n_users,)."""
    items: pl.Series
    """item_id String, sorted (n_items,)."""
    values: sparse.csr_array
    """Quantised rows, int64 (n_users, n_items)."""


@dataclass(frozen=True)
class Current:
    """The Gram of today's rows, and how it came about."""

    gram: Gram
    version: int
    mode: str
    """`unchanged`, `updated` (by the changed users only), `subtracted` or `rebuilt`."""
    changed_users: int


def current_gram(home: Home, interactions: Interactions, settings: Settings) -> Gram:
    """The Gram of `interactions`: equal, bit for bit, to `build_gram` from scratch."""
    return update(home, interactions, settings).gram


def update(home: Home, interactions: Interactions, settings: Settings, wait: float = 0.0) -> Current:
    """Bring models/gram to `interactions`; a new version appears, whole, only if a row changed.

    Another weights digest, or a version that is damaged, rebuilds and says so.
    """
    with locks.hold(home, "models", "train", wait):
        today, threads = _rows(interactions, settings), threads_of(settings)
        digest = weights_digest(settings)
        versions = _versions(home)
        stored = _load(versions[-1], digest) if versions else None
        if stored is None:
            return _publish(
                home, today, gram_of_rows(today.values, today.items, threads), digest, "rebuilt", len(today.users)
            )
        gram, before, _ = stored
        users, items = union(before.users, today.users), union(before.items, today.items)
        old, new = _over(before, users, items), _over(today, users, items)
        changed = np.flatnonzero(np.diff(sparse.csr_array(new - old).indptr))
        if not len(changed):
            return Current(gram, int(versions[-1].name), "unchanged", 0)
        old, new = old[changed], new[changed]
        if _products(old) + _products(new) < _products(today.values):
            gram = gram.replace(gram_of_rows(old, items), gram_of_rows(new, items))
            mode = "updated"
        else:  # so many users changed that starting anew is less work
            gram, mode = gram_of_rows(today.values, today.items, threads), "rebuilt"
        return _publish(home, today, gram, digest, mode, len(changed))


def subtract(home: Home, users: pl.Series, wait: float = 0.0) -> str | None:
    """Take the rows of these users out of the sum that is stored, whatever today's events say; older versions leave.

    `subtracted`, or `unchanged` where none of them has a row; None where there is no sum, or it is damaged: then it is
    removed, and the next training sums anew. Needs the rows of these users and one pass over the cells, no history.
    """
    with locks.hold(home, "models", "forget", wait):
        stored = _load(there[-1]) if (there := _versions(home)) else None
        if stored is None:
            keep_newest(home, 0)
            return None
        gram, rows, manifest = stored
        theirs = rows.users.is_in(users.implode()).to_numpy()
        if not theirs.any():
            return "unchanged"
        left = Rows(rows.users.filter(pl.Series(~theirs)), rows.items, rows.values[np.flatnonzero(~theirs)])
        gram = gram.subtract(gram_of_rows(rows.values[np.flatnonzero(theirs)], rows.items, threads_of(home.settings)))
        _publish(home, left, gram, manifest["weights_digest"], "subtracted", int(theirs.sum()))
        return "subtracted"


def keep_newest(home: Home, n: int = 1) -> int:
    """Remove all but the newest `n` versions, which a forgotten user may be in; answers how many went."""
    gone = (there := _versions(home))[: max(len(there) - n, 0)]
    for folder in gone:
        going = folder.with_name(artifacts.temporary_name())
        folder.rename(going)  # at once: no half of a version is ever seen
        artifacts.remove(going)
    return len(gone)


def stored_digest(home: Home) -> str | None:
    """The digest of the sum that is stored; None where there is none."""
    there = _versions(home)
    return str(artifacts.read_manifest(there[-1]).get("digest")) if there else None


def weights_digest(settings: Settings) -> str:
    """sha256 of everything that a quantised row depends on beside the events."""
    parts = f"{_VERSION} {signals.weights_digest(settings)} {settings.digest(['model.gram.'])}"
    return hashlib.sha256(parts.encode()).hexdigest()


def _rows(interactions: Interactions, settings: Settings) -> Rows:
    values = quantise(interactions.strengths, settings)
    filled = np.flatnonzero(np.diff(values.indptr))
    return Rows(interactions.users[filled], interactions.items, values[filled])


def _products(rows: sparse.csr_array) -> int:
    """Multiplications that the outer products of these rows take."""
    return int((np.diff(rows.indptr).astype(np.int64) ** 2).sum())


def _over(rows: Rows, users: pl.Series, items: pl.Series) -> sparse.csr_array:
    """The same rows over larger vocabularies; users without one have an empty row (n_users, n_items)."""
    values = with_columns(rows.values, positions(rows.items, items), len(items))
    lengths = np.zeros(len(users), dtype=np.int64)
    lengths[positions(rows.users, users)] = np.diff(values.indptr)  # both sorted: the order stays
    ends = np.concatenate(([0], np.cumsum(lengths)))
    return sparse.csr_array((values.data, values.indices, ends), shape=(len(users), len(items)))


def _versions(home: Home) -> list[Path]:
    """Folders of the finished versions, oldest first."""
    folder = home.path("models", NAME)
    found = [path for path in folder.iterdir() if path.name.isdecimal()] if folder.is_dir() else []
    return sorted(found, key=lambda path: int(path.name))


def _load(folder: Path, digest: str | None = None) -> tuple[Gram, Rows, dict[str, Any]] | None:
    """The Gram (mapped), rows and manifest of a version; None, with the reason logged, where it cannot be built upon.

    `digest` is that of the weights that it must have been made by; None: any.
    """
    try:
        manifest = artifacts.verify(folder)
        if digest is not None and manifest["weights_digest"] != digest:
            log.info("the settings behind the item sums have changed: summing all users again")
            return None
        items = load_items(folder)
        cells = load_sparse(folder, "cells", (len(items), len(items)))
        gram = Gram(items, cells, load_array(folder, "users"))
        return gram, _read_rows(folder / "rows", items), manifest
    except (BadData, MissingInput, KeyError) as error:
        log.warning("%s cannot be used (%s): summing all users again", folder, error)
        return None


def _publish(home: Home, rows: Rows, gram: Gram, digest: str, mode: str, changed: int) -> Current:
    versions = _versions(home)
    number = int(versions[-1].name) + 1 if versions else 1
    folder = home.path("models", NAME, str(number))
    with artifacts.publish(folder) as beside:
        save_items(beside, gram.items)
        save_array(beside, "users", gram.users)
        save_sparse(beside, "cells", gram.cells)
        _write_rows(beside / "rows", rows, gram.items, home.settings.whole("profiles.buckets"))
        artifacts.write_manifest(
            beside,
            {
                "kind": NAME,
                "weights_digest": digest,
                "digest": gram.digest(),
                "users": len(rows.users),
                "items": len(gram.items),
                "update": {"changed_users": changed, "mode": mode},
            },
        )
    for old in versions[: len(versions) + 1 - KEPT]:
        artifacts.remove(old)
    log.debug("item sums: %s users changed of %s (%s)", f"{changed:,}", f"{len(rows.users):,}", mode)
    return Current(gram, number, mode, changed)


def _write_rows(folder: Path, rows: Rows, items: pl.Series, n_buckets: int) -> None:
    folder.mkdir(mode=0o700)
    values = with_columns(rows.values, positions(rows.items, items), len(items))
    buckets = buckets_of(rows.users, n_buckets).to_numpy()
    for bucket in np.unique(buckets):
        chosen = np.flatnonzero(buckets == bucket)
        part = values[chosen]
        frame = pl.DataFrame(
            {
                "user_id": rows.users[chosen],
                "items": _lists(part.indices.astype(np.int32), part.indptr),
                "values": _lists(part.data, part.indptr),
            }
        )
        frame.write_parquet(folder / f"{bucket:04d}.parquet", compression="zstd", compression_level=1)


def _read_rows(folder: Path, items: pl.Series) -> Rows:
    parts = [pl.read_parquet(path) for path in sorted(folder.glob("*.parquet"))]
    if not parts:
        return Rows(pl.Series("user_id", [], dtype=pl.String), items, sparse.csr_array((0, len(items)), dtype=np.int64))
    frame = pl.concat(parts).sort("user_id")
    ends = np.concatenate(([0], np.cumsum(frame["items"].list.len().to_numpy().astype(np.int64))))
    columns, values = frame["items"].explode().to_numpy(), frame["values"].explode().to_numpy()
    return Rows(frame["user_id"], items, sparse.csr_array((values, columns, ends), shape=(frame.height, len(items))))


def _lists(values: NDArray[Any], ends: NDArray[Any]) -> pl.Series:
    """Consecutive runs of values as one list each (n_rows,)."""
    import pyarrow as pa

    lists = pa.LargeListArray.from_arrays(pa.array(ends.astype(np.int64)), pa.array(values))
    return pl.Series(lists)
