"""The sample data: five months of a made-up product, simulated from a seed; the same bytes on every machine.

python sample_data/generate.py [--out FOLDER] [--seed N]

Deskwell, which does not exist, sells small companies a web application with articles, templates, courses and features
about ten categories of office work. Every user has a taste, written to truth.jsonl: weights of categories, and one
favourite topic in each (an item's first tag). Taste decides what a user opens, how long they stay and how they react;
the rest is habit, fashion and chance. So what a model ought to find is known.

Files: events.jsonl.gz (native events, about 0.3 % of the lines deliberately bad), items.jsonl, users.csv, accounts.csv,
truth.jsonl. Only the standard library is used, and of its random numbers only `random()`, whose values Python promises
to keep; weights are whole numbers, so no mathematical library of any machine has a say.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dice import Dice
from product import CATEGORIES, PLANS, STRANGERS
from sessions import Simulation, iso
from world import Item, User, make_accounts, make_items, make_users

SEED = 20261031


def compact(record: dict[str, Any]) -> str:
    return json.dumps(record, separators=(",", ":"), ensure_ascii=False)


def bad_lines(dice: Dice, good: list[dict[str, Any]]) -> list[bytes]:
    """What goes wrong in practice: eleven kinds of lines that must be rejected, each for its own reason."""

    def changed(**more: Any) -> bytes:
        event = {k: v for k, v in dice.one(good).items() if k != "event_id"} | more
        return compact({name: value for name, value in event.items() if value != "absent"}).encode()

    kinds = (
        lambda: changed(user_id="absent", anon_id="absent"),
        lambda: changed(event_type=""),
        lambda: changed(timestamp="yesterday at noon"),
        lambda: changed(timestamp="1970-01-01T00:00:00Z"),
        lambda: changed(timestamp="2062-03-01T09:00:00Z"),
        lambda: changed(user_id={"id": "u0001"}),
        lambda: changed(event_type="rating", value="five stars"),
        lambda: changed(event_type="dwell", value=float("nan")),
        lambda: compact(dice.one(good)).encode()[: dice.between(20, 80)],
        lambda: b"<html><body><h1>502 Bad Gateway</h1></body></html>",
        lambda: changed(query="caf\u00e9").replace("caf\u00e9".encode(), b"caf\xe9"),
    )
    return [kinds[dice.weighted((6, 3, 3, 2, 1, 2, 2, 2, 4, 2, 1))]() for _ in range(len(good) * 3 // 1000)]


def events_file(dice: Dice, simulation: Simulation) -> bytes:
    """The lines in order of arrival, with bad lines and repeated deliveries of purchases among them."""
    ordered = [event for _, event in sorted(simulation.events, key=lambda pair: pair[0])]
    lines = [compact(event).encode() for event in ordered]
    inserted = [(dice.below(len(lines)), line) for line in bad_lines(dice, ordered)]
    # A payment service that sends some of its messages twice.
    for position, event in enumerate(ordered):
        if "event_id" in event and dice.chance(15):
            inserted.append((min(position + dice.between(1, 400), len(lines)), lines[position]))
    for position, line in sorted(inserted, key=lambda pair: pair[0], reverse=True):
        lines.insert(position, line)
    return b"\n".join(lines) + b"\n"


def items_file(items: list[Item]) -> bytes:
    """One line an item; two where it was withdrawn later: attributes hold from `valid_from` on."""
    lines = []
    for item in items:
        record: dict[str, Any] = {"item_id": item.item_id, "title": item.title, "category": item.category}
        record |= {"tags": [item.topic, item.kind], "text": item.text, "url": f"/{item.kind}s/{item.item_id}"}
        if item.price is not None:
            record |= {"price": item.price, "currency": "EUR"}
        published = iso(item.published)
        lines.append(compact(record | {"available": True, "published_at": published, "valid_from": published}))
        if item.withdrawn is not None:
            later = {"available": False, "published_at": published, "valid_from": iso(item.withdrawn)}
            lines.append(compact(record | later))
    return ("\n".join(lines) + "\n").encode()


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue().encode()


def accounts_file(accounts: list[dict[str, Any]]) -> bytes:
    rows = []
    for account in accounts:
        plans = [(account["plan"], account["since"])]
        if account["upgraded"]:
            plans.append((PLANS[PLANS.index(account["plan"]) + 1], account["upgraded"]))
        for plan, since in plans:
            known = [account[name] for name in ("account_id", "name", "size")]
            rows.append([*known, plan, account["industry"], account["place"].country, iso(since)])
    return table(("account_id", "name", "size", "plan", "industry", "country", "valid_from"), rows)


def users_file(users: list[User], accounts: list[dict[str, Any]]) -> bytes:
    rows = [
        [
            user.user_id,
            accounts[user.account]["account_id"],
            user.role,
            user.place.country,
            user.place.locale,
            user.place.tz,
            iso(user.signed_up),
            iso(user.signed_up),
        ]
        for user in users
    ]
    return table(("user_id", "account_id", "role", "country", "locale", "tz", "signed_up", "valid_from"), rows)


def truth_file(users: list[User]) -> bytes:
    """What the simulation knew and no model is told: likes (shares of 1), a favourite topic in each category."""
    lines = []
    for user in users:
        record: dict[str, Any] = {"user_id": user.user_id, "activity": user.activity, **taste(user.likes, user.topics)}
        if user.drift:
            since, likes = user.drift
            record["drift"] = {"since": iso(since), **taste(likes, user.topics)}
        lines.append(compact(record))
    return ("\n".join(lines) + "\n").encode()


def taste(likes: tuple[int, ...], topics: tuple[int, ...]) -> dict[str, Any]:
    """Categories with a weight of 5 or more, dearest first; the others share what is missing to 1."""
    dearest = sorted((c for c in range(10) if likes[c] >= 5), key=lambda c: -likes[c])
    names = list(CATEGORIES)
    return {
        "likes": {names[c]: likes[c] / 100 for c in dearest},
        "topics": {names[c]: list(CATEGORIES[names[c]])[topics[c]] for c in dearest},
    }


def generate(seed: int = SEED) -> dict[str, bytes]:
    """Every file by name; the same seed gives the same bytes."""
    dice = Dice(seed)
    items = make_items(dice)
    accounts = make_accounts(dice)
    users = make_users(dice, accounts)
    simulation = Simulation(dice, items, accounts)
    for user in users:
        simulation.run(user)
    for number in range(STRANGERS):
        simulation.stranger(number)
    return {
        "events.jsonl": events_file(dice, simulation),
        "items.jsonl": items_file(items),
        "users.csv": users_file(users, accounts),
        "accounts.csv": accounts_file(accounts),
        "truth.jsonl": truth_file(users),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--seed", type=int, default=SEED)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    for name, content in generate(given.seed).items():
        if name == "events.jsonl":
            # No time and no name in the header: the same bytes every time.
            name, content = "events.jsonl.gz", gzip.compress(content, 9, mtime=0)
        (given.out / name).write_bytes(content)
        print(f"{name:<16} {len(content):>10,} bytes")


if __name__ == "__main__":
    main()
