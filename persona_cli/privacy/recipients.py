"""Who was given personal data: one line in privacy/recipients.jsonl for every export that left the workspace.

GDPR Art. 19: whoever was given the data is told when somebody is erased, and Art. 30(1)(d) asks for the list. A line
names a recipient and what was handed over, never a person.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from persona_cli.errors import BadData, UsageError
from persona_cli.workspace import artifacts
from persona_cli.workspace.home import Home
from persona_cli.workspace.locks import hold

FILE = ("privacy", "recipients.jsonl")
LONGEST = 200
_WAIT_SECONDS = 30.0
Ids = Literal["pseudonyms", "user_ids"]


@dataclass(frozen=True)
class Disclosure:
    """One export to one recipient."""

    recipient: str
    at: str
    """When, ISO 8601 in UTC, to the second."""
    what: str
    """In a few words: `profiles`, `a file of events`, `recommendations`."""
    digest: str | None
    """SHA-256 of the file (hex); None where what was written is no single file, or went to standard output."""
    ids: Ids | None
    """What stands for people in it: their own ids, pseudonyms, or nothing (None)."""
    key_id: str | None = None
    domain: str | None = None
    """With pseudonyms: the id of the key, and the domain, that made them."""


def register(
    home: Home,
    recipient: str,
    what: str,
    digest: str | None = None,
    key_id: str | None = None,
    domain: str | None = None,
    ids: Ids | None = None,
) -> Disclosure:
    """Add an export to the list, for good; call it before the export's file gets its name, so that none is missing.

    Raises UsageError for what is no name (empty, longer than 200 characters, or with control characters).
    """
    now = datetime.now(UTC).isoformat(timespec="seconds")
    made = Disclosure(named(recipient), now, what, digest, ids, key_id, domain)
    with hold(home, "recipients", "recipients", _WAIT_SECONDS):
        path = home.path(*FILE)
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        artifacts.write_text(path, before + json.dumps(asdict(made), ensure_ascii=False) + "\n")
    return made


def recipients(home: Home) -> list[Disclosure]:
    """Every export that was registered, the oldest first.

    Raises BadData where a line of the list cannot be read: a recipient that is lost could not be told of an erasure.
    """
    path = home.path(*FILE)
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [_read(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]


def by_recipient(home: Home) -> dict[str, list[Disclosure]]:
    """The exports of each recipient, by name."""
    found: dict[str, list[Disclosure]] = {}
    for one in sorted(recipients(home), key=lambda one: one.recipient):
        found.setdefault(one.recipient, []).append(one)
    return found


def named(recipient: str) -> str:
    """The name without blanks around it; UsageError where it is none."""
    name = recipient.strip()
    if not name or len(name) > LONGEST or not name.isprintable():
        raise UsageError(
            f"--recipient is {recipient!r}; expected a name of 1 to {LONGEST} printable characters",
            '--recipient "Mail house Ltd"',
        )
    return name


def file_name(recipient: str) -> str:
    """A name for files about a recipient: ASCII, safe in any folder, different for different recipients."""
    slug = re.sub(r"[^a-z0-9]+", "-", recipient.lower()).strip("-")[:40]
    return f"{slug or 'recipient'}-{hashlib.sha256(recipient.encode()).hexdigest()[:8]}"


def _read(path: Path, number: int, line: str) -> Disclosure:
    try:
        said: dict[str, Any] = json.loads(line)
        return Disclosure(**said)
    except (ValueError, TypeError) as error:
        raise BadData(
            f"{path}, line {number}, is no record of an export; expected recipient, at, what, digest and ids",
            "restore the file from a backup: erasures are announced to who is in it",
        ) from error
