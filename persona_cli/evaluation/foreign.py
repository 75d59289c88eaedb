"""Lists that any recommender made, read as ours: what others write, told apart by what is in the file.

    persona          {"user_id": "u", "items": [{"item_id": "i", "score": 1.5}, …]} a line
    personalize      {"input": {"userId": "u"}, "output": {"recommendedItems": ["i", …], "scores": […]}, "error": null}
                     a line (Amazon Personalize, batch inference)
    csv, tsv,        one row an entry, under the names that RecTools, RePlay, LensKit and Recommenders use, or persona's
    parquet, jsonl   own: a user, an item, perhaps a rank and a score

In a line the first item has rank 1. A table's rank is taken as it is; without one, a list is sorted by score and equal
scores by item id; without either, it is in the order of the file. Ids are text and stay as they are written (`007`);
whole numbers are read by their digits. Texts may be compressed or come through standard input (`-`).
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import polars as pl

from persona_cli.errors import BadData
from persona_cli.evaluation.sources import Source, numbered, open_source, read_parquet
from persona_cli.events.schema import MAX_ID_BYTES

NAMES = {
    "user_id": ("user_id", "userID", "query_id", "userId", "user"),
    "item_id": ("item_id", "itemID", "itemId", "item"),
    "rank": ("rank",),
    "score": ("score", "prediction", "rating", "weight"),
}
"""Field → what it is called, first come first served."""
_IDS = ("user_id", "item_id")
# The columns of persona's own CSV, where a text that a spreadsheet would run begins with an apostrophe.
_OURS = {"user_id", "rank", "item_id", "score", "model", "base", "stage", "holdout"}
_DEFUSED = r"^'[=+\-@\t\r]"
Id = str | int


@dataclass(frozen=True)
class Foreign:
    """Lists that were read."""

    lists: pl.DataFrame
    """user_id String, item_id String, rank Int64 from 1, score Float64 (null where none was given); users and ranks
    ascending. A user whose list is empty has no row."""
    notes: list[str]
    """What people should know of the reading: empty lists, errors, gaps."""
    format: str


class _Entry(msgspec.Struct, gc=False):
    item_id: Id
    score: float | None = None


class _Ours(msgspec.Struct, gc=False):
    user_id: Id
    items: list[_Entry]


class _Asked(msgspec.Struct, gc=False):
    userId: Id


class _Output(msgspec.Struct, gc=False):
    recommendedItems: list[Id]
    scores: list[float] | None = None


class _Personalize(msgspec.Struct, gc=False):
    input: _Asked
    output: _Output | None = None
    error: Any = None


def read_lists(source: str) -> Foreign:
    """The lists in `source`: a file, compressed or not, or `-`.

    MissingInput where there is no such file; BadData, naming file, line or row, field and what was expected, for an
    id that is empty or no text, an item or a rank twice in a list, a rank below 1, a score that is no number, a
    second list of one user.
    """
    opened = open_source(source)
    if opened.format == "persona":
        entries, users = _from_lines(opened, _Ours, _ours)
    elif opened.format == "personalize":
        entries, users = _from_lines(opened, _Personalize, _personalize)
    else:
        entries, users = _table(opened, NAMES), None
    notes = _notes_on_users(opened, users)
    if opened.format in ("csv", "tsv") and set(opened.header) >= _OURS:
        entries = entries.with_columns(
            pl.when(pl.col(name).str.contains(_DEFUSED)).then(pl.col(name).str.slice(1)).otherwise(name).alias(name)
            for name in _IDS
        )
    lists = _ranked(opened, entries)
    first, gap = pl.col("user_id") != pl.col("user_id").shift(1), pl.col("rank") - pl.col("rank").shift(1)
    gaps = int(lists.select((pl.when(first.fill_null(True)).then(pl.col("rank")).otherwise(gap) > 1).sum()).item())
    if gaps:
        notes.append(f"{opened.name}: ranks leave out places {gaps:,} times; entries count at the rank they state")
    return Foreign(lists, notes, opened.format)


def read_pairs(source: str) -> pl.DataFrame:
    """The distinct (user_id, item_id) of a table, sorted: right answers that people bring. Errors as `read_lists`."""
    opened = open_source(source)
    if opened.format in ("persona", "personalize"):
        raise BadData(f"{opened.name}: there are lists in it; expected a table of pairs with user_id and item_id")
    pairs = _table(opened, {name: NAMES[name] for name in _IDS})
    _check_ids(opened, pairs)
    return pairs.select(_IDS).unique().sort(_IDS)


_Lists = tuple[list[Id], list[int], list[Id], list[float | None]]
"""Users, entries of each, and their items and scores one after the other."""


def _ours(records: Sequence[_Ours]) -> _Lists:
    entries = [entry for record in records for entry in record.items]
    return (
        [record.user_id for record in records],
        [len(record.items) for record in records],
        [entry.item_id for entry in entries],
        [entry.score for entry in entries],
    )


def _personalize(records: Sequence[_Personalize]) -> _Lists:
    outputs = [_Output([]) if one.error is not None or one.output is None else one.output for one in records]
    scores = [one.scores if one.scores is not None else [None] * len(one.recommendedItems) for one in outputs]
    if any(len(given) != len(one.recommendedItems) for given, one in zip(scores, outputs, strict=True)):
        raise ValueError("output.scores and output.recommendedItems are not equally long")
    return (
        [one.input.userId for one in records],
        [len(one.recommendedItems) for one in outputs],
        [item for one in outputs for item in one.recommendedItems],
        [score for given in scores for score in given],
    )


_EXPECTED = {
    _Ours: 'expected {"user_id": "…", "items": [{"item_id": "…", "score": 1.5}, …]}',
    _Personalize: 'expected {"input": {"userId": "…"}, "output": {"recommendedItems": ["…", …], "scores": [1.5, …]}}',
}


def _from_lines(opened: Source, type: Any, columns: Callable[[Any], _Lists]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(entries: user_id, item_id, rank, score, row; users: user_id, entries, failed, row) of lines with whole lists."""
    entries, users = [], []
    for rows, records in _decoded(opened, type, columns, _EXPECTED[type]):
        asked, counts, items, scores = columns(records)
        lengths = np.array(counts, dtype=np.int64)
        starts = np.repeat(np.cumsum(lengths) - lengths, lengths)
        failed = [getattr(record, "error", None) is not None for record in records]
        known = pl.DataFrame(
            {"user_id": _texts(asked), "entries": lengths, "failed": failed, "row": rows},
            schema_overrides={"row": pl.Int64},
        )
        users.append(known)
        owner = np.repeat(np.arange(len(lengths)), lengths)
        found = known.select("user_id", "row")[owner]
        entries.append(
            found.with_columns(
                _texts(items).alias("item_id"),
                pl.Series("rank", np.arange(len(items)) - starts + 1, dtype=pl.Int64),
                pl.Series("score", scores, dtype=pl.Float64),
            )
        )
    return pl.concat(entries), pl.concat(users)


