"""The questions that divide users best: what to ask somebody of whom nothing is known.

A question sorts users into groups by their answers. Its gain is what the answer says of what a user likes,

    gain = mean over users of mean over the items i of their second half of log2 p(i | group) / p(i)        (bits)

that is the expected fall of the log loss of a single guess, the mutual information of answer and item (Shannon 1948),
measured on what was not used: answers and p follow from the first half of each user's items. Where nobody has answered
yet, a user is taken to answer as the history says. p(i | group) = (n_gi + m p(i)) / (n_g + m): a few say little. The
gain of several questions is that of the groups that all their answers make.
Questions are chosen greedily, each for what it adds to those before it, which is near the best set where gains add up
less and less (Nemhauser, Wolsey & Fisher 1978).
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import combinations
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from persona_cli.errors import MissingInput
from persona_cli.events.catalogue import described
from persona_cli.profiles import SMALLEST_CELL, preferences
from persona_cli.profiles import history as histories
from persona_cli.profiles.coding import Ints, by_distinct
from persona_cli.profiles.folds.explicit import CATEGORY, TAG
from persona_cli.profiles.permitted import ANALYTICS, Purpose
from persona_cli.workspace.home import Home

USERS = 5_000
"""Users whose histories are looked at; of more, those whose ids hash the lowest."""
_CHOICES = (3, 4, 5, 6)  # answers of a question "which of these"
_TOPICS = 12  # categories and tags that a question of their own is tried for
_ITEMS = 8  # items that are tried in pairs
_PSEUDO = (0.03, 0.1, 0.3, 1.0, 3.0)  # m for each item: the best counts, since data differ in how much they say
_HALVES = 2  # liked items that a user must have in each half
_NONE = "none of these"


@dataclass(frozen=True)
class Question:
    """A question and what each answer names; `of` (n_users,) is the answer that each user would give, by position."""

    name: str
    text: str
    answers: dict[str, tuple[str, ...]]
    of: Ints
    configured: bool = False


@dataclass(frozen=True)
class _Likes:
    """What users like, in two halves; one row an item of a user."""

    n_users: int
    n_items: int
    user: Ints
    item: Ints
    first: NDArray[np.bool_]
    weight: NDArray[np.float64]
    """1 over the number of the user's items in the same half."""


def survey(home: Home, questions: int = 3, as_of: datetime | None = None) -> list[dict[str, Any]]:
    """The best questions, the most telling first: question, text, configured, gain, total (bits), answers, toml.

    answers: answer, share of the users, users, categories, tags. Each answer stands for `SMALLEST_CELL` users or more.
    Tried are those of [survey] and, by the catalogue, "which of these" of the commonest categories and tags, single
    categories and tags, and pairs of popular items. MissingInput where there are too few users or no question.
    """
    rows = liked_in_halves(home, as_of, purpose=ANALYTICS)
    users = rows["user_id"].unique().sort()
    if len(users) < 2 * SMALLEST_CELL:
        raise MissingInput(
            f"{len(users):,} users have at least {2 * _HALVES} items that they like; {2 * SMALLEST_CELL} are needed to "
            "tell which questions divide them",
            "ingest more events",
        )
    items = rows["item_id"].unique().sort()
    user, item = _codes(rows["user_id"], users), _codes(rows["item_id"], items)
    first = rows["first"].to_numpy()
    half = user * 2 + first
    likes = _Likes(len(users), len(items), user, item, first, 1.0 / np.bincount(half, minlength=2 * len(users))[half])
    topics = preferences.topics(described(home, as_of))
    tried: dict[str, Question] = {}
    for one in _candidates(home, rows, users, topics, as_of):
        tried.setdefault(one.name, one)  # those of [survey] are first
    candidates = [one for one in tried.values() if _large_enough(one)]
    if not candidates:
        raise MissingInput(
            f"no question divides the users into groups of at least {SMALLEST_CELL}",
            "ingest a catalogue with categories or tags: persona ingest items.csv --kind items",
        )
    chosen = _greedy(likes, candidates, questions)
    total, found = 0.0, []
    for one, gain in chosen:
        total += gain
        found.append(_said(one, gain, total))
    return found


