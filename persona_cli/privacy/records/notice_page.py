"""The notice: what the people concerned are told, in words for them (GDPR Art. 12(1), 13 and 14)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from persona_cli.privacy.records.facts import NONE
from persona_cli.privacy.records.markdown import bullets, heading, paragraph, table

Doc = Mapping[str, Any]
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
