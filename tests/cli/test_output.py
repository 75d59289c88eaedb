"""What data looks like on stdout: safe in a terminal and a spreadsheet, unchanged for machines."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from persona_cli.cli import common, output
from persona_cli.errors import UsageError

HOSTILE = "a\x1b[31m\u202eb\n|<c>"
RECORDS = [{"id": "007", "n": 1, "x": 0.5}, {"id": "=cmd()", "n": 20, "x": None}]


def shown(capsys: pytest.CaptureFixture[str], records: output.Records, format: output.Format) -> list[str]:
    output.render(records, format)
    return capsys.readouterr().out.splitlines()


def test_formats(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, RECORDS, "table") == ["id       n    x", "007      1  0.5", "=cmd()  20"]
    assert shown(capsys, RECORDS, "csv") == ["id,n,x", "007,1,0.5", "'=cmd(),20,"]
    assert shown(capsys, RECORDS, "md") == [
        "| id | n | x |",
        "|---|---|---|",
        "| 007 | 1 | 0.5 |",
        "| =cmd() | 20 |  |",
    ]
    assert [json.loads(line) for line in shown(capsys, RECORDS, "jsonl")] == RECORDS
    assert json.loads("\n".join(shown(capsys, RECORDS, "json"))) == RECORDS


def test_a_frame_is_shown_like_its_records(capsys: pytest.CaptureFixture[str]) -> None:
    frame = pl.DataFrame(RECORDS)
    for format in ("table", "csv", "md", "jsonl", "json"):
        assert shown(capsys, frame, format) == shown(capsys, RECORDS, format)


def test_nothing_is_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, [], "json") == ["[]"]
    assert shown(capsys, [], "jsonl") == []
    assert shown(capsys, pl.DataFrame({"a": []}), "csv") == ["a"]


def test_hostile_text_is_escaped_for_people_and_unchanged_for_machines(capsys: pytest.CaptureFixture[str]) -> None:
    for format in ("table", "md"):
        text = "\n".join(shown(capsys, [{"id": HOSTILE}], format))
        assert "\x1b" not in text and "\u202e" not in text and "\\x1b" in text
    assert "\\|&lt;c>" in text
    assert json.loads(shown(capsys, [{"id": HOSTILE}], "jsonl")[0])["id"] == HOSTILE


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("@x", "'@x"),
        ("-u7", "'-u7"),
        ("+4930", "+4930"),
        ("-5", "-5"),
        (-5, "-5"),
        ("a=b", "a=b"),
        ("", ""),
        (True, "true"),
    ],
)
def test_no_cell_of_a_csv_is_a_formula(capsys: pytest.CaptureFixture[str], value: object, cell: str) -> None:
    assert shown(capsys, [{"a": value, "b": 0}], "csv")[1] == f"{cell},0"


def test_values_become_json_types() -> None:
    assert output.plain(
        {
            1: datetime(2026, 3, 1, 12, tzinfo=UTC),
            "day": date(2026, 3, 1),
            "gap": timedelta(minutes=1),
            "nan": float("nan"),
            "raw": b"\xffa",
            "array": np.array([1, 2]),
            "scalar": np.float32(0.5),
            "path": Path("a"),
            "set": {1},
            "frame": pl.DataFrame({"a": [1]}),
        }
    ) == {
        "1": "2026-03-01T12:00:00Z",
        "day": "2026-03-01",
        "gap": 60.0,
        "nan": None,
        "raw": "\\xffa",
        "array": [1, 2],
        "scalar": 0.5,
        "path": "a",
        "set": [1],
        "frame": [{"a": 1}],
    }


def test_out_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "out.parquet"
    output.render(RECORDS, "parquet", path)
    assert pl.read_parquet(path).to_dicts() == RECORDS
    with pytest.raises(ValueError, match="no"), output.out_stream(path) as stream:
        stream.write(b"half")
        raise ValueError("no")
    assert pl.read_parquet(path).height == 2
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.parquet"]


def test_a_dash_is_stdout(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    output.emit_json({"a": 1}, Path("-"))
    assert capfdbinary.readouterr().out == b'{"a": 1}\n'


def test_progress_is_silent_where_nobody_watches(capsys: pytest.CaptureFixture[str]) -> None:
    with common.progress("reading", 10) as advance:
        advance(10)
    assert capsys.readouterr() == ("", "")


def test_pairs_and_confirmation() -> None:
    assert common.pairs(["a=1", " b = x=y "]) == {"a": "1", "b": "x=y"}
    assert common.pairs(None) == {}
    with pytest.raises(UsageError, match="--set is 'a'"):
        common.pairs(["a"])
    common.confirm("delete?", yes=True)
    with pytest.raises(UsageError) as caught:
        common.confirm("delete?", yes=False)
    assert caught.value.hint == "add --yes to go ahead"
