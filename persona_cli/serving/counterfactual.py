"""Why this item: the fewest items of a user's own history without which it leaves the list, proved by ranking again.

A counterfactual in the sense of Ghazimatin et al. (PRINCE, WSDM 2020), for any model, by trial (`serving.trials`)
instead of by walks on a graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any

import numpy as np
import polars as pl

from persona_cli.errors import MissingInput, nearest
from persona_cli.events.catalogue import described
from persona_cli.models.ranking import Lists, hidden_now
from persona_cli.models.stored import positions
from persona_cli.serving.context import Audience
from persona_cli.serving.reasons import ANSWERS, CONTEXT, DRAWN, HISTORY, PINNED, PREFERRED, SEARCH, Reasons, names
from persona_cli.serving.recommend import bases, rounded
from persona_cli.serving.rule_items import sensitive_items
from persona_cli.serving.trials import Set, Trials, smallest_set
from persona_cli.workspace.home import Home

_TOLD = 3  # of what would come in, in words
_MOST = 0.5  # of a score


@dataclass(frozen=True)
class Explanation:
    """Why an item is in a user's list, or why not."""

    user_id: str
    item_id: str
    model: str
    base: str
    stage: str
    top: int
    listed: bool
    rank: int | None
    """In the list; of an item that is not there among all items that may be shown, rules aside; null: it is none."""
    score: float | None
    why: str
    """Listed: history, popular, search, answers, preferred, pinned, drawn or general (a list that is the same for
    whomever the user is). Not listed: behind, rules, consumed, blocked, unavailable, excluded or unknown."""
    without: list[str] = field(default_factory=list)
    """The items of the history that it needs, those that matter most first, but for sensitive ones."""
    unnamed: int = 0
    """How many more there are which `rules.sensitive` is about."""
    proven: str | None = None
    """smallest: every smaller set was tried; minimal: none of these can be spared; null: there is no set."""
    tried: int = 0
    """Lists made to find it."""
    rank_without: int | None = None
    """Its rank among all items without that set."""
    instead: list[str] = field(default_factory=list)
    """What comes into the list in its place."""
    rules: list[str] = field(default_factory=list)
    """Keys of the rules that move, place or exclude it."""
    shares: list[dict[str, Any]] = field(default_factory=list)
    """Parts of its score as `recommend --explain` has them."""
    layers: dict[str, Any] = field(default_factory=dict)
    missing: float | None = None
    """Of an item behind: what its score lacks to that of the last entry, rules aside."""
    text: list[str] = field(default_factory=list)
    """The same in sentences."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def explain(
    home: Home,
    user: str,
    item: str,
    *,
    top: int | None = None,
    model: str | None = None,
    as_of: datetime | None = None,
    context: Mapping[str, str] | None = None,
    include_holdout: bool = False,
) -> Explanation:
    """Why `item` is in the user's list of `top`, as `recommend` makes it: the fewest items of the user's own history
    without which it is not, what else holds it there, or what keeps it out.

    Nobody else is named, and nothing of somebody whom personalization does not cover is read. MissingInput for an item
    or a user of whom nothing is known; raises what `recommend` raises.
    """
    trials = Trials(home, user, top, model, as_of, context, include_holdout)
    made, (lists,) = trials.ranked(trials.asked, trials.top, trials.ruled)
    place = made.vocabulary.index_of(item)
    told = Explanation(
        user,
        item,
        trials.saved.reference,
        bases(trials.saved, trials.popular, trials.asked, trials.settings)[0],
        trials.asked.stages(trials.settings)[0],
        trials.top,
        False,
        None,
        None,
        "unknown",
    )
    called = _titles(home, made.vocabulary)
    if place is None:
        return _unknown(told, described(home, as_of), made.vocabulary)
    columns = np.flatnonzero((lists.places[0] == place) & (lists.scores[0] > -np.inf))
    if not len(columns):
        return _kept_out(told, trials, made.vocabulary, place, called)
    reasons = Reasons(home, trials.saved, trials.asked, trials.settings, trials.fill, trials.ruled)
    column = int(columns[0])
    words = reasons.of(lists, made.vocabulary)
    shares, told_rules = words.shares[column].to_list(), words.rules
    told = replace(
        told,
        listed=True,
        rank=column + 1,
        score=_short(lists.scores[0, column]),
        shares=shares,
        rules=[] if told_rules is None else told_rules[column].to_list(),
        layers=words.layers[0],
    )
    head = f"{_called(item, called)} is at rank {column + 1} of {len(words.words)}, with a score of {told.score:g}"
    if shares and shares[0]["kind"] in (PINNED, DRAWN):
        why = shares[0]["kind"]
        said = f"{head}: {words.words[column][0]}" if why == DRAWN else f"{head}: {', '.join(words.words[column])}"
        return replace(told, why=why, text=[f"{said}; what the user did has no part in it"])
    if trials.general or not (len(trials.items) or trials.spoken):
        about = f"{head}: {reasons.popular(0)}"
        return replace(told, why="general", text=[about, _general(trials)])
    return _needed(told, trials, reasons, lists, made.vocabulary, column, called, head)


def _needed(
    told: Explanation,
    trials: Trials,
    reasons: Reasons,
    lists: Lists,
    vocabulary: pl.Series,
    column: int,
    called: Mapping[str, str],
    head: str,
) -> Explanation:
    """What of the history it needs."""
    parts = reasons.explained(0, lists.places[0, [column]], lists.scores[0, [column]], vocabulary)
    own = np.zeros(len(trials.items))
    within = positions(reasons.items.gather(parts.own), trials.items)
    own[within[within >= 0]] = parts.parts.own[within >= 0, 0]
    order = np.argsort(-own, kind="stable")
    known: dict[Set, bool] = {}

    def leaves(sets: Sequence[Set]) -> list[bool]:
        new = [one for one in dict.fromkeys(sets) if one not in known]
        there = trials.listed(told.item_id, [order[list(one)] for one in new])
        known.update((one, not listed) for one, listed in zip(new, there, strict=True))
        return [known[one] for one in sets]

    found = smallest_set(len(order), leaves)
    everything = leaves([tuple(range(len(order)))])[0]
    text = [head]
    if found is None:
        nothing = trials.virtual([order])
        made, (alone,) = trials.ranked(nothing, trials.top, trials.ruled_for(nothing))
        at = int(np.flatnonzero(made.vocabulary.gather(alone.places[0]) == told.item_id)[0])
        bare = Reasons(trials.home, trials.saved, nothing, trials.settings, trials.fill, trials.ruled_for(nothing))
        left = bare.of(alone, made.vocabulary)
        kind = next((one["kind"] for one in left.shares[at].to_list()), CONTEXT)
        why = kind if kind in (SEARCH, ANSWERS, PREFERRED, PINNED, DRAWN) else "popular"
        text += [
            f"no part of the history that was left out takes it away, nor does all of it: {', '.join(left.words[at])}"
        ]
        return replace(told, why=why, tried=trials.made, text=text)
    chosen = order[list(found.chosen)]
    without = trials.virtual([chosen])
    made, (after,) = trials.ranked(without, trials.top, trials.ruled_for(without))
    before = set(vocabulary.gather(lists.places[0, : lists.lengths[0]]))
    instead = [one for one in made.vocabulary.gather(after.places[0, : after.lengths[0]]) if one not in before]
    rank, _, _ = _standing(trials, without, told.item_id)
    sensitive = set(sensitive_items(trials.home))
    instead = [one for one in instead if one not in sensitive]
    named = [one for one in trials.items.gather(chosen) if one not in sensitive]
    unnamed = len(chosen) - len(named)
    needs = [_called(one, called) for one in named] + [f"{unnamed} more that may not be named"] * bool(unnamed)
    then = "it leaves the list" if rank is None else f"it leaves the list, at rank {rank} of all that may be shown"
    came = ", ".join(_called(one, called) for one in instead[:_TOLD])
    came += f" and {len(instead) - _TOLD} more" * (len(instead) > _TOLD)
    text.append(f"without {_and(needs)} in the history {then}" + (f"; {came} would come in" * bool(came)))
    text.append(
        "no smaller part of the history does that" if found.smallest
        else "none of these can be spared; not every smaller part of the history was tried"
    )  # fmt: skip
    other = [one for one in told.shares if one["kind"] != HISTORY and one["share"] > _MOST]
    if other:
        source = reasons.source(0, other[0]["kind"])
        text.append(f"most of its score ({other[0]['share']:.0%}) has another source than the history: {source}")
    if not everything:
        text.append(f"somebody without any history would have it as well: {reasons.popular(0)}")
    return replace(
        told,
        why=HISTORY,
        without=named,
        unnamed=unnamed,
        proven="smallest" if found.smallest else "minimal",
        tried=trials.made,
        rank_without=rank,
        instead=instead,
        text=text,
    )


def _standing(trials: Trials, asked: Audience, item: str) -> tuple[int | None, float | None, float | None]:
    """Rank among all items that may be shown and score of an item, and the score of the last entry; rules aside."""
    made, (lists,) = trials.ranked(
        asked, len(trials.saved.model.items) + len(trials.fill.items if trials.fill else ()), None
    )
    place = made.vocabulary.index_of(item)
    at = np.flatnonzero((lists.places[0] == place) & (lists.scores[0] > -np.inf))
    last = min(trials.top, int(lists.lengths[0])) - 1
    lowest = float(lists.scores[0, last]) if last >= 0 else None
    return (int(at[0]) + 1, float(lists.scores[0, at[0]]), lowest) if len(at) else (None, None, lowest)


def _kept_out(
    told: Explanation, trials: Trials, vocabulary: pl.Series, place: int, called: Mapping[str, str]
) -> Explanation:
    """Why it is not in the list."""
    asked, item, name = trials.asked, told.item_id, _called(told.item_id, called)
    head, zero = f"{name} is not in the list of {trials.top}", np.zeros(1, dtype=np.int64)
    wished = None if asked.wishes is None else asked.wishes.over(vocabulary)
    if asked.excluded(vocabulary)[[0], [place]][0]:
        eaten = trials.history.filter((pl.col("item_id") == item) & (pl.col("consumed") > 0)).height
        why = "consumed" if eaten else "blocked"
        said = "the user has had it already" if eaten else "the user does not want to see it"
    elif hidden_now(asked.excluded(vocabulary), wished, zero)[[0], [place]][0]:
        why, said = "blocked", "the user has blocked what it is about"
    elif trials.never.is_in([item]).any():
        why, said = "unavailable", "the catalogue says that it is not to be had"
    else:
        return _behind(told, trials, vocabulary, place, head)
    return replace(told, why=why, text=[f"{head}: {said}"])


def _behind(told: Explanation, trials: Trials, vocabulary: pl.Series, place: int, head: str) -> Explanation:
    rank, score, last = _standing(trials, trials.asked, told.item_id)
    found = replace(told, why="behind", rank=rank, score=None if score is None else _short(score))
    if trials.ruled is not None:
        ruler, where = trials.ruled.over(vocabulary), np.array([[place]])
        at = [(one, ruler.about[one.key].at(np.zeros(1, dtype=np.int64), where)[0, 0]) for one in ruler.rules.named]
        found = replace(found, rules=[one.key for one, holds in at if holds])
        barring = [one.name for one, holds in at if holds and one.kind == "exclude"]
        if barring:
            return replace(found, why="excluded", text=[f"{head}: excluded by rule {_and(barring)}"])
    if rank is None or score is None or last is None:
        return replace(found, text=[f"{head}: the model says nothing of it"])
    where_it_is = f"it is at rank {rank} with a score of {_short(score):g}"
    if rank <= trials.top:
        return replace(
            found, why="rules", text=[f"{head}: {where_it_is}, and the rules over lists give its place away"]
        )
    missing = _short(last - score)
    text = [f"{head}: {where_it_is}; the last entry has {_short(last):g}, so {missing:g} is missing"]
    return replace(found, missing=missing, text=[*text, *([_general(trials)] if trials.general else [])])


def _unknown(told: Explanation, catalogue: pl.DataFrame | None, vocabulary: pl.Series) -> Explanation:
    if catalogue is None or not catalogue["item_id"].is_in([told.item_id]).any():
        close = nearest(told.item_id, vocabulary.head(100_000).to_list())
        raise MissingInput(
            f"no item {told.item_id!r} is known{close if close.startswith('; did') else ''}", "persona similar --all"
        )
    head = f"{told.item_id} is not in the list of {told.top}"
    return replace(told, text=[f"{head}: it is in the catalogue, and {told.model} was trained without it"])


def _general(trials: Trials) -> str:
    if trials.generic:
        return "personalization does not cover this user: the list is the general one, made without the user's data"
    if trials.general:
        return "this user is held out to compare with: the list is the general one, the same for everybody"
    return "nothing with an item is known of this user: the list is the general one"


def _titles(home: Home, vocabulary: pl.Series) -> dict[str, str]:
    """How people know each item that may be named."""
    named = vocabulary.filter(~vocabulary.is_in(sensitive_items(home).implode()))
    return dict(zip(named, names(home, named), strict=True))


def _called(item: str, called: Mapping[str, str]) -> str:
    title = called.get(item, item)
    return item if title == item else f"{title} ({item})"


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _short(value: float) -> float:
    return float(rounded(np.array([value]))[0])
