"""The gate at the door: whose rows are stored, and what events themselves say of consent.

A row is judged by the last word of its person, receipts and the words of this input up to this row together, whatever
blocks it is read in. Not stored are rows of the suppressed (erased) and of those who opted out, rows that refuse all
purposes themselves or carry the browser's signal, and rows of those whom no purpose covers. An anonymous id that is
suppressed or refused is taken from a row whose user is neither.

What was said becomes receipts before the events are committed: of a refusal the latest, of a grant only what changes
something. The browser's signal is an objection to everything by both ids of its row, since it is meant for the device
and for whoever is known to use it (11 CCR § 7025(c)).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import repeat
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from persona_cli.consent.gate import CLEARED, GIVEN, MAYBE_SIGNAL, OBJECTED, WITHDRAWN, Gate, opts_out, said
from persona_cli.consent.receipts import CONSENT, COVERING, PURPOSES, STATES, append_words, proof_of
from persona_cli.consent.subjects import Suppressed, halves, subjects
from persona_cli.events.reading import Batch
from persona_cli.events.schema import Kind
from persona_cli.workspace.home import Home

Keys = npt.NDArray[np.int64]
"""(n, 4): of each purpose the last word as µs x 5 + state, -1 where there is none."""
Mask = npt.NDArray[np.bool_]
Places = npt.NDArray[np.int64]
FROM_EVENT, FROM_BROWSER = "event", "browser signal (GPC)"
_N = len(COVERING)
_STATES = len(STATES)
# Ids of whom nothing is known are remembered up to here, so that they are digested once; then anew.
_REMEMBERED = 1_000_000
_NOTHING, _UNMET = 0, -1


class _Said(NamedTuple):
    """What the rows of a batch say."""

    own: Keys
    signal: Mask
    """Rows with the browser's signal."""
    refused: Mask
    """Rows that refuse all purposes."""


