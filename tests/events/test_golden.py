"""Hostile lines, each with a fixed verdict and reason, for both readers.

tests/golden/hostile_lines.jsonl holds the lines, hostile_lines.verdicts.jsonl beside it the verdict on each.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from persona_cli.events import reading
from persona_cli.events.batch import Reject
from persona_cli.events.opening import Input
from persona_cli.workspace.settings import load

GOLDEN = Path(__file__).parents[1] / "golden"
LINES = (GOLDEN / "hostile_lines.jsonl").read_bytes().split(b"\n")[:-1]
VERDICTS = [json.loads(line) for line in (GOLDEN / "hostile_lines.verdicts.jsonl").read_bytes().splitlines()]
LATEST_US = 1_800_000_000_000_000  # 2027-01-15
# What the fast reader needs to see often enough to look for a layout.
FILLING = b'{"user_id":"filling","event_type":"click","timestamp":"2026-01-05T10:20:30Z"}'


def read(path: Path, reader: reading.Reader, flags: Sequence[str] = ()) -> tuple[list[dict[str, Any]], list[Reject]]:
    """Rows (times as µs) and rejects of a JSON lines file."""
    rows: list[dict[str, Any]] = []
    rejects: list[Reject] = []
    source = Input(path.name, path, "jsonl")
    for batch in reading.batches(source, "events", flags, load(None, {}), LATEST_US, reader=reader):
        assert batch.read == batch.rows.num_rows + len(batch.rejects)
        for name in ("timestamp", "received_at"):
            at = batch.rows.schema.get_field_index(name)
            batch.rows = batch.rows.set_column(at, name, batch.rows[name].cast("int64"))
        rows += batch.rows.to_pylist()
        rejects += batch.rejects
    return rows, rejects


def test_there_are_enough_lines_and_a_verdict_for_each() -> None:
    assert len(LINES) == len(VERDICTS) >= 60


@pytest.mark.parametrize("reader", ["plain", "fast"])
def test_each_line_has_its_verdict(reader: reading.Reader, tmp_path: Path) -> None:
    path = tmp_path / "hostile.jsonl"
    path.write_bytes(b"\n".join(LINES) + b"\n")
    rows, rejects = read(path, reader)
    accepted = {row["line"]: row for row in rows}
    rejected = {reject.line: reject for reject in rejects}
    assert sorted([*accepted, *rejected]) == list(range(1, len(LINES) + 1))
    offset = 0
    for number, (line, verdict) in enumerate(zip(LINES, VERDICTS, strict=True), 1):
        if "rejected" in verdict:
            assert number in rejected, f"line {number} was accepted: {line[:100]!r}"
            assert rejected[number] == Reject(number, offset, verdict["rejected"], line)
        else:
            assert number in accepted, f"line {number} was rejected: {rejected[number]}"
            got = {name: accepted[number][name] for name in verdict["accepted"]}
            assert got == verdict["accepted"], f"line {number}: {line[:100]!r}"
        offset += len(line) + 1


def test_each_line_has_its_verdict_among_many_of_its_like(tmp_path: Path) -> None:
    """Two hundred copies of each line make the fast reader look for a layout of exactly this line."""
    path = tmp_path / "many.jsonl"
    path.write_bytes(b"".join((line + b"\n") * 200 for line in (FILLING, *LINES)))
    rows, rejects = read(path, "fast")
    accepted = {row["line"]: row for row in rows}
    reasons = {reject.line: reject.reason for reject in rejects}
    for number, verdict in enumerate(VERDICTS, 1):
        for line in (number * 200 + 1, number * 200 + 200):
            if "rejected" in verdict:
                assert reasons[line] == verdict["rejected"]
            else:
                assert {name: accepted[line][name] for name in verdict["accepted"]} == verdict["accepted"]


def test_a_made_id_never_changes(tmp_path: Path) -> None:
    path = tmp_path / "one.jsonl"
    path.write_bytes(
        b'{"user_id":"u1","event_type":"click","timestamp":"2026-01-05T10:20:30Z","item_id":"i1","target":"card",'
        b'"value":2.5,"session_id":"s"}\n'
    )
    # md5(b"1" + struct.pack("<qd", 1767608430000000, 2.5) + b"\x1fu1\x1fclick\x1fcard\x1fi1\x1fs")
    for reader in ("plain", "fast"):
        rows, _ = read(path, reader)  # type: ignore[arg-type]
        assert rows[0]["event_id"] == "29820f8e5dd14062e30f902f6eb07d2e"
        assert rows[0]["given"] is False