def _decoded(
    opened: Source, type: Any, columns: Callable[[Any], Any], expected: str
) -> Iterator[tuple[Sequence[int], list[Any]]]:
    """Records of each block, and the line of each; what is wrong is found again line by line, for its number."""
    decoder = msgspec.json.Decoder(type)
    for block in opened.blocks:
        try:
            records = decoder.decode_lines(block.data)
            columns(records)
        except (ValueError, UnicodeDecodeError):
            for row, line in numbered(block):
                try:
                    columns([decoder.decode(line)])
                except (ValueError, UnicodeDecodeError) as error:
                    opened.wrong(row, f"{error}; {expected}")
            raise
        whole = range(block.line, block.line + len(records))
        yield (whole if len(records) == block.data.count(b"\n") else [row for row, _ in numbered(block)]), records


def _texts(values: Sequence[Any]) -> pl.Series:
    try:
        return pl.Series(values, dtype=pl.String, strict=True)
    except TypeError:  # whole numbers among them
        return pl.Series([None if value is None else str(value) for value in values], dtype=pl.String)


def _table(opened: Source, names: dict[str, tuple[str, ...]]) -> pl.DataFrame:
    """Columns of a table by our names, ids as text, and `row`, from 1 or the line of the file."""
    given = {}
    for field, called in names.items():
        if (found := next((name for name in called if name in opened.header), None)) is not None:
            given[field] = found
        elif field in _IDS:
            raise BadData(
                f"{opened.name} has no column {field}; it has {', '.join(opened.header)[:200]}; expected one of "
                f"{', '.join(called)}"
            )
    if opened.format == "jsonl":
        return _json_table(opened, given)
    if opened.path is not None and opened.format == "parquet":
        columns = list(given.values())
        read: pl.DataFrame = read_parquet(opened.path, lambda path: pl.read_parquet(path, columns=columns))
        table = read.select(pl.col(name).alias(field) for field, name in given.items())
    else:
        table = _separated(opened, given)
    for field in _IDS:
        kind = table.schema[field]
        if not (kind.is_integer() or kind in (pl.String, pl.Categorical, pl.Enum, pl.Null)):
            raise BadData(f"{opened.name}: {given[field]} is of type {kind}; expected text or whole numbers as ids")
    return table.with_columns(pl.col(*_IDS).cast(pl.String)).with_row_index("row", offset=1)


