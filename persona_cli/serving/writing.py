"""Lists written out block by block, fast: JSON lines, CSV and Parquet without a Python object for every entry."""

from __future__ import annotations

from collections.abc import Iterable
from typing import IO

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

_FORMULA = r"^[=+\-@\t\r]"
_ROWS_A_GROUP = 100_000


def write_lines(blocks: Iterable[pl.DataFrame], stream: IO[bytes]) -> None:
    """One JSON object a user; `holdout` is there only where it is true, `consent` only where it is false, and
    `decision_id` where the list was logged. `rules` is there only where one gave way, `variant` and its `share` only
    of those who are in an experiment.
    """
    for block in blocks:
        stream.write(_lines(block))


def write_json(blocks: Iterable[pl.DataFrame], stream: IO[bytes]) -> None:
    """The same objects as one JSON array."""
    separator = b"["
    for block in blocks:
        if block.height:
            stream.write(separator + _lines(block)[:-1].replace(b"\n", b",\n"))
            separator = b",\n"
    stream.write(b"[]\n" if separator == b"[" else b"]\n")


def write_csv(blocks: Iterable[pl.DataFrame], stream: IO[bytes]) -> None:
    """One line an entry, under a header; what a spreadsheet would run as a formula gets an apostrophe before it."""
    header = True
    for block in blocks:
        rows = flat(block)
        stream.write(rows.with_columns(_harmless(rows)).write_csv(include_header=header).encode())
        header = False


def write_parquet(blocks: Iterable[pl.DataFrame], stream: IO[bytes]) -> None:
    """One row an entry."""
    writer = None
    held: list[pa.Table] = []
    for block in blocks:
        held.append(flat(block).to_arrow())
        writer = writer or pq.ParquetWriter(stream, held[0].schema, compression="zstd")
        if sum(table.num_rows for table in held) >= _ROWS_A_GROUP:
            writer.write_table(pa.concat_tables(held))
            held = []
    if writer is not None:
        if held:
            writer.write_table(pa.concat_tables(held))
        writer.close()


def write_rows(rows: pl.DataFrame, format: str, stream: IO[bytes]) -> None:
    """Rows as they are, in the format `jsonl`, `csv` or `parquet`."""
    if format == "jsonl":
        stream.write(rows.write_ndjson().encode())
    elif format == "csv":
        stream.write(rows.with_columns(_harmless(rows)).write_csv().encode())
    else:
        rows.write_parquet(stream)


def flat(block: pl.DataFrame) -> pl.DataFrame:
    """One row an entry: user_id, rank, item_id, score[, propensity][, team][, reasons], model, base, stage[, rules][,
    variant, share], holdout[, decision_id]."""
    numbered = block.with_columns(rank=pl.int_ranges(1, pl.col("items").list.len() + 1))
    rows = numbered.explode("items", "rank").drop_nulls("items").unnest("items")
    told = ["reasons"] if "reasons" in rows.columns else []
    if told:
        rows = rows.with_columns(pl.col("reasons").list.join("; "))
    logged = ["decision_id"] if "decision_id" in rows.columns else []
    drawn = [name for name in ("propensity", "team", "credit", "rank_a", "rank_b") if name in rows.columns]
    tried = [name for name in ("variant", "share") if name in rows.columns]
    ruled = [pl.col("rules").list.join("; ")] if "rules" in rows.columns else []
    held_out = pl.col("holdout").fill_null(False)
    before = ("user_id", "rank", "item_id", "score", *drawn, *told, "model", "base", "stage")
    return rows.select(*before, *ruled, *tried, held_out, *logged)


def _lines(block: pl.DataFrame) -> bytes:
    # A quote inside a value is escaped, so these bytes can be nothing but the end of a line.
    lines = block.write_ndjson().encode()
    if "decision_id" in block.columns:
        lines = lines.replace(b',"decision_id":null,"items":[', b',"items":[')
    if "consent" in block.columns:
        lines = lines.replace(b',"holdout":null,"consent":false}\n', b',"consent":false}\n')
        lines = lines.replace(b',"consent":null}\n', b"}\n")
    lines = lines.replace(b',"holdout":null}\n', b"}\n")
    if "variant" in block.columns:
        for name in (b"variant", b"share", b"team", b"credit", b"rank_a", b"rank_b"):
            lines = lines.replace(b',"' + name + b'":null', b"")
    return lines.replace(b',"rules":null', b"") if "rules" in block.columns else lines


def _harmless(rows: pl.DataFrame) -> list[pl.Expr]:
    return [
        pl.when(pl.col(name).str.contains(_FORMULA) & pl.col(name).cast(pl.Float64, strict=False).is_null())
        .then("'" + pl.col(name))
        .otherwise(name)
        .alias(name)
        for name, dtype in rows.schema.items()
        if dtype == pl.String
    ]
