"""The door against a plain reading of its rule: random rows, words, bases and blocks; also in a second file."""

from __future__ import annotations

import dataclasses
import itertools
import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from persona_cli.consent.gate import Gate
from persona_cli.consent.receipts import COVERING
from persona_cli.consent.subjects import suppress
from persona_cli.events import reading
from persona_cli.events.ingest import ingest
from persona_cli.events.store import scan_events
from persona_cli.workspace.home import create

RANK = {"given": 0, "withdrawn": 1, "objected": 2}
TEXTS = {
    "granted": ("given", "given", "given"),
    "denied": ("withdrawn", "withdrawn", "withdrawn"),
    "analytics": ("withdrawn", "given", "withdrawn"),
    "model_training=no": (None, None, "withdrawn"),
    "perhaps": "unreadable",
}
ROWS = st.lists(
    st.tuples(
        st.sampled_from([None, "a", "b", "gone"]),
        st.sampled_from([None, "x", "y", "a", "gone"]),
        st.integers(0, 9),
        st.sampled_from([None, None, None, *TEXTS]),
        st.sampled_from([False, False, False, True]),
    ).filter(lambda row: row[0] is not None or row[1] is not None),
    max_size=14,
)
BASES = st.tuples(*(st.sampled_from(["consent", "contract", ""]) for _ in COVERING))


class Oracle:
    """Row by row, as the rule is written."""

    def __init__(self, bases: tuple[str, ...]) -> None:
        self.bases = bases
        self.last: dict[tuple[str, int], tuple[int, int]] = {}

    def permits(self, id: str, place: int) -> bool:
        last = self.last.get((id, place))
        if last is not None:
            return last[1] == 0
        return self.bases[place] != "consent"

    def covered(self, id: str) -> bool:
        return any(self.bases[place] and self.permits(id, place) for place in range(3))

    def all_at_least(self, id: str, rank: int) -> bool:
        return all((id, place) in self.last and self.last[id, place][1] >= rank for place in range(3))

    def take(self, user: str | None, anon: str | None, at: int, text: str | None, signal: bool) -> Any:
        """The reason for which the row is dropped, or what is stored of its ids."""
        first = user or anon or ""
        said: Any = TEXTS.get(text or "", (None, None, None))
        if said == "unreadable":
            said = tuple("withdrawn" if basis == "consent" else None for basis in self.bases)
        if signal:
            said = ("objected",) * 3
        for id in {first, anon} if signal else {first}:
            for place, state in enumerate(said):
                if state is not None and id is not None:
                    word = (at, RANK[state])
                    self.last[id, place] = max(self.last.get((id, place), word), word)
        if first == "gone":
            return "suppressed"
        if signal or (not self.covered(first) and self.all_at_least(first, 2)):
            return "opted_out"
        if not self.covered(first) or all(state == "withdrawn" for state in said):
            return "opted_out" if self.all_at_least(first, 2) else "consent"
        strip = user is not None and anon is not None and (anon == "gone" or self.all_at_least(anon, 1))
        return user, None if strip else anon


@settings(max_examples=60)
@given(ROWS, ROWS, BASES, st.sampled_from([1, 300, 1 << 20]))
def test_the_door_keeps_its_rule(first: Any, second: Any, bases: tuple[str, ...], block: int) -> None:
    oracle = Oracle(bases)
    numbers = itertools.count()
    with tempfile.TemporaryDirectory() as folder:
        home = create(Path(folder) / "w")
        flags = {f"privacy.purposes.{purpose}.basis": basis for purpose, basis in zip(COVERING, bases, strict=True)}
        home = dataclasses.replace(home, settings=home.settings.with_flags(flags))
        suppress(home, ["gone"], "R-1")
        wanted: dict[str, Any] = {}
        for day, rows in enumerate((first, second), 1):
            lines, dropped = [], Counter[str]()
            for user, anon, hour, text, signal in rows:
                item = f"i{next(numbers)}"
                row: dict[str, Any] = {
                    "event_type": "click",
                    "item_id": item,
                    "timestamp": f"2026-03-0{day}T0{hour}:00Z",
                }
                row |= {name: id for name, id in (("user_id", user), ("anon_id", anon)) if id is not None}
                row |= {"context": {"consent": text}} if text else {}
                lines.append(json.dumps(row | ({"gpc": 1} if signal else {})))
                verdict = oracle.take(user, anon, 100 * day + hour, text, signal)
                if isinstance(verdict, str):
                    dropped[verdict] += 1
                else:
                    wanted[item] = verdict
            file = Path(folder) / f"{day}.jsonl"
            file.write_text("".join(f"{line}\n" for line in lines))
            before, reading.BLOCK_BYTES = reading.BLOCK_BYTES, block
            try:
                report = ingest(home, [str(file)]) if lines else None
            finally:
                reading.BLOCK_BYTES = before
            assert report is None or report.dropped == dropped
        stored = scan_events(home).select("item_id", "user_id", "anon_id").collect()
        assert {item: (user, anon) for item, user, anon in stored.iter_rows()} == wanted
        gate, ids = Gate.of(home), ["a", "b", "x", "y"]
        for place, purpose in enumerate(COVERING):
            if bases[place]:
                expected = [oracle.permits(id, place) for id in ids]
                assert gate.permits(purpose, pl.Series(ids)).to_list() == expected