def _separated(opened: Source, given: dict[str, str]) -> pl.DataFrame:
    places = {field: opened.header.index(name) for field, name in given.items()}
    try:
        table = pl.read_csv(
            io.BytesIO(b"".join(block.data for block in opened.blocks)),
            separator="\t" if opened.format == "tsv" else ",",
            infer_schema=False,
            columns=sorted(set(places.values())),
        )
    except pl.exceptions.PolarsError as error:
        raise BadData(f"{opened.name}: not {opened.format.upper()} that can be read ({error})") from error
    order = sorted(set(places.values()))
    return table.select(pl.nth(order.index(place)).alias(field) for field, place in places.items())


def _json_table(opened: Source, given: dict[str, str]) -> pl.DataFrame:
    types = {"user_id": Id, "item_id": Id, "rank": int | float | None, "score": float | None}
    fields: list[Any] = [(field, types[field], *([] if field in _IDS else [None])) for field in given]
    record = msgspec.defstruct("Entry", fields, rename=given, gc=False)
    expected = "expected {" + ", ".join(f'"{name}": …' for name in given.values()) + "}, ids as text or whole numbers"
    parts = []
    for rows, records in _decoded(opened, record, len, expected):
        columns = {field: [getattr(one, field) for one in records] for field in given}
        ids = [_texts(columns[field]).alias(field) for field in _IDS]
        numbers = [pl.Series(field, columns[field], dtype=pl.Float64) for field in given if field not in _IDS]
        parts.append(pl.DataFrame([*ids, *numbers, pl.Series("row", rows, dtype=pl.Int64)]))
    return pl.concat(parts)


def _notes_on_users(opened: Source, users: pl.DataFrame | None) -> list[str]:
    if users is None:
        return []
    _check_ids(opened, users, ("user_id",))
    if users["user_id"].is_duplicated().any():
        again = users.filter(~pl.col("user_id").is_first_distinct()).row(0, named=True)
        opened.wrong(again["row"], f"a second list of user_id {again['user_id']!r}; expected one line a user")
    notes = []
    if failed := int(users["failed"].sum()):
        notes.append(f"{opened.name}: {failed:,} lines report an error; these users count with an empty list")
    if empty := users.filter((pl.col("entries") == 0) & ~pl.col("failed")).height:
        notes.append(f"{opened.name}: {empty:,} users have an empty list")
    return notes


