"""What people asked for and by when it must be answered: privacy/requests.jsonl, events that are only ever added.

A request is opened, perhaps extended, and closed; each is one line. A person stands in it as keyed digests (`subject`),
so the log outlives an erasure. GDPR Art. 12(3): one month from receipt, two more where a request is complex, of which
the person is told within the first. CCPA, 11 CCR § 7021(b): 45 calendar days, 45 more. Months are counted as Regulation
(EEC) 1182/71 Art. 3 does: the period ends with the day of the same number, or with the last day of a shorter month.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from calendar import monthrange
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from persona_cli.consent.subjects import subject
from persona_cli.errors import BadData, MissingInput, UsageError, nearest
from persona_cli.workspace import artifacts
from persona_cli.workspace.home import Home
from persona_cli.workspace.locks import hold

FILE = ("privacy", "requests.jsonl")
KINDS = ("access", "portability", "rectification", "erasure", "objection", "restriction", "consent_withdrawal")
LONGEST = 500
_WAIT_SECONDS = 30.0


@dataclass(frozen=True)
class Request:
    """One request as it stands."""

    id: str
    kind: str
    subjects: tuple[str, ...]
    """Keyed digests of the person's ids, sorted."""
    channel: str
    received: datetime
    due: date
    """The last day (UTC) on which it is answered in time; later once extended."""
    extended: datetime | None = None
    reason: str | None = None
    closed: datetime | None = None
    outcome: str | None = None

    def overdue(self, now: datetime) -> bool:
        """Whether it is open and its last day is over."""
        return self.closed is None and now.astimezone(UTC).date() > self.due

    def late(self) -> bool:
        """Whether it was closed after its last day."""
        return self.closed is not None and self.closed.date() > self.due


def open_request(
    home: Home, kind: str, ids: Sequence[str], *, received: datetime | None = None, channel: str = "cli"
) -> str:
    """Note a request of the person with these ids, and answer its id, `R-` and 12 hexadecimal digits.

    `received` (default: now) is when it reached anybody of yours; a date without a zone is UTC. Raises UsageError for
    an unknown kind, no id, or a future time.
    """
    if kind not in KINDS:
        raise UsageError(f"{kind!r} is no kind of request{nearest(kind, KINDS)}", f"one of {', '.join(KINDS)}")
    if not ids:
        raise UsageError("a request needs the id of who made it")
    now = _now()
    came = now if received is None else received.replace(tzinfo=received.tzinfo or UTC).astimezone(UTC)
    if came > datetime.now(UTC):
        raise UsageError(f"received is {came:%Y-%m-%d %H:%M} UTC, which is in the future")
    made = f"R-{secrets.token_hex(6)}"
    line = {
        "event": "opened",
        "id": made,
        "at": _text(now),
        "kind": kind,
        "subjects": sorted({subject(home, one) for one in ids}),
        "channel": _said(channel, "the channel"),
        "received": _text(came),
        "due": _due(came, home.settings.text("privacy.regime"), extended=False).isoformat(),
    }
    with hold(home, "requests", "requests", _WAIT_SECONDS):
        _append(home, line)
    return made


def begin_request(home: Home, kind: str, ids: Sequence[str]) -> str:
    """The id of the oldest open request of this kind by the person with these ids, or of one that is opened now.

    A command that answers a request takes up one that was noted before, also one that a killed run left open.
    """
    there = [one for one in requests_of(home, ids) if one.kind == kind and one.closed is None]
    return there[0].id if there else open_request(home, kind, ids)


def extend_request(home: Home, request_id: str, reason: str) -> Request:
    """Prolong an open request once: two months (gdpr) or 45 days (ccpa) more from its first last day.

    Raises MissingInput for an unknown request, UsageError for one that is closed, extended already or overdue: the
    person must be told of an extension within the first period.
    """
    with hold(home, "requests", "requests", _WAIT_SECONDS):
        one = _open_one(home, request_id)
        now = _now()
        if one.extended is not None:
            raise UsageError(f"{one.id} was extended on {one.extended:%Y-%m-%d} already; the law allows it once")
        if one.overdue(now):
            raise UsageError(f"{one.id} was due on {one.due}; it could be extended until then")
        why = _said(reason, "--reason", home, one.subjects)
        due = _due(one.received, home.settings.text("privacy.regime"), extended=True)
        _append(home, {"event": "extended", "id": one.id, "at": _text(now), "due": due.isoformat(), "reason": why})
    return find_request(home, one.id)


def close_request(home: Home, request_id: str, outcome: str) -> None:
    """Note how a request ended; that it is closed with this very outcome already is no error.

    Raises MissingInput for an unknown request, UsageError for one that was closed otherwise.
    """
    with hold(home, "requests", "requests", _WAIT_SECONDS):
        one = find_request(home, request_id)
        said = _said(outcome, "--outcome", home, one.subjects)
        if one.closed is not None and one.outcome == said:
            return
        one = _open_one(home, request_id)
        _append(home, {"event": "closed", "id": one.id, "at": _text(_now()), "outcome": said})


