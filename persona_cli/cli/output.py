"""What goes to stdout or into `--out FILE`: records as table, JSON, JSON lines, CSV, Markdown or Parquet.

Data is made safe for where it lands: control and direction characters of ids and titles are escaped in terminals and
tables, and a text that a spreadsheet would run as a formula gets a leading apostrophe in CSV. JSON and Parquet carry
values unchanged.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from persona_cli.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from persona_cli.reports.parts import Part

Format = Literal["table", "json", "jsonl", "csv", "md", "parquet"]
# C0 and C1 controls, and the marks that reorder or hide what a terminal shows.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")


@runtime_checkable
class Frame(Protocol):
    """What is needed of a polars frame, without importing polars."""

    @property
    def columns(self) -> list[str]: ...
    def iter_rows(self) -> Iterator[tuple[Any, ...]]: ...


Records = Frame | Iterable[Mapping[str, Any]]


def render(records: Records, format: Format = "table", out: Path | None = None) -> None:
    """Write records to stdout, or atomically to `out`, in the format asked for."""
    columns, rows = _columns_and_rows(records)
    if format == "parquet":
        _write_parquet(columns, rows, out)
    elif format == "table" and out is None and sys.stdout.isatty():
        _print_rich(columns, rows)
    else:
        writer = {"table": _plain, "json": _json, "jsonl": _jsonl, "csv": _csv, "md": _markdown}[format]
        _write(writer(columns, rows), out)


def emit_json(value: Any, out: Path | None = None) -> None:
    """One JSON document: indented on a terminal, one line elsewhere, so that it can be appended to a log."""
    indent = 2 if out is None and sys.stdout.isatty() else None
    _write([json.dumps(plain(value), ensure_ascii=False, indent=indent, allow_nan=False)], out)


def render_parts(parts: Sequence[Part], out: Path | None = None) -> None:
    """A report in parts: tables as rich draws them on a terminal, plain lines elsewhere."""
    from persona_cli.reports.parts import as_lines, as_renderables

    if out is None and sys.stdout.isatty():
        console = _console()
        console.print(*as_renderables(parts, printable, console.width))
        return
    with out_stream(out) as stream:
        stream.write("".join(f"{printable(line)}\n" for line in as_lines(parts)).encode())


@contextlib.contextmanager
def out_stream(out: Path | None = None, whole: bool = False) -> Iterator[IO[bytes]]:
    """A binary stream: stdout for None or `-`, else a file that appears whole when the body ends well.

    With `whole` stdout, too, gets nothing before that.
    """
    if out is None or str(out) == "-":
        sys.stdout.flush()
        if whole:
            with tempfile.TemporaryFile() as held:  # without a name: nobody else can open it
                yield held
                held.seek(0)
                shutil.copyfileobj(held, sys.stdout.buffer)
        else:
            yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    from persona_cli.workspace.artifacts import replace_file

    with replace_file(out) as beside, beside.open("wb") as stream:
        yield stream


def printable(text: str) -> str:
    """Text in which nothing can move the cursor, recolour the terminal or reverse the reading direction."""
    return _UNSAFE.sub(lambda found: found.group().encode("unicode_escape").decode(), text)


def plain(value: Any) -> Any:
    """`value` as JSON types: times as ISO 8601, durations in seconds, numpy scalars as numbers, NaN as null."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(entry) for entry in value]
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, Frame):
        return [plain(dict(zip(value.columns, row, strict=True))) for row in value.iter_rows()]
    for method in ("tolist", "to_list"):  # numpy scalars and arrays, polars series
        if hasattr(value, method):
            return plain(getattr(value, method)())
    return str(value)


@contextlib.contextmanager
def progress(what: str, total: float | None = None, *, quiet: bool = False) -> Iterator[Callable[[float], None]]:
    """A bar on stderr, only where someone watches; the body calls what it is given with the amount done since."""
    silent = quiet or not sys.stderr.isatty() or os.environ.get("TERM") == "dumb"
    if silent or os.environ.get("CI") or os.environ.get("PERSONA_NO_PROGRESS"):
        yield lambda amount: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda amount: bar.advance(task, amount)