def _check_ids(opened: Source, rows: pl.DataFrame, fields: Sequence[str] = _IDS) -> None:
    for field in fields:
        size = pl.col(field).str.len_bytes()
        if rows.select(((size == 0) | (size > MAX_ID_BYTES) | size.is_null()).any()).item():
            row, value = rows.filter((size == 0) | (size > MAX_ID_BYTES) | size.is_null()).select("row", field).row(0)
            state = f"longer than {MAX_ID_BYTES:,} bytes" if value else "missing or empty"
            opened.wrong(row, f"{field} is {state}; expected an id as text")


def _ranked(opened: Source, entries: pl.DataFrame) -> pl.DataFrame:
    """Checked entries in order: users and ranks ascending, with ranks where there were none."""
    _check_ids(opened, entries)
    user, above = pl.col("user_id"), pl.col("user_id").shift(1)
    # Equal pairs have equal sums of hashes: text is compared only where those meet.
    pair = pl.col("user_id").hash(seed=1).reinterpret(signed=True) ^ pl.col("item_id").hash(seed=2).reinterpret(
        signed=True
    )
    if entries.select(pair.n_unique()).item() < entries.height:
        again = entries.filter(~pl.struct(_IDS).is_first_distinct()).sort("row")
        if again.height:
            row, name, item = again.select("row", *_IDS).row(0)
            opened.wrong(row, f"item_id {item!r} is in the list of user_id {name!r} twice; expected once")
    entries = entries.with_columns(_numbers(opened, entries, "score", "a number"))
    if "rank" in entries.columns:
        entries = entries.with_columns(_numbers(opened, entries, "rank", "a whole number from 1"))
        if not entries.select(
            (user > above).or_((user == above) & (pl.col("rank") > pl.col("rank").shift(1))).fill_null(True).all()
        ).item():
            entries = entries.sort("user_id", "rank", "row")
        if entries.select(((user == above) & (pl.col("rank") == pl.col("rank").shift(1))).any()).item():
            again = entries.filter((user == above) & (pl.col("rank") == pl.col("rank").shift(1))).sort("row")
            row, name, rank = again.select("row", "user_id", "rank").row(0)
            opened.wrong(row, f"rank {rank} is in the list of user_id {name!r} twice; expected once")
        return entries.select(*_IDS, "rank", "score")
    unscored = entries["score"].null_count()
    if 0 < unscored < entries.height:
        row = entries.filter(pl.col("score").is_null())["row"][0]
        opened.wrong(row, "score is missing; expected a number, as there is no rank", "or a score nowhere, or a rank")
    by: list[Any] = ["row"] if unscored else [pl.col("score"), "item_id"]
    entries = entries.sort("user_id", *by, descending=[False, not unscored, *[False] * (len(by) - 1)])
    rows = np.arange(entries.height)
    starts = entries.select((user != above).fill_null(True)).to_series().to_numpy()
    ranks = rows - np.maximum.accumulate(np.where(starts, rows, 0)) + 1
    return entries.select(*_IDS, pl.Series("rank", ranks, dtype=pl.Int64), "score")


def _numbers(opened: Source, entries: pl.DataFrame, field: str, expected: str) -> pl.Series:
    """`rank` as Int64 or `score` as Float64; BadData for what is no such number. A score may be missing."""
    if field not in entries.columns:
        return pl.Series(field, [None], dtype=pl.Float64).new_from_index(0, entries.height)
    given = entries[field]
    numbers = given.cast(pl.Float64, strict=False)
    if field == "rank":
        right = (numbers >= 1) & (numbers == numbers.floor()) & (numbers < 2**53)
    else:
        right = numbers.is_finite() | given.is_null()
    if not right.fill_null(False).all():
        row = int((~right.fill_null(False)).arg_max() or 0)
        opened.wrong(entries["row"][row], f"{field} is {given[row]!r}; expected {expected}")
    return (numbers.cast(pl.Int64) if field == "rank" else numbers).alias(field)