@dataclass
class Consenting:
    """What one run lets in: `let_in` each batch in the order of the input, then `commit` before the events."""

    home: Home
    run: str
    now: datetime
    gate: Gate
    suppressed: Suppressed
    opted_out_by_signal: int = 0
    """People whom the browser's signal opted out in this run; told by `commit`."""
    receipts: int = 0
    stripped: int = 0
    """Rows that lost their anonymous id."""
    _rows: dict[str, int] = field(default_factory=dict)  # id → its row of the arrays, 0: nothing is known
    _held: Keys = field(default_factory=lambda: np.full((1, len(PURPOSES)), -1))  # by the receipts
    _now: Keys = field(default_factory=lambda: np.full((1, len(PURPOSES)), -1))  # and the words of this run
    _erased: Mask = field(default_factory=lambda: np.zeros(1, bool))
    _speakers: set[str] = field(default_factory=set)  # whose words may become receipts
    _signalled: set[str] = field(default_factory=set)  # those of the browser's signal, devices of known users aside

    @classmethod
    def of(cls, home: Home, run: str, now: datetime) -> Consenting:
        return cls(home, run, now, Gate.of(home), Suppressed.of(home))

    def __post_init__(self) -> None:
        self._bases = self.gate.bases()
        self._keeps = self.home.settings.flag("privacy.consent.receipts_from_events")
        self._idle = self.gate.trivial and not self.suppressed.any
        refusing = pl.col("purpose").is_in(list(COVERING)) & (pl.col("state") >= WITHDRAWN)
        self._strips = self.suppressed.any or bool(self.gate.words.select(refusing.any()).item())

    def let_in(self, batch: Batch, kind: Kind) -> Counter[str]:
        """Take from a batch the rows that may not be stored; answers how many, by reason."""
        dropped: Counter[str] = Counter()
        if kind not in ("events", "users"):
            return dropped
        words = self._said(batch.rows) if kind == "events" and batch.rows.num_rows else None
        if words is None and self._idle:
            return dropped
        self._idle = False
        if batch.rows.num_rows:
            batch.rows = self._admitted(batch.rows, kind, words, dropped)
        for row_kind, rows in batch.about.items():
            if row_kind == "users" and rows:
                whose = np.array(self._places([row["user_id"] for row in rows]))
                may = ~self._erased[whose] & self._covered(self._now[whose])
                batch.about[row_kind] = [row for row, kept in zip(rows, may, strict=True) if kept]
        return dropped

    def commit(self) -> None:
        """Write what was said as receipts, in one commit; call it before what was let in is committed."""
        speakers = sorted(self._speakers)
        if not speakers:
            return
        places = np.array([self._rows[id] for id in speakers])
        held, now = self._held[places], self._now[places]
        before, after = held % _STATES, now % _STATES
        needed = np.array([self._bases.get(purpose) == CONSENT for purpose in COVERING] + [False])
        # A grant that changes nothing is no receipt: every event of everybody carries it.
        changes = ((held < 0) | (before != GIVEN)) & needed | (held >= 0) & (before > CLEARED)
        new = (now > held) & ((after != GIVEN) | changes)
        out = np.array([id in self._signalled for id in speakers])
        fresh = out & (after[:, :_N] == OBJECTED).all(1) & ~((held >= 0) & (before == OBJECTED))[:, :_N].all(1)
        self.opted_out_by_signal = int((fresh & new.any(1)).sum())
        who, purpose = np.nonzero(new)
        digests = subjects(self.home, pl.Series(speakers, dtype=pl.String)).gather(who)
        state = pl.Series(np.array(STATES)[after[who, purpose]].tolist(), dtype=pl.String)
        words = pl.DataFrame(
            {
                "subject": digests,
                "purpose": pl.Series(np.array(PURPOSES)[purpose].tolist(), dtype=pl.String),
                "state": state,
                "at": pl.Series(now[who, purpose] // _STATES).cast(pl.Datetime("us", "UTC")),
            }
        ).with_columns(
            *(pl.lit(None, dtype=pl.String).alias(name) for name in ("notice", "notice_sha256")),
            pl.when(pl.col("state") == "objected")
            .then(pl.lit(FROM_BROWSER))
            .otherwise(pl.lit(FROM_EVENT))
            .alias("source"),
            pl.lit(proof_of(self.run)).alias("proof"),
        )
        self.receipts = append_words(self.home, words, self.now).height

    def _said(self, rows: pa.Table) -> _Said | None:
        """None where the rows say nothing at all."""
        consent, props = rows["consent"], rows["props"]
        spoken = consent.null_count < rows.num_rows
        signal = np.zeros(rows.num_rows, bool)
        if props.null_count < rows.num_rows:
            texts = pl.Series(pl.from_arrow(props))
            maybe = texts.str.contains(MAYBE_SIGNAL)
            if maybe.any():
                rows_of = np.flatnonzero(maybe.fill_null(False).to_numpy())
                signal[rows_of] = [opts_out(text) for text in texts.gather(rows_of).to_list()]
        if not spoken and not signal.any():
            return None
        ranks = _ranks(consent, self._bases) if spoken else np.full((rows.num_rows, _N), -1)
        refused: Mask = np.all(ranks >= WITHDRAWN, axis=1)
        if not (ranks >= 0).any() and not signal.any():
            return None
        at = np.minimum(rows["timestamp"].cast(pa.int64()).to_numpy(), _microseconds(self.now))[:, None]
        own = np.full((rows.num_rows, len(PURPOSES)), -1)
        own[:, :_N] = np.where(ranks >= 0, at * _STATES + ranks, -1)
        own[signal] = at[signal] * _STATES + OBJECTED
        return _Said(own, signal, refused)

    def _admitted(self, rows: pa.Table, kind: Kind, words: _Said | None, dropped: Counter[str]) -> pa.Table:
        anons = rows["anon_id"] if kind == "events" else pa.chunked_array([pa.nulls(rows.num_rows, pa.string())])
        self._strips |= words is not None
        if not self._strips:  # no anonymous id is taken from a user's row: only whose the row is matters
            anons = pc.if_else(pc.is_null(rows["user_id"]), anons, pa.scalar(None, pa.string()))
        names, codes = _coded(rows["user_id"], anons)
        there = codes > 0  # (2, n): users' ids first
        if words is not None:
            self._listen(names, np.where(there[0], codes[0], codes[1]), np.where(there[0], codes[1], 0), words)
        who = np.array(self._places(names))[codes]
        first, second = np.where(there[0], who[0], who[1]), np.where(there[0], who[1], _NOTHING)
        keys, others = self._now[first], self._now[second]
        if words is not None:
            keys, others = self._heard(first, second, keys, others, words)
        erased, may = self._erased[first], self._covered(keys)
        out = _all(keys, OBJECTED)
        if words is not None:
            out, may = out | words.signal, may & ~words.refused & ~words.signal
        why = {"suppressed": erased, "opted_out": ~erased & ~may & out, "consent": ~erased & ~may & ~out}
        dropped.update({reason: int(mask.sum()) for reason, mask in why.items() if mask.any()})
        kept = ~erased & may
        strip = kept & there[0] & there[1] & (self._erased[second] | _all(others, WITHDRAWN))
        if strip.any():
            self.stripped += int(strip.sum())
            bare = pc.if_else(pa.array(strip), pa.scalar(None, pa.string()), anons)
            rows = rows.set_column(rows.schema.get_field_index("anon_id"), rows.schema.field("anon_id"), bare)
        return rows if kept.all() else rows.filter(pa.array(kept))

    def _listen(self, names: list[str], first: Places, second: Places, words: _Said) -> None:
        """Note who speaks in a batch, and give each a row of the arrays."""
        signalled = {names[code] for code in np.unique(first[words.signal]).tolist()}
        speaking = {names[code] for code in np.unique(first[(words.own >= 0).any(1)]).tolist()}
        devices = {names[code] for code in np.unique(second[words.signal]).tolist() if code}
        lasting = (speaking if self._keeps else signalled) | devices
        self._speakers |= lasting
        self._signalled |= signalled
        ids = sorted(lasting)
        fresh = [id for id, place in zip(ids, self._places(ids), strict=True) if place == _NOTHING]
        if fresh:
            silent = np.full((len(fresh), len(PURPOSES)), -1)
            self._grow(fresh, silent, np.zeros(len(fresh), bool))

    def _heard(self, first: Places, second: Places, keys: Keys, others: Keys, words: _Said) -> tuple[Keys, Keys]:
        """The last words of each row's two ids up to and with this row; those of this batch are kept for later ones."""
        n = len(first)
        by_device = np.where((words.signal & (second != _NOTHING))[:, None], words.own, -1)
        lasting = np.concatenate(
            [words.own if self._keeps else np.where(words.signal[:, None], words.own, -1), by_device]
        )
        places = np.concatenate([first, second])
        touched = np.zeros(len(self._now), bool)
        touched[places[(lasting >= 0).any(1)]] = True
        touched[_NOTHING] = False
        chosen = np.flatnonzero(touched[places])
        chosen = chosen[np.argsort(chosen % n, kind="stable")]  # by row of the batch, its first id first
        columns = {f"{p}": lasting[chosen, p] for p in range(len(PURPOSES))}
        frame = pl.DataFrame({"place": places[chosen], **columns})
        running = frame.select(pl.col(*columns).cum_max().over("place")).to_numpy()
        both = np.concatenate([keys, others])
        both[chosen] = np.maximum(both[chosen], running)
        np.maximum.at(self._now, places[chosen], lasting[chosen])
        return np.maximum(both[:n], words.own), both[n:]

    def _covered(self, keys: Keys) -> Mask:
        """Whether some purpose that events are collected for covers each (n,)."""
        covered = np.zeros(len(keys), bool)
        for place, purpose in enumerate(COVERING):
            basis, last = self._bases[purpose], keys[:, place]
            if basis is not None:
                state = last % _STATES
                given = (last >= 0) & (state == GIVEN)
                covered |= given if basis == CONSENT else given | (last < 0) | (state == CLEARED)
        return covered

    def _places(self, names: Sequence[str]) -> list[int]:
        """The row of what is known of each id (n,); ids not met before are looked up in the receipts."""
        if not self.gate.words.height and not self.suppressed.any:
            return list(map(self._rows.get, names, repeat(_NOTHING)))
        places = list(map(self._rows.get, names, repeat(_UNMET)))
        if _UNMET in places:
            new = list(dict.fromkeys(name for name, place in zip(names, places, strict=True) if place == _UNMET))
            digests = halves(self.home, new)
            held, erased = self.gate.last(digests), self.suppressed.has(digests)
            known = erased | (held >= 0).any(1)
            self._rows.update((new[place], _NOTHING) for place in np.flatnonzero(~known).tolist())
            self._grow([new[place] for place in np.flatnonzero(known).tolist()], held[known], erased[known])
            places = [self._rows[name] for name in names]
        if len(self._rows) - len(self._now) > _REMEMBERED:
            self._rows = {id: place for id, place in self._rows.items() if place != _NOTHING}
        return places

    def _grow(self, ids: Sequence[str], held: Keys, erased: Mask) -> None:
        self._rows.update(zip(ids, range(len(self._now), len(self._now) + len(ids)), strict=True))
        self._held = np.concatenate([self._held, held])
        self._now = np.concatenate([self._now, held])
        self._erased = np.concatenate([self._erased, erased])


def _all(keys: Keys, least: int) -> Mask:
    """Whether the last word about each purpose that events are collected for is at least this refusing (n,)."""
    last = keys[:, :_N]
    return np.asarray(np.all((last >= 0) & (last % _STATES >= least), axis=1))


def _coded(users: pa.ChunkedArray, anons: pa.ChunkedArray) -> tuple[list[str], Places]:
    """The different ids, "" first for none, and the number of each row's user and anonymous id (2, n)."""
    ids, codes = _encoded(pa.chunked_array([*users.chunks, *anons.chunks], pa.string()))
    return ["", *ids], (codes + 1).reshape(2, -1)


def _encoded(texts: pa.ChunkedArray) -> tuple[list[str], Places]:
    """The different texts, and the number of each among them, -1 for none."""
    coded = texts.combine_chunks()
    coded = (coded.chunk(0) if isinstance(coded, pa.ChunkedArray) else coded).dictionary_encode()
    return coded.dictionary.to_pylist(), coded.indices.fill_null(-1).to_numpy().astype(np.int64)


def _ranks(consent: pa.ChunkedArray, bases: dict[str, str | None]) -> Places:
    """What each row says of each purpose that events are collected for: a state, -1 for nothing (n, 3)."""
    texts, codes = _encoded(consent)
    table = np.full((len(texts) + 1, _N), -1)
    for row, text in enumerate(texts):
        words = said(text, {purpose: basis or "" for purpose, basis in bases.items()})
        for place, purpose in enumerate(COVERING):
            if words is None:  # no consent; where none is needed, it says nothing
                table[row, place] = WITHDRAWN if bases[purpose] == CONSENT else -1
            elif purpose in words:
                table[row, place] = STATES.index(words[purpose])
    found: Places = table[codes]  # that of a missing text is the last row
    return found


def _microseconds(moment: datetime) -> int:
    return int(moment.astimezone(UTC).timestamp() * 1_000_000)
