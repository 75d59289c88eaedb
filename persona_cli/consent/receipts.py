"""Purposes and what allows them, and consent word by word: the table `consents` only grows, the last word counts.

A receipt says who (a digest), for what, which way, when, on what information and how that is proved (GDPR Art. 7(1)).
Its id is a digest of all that, so the same word said twice is one receipt.

Every purpose that data is used for has a lawful basis (GDPR Art. 6(1)) in persona.toml.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import polars as pl
import pyarrow as pa

from persona_cli.consent.subjects import append, subjects
from persona_cli.errors import BadSettings, MissingInput, UsageError, nearest
from persona_cli.workspace import artifacts, tables
from persona_cli.workspace.home import Home

PURPOSES = ("personalization", "analytics", "model_training", "messaging")
COVERING = ("personalization", "analytics", "model_training")
"""The purposes for which events are collected; who is covered by none of them is not stored and not folded."""
CONSENT = "consent"
INTEREST = "legitimate_interest"
_CHANNEL = re.compile(r"^messaging\.[a-z0-9][a-z0-9_-]{0,31}$")


def basis(home: Home, purpose: str) -> str:
    """The lawful basis of a purpose; that of a channel (`messaging.email`) is the one of `messaging`.

    Raises UsageError for an unknown purpose, BadSettings where none is set, and for a legitimate interest that no
    assessment weighs against the interests of the people (GDPR Art. 6(1)(f), recital 47).
    """
    section = f"privacy.purposes.{parent(purpose)}"
    found = home.settings.text(f"{section}.basis")
    if not found:
        raise BadSettings(
            f"{parent(purpose)} has no lawful basis: {section}.basis is empty",
            f'decide on one and write it under [{section}] of persona.toml: basis = "consent"',
        )
    if found == INTEREST:
        _assessed(home, section, parent(purpose))
    return found


def parent(purpose: str) -> str:
    """The purpose of persona.toml that rules this one. Raises UsageError for an unknown one."""
    if purpose in PURPOSES:
        return purpose
    if _CHANNEL.match(purpose):
        return "messaging"
    known = (*PURPOSES, "messaging.email")
    raise UsageError(f"{purpose!r} is no purpose{nearest(purpose, known)}", "a channel is named messaging.CHANNEL")


def _assessed(home: Home, section: str, purpose: str) -> None:
    named = home.settings.text(f"{section}.assessment")
    if not named:
        raise BadSettings(
            f"{purpose} rests on a legitimate interest, and {section}.assessment names no file that weighs it",
            f'write the assessment and name it under [{section}]: assessment = "assessment.md"',
        )
    if not home.path(named).is_file():
        raise BadSettings(
            f"{section}.assessment is {named!r}, and there is no such file in {home.root}",
            "write the assessment, or name the file where it is",
        )


State = Literal["given", "cleared", "paused", "withdrawn", "objected"]
STATES: tuple[State, ...] = get_args(State)
"""From the one that permits most; of two words said at the same time the later in this list wins.

`cleared` takes back what was said before, as if nothing had been: who ends an objection has not given consent.
"""
NAME = "consents"
_TIME = pa.timestamp("us", tz="UTC")
SCHEMA = pa.schema(
    [
        pa.field("receipt_id", pa.string()),
        pa.field("subject", pa.string()),
        pa.field("purpose", pa.string()),
        pa.field("state", pa.string()),
        pa.field("at", _TIME),
        pa.field("notice", pa.string()),
        pa.field("notice_sha256", pa.string()),
        pa.field("source", pa.string()),
        pa.field("proof", pa.string()),
        pa.field("recorded_at", _TIME),
    ]
)
_UNIT, _NONE = "\x1f", "\x00"
SAID = ("subject", "purpose", "state", "at", "notice", "notice_sha256", "source", "proof")


class Receipt(NamedTuple):
    """One word of one person about one purpose."""

    receipt_id: str
    subject: str
    """Digest of the id (`subjects.py`)."""
    purpose: str
    state: State
    at: datetime
    """When it was said."""
    notice: str | None
    """Name or version of the text that the person was shown."""
    notice_sha256: str | None
    source: str | None
    """Where it was said: a form, a call, a browser's signal."""
    proof: str | None
    """What shows that it was: the number of a form, a path, a mail's id. Never a person's id."""
    recorded_at: datetime
    """When persona was told."""


