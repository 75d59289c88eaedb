"""Random damage to valid lines: the fast reader gives exactly what the plain one gives."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from persona_cli.events import jsonlines, reading
from persona_cli.events.batch import rows_schema
from persona_cli.events.opening import Input
from persona_cli.events.schema import Kind
from persona_cli.workspace.settings import load

LATEST_US = 1_800_000_000_000_000  # 2027-01-15
TEXTS = (
    "u1",
    "",
    " ",
    "é",
    "007",
    "1.10",
    "a|b",
    "x" * 13,
    "x" * 1_001,
    "null",
    "\\n",
    "\\u00e9",
    "\\/a",
    "\\\\/",
    "\\u0041",
    "\\ud83d\\ude00",
    "\\ud83d",
    "\\\\u00e9",
    "\\u041f\\u0440",
    "\\\\",
    "2026-01-05",
)
NUMBERS = ("1", "0", "-0", "-1", "2.50", "0.1", "1e3", "01", "1.", "-", "123456789012345678", "1234567890123456789",
           "3.14159265358979323846", "null", "true", "[1]", "{}", "NaN", "", "1767608430", "1767608430123")  # fmt: skip
TIMES = (
    "2026-01-05T10:20:30Z", "2026-01-05T10:20:30.123Z", "2026-01-05T10:20:30.123456Z", "2026-01-05T10:20:30+02:00",
    "2026-01-05T10:20:30.123-11:30", "2026-01-05 10:20:30", "2026-01-05T10:20:30.123", "2026-01-05", "1767608430",
    "2026-02-30T10:20:30Z", "2026-01-05T10:60:30Z", "1969-01-05T10:20:30Z", "2262-01-05T10:20:30Z", "",
    "2026-10-25T01:30:00", "2026-03-29T01:30:00", "2026-1-5", "2026-01-05T10:20:30.123+25:00",
)  # fmt: skip
TEMPLATES: dict[Kind, tuple[str, ...]] = {
    "events": (
        '{"user_id":"T","event_type":"T","target":"T","item_id":"T","timestamp":"D","value":N,'
        '"context":{"device":"T","page":"T","country":"T"}}',
        '{"event_type":"T","timestamp":N,"user_id":N,"position":N}',
        '{"event_id":"T","anon_id":"T","event_type":"T","timestamp":"D","received_at":"D","value":"N"}',
        '{"user_id":"T","timestamp":"D","event_type":"T","item_id":null,"plan":"T","props":{"n":N,"ok":true,"l":["T"]}}',
        '{"user_id":"T", "timestamp":"D", "event_type":"T", "context":{"os":"T","size":"T","deep":{"a":N,"b":"T"}}}',
        '{"user_id":"T","timestamp":"D","event_type":"T","tags":[],"ok":true,"of":{}}',
        ' {"user_id":"T","event_type":"T","timestamp":"D"}',
        '{"user_id":"T","event_type":"T","timestamp":"D","context":{"device":"T"}}',
        '{"event_type":"T","user_id":"T","value":N,"timestamp":"D"}',
        '{"user_id":"T","timestamp":"D","event_type":"T","tags":["T",{"k":N}],"query":"T"}\r',
    ),
    "items": (
        '{"item_id":"T","title":"T","category":"T","tags":["T","T"],"price":N,"available":true,"published_at":"D"}',
        '{"item_id":"T","title":"T","category":"T","price":N,"color":"T","valid_from":"D"}',
    ),
}
TOKENS = (
    b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"null", b"true", b"NaN", b"0", b"-", b".", b"e5", b" ", b"\t",
    b"\r", b"\x00", b"\xff", b"\xc3", "é".encode(), b"Z", b"+", b'","', b'":"', b"\xed\xa0\x80", b"\\u0000",
    b"\\/", b"\\u00e9", b"\\u0031",
)  # fmt: skip


def filled(template: str, chance: random.Random) -> bytes:
    """A template with values drawn for its T(ext), N(umber) and D(ate) places; mostly harmless ones."""
    out = []
    for place, letter in enumerate(template):
        alone = template[place - 1 : place] in '":[' and template[place + 1 : place + 2] in '",}]'
        if letter == "T" and alone:
            out.append(chance.choice(TEXTS) if chance.random() < 0.15 else f"v{chance.randrange(10_000)}")
        elif letter == "N" and alone:
            out.append(chance.choice(NUMBERS) if chance.random() < 0.15 else str(chance.randrange(10_000) / 8))
        elif letter == "D" and alone:
            out.append(chance.choice(TIMES) if chance.random() < 0.3 else TIMES[1])
        else:
            out.append(letter)
    return "".join(out).encode()


def mutated(line: bytes, chance: random.Random) -> bytes:
    """One or two changes: a byte replaced, tokens put in, bytes taken out, a part repeated or moved."""
    for _ in range(chance.choice((1, 1, 1, 2))):
        at = chance.randrange(len(line) + 1)
        to = min(len(line), at + chance.randrange(1, 12))
        change = chance.randrange(6)
        if change == 0:
            line = line[:at] + bytes([chance.randrange(256)]) + line[at + 1 :]
        elif change == 1:
            line = line[:at] + chance.choice(TOKENS) + line[at:]
        elif change == 2:
            line = line[:at] + chance.choice(TOKENS) + line[to:]
        elif change == 3:
            line = line[:at] + line[to:]
        elif change == 4:
            line = line[:to] + line[at:]
        else:
            parts = line.split(b",")
            chance.shuffle(parts)
            line = b",".join(parts)
    return line.replace(b"\n", b"")


def lines(kind: Kind, count: int, chance: random.Random) -> Iterator[bytes]:
    for _ in range(count):
        line = filled(chance.choice(TEMPLATES[kind]), chance)
        if chance.random() < 0.5:
            line = mutated(line, chance)
        # Repeated, a damaged line can become the model of a layout.
        yield from [line] * chance.choice((1, 1, 3))


def compare(path: Path, kind: Kind, zone: str = "UTC") -> tuple[int, int]:
    """Assert that both readers agree on everything; (accepted, rejected)."""
    settings = load(None, {}).with_flags({"ingest.assume_tz": zone})
    source = Input(path.name, path, "jsonl")
    got = {}
    for reader in ("plain", "fast"):
        read = list(reading.batches(source, kind, (), settings, LATEST_US, reader=reader))  # type: ignore[arg-type]
        rows = [row for batch in read for row in batch.rows.cast(rows_schema(kind)).to_pylist()]
        rejects = [reject for batch in read for reject in batch.rejects]
        got[reader] = rows, rejects, sum(batch.read for batch in read), sum(batch.zoneless for batch in read)
    for plain, fast in zip(*(got[reader][0] for reader in ("plain", "fast")), strict=False):
        assert plain == fast
    assert got["plain"] == got["fast"]
    return len(got["plain"][0]), len(got["plain"][1])


def run(path: Path, kind: Kind, seed: int, count: int, zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Every group of lines alike gets a layout, however small.
    monkeypatch.setattr(jsonlines, "WORTHWHILE", 1)
    chance = random.Random(seed)
    path.write_bytes(b"".join(line + b"\n" for line in lines(kind, count, chance)))
    accepted, rejected = compare(path, kind, zone)
    assert accepted > count / 5
    assert rejected > count / 5


@pytest.mark.parametrize(("seed", "zone"), [(1, "UTC"), (2, "Europe/Berlin"), (3, "America/St_Johns")])
def test_fast_equals_plain_on_damaged_events(
    seed: int, zone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path / "events.jsonl", "events", seed, 1_500, zone, monkeypatch)


def test_fast_equals_plain_on_damaged_items(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path / "items.jsonl", "items", 4, 800, "UTC", monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 140))
def test_fast_equals_plain_on_many_damaged_lines(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind: Kind = "items" if seed % 4 == 0 else "events"
    run(tmp_path / "lines.jsonl", kind, seed, 5_000, "Asia/Kathmandu" if seed % 3 == 0 else "UTC", monkeypatch)


def test_the_fast_reader_vouches_for_nearly_all_undamaged_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Equality alone would hold for a fast reader that leaves everything to the plain one."""
    singly = []
    monkeypatch.setattr(jsonlines, "_record", lambda raw, longest: singly.append(raw) or jsonlines.parse_json(raw))
    harmless = TEMPLATES["events"][0].replace('"T"', '"%s"').replace('"D"', f'"{TIMES[1]}"').replace(":N", ":1.5")
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"".join((harmless % (("t" + str(n),) * 7)).encode() + b"\n" for n in range(5_000)))
    accepted, rejected = compare(path, "events")
    assert (accepted, rejected) == (5_000, 0)
    assert len(singly) == 5_000  # the plain reader's; the fast one needed none
