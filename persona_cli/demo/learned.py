"""What the demo learned, in numbers: against the popular list, and against the tastes that the simulation knew."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from persona_cli.errors import MissingInput

SHOWN = 2
"""Reasons of rejection that are named."""
FIRST = 10
"""Places of a list that are compared with the known tastes."""


@dataclass(frozen=True)
class Tastes:
    """The truth behind the sample data, and how well lists meet it."""

    likes: Mapping[str, Mapping[str, float]]
    """user_id → category → weight; the later taste of a user whose taste drifted."""
    titles: Mapping[str, str]
    categories: Mapping[str, str]
    shares: Mapping[str, float]
    """Share of the first ten items whose category the user likes: lists of `individual` users, of the `holdout`."""


def known_tastes(truth: Path, items: Path, served: Iterable[Mapping[str, Any]]) -> Tastes:
    likes = {}
    for user in map(json.loads, truth.read_text(encoding="utf-8").splitlines()):
        likes[user["user_id"]] = user.get("drift", user)["likes"]
    known = list(map(json.loads, items.read_text(encoding="utf-8").splitlines()))
    categories = {item["item_id"]: item["category"] for item in known}
    hits: Counter[str] = Counter()
    shown: Counter[str] = Counter()
    for line in served:
        if line["user_id"] in likes:
            group = _group(line)
            first = [entry["item_id"] for entry in line["items"][:FIRST]]
            shown[group] += len(first)
            hits[group] += sum(categories.get(item) in likes[line["user_id"]] for item in first)
    shares = {group: hits[group] / shown[group] for group in ("individual", "holdout") if shown[group]}
    return Tastes(likes, {item["item_id"]: item["title"] for item in known}, categories, shares)


def read_lists(path: Path) -> list[dict[str, Any]]:
    """Recommendation lines of a file."""
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def best_of(evaluated: Mapping[str, Any]) -> dict[str, Any]:
    """The contender beside popular: NDCG at the shorter length of list, and the lift over popular."""
    key = f"ndcg@{min(evaluated['k'])}"
    entries = {entry["model"]: entry for entry in evaluated["models"]}
    ours = next(entry for name, entry in entries.items() if name != "popular")
    return {
        "model": ours["model"],
        "base": ours.get("base"),
        "metric": key,
        "value": ours["metrics"][key],
        "popular": entries["popular"]["metrics"][key],
        "lift": ours["lift"][key],
        "users": evaluated["users"],
        "chosen_with_later_data": ours["chosen"] if ours["chosen_with_later_data"] else [],
    }


def lift_line(evaluated: Mapping[str, Any]) -> str:
    """`NDCG@10 0.238 against 0.081 of the popular list: +193 % (95 %: +170 % to +220 %), 1,093 users`."""
    best = best_of(evaluated)
    against = f"{best['value']['value']:.3f} against {best['popular']['value']:.3f} of the popular list"
    return f"{best['metric'].upper()} {against}: {_lift(best['lift'])}, {best['users']:,} users"


def example_user(served: Sequence[Mapping[str, Any]], tastes: Tastes) -> str:
    """The first user, by id, who is served by a history of their own."""
    known = [line["user_id"] for line in served if _group(line) == "individual" and line["user_id"] in tastes.likes]
    everybody = known or [line["user_id"] for line in served]
    if not everybody:
        raise MissingInput("no lists were written", "persona status")
    return str(min(everybody))


def example_of(
    user: str, profile: Mapping[str, Any], served: Iterable[Mapping[str, Any]], tastes: Tastes
) -> dict[str, Any]:
    """One user: what they did most, what the simulation knows that they like, the first items of their list."""
    line = next(line for line in served if line["user_id"] == user)
    return {
        "user_id": user,
        "events": profile["events"],
        "did": [_item(entry["item_id"], tastes) for entry in profile["top_items"][:3]],
        "likes": dict(tastes.likes.get(user, {})),
        "gets": [_item(entry["item_id"], tastes) for entry in line["items"][:3]],
    }


def _item(item: str, tastes: Tastes) -> str:
    category = tastes.categories.get(item)
    return tastes.titles.get(item, item) + (f" ({category})" if category else "")


def page(found: Mapping[str, Any]) -> list[str]:
    """What was learned, in lines for people."""
    best, example = found["evaluation"], found["example"]
    reasons = "; ".join(f"{lines:,} × {reason}" for reason, lines in list(found["rejected"].items())[:SHOWN])
    more = len(found["rejected"]) - SHOWN
    base = f" around {best['base']}" if best["base"] else ""
    lines = [
        f"learned in {found['seconds']:.0f} s:",
        f"  {found['events']:,} events of {found['users']:,} users",
        f"  {sum(found['rejected'].values()):,} lines rejected: {reasons}{f'; {more} more' if more > 0 else ''}",
        f"  {found['latest']}{base}: {best['metric'].upper()} {best['value']['value']:.3f}, "
        f"{_lift(best['lift'])} over popular",
    ]
    if best["chosen_with_later_data"]:
        chosen = " and ".join(best["chosen_with_later_data"])
        lines.append(f"    chosen on the same months: {chosen} model; what the choice gained is in the lift")
    shares = found["in_taste"]
    if len(shares) == 2:
        lines.append(
            f"  {shares['individual']:.0%} of the first {FIRST} items are to the user's known taste, "
            f"{shares['holdout']:.0%} in the holdout's popular lists".replace("%", " %")
        )
    liked = ", ".join(f"{category} {weight:.0%}" for category, weight in example["likes"].items()).replace("%", " %")
    lines += [
        f"  for example {example['user_id']}, {example['events']:,} events",
        f"    likes  {liked}",
        f"    did    {'; '.join(example['did'])}",
        f"    gets   {'; '.join(example['gets'])}",
        "",
        "next:",
    ]
    return lines + [f"  {command}" for command in found["next"]]


def _group(line: Mapping[str, Any]) -> str:
    return "holdout" if line.get("holdout") else str(line.get("stage"))


def _lift(lift: Mapping[str, float | None] | None) -> str:
    if lift is None or lift["value"] is None:
        return "no lift over nothing"
    low, high = ("?" if lift[end] is None else f"{lift[end]:+.0%}" for end in ("low", "high"))
    return f"{lift['value']:+.0%} (95 %: {low} to {high})".replace("%", " %").replace("  %", " %")