def record(
    home: Home,
    ids: Sequence[str],
    purposes: Sequence[str],
    state: State,
    *,
    at: datetime | None = None,
    notice: str | Path | None = None,
    source: str | None = None,
    proof: str | None = None,
) -> list[Receipt]:
    """Write the word of these ids about these purposes; answers the receipts that are new.

    `notice` is the name of a text, or a file whose digest is noted and whose text is kept in privacy/notices. `at` is
    now by default. Raises UsageError for an unknown purpose or state or a time to come, MissingInput without the file.
    """
    if state not in STATES:
        raise UsageError(f"{state!r} is no state of consent{nearest(state, STATES)}")
    for purpose in purposes:
        parent(purpose)
    now = datetime.now(UTC)
    said = at or now
    if said > now:
        raise UsageError(f"{said.isoformat()} has not come yet; consent is given or refused at a time that is over")
    name, digest = _noticed(home, notice)
    whose = subjects(home, pl.Series(list(ids), dtype=pl.String)).unique().sort().to_frame("subject")
    words = whose.join(pl.Series("purpose", sorted(set(purposes)), pl.String).to_frame(), how="cross").with_columns(
        pl.lit(state).alias("state"),
        pl.lit(said).cast(pl.Datetime("us", "UTC")).alias("at"),
        *(
            pl.lit(value, dtype=pl.String).alias(column)
            for column, value in (("notice", name), ("notice_sha256", digest), ("source", source), ("proof", proof))
        ),
    )
    return [Receipt(*row) for row in append_words(home, words, now).iter_rows()]


def append_words(home: Home, words: pl.DataFrame, recorded_at: datetime | None = None) -> pl.DataFrame:
    """Add words (columns SAID) that are not there yet as receipts, in one commit; answers the new ones."""
    stamp = pl.lit(recorded_at or datetime.now(UTC)).cast(pl.Datetime("us", "UTC")).alias("recorded_at")
    given = words.select(_ids(words), *SAID).unique("receipt_id", maintain_order=True).with_columns(stamp)
    given = given.sort("subject", "purpose", "at", "receipt_id")

    def new(stored: pl.LazyFrame) -> pl.DataFrame:
        known = stored.select("receipt_id").collect()
        return given.join(known, on="receipt_id", how="anti", maintain_order="left")

    return append(home, NAME, SCHEMA, new) if given.height else given


def receipts(home: Home, ids: Sequence[str]) -> list[Receipt]:
    """All receipts of these ids, the latest last."""
    whose = subjects(home, pl.Series(list(ids), dtype=pl.String)).implode()
    return [Receipt(*row) for row in in_order(scan(home).filter(pl.col("subject").is_in(whose)).collect()).iter_rows()]


def receipt(home: Home, receipt_id: str) -> Receipt:
    """One receipt. Raises MissingInput."""
    found = scan(home).filter(pl.col("receipt_id") == receipt_id).collect()
    if not found.height:
        raise MissingInput(f"there is no receipt {receipt_id!r}", "persona privacy consent show USER")
    return Receipt(*found.row(0))


def take_back_grants(home: Home, run: str) -> int:
    """Remove the grants that an ingest read from events, when it is taken back; answers how many. Refusals stay.

    Call it under the lock `tables`.
    """
    table = tables.open_table(home, NAME)
    theirs = (pl.col("proof") == proof_of(run)) & (pl.col("state") == "given")
    removed, remove, add = 0, [], []
    for file in [] if table is None else table.files:
        assert table is not None
        rows = table.scan([file]).collect()
        rest = rows.filter(~theirs.fill_null(False))
        if rest.height < rows.height:
            removed += rows.height - rest.height
            remove.append(file)
            add += [table.write(rest)] if rest.height else []
    if table is not None and remove:
        table.commit(add, remove)
    return removed


def proof_of(run: str) -> str:
    """What a receipt names as its proof that an ingest read from events."""
    return f"run {run}"


def scan(home: Home) -> pl.LazyFrame:
    """The whole table, in no order."""
    return tables.scan(home, NAME, SCHEMA)


def in_order(words: pl.DataFrame) -> pl.DataFrame:
    """From the first word to the last: by time said, then by time recorded, then with refusals last."""
    rank = pl.col("state").replace_strict(STATES, range(len(STATES)), return_dtype=pl.UInt8)
    return words.sort("at", "recorded_at", rank, "subject", "purpose", "receipt_id")


def _ids(words: pl.DataFrame) -> pl.Series:
    """SHA-256 over the fields of SAID, joined by the unit separator, which is escaped in them; cut to 96 bits."""
    fields = [
        pl.col(name).cast(pl.Int64).cast(pl.String)
        if name == "at"
        else pl.col(name)
        .str.replace_all("\\", "\\\\", literal=True)
        .str.replace_all(_UNIT, "\\u", literal=True)
        .fill_null(_NONE)
        for name in SAID
    ]
    texts = words.select(pl.concat_str(fields, separator=_UNIT)).to_series().to_list()
    return pl.Series("receipt_id", [hashlib.sha256(text.encode()).hexdigest()[:24] for text in texts], dtype=pl.String)


def _noticed(home: Home, notice: str | Path | None) -> tuple[str | None, str | None]:
    if not isinstance(notice, Path):
        return notice, None
    try:
        text = notice.read_bytes()
    except OSError as error:
        raise MissingInput(f"the notice {notice} cannot be read: {error.strerror}", "--notice FILE") from error
    digest = hashlib.sha256(text).hexdigest()
    kept = home.path("privacy", "notices", f"{digest}{notice.suffix or '.txt'}")
    if not kept.exists():
        kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with artifacts.replace_file(kept) as beside:
            beside.write_bytes(text)
    return notice.name, digest
