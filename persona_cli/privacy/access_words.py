"""What the parts of an access archive mean, to the person it is about: columns, features, models, rights."""

from __future__ import annotations

from persona_cli.privacy.data_tables import PROFILES

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
