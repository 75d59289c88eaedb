"""Batches of whole inputs: counts, order, offsets, cuts, memory, long lines, sniffing."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from persona_cli.errors import BadData
from persona_cli.events import jsonlines, reading
from persona_cli.events.batch import rows_schema
from persona_cli.events.opening import Input
from persona_cli.events.schema import judged_schema
from persona_cli.workspace.settings import load

SETTINGS = load(None, {})
LATEST_US = 1_800_000_000_000_000  # 2027-01-15


def line(number: int, **more: object) -> bytes:
    record = {"user_id": f"u{number}", "event_type": "click", "timestamp": "2026-01-05T10:20:30Z", **more}
    return json.dumps(record).encode() + b"\n"


def batches(path: Path, reader: reading.Reader = "auto", flags: Sequence[str] = ()) -> list[reading.Batch]:
    source = Input(path.name, path, "jsonl")
    return list(reading.batches(source, "events", flags, SETTINGS, LATEST_US, reader=reader))


def rows(found: list[reading.Batch]) -> list[dict[str, object]]:
    return [row for batch in found for row in batch.rows.to_pylist()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


def test_the_columns_are_the_judged_ones_with_given_and_line(path: Path) -> None:
    path.write_bytes(line(1) + line(2, event_id="e2"))
    (batch,) = batches(path)
    assert batch.rows.schema == rows_schema("events")
    assert batch.rows.schema.names == [*judged_schema("events").names, "given", "line"]
    assert batch.rows["given"].to_pylist() == [False, True]
    assert batch.rows["event_id"][1].as_py() == "e2"
    assert batch.rows["event_id"].null_count == 0


@pytest.mark.parametrize("reader", ["fast", "plain"])
@pytest.mark.parametrize("block_bytes", [50, 1_000, 1 << 20])
def test_blocks_change_nothing(
    block_bytes: int, reader: reading.Reader, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = b"".join(line(n) if n % 7 else b"bad\n" for n in range(700))
    path.write_bytes(content)
    monkeypatch.setattr(reading, "BLOCK_BYTES", block_bytes)
    found = batches(path, reader)
    assert sum(batch.read for batch in found) == 700
    assert [row["line"] for row in rows(found)] == [n + 1 for n in range(700) if n % 7]
    rejects = [reject for batch in found for reject in batch.rejects]
    assert [reject.line for reject in rejects] == [n + 1 for n in range(0, 700, 7)]
    assert all(content[reject.offset :].startswith(b"bad\n") for reject in rejects)


def test_identical_lines_have_the_same_id_for_the_store_to_number(path: Path) -> None:
    path.write_bytes(line(1) * 2 + line(2))
    first, second, third = (row["event_id"] for row in rows(batches(path)))
    assert first == second != third


def test_the_last_line_needs_no_newline_and_an_empty_file_has_no_batch(path: Path) -> None:
    path.write_bytes(line(1).rstrip())
    assert len(rows(batches(path))) == 1
    path.write_bytes(b"")
    assert batches(path) == []


def test_a_blank_line_counts_as_read_and_rejected(path: Path) -> None:
    path.write_bytes(line(1) + b"\n" + line(2) + b"  \n")
    (batch,) = batches(path)
    assert (batch.read, batch.rows.num_rows) == (4, 2)
    assert [(reject.line, reject.reason) for reject in batch.rejects] == [(2, "blank line"), (4, "blank line")]


def test_a_line_of_50_mb_is_read_and_one_over_the_limit_rejected(path: Path) -> None:
    path.write_bytes(line(1, note="x" * 50_000_000) + line(2, note="x" * (64 << 20)) + line(3))
    found = batches(path)
    assert [row["line"] for row in rows(found)] == [1, 3]
    assert len(str(rows(found)[0]["props"])) == 50_000_011
    (reject,) = [reject for batch in found for reject in batch.rejects]
    assert (reject.line, reject.reason, len(reject.raw)) == (2, "line longer than 64 MiB", 65_536)
    assert sum(batch.read for batch in found) == 3


@pytest.mark.parametrize("reader", ["fast", "plain"])
def test_the_limit_holds_inside_blocks_too(reader: reading.Reader, path: Path) -> None:
    settings = SETTINGS.with_flags({"ingest.max_line_mb": 1})
    # Escapes shorten when they are undone; the limit is for the line as it came.
    long = line(2, note="é" * 200_000)
    path.write_bytes(line(1) * 30 + long + line(3))
    source = Input("x", path, "jsonl")
    (batch,) = reading.batches(source, "events", (), settings, LATEST_US, reader=reader)
    assert [(reject.line, reject.reason) for reject in batch.rejects] == [(31, "line longer than 1 MiB")]
    assert batch.read == 32


def test_a_truncated_gzip_rejects_its_tail_once(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl.gz"
    content = b"".join(line(n, note=f"{n * 7919 % 10007}") for n in range(20_000))
    packed = gzip.compress(content)
    path.write_bytes(packed[: len(packed) // 2])
    found = batches(path)
    read = len(rows(found))
    assert 5_000 < read < 15_000
    (reject,) = [reject for batch in found for reject in batch.rejects]
    assert (reject.line, reject.reason) == (read + 1, "gzip stream ends early")
    assert sum(batch.read for batch in found) == read + 1


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stdin:
        buffer = io.BytesIO(line(1) + line(2))

    monkeypatch.setattr(sys, "stdin", Stdin)
    found = list(reading.batches(Input("-", None, "jsonl"), "events", (), SETTINGS, LATEST_US))
    assert [row["user_id"] for row in rows(found)] == ["u1", "u2"]


def test_keys_that_come_late_are_not_lost(path: Path) -> None:
    path.write_bytes(b"".join(map(line, range(1_500))) + line(1, item_id="i", sku="s", plan="pro"))
    last = rows(batches(path))[-1]
    assert (last["item_id"], last["props"]) == ("i", '{"sku":"s","plan":"pro"}')


def test_aliases_flags_and_constants(path: Path) -> None:
    record = {"userId": "u", "properties": {"sku": "s", "size": 3}, "ts": 1767608430}
    path.write_bytes((json.dumps(record) + "\n").encode() * 100)
    for reader in ("fast", "plain"):
        found = batches(path, reader, ["item_id=properties.sku", "event_type==buy"])  # type: ignore[arg-type]
        row = rows(found)[-1]
        assert (row["user_id"], row["item_id"], row["event_type"]) == ("u", "s", "buy")
        assert row["props"] == '{"properties":{"size":3}}'
    with pytest.raises(BadData, match="no column for event_type"):
        batches(path)


def test_a_constant_that_cannot_be_read_rejects_every_line(path: Path) -> None:
    path.write_bytes(line(1) * 50)
    for reader in ("fast", "plain"):
        (batch,) = batches(path, reader, ["value==much"])  # type: ignore[arg-type]
        assert {reject.reason for reject in batch.rejects} == {"value: expected a number, got text"}
        assert len(batch.rejects) == 50


def test_zoneless_rows_are_counted_once_each(path: Path) -> None:
    record = {"user_id": "u", "event_type": "a", "timestamp": "2026-01-05T10:20:30", "received_at": "2026-01-05"}
    path.write_bytes((json.dumps(record) + "\n").encode() * 60 + line(1) + b"bad\n")
    for reader in ("fast", "plain"):
        assert sum(batch.zoneless for batch in batches(path, reader)) == 60  # type: ignore[arg-type]


def test_the_fast_reader_needs_no_judge_for_many_kinds_of_lines(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Optional keys, other orders, spaces, unknown keys and needless escapes are all read at once."""
    kinds = [
        {},
        {"context": {"device": "tv", "screen": "big"}},
        {"item_id": None, "value": 2.5},
        {"query": "größe/länge"},
        {"props": {"nested": {"list": ["a", {"b": 1.10}]}}, "flag": True},
    ]
    lines = [line(n, **kinds[n % 5]) for n in range(500)]
    lines += [line(n, **kinds[3]).replace(b"/", b"\\/").replace(b", ", b",") for n in range(100)]
    path.write_bytes(b"".join(lines))
    singly: list[bytes] = []
    monkeypatch.setattr(jsonlines, "_record", lambda raw, longest: singly.append(raw) or jsonlines.parse_json(raw))
    assert len(rows(batches(path, "fast"))) == 600
    assert not singly
    assert rows(batches(path, "plain")) == rows(batches(path, "fast"))


