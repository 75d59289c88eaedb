"""Everything that is held of one person, as a ZIP for them (GDPR Art. 15 and 20): JSON for machines, a page to read.

events.jsonl is in the form that `persona ingest` reads, so another system, or this one after an erasure, can take it
in. Equal contents give equal bytes: nothing in the archive depends on when it was made.

The other half of access (Art. 15(1) a to h) is in it too: what for, on what basis, who else, how long, which rights,
and why these items: the model that made the person's list, what it looks at, and the reasons it can name.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from persona_cli.consent.gate import Gate
from persona_cli.consent.receipts import PURPOSES, basis, receipts
from persona_cli.consent.subjects import NAME as SUPPRESSED
from persona_cli.consent.subjects import subjects
from persona_cli.errors import BadSettings, MissingInput, PersonaError, UsageError
from persona_cli.events.catalogue import current
from persona_cli.events.store import scan_events
from persona_cli.models import registry
from persona_cli.models.base import reads_order, reads_queries
from persona_cli.privacy import access_page, holdings, recipients
from persona_cli.privacy.access_page import MODELS, RIGHTS
from persona_cli.privacy.data_terms import BASES, USES
from persona_cli.privacy.holdings import Strangers, plain
from persona_cli.privacy.places import Needles, held
from persona_cli.privacy.recipients import by_recipient
from persona_cli.privacy.requests import Request, begin_request, close_request, requests_of
from persona_cli.privacy.retention import KEPT, schedule
from persona_cli.profiles.identity import persons, raw_key
from persona_cli.serving.recommend import recommend
from persona_cli.workspace import artifacts, tables
from persona_cli.workspace.home import Home

HANDED_OVER = "handed over by persona privacy access"
NOTHING = "nothing is held"
PAGE, MANIFEST = "index.html", "manifest.json"
_EARLIEST = (1980, 1, 1, 0, 0, 0)  # the time of every entry: that of making it would change the bytes
_MODE = 0o100600 << 16


@dataclass(frozen=True)
class Handed:
    """What was handed over."""

    request: str
    path: Path
    sha256: str
    """Of the archive."""
    ids: tuple[str, ...]
    files: Mapping[str, int]
    """Bytes by name."""
    held: Mapping[str, int]
    """Rows (of texts and reports: files) by place in the workspace."""


def access(home: Home, user: str, out: Path, *, recipient: str | None = None) -> Handed:
    """Write the archive of the person behind an id to `out` (mode 0600), and note the request that it answers.

    An open request of this person is taken up. With `recipient` it goes to somebody else at the person's wish
    (portability), and is registered. Raises MissingInput where nothing is held, UsageError for a place in the
    workspace.
    """
    out = out.expanduser().absolute()
    if out.resolve().is_relative_to(home.root.resolve()):
        raise UsageError(f"{out} is in the workspace, where an erasure would find it", "--out in another folder")
    kind = "portability" if recipient else "access"
    if recipient is not None:
        recipients.named(recipient)
    who = persons(home)
    ids = who.ids_of(who.of(pl.Series([user], dtype=pl.String))).to_list()
    where = {place: n for place, n in held(home, Needles(frozenset(ids))).items() if n}
    noted = [one for one in requests_of(home, ids) if not _own(one)]
    said = receipts(home, ids)
    if not where and (not (noted or said) or _erased(home, ids)):
        raise _nothing(home, user, ids)
    request = begin_request(home, kind, ids)
    files = contents(home, user, ids, where, noted)
    with artifacts.replace_file(out) as beside:
        if out.exists():
            out.chmod(0o600)
        beside.chmod(0o600)
        _write(beside, files)
        digest = artifacts.file_digest(beside)
        if recipient is not None:
            recipients.register(home, recipient, "everything of one person", digest, ids="user_ids")
    close_request(home, request, HANDED_OVER)
    sizes = {name: len(content) for name, content in files.items()}
    return Handed(request, out, digest, tuple(ids), sizes, where)


def contents(home: Home, user: str, ids: list[str], where: Mapping[str, int], noted: list[Request]) -> dict[str, bytes]:
    """The files of the archive by name."""
    person = persons(home).of(pl.Series([user], dtype=pl.String))[0]
    events = holdings.events(home, ids)
    found: dict[str, Any] = {
        "profile.json": holdings.profile(home, user),
        "history.json": holdings.history(home, person),
        "attributes.json": holdings.attributes(home, ids),
        "consents.json": holdings.consents(home, ids),
        "requests.json": [holdings.request(one) for one in noted],
        "rejected.json": holdings.rejected(home, ids),
        "other_tables.json": holdings.others(home, ids),
        "recommendations.json": recommendations(home, person),
        "information.json": information(home, ids, person, where),
    }
    strangers = Strangers(home, ids, [events, found])
    lines = [holdings.line(event, strangers) for event in events]
    rejected = [{**one, "line": strangers.hidden_line(one["line"])} for one in found.pop("rejected.json")]
    documents = {name: strangers.hidden(document) for name, document in found.items()}
    documents["rejected.json"] = [{**strangers.hidden(one), "line": one["line"]} for one in rejected]
    files = {name: _json(document) for name, document in sorted(documents.items())}
    files["events.jsonl"] = "".join(f"{line}\n" for line in lines).encode()
    shown = [strangers.hidden(event) for event in events]
    files[PAGE] = access_page.page(ids, shown, documents, sorted([*files, MANIFEST])).encode()
    stated = {
        name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        for name, content in sorted(files.items())
    }
    files[MANIFEST] = _json({"about": ids, "files": stated})
    return files


def _own(one: Request) -> bool:
    """Whether a request is one that this command noted by itself and answered: the next archive is the same without."""
    return one.kind in ("access", "portability") and one.channel == "cli" and one.outcome == HANDED_OVER


def _erased(home: Home, ids: list[str]) -> str | None:
    """When these ids were erased, if they were: a day and the request."""
    table = tables.open_table(home, SUPPRESSED)
    if table is None:
        return None
    whose = subjects(home, pl.Series(ids, dtype=pl.String)).implode()
    rows = table.scan().filter(pl.col("subject").is_in(whose)).sort("at").collect().to_dicts()
    return f"{rows[0]['at']:%Y-%m-%d} ({rows[0]['request']})" if rows else None


def _nothing(home: Home, user: str, ids: list[str]) -> MissingInput:
    erased = _erased(home, ids)
    if erased is None:
        return MissingInput(
            f"nothing is held of {user!r}",
            "an id of theirs that you have elsewhere, or note the request: persona privacy requests add access USER",
        )
    request = begin_request(home, "access", ids)
    close_request(home, request, NOTHING)
    return MissingInput(
        f"nothing is held of {user!r}: they were erased on {erased}; what is left is a digest that keeps old files "
        f"from bringing them back. This request is noted as {request}"
    )


def _json(document: Any) -> bytes:
    return (json.dumps(document, ensure_ascii=False, indent=2, default=holdings.plain) + "\n").encode()


def _write(path: Path, files: Mapping[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name in sorted(files, key=lambda name: (name != PAGE, name)):
            entry = zipfile.ZipInfo(name, _EARLIEST)
            entry.compress_type, entry.create_system, entry.external_attr = zipfile.ZIP_DEFLATED, 3, _MODE
            archive.writestr(entry, files[name])


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
