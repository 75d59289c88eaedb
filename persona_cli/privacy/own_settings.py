"""What a person decided about their own lists: settings, blocks, "show me less", answers, and whether it is paused.

All of it is events of the person (`profiles.folds.explicit`), written through the ordinary ingest, so that profiles,
lists and evaluations follow from them as from what an app sends. Taking something back is an event too: a later ingest
of the file that held the first word does not bring it back. A setting that was taken back has the empty value.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import polars as pl

from persona_cli.consent.receipts import Receipt, receipts, record
from persona_cli.errors import BadData, Refused, UsageError, nearest
from persona_cli.events.catalogue import described
from persona_cli.events.ingest import ingest
from persona_cli.events.opening import Input
from persona_cli.privacy.removal import remove_where
from persona_cli.profiles import preferences
from persona_cli.profiles.folds import explicit
from persona_cli.profiles.folds.explicit import ANSWER, BLOCK, CATEGORY, ITEM, LESS, PREFERENCE, TAG, UNBLOCK
from persona_cli.profiles.identity import persons
from persona_cli.profiles.permitted import person_events
from persona_cli.profiles.sync import sync
from persona_cli.workspace import artifacts, locks
from persona_cli.workspace.home import Home

SOURCE = "persona privacy preferences"
"""Where these events say they come from."""
PERSONALIZATION = "personalization"
TOPIC = "topic:"
LONGEST = 1_000
log = logging.getLogger("persona")


@dataclass(frozen=True)
class Own:
    """What one person said, as it stands."""

    settings: Mapping[str, str]
    """By key, the latest value."""
    blocked: tuple[str, ...]
    """item:ID, category:NAME or tag:NAME, sorted."""
    show_less: Mapping[str, float]
    """What is left of "show me less" by topic (`profiles.preferences.shown_less`)."""
    answers: Mapping[str, tuple[str, ...]]


def own(home: Home, user: str) -> Own:
    """What the person behind an id said; nothing of somebody unknown."""
    who = persons(home).of(pl.Series([user]))
    said = person_events(home, purpose=None).filter(
        pl.col("user_id").is_in(who.implode()), pl.col("event_type").is_in(explicit.TYPES)
    )
    told = said.select("user_id", "timestamp", "event_type", "item_id", "value", *explicit.derived().values()).collect()
    if not told.height:
        return Own({}, (), {}, {})
    theirs = person_events(home, purpose=None).filter(pl.col("user_id").is_in(who.implode()))
    last = theirs.select(pl.col("timestamp").max()).collect().item()
    found = preferences.told({**preferences.folded(told).row(0, named=True), "last_seen": last}, home.settings)
    starts = (("items", ITEM), ("categories", CATEGORY), ("tags", TAG))
    blocked = sorted(start + key for name, start in starts for key in found["blocked"][name])
    return Own(
        found["preferences"],
        tuple(blocked),
        found["show_less"],
        {name: tuple(value) for name, value in found["answers"].items()},
    )


def change(
    home: Home,
    user: str,
    *,
    put: Mapping[str, str] | None = None,
    block: Sequence[str] = (),
    unblock: Sequence[str] = (),
    wait: float = 0.0,
    run: str | None = None,
) -> Own:
    """Set keys, block and unblock topics (item:ID, category:NAME, tag:NAME, topic:NAME), and answer what stands.

    `topic:NAME` is the category and the tag of that name. Raises UsageError for what is no topic or contradicts itself,
    Refused where nothing of this person may be stored.
    """
    blocks, unblocks = ([one for text in texts for one in topics(home, text)] for texts in (block, unblock))
    if both := set(blocks) & set(unblocks):
        raise UsageError(f"{min(both)} cannot be blocked and unblocked at once")
    for key, value in (put or {}).items():
        if not value or len(value) > LONGEST or not value.isprintable():
            raise UsageError(f"the value of {key!r} is {value!r}; expected 1 to {LONGEST} printable characters")
    said = [_setting(key, value) for key, value in (put or {}).items()]
    said += [_about(BLOCK, topic) for topic in dict.fromkeys(blocks)]
    said += [_about(UNBLOCK, topic) for topic in dict.fromkeys(unblocks)]
    write(home, user, said, wait, run)
    now = own(home, user)
    if set(blocks) - set(now.blocked) or set(unblocks) & set(now.blocked):
        log.warning(
            "of words at the same (coarse) time a block wins, so not all of this holds: [privacy.collect.coarsen]"
        )
    return now


def reset(home: Home, user: str, wait: float = 0.0, run: str | None = None) -> Own:
    """Take back every setting, block, answer and "show me less" of the person; answers what that was."""
    with locks.hold(home, "tables", "privacy preferences", wait):
        before = own(home, user)
        said = [_setting(key, "") for key in before.settings] + [_about(UNBLOCK, key) for key in before.blocked]
        said += [{"event_type": ANSWER, "target": key, "props": {"answer": ""}} for key in before.answers]
        if before.show_less:
            # "Show me less" is counted and has no opposite: what was said of it leaves the events.
            ids = persons(home).ids_of(persons(home).of(pl.Series([user])))
            theirs = pl.coalesce("user_id", "anon_id").is_in(ids.implode())
            remove_where(home, "events", theirs & (pl.col("event_type") == LESS))
            sync(home)
        write(home, user, said, wait, run)
    return before


def topics(home: Home, text: str) -> list[str]:
    """What a text names: `item:ID`, `category:NAME`, `tag:NAME`, or the category and tag called so by `topic:NAME`."""
    for start in (ITEM, CATEGORY, TAG):
        if text.startswith(start) and len(text) > len(start):
            return [text]
    if not text.startswith(TOPIC) or len(text) == len(TOPIC):
        raise UsageError(
            f"{text!r} names nothing that can be blocked", "item:ID, category:NAME, tag:NAME or topic:NAME"
        )
    name = text[len(TOPIC) :]
    if name.startswith((CATEGORY, TAG)):
        return topics(home, name)
    known = preferences.topics(described(home))["topic"].unique().to_list()
    found = [start + name for start in (CATEGORY, TAG) if start + name in known]
    if not found:
        names = {one.partition(":")[2] for one in known}
        close = nearest(name, names) if len(names) <= 20 or nearest(name, names).startswith("; did") else ""
        raise UsageError(f"no item has the category or tag {name!r}{close}", "category:NAME and tag:NAME take any name")
    return found


def write(home: Home, user: str, said: Sequence[Mapping[str, Any]], wait: float = 0.0, run: str | None = None) -> None:
    """Store events of the person behind `user`, all at this moment, and bring the profiles up to date.

    Each has event_type, target or item_id, and perhaps value or answer (a text). Raises Refused where the gate keeps
    the person's events out.
    """
    if not said:
        return
    with locks.hold(home, "tables", "privacy preferences", wait):
        who = persons(home).of(pl.Series([user]))[0]
        moment = datetime.now(UTC).isoformat(timespec="microseconds")
        lines = [json.dumps({"user_id": who, "timestamp": moment, **one}, ensure_ascii=False) for one in said]
        with artifacts.scratch(home.root) as folder:
            (folder / "said.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
            source = Input(SOURCE, folder / "said.jsonl", "jsonl")
            report = ingest(home, [source], dialect="native", max_rejected=0.0, on_duplicate="keep-last", run=run)
        if report.rejected:
            raise BadData(f"this was not stored: {report.reasons[0].reason}")
        if report.dropped:
            why = ", ".join(sorted(report.dropped))
            raise Refused(f"nothing of this person is stored ({why}), so neither are their settings",
                          "persona privacy consent show USER")  # fmt: skip
        sync(home)


def _setting(key: str, value: str) -> dict[str, Any]:
    return {"event_type": PREFERENCE, "target": key, "props": {"value": value}}


def _about(kind: str, topic: str) -> dict[str, Any]:
    item = topic.startswith(ITEM)
    return {"event_type": kind, "item_id" if item else "target": topic[len(ITEM) :] if item else topic}


def pause(home: Home, user: str) -> bool:
    """Give the person lists that know nothing of them until `resume`; False where it was so already."""
    if paused(home, user):
        return False
    record(home, _ids(home, user), [PERSONALIZATION], "paused", source=SOURCE)
    return True


def resume(home: Home, user: str) -> bool:
    """End a pause; False where nothing was paused.

    What the person had said before it holds again, which is no consent where there was none.
    """
    if not paused(home, user):
        return False
    before = [one for one in _words(home, user) if one.state != "paused"]
    record(home, _ids(home, user), [PERSONALIZATION], before[-1].state if before else "cleared", source=SOURCE)
    return True


def paused(home: Home, user: str) -> bool:
    """Whether the person's last word on personalization is a pause."""
    words = _words(home, user)
    return bool(words) and words[-1].state == "paused"


def _words(home: Home, user: str) -> list[Receipt]:
    return [one for one in receipts(home, _ids(home, user)) if one.purpose == PERSONALIZATION]


def _ids(home: Home, user: str) -> list[str]:
    who = persons(home)
    return who.ids_of(who.of(pl.Series([user], dtype=pl.String))).to_list()
