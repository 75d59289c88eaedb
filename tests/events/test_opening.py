"""Finding inputs, and blocks of whole lines whatever the compression, the cut and the damage."""

from __future__ import annotations

import bz2
import gzip
import io
import os
import sys
import tempfile
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from persona_cli.errors import BadData, MissingInput
from persona_cli.events import opening
from persona_cli.events.opening import BOM, Block, Damage, Input, Lines, find, format_of

MIB = 1 << 20
# Lines that don't compress to nothing, so that half of a compressed file still holds many of them.
BODY = b"".join(b'{"n":%d,"r":"%s"}\n' % (n, os.urandom(8).hex().encode()) for n in range(40_000))


def pieces(path: Path, **options: int) -> list[Block | Damage]:
    return list(Lines(Input(path.name, path, "jsonl"), options.pop("max_line", 64 * MIB), 200.0, **options))


def whole(found: list[Block | Damage]) -> bytes:
    return b"".join(piece.data for piece in found if isinstance(piece, Block))


def check_places(found: list[Block | Damage], content: bytes) -> None:
    """Line numbers and offsets of all pieces are those of the content."""
    for piece in found:
        assert piece.offset <= len(content)
        assert piece.line == content[: piece.offset].count(b"\n") + 1
        if isinstance(piece, Block):
            assert content[piece.offset :].startswith(piece.data.removesuffix(b"\n"))


@given(st.lists(st.binary(max_size=12), max_size=20), st.integers(1, 40), st.booleans())
def test_blocks_put_together_are_the_file(lines: list[bytes], block_bytes: int, ended: bool) -> None:
    content = b"x" + b"\n".join(lines) + (b"\n" if ended else b"")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.jsonl"
        path.write_bytes(content)
        found = pieces(path, block_bytes=block_bytes)
    assert not any(isinstance(piece, Damage) for piece in found)
    assert whole(found) == content + (b"" if content.endswith(b"\n") or not content else b"\n")
    check_places(found, content)


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("a.jsonl", bytes),
        ("a.jsonl.gz", gzip.compress),
        ("a.jsonl.bz2", bz2.compress),
        ("a.jsonl.zst", lambda data: pa.compress(data, codec="zstd", asbytes=True)),
    ],
)
def test_compressed_files_read_as_what_they_hold(name: str, pack: object, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(pack(BODY))  # type: ignore[operator]
    found = pieces(path, block_bytes=300_000)
    assert whole(found) == BODY
    check_places(found, BODY)
    # Several members in one file are one file.
    path.write_bytes(pack(BODY) + pack(BODY))  # type: ignore[operator]
    assert whole(pieces(path)) == BODY * 2


def test_a_truncated_gzip_keeps_what_was_readable(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    packed = gzip.compress(BODY)
    path.write_bytes(packed + packed[: len(packed) // 2])
    *blocks, damage = pieces(path, block_bytes=300_000)
    assert isinstance(damage, Damage)
    assert damage.reason == "gzip stream ends early"
    read = whole(blocks)
    assert (BODY * 2).startswith(read)
    assert len(BODY) * 1.3 < len(read) < len(BODY) * 2
    check_places([*blocks, damage], BODY * 2)
    assert (BODY * 2)[damage.offset :].startswith(damage.raw)


@pytest.mark.parametrize("pack", [bz2.compress, lambda data: pa.compress(data, codec="zstd", asbytes=True)])
def test_damaged_streams_of_other_kinds_end_with_a_reason(pack: object, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    packed = pack(BODY * 2)  # type: ignore[operator]
    path.write_bytes(packed[: len(packed) * 2 // 3])
    found = pieces(path)
    assert isinstance(found[-1], Damage)
    assert found[-1].reason.split()[0] in ("bz2", "zstd")
    assert (BODY * 2).startswith(whole(found))


def test_rubbish_behind_a_gzip_member_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(BODY) + b"rubbish")
    found = pieces(path)
    assert whole(found) == BODY
    assert found[-1] == Damage(40_001, len(BODY), "gzip stream damaged", b"")


def test_a_line_over_the_limit_is_damage_and_the_next_lines_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    content = b"first\n" + b"x" * (3 * MIB) + b"\nlast\n"
    path.write_bytes(content)
    found = pieces(path, max_line=MIB, block_bytes=300_000)
    assert whole(found) == b"first\nlast\n"
    damage = found[1]
    assert isinstance(damage, Damage)
    assert (damage.line, damage.offset, damage.reason) == (2, 6, "line longer than 1 MiB")
    assert damage.raw == b"x" * 65_536
    check_places(found, content)


def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(BOM + b"a\n" + BOM + b"b\n")
    assert pieces(path) == [Block(b"a\n" + BOM + b"b\n", 1, 3)]


def test_what_expands_too_far_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "FREE_EXPANSION", MIB)
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b"\n" * 8 * MIB))
    with pytest.raises(BadData, match="expands to more than 200 times"):
        pieces(path, block_bytes=MIB)


def test_standard_input_may_be_compressed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stdin:
        buffer = io.BytesIO(gzip.compress(BODY))

    monkeypatch.setattr(sys, "stdin", Stdin)
    assert whole(list(Lines(Input("-", None, "jsonl"), MIB, 200.0))) == BODY


def test_reading_may_stop_early(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(BODY)
    blocks = iter(Lines(Input("a", path, "jsonl"), MIB, 200.0, 1_000))
    assert isinstance(next(blocks), Block)
    blocks.close()  # type: ignore[attr-defined]


def test_inputs_are_found_by_path_folder_glob_and_dash(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.csv.gz", "deep/c.parquet", "notes.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    named = [(Path(found.name).name, found.format) for found in find([str(tmp_path)])]
    assert named == [("a.csv.gz", "csv"), ("b.jsonl", "jsonl"), ("c.parquet", "parquet")]
    assert [Path(found.name).name for found in find([str(tmp_path / "*.csv*"), "-"])] == ["a.csv.gz", "-"]
    assert find([str(tmp_path / "notes.md")])[0].format == "jsonl"
    for nothing in ("nowhere.jsonl", "*.tsv"):
        with pytest.raises(MissingInput, match="no such file, folder or match"):
            find([str(tmp_path / nothing)])
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingInput, match=r"no .* files in this folder"):
        find([str(tmp_path / "empty")])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.NDJSON", "jsonl"),
        ("a.csv.zst", "csv"),
        ("a.tab.bz2", "tsv"),
        ("a.pq", "parquet"),
        ("a.gz", None),
        ("a", None),
    ],
)
def test_the_format_follows_the_name(name: str, expected: str | None) -> None:
    assert format_of(name) == expected
