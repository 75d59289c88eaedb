"""The records as Markdown for people: each page from its JSON document alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from persona_cli.privacy.data_terms import CATEGORIES
from persona_cli.privacy.records.facts import UNDECIDED
from persona_cli.privacy.records.markdown import (
    Written,
    bullets,
    code,
    dpia,
    heading,
    notice,
    paragraph,
    share,
    table,
    text,
)
from persona_cli.reports import words

Doc = Mapping[str, Any]
_OWN = "running persona, proof"


def page(name: str, document: Doc) -> str:
    """A document as one Markdown page."""
    return "\n".join(_PAGES[name](document)).rstrip("\n") + "\n"


def index(doc: Doc) -> list[str]:
    titles = {
        "processing": "Record of processing activities (Art. 30)",
        "data-map": "Data map",
        "dpia": "Draft of an impact assessment (Art. 35)",
        "retention": "Retention schedule",
        "notice": "Notice to the people concerned (Art. 13)",
        "recipients": "Recipients",
        "model-cards": "Model cards",
    }
    lines = [*heading(1, "Records of privacy")]
    lines += paragraph(
        "Made by persona privacy records from the settings and from what the workspace holds; persona privacy records "
        "--check tells when they are out of date. Do not edit them: what is missing goes into persona.toml."
    )
    lines += bullets(Written(f"[{titles[name]}]({name}.md)") for name in doc["records"])
    lines += heading(2, "Open points")
    return [*lines, *(bullets(doc["open_points"]) or paragraph("None."))]


def processing(doc: Doc) -> list[str]:
    counts = doc["people"]["counts"]
    lines = heading(1, "Record of processing activities")
    lines += paragraph("GDPR Art. 30(1). The letters are those of the article.")
    lines += heading(2, "(a) Controller")
    names = {
        "name": "controller",
        "contact": "contact",
        "representative": "representative",
        "dpo": "data protection officer",
        "authority": "supervisory authority",
    }
    lines += table(["", ""], [(names[key], value) for key, value in doc["controller"].items()])
    lines += heading(2, "(b) Purposes")
    lines += _purposes(doc["purposes"])
    lines += heading(2, "(c) Categories of people and of data")
    lines += bullets(
        [
            *_people(doc["people"]),
            f"people who asked for something, by requests: {sum(one['came'] for one in doc['requests']):,}",
        ]
    )
    by_category = {
        one["category"]: [purpose["title"] for purpose in doc["purposes"] if one["category"] in purpose["data"]]
        for one in doc["categories"]
    }
    lines += table(
        ["data", "used for"],
        [(one["name"], by_category[one["category"]] or "proof and repair") for one in doc["categories"]],
    )
    lines += paragraph("Only what the workspace holds is listed; the data map names every column.") if counts else []
    lines += heading(2, "(d) Recipients")
    lines += _recipients(doc["recipients"])
    lines += (
        paragraph("Working for the controller:") + bullets(doc["processors"])
        if doc["processors"]
        else paragraph("Nobody works with the data for the controller.")
    )
    lines += heading(2, "(e) Transfers to third countries")
    lines += bullets(doc["transfers"]) or paragraph("None.")
    lines += heading(2, "(f) Time limits for erasure")
    lines += _retention(doc["retention"])
    lines += heading(2, "(g) Security measures")
    lines += _security(doc["security"], doc["measures"])
    lines += heading(2, "Requests of people")
    lines += table(
        ["request", "came", "answered", "of these late"],
        [(one["kind"], one["came"], one["closed"], one["late"]) for one in doc["requests"]],
    ) or paragraph("None has come.")
    return lines


def data_map(doc: Doc) -> list[str]:
    lines = heading(1, "Data map")
    lines += paragraph(
        "Every table and every kind of file that persona can store, and every column of it. Filled: in how many rows "
        "there is a value; a column without a share is not in this workspace."
    )
    if doc["unknown"]:
        lines += heading(2, "Not in this map")
        lines += paragraph("Found in the workspace, and not of persona's making: nobody here can say what they hold.")
        lines += bullets(code(name) for name in doc["unknown"])
    lines += heading(2, "Overview")
    rows = [(code(one["place"]), one["what"], one["personal"], _rows(one), one["kept"]) for one in doc["stores"]]
    lines += table(["where", "what", "personal", "rows", "kept"], rows)
    for store in doc["stores"]:
        lines += heading(2, code(store["place"]))
        lines += paragraph(f"{store['what']}.")
        facts = [("from", store["source"]), ("used for", store["purposes"] or _OWN), ("kept", store["kept"])]
        lines += table(["", ""], [*facts, ("read by", store["read_by"])])
        columns = ["column", "what", "category", "personal", "used for", "filled", "read by"]
        lines += table(columns, [_column(store, one) for one in store["columns"]])
    lines += heading(2, "Keys of props")
    lines += paragraph(
        "What senders wrote beyond the columns above, and in how many rows; whether it is needed is for people to say, "
        "and privacy.collect.props leaves the rest out. Keys of few rows could be ids and are not named."
    )
    keys = [
        (code(found["table"]), "all others" if one["key"] == "*" else code(one["key"]), Written(share(one["filled"])))
        for found in doc["props"]
        for one in found["keys"]
    ]
    lines += table(["table", "key", "filled"], keys) or paragraph("There are none.")
    lines += heading(2, "Settings that decide about data of people")
    changed = [(code(one["setting"]), one["decides"], one["changed"] or "as shipped") for one in doc["settings"]]
    return lines + table(["settings", "decide", "changed"], changed)


def _rows(store: Doc) -> Any:
    return store["rows"] if store["kind"] == "table" else "there" if store["there"] else None


def _column(store: Doc, one: Doc) -> tuple[Any, ...]:
    what = one["what"] + (f" ({', '.join(one['entries'])})" if one["entries"] else "")
    filled = Written(share(one["filled"])) if one["filled"] is not None else None
    used = "as above" if one["purposes"] == store["purposes"] else one["purposes"] or _OWN
    read = "as above" if one["read_by"] == store["read_by"] else one["read_by"]
    stored = filled if one["stored"] else "never stored"
    return (code(one["column"]), what, one["category"], one["personal"], used, stored, read)


def retention(doc: Doc) -> list[str]:
    lines = heading(1, "Retention schedule")
    lines += paragraph(
        "persona privacy expire carries it out, best every night from cron; --dry-run shows what would go."
    )
    return lines + _retention(doc["retention"])


def recipients(doc: Doc) -> list[str]:
    lines = heading(1, "Recipients")
    lines += paragraph(
        "Every export of personal data for which somebody was named. They are told when a person is erased (Art. 19): "
        "persona privacy forget writes a file for each."
    )
    lines += _recipients(doc["recipients"])
    lines += heading(2, "Transfers to third countries")
    return lines + (bullets(doc["transfers"]) or paragraph("None."))


def model_cards(doc: Doc) -> list[str]:
    lines = heading(1, "Model cards")
    if not doc["models"]:
        return lines + paragraph("No model is in use: persona train.")
    for one in doc["models"]:
        lines += heading(2, f"{one['model']}: {one['role']}")
        lines += paragraph(f"{one['what']}.", f"Made by {one['made_by']}.")
        facts = [
            ("events until", _moment(one["trained_until"])),
            ("users", one["users"]),
            ("events", one["events"]),
            ("items", one["items"]),
            ("made of", list(one["parts"].values()) or None),
            ("an erasure is subtracted", "yes" if one["exact"] else "no: it is trained again"),
        ]
        lines += table(["", ""], [(name, value) for name, value in facts if value is not None])
        lines += [*heading(3, "How good"), *_quality(one["quality"])]
        lines += [*heading(3, "Limits"), *(bullets(one["limits"]) or paragraph("None known beyond those of the kind."))]
        lines += [*heading(3, "People in it"), *bullets(one["privacy"])]
        chosen = set(one["chosen"])
        rows = [
            (code(key), value, "from the data" if key in chosen else "by rule or settings")
            for key, value in sorted(one["settings"].items())
        ]
        lines += [*heading(3, "Parameters"), *table(["parameter", "value", "chosen"], rows)] if rows else []
    return lines


def _quality(quality: Doc | None) -> list[str]:
    if quality is None:
        return paragraph("Not measured by itself.")
    rows = [
        (
            words.metric_name(key),
            Written(words.value_text(key, one["value"])),
            _interval(key, one),
            _value(key, quality["popular"].get(key)),
        )
        for key, one in quality["metrics"].items()
    ]
    said = f"{quality['users']:,} users; {quality['from']}." if quality["users"] else f"{quality['from']}."
    return [*paragraph(said), *table(["metric", "value", "95 % interval", "popular list"], rows)]


def _interval(key: str, one: Doc) -> Any:
    if one["low"] is None:
        return None
    return Written(f"{words.value_text(key, one['low'])} to {words.value_text(key, one['high'])}")


def _value(key: str, one: Doc | None) -> Any:
    return None if one is None else Written(words.value_text(key, one["value"]))


def _moment(at: str | None) -> str | None:
    return None if at is None else f"{at[:10]} {at[11:16]} UTC"


def _purposes(purposes: list[Doc]) -> list[str]:
    lines = []
    for one in purposes:
        basis = f"{one['basis_name']} ({one['article']})" if one["basis"] else one["basis_name"]
        decided = one["decided"] or f"{UNDECIDED}: as shipped"
        lines += heading(3, one["title"])
        rows: list[tuple[str, Any]] = [("lawful basis", basis), ("decided", decided if one["basis"] else None)]
        rows += [("interest", one["interest"]), ("assessment", one["assessment"])] if "assessment" in one else []
        rows += [("withdrawal", one["withdrawal"])] if "withdrawal" in one else []
        rows += [("note", one["note"])] if one["note"] else []
        rows += [("data", [CATEGORIES[name][0] for name in one["data"]])] if one["data"] and one["does"] else []
        lines += table(["", ""], [(name, value) for name, value in rows if value is not None])
        lines += (
            table(["persona …", "commands"], [(each["what"], each["commands"]) for each in one["does"]])
            if one["basis"]
            else []
        )
    return lines


def _people(people: Doc) -> list[str]:
    counts = people["counts"]
    window = (
        f", by events from {people['first_event'][:10]} to {people['last_event'][:10]}" if people["first_event"] else ""
    )
    return [
        f"users of the product: {counts['persons']:,} people with a profile{window}",
        f"of these visitors known by an anonymous id alone: {counts['anonymous']:,}",
        f"users whose attributes are known: {counts['users']:,}",
        f"accounts (firms, households) and who belongs to them: {counts['accounts']:,}",
        f"receipts of consent and of its refusal: {counts['receipts']:,}",
    ]


def _recipients(recipients: list[Doc]) -> list[str]:
    named = {"pseudonyms": "pseudonyms", "user_ids": "own ids", "none": "no ids"}
    rows = [
        (
            one["recipient"],
            one["exports"],
            f"{one['first'][:10]} to {one['last'][:10]}",
            one["what"],
            " and ".join(named[ids] for ids in one["ids"]),
            one["domains"] or None,
        )
        for one in recipients
    ]
    return table(["recipient", "exports", "when", "what", "people by", "domain"], rows) or paragraph(
        "No export is noted."
    )


def _retention(rows: list[Doc]) -> list[str]:
    return table(
        ["what", "kept", "personal", "setting", "there"],
        [
            (
                one["category"],
                one["kept"],
                one["personal"],
                code(one["setting"]) if one["setting"] else None,
                bool(one["there"]),
            )
            for one in rows
        ],
    )


def _security(security: list[Doc], own: list[str]) -> list[str]:
    lines = table(["measure", "looked at", "detail"], [(one["what"], one["state"], one["detail"]) for one in security])
    return lines + paragraph("Beyond persona:") + (bullets(own) or paragraph("nothing"))


_PAGES: dict[str, Callable[[Doc], list[str]]] = {
    "index": index,
    "processing": processing,
    "data-map": data_map,
    "dpia": dpia,
    "retention": retention,
    "notice": notice,
    "recipients": recipients,
    "model-cards": model_cards,
}
__all__ = ["page", "text"]