def unknown_names(home: Home) -> list[str]:
    """A sentence for each category or tag that a question of [survey] names and no item has."""
    asked = home.settings.values["survey"]
    if not asked:
        return []
    known = set(preferences.topics(described(home))["topic"].unique())
    return [
        f'survey.{name}: the answer "{answer}" names the {kind} "{one}", which no item has'
        for name, question in asked.items()
        for answer, names in question["answers"].items()
        for kind, start, entries in (("category", CATEGORY, names["categories"]), ("tag", TAG, names["tags"]))
        for one in entries
        if start + one not in known
    ]


def liked_in_halves(home: Home, as_of: datetime | None, *, purpose: Purpose) -> pl.DataFrame:
    """user_id, item_id, strength > 0 and `first` (its half) of users with enough in both halves; sorted."""
    faded = histories.faded(histories.history(home, as_of, purpose=purpose), home.settings)
    liked = faded.filter((pl.col("strength") > 0) & (pl.col("never") == 0)).select("user_id", "item_id", "strength")
    liked = liked.filter(pl.len().over("user_id") >= 2 * _HALVES)  # fewer cannot be enough in both halves
    numbers = [by_distinct(liked[name], _number, pl.UInt64).to_numpy() for name in ("user_id", "item_id")]
    mixed = (numbers[0] * np.uint64(0x9E3779B97F4A7C15)) ^ (numbers[1] * np.uint64(0xC2B2AE3D27D4EB4F))
    halves = liked.with_columns(
        first=pl.Series((mixed * np.uint64(0x165667B19E3779F9)) >> np.uint64(40) & np.uint64(1)) == 1,
        n=pl.Series(numbers[0]),
    )
    enough = halves.group_by("user_id").agg(pl.col("n").first(), a=pl.col("first").sum(), b=(~pl.col("first")).sum())
    told = enough.filter((pl.col("a") >= _HALVES) & (pl.col("b") >= _HALVES))
    drawn, halves = told.sort("n", "user_id").head(USERS), halves.drop("n")
    return halves.join(drawn.select("user_id"), on="user_id", how="semi").sort("user_id", "item_id")


def _number(text: str) -> int:
    return zlib.crc32(text.encode())


def _codes(ids: pl.Series, vocabulary: pl.Series) -> Ints:
    return ids.cast(pl.Enum(vocabulary)).to_physical().cast(pl.Int64).to_numpy()


def topics_liked(liked: pl.DataFrame, topics: pl.DataFrame) -> pl.DataFrame:
    """user_id, topic, strength of liked items (user_id, item_id, strength), sorted."""
    felt = liked.join(topics, on="item_id")  # user_id, item_id, strength, topic
    return felt.group_by("user_id", "topic").agg(pl.col("strength").sum()).sort("user_id", "topic")


def configured(
    home: Home, by_topic: pl.DataFrame, users: pl.Series, as_of: datetime | None, *, purpose: Purpose
) -> Iterator[Question]:
    """The questions of [survey] with what each of `users` answered, or would by what they like (`topics_liked`)."""
    given = preferences.answers(preferences.spoken(home, users, as_of, purpose=purpose))
    for name, asked in home.settings.values["survey"].items():
        answers = {
            answer: (*(CATEGORY + one for one in names["categories"]), *(TAG + one for one in names["tags"]))
            for answer, names in asked["answers"].items()
        }
        of = _supposed(by_topic, users, list(answers.values()))
        told = given.filter((pl.col("question") == name) & pl.col("answer").is_in(list(answers)))
        told = told.unique("user_id", keep="first", maintain_order=True)
        of[_codes(told["user_id"], users)] = [list(answers).index(answer) for answer in told["answer"]]
        yield Question(name, asked["text"], answers, of, configured=True)


