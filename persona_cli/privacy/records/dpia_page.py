"""The draft of an impact assessment (GDPR Art. 35(7)): what is done, what it risks, and what is done about that.

The figures are measured; what they are worth to the people concerned is for people to judge.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from persona_cli.privacy.records.facts import UNDECIDED
from persona_cli.privacy.records.markdown import Written, bullets, code, heading, paragraph, share, table, text

Doc = Mapping[str, Any]
_FOR_PEOPLE = (
    "whether an assessment is required (Art. 35(3)): profiling with significant effects, special categories of data",
    "what harm each risk of part 3 would do to people, and how likely it is in your setting",
    "whether the purposes could be reached with less: fewer columns, coarser values, a shorter time",
    "what the data protection officer advises (Art. 35(2)), and what the people concerned say (Art. 35(9))",
    "whether what is left of the risks is acceptable, or the authority is to be consulted (Art. 36)",
)


def dpia(doc: Doc) -> list[str]:
    risks, counts = doc["risks"], doc["people"]["counts"]
    lines = heading(1, "Draft of a data protection impact assessment")
    lines += paragraph(
        f"Controller: {doc['controller']}.",
        "Figures are measured on this workspace and made anew by persona privacy records.",
    )
    lines += heading(2, "1 What is done (Art. 35(7)(a))")
    lines += paragraph(
        f"Events of {counts['persons']:,} people are stored and folded into profiles and histories; models learn from "
        "them which items go together; lists are chosen by each person's history."
    )
    rows = [
        (
            one["title"],
            one["basis_name"] if one["basis"] else "none: refused",
            one["decided"] or (UNDECIDED if one["basis"] else None),
        )
        for one in doc["purposes"]
    ]
    lines += table(["purpose", "lawful basis", "decided"], rows)
    lines += paragraph("Data:") + bullets(one["name"] for one in doc["categories"])
    lines += heading(2, "2 Necessity (Art. 35(7)(b))")
    lines += _necessity(doc)
    lines += heading(2, "3 Risks, measured (Art. 35(7)(c))")
    lines += _unicity(risks["unicity"])
    lines += _quasi(risks["quasi_identifiers"])
    lines += _pairs(risks["co_occurrences"])
    lines += _segments(risks["segments"])
    lines += _scan(risks["scan"], doc["free_text"])
    lines += _recipients(doc)
    lines += heading(3, "What models tell of people")
    lines += table(["model", "statement"], [(one["model"], one["privacy"][0]) for one in doc["models"]]) or paragraph(
        "No model is in use."
    )
    lines += heading(2, "4 What is done about them (Art. 35(7)(d))")
    lines += table(
        ["measure", "looked at", "detail"], [(one["what"], one["state"], one["detail"]) for one in doc["security"]]
    )
    lines += paragraph("Beyond persona:") + (bullets(doc["measures"]) or paragraph("nothing"))
    lines += heading(2, "5 For people to write, in a copy of this draft")
    return lines + bullets(_FOR_PEOPLE)


def _necessity(doc: Doc) -> list[str]:
    unread = doc["columns_that_nothing_reads"]
    if not unread:
        return paragraph("Every column of events that is filled is read by profiles or models.")
    names = Written(f"No profile and no model reads these filled columns of events: {', '.join(map(code, unread))}.")
    return [
        names,
        "",
        *paragraph("If nobody needs them in persona sql either: privacy.collect leaves them out at the door."),
    ]


def _unicity(found: Doc | None) -> list[str]:
    lines = heading(3, "Being recognised by what one did")
    if found is None:
        return lines + paragraph("Not measured: no person has 4 items.")
    items = found["items"]
    asked = f"a sample of {found['sampled']:,} of " if found["sampled"] != found["eligible"] else "all "
    return [
        *lines,
        Written(
            f"**{share(found['share'])}** (95 % interval {share(found['low'])} to {share(found['high'])}) of people "
            f"with {items} items or more are the only ones with {items} random items of theirs ({found['unique']:,} of "
            f"{asked}{found['eligible']:,}). Whoever knows {items} things that such a person did finds the rest, "
            "whatever stands in the place of the id."
        ),
        "",
        *paragraph("Made smaller by: fewer items in an export, coarser times, a shorter retention. Not by pseudonyms."),
    ]


def _quasi(found: list[Doc]) -> list[str]:
    lines = heading(3, "Being recognised by attributes")
    rows = [
        (
            code(one["table"]),
            one["columns"],
            one["people"],
            one["k"],
            *(_of(one[few], one["people"]) for few in ("alone", "under_5", "under_20")),
        )
        for one in found
    ]
    if not rows:
        return lines + paragraph("Not measured: no attributes are stored.")
    head = [
        "table",
        "by",
        "people",
        "smallest class (k)",
        "alone in theirs",
        "in classes under 5",
        "in classes under 20",
    ]
    said = "People who agree in all of the columns are a class; who is alone in one is known by them."
    return [
        *lines,
        *paragraph(said),
        *table(head, rows),
        *paragraph("Made smaller by: privacy.collect.coarsen, pseudonymize --min-k."),
    ]


def _pairs(found: Doc | None) -> list[str]:
    lines = heading(3, "Single people in the sums that models are made of")
    if found is None:
        return lines + paragraph("Not measured: nothing was trained.")
    if not found["pairs"]:
        return lines + paragraph("No person has two items.")
    rows = [
        (
            "a single person" if one["people"] == 1 else f"under {one['people'] + 1}",
            one["pairs"],
            Written(share(_part(one["pairs"], found["pairs"]))),
        )
        for one in found["by_at_most"]
    ]
    said = (
        f"{found['users']:,} people and {found['items']:,} items make {found['pairs']:,} pairs of items that somebody "
        f"has both of; {found['items_of_one']:,} items are of one person alone.",
        "A pair of a single person says: somebody who had the one also had the other.",
    )
    advice = (
        "Made smaller by: a minimum of people behind what is published, or noise.",
        "Publish no models and no lists of similar items without.",
    )
    return [*lines, *paragraph(*said), *table(["pairs by", "pairs", "share"], rows), *paragraph(*advice)]


def _segments(found: Doc | None) -> list[str]:
    lines = heading(3, "Small groups")
    if found is None:
        return lines + paragraph("No segments are defined.")
    if not found["small"]:
        return lines + paragraph(f"All {found['segments']:,} segments have {found['minimum']} people or more.")
    said = f"{len(found['small']):,} of {found['segments']:,} segments have fewer than {found['minimum']} people:"
    return [*lines, *paragraph(said), *bullets(found["small"])]


def _scan(found: Doc | None, free: list[str]) -> list[str]:
    lines = heading(3, "What nobody meant to collect")
    if free:
        lines += [Written(f"Free text is stored in {', '.join(map(code, free))}."), ""]
    if found is None:
        return lines + paragraph(
            "The workspace was never scanned for addresses, numbers and secrets: persona privacy scan."
        )
    said = f"The last scan ({found['at'][:10]}, {found['rows']:,} rows) found"
    if not found["findings"]:
        return lines + paragraph(f"{said} nothing.")
    kinds = f"{found['findings']:,} kind{'' if found['findings'] == 1 else 's'} of such things"
    return lines + paragraph(f"{said} {kinds} in single fields: persona privacy scan shows where.")


def _recipients(doc: Doc) -> list[str]:
    lines = heading(3, "Joining of what different recipients have")
    if not doc["recipients"]:
        return lines + paragraph("No export is noted.")
    said = [f"Recipients who were given data: {doc['recipients']:,}."]
    if doc["domains"]:
        said.append(f"Each domain has pseudonyms of its own, which cannot be joined: {', '.join(doc['domains'])}.")
        said.append("Rows can still be joined by their times and items.")
    if doc["with_own_ids"]:
        said.append(f"Data under own ids, which join everything, went to: {', '.join(doc['with_own_ids'])}.")
    return lines + paragraph(*said)


def _of(some: int, whole: int) -> Written:
    return Written(f"{some:,} ({share(_part(some, whole))})")


def _part(some: int, whole: int) -> float:
    return some / whole if whole else 0.0


__all__ = ["dpia", "text"]
