"""`kind = "survey"`: the one question of [survey] whose answer tells most about this very user.

What the answer a of a question would tell of the topic t (category or tag) of the next liked item, in bits:

    gain = Σ_a P(a | user) · KL( p(t | a) ‖ Σ_b P(b | user) p(t | b) )            (mutual information, Lindley 1956)

P(a | user) follows from how often people answer a, from the user's answers to other questions and from what the user
likes, as if all of these were independent given a (naive Bayes). So a question whose answer the history shows already
tells nothing. Learned from people with a history (`profiles.survey`): they answer as they did or as the first half of
their history says, and the second half says what each answer goes with; both are drawn towards everybody's. Where there
are fewer than two cells of such people, the first question that is left is asked.

A question is never asked twice, nor within `every_days` of another; the held out, those not covered and those whose
decisions may not be kept (nobody would know what they were asked) are asked nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import polars as pl
from scipy import sparse

from persona_cli.errors import BadSettings, nearest
from persona_cli.events.catalogue import described
from persona_cli.models.stored import positions
from persona_cli.profiles import SMALLEST_CELL, preferences
from persona_cli.profiles import history as histories
from persona_cli.profiles.coding import Ints
from persona_cli.profiles.context import DAY
from persona_cli.profiles.features import Floats
from persona_cli.profiles.permitted import PERSONALIZATION
from persona_cli.profiles.survey import configured, liked_in_halves, topics_liked
from persona_cli.serving.context import history_of
from persona_cli.serving.surfaces import Surface
from persona_cli.serving.surfaces.visitors import Flags, Visitors, chosen_names
from persona_cli.workspace.home import SETTINGS_FILE, Home

KEY = "choice"
_BLOCK = 20_000
_ASKED = pl.Struct({"question": pl.String})


class _Learned(NamedTuple):
    """What the answers of the questions go with, learned from people with a history."""

    names: list[str]
    answers: list[list[str]]
    of: list[Ints]
    """Per question the answer of each of these people, by place; the last: none of them."""
    topics: pl.Series
    likes: list[Floats]
    """Per question p(topic | answer) (n_answers + 1, n_topics)."""


def needs(home: Home, surface: Surface) -> set[str]:
    questions(home, surface)
    return {"items", "_answers", "_preferences", "_blocks", "_show_less"}


def questions(home: Home, surface: Surface) -> list[str]:
    """The questions that may be asked; `BadSettings` where there is none or one is not in [survey]."""
    asked = home.settings.values["survey"]
    place = f"{home.path(SETTINGS_FILE)}: surface.{surface.name}"
    if not asked:
        raise BadSettings(f"{place} asks questions of [survey], which has none", "persona profile survey suggests some")
    for name in surface.options["questions"]:
        if name not in asked:
            raise BadSettings(f"{place}: questions names {name!r}, which is not in [survey]{nearest(name, asked)}")
    return list(surface.options["questions"] or asked)


def decide(home: Home, surface: Surface, visitors: Visitors, explain: bool = False) -> pl.DataFrame:
    """choice ({question, text, answers} or null), policy, propensity, rules[, reasons] (n)."""
    names, n = questions(home, surface), len(visitors.users)
    asked, waiting = _asked(surface, visitors, names)
    answered, last_answer = _answered(visitors, names)
    every = surface.options["every_days"]
    waiting |= _within(last_answer, visitors, every)
    left = ~(asked | answered)
    open_ = visitors.personal & visitors.kept & ~waiting
    eligible = left & open_[:, None]
    learned = _learned(home, visitors, names)
    gain = np.zeros((n, len(names)))
    rows = np.flatnonzero(eligible.any(axis=1))
    if learned is not None and len(rows):
        gain[rows] = _gains(home, visitors, learned, rows)
    best = np.where(eligible, gain, -1.0).argmax(axis=1)  # the first of equals
    place = np.where(eligible.any(axis=1), best, -1)
    given = home.settings.values["survey"]
    asking = [
        {"question": name, "text": given[name]["text"], "answers": list(given[name]["answers"])} for name in names
    ]
    table = pl.DataFrame({"place": np.arange(len(names)), KEY: asking})
    picked = pl.DataFrame({"place": place}).join(table, on="place", how="left", maintain_order="left")[KEY]
    some = place >= 0
    told = gain[np.arange(n), np.maximum(place, 0)]
    rules = {
        "every_days": visitors.personal & visitors.kept & waiting & left.any(axis=1),
        "never_twice": visitors.personal & ~left.all(axis=1),
        "not_kept": visitors.personal & ~visitors.kept,
    }
    policy = np.where(some, "most_telling" if learned is not None else "in_order", "default")
    found = pl.DataFrame(
        {
            KEY: picked,
            "policy": policy.tolist(),
            "propensity": np.ones(n),
            "rules": chosen_names(np.array(list(rules.values())).T, list(rules)),
        }
    )
    if not explain:
        return found
    why = [
        [f"its answer would tell {bits:.3f} bits of what this person likes"]
        if chosen and learned is not None
        else ["the first question that is left"]
        if chosen
        else ["no question is asked"]
        for chosen, bits in zip(some, told, strict=True)
    ]
    return found.with_columns(reasons=pl.Series(why, dtype=pl.List(pl.String)))


def _asked(surface: Surface, visitors: Visitors, names: list[str]) -> tuple[Flags, Flags]:
    """Which questions each visitor was asked here (n, Q), and who within `every_days` (n,)."""
    asked, recent = np.zeros((len(visitors.users), len(names)), dtype=bool), np.zeros(len(visitors.users), dtype=bool)
    past = visitors.past().drop_nulls("choice")
    if not past.height:
        return asked, recent
    past = past.with_columns(question=pl.col("choice").str.json_decode(_ASKED).struct.field("question"))
    past = past.drop_nulls("question")
    column, row = positions(past["question"], pl.Series(names)), past["row"].to_numpy()
    asked[row[column >= 0], column[column >= 0]] = True
    latest = np.zeros(len(recent), dtype=np.int64)
    np.maximum.at(latest, row, past["at"].to_physical().to_numpy())
    return asked, _within(latest, visitors, surface.options["every_days"])


def _answered(visitors: Visitors, names: list[str]) -> tuple[Flags, Ints]:
    """Which questions each visitor has ever answered (n, Q), and when the last answer was given (µs; 0: never) (n,)."""
    n = len(visitors.users)
    answered, latest = np.zeros((n, len(names)), dtype=bool), np.zeros(n, dtype=np.int64)
    told = pl.DataFrame({"row": np.arange(n), "_": visitors.rows["_answers"]}).explode("_").drop_nulls("_").unnest("_")
    column, row = positions(told["key"], pl.Series(names)), told["row"].to_numpy()
    answered[row[column >= 0], column[column >= 0]] = True
    np.maximum.at(latest, row, told["at"].to_physical().to_numpy())
    return answered, latest


def _within(moments: Ints, visitors: Visitors, days: float) -> Flags:
    found: Flags = (moments > 0) & (round(visitors.at.timestamp() * 1_000_000) - moments < days * DAY)
    return found


def _learned(home: Home, visitors: Visitors, names: list[str]) -> _Learned | None:
    """None where too few people have a history, or nothing is known of items."""
    catalogue = described(home, visitors.as_of)
    rows = liked_in_halves(home, visitors.as_of, purpose=PERSONALIZATION)
    users = rows["user_id"].unique().sort()
    topics = preferences.topics(catalogue)
    if len(users) < 2 * SMALLEST_CELL or not topics.height:
        return None
    first = topics_liked(rows.filter("first"), topics)
    by_name = {one.name: one for one in configured(home, first, users, visitors.as_of, purpose=PERSONALIZATION)}
    vocabulary = topics["topic"].unique().sort()
    second = _counts(rows.filter(~pl.col("first")), topics, users, vocabulary)  # (n_users, T)
    overall = np.asarray(second.sum(axis=0)).ravel()
    common = (overall + 1.0) / (overall.sum() + len(overall))
    likes, of = [], []
    for name in names:
        question = by_name[name]
        groups = sparse.csr_array(
            (np.ones(len(users)), (question.of, np.arange(len(users)))), shape=(len(question.answers) + 1, len(users))
        )
        sums = (groups @ second).toarray()  # (A, T)
        likes.append((sums + SMALLEST_CELL * common) / (sums.sum(axis=1, keepdims=True) + SMALLEST_CELL))
        of.append(question.of)
    return _Learned(names, [list(by_name[name].answers) for name in names], of, vocabulary, likes)


def _counts(liked: pl.DataFrame, topics: pl.DataFrame, users: pl.Series, vocabulary: pl.Series) -> sparse.csr_array:
    """Liked items by topic (n_users, n_topics); an item with several topics counts a part for each."""
    parts = topics.with_columns(part=1.0 / pl.len().over("item_id"))
    flat = liked.select("user_id", "item_id").join(parts, on="item_id").sort("user_id", "topic", "item_id")
    where = (positions(flat["user_id"], users), positions(flat["topic"], vocabulary))
    return sparse.csr_array((flat["part"].to_numpy(), where), shape=(len(users), len(vocabulary)))


def _gains(home: Home, visitors: Visitors, learned: _Learned, rows: Ints) -> Floats:
    """Bits that the answer to each question would tell of these visitors (n_rows, Q)."""
    people = visitors.rows["person"].gather(rows)
    history = history_of(home, people.drop_nulls().unique(), visitors.as_of)
    faded = histories.faded(history, home.settings)
    liked = faded.filter((pl.col("strength") > 0) & (pl.col("never") == 0))
    topics = preferences.topics(described(home, visitors.as_of))
    known = people.drop_nulls().unique().sort()
    own = _counts(liked, topics, known, learned.topics)
    counts = sparse.vstack([own, sparse.csr_array((1, own.shape[1]))], format="csr")  # the last: of a stranger
    place = positions(people, known)
    given = _given(visitors, learned, rows)
    found = np.zeros((len(rows), len(learned.names)))
    for number, likes in enumerate(learned.likes):
        n_answers = likes.shape[0]
        size = np.bincount(learned.of[number], minlength=n_answers)
        weight = np.log((size + 1.0) / (size.sum() + n_answers))[None, :] + (counts @ np.log(likes).T)[place]
        for other, told in enumerate(given):
            if other != number and (told >= 0).any():
                weight = weight + np.where((told >= 0)[:, None], _log_given(learned, number, other)[told], 0.0)
        chance = np.exp(weight - weight.max(axis=1, keepdims=True))
        chance /= chance.sum(axis=1, keepdims=True)
        entropies = -(likes * np.log2(likes)).sum(axis=1)
        for start in range(0, len(rows), _BLOCK):
            part = chance[start : start + _BLOCK]
            mixed = part @ likes
            found[start : start + _BLOCK, number] = -(mixed * np.log2(mixed)).sum(axis=1) - part @ entropies
    gains: Floats = np.maximum(found, 0.0).round(6)
    return gains


def _log_given(learned: _Learned, number: int, other: int) -> Floats:
    """log P(answer b of the other question | answer a of this one) (n_b, n_a)."""
    n_a, n_b = learned.likes[number].shape[0], learned.likes[other].shape[0]
    joint = np.bincount(learned.of[other] * n_a + learned.of[number], minlength=n_a * n_b).reshape(n_b, n_a)
    alone = (joint.sum(axis=1) + 1.0) / (joint.sum() + n_b)
    chance: Floats = (joint + SMALLEST_CELL * alone[:, None]) / (joint.sum(axis=0, keepdims=True) + SMALLEST_CELL)
    found: Floats = np.asarray(np.log(chance))
    return found


def _given(visitors: Visitors, learned: _Learned, rows: Ints) -> list[Ints]:
    """Per question what each of these visitors answered, by place; -1: nothing (n_rows,)."""
    asked = visitors.rows.select(
        pl.col("person").alias("user_id"), pl.lit(None, pl.Date).alias("last"), "_answers"
    ).drop_nulls("user_id")
    said = preferences.answers(asked.filter(pl.col("_answers").is_not_null()).unique("user_id"))
    people = visitors.rows["person"].gather(rows)
    found = []
    for name, answers in zip(learned.names, learned.answers, strict=True):
        mine = said.filter((pl.col("question") == name) & pl.col("answer").is_in(answers))
        mine = mine.unique("user_id", keep="first", maintain_order=True)
        place = positions(people, mine["user_id"])
        values = np.append(positions(mine["answer"], pl.Series(answers, dtype=pl.String)), -1)
        found.append(values[place])
    return found
