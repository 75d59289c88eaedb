"""The other half of access (GDPR Art. 15(1) a to h): what for, on what basis, who else, how long, which rights, and why
these items: the model that made the person's list, what it looks at, and the reasons it can name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from persona_cli.consent.gate import Gate
from persona_cli.consent.receipts import PURPOSES, basis, receipts
from persona_cli.errors import BadSettings, PersonaError
from persona_cli.events.catalogue import current
from persona_cli.events.store import scan_events
from persona_cli.models import registry
from persona_cli.models.base import reads_order, reads_queries
from persona_cli.privacy.access_words import MODELS, RIGHTS
from persona_cli.privacy.holdings import plain
from persona_cli.privacy.recipients import by_recipient
from persona_cli.privacy.records.uses import BASES, USES
from persona_cli.privacy.retention import KEPT, schedule
from persona_cli.profiles.identity import raw_key
from persona_cli.serving.recommend import recommend
from persona_cli.workspace.home import Home

Doc = dict[str, Any]
_NO_BASIS = "none: your data is not used for this"
_KEPT_WORD = "We keep what you said of it; the data here is not used for it."
_CONTROLLER = ("name", "contact", "representative", "dpo", "authority")


def recommendations(home: Home, person: str) -> Doc:
    """The person's list as it would be served now: model, what it looks at, items with their reasons."""
    try:
        saved = registry.load_model(home)
        made = recommend(home, users=pl.Series([person], dtype=pl.String), explain=True)
        row = pl.concat(list(made.blocks)).row(0, named=True)
    except PersonaError as error:
        return {"model": None, "why_none": error.message, "items": []}
    titles = dict(current(home, "items").select("item_id", "title").iter_rows())
    looks_at = ["what you looked at, used, bought or rated, and how long ago"]
    looks_at += ["in which order"] if reads_order(saved.model) else []
    looks_at += ["what you searched for lately"] if reads_queries(saved.model) else []
    looks_at += ["your kind of device and your country", "what you blocked, want less of, and answered"]
    base = str(row["base"])
    personal = base.partition("/")[0] != "popular"
    logic = [
        USES["personalization"].logic,
        MODELS["layered"] if saved.name == "layered" else "",
        MODELS.get(base.partition("/")[0], f"It is the model {base}, which was added to persona."),
        "" if personal else "Your list is the one for everybody, since too little is known of you or may be used.",
    ]
    return {
        "model": row["model"],
        "trained_on_events_until": plain(saved.trained_until),
        "rests_on": base,
        "stage": row["stage"],
        "held_out": bool(row["holdout"]),
        "logic": [text for text in logic if text],
        "looks_at": looks_at if personal else looks_at[-2:],
        "items": [
            {"item_id": one["item_id"], "title": titles.get(one["item_id"]), "why": one["reasons"]}
            for one in row["items"]
        ],
        "meaning": "These items come first where lists are ordered by this model. Nothing else is decided by it.",
    }


def information(home: Home, ids: Sequence[str], person: str, where: Mapping[str, int]) -> Doc:
    """Controller, purposes with bases and how the person stands to them, sources, recipients, retention, rights."""
    who = pl.Series(list(ids), dtype=pl.String)
    behind = pl.Series([person] * len(ids), dtype=pl.String)
    gate = Gate.of(home)
    last = {one.purpose: one.state for one in receipts(home, ids)}
    settings = home.settings
    purposes = []
    for name in (*PURPOSES, *sorted(set(last) - set(PURPOSES))):
        use = USES.get(name)
        if use is None and name not in last:
            continue  # a purpose that nothing is done for, of which this person has said nothing
        said: Doc = {"purpose": name, "what": use.plain if use else _KEPT_WORD, "you_said": last.get(name)}
        try:
            on = basis(home, name)
            permitted = bool(gate.permits(name, who, behind)[0])
            said |= {"basis": BASES[on][0], "article": f"GDPR {BASES[on][1]}", "used": permitted and use is not None}
        except BadSettings:
            said |= {"basis": _NO_BASIS, "article": None, "used": False}
        purposes.append({**said, "logic": use.logic if use else None})
    sources = scan_events(home).filter(raw_key().is_in(who.implode())).group_by("source")
    counted = sources.agg(events=pl.len(), taken_in=pl.col("ingested_at").min().dt.date()).sort("source").collect()
    return {
        "controller": {key: text for key in _CONTROLLER if (text := settings.text(f"privacy.controller.{key}"))},
        "ids": list(ids),
        "purposes": purposes,
        "sources": [plain(row) for row in counted.iter_rows(named=True)],
        "recipients": [
            {"recipient": name, "received": sorted({f"{one.what}, {one.at[:10]}" for one in exports})}
            for name, exports in by_recipient(home).items()
        ],
        "processors": list(settings.texts("privacy.controller.processors")),
        "transfers": list(settings.texts("privacy.controller.transfers")),
        "retention": [{"what": one.what, "kept": one.kept} for one in schedule(home)]
        + [{"what": what, "kept": kept} for what, kept in KEPT],
        "where": dict(where),
        "rights": [{"right": name, "how": how} for name, how in RIGHTS],
        "regime": settings.text("privacy.regime"),
    }
