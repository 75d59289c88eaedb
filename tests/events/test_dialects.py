"""Files of a dialect from end to end: found or named, taken apart, counted, quarantined and judged again."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from persona_cli.errors import MissingInput, Unavailable, UsageError
from persona_cli.events import dialects, reading
from persona_cli.events.catalogue import current
from persona_cli.events.dialects.dialect import Choice, Dialect, Dropped, Record
from persona_cli.events.ingest import ingest, plan
from persona_cli.events.opening import Input
from persona_cli.events.quarantine import lines
from persona_cli.events.retry import retry
from persona_cli.events.undo import undo
from persona_cli.workspace.home import Home, create
from persona_cli.workspace.settings import load
from tests.events.ingesting import event, stored, write
from tests.events.speaking import SHARED

SETTINGS = load(None, {})
LATEST_US = 1_800_000_000_000_000
EXAMPLES = Path(__file__).parents[2] / "docs" / "dialects"


def call(number: int = 1, **more: Any) -> Record:
    at = {"timestamp": "2024-03-01T10:00:00Z", "userId": f"u{number}", "messageId": f"m{number}"}
    return at | {"type": "track", "event": "Product Viewed", "properties": {"product_id": f"p{number}"}} | more


def test_a_file_is_read_as_what_its_keys_say_and_that_is_said_once(
    home: Home, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = [write(tmp_path / f"{name}.jsonl", [call(n), call(n + 1)]) for n, name in ((1, "a"), (3, "b"))]
    with caplog.at_level(logging.INFO, "persona"):
        report = ingest(home, names)
    assert caplog.messages == [f"{names[0]}: read as segment (--dialect native reads it as it is)"]
    assert report.dialects == dict.fromkeys(names, "segment")
    assert stored(home)["event_type"].unique().to_list() == ["view"]


def test_native_and_mapped_files_stay_what_they_are(home: Home, tmp_path: Path) -> None:
    native = write(tmp_path / "a.jsonl", [event(), event(user="u2")])
    mapped = write(tmp_path / "b.jsonl", [call()])
    assert ingest(home, [native]).dialects == {}
    maps = ["user_id=userId", "event_type=event"]
    assert ingest(home, [mapped], maps=maps, dialect="native").dialects == {}
    assert "Product Viewed" in stored(home)["event_type"].to_list()
    assert ingest(home, [mapped], maps=["event_type==x"], dialect="segment").dialects == {mapped: "segment"}


def test_a_mapping_overrides_fields_of_a_dialect_that_was_found(
    home: Home, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name = write(tmp_path / "a.jsonl", [call(1, context={"traits": {"id": "inner"}}), call(2)])
    maps = ["user_id=context.traits.id", "target==list"]
    (shown,) = plan(home, [name], maps=maps)
    assert (shown.dialect, shown.mapping["user_id"], shown.mapping["target"]) == (
        "segment",
        "context.traits.id",
        "=list",
    )
    with caplog.at_level(logging.INFO, "persona"):
        report = ingest(home, [name], maps=maps, max_rejected=1.0)
    assert report.dialects == {name: "segment"} and caplog.messages[0].startswith(f"{name}: read as segment")
    assert stored(home).select("user_id", "event_type", "item_id", "target").rows() == [("inner", "view", "p1", "list")]
    # As if it had been named.
    other = create(tmp_path / "other")
    ingest(other, [name], maps=maps, dialect="segment", max_rejected=1.0)
    assert stored(other).equals(stored(home))
    assert [row["reason"] for row in lines(home).collect().to_dicts()] == ["user_id: missing or empty, and no anon_id"]
    # What is of no dialect is mapped as ever, and a table too.
    odd = write(tmp_path / "b.jsonl", [{"who": "u", "what": "click", "when": "2024-03-01"}])
    taken = ingest(home, [odd], maps=["user_id=who", "event_type=what", "timestamp=when"])
    assert (taken.accepted, taken.dialects) == (1, {})
    header = "id,anonymous_id,received_at,timestamp,context_page_path,url"
    (tmp_path / "p.csv").write_text(f"{header}\nm9,a1,2024-03-01T00:00:00Z,2024-03-01T00:00:00Z,/,x\n")
    table = ingest(home, [str(tmp_path / "p.csv")], maps=["session_id=url"])
    assert table.dialects == {str(tmp_path / "p.csv"): "segment"}
    row = stored(home).filter(pl.col("session_id") == "x").row(0, named=True)
    assert (row["event_type"], row["page"]) == ("page_view", "/")


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("block", [200, 4 << 20])
def test_lines_arrays_and_batches_are_counted_after_they_are_taken_apart(
    tmp_path: Path, threads: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "BLOCK_BYTES", block)
    rows: list[Record | str] = [
        call(1),
        json.dumps([call(2), call(3)]),
        {"batch": [call(4), {"type": "track", "userId": "u"}, 7]},
        "",
        {"batch": []},
        "[1]",
        "{",
        call(5),
    ]
    path = Path(write(tmp_path / "a.jsonl", rows))
    choice = dialects.choose("segment", "events", SETTINGS)
    source = Input("a", path, "jsonl")
    batches = list(reading.batches(source, "events", (), SETTINGS, LATEST_US, choice=choice, threads=threads))
    assert [(row["line"], row["item_id"]) for batch in batches for row in batch.rows.to_pylist()] == [
        (1, "p1"), (2, "p2"), (2, "p3"), (3, "p4"), (8, "p5"),
    ]  # fmt: skip
    text = path.read_bytes()
    starts = [0, *(at + 1 for at, byte in enumerate(text) if byte == 10)]
    rejects = [reject for batch in batches for reject in batch.rejects]
    assert [(reject.line, reject.reason, reject.raw) for reject in rejects] == [
        (3, "event_type: missing or empty", b'{"type":"track","userId":"u"}'),
        (3, "expected a JSON object, got a number", b"7"),
        (4, "blank line", b""),
        (6, "expected a JSON object, got a number", b"1"),
        (7, "not valid JSON", b"{"),
    ]
    assert all(reject.offset == starts[reject.line - 1] for reject in rejects)
    assert [batch.dropped for batch in batches if batch.dropped] == [{"an empty batch": 1}]
    assert sum(batch.read for batch in batches) == 11


def test_an_order_of_three_products_counts_three(home: Home, tmp_path: Path) -> None:
    products = [{"sku": "a", "price": 1}, {"sku": "b", "price": "?"}, {"sku": "c", "price": 3}]
    good = call(event="Order Completed", properties={"products": products[::2]})
    report = ingest(home, [write(tmp_path / "a.jsonl", [good, call(2)])])
    assert (report.read, report.accepted, report.rejected) == (3, 3, 0)
    assert ingest(home, [write(tmp_path / "a.jsonl", [good, call(2)])]).duplicates == 3


def test_tables_of_text_and_parquet(home: Home, tmp_path: Path) -> None:
    columns = "id,anonymous_id,received_at,timestamp,context_page_path,url,url"
    text = f'{columns}\nm1,a1,2024-03-01,2024-03-01,/,"x\n,y",z\nm2,,2024-03-01,never,/,x,\n'
    (tmp_path / "pages.csv").write_text(text)
    report = ingest(home, [str(tmp_path / "pages.csv")], max_rejected=1.0)
    assert (report.read, report.accepted, report.rejected) == (2, 1, 1)
    kept = lines(home).collect().row(0, named=True)
    assert (kept["line"], kept["offset"], kept["dialect"]) == (4, text.index("m2"), "segment")
    assert json.loads(kept["raw"]) == {"id": "m2", "anonymous_id": None, "received_at": "2024-03-01", "url_2": None,
                                       "timestamp": "never", "context_page_path": "/", "url": "x"}  # fmt: skip
    pq.write_table(pa.Table.from_pylist([call(n) for n in range(5, 10)]), tmp_path / "calls.parquet")
    report = ingest(home, [str(tmp_path / "calls.parquet")])
    assert (report.accepted, report.dialects) == (5, {str(tmp_path / "calls.parquet"): "segment"})


def test_a_damaged_line_does_not_hide_the_dialect(home: Home, tmp_path: Path) -> None:
    rows: list[Record | str] = [call(n) for n in range(30)]
    rows[3] = "{"
    rows[7] = {"type": 7}
    report = ingest(home, [write(tmp_path / "a.jsonl", rows)])
    assert (report.accepted, report.rejected, len(report.dialects)) == (28, 2, 1)


def test_what_holds_nothing_is_dropped_by_reason(home: Home, tmp_path: Path) -> None:
    (tmp_path / "shop.toml").write_text(
        'fields = { user_id = "u", event_type = "k", timestamp = "t" }\n'
        'when = [{ if = { k = "ping" }, drop = "heartbeat" }]'
    )
    rows = [{"u": "a", "k": kind, "t": 1_709_287_200 + n} for n, kind in enumerate(("click", "ping", "ping", "view"))]
    report = ingest(home, [write(tmp_path / "a.jsonl", rows)], dialect=str(tmp_path / "shop.toml"))
    assert (report.read, report.accepted, report.dropped) == (4, 2, {"heartbeat": 2})


class TestRetry:
    def test_a_line_of_a_dialect_is_read_by_it_again(self, home: Home, tmp_path: Path) -> None:
        late = {"batch": [call(1), call(2, timestamp=None)]}
        ingest(home, [write(tmp_path / "a.jsonl", [late])], max_rejected=1.0)
        done = retry(home)
        assert (done.read, done.accepted, done.reasons) == (1, 0, {"timestamp: missing or empty": 1})
        done = retry(home, maps=["timestamp==2024-03-02"])
        assert (done.accepted, done.rejected) == (1, 0)
        assert lines(home).collect().height == 0
        row = stored(home).filter(pl.col("user_id") == "u2").row(0, named=True)
        assert (row["event_id"], row["event_type"], row["item_id"]) == ("m2", "view", "p2")

    def test_traits_reach_users_and_accounts_as_with_ingest(self, home: Home, tmp_path: Path) -> None:
        at = {"userId": "u", "timestamp": None}
        said = [
            {"type": "identify", "messageId": "a", "traits": {"country": "DE", "pet": "cat"}} | at,
            {"type": "group", "messageId": "b", "groupId": "acme", "traits": {"plan": "pro"}} | at,
        ]
        name = write(tmp_path / "a.jsonl", [call(1), *said])
        ingest(home, [name], max_rejected=1.0)
        moment = ["timestamp==2024-03-02T00:00:00Z"]
        done = retry(home, maps=moment)
        assert (done.accepted, done.about) == (2, {"accounts": 1, "users": 1})
        other = create(tmp_path / "other")
        report = ingest(other, [write(tmp_path / "b.jsonl", said)], maps=moment)
        assert report.about == done.about
        for kind, key in (("users", "user_id"), ("accounts", "account_id")):
            found, expected = (current(one, kind) for one in (home, other))  # type: ignore[arg-type]
            assert found.drop("ingested_at", "source", strict=False).equals(
                expected.drop("ingested_at", "source", strict=False)
            )
            assert found.height == 1 and found[key].null_count() == 0
        assert current(home, "users").row(0, named=True)["country"] == "DE"
        undo(home, done.run)
        assert current(home, "users").height == current(home, "accounts").height == 0

    def test_rows_with_and_without_a_header(self, home: Home, tmp_path: Path) -> None:
        (tmp_path / "ratings.dat").write_bytes(b"1::2::5::978300760\n" * 30 + b"1::2::?::978300760\n1::2\n")
        ingest(home, [str(tmp_path / "ratings.dat")], max_rejected=1.0)
        header = "id,anonymous_id,received_at,timestamp,context_page_path,url"
        (tmp_path / "p.csv").write_text(f"{header}\nm1,a1,2024-03-01,2024-03-01,/,x\nm2,a1,2024-03-01,never,/,x\n")
        ingest(home, [str(tmp_path / "p.csv")], max_rejected=1.0)
        done = retry(home, maps=["timestamp==1709287200", "value==4"])
        assert (done.read, done.accepted, done.impossible) == (3, 2, {})
        assert done.reasons == {"expected 4 columns, got 2": 1}

    def test_lines_read_as_the_wrong_thing(self, home: Home, tmp_path: Path) -> None:
        ingest(home, [write(tmp_path / "a.jsonl", [call(1)])], dialect="otto", max_rejected=1.0)
        assert retry(home).accepted == 0
        assert retry(home, dialect="segment").accepted == 1

    def test_a_dialect_that_is_gone(self, home: Home, tmp_path: Path) -> None:
        path = tmp_path / "shop.toml"
        path.write_text('fields = { user_id = "u", event_type = "k", timestamp = "t" }')
        ingest(home, [write(tmp_path / "a.jsonl", [{"u": "a", "k": "b"}])], dialect=str(path), max_rejected=1.0)
        assert retry(home).reasons == {"timestamp: missing or empty": 1}
        path.unlink()
        (why,) = retry(home).impossible
        assert why == f"the dialect {path} is not there any more (--dialect names another)"
        with pytest.raises(MissingInput, match="no such file"):
            retry(home, dialect=str(path))


def test_a_plan_shows_the_dialect_and_its_table(home: Home, tmp_path: Path) -> None:
    (one,) = plan(home, [write(tmp_path / "a.jsonl", [call(1)])], dialect="segment", maps=["target==x"])
    assert (one.dialect, one.mapping["event_id"], one.mapping["target"]) == ("segment", "messageId", "=x")
    assert one.rows[0]["item_id"] == "p1"


def test_names_that_are_none(home: Home, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'segmnt' is not a dialect.*segment"):
        dialects.choose("segmnt", "events", SETTINGS)
    with pytest.raises(UsageError, match="--dialect otto is for events, not for items"):
        dialects.choose("otto", "items", SETTINGS)


class Point:
    value = name = "thirsty"

    def __init__(self, offered: Any) -> None:
        self.offered = offered

    def load(self) -> Any:
        if isinstance(self.offered, Exception):
            raise self.offered
        return self.offered


def _thirsty(record: Record) -> list[Record]:
    if record["what"] == "nothing":
        raise Dropped("nothing")
    return [{"user_id": record["who"], "event_type": record["what"], "timestamp": record["when"] + 0}]


THIRSTY = Dialect("thirsty", "", ("jsonl",), {}, lambda records: all("who" in record for record in records), _thirsty)


class TestPlugin:
    @pytest.fixture(autouse=True)
    def fresh(self) -> Any:
        dialects.plugged_in.cache_clear()
        yield
        dialects.plugged_in.cache_clear()

    def test_a_dialect_of_another_distribution(
        self, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(dialects, "entry_points", lambda group: [Point(THIRSTY)] if group == dialects.GROUP else [])
        rows = [{"who": "a", "what": "drink", "when": 1_709_287_200}, {"who": "a", "what": "nothing", "when": 1}]
        broken = {"who": "a", "what": "drink", "when": "x"}
        report = ingest(home, [write(tmp_path / "a.jsonl", [*rows, broken])])
        assert (report.accepted, report.dropped, report.rejected) == (1, {"nothing": 1}, 1)
        assert report.reasons[0].reason == "the dialect thirsty failed on it: TypeError"
        assert "thirsty" in [row["dialect"] for row in dialects.overview(SETTINGS)]

    @pytest.mark.parametrize(
        ("offered", "why"), [(7, "is of type int, not Dialect"), (OSError("no"), "cannot be loaded")]
    )
    def test_one_that_cannot_be_used(self, offered: Any, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(dialects, "entry_points", lambda group: [Point(offered)])
        with pytest.raises(Unavailable, match=why):
            dialects.known(SETTINGS)


@pytest.mark.skipif(not SHARED.exists(), reason="real files are not here")
class TestRealFiles:
    @pytest.mark.parametrize(
        ("name", "spoken", "maps", "accepted", "duplicates", "rejected"),
        [
            # Examples repeat the messageId of others; one of them tells another month.
            ("segment_spec.jsonl", "auto", (), 3, 4, {"timestamp: missing or empty": 65,
                                                      "user_id: missing or empty, and no anon_id": 4}),
            ("segment_spec.jsonl", "segment", ("timestamp==2024-03-01",), 67, 5,
             {"user_id: missing or empty, and no anon_id": 4}),
            ("segment_warehouse_pages.csv", "auto", (), 1, 0, {}),
            ("snowplow_enriched.tsv", "auto", (), 1, 0, {}),
            ("ga4_export_flat.csv", "auto", (), 6, 0, {}),
            ("otto_sample.jsonl", "auto", (), 862, 0, {}),
            ("github_webhooks.jsonl", str(EXAMPLES / "github.toml"), (), 71, 0, {}),
            ("mixpanel_events.csv", str(EXAMPLES / "mixpanel.toml"), (), 5, 0, {}),
        ],
    )  # fmt: skip
    def test_read_whole(
        self, home: Home, name: str, spoken: str, maps: tuple[str, ...], accepted: int, duplicates: int,
        rejected: dict[str, int],
    ) -> None:  # fmt: skip
        report = ingest(home, [str(SHARED / name)], dialect=spoken, maps=maps, max_rejected=1.0)
        assert report.dialects
        assert {reason.reason: reason.lines for reason in report.reasons} == rejected
        assert (report.accepted, report.duplicates) == (accepted, duplicates)
        assert report.read == accepted + duplicates + sum(rejected.values()) + sum(report.dropped.values())

    def test_cloudevents_need_somebody_and_a_time(self, home: Home) -> None:
        """The examples of the specification name nobody: whose event it is, is for the user to say."""
        name = str(SHARED / "cloudevents_spec.jsonl")
        report = ingest(home, [name], max_rejected=1.0)
        assert (report.read, report.accepted, report.rejected) == (18, 0, 18)
        assert all("missing or empty" in reason.reason for reason in report.reasons)
        said = ["user_id==somebody", "timestamp==2024-03-01"]
        report = ingest(home, [name], dialect="cloudevents", maps=said, max_rejected=1.0)
        assert (report.read, report.accepted, report.duplicates) == (18, 9, 9)  # examples repeat their ids


def test_a_choice_of_nothing_is_native(tmp_path: Path) -> None:
    source = Input("a", Path(write(tmp_path / "a.jsonl", [event()])), "jsonl")
    for choice in (
        Choice(),
        dialects.choose("auto", "events", SETTINGS),
        dialects.choose("native", "events", SETTINGS),
    ):
        assert reading.sniff(source, "events", (), SETTINGS, LATEST_US, choice=choice).dialect is None


class TestTraits:
    """Traits of identify and group calls describe users and accounts, as of when they were said."""

    WHO: ClassVar[list[Record]] = [
        {"type": "identify", "userId": "u", "timestamp": "2024-03-01", "traits": {"plan": "free", "country": "DE"}},
        {"type": "identify", "userId": "u", "timestamp": "2024-03-05", "traits": {"plan": "pro", "createdAt": "soon"}},
        {"type": "identify", "userId": "u", "timestamp": "2024-03-09", "traits": {"plan": "pro"}},
        {"type": "group", "userId": "u", "groupId": "g", "timestamp": "2024-03-02", "traits": {"name": "Initech"}},
        {"type": "identify", "anonymousId": "a", "timestamp": "2024-03-02", "traits": {"plan": "free"}},
    ]

    @pytest.mark.parametrize("turn", [1, -1])
    def test_they_add_up_whatever_the_order_and_are_taken_back(self, home: Home, tmp_path: Path, turn: int) -> None:
        name = write(tmp_path / "a.jsonl", self.WHO[::turn])
        report = ingest(home, [name])
        assert (report.accepted, report.about) == (5, {"users": 2, "accounts": 1})
        first, second = current(home, "users", datetime(2024, 3, 3, tzinfo=UTC)), current(home, "users")
        assert (first["country"][0], json.loads(first["props"][0])) == ("DE", {"plan": "free"})
        # What is no time is kept in props under the name that it would have had.
        assert (second["country"][0], json.loads(second["props"][0])) == ("DE", {"plan": "pro", "signed_up": "soon"})
        assert current(home, "accounts")["name"].to_list() == ["Initech"]
        assert ingest(home, [name]).about == {}
        assert undo(home, report.run) == 8
        assert current(home, "users").height == 0

    def test_later_files_build_on_earlier_ones(self, home: Home, tmp_path: Path) -> None:
        ingest(home, [write(tmp_path / "a.jsonl", self.WHO[:1])])
        ingest(home, [write(tmp_path / "b.jsonl", self.WHO[1:3])])
        row = current(home, "users").row(0, named=True)
        assert (row["country"], json.loads(row["props"])["plan"]) == ("DE", "pro")
