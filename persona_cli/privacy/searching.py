"""Search every byte of a workspace for ids: in tables, old versions and logs, models, reports, names of files.

Parquet files are read value by value in every column, with the dictionary of each part (which may hold values that no
row has any more), the statistics and the words of the footer; then their bytes as they are. Arrays of texts are read,
archives opened, and everything else is taken as text. Files are searched a few at once; none is read twice.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from persona_cli.privacy.places import Needles, in_text
from persona_cli.workspace import tables
from persona_cli.workspace.home import Home

_THREADS = 4
_CHUNK = 16 << 20
_OVERLAP = 8 << 10
_ASCII_WORD = re.compile(r"[0-9A-Za-z_]")
_LENGTH_IS_NO_LETTER = 48
_TEXTS = (
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_string_view,
    pa.types.is_binary,
    pa.types.is_large_binary,
)


@dataclass(frozen=True, order=True)
class Residue:
    """Something of the person that is left."""

    place: str
    """Which part of the workspace: a table, `models/gram`, `runs`, a file beside them."""
    path: str
    """The file, from the workspace."""
    where: str
    """`column user_id`, `statistics of user_id`, `dictionary of user_id`, `footer`, `bytes`, `text`, `file name`."""
    values: int
    """Different values found there; 1 where they are not counted."""


def search(home: Home, needles: Needles) -> list[Residue]:
    """Everything that is left, sorted."""
    paths = sorted(_files(home.root))
    superseded = _superseded(home)
    threads = min(home.settings.whole("compute.threads") or os.cpu_count() or 1, _THREADS)

    def one(path: Path) -> list[Residue]:
        name = path.relative_to(home.root).as_posix()
        old = " (of an old version)" if name in superseded else ""
        found = {where: n for where, n in _searched(path, name, needles) if n}
        if _named(name, needles):
            found["file name"] = 1
        return [Residue(place_of(name), name, where + old, n) for where, n in sorted(found.items())]

    with ThreadPoolExecutor(threads) as pool:
        return sorted(residue for found in pool.map(one, paths) for residue in found)


def place_of(name: str) -> str:
    """`events`, `models/gram`, `.tmp`, or the name of a file of the workspace itself."""
    parts = name.split("/")
    if any(part.startswith(".tmp") for part in parts):
        return "temporary files"
    return "/".join(parts[:2]) if parts[0] == "models" and len(parts) > 2 else parts[0]


def _files(root: Path) -> Iterator[Path]:
    for folder, _, names in os.walk(root):
        yield from (Path(folder, name) for name in names if not Path(folder, name).is_symlink())


def _superseded(home: Home) -> set[str]:
    """Parquet files under tables that their newest version does not name."""
    return set(tables.orphans(home))


def _named(name: str, needles: Needles) -> bool:
    """Whether the path says an id: as a word, or for a short one that is no number as the whole name of a file."""
    stem = name.rpartition("/")[2].partition(".")[0]
    return bool(needles.spans(name)) or (stem in needles.short and not stem.isdigit())


def _searched(path: Path, name: str, needles: Needles) -> Iterator[tuple[str, int]]:
    try:
        with path.open("rb") as stream:
            start = stream.read(8)
            stream.seek(0)
            if start[:4] == b"PAR1":
                found: list[tuple[str, int]] = []
                with contextlib.suppress(OSError, pa.ArrowException):  # half a file: its bytes are looked at
                    found += _parquet(stream, needles)
                yield from found
                if not any(n for _, n in found):
                    stream.seek(0)
                    yield "bytes", int(any(_in_bytes(chunk, needles) for chunk in _chunks(stream)))
            elif start[:6] == b"\x93NUMPY":
                yield from _array(stream, name, needles)
            elif start[:6] == b"ARROW1":
                yield from _columns(pa.ipc.open_file(stream).read_all(), needles)
            elif start[:4] == b"PK\x03\x04":
                yield from _archive(stream, name, needles)
            else:
                hit = any(in_text(chunk.decode("utf-8", "replace"), name, needles) for chunk in _chunks(stream))
                yield "text", int(hit)
    except FileNotFoundError:
        return  # it went away meanwhile


def _parquet(stream: BinaryIO, needles: Needles) -> Iterator[tuple[str, int]]:
    meta = pq.read_metadata(stream)
    stream.seek(0)
    texts = {}
    for number in range(meta.num_columns):
        column = meta.schema.column(number)
        if column.physical_type in ("BYTE_ARRAY", "FIXED_LEN_BYTE_ARRAY"):
            texts[number] = column.path
    parquet = pq.ParquetFile(stream, read_dictionary=list(texts.values()))
    counts: dict[str, set[str]] = {}
    for group in range(meta.num_row_groups):
        for number, path in texts.items():
            top = path.partition(".")[0]
            statistics = meta.row_group(group).column(number).statistics
            if statistics is not None and statistics.has_min_max:
                ends = [_text(statistics.min), _text(statistics.max)]
                found = needles.among(pl.Series(ends, dtype=pl.String).unique(), _leaf_name(path))
                counts.setdefault(f"statistics of {top}", set()).update(found.to_list())
            table = parquet.read_row_group(group, columns=[path])
            for kind, values in _distinct(table.column(0), _leaf_name(path), needles):
                counts.setdefault(f"{kind} {top}", set()).update(values)
    said = [text for pair in (meta.metadata or {}).items() for text in map(_text, pair)]
    counts["footer"] = {text for text in said if needles.spans(text)}
    yield from ((where, len(values)) for where, values in counts.items())


def _distinct(column: pa.ChunkedArray, name: str, needles: Needles) -> Iterator[tuple[str, set[str]]]:
    """Values that rows have, and those that are in the dictionary alone."""
    for chunk in column.chunks:
        for array in _leaves(chunk):
            if not pa.types.is_dictionary(array.type):
                yield "column", set(_hits(array, name, needles))
                continue
            found = set(_hits(array.dictionary, name, needles))
            if found:
                used = {_text(value) for value in array.unique().dictionary_decode().to_pylist() if value is not None}
                yield "column", found & used
                yield "dictionary of", found - used


def _hits(array: pa.Array, name: str, needles: Needles) -> list[str]:
    if pa.types.is_binary(array.type) or pa.types.is_large_binary(array.type):
        values = pl.Series(sorted({_text(value) for value in array.to_pylist() if value is not None}), dtype=pl.String)
    else:
        values = pl.Series(pl.from_arrow(array)).cast(pl.String).unique()
    return needles.among(values, name).to_list()


def _leaves(array: pa.Array) -> Iterator[pa.Array]:
    """The arrays of texts or bytes inside an array."""
    kind = array.type
    if pa.types.is_struct(kind):
        for part in array.flatten():
            yield from _leaves(part)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_map(kind):
        yield from _leaves(array.flatten() if not pa.types.is_map(kind) else array.keys)
        if pa.types.is_map(kind):
            yield from _leaves(array.items)
    else:
        inner = kind.value_type if pa.types.is_dictionary(kind) else kind
        if any(test(inner) for test in _TEXTS):
            yield array


def _columns(table: pa.Table, needles: Needles) -> Iterator[tuple[str, int]]:
    for name in table.schema.names:
        for chunk in table.column(name).chunks:
            for array in _leaves(chunk):
                values = array.dictionary if pa.types.is_dictionary(array.type) else array
                yield f"column {name}", len(_hits(values, name, needles))


def _array(stream: BinaryIO, name: str, needles: Needles) -> Iterator[tuple[str, int]]:
    try:
        array: Any = np.load(stream, allow_pickle=False)
    except (ValueError, OSError, EOFError):
        stream.seek(0)
        yield "bytes", int(any(_in_bytes(chunk, needles) for chunk in _chunks(stream)))
        return
    parts = [array[part] for part in array.dtype.names] if array.dtype.names else [array]
    for part in parts:
        if part.dtype.kind in "SU":
            values = pl.Series(sorted({_text(value) for value in part.ravel().tolist()}), dtype=pl.String)
            yield "values", len(needles.among(values, name.rpartition("/")[2].removesuffix(".npy")))
        elif part.dtype.itemsize == 1:  # bytes of texts, end to end
            yield "values", int(_in_bytes(part.tobytes(), needles))


def _archive(stream: BinaryIO, name: str, needles: Needles) -> Iterator[tuple[str, int]]:
    try:
        with zipfile.ZipFile(stream) as archive:
            for member in archive.infolist():
                if needles.spans(member.filename):
                    yield f"name of {member.filename}", 1
                content = archive.read(member)
                if content[:6] == b"\x93NUMPY":
                    found = list(_array(io.BytesIO(content), member.filename, needles))
                elif content[:4] == b"PAR1":
                    found = list(_parquet(io.BytesIO(content), needles))
                else:
                    found = [("text", int(in_text(content.decode("utf-8", "replace"), member.filename, needles)))]
                yield f"archived {member.filename}", sum(n for _, n in found)
    except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError):
        stream.seek(0)
        yield "bytes", int(any(_in_bytes(chunk, needles) for chunk in _chunks(stream)))


def _chunks(stream: BinaryIO) -> Iterator[bytes]:
    """The bytes in pieces that overlap, so that no word is cut."""
    before = b""
    while piece := stream.read(_CHUNK):
        yield before + piece
        before = piece[-_OVERLAP:]


def _in_bytes(content: bytes, needles: Needles) -> bool:
    """Whether an id stands in bytes that are no text: not inside a longer word of ASCII."""
    if not needles.long:
        return False
    texts = [one.encode().decode("latin-1") for one in needles.long]
    whole = pl.Series([content.decode("latin-1")])
    if not whole.str.contains_any(texts).item():
        return False
    text = whole.item()
    return any(_alone(text, one) for one in texts)


def _alone(text: str, one: str) -> bool:
    start = text.find(one)
    while start >= 0:
        end = start + len(one)
        # A length stands before a text, and from 48 on it looks like a letter.
        free = len(one) >= _LENGTH_IS_NO_LETTER
        before = free or start == 0 or not _ASCII_WORD.match(text[start - 1])
        after = free or end == len(text) or not _ASCII_WORD.match(text[end])
        if before and after:
            return True
        start = text.find(one, start + 1)
    return False


def _leaf_name(path: str) -> str:
    """The name that says what a column is of: the innermost that is no part of how lists are stored."""
    parts = [part for part in path.split(".") if part not in ("list", "element", "item", "key_value")]
    return parts[-1] if parts else path


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