def test_stopping_early_leaves_nothing_running(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "BLOCK_BYTES", 1_000)
    path.write_bytes(b"".join(map(line, range(2_000))))
    found = reading.batches(Input("x", path, "jsonl"), "events", (), SETTINGS, LATEST_US)
    assert next(found).rows.num_rows > 0
    found.close()  # type: ignore[attr-defined]


def test_sniffing_shows_mapping_first_rows_and_rejects(path: Path) -> None:
    path.write_bytes(b"bad\n" + b"".join(line(n, sku=f"s{n}") for n in range(5)))
    found = reading.sniff(Input("x", path, "jsonl"), "events", (), SETTINGS, LATEST_US)
    assert found.mapping.guessed == ("item_id",)
    assert found.format == "jsonl"
    assert found.rows["item_id"].to_pylist() == ["s0", "s1", "s2"]
    assert [reject.reason for reject in found.rejects] == ["not valid JSON"]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc")
def test_memory_stays_flat(tmp_path: Path) -> None:
    """Four times the file, not much more memory."""
    code = (
        "import sys; from pathlib import Path\n"
        "from persona_cli.events import reading; from persona_cli.events.opening import Input\n"
        "from persona_cli.workspace.settings import load\n"
        "source = Input('x', Path(sys.argv[1]), 'jsonl')\n"
        "read = sum(b.read for b in reading.batches(source, 'events', (), load(None, {}), 18 * 10**14))\n"
        # Not getrusage: there the peak of the process that started this one counts too.
        "peak = Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0]\n"
        "print(read, peak)\n"
    )
    peaks = []
    for count in (200_000, 800_000):
        path = tmp_path / f"{count}.jsonl"
        path.write_bytes(b"".join(line(n) for n in range(count)))
        output = subprocess.run([sys.executable, "-c", code, str(path)], check=True, capture_output=True, text=True)
        read, peak = map(int, output.stdout.split())
        assert read == count
        peaks.append(peak)
    assert peaks[1] < peaks[0] * 1.3
