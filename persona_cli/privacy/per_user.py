"""Rows of people in artifacts: Parquet files outside the tables that have a column of persons, wherever they lie.

Evaluations keep the figures of every user, experiments will keep theirs. A file is replaced at once by one without the
rows, then the manifest beside it is brought up to date; a run that is killed between the two is completed by the next.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from persona_cli.errors import BadData, MissingInput
from persona_cli.workspace import artifacts
from persona_cli.workspace.home import Home

PERSONS = ("user_id", "anon_id")
"""Columns that name a person, in tables and files alike."""
_DERIVED = ("models", "derived", "runs", "privacy")


def files(home: Home) -> Iterator[tuple[Path, list[str]]]:
    """Parquet files of artifacts with a column of persons, and these columns."""
    for folder, names, found in os.walk(home.root):
        here = Path(folder)
        if here == home.root:
            names[:] = [name for name in names if name not in _DERIVED and not name.startswith(".")]
        names[:] = sorted(name for name in names if not (here / name / "_delta_log").is_dir())
        for name in sorted(found):
            if not name.endswith(".parquet"):
                continue
            try:
                schema = pl.read_parquet_schema(here / name)
            except (OSError, pl.exceptions.PolarsError):
                continue
            if columns := [column for column in PERSONS if schema.get(column) == pl.String]:
                yield here / name, columns


def remove_people(home: Home, gone: pl.Series | None, known: pl.Series | None = None) -> int:
    """Take the rows of these ids out (or, with `known`, those of ids that are not among them); answers how many."""
    removed = 0
    for path, columns in files(home):
        rows = pl.read_parquet(path)
        if gone is not None:
            hit = [pl.col(name).is_in(gone.implode()) for name in columns]
        elif known is not None:
            hit = [pl.col(name).is_not_null() & ~pl.col(name).is_in(known.implode()) for name in columns]
        else:
            hit = []
        left = rows.filter(~pl.any_horizontal(hit).fill_null(False)) if hit else rows
        if left.height < rows.height:
            with artifacts.replace_file(path) as beside:
                left.write_parquet(beside, compression="zstd")
            removed += rows.height - left.height
        _restate(path)
    return removed


def _restate(path: Path) -> None:
    """Make the manifest beside a file say what is in it."""
    try:
        manifest = artifacts.read_manifest(path.parent)
        stated = manifest["files"][path.name]
    except (KeyError, MissingInput, BadData):
        return
    now = {"sha256": artifacts.file_digest(path), "bytes": path.stat().st_size}
    if stated != now:
        manifest["files"][path.name] = now
        artifacts.write_text(
            path.parent / artifacts.MANIFEST, json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
        )
