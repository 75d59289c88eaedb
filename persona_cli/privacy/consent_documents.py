"""Words of consent from another system, and receipts for others.

Words come as CSV or JSON lines with user_id, purpose, state, at, notice, source, proof. Every line is judged before
anything is written, and all of a file is written in one commit, or nothing of it. The same file again adds nothing.

A receipt goes out as a document of its own, in the information structure of ISO/IEC TS 27560:2023, with its digest. The
record holds who (a keyed digest), what for, on what notice, by whom, and every word up to the receipt. The receipt that
goes to the person is this record with its SHA-256 over canonical JSON: keys sorted, no spaces, UTF-8.
`consent_record.schema.json` beside this file is the JSON Schema of both.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import IO, Any, NamedTuple
from zoneinfo import ZoneInfo

import polars as pl

from persona_cli.consent.receipts import PURPOSES, Receipt, append_words, in_order, parent, receipt, scan
from persona_cli.consent.subjects import subjects
from persona_cli.errors import BadData, MissingInput, UsageError, nearest
from persona_cli.events.quarantine import masked
from persona_cli.events.schema import MAX_ID_BYTES
from persona_cli.privacy.choices import followed, linked
from persona_cli.privacy.recipients import by_recipient
from persona_cli.workspace import locks
from persona_cli.workspace.home import Home

FIELDS = ("user_id", "purpose", "state", "at", "notice", "source", "proof")
NEEDED = FIELDS[:4]
STATES = {
    "given": "given", "granted": "given", "yes": "given", "true": "given",
    "withdrawn": "withdrawn", "denied": "withdrawn", "refused": "withdrawn", "no": "withdrawn", "false": "withdrawn",
    "objected": "objected", "opted_out": "objected", "paused": "paused",
}  # fmt: skip
"""What a state may be called → what it is."""
_SHOWN = 5
_LONGEST = 500
_REMEMBERED = 100_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EARLIEST = datetime(1990, 1, 1, tzinfo=UTC)
Row = tuple[str, str, str, int, str | None, str | None, str | None]


class Imported(NamedTuple):
    """What a file held and what of it is new."""

    lines: int
    receipts: int
    """New ones; a word counts once for each id that is linked to the person."""
    people: int


class _Bad(Exception):
    pass


def import_words(home: Home, file: str, wait: float = 0.0) -> Imported:
    """Judge and write the words of a file (`-`: standard input). Messages name a line, and mask what is in it.

    Raises MissingInput without the file, BadData with the first bad lines, Busy while the tables are in use.
    """
    name = "standard input" if file == "-" else file
    rows = _judged(home, _records(file, name), name)
    whose = pl.Series([row[0] for row in rows], dtype=pl.String)
    with locks.hold(home, "tables", "privacy consent import", wait):
        ids = linked(home, whose)
        ids = ids.with_columns(subjects(home, ids["all"]).alias("subject"))
        said = {column: [row[place] for row in rows] for place, column in enumerate(FIELDS) if column != "user_id"}
        kinds = {column: pl.Int64 if column == "at" else pl.String for column in said}
        words = pl.DataFrame({"id": whose, **said}, schema_overrides=kinds).join(ids, on="id")
        at = pl.col("at").cast(pl.Datetime("us", "UTC"))
        new = append_words(home, words.with_columns(at, pl.lit(None, dtype=pl.String).alias("notice_sha256")))
        followed(home)
    return Imported(len(rows), new.height, whose.n_unique())


def _judged(home: Home, records: Iterator[tuple[int, Any]], name: str) -> list[Row]:
    judge = _Judge(datetime.now(UTC), ZoneInfo(home.settings.text("ingest.assume_tz")))
    rows, bad = list[Row](), list[str]()
    count = 0
    for line, record in records:
        try:
            rows.append(judge.row(record))
        except _Bad as wrong:
            count += 1
            if len(bad) < _SHOWN:
                bad.append(f"  line {line}: {wrong}")
    if count:
        some = f"{count:,} of {count + len(rows):,} lines cannot be read; nothing was written"
        raise BadData("\n".join([f"{name}: {some}", *bad]), "correct these lines and import the file again")
    return rows


class _Judge:
    """Records → rows; what was met before (purposes, states, times) is not judged again."""

    def __init__(self, now: datetime, zone: tzinfo) -> None:
        self._now, self._zone = now, zone
        self._purposes = set(PURPOSES)
        self._states = dict(STATES)
        self._moments: dict[Any, int] = {}  # text → µs since 1970

    def row(self, record: Any) -> Row:
        """Raises _Bad with what is wrong."""
        if isinstance(record, _Bad):
            raise record
        get = record.get
        user, purpose, state, at = get("user_id"), get("purpose"), get("state"), get("at")
        if type(user) is int:
            user = str(user)
        if type(user) is not str or not user.strip():
            raise _Bad("user_id: missing or no text")
        if len(user) > MAX_ID_BYTES // 4 and len(user.encode("utf-8", "replace")) > MAX_ID_BYTES:
            raise _Bad(f"user_id: longer than {MAX_ID_BYTES} bytes")
        if type(purpose) is not str or purpose not in self._purposes:
            self._purposes.add(_purpose(purpose))
        meant = self._states.get(state) if type(state) is str else None
        if meant is None:
            meant = self._states[state] = _state(state)
        when = self._moments.get(at) if type(at) is str else None
        if when is None:
            when = _moment(at, self._now, self._zone)
            if type(at) is str and len(self._moments) < _REMEMBERED:
                self._moments[at] = when
        notice, source, proof = get("notice"), get("source"), get("proof")
        if notice is not None or source is not None or proof is not None:
            _checked(user, notice=notice, source=source, proof=proof)
        return (user, purpose, meant, when, notice or None, source or None, proof or None)


def _checked(user: str, **texts: Any) -> None:
    for field, text in texts.items():
        if text is not None and not (isinstance(text, str) and len(text) <= _LONGEST):
            raise _Bad(f"{field}: expected a text of at most {_LONGEST} characters")
        if text and field != "notice" and user in text:
            raise _Bad(f"{field}: names the user; receipts are kept after an erasure, and must not")


def _state(state: Any) -> str:
    meant = STATES.get(state.strip().lower()) if isinstance(state, str) else None
    if meant is None:
        raise _Bad(f"state: {_masked(state)}; expected one of {', '.join(STATES)}")
    return meant


def _purpose(purpose: Any) -> str:
    if not isinstance(purpose, str) or not purpose:
        raise _Bad("purpose: missing or no text")
    try:
        parent(purpose)
    except UsageError as error:
        raise _Bad(f"purpose: {error.message}") from None
    return purpose


def _moment(at: Any, now: datetime, zone: tzinfo) -> int:
    if isinstance(at, str) and at.strip().isdigit() and len(at.strip()) in (10, 13, 16):
        at = int(at)
    if isinstance(at, int | float) and not isinstance(at, bool) and 0 < at < 10**17:
        size = 1 if at < 10**11 else 10**3 if at < 10**14 else 10**6
        when = _EPOCH + timedelta(microseconds=int(at * (10**6 // size)))
    else:
        try:
            when = datetime.fromisoformat(at.strip())
        except (ValueError, AttributeError):
            raise _Bad(f"at: {_masked(at)}; expected a time such as 2026-03-01T12:00:00Z") from None
        when = when.replace(tzinfo=zone) if when.tzinfo is None else when
    if not _EARLIEST <= when <= now:
        raise _Bad(f"at: {when.isoformat()}; expected a time from 1990 until now")
    return (when - _EPOCH) // timedelta(microseconds=1)


def _masked(value: Any) -> str:
    return "missing" if value is None else masked(json.dumps(value, default=str).encode(), 40)


def _records(file: str, name: str) -> Iterator[tuple[int, Any]]:
    """Lines with their records, or with a _Bad; which of the two formats it is, the first character says."""
    with _opened(file, name) as stream:
        try:
            first = stream.readline()
            if first and not first.strip():
                raise BadData(f"{name}: line 1 is blank; expected JSON lines or a CSV header", _hint())
            if not first:
                raise BadData(f"{name} is empty; nothing was written", _hint())
            if first.lstrip("\ufeff").lstrip().startswith("{"):
                yield from _json_lines(first, stream)
            else:
                yield from _csv_rows(first, stream, name)
        except UnicodeDecodeError as error:
            raise BadData(
                f"{name}: not UTF-8 ({error.reason}); nothing was written", "write the file as UTF-8"
            ) from error
        except (EOFError, gzip.BadGzipFile) as error:
            raise BadData(f"{name}: the gzip stream is damaged ({error}); nothing was written") from error


def _json_lines(first: str, stream: IO[str]) -> Iterator[tuple[int, Any]]:
    decode = json.JSONDecoder().decode
    for line, text in enumerate(_chained(first.lstrip("\ufeff"), stream), 1):
        try:
            record = decode(text)
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict):
            yield line, _Bad("not a JSON object")
        elif unknown := record.keys() - set(FIELDS):
            yield line, _Bad(f"{min(unknown)!r} is no field{nearest(min(unknown), FIELDS)}")
        else:
            yield line, record


def _csv_rows(first: str, stream: IO[str], name: str) -> Iterator[tuple[int, Any]]:
    names = [text.strip() for text in next(csv.reader([first.lstrip("\ufeff")]))]
    for field in names:
        if field not in FIELDS:
            raise BadData(f"{name}: line 1: {field!r} is no field{nearest(field, FIELDS)}", _hint())
    if missing := [field for field in NEEDED if field not in names]:
        raise BadData(f"{name}: line 1: the header lacks {', '.join(missing)}", _hint())
    if len(set(names)) < len(names):
        raise BadData(f"{name}: line 1: a column is there twice", _hint())
    reader = csv.reader(stream, strict=True)
    line = 2
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield line, _Bad(f"not CSV: {error}")
            line = reader.line_num + 2
            continue
        yield (
            line,
            dict(zip(names, (cell or None for cell in cells), strict=True))
            if len(cells) == len(names)
            else _Bad(f"{len(cells)} cells; expected {len(names)}"),
        )
        line = reader.line_num + 2


def _chained(first: str, stream: IO[str]) -> Iterator[str]:
    yield first
    yield from stream


def _opened(file: str, name: str) -> IO[str]:
    if file == "-":
        return io.TextIOWrapper(sys.stdin.buffer, "utf-8", newline="")
    path = Path(file)
    try:
        binary: Any = gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")  # noqa: SIM115
    except OSError as error:
        raise MissingInput(f"{name} cannot be read: {error.strerror}", "persona privacy consent import FILE") from error
    return io.TextIOWrapper(binary, "utf-8", newline="")


def _hint() -> str:
    return f"the fields are {', '.join(FIELDS)}; the first four are needed"


SCHEMA = "consent_record.schema.json"
VERSION = "ISO/IEC TS 27560:2023, persona 1"
_CONTROLLER = "controller"
_METHODS = {
    "personalization": "lists and decisions made for the person from their own events",
    "analytics": "measuring and segmenting by events",
    "model_training": "models of items learned from events of many people",
    "messaging": "messages to the person on a channel",
}
_RIGHTS = ("access", "rectification", "erasure", "restriction", "portability", "objection", "withdrawal", "complaint")
_CATEGORIES = ("identifiers", "behaviour", "context of use")


def schema() -> dict[str, Any]:
    """The JSON Schema that every document of `consent_receipt` validates against."""
    found: dict[str, Any] = json.loads(Path(__file__).with_name(SCHEMA).read_text("utf-8"))
    return found


def consent_receipt(home: Home, receipt_id: str) -> dict[str, Any]:
    """The receipt: {receipt: {receipt_id, record_sha256, …}, record: {…}}. Raises MissingInput."""
    one = receipt(home, receipt_id)
    made = _record(home, one)
    about = {
        "receipt_id": one.receipt_id,
        "schema_version": VERSION,
        "record_id": made["record_id"],
        "record_sha256": digest(made),
    }
    return {"receipt": about, "record": made}


def digest(record: dict[str, Any]) -> str:
    """SHA-256 (hex) of a record as canonical JSON."""
    text = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _record(home: Home, one: Receipt) -> dict[str, Any]:
    settings, kind = home.settings, parent(one.purpose)
    months = settings.whole("privacy.retention.events_months")
    return {
        "schema_version": VERSION,
        "record_id": one.receipt_id,
        "pii_principal_id": one.subject,
        "pii_processing": {
            "privacy_notice": one.notice,
            "privacy_notice_sha256": one.notice_sha256,
            "purposes": [
                {
                    "purpose": one.purpose,
                    "lawful_basis": settings.text(f"privacy.purposes.{kind}.basis") or None,
                    "pii_information": [{"pii_type": name} for name in _CATEGORIES],
                    "pii_controllers": [_CONTROLLER],
                    "collection_method": one.source,
                    "processing_method": _METHODS[kind],
                    "storage_locations": ["the controller's workspace"],
                    "retention_period": f"P{months}M" if months else "until erased",
                    "recipient_third_parties": sorted(by_recipient(home)),
                    "withdrawal_method": settings.text("privacy.controller.contact") or None,
                    "privacy_rights": list(_RIGHTS),
                }
            ],
        },
        "party_identification": [
            {
                "party_id": _CONTROLLER,
                "party_role": "PII controller",
                "party_name": settings.text("privacy.controller.name") or None,
                "party_contact": settings.text("privacy.controller.contact") or None,
            }
        ],
        "events": [
            {
                "event_time": _text(said.at),
                "event_type": "signal" if said.source and "signal" in said.source else "statement",
                "event_state": said.state,
                "entity_id": said.subject,
                "evidence": said.proof,
            }
            for said in _until(home, one)
        ],
    }


def _until(home: Home, one: Receipt) -> list[Receipt]:
    """The words of the same digest about the same purpose, up to this one."""
    same = scan(home).filter(pl.col("subject") == one.subject, pl.col("purpose") == one.purpose).collect()
    words = [Receipt(*row) for row in in_order(same).iter_rows()]
    return words[: words.index(one) + 1]


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
