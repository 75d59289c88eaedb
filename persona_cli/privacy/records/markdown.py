"""Markdown of the records, and the two pages about what processing means for people: impact assessment and notice.

Markdown says what was meant: text of data and settings is escaped, so a name cannot be a table or a link.

The draft of an impact assessment (GDPR Art. 35(7)) says what is done, what it risks, and what is done about that. The
figures are measured; what they are worth to the people concerned is for people to judge. The notice is what the people
concerned are told, in words for them (Art. 12(1), 13 and 14).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from persona_cli.privacy.records.facts import NONE, UNDECIDED
from persona_cli.reports.words import visible

# What Markdown obeys within a line; an underscore only beside a word, since one inside a word is harmless.
_MARKS = re.compile(r"[\\`*<\[|~]|&(?=#?\w+;)|(?<![^\W_])_|_(?![^\W_])")
# What would begin a list, a heading, a quotation or an underline.
_FIRST = re.compile(r"(?:\d{1,9}(?=[.)])|(?=[-+=#>]))")


class Written(str):
    """Text that is Markdown already."""

    __slots__ = ()


def text(value: Any) -> str:
    """A value as inline Markdown: one line, with nothing in it that Markdown or HTML would obey."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(text(one) for one in value) or "–"
    line = " ".join(visible(re.sub(r"[\n\r\t]", " ", str(value))).split())
    line = _MARKS.sub(lambda found: f"\\{found.group()}", line)
    first = _FIRST.match(line)
    return line if first is None else f"{first.group()}\\{line[first.end() :]}"


def code(value: Any) -> Written:
    """A name as code, where it can be."""
    written = str(value)
    plain = written.isprintable() and written.strip() == written and not set(written) & set("`|\\")
    return Written(f"`{written}`" if written and plain else text(value))


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """A table with a blank line behind it; nothing where there are no rows. `Written` cells stand as they are."""
    lines = [f"| {' | '.join(cell if isinstance(cell, Written) else text(cell) for cell in row)} |" for row in rows]
    if not lines:
        return []
    return [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *lines, ""]


def bullets(items: Iterable[Any]) -> list[str]:
    lines = [f"- {item if isinstance(item, Written) else text(item)}" for item in items]
    return [*lines, ""] if lines else []


def heading(level: int, title: Any) -> list[str]:
    return [f"{'#' * level} {title if isinstance(title, Written) else text(title)}", ""]


def paragraph(*sentences: Any) -> list[str]:
    return [" ".join(text(one) for one in sentences), ""]


def share(value: float | None) -> str:
    """`12.3 %`; what is not nothing never reads as nothing."""
    if value is None:
        return "–"
    if 0 < value < 0.0005:
        return "under 0.1 %"
    return f"{100 * value:.1f} %"


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


_PLAIN = {
    "identifier": "what we know you again by: your user id, ids of your browser or device, of your visits and account",
    "behaviour": "what you do with us and when: what you look at, click, use, buy",
    "technical": "your device, browser and kind of connection",
    "place": "your country, language and time zone",
    "free text": "what you type into search fields, and addresses of pages",
    "opinion": "what you tell us: ratings, what you saved or blocked, your settings and answers",
    "attribute": "what we know of you as a customer: your role, since when you are with us",
    "learned": "what we work out from this: how much an item may interest you",
    "parameter": "what computers have learned from what you and many others did",
    "proof": "proof of what you allowed or asked for, without your name",
}
"""Category of data → what it is, to the people themselves."""
_WHY = {
    "consent": "because you agreed to it; you can take that back at any time, for the future",
    "contract": "because our contract with you needs it",
    "legal_obligation": "because the law obliges us to",
    "vital_interests": "because somebody's life or health needs it",
    "public_task": "because it is part of a task in the public interest",
    "legitimate_interest": "because we have an interest in it that we have weighed against yours",
}
_RIGHTS = (
    "see what we have about you, and get a copy of it, also in a form that machines can read",
    "have it corrected where it is wrong",
    "have it erased, also from the models that learned from it",
    "have its use restricted",
)


def notice(doc: Doc) -> list[str]:
    controller = doc["controller"]
    lines = heading(1, "How we use your data")
    lines += paragraph(
        f"Responsible for your data: {controller['name']}.", f"You reach us at: {controller['contact']}."
    )
    if controller["dpo"] != NONE:
        lines += paragraph(f"Our data protection officer: {controller['dpo']}.")
    if controller["representative"] != NONE:
        lines += paragraph(f"Our representative in the Union: {controller['representative']}.")
    lines += heading(2, "What we do with your data, and why we may")
    for one in doc["purposes"]:
        lines += heading(3, one["title"])
        lines += paragraph(one["plain"], f"We may do so {_WHY[one['basis']]} ({one['article']} GDPR).")
        if one["interest"]:
            lines += paragraph(f"Our interest: {one['interest']}.")
        lines += paragraph(one["logic"])
    if not doc["purposes"]:
        lines += paragraph("At present we use your data for nothing.")
    lines += heading(2, "Which data")
    lines += bullets(_PLAIN[name] for name in _PLAIN if name in doc["data"])
    whose = ", or from the firm or household whose account you use" if "attribute" in doc["data"] else ""
    lines += paragraph(
        f"We have these data from your use of our product and from what you told us{whose}.", doc["obligation"]
    )
    lines += heading(2, "Decisions by computers")
    lines += paragraph(
        "A computer decides which items you are shown, as described above. It decides nothing that has legal effect "
        "for you or affects you in a similar way.",
        f"{100 * doc['holdout']:.0f} of 100 people, drawn by lot, always get the list that is the same for everybody, "
        "so that we can tell whether personal lists are any better.",
    )
    lines += heading(2, "Who gets your data")
    names = [*doc["recipients"], *doc["processors"]]
    lines += bullets(names) or paragraph("Nobody but us.")
    lines += heading(2, "Other countries")
    lines += bullets(doc["transfers"]) or paragraph(
        "We send your data to no country outside the European Economic Area."
    )
    lines += heading(2, "How long we keep it")
    lines += table(["what", "how long"], [one["told"] for one in doc["retention"]])
    lines += paragraph(
        "What we have worked out from your actions goes when these go. If you ask us to erase your data, it all goes "
        "within a month; we keep only a code in the place of your id, so that an old file does not bring your data "
        "back, and that you asked."
    )
    lines += heading(2, "Your rights")
    lines += paragraph("You may, at any time and without charge:")
    rights = list(_RIGHTS)
    rights += ["take back what you agreed to"] if doc["consent"] else []
    rights += ["object to what we do out of our own interest or a public task"] if doc["objection"] else []
    lines += bullets([*rights, "use our product with lists that are the same for everybody, without being recorded"])
    lines += paragraph(
        f"Write to: {controller['contact']}. We answer within a month.",
        f"You may also complain to: {doc['authority']}.",
    )
    return lines