def _candidates(
    home: Home, rows: pl.DataFrame, users: pl.Series, topics: pl.DataFrame, as_of: datetime | None
) -> Iterator[Question]:
    first = rows.filter("first")
    by_topic = topics_liked(first, topics)
    yield from configured(home, by_topic, users, as_of, purpose=ANALYTICS)
    for start, what in ((CATEGORY, "category"), (TAG, "tag")):
        mine = by_topic.filter(pl.col("topic").str.starts_with(start))
        common = mine.group_by("topic").len().sort(["len", "topic"], descending=[True, False])["topic"].to_list()
        for n in (n for n in _CHOICES if n <= len(common)):
            answers: dict[str, tuple[str, ...]] = {topic[len(start) :]: (topic,) for topic in common[:n]}
            yield Question(
                f"{what}_of_{n}",
                "Which of these do you like best?",
                answers,
                _best_of(mine, users, list(answers.values())),
            )
        for topic in common[:_TOPICS]:
            name = topic[len(start) :]
            yes_no: dict[str, tuple[str, ...]] = {"yes": (topic,), "no": ()}
            of = _supposed(mine, users, list(yes_no.values()))
            yield Question(f"{what}_{name}", f"Do you like {name}?", yes_no, of)
    yield from _pairs(first, users, topics)


def _pairs(first: pl.DataFrame, users: pl.Series, topics: pl.DataFrame) -> Iterator[Question]:
    """Which of two popular items that differ in what they are of."""
    of_item = {item: tuple(part["topic"]) for (item,), part in topics.group_by(["item_id"], maintain_order=True)}
    counts = first.filter(pl.col("item_id").is_in(list(of_item))).group_by("item_id").len()
    popular = counts.sort(["len", "item_id"], descending=[True, False]).head(_ITEMS)["item_id"].to_list()
    own = first.select("user_id", "strength", topic="item_id").sort("user_id", "topic")
    for one, other in combinations(sorted(popular), 2):
        if of_item[one] != of_item[other]:
            of = _best_of(own, users, [(one,), (other,)])
            answers = {one: of_item[one], other: of_item[other]}
            yield Question(f"{one}_or_{other}", "Which of these do you like better?", answers, of)


def _supposed(felt: pl.DataFrame, users: pl.Series, answers: list[tuple[str, ...]]) -> Ints:
    """What each user would answer (n_users,): the best of what the answers name; of yes and no, whether it has at least
    the mean share in what the user feels."""
    if [bool(names) for names in answers] not in ([True, False], [False, True]):
        return _best_of(felt, users, answers)
    names = [name for names in answers for name in names]
    kind = TAG if names[0].startswith(TAG) else CATEGORY
    mine = felt.filter(pl.col("topic").str.starts_with(kind))
    part = pl.when(pl.col("topic").is_in(names)).then("strength").otherwise(0.0).sum()
    shares = mine.group_by("user_id").agg(share=part / pl.col("strength").sum()).sort("user_id")
    often = shares.filter((pl.col("share") > 0) & (pl.col("share") >= shares["share"].sum() / len(users)))["user_id"]
    yes = 0 if answers[0] else 1
    of = np.full(len(users), 1 - yes, dtype=np.int64)
    of[_codes(often, users)] = yes
    return of


def _best_of(felt: pl.DataFrame, users: pl.Series, answers: list[tuple[str, ...]]) -> Ints:
    """The answer whose topics each user feels most for, the first of equals; n_answers: for none (n_users,)."""
    strengths = np.zeros((len(users), len(answers) + 1))
    for place, names in enumerate(answers):
        own = (
            felt.filter(pl.col("topic").is_in(names))
            .group_by("user_id", maintain_order=True)
            .agg(pl.col("strength").sum())
        )
        strengths[_codes(own["user_id"], users), place] = own["strength"].to_numpy().round(6)
    strengths[:, -1] = 1e-9  # "none of these" wins where nothing is felt
    best: Ints = np.argmax(strengths, axis=1).astype(np.int64)
    return best


