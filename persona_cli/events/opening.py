"""Find input files and read them as blocks of whole lines, whatever their compression."""

from __future__ import annotations

import bz2
import glob
import gzip
import io
import math
import queue
import sys
import threading
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import pyarrow as pa

from persona_cli.errors import BadData, MissingInput
from persona_cli.events.schema import MAX_RAW_BYTES

Format = Literal["jsonl", "csv", "tsv", "parquet"]
# Two threads work on blocks of this size within their caches; larger blocks took a fifth more time.
BLOCK_BYTES = 4 << 20
BOM = b"\xef\xbb\xbf"
# A compressed file may expand by `max_expansion`; below this many bytes nothing is refused (tiny files of zeros).
FREE_EXPANSION = 256 << 20

BROKEN = (" stream damaged", " stream ends early")
"""How the reason of a Damage ends that is the last of its file."""
_SUFFIX: dict[str, Format] = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".log": "jsonl", ".txt": "jsonl",
    ".csv": "csv", ".tsv": "tsv", ".tab": "tsv", ".parquet": "parquet", ".pq": "parquet",
}  # fmt: skip
_COMPRESSION = {".gz": "gzip", ".gzip": "gzip", ".zst": "zstd", ".zstd": "zstd", ".bz2": "bz2"}
_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bz2"}


@dataclass(frozen=True)
class Input:
    """One input: a file, or standard input (`-`)."""

    name: str
    path: Path | None
    format: Format


@dataclass(frozen=True)
class Block:
    """Whole lines: `data` ends with a newline; `line` (from 1), `offset` (uncompressed bytes): its first line."""

    data: bytes
    line: int
    offset: int


@dataclass(frozen=True)
class Damage:
    """What could not be read as lines: an over-long line, or the tail of a broken compressed stream."""

    line: int
    offset: int
    reason: str
    raw: bytes


@dataclass(frozen=True)
class Lines:
    """An input as blocks of whole lines, with what was damaged in between, in the order of the file.

    Raises BadData when a compressed input expands beyond `max_expansion`.
    """

    source: Input
    max_line: int
    max_expansion: float
    block_bytes: int = BLOCK_BYTES

    def __iter__(self) -> Iterator[Block | Damage]:
        """Blocks read one ahead in a thread: decompression and disk overlap with parsing."""
        ahead: queue.Queue[Block | Damage | BaseException | None] = queue.Queue(maxsize=1)
        stopped = threading.Event()

        def put(thing: Block | Damage | BaseException | None) -> None:
            while not stopped.is_set():
                try:
                    ahead.put(thing, timeout=0.1)
                    break
                except queue.Full:
                    continue

        def read() -> None:
            try:
                for piece in self._pieces():
                    put(piece)
                    if stopped.is_set():
                        return
                put(None)
            except BaseException as error:
                put(error)

        thread = threading.Thread(target=read, name="read-ahead", daemon=True)
        thread.start()
        try:
            while (got := ahead.get()) is not None:
                if isinstance(got, BaseException):
                    raise got
                yield got
        finally:
            stopped.set()
            thread.join()

    def _pieces(self) -> Iterator[Block | Damage]:
        carry: list[bytes] = []  # the begun last line
        carried = 0
        line, offset = 1, 0
        skipping = False  # inside a line that was given up as too long
        for number, (chunk, broken) in enumerate(self._chunks()):
            if number == 0 and chunk.startswith(BOM):
                chunk, offset = chunk[len(BOM) :], len(BOM)
            if broken:
                yield Damage(line, offset, broken, b"".join(carry)[:MAX_RAW_BYTES])
                return
            if skipping:
                end = chunk.find(b"\n") + 1
                offset += end or len(chunk)
                if not end:
                    continue
                line, chunk, skipping = line + 1, chunk[end:], False
            cut = chunk.rfind(b"\n") + 1
            if cut:
                data = b"".join([*carry, memoryview(chunk)[:cut]])
                yield Block(data, line, offset)
                line += data.count(b"\n")
                offset += len(data)
                carry, carried = [], 0
            carry.append(chunk[cut:])
            carried += len(chunk) - cut
            if carried > self.max_line:
                yield Damage(line, offset, too_long(self.max_line), b"".join(carry)[:MAX_RAW_BYTES])
                offset += carried
                carry, carried, skipping = [], 0, True
        if carried:
            yield Block(b"".join([*carry, b"\n"]), line, offset)

    def _chunks(self) -> Iterator[tuple[bytes, str]]:
        """(bytes, "") again and again, at last (b"", reason) if a compressed stream is broken."""
        total = 0
        with opened(self.source) as (compression, stream):
            packed = self.source.path.stat().st_size if self.source.path and compression else None
            allowed = math.inf if packed is None else max(FREE_EXPANSION, packed * self.max_expansion)
            while True:
                chunk, broken = _read(stream, self.block_bytes)
                if broken is not None and compression is None:
                    raise broken
                total += len(chunk)
                if total > allowed:
                    raise BadData(
                        f"{self.source.name}: expands to more than {self.max_expansion:g} times its size",
                        "raise ingest.max_expansion in persona.toml if the file is trusted",
                    )
                if chunk:
                    yield chunk, ""
                if broken is not None:
                    cause = BROKEN[isinstance(broken, EOFError) or "end" in str(broken).lower()]
                    yield b"", f"{compression}{cause}"
                if broken is not None or not chunk:
                    return