def _columns_and_rows(records: Records) -> tuple[list[str], Iterable[Sequence[Any]]]:
    if isinstance(records, Frame):
        return list(records.columns), records.iter_rows()
    listed = list(records)
    columns = list(dict.fromkeys(key for record in listed for key in record))
    return columns, [[record.get(column) for column in columns] for record in listed]


def _write(lines: Iterable[str], out: Path | None) -> None:
    with out_stream(out) as stream:
        for line in lines:
            stream.write(line.encode("utf-8", "backslashreplace") + b"\n")


def _json(columns: list[str], rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    yield "[" + ",\n".join(_jsonl(columns, rows)) + "]"


def _jsonl(columns: list[str], rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    for row in rows:
        yield json.dumps(plain(dict(zip(columns, row, strict=True))), ensure_ascii=False, allow_nan=False)


def _csv(columns: list[str], rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    import csv
    import io

    for row in (columns, *rows) if isinstance(rows, list) else _chain(columns, rows):
        line = io.StringIO()
        csv.writer(line, lineterminator="").writerow([_csv_cell(value) for value in row])
        yield line.getvalue()


def _chain(first: Sequence[Any], rest: Iterable[Sequence[Any]]) -> Iterator[Sequence[Any]]:
    yield first
    yield from rest


def _csv_cell(value: Any) -> str:
    text = _text(value)
    if not isinstance(value, str) or not text.startswith(("=", "+", "-", "@", "\t", "\r")):
        return text
    try:
        float(text)
    except ValueError:
        return "'" + text
    return text


def _markdown(columns: list[str], rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    def line(row: Sequence[Any]) -> str:
        cells = (
            printable(_text(value)).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;") for value in row
        )
        return f"| {' | '.join(cells)} |"

    yield line(columns)
    yield "|" + "---|" * len(columns)
    for row in rows:
        yield line(row)


def _plain(columns: list[str], rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    """Columns side by side, numbers to the right, nothing shortened and nothing drawn."""
    listed = [list(row) for row in rows]
    cells = [list(columns), *([printable(_text(value)) for value in row] for row in listed)]
    right = [all(_is_number(row[c]) for row in listed) and bool(listed) for c in range(len(columns))]
    widths = [max(len(row[c]) for row in cells) for c in range(len(columns))]
    for row in cells:
        padded = (
            text.rjust(width) if to_right else text.ljust(width)
            for text, width, to_right in zip(row, widths, right, strict=True)
        )
        yield "  ".join(padded).rstrip()


def _print_rich(columns: list[str], rows: Iterable[Sequence[Any]]) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    listed = [list(row) for row in rows]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for c, column in enumerate(columns):
        numbers = bool(listed) and all(_is_number(row[c]) for row in listed)
        table.add_column(Text(printable(column)), justify="right" if numbers else "left")
    for row in listed:
        table.add_row(*(Text(printable(_text(value, short=True))) for value in row))
    _console().print(table)


def _console() -> Console:
    from rich.console import Console

    # rich keeps bold under NO_COLOR; people who set it want no escape sequence at all.
    return Console(force_terminal=False if os.environ.get("NO_COLOR") else None)


def _write_parquet(columns: list[str], rows: Iterable[Sequence[Any]], out: Path | None) -> None:
    if out is None and sys.stdout.isatty():
        raise UsageError("Parquet is binary and stdout is a terminal", "add --out FILE.parquet")
    import polars as pl

    frame = pl.DataFrame([list(row) for row in rows], schema=columns, orient="row", infer_schema_length=None)
    with out_stream(out) as stream:
        frame.write_parquet(stream)


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _text(value: Any, *, short: bool = False) -> str:
    if short and isinstance(value, float):
        return f"{value:.6g}"
    value = plain(value)
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False)
    return str(value)