def requests(home: Home) -> list[Request]:
    """Every request, in the order in which they were received; of equal moments by id.

    Raises BadData where a line cannot be read, other than a last one that a killed run left half written.
    """
    found: dict[str, Request] = {}
    for number, line in _lines(home):
        try:
            _apply(found, line)
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise BadData(
                f"{home.path(*FILE)}, line {number}, is no event of a request; expected opened, extended or closed",
                "restore the file from a backup: requests have legal deadlines",
            ) from error
    return sorted(found.values(), key=lambda one: (one.received, one.id))


def requests_of(home: Home, ids: Sequence[str]) -> list[Request]:
    """The requests of the person with these ids."""
    theirs = {subject(home, one) for one in ids}
    return [one for one in requests(home) if theirs & set(one.subjects)]


def find_request(home: Home, request_id: str) -> Request:
    """One request by its id or an unmistakable beginning of it; MissingInput where there is none."""
    known = requests(home)
    found = [one for one in known if one.id == request_id] or [one for one in known if one.id.startswith(request_id)]
    if len(found) > 1:
        raise UsageError(f"{len(found)} requests begin with {request_id!r}", "persona privacy requests")
    if not found:
        raise MissingInput(f"there is no request {request_id!r}", "persona privacy requests")
    return found[0]


def _open_one(home: Home, request_id: str) -> Request:
    one = find_request(home, request_id)
    if one.closed is not None:
        raise UsageError(f"{one.id} was closed on {one.closed:%Y-%m-%d}: {one.outcome}")
    return one


def _apply(found: dict[str, Request], line: str) -> None:
    said: dict[str, Any] = json.loads(line)
    name, event = str(said["id"]), said["event"]
    if event == "opened":
        received, due = datetime.fromisoformat(said["received"]), date.fromisoformat(said["due"])
        found[name] = Request(name, said["kind"], tuple(said["subjects"]), said["channel"], received, due)
        return
    at = datetime.fromisoformat(said["at"])
    if event == "extended":
        due = date.fromisoformat(said["due"])
        found[name] = replace(found[name], due=due, extended=at, reason=said["reason"])
    elif event == "closed":
        found[name] = replace(found[name], closed=at, outcome=said["outcome"])
    else:
        raise ValueError(event)


def _due(received: datetime, regime: str, *, extended: bool) -> date:
    """The last day; an extended one counts from receipt too, so that a short month in between takes nothing away."""
    day = received.date()
    if regime == "ccpa":
        return day + timedelta(days=90 if extended else 45)
    months = day.month - 1 + (3 if extended else 1)
    year, month = day.year + months // 12, months % 12 + 1
    return date(year, month, min(day.day, monthrange(year, month)[1]))


def _append(home: Home, line: dict[str, Any]) -> None:
    """Add one line and flush it to disk; call it under the lock. Half a line of a killed run is cut off first."""
    path = home.path(*FILE)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        whole = _whole(path)
        os.ftruncate(descriptor, whole)
        written = (json.dumps(line, ensure_ascii=False) + "\n").encode()
        if os.pwrite(descriptor, written, whole) != len(written):
            os.ftruncate(descriptor, whole)
            raise OSError(f"{path} could not be written in full")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    artifacts.sync_folder(path.parent)


def _whole(path: Path) -> int:
    """Bytes of the file up to the end of its last whole line."""
    return path.read_bytes().rfind(b"\n") + 1


def _lines(home: Home) -> Iterator[tuple[int, str]]:
    """Whole lines with their numbers; what stands behind the last line break was never finished."""
    try:
        written = home.path(*FILE).read_bytes()
    except FileNotFoundError:
        return
    for number, line in enumerate(written[: written.rfind(b"\n") + 1].split(b"\n"), 1):
        if line:
            yield number, line.decode("utf-8", "replace")


def _said(text: str, what: str, home: Home | None = None, subjects: Sequence[str] = ()) -> str:
    """Words that go into the log for good: one line, not too long, and without the person's id."""
    words = text.strip()
    if not words or len(words) > LONGEST or not words.isprintable():
        raise UsageError(f"{what} is {text!r}; expected 1 to {LONGEST} printable characters")
    if home is not None:
        pieces = {words, *words.split(), *re.findall(r"[\w.@+-]+", words), *re.findall(r"\w+", words)}
        if any(subject(home, piece) in subjects for piece in pieces):
            raise UsageError(f"{what} names the person, and this log outlives an erasure; say it without their id")
    return words


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")