def _large_enough(question: Question) -> bool:
    """Whether each answer stands for enough users, and at least two do."""
    sizes = np.bincount(question.of, minlength=len(question.answers) + 1)
    answered = sizes[: len(question.answers)]
    none = sizes[len(question.answers)]
    return bool((answered >= SMALLEST_CELL).all() and (none == 0 or none >= SMALLEST_CELL) and (sizes > 0).sum() > 1)


def _greedy(likes: _Likes, candidates: list[Question], n: int) -> list[tuple[Question, float]]:
    """Up to `n` questions with what each adds; it ends where nothing is added."""
    counts = np.bincount(likes.item[likes.first], minlength=likes.n_items) + 0.5
    prior = counts / counts.sum()
    group, total = np.zeros(likes.n_users, dtype=np.int64), 0.0
    chosen: list[tuple[Question, float]] = []
    left = list(candidates)
    while left and len(chosen) < n:
        joint = [
            np.unique(group * (len(question.answers) + 1) + question.of, return_inverse=True)[1] for question in left
        ]
        told = [round(_gain(likes, groups, prior), 9) for groups in joint]
        best = max(range(len(left)), key=lambda place: (told[place], left[place].configured, -place))
        if told[best] <= total:
            break
        chosen.append((left.pop(best), told[best] - total))
        group, total = joint[best], told[best]
    return chosen


def _gain(likes: _Likes, groups: Ints, prior: NDArray[np.float64]) -> float:
    """Bits that the groups (n_users,) say of an item of the second half; `prior` (n_items,) is p(i)."""
    key = groups[likes.user] * likes.n_items + likes.item
    seen, n = np.unique(key[likes.first], return_counts=True)
    size = np.bincount(groups[likes.user[likes.first]], minlength=int(groups.max()) + 1)
    held = key[~likes.first]
    at = np.minimum(np.searchsorted(seen, held), len(seen) - 1)
    count = np.where(seen[at] == held, n[at], 0)
    of, p = size[groups[likes.user[~likes.first]]], prior[likes.item[~likes.first]]
    found = []
    for pseudo in _PSEUDO:
        m = pseudo * likes.n_items
        ratio = (count / p + m) / (of + m)
        found.append(float((likes.weight[~likes.first] * np.log2(ratio)).sum() / likes.n_users))
    return max(found)


def _said(question: Question, gain: float, total: float) -> dict[str, Any]:
    sizes = np.bincount(question.of, minlength=len(question.answers) + 1)
    names = [*question.answers.items(), *([(_NONE, ())] if sizes[len(question.answers)] else [])]
    answers = [
        {
            "answer": answer,
            "share": round(float(sizes[place] / sizes.sum()), 3),
            "users": int(sizes[place]),
            "categories": [topic[len(CATEGORY) :] for topic in topics if topic.startswith(CATEGORY)],
            "tags": [topic[len(TAG) :] for topic in topics if topic.startswith(TAG)],
        }
        for place, (answer, topics) in enumerate(names)
    ]
    return {
        "question": question.name,
        "text": question.text,
        "configured": question.configured,
        "gain": round(gain, 4),
        "total": round(total, 4),
        "answers": answers,
        "toml": _toml(question.name, question.text, answers),
    }


def _toml(name: str, text: str, answers: list[dict[str, Any]]) -> str:
    """The question as a section of persona.toml."""

    def said(value: Any) -> str:
        return json.dumps(value, ensure_ascii=False)

    lines = [f"[survey.{said(name)}]", f"text = {said(text)}"]
    for one in answers:
        if one["answer"] != _NONE:
            named = f"categories = {said(one['categories'])}, tags = {said(one['tags'])}"
            lines.append(f"answers.{said(one['answer'])} = {{ {named} }}")
    return "\n".join(lines)
