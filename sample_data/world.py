"""Who and what there is before anything happens: items, accounts, users and their tastes."""

from __future__ import annotations

from typing import Any, NamedTuple

from dice import Dice
from product import (
    ACCOUNTS,
    ACTIVITY,
    BEGIN,
    CATEGORIES,
    DAY,
    END,
    INDUSTRIES,
    KIND_OF_TOPIC,
    KINDS,
    PLACES,
    PLANS,
    SENTENCES,
    TITLES,
    USERS,
    Place,
)


class Item(NamedTuple):
    item_id: str
    kind: str
    category: str
    topic: str
    title: str
    text: str
    price: int | None
    published: int
    withdrawn: int | None
    weight: int
    """How prominent it is in the product: whole number, larger is opened more."""


class User(NamedTuple):
    user_id: str
    account: int
    place: Place
    role: str
    device: str
    second_device: str
    signed_up: int
    activity: str
    likes: tuple[int, ...]
    """Weight of every category, in the order of CATEGORIES; they sum to 100."""
    topics: tuple[int, ...]
    """Favourite topic of every category: 0, 1 or 2."""
    drift: tuple[int, tuple[int, ...]] | None
    """From when on which other weights hold."""


def make_items(dice: Dice) -> list[Item]:
    items: list[Item] = []
    counts = dict.fromkeys(KINDS, 0)
    for category, topics in CATEGORIES.items():
        for topic, nouns in topics.items():
            titles: set[str] = set()
            for rank in range(10):
                kind = KIND_OF_TOPIC[rank] if rank < len(KIND_OF_TOPIC) else "article"
                while True:
                    turn = dice.below(3)
                    a, b, c = (nouns[(turn + step) % 3] for step in range(3))
                    title = dice.one(TITLES[kind]).format(a=a, A=a[:1].upper() + a[1:])
                    if title not in titles:
                        break
                titles.add(title)
                first = dice.below(len(SENTENCES))
                chosen = [SENTENCES[(first + 3 * step) % len(SENTENCES)] for step in range(3)]
                text = " ".join(sentence.format(a=a, b=b, c=c) for sentence in chosen)
                new = dice.chance(18)
                published = BEGIN + dice.below(130 * DAY) if new else BEGIN - dice.between(20 * DAY, 500 * DAY)
                withdrawn = BEGIN + dice.between(60 * DAY, 140 * DAY) if not new and dice.chance(5) else None
                price = (
                    dice.one((9, 19, 29, 49)) if kind == "course" or (kind == "template" and dice.chance(35)) else None
                )
                counts[kind] += 1
                items.append(
                    Item(
                        f"{kind}-{counts[kind]:03d}",
                        kind,
                        category,
                        topic,
                        title[:1].upper() + title[1:],
                        text[:1].upper() + text[1:],
                        price,
                        published,
                        withdrawn,
                        dice.one((120, 60, 60, 40, 40, 30, 30, 20, 20, 15)),
                    )
                )
    return items


def make_accounts(dice: Dice) -> list[dict[str, Any]]:
    syllables = ("nor", "vel", "tan", "mira", "ost", "quin", "lund", "aro", "bex", "cal", "dun", "fara", "gil", "hol")
    endings = ("works", "lab", "group", "house", "trade", "care")
    accounts = []
    names: set[str] = set()
    for number in range(ACCOUNTS):
        while True:
            name = (dice.one(syllables) + dice.one(syllables)).capitalize() + " " + dice.one(endings)
            if name not in names:
                break
        names.add(name)
        size = dice.one((3, 5, 8, 12, 20, 35, 60, 120, 250, 600))
        plan = PLANS[dice.weighted((50, 40, 10) if size < 20 else (15, 50, 35))]
        accounts.append(
            {
                "account_id": f"acc-{number + 1:03d}",
                "name": name,
                "size": size + dice.below(max(size // 3, 1)),
                "plan": plan,
                "industry": dice.one(INDUSTRIES),
                "place": PLACES[dice.weighted([place.weight for place in PLACES])],
                "since": BEGIN - dice.between(1 * DAY, 700 * DAY),
                # A few buy a larger plan in these months.
                "upgraded": BEGIN + dice.between(10 * DAY, 145 * DAY)
                if plan != "business" and dice.chance(12)
                else None,
            }
        )
    return accounts


def make_taste(dice: Dice, industry: int) -> tuple[int, ...]:
    """Weights of the ten categories: one loved, one liked, one now and then; the industry leans the choice."""
    lean = [10 + (25 if category in (industry, (industry + 3) % 10) else 0) for category in range(10)]
    likes = [1] * 10
    for weight in (60, 22, 8):
        chosen = dice.weighted([0 if likes[category] > 1 else lean[category] for category in range(10)])
        likes[chosen] = weight
    likes[likes.index(60)] += 100 - sum(likes)
    return tuple(likes)


def make_users(dice: Dice, accounts: list[dict[str, Any]]) -> list[User]:
    sizes = [min(account["size"], 60) for account in accounts]
    users = []
    for number in range(USERS):
        index = dice.weighted(sizes)
        account = accounts[index]
        abroad = dice.chance(12)
        place = PLACES[dice.weighted([p.weight for p in PLACES])] if abroad else account["place"]
        activity = list(ACTIVITY)[dice.weighted([share for share, _, _ in ACTIVITY.values()])]
        # One in three came in these months; the others were there before.
        new = dice.chance(33)
        before = max(account["since"], BEGIN - 400 * DAY)
        signed_up = dice.between(BEGIN, END - 8 * DAY) if new else dice.between(before, BEGIN)
        industry = INDUSTRIES.index(account["industry"])
        likes = make_taste(dice, industry)
        drifts = activity in ("long", "very long") and dice.chance(18)
        users.append(
            User(
                f"u{number + 1:04d}",
                index,
                place,
                dice.one(("owner", "admin", "member", "member", "member", "guest")),
                ("desktop", "mobile", "tablet")[dice.weighted((62, 32, 6))],
                ("desktop", "mobile")[dice.weighted((40, 60))],
                signed_up,
                activity,
                likes,
                tuple(dice.below(3) for _ in CATEGORIES),
                (BEGIN + dice.between(50 * DAY, 100 * DAY), make_taste(dice, dice.below(8))) if drifts else None,
            )
        )
    return users
