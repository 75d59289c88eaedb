"""The page of an access archive: what is held of somebody, in words for them; the files beside it have everything.

What the parts of an archive mean to the person it is about stands first: columns, features, models, rights.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from persona_cli.privacy.data_tables import PROFILES
from persona_cli.reports import pages
from persona_cli.reports.pages import Html, Section

FEATURES = {
    "power_user_score": "how much you use us compared with others, from 0 to 1, over the last 28 days",
    "maturity": "how far along you are with us, from 0 to 1: days, visits and kinds of things done",
    "active_days": "days with a visit in the last 28 days",
    "usual_hour": "the hour of the day around which you are usually here",
    "usual_hour_concentration": "how much your visits gather around that hour, from 0 to 1",
    "usual_channel": "by which kind of message you mostly come",
    "usual_channel_certainty": "how sure that is, from 0.5 to 1",
    "features": "how many different features you used",
    "feature_breadth": "the share of all features that you used",
    "purchases": "how many purchases",
    "days_since_first": "days since your first event, counted to the last event of anybody",
    "days_since_last": "days since your last event",
    "days_since_purchase": "days since your last purchase",
    "days_since_search": "days since your last search",
    "days_since_feature_use": "days since you last used a feature",
    "days_since_message": "days since you last answered a message",
    "preferred_category": "the category that your actions speak for most",
    "preferred_category_share": "its share of what your actions speak for",
    "preferred_category_certainty": "how sure it is that it is ahead of the next one",
}
DERIVED = {
    "ids": "every id that we know you by",
    "stage": "how much we know: context (nothing), cohort (a little), individual (enough for a list of your own)",
    "holdout": "whether you were drawn by lot to get the list that is the same for everybody",
    "top_items": "items that your actions speak for most; strength fades with time",
    "categories": "the same by category",
    "tags": "the same by tag",
    "never": "items that you are not shown, because of something you did or said",
    "told": "what you told us: ratings, what you saved or blocked, your settings and answers",
    "segments": "groups that we count you in, by the rules that we wrote",
    "next": "what is missing for the next stage",
    "attention": "for how long pages had your attention, in milliseconds",
    "recent": "your latest events",
}
MODELS = {
    "popular": "It counts what everybody used lately, on your kind of device and in your country where that is known.",
    "cohort": "It looks which people of like taste you resemble, and shows what they use most.",
    "content": "It compares descriptions of items with those of the items that you liked.",
    "knn": "For each item that you liked it looks which other items the same people liked.",
    "als": "It describes every person and every item by a short row of numbers, so that they match what was used.",
    "ease": "For every pair of items it knows how much liking the one says of the other, and adds that up over yours.",
    "spectral": "It knows for pairs of items how much liking one says of the other, and adds that up over yours.",
    "hybrid": "It describes people and items by rows of numbers, learned from use and from descriptions of items.",
    "cold": "It extends what is known of items that people used to new items that are described alike.",
    "ranker": "One model finds a few hundred items, and another one puts them in order by many small signs.",
    "sequence": "It looks at what you used in its order, and at what others used next after the same.",
    "blend": "It adds up the scores of several of these models.",
    "layered": "It weighs what everybody, people of like taste, and you alone use by how much is known of you.",
}
HISTORY = {
    "strength": "how much what you did that day says of an interest in the item; below 0 where it speaks against it",
    "n": "number of events",
    "consumed": "events after which the item is not shown to you again",
    "never": "events that say: never again",
    "faded": "the strength that is left by now",
}
RIGHTS = (
    ("Correction", "If something here is wrong, tell us the id of the event and what is right."),
    ("Erasure", "You can have all of this erased, also from the models that learned from it."),
    ("Objection", "You can object: nothing more is recorded, and you get lists that are the same for everybody."),
    ("Restriction", "You can have personal lists paused, without losing what is here."),
    ("Consent", "What you allowed you can take back at any time, as easily as you gave it."),
    ("Portability", "The file events.jsonl is in a common form that other systems can read."),
    ("Your settings", "What you set, block or unblock counts more than anything that we work out."),
    ("Complaint", "You can complain to the supervisory authority."),
)


def meaning(name: str) -> str:
    """What a field of the profile means; "" for one that the settings of this workspace define."""
    column = PROFILES.column(name)
    return DERIVED.get(name) or FEATURES.get(name) or (column.what if column else "")


_LATEST, _MOST, _LONGEST = 100, 50, 80
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:[\d.]+Z")
_FILES = {
    "index.html": "this page",
    "events.jsonl": "everything that was recorded of you, one line an event, in a form that other systems can read",
    "profile.json": "what was worked out from it, each with what it means",
    "history.json": "what you did with each item by day, and the interest that is left of it",
    "attributes.json": "what we know of you as a customer, and which of your ids belong together",
    "consents.json": "what you allowed and refused",
    "requests.json": "what you asked us for",
    "rejected.json": "lines about you that could not be read",
    "other_tables.json": "decisions, tests and measurements that you are in",
    "recommendations.json": "what you would be shown now, and why",
    "information.json": "what your data is used for, on what basis, by whom, and for how long",
    "manifest.json": "the names of these files with a fingerprint of each",
}
Doc = Mapping[str, Any]


def page(ids: Sequence[str], events: Sequence[Doc], documents: Mapping[str, Any], files: Sequence[str]) -> str:
    """The whole page; `documents` are the JSON files by name, without ids of others."""
    information, recommended = documents["information.json"], documents["recommendations.json"]
    top = [
        pages.paragraph(f"This is everything that is held under {_listed(ids)}.", "lead"),
        pages.paragraph(_who(information["controller"]), "note"),
    ]
    if not events:
        top.append(pages.paragraph("No event of yours is stored: nothing that you did is recorded here."))
    sections = [
        Section("What your data is used for", _purposes(information)),
        Section("What was recorded", _events(events, information)),
        Section("What was worked out from it", _profile(documents["profile.json"])),
        Section("Your interests", _interests(documents["history.json"])),
        Section("What you would be shown now, and why", _recommended(recommended)),
        Section("What we know of you as a customer", _attributes(documents["attributes.json"])),
        Section("What you allowed and refused", _consents(documents["consents.json"])),
        Section("What you asked us for", _requests(documents["requests.json"])),
        Section("Lines that could not be read", _rejected(documents["rejected.json"])),
        Section("Decisions, tests and measurements", _others(documents["other_tables.json"])),
        Section("Who was given data, and how long it is kept", _others_and_time(information)),
        Section("Your rights", _rights(information)),
        Section("The files beside this page", [pages.definitions((name, _FILES.get(name, "")) for name in files)]),
    ]
    return pages.page("Your data", top, sections)


def _who(controller: Doc) -> str:
    said = [f"Responsible: {controller['name']}." if "name" in controller else ""]
    said += [f"You reach us at: {controller['contact']}." if "contact" in controller else ""]
    said += [f"Data protection officer: {controller['dpo']}." if controller.get("dpo", "none") != "none" else ""]
    return " ".join(one for one in said if one)


def _purposes(information: Doc) -> list[Html]:
    found = []
    for one in information["purposes"]:
        used = "Your data is used for this." if one["used"] else "Your data is not used for this."
        law = f" ({one['article']})" if one["article"] else ""
        said = f" You said: {one['you_said']}." if one["you_said"] else ""
        found.append((_named(one["purpose"]), f"{one['what']} Basis: {one['basis']}{law}. {used}{said}"))
    return [pages.definitions(found)]


def _events(events: Sequence[Doc], information: Doc) -> list[Html]:
    if not events:
        return []
    counts = Counter(event["event_type"] for event in events)
    kinds = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    spans = f"{len(events):,} events from {events[0]['timestamp'][:10]} to {events[-1]['timestamp'][:10]}."
    latest = [
        [
            event["timestamp"][:16].replace("T", " "),
            event["event_type"],
            event.get("item_id") or event.get("target") or event.get("query") or "",
            _shown(event.get("value")),
            event["event_id"],
        ]
        for event in reversed(events[-_LATEST:])
    ]
    named = "Latest events" if len(events) > _LATEST else "Events"
    sources = [[one["source"], one["taken_in"], f"{one['events']:,}"] for one in information["sources"]]
    return [
        pages.paragraph(spans),
        pages.table(["kind", "events"], [[kind, f"{n:,}"] for kind, n in kinds]),
        pages.table(["where it came from", "first taken in", "events"], sources, words=2),
        pages.details(
            f"{named} (all are in events.jsonl)",
            [pages.table(["when (UTC)", "kind", "about", "value", "id"], latest, words=5)],
        ),
    ]


def _profile(profile: Doc | None) -> list[Html]:
    if profile is None:
        return []
    shown = []
    for one in profile["values"]:
        value = _shown(one["value"])
        if value and value != "0" and len(value) <= _LONGEST:
            meaning = pages.small(f" {one['means']}") if one["means"] else ""
            shown.append((_named(one["name"]), pages.joined(value, meaning)))
    note = "Worked out by a computer from what was recorded. What is 0 or long is in profile.json only."
    return [pages.paragraph(note, "note"), pages.definitions(shown)]


def _interests(history: Doc) -> list[Html]:
    rows = [
        [one["title"] or one["item_id"], one["category"] or "", f"{one['faded']:.2f}"]
        for one in history["interests"][:_MOST]
        if one["faded"]
    ]
    note = "What an action says of an interest fades with time; below 0 it speaks against the item."
    return (
        [pages.paragraph(note, "note"), pages.table(["item", "category", "left by now"], rows, words=2)] if rows else []
    )


def _recommended(recommended: Doc) -> list[Html]:
    if recommended["model"] is None:
        return [pages.paragraph(f"There is no list for you: {recommended['why_none']}.")]
    held = "You were drawn by lot to get the list that is the same for everybody." if recommended["held_out"] else ""
    rows = [[one["title"] or one["item_id"], "; ".join(one["why"])] for one in recommended["items"]]
    return [
        *(pages.paragraph(text) for text in (*recommended["logic"], held) if text),
        pages.paragraph("It looks at: " + "; ".join(recommended["looks_at"]) + "."),
        pages.table(["item", "why"], rows, words=2),
        pages.paragraph(
            f"Made by {recommended['rests_on']} in {recommended['model']}. {recommended['meaning']}", "note"
        ),
    ]


def _attributes(attributes: Doc) -> list[Html]:
    found: list[Html] = []
    for row in attributes["users"]:
        found.append(
            pages.definitions((_named(name), _shown(value)) for name, value in row.items() if value is not None)
        )
    for row in attributes["accounts"]:
        found.append(pages.paragraph("The account:"))
        found.append(
            pages.definitions((_named(name), _shown(value)) for name, value in row.items() if value is not None)
        )
    links = [[one["anon_id"], one["user_id"], one["at"][:16].replace("T", " ")] for one in attributes["links"]]
    return [*found, pages.table(["this id", "was identified as", "when (UTC)"], links, words=3)]


def _consents(consents: Sequence[Doc]) -> list[Html]:
    rows = [[one["at"][:16].replace("T", " "), one["purpose"], one["state"], one["notice"] or ""] for one in consents]
    return [pages.table(["when (UTC)", "what for", "you", "notice"], rows, words=4)]


def _requests(requests: Sequence[Doc]) -> list[Html]:
    rows = [
        [one["received"][:10], one["kind"], one["due"], (one["closed"] or "")[:10], one["outcome"] or ""]
        for one in requests
    ]
    return [pages.table(["received", "kind", "due", "closed", "outcome"], rows, words=5)]


def _rejected(rejected: Sequence[Doc]) -> list[Html]:
    rows = [[one["rejected_at"][:10], one["reason"], one["line"][:300]] for one in rejected[:_MOST]]
    return [pages.table(["when", "why", "line"], rows, words=3)]


def _others(others: Mapping[str, Sequence[Doc]]) -> list[Html]:
    return [pages.table(["kept in", "rows"], [[name, f"{len(rows):,}"] for name, rows in others.items()])]


def _others_and_time(information: Doc) -> list[Html]:
    given = [[one["recipient"], "; ".join(one["received"])] for one in information["recipients"]]
    given += [[one, "works with the data for us"] for one in information["processors"] if one != "none"]
    note = "Whether your own data was among an export cannot be told from the list of exports."
    return [
        *([pages.table(["who", "what"], given, words=2), pages.paragraph(note, "note")] if given else []),
        *([] if given else [pages.paragraph("No export to anybody else is noted.")]),
        pages.table(["what", "kept"], [[one["what"], one["kept"]] for one in information["retention"]], words=2),
    ]


def _rights(information: Doc) -> list[Html]:
    when = "within 45 days" if information["regime"] == "ccpa" else "within a month"
    contact, authority = (information["controller"].get(name) for name in ("contact", "authority"))
    return [
        pages.definitions((one["right"], one["how"]) for one in information["rights"]),
        pages.paragraph(f"You get an answer {when}{f'; write to: {contact}' if contact else ''}."),
        pages.paragraph(f"Supervisory authority: {authority}.") if authority else Html(""),
    ]


def _shown(value: Any) -> str:
    """A value in few words; "" for nothing, and for what is too nested for a table."""
    if value is None or value == [] or value == {}:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        inside = [f"{name}: {_shown(one)}" for name, one in value.items() if _shown(one)]
        return ", ".join(inside)
    if isinstance(value, list):
        return "" if any(isinstance(one, Mapping | list) for one in value) else ", ".join(_shown(one) for one in value)
    text = str(value)
    return f"{text[:16].replace('T', ' ')} (UTC)" if _TIME.fullmatch(text) else text


def _named(name: str) -> str:
    return name.replace("_", " ")


def _listed(ids: Sequence[str]) -> str:
    shown = ", ".join(ids[:5])
    return f"{shown} and {len(ids) - 5} more ids" if len(ids) > 5 else f"the id{'s' if len(ids) > 1 else ''} {shown}"
