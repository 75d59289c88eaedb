"""Recipients of personal data: the keys that their pseudonyms are made with, and the list of what each was given.

A key has 256 bits and is kept outside the workspace; one subkey per recipient is made from it. A key file holds 64
hexadecimal digits and belongs to its owner alone (mode 0600). A key is named by its id, a short keyed digest of itself:
outputs and manifests carry the id, nothing ever carries the key. Keys come from files or from the environment, never
from the command line, which every user of the machine can read. Whoever holds the key can undo every pseudonym by
trying all ids; so it must not lie where the data lies (GDPR Art. 4(5): "kept separately").

Every export that left the workspace is one line in privacy/recipients.jsonl. GDPR Art. 19: whoever was given the data
is told when somebody is erased, and Art. 30(1)(d) asks for the list. A line names a recipient and what was handed over,
never a person.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import re
import secrets
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from persona_cli.errors import BadData, BadSettings, CannotWrite, MissingInput, Refused, UsageError
from persona_cli.workspace import artifacts
from persona_cli.workspace.home import IDENTITY_FILE, SETTINGS_FILE, Home
from persona_cli.workspace.locks import hold

VARIABLE = "PERSONA_PSEUDONYM_KEY"
KEY_BYTES = 32
_SALT = b"persona pseudonyms 1"
_DIGITS = re.compile(r"[0-9a-fA-F]{64}")
_DOMAIN = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_HINT = "persona privacy keys new FILE"


@dataclass(frozen=True)
class Key:
    """A key of pseudonyms. Its repr shows the id alone."""

    secret: bytes = field(repr=False)
    """32 bytes."""
    id: str
    """16 hexadecimal digits: HMAC-SHA-256 of the words `persona key id` under the key, shortened."""

    @classmethod
    def of(cls, secret: bytes) -> Key:
        return cls(secret, hmac.digest(secret, b"persona key id", "sha256")[:8].hex())


def hkdf(secret: bytes, salt: bytes, info: bytes, length: int = KEY_BYTES) -> bytes:
    """`length` bytes (at most 8,160) by HKDF with SHA-256 (RFC 5869, 2010): extract, then expand."""
    if not 0 < length <= 255 * 32:
        raise ValueError(f"HKDF gives 1 to 8,160 bytes, not {length}")
    extracted = hmac.digest(salt or bytes(32), secret, "sha256")
    block, made = b"", b""
    while len(made) < length:
        block = hmac.digest(extracted, block + info + bytes([len(made) // 32 + 1]), "sha256")
        made += block
    return made[:length]


def subkey(key: Key, domain: str) -> bytes:
    """The 32 bytes that make the pseudonyms of one recipient: HKDF of the key, with the domain as info.

    Subkeys of different domains have nothing to do with each other for whoever lacks the key. Raises UsageError for
    what is no name of a domain.
    """
    if not _DOMAIN.fullmatch(domain):
        raise UsageError(
            f"--domain is {domain!r}; expected up to 63 lower-case letters, digits, '.', '_' and '-'",
            "one domain per recipient: --domain partner-a",
        )
    return hkdf(key.secret, _SALT, b"domain " + domain.encode())


def new_key(path: Path) -> Key:
    """Write a fresh key to `path` with mode 0600 and answer it; a file that is there is never replaced.

    Raises Refused inside a workspace, CannotWrite where something of that name is there.
    """
    _must_be_outside(path)
    key = Key.of(secrets.token_bytes(KEY_BYTES))
    if not path.parent.is_dir():
        raise CannotWrite(f"the folder {path.parent} does not exist", f"mkdir -m 700 -p {path.parent}")
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError as error:
        raise CannotWrite(
            f"{path} exists already; without the key in it its pseudonyms cannot be made again", "choose another name"
        ) from error
    try:
        with os.fdopen(descriptor, "w") as stream:
            stream.write(key.secret.hex() + "\n")
            stream.flush()
            os.fchmod(stream.fileno(), 0o600)
            os.fsync(stream.fileno())
        artifacts.sync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            path.unlink()
        raise
    return key


def find_key(path: Path | None, environment: Mapping[str, str]) -> Key:
    """The key in the file, or else in $PERSONA_PSEUDONYM_KEY; BadSettings where there is neither."""
    if path is not None:
        return read_key(path)
    text = environment.get(VARIABLE, "").strip()
    if not text:
        raise BadSettings(f"there is no key: neither --key-file nor ${VARIABLE} names one", _HINT)
    return _parsed(text, f"${VARIABLE}")


def read_key(path: Path) -> Key:
    """The key in a file of ours alone.

    Raises MissingInput where it is not there, Refused where others may read it or where it lies in a workspace,
    BadSettings where it does not hold a key.
    """
    _must_be_outside(path)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe without a writer: no waiting
    except FileNotFoundError as error:
        raise MissingInput(f"there is no key file {path}", _HINT) from error
    try:
        # Of the file that is open, not of whatever has its name a moment later.
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise BadSettings(f"{path} is no file; expected one that holds 64 hexadecimal digits", _HINT)
        mode = stat.S_IMODE(status.st_mode)
        if mode & 0o177:
            raise Refused(
                f"the key file {path} has mode {mode:04o}; expected 0600, so that nobody else can read it",
                f"chmod 600 {path}; if others had access to it, make a new key and rotate",
            )
        text = os.read(descriptor, 1_024).decode("ascii", "replace").strip()
    finally:
        os.close(descriptor)
    return _parsed(text, str(path))


def _parsed(text: str, where: str) -> Key:
    if not _DIGITS.fullmatch(text):
        # Never the text itself: it may be most of a key.
        raise BadSettings(f"{where} does not hold a key: expected 64 hexadecimal digits (256 bits)", _HINT)
    secret = bytes.fromhex(text)
    if len(set(secret)) < 8:
        raise BadSettings(f"{where} holds a key that is easily guessed; expected 32 random bytes", _HINT)
    return Key.of(secret)


def _must_be_outside(path: Path) -> None:
    """Refuse a place inside any workspace, by its name and by where its links lead."""
    for place in {Path(os.path.abspath(path)), path.resolve()}:  # noqa: PTH100 (without following links)
        for folder in place.parents:
            if (folder / SETTINGS_FILE).is_file() and (folder / IDENTITY_FILE).is_file():
                raise Refused(
                    f"the key file {path} lies in the workspace {folder}; the key must be kept apart from the data",
                    "keep it in a folder of its own, such as ~/.config/persona",
                )


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
