"""Scanning tables and files: counts, shares, fields, and that nothing found is shown."""

from __future__ import annotations

import json
import os
import random
import string
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from planted import plants

from persona_cli.cli.main import run
from persona_cli.errors import MissingInput
from persona_cli.privacy.detectors import decoded
from persona_cli.privacy.scan import SKETCH, Finding, Scanner, _Distinct, scan_files, scan_workspace
from persona_cli.workspace.home import create, open_home

AT = "2026-01-05T10:00:00Z"


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("PERSONA_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def write(name: str, *records: dict[str, object]) -> str:
    Path(name).write_text("".join(json.dumps({"timestamp": AT, "event_type": "click"} | one) + "\n" for one in records))
    return name


def findings(*records: dict[str, object]) -> list[Finding]:
    return scan_files(create(Path("w")), [write("events.jsonl", *records)]).findings


def places(found: list[Finding]) -> list[tuple[str, str, str, int, int]]:
    return [(one.table, one.field, one.kind, one.values, one.rows) for one in found]


def test_fields_values_and_rows_are_counted() -> None:
    found = findings(
        {"user_id": "jo@example.com", "query": "shoes"},
        {"user_id": "jo@example.com", "props": {"form": {"phone": "030 901820"}, "n": 4}},
        {"user_id": "u2", "props": {"form": {"phone": 4930901821}, "to": ["a@example.com", "b@example.com"]}},
        {"user_id": "u3", "props": {"c@example.com": 1}},
    )
    assert places(found) == [
        ("events", "props.*", "email", 1, 1),
        ("events", "props.form.phone", "phone", 2, 2),
        ("events", "props.to", "email", 2, 1),
        ("events", "user_id", "email", 1, 2),
    ]
    assert found[3].share == 0.5
    assert found[3].exact
    assert "pseudonym" in found[3].advice


def test_files_are_looked_at_as_ingest_would_store_them() -> None:
    """Query strings and addresses that the door takes out are not found; rejected lines, which are kept, are."""
    found = findings(
        {"user_id": "u1", "ip": "203.0.113.9", "page": "https://example.com/reset?token=abcdef123456"},
        {"user_id": "u2", "page": "https://example.com/account/jo@example.com"},
        {"timestamp": "never", "user_id": "eve@example.com"},
    )
    assert places(found) == [("events", "page", "email", 1, 1), ("quarantine", "raw", "email", 1, 1)]


def test_a_workspace_is_looked_at_in_all_its_tables() -> None:
    home = create(Path("w"))
    with pytest.raises(MissingInput):
        scan_workspace(home)
    events = write(
        "events.jsonl", {"user_id": "u1", "query": "+49 30 901820"}, {"timestamp": "?", "user_id": "x@example.com"}
    )
    Path("users.csv").write_text("user_id,iban\nu1,DE89370400440532013000\nu2,\n")
    Path("items.csv").write_text("item_id,text\ni1,write to me@example.com\n")
    assert run(["-w", "w", "ingest", events]) == 0
    assert run(["-w", "w", "ingest", "--kind", "users", "users.csv"]) == 0
    assert run(["-w", "w", "ingest", "--kind", "items", "items.csv"]) == 0
    scanned = scan_workspace(open_home(Path("w")))
    assert places(scanned.findings) == [
        ("events", "query", "phone", 1, 1),
        ("items", "text", "email", 1, 1),
        ("quarantine", "raw", "email", 1, 1),
        ("users", "props.iban", "iban", 1, 1),
    ]
    assert scanned.rows == scanned.of == {"events": 1, "items": 1, "users": 2, "quarantine": 1}
    assert not scan_workspace(open_home(Path("w")), min_share=0.9).findings[3:]


def test_a_sample_is_spread_over_a_table_and_the_same_each_time() -> None:
    home = create(Path("w"))
    write("events.jsonl", *({"user_id": f"u{n}@example.com", "item_id": str(n)} for n in range(2_000)))
    assert run(["-w", "w", "ingest", "--no-profiles", "events.jsonl"]) == 0
    scanned = scan_workspace(home, sample=200)
    assert 120 < scanned.rows["events"] < 300
    assert scanned == scan_workspace(home, sample=200)
    assert scanned.findings[0].share == 1


def test_cards_by_chance_are_ids_and_a_card_among_texts_is_one() -> None:
    rng = random.Random(2)
    scanner = Scanner()
    scanner.add("events", pl.DataFrame({"item_id": [f"4{rng.randrange(10**15):015}" for _ in range(500)]}))
    assert scanner.findings() == []
    scanner.add("users", pl.DataFrame({"role": ["4111111111111111", "buyer"]}))
    assert [one.table for one in scanner.findings()] == ["users"]


def as_frame(rows: list[tuple[str, str]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema={"user_id": pl.String, "props": pl.String}, orient="row")


@given(st.randoms(use_true_random=False), st.integers(1, 40))
def test_neither_order_nor_batches_change_the_result(rng: random.Random, size: int) -> None:
    rows = [(plant.value, '{"k":"v"}') for plant in plants() if plant.field == "user_id"]
    rows += [("u", plant.value) for plant in plants() if plant.field == "props"][::5]
    whole, parted = Scanner(), Scanner()
    whole.add("events", as_frame(rows))
    rng.shuffle(rows)
    for at in range(0, len(rows), size):
        parted.add("events", as_frame(rows[at : at + size]))
    assert parted.findings() == whole.findings()


def test_distinct_values_are_counted_in_bounded_memory() -> None:
    hashes = [random.Random(n).getrandbits(64) for n in range(3 * SKETCH)]
    forward, backward = _Distinct(), _Distinct()
    for one in hashes:
        forward.add(one)
        forward.add(one)
    for one in reversed(hashes):
        backward.add(one)
    assert forward.count == backward.count == pytest.approx(3 * SKETCH, rel=0.06)
    assert len(forward.kept) == SKETCH
    assert forward.full


VALUES = st.one_of(
    st.emails(domains=st.just("example.org")),
    st.ip_addresses().map(str),
    st.text(string.digits, min_size=9, max_size=12).map(lambda number: f"+49{number}"),
    st.text(string.ascii_letters + string.digits, min_size=36, max_size=36).map(lambda key: f"ghp_{key}"),
    st.text(string.ascii_letters + string.digits, min_size=12, max_size=30).map(lambda key: f"https://a.example/?token={key}"),
)  # fmt: skip


def telling(key: str) -> bool:
    scanner = Scanner()
    scanner.add("users", pl.DataFrame({"props": [json.dumps({key: 1})]}))
    return bool(scanner.findings())


@given(st.lists(VALUES, min_size=1, max_size=5), st.dictionaries(VALUES, VALUES, max_size=2))
@example(["a"], {"0.0.0.0": "b"})
def test_no_value_found_stands_in_the_result(values: list[str], props: dict[str, str]) -> None:
    scanner, shown = Scanner(), ""
    scanner.add("events", pl.DataFrame({"user_id": values, "query": values}))
    scanner.add("users", pl.DataFrame({"props": [json.dumps(props | {"list": values}), json.dumps({"a": props})]}))
    shown = str(scanner.findings())
    # A key in which nothing is found, as 0.0.0.0, is the name of a field.
    for value in [*values, *filter(telling, props), *props.values()]:
        for secret in (value, value.rpartition("=")[2]):
            assert len(secret) < 6 or secret not in shown


def test_no_plant_stands_in_what_a_workspace_or_file_scan_prints(capfd: pytest.CaptureFixture[str]) -> None:
    records = []
    for n, plant in enumerate(plants()):
        record: dict[str, object] = {"user_id": f"u{n}", "item_id": f"i{n}"}
        field = plant.field if plant.table == "events" else "query"
        if plant.field == "props":
            record["props"] = json.loads(plant.value)
        elif field in ("page", "referrer", "campaign"):
            record["context"] = {field: plant.value}
        else:
            record[field] = plant.value
        records.append(record)
    write("events.jsonl", *records, {"timestamp": "wrong", "user_id": "gone@example.com"})
    assert run(["-w", "w", "init"]) == 0
    shown = ""
    for words in (["events.jsonl"], ["events.jsonl", "--json"], ["events.jsonl", "--all", "--verbose"]):
        assert run(["-w", "w", "privacy", "scan", *words]) == 10
        shown += "".join(capfd.readouterr())
    assert run(["-w", "w", "ingest", "--max-rejected", "1", "events.jsonl"]) == 0
    capfd.readouterr()
    for more in ([], ["--json"]):
        assert run(["-w", "w", "privacy", "scan", *more]) == 10
        shown += "".join(capfd.readouterr())
    assert "email" in shown
    assert "quarantine" in shown
    runs = "".join(path.read_text() for path in Path("w/runs").glob("*.json") if '"scan"' in path.read_text())
    assert runs
    for plant in plants():
        for secret in {plant.secret, decoded(plant.secret)}:
            assert len(secret) < 6 or (secret not in shown and secret not in runs), plant.kind


@pytest.mark.slow
def test_a_million_rows_take_no_more_memory_than_a_sample_of_them() -> None:
    n, of = pl.col("n"), 1_000_000
    pl.DataFrame({"n": range(of)}).select(
        user_id=pl.when(n % 20 == 0).then(pl.format("user{}@example.com", n)).otherwise(pl.format("u{}", n)),
        event_type=pl.lit("click"),
        item_id=pl.format("i{}", n % 999),
        timestamp=pl.lit(AT),
        tel=pl.when(n % 20 == 1).then(pl.format("+4930{}", n + of)),
    ).write_parquet("events.parquet")
    assert run(["-q", "-w", "w", "init"]) == 0
    assert run(["-q", "-w", "w", "ingest", "--no-profiles", "events.parquet"]) == 0
    code = (
        "import resource, sys; from persona_cli.cli.main import run; code = run(sys.argv[1:]); "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr); sys.exit(code)"
    )
    peaks = []
    for rows, how in ((of // 50, ["--sample", str(of // 50)]), (of, ["--all"])):
        command = [sys.executable, "-c", code, "-q", "-w", "w", "privacy", "scan", "--json", *how]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 10
        found = json.loads(done.stdout)
        assert found["rows"]["events"] == pytest.approx(rows, rel=0.1)
        assert [one["field"] for one in found["findings"]] == ["props.tel", "user_id"]
        for one in found["findings"]:
            assert one["rows"] >= one["values"] == pytest.approx(rows / 20, rel=0.15)
        peaks.append(int(done.stderr.split()[-1]))
    assert peaks[1] < peaks[0] + 100 * 1024  # KiB