def _read(stream: IO[bytes], size: int) -> tuple[bytes, Exception | None]:
    """Up to `size` bytes, with the error that ended them: what a broken stream gave before it broke is not lost."""
    parts: list[bytes] = []
    had = 0
    # Small steps through a compressed stream: what comes before the damage is not lost.
    step = size if isinstance(stream, io.FileIO) else 256 << 10
    read = getattr(stream, "read1", stream.read)
    try:
        while had < size and (part := read(min(size - had, step))):
            parts.append(part)
            had += len(part)
    except (EOFError, OSError, zlib.error, pa.ArrowException) as error:
        return b"".join(parts), error
    return parts[0] if len(parts) == 1 else b"".join(parts), None


def too_long(max_line: int) -> str:
    return f"line longer than {max_line >> 20} MiB"


def find(inputs: Sequence[str | Input]) -> list[Input]:
    """Files named by paths, globs, folders or `-`, in sorted order within each argument; an `Input` is one as it is.

    Raises MissingInput for a path or glob that matches nothing.
    """
    found: list[Input] = []
    for text in inputs:
        if isinstance(text, Input) or text == "-":
            found.append(text if isinstance(text, Input) else Input("-", None, "jsonl"))
            continue
        path = Path(text)
        if path.is_dir():
            files = sorted(child for child in path.rglob("*") if child.is_file() and format_of(child.name))
            if not files:
                raise MissingInput(f"{text}: no .jsonl, .csv, .tsv or .parquet files in this folder")
        elif path.exists():
            files = [path]
        else:
            matches = map(Path, glob.glob(text, recursive=True))  # noqa: PTH207 (Path.glob takes no absolute patterns)
            files = sorted(match for match in matches if match.is_file())
            if not files:
                raise MissingInput(f"{text}: no such file, folder or match")
        found += [Input(str(file), file, format_of(file.name) or "jsonl") for file in files]
    return found


def format_of(name: str) -> Format | None:
    """The format told by a file name (compression suffix ignored), or None."""
    path = Path(name)
    if path.suffix.lower() in _COMPRESSION:
        path = path.with_suffix("")
    return _SUFFIX.get(path.suffix.lower())


class opened:
    """Context manager giving (compression or None, binary stream) of an input; `-` may be compressed as well."""

    def __init__(self, source: Input) -> None:
        self.source = source
        self._files: list[IO[bytes]] = []

    def __enter__(self) -> tuple[str | None, IO[bytes]]:
        found = sys.stdin.buffer if self.source.path is None else self.source.path.open("rb", buffering=0)
        if self.source.path is not None:
            self._files.append(found)
        if self.source.path is None or not found.seekable():  # standard input, or a pipe such as <(command)
            plain: IO[bytes] = io.BufferedReader(found, 1 << 20)  # type: ignore[type-var]
            head = plain.peek(4)[:4]  # type: ignore[attr-defined]
        else:
            plain = found
            head = plain.read(4)
            plain.seek(0)
        kind = next((name for magic, name in _MAGIC.items() if head.startswith(magic)), None)
        if kind is None:
            return None, plain
        if kind == "gzip":
            stream: IO[bytes] = gzip.GzipFile(fileobj=plain)  # type: ignore[assignment]
        elif kind == "bz2":
            stream = bz2.BZ2File(plain)
        else:
            stream = pa.CompressedInputStream(pa.PythonFile(plain, mode="r"), "zstd")
        self._files.append(stream)
        return kind, stream

    def __exit__(self, *_: object) -> None:
        for file in reversed(self._files):
            file.close()
