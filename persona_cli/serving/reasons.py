"""Why an item is in a list: which of the user's own items speak for it and how much, in words and as data."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from persona_cli.models.base import Floats, Histories, known
from persona_cli.models.layered import Layered, Layers
from persona_cli.models.popular import CELL, Popular
from persona_cli.models.ranking import Lists, hidden_now, model_scores, spared_now
from persona_cli.models.registry import Saved
from persona_cli.models.shares import Added, Facts, Numbers, Places, added, facts_of, over, summed
from persona_cli.models.stored import positions
from persona_cli.models.wishes import Wished
from persona_cli.profiles import SMALLEST_CELL
from persona_cli.profiles.fold import profile_rows
from persona_cli.profiles.permitted import PERSONALIZATION
from persona_cli.serving.context import Audience
from persona_cli.serving.rule_items import sensitive_items
from persona_cli.serving.rules import Ruled, Ruler, Ruling
from persona_cli.workspace import tables
from persona_cli.workspace.home import Home
from persona_cli.workspace.settings import Settings

MOST = 3
"""Own items named in words for one recommendation."""
MOST_SHARES = 10
"""Own items whose shares are stated one by one; those of the others are added up."""
HISTORY, SEARCH, CONTEXT, COHORT, GENERAL = "history", "search", "context", "cohort", "general"
DISLIKED, ANSWERS, PREFERRED, PINNED, DRAWN = "disliked", "answers", "preferred", "pinned", "drawn"
_DRAWS = "rules.exploration"
_WORDS = {
    SEARCH: "matches a recent search",
    COHORT: "liked by people of like taste",
    GENERAL: "liked in general",
    ANSWERS: "named by your answers",
    PREFERRED: "of the category that you set",
    PINNED: "pinned",
    DRAWN: "drawn at random",
}
_DONE = {"pin": "pinned", "boost": "boosted", "bury": "buried"}
_SHARE = pl.Struct({"kind": pl.String, "item_id": pl.String, "share": pl.Float64})
_LAYERS = pl.Struct(
    {"context": pl.Float64, "cohort": pl.Float64, "individual": pl.Float64, "by": pl.String, "exact": pl.Boolean}
)
_ALWAYS = (SEARCH, ANSWERS, PREFERRED)
Share = dict[str, Any]
_USERS, _CELLS = 64, 1 << 22


class Explained(NamedTuple):
    """What the scores of one user's entries are made of."""

    own: Places
    """The history, as positions in the model's vocabulary (n_own,)."""
    parts: Added
    """Scores before rules, entry by entry: they add up to the scores of the model."""
    layers: dict[str, float]
    """Weight of context, cohort and individual; sums to 1."""


class _Block(NamedTuple):
    """What is worked out for consecutive users at once."""

    start: int
    layers: Layers | None
    """Of a layered model."""
    facts: Facts
    """Of the individual model inside, else of the model."""
    scores: Floats | None
    """Of the model (n_users, n_items), where somebody said what moves them."""


class Told(NamedTuple):
    """What is told of lists, entries list after list and best first."""

    words: pl.Series
    """`reasons`: list of String (n_entries,)."""
    shares: pl.Series
    """`shares`: list of {kind, item_id, share}, largest first (n_entries,)."""
    rules: pl.Series | None
    """`rules`: list of String, the keys of those that move or place the entry (n_entries,); None: there are none."""
    layers: pl.Series
    """`layers` of each list: weight of context, cohort, individual; by: whose view it is; exact (n_lists,)."""


class Reasons:
    """Reasons for the entries of lists.

    The score of an entry is divided among the items of the history and what else adds to it (`models.shares`): the
    context's popular list, the cohort's, what was searched for, answers and settings, and what the user dislikes, which
    takes away. Shares are parts of the score and add up to 1. Rules multiply scores or place entries, which changes no
    share, but for a pinned or drawn entry, which is there for that alone. The words of a search are personal and not
    repeated; what `rules.sensitive` is about is never named, nor any group of fewer than 20 people, nor anybody else.
    """

    def __init__(
        self,
        home: Home,
        saved: Saved,
        asked: Audience,
        settings: Settings,
        fill: Popular | None,
        ruling: Ruling | None = None,
    ) -> None:
        self.home, self.model, self.fill = home, saved.model, fill
        self.items = saved.model.items
        self.histories = asked.histories(self.items, settings)
        self.hidden = asked.excluded(self.items)
        self.wishes, self.context = asked.wishes, asked.context
        self.wished = None if asked.wishes is None else asked.wishes.over(self.items)
        self.wished_there: Wished | None = None
        self.vocabulary: pl.Series | None = None
        inside = self.model.individual if isinstance(self.model, Layered) else None
        self.columns = None if inside is None else positions(self.items, inside.items)
        self.ids, self.names = self.items.to_list(), names(home, self.items)
        self.unnamed = self.items.is_in(sensitive_items(home).implode()).to_numpy()
        self.ruling = ruling
        self._ruler: tuple[pl.Series, Ruler] | None = None
        self._cells: dict[tuple[str | None, str | None], str] = {}
        self._people: pl.DataFrame | None = None

    def of(self, lists: Lists, vocabulary: pl.Series) -> Told:
        """What is told of these lists."""
        words: list[list[str]] = []
        shares: list[list[Share]] = []
        layers: list[dict[str, Any]] = []
        rules = [] if self.ruling is None else self.by_rule(lists, vocabulary)
        size = max(1, min(_USERS, _CELLS // max(len(self.items), 1)))
        block: _Block | None = None
        for number, length in enumerate(lists.lengths):
            user = lists.start + number
            if number % size == 0:
                block = self._block(user, min(user + size, lists.start + len(lists.places)))
            row = slice(0, length)
            found = self.explained(user, lists.places[number, row], lists.scores[number, row], vocabulary, block)
            for column in range(length):
                by = _placed(lists, number, column)
                keys = rules[len(words)] if rules else []
                if by is None:
                    words.append(self.words(user, found, column) + [_said(key) for key in keys])
                    shares.append(self.shares(found, column))
                else:
                    words.append([_WORDS[DRAWN]] if by == DRAWN else [_said(key) for key in keys] or [_WORDS[PINNED]])
                    shares.append([_share(by, None, 1.0)])
            layers.append({**found.layers, "by": found.parts.by, "exact": found.parts.exact})
        return Told(
            pl.Series("reasons", words, dtype=pl.List(pl.String)),
            pl.Series("shares", shares, dtype=pl.List(_SHARE)),
            None if self.ruling is None else pl.Series("rules", rules, dtype=pl.List(pl.String)),
            pl.Series("layers", layers, dtype=_LAYERS),
        )

    def by_rule(self, lists: Lists, vocabulary: pl.Series) -> list[list[str]]:
        """The rules that move or place each entry, list after list: of a pinned or drawn one those alone."""
        if self.ruling is None:
            return []
        if self._ruler is None or self._ruler[0] is not vocabulary:
            self._ruler = vocabulary, self.ruling.over(vocabulary)
        ruler, users = self._ruler[1], lists.start + np.arange(len(lists.places))
        named = [(one, ruler.about[one.key].at(users, lists.places)) for one in ruler.rules.of_kind(*_DONE)]
        found: list[list[str]] = []
        for number, length in enumerate(lists.lengths):
            for column in range(length):
                by = _placed(lists, number, column)
                kinds = ("pin",) if by == PINNED else ("boost", "bury") * bool(ruler.personal[users[number]])
                keys = [one.key for one, mask in named if one.kind in kinds and mask[number, column]]
                found.append([_DRAWS] if by == DRAWN else keys)
        return found

    def explained(
        self,
        user: int,
        entries: Places,
        scores: NDArray[np.float32],
        vocabulary: pl.Series,
        block: _Block | None = None,
    ) -> Explained:
        """The parts of the scores of `entries` (positions in `vocabulary`), which were given these `scores`."""
        block = self._block(user, user + 1) if block is None else block
        one, at = self.histories.block(user, user + 1), slice(user, user + 1)
        places = _moved(entries, vocabulary, self.items)
        covered = np.flatnonzero(places >= 0)
        if isinstance(self.model, Layered):
            made, layers = self._layered(self.model, one, places[covered], block, user - block.start)
        else:
            made = added(self.model, one, places[covered], block.facts.of(user - block.start))
            individual = float(known(self.model, one)[0] and not isinstance(self.model, Popular))
            layers = {CONTEXT: 1.0 - individual, COHORT: 0.0, "individual": individual}
        spread = _spread(made, covered, len(entries))
        silent = spread.total == 0
        if block.scores is not None and len(entries):
            spread = self._wished(spread, block.scores[[user - block.start]], entries, vocabulary, at)
        if self.fill is not None and silent.any():  # where the model says nothing, the popular list decides
            filled = np.where(silent, scores.astype(np.float64), 0.0)
            spread = summed([spread.times(np.where(silent, 0.0, 1.0)), _only(spread, {CONTEXT: filled})])
        layers = {name: round(weight, 6) for name, weight in layers.items()}
        return Explained(one.rows.indices.astype(np.int64), spread, layers)

    def shares(self, found: Explained, column: int) -> list[Share]:
        """Parts of the score of one entry, largest first; they add up to 1."""
        total = float(found.parts.total[column])
        if not total > 0:
            return []
        own = found.parts.own[:, column] / total
        order = np.argsort(-np.abs(own), kind="stable")
        order = order[own[order] != 0]
        told = order[~self.unnamed[found.own[order]]][:MOST_SHARES]
        made = [_share(HISTORY, self.ids[found.own[row]], own[row]) for row in told]
        if len(order) > len(told):
            made.append(_share(HISTORY, None, own.sum() - own[told].sum()))
        rest = {kind: float(values[column]) / total for kind, values in found.parts.rest.items()}
        made += [_share(kind, None, share) for kind, share in rest.items() if share]
        return sorted(made, key=lambda one: -abs(one["share"]))

    def words(self, user: int, found: Explained, column: int) -> list[str]:
        """The same in words: own items that speak most, and what else speaks as much as the first of them."""
        own, total = found.parts.own[:, column], float(found.parts.total[column])
        order = np.argsort(-own, kind="stable")
        best = [row for row in order[~self.unnamed[found.own[order]]][:MOST] if own[row] > 0]
        said = [(f"goes with {self.names[found.own[row]]}", float(own[row])) for row in best]
        rest = {kind: float(values[column]) for kind, values in found.parts.rest.items()}
        said += [(_WORDS[kind], part) for kind, part in rest.items() if kind in _ALWAYS and part > 0]
        most = max((part for _, part in said), default=0.0)
        for kind in (CONTEXT, COHORT, GENERAL):
            if rest.get(kind, 0.0) > most:
                said.append((self.popular(user) if kind == CONTEXT else _WORDS[kind], rest[kind]))
        if not said:
            return [self.popular(user)]
        words = [f"{text} ({part / total:.0%})" for text, part in said] if total > 0 else [text for text, _ in said]
        if len(said) == 1 and not best:
            words = [said[0][0]]
        return words if found.parts.exact else [*words, f"as seen by {found.parts.by}"]

    def source(self, user: int, kind: str) -> str:
        """What a part of a score that is no item's is in words."""
        return _WORDS.get(kind) or self.popular(user)

    def popular(self, user: int) -> str:
        """Where it is popular: the group whose list is served, if it is of 20 people or more."""
        cell = self.context.row(user)
        if cell not in self._cells:
            self._cells[cell] = self._popular(*cell)
        return self._cells[cell]

    def _popular(self, device: str | None, country: str | None) -> str:
        popular = self.model.popular if isinstance(self.model, Layered) else self.fill or self.model
        if isinstance(popular, Popular):
            listed = set(popular.cells_.select(CELL).rows())
            for cell in ((device, country), (None, country), (device, None)):  # in the order in which it falls back
                if cell != (None, None) and cell in listed:
                    if self._size(cell) < SMALLEST_CELL:
                        break
                    return "popular" + (f" on {cell[0]}" if cell[0] else "") + (f" in {cell[1]}" if cell[1] else "")
        return "popular"

    def _size(self, cell: tuple[str | None, str | None]) -> int:
        """People of this context."""
        if self._people is None:
            self._people = profile_rows(self.home, ("user_id", *CELL), purpose=PERSONALIZATION)
        wanted = [pl.col(name) == value for name, value in zip(CELL, cell, strict=True) if value is not None]
        return self._people.filter(*wanted).height

    def _block(self, start: int, stop: int) -> _Block:
        histories, at = self.histories.block(start, stop), slice(start, stop)
        hidden, spared = hidden_now(self.hidden, self.wished, at), spared_now(self.wished, at)
        scores = None
        if self.wishes is not None:
            scores = model_scores(self.model, histories, hidden, spared)
        if not isinstance(self.model, Layered):
            return _Block(start, None, facts_of(self.model, histories), scores)
        inside, facts = self.model.individual, Facts({}, None, {})
        if inside is not None and self.columns is not None:
            facts = facts_of(inside, histories.over(self.columns, len(inside.items)))
        return _Block(start, self.model.layers(histories, hidden, spared), facts, scores)

    def _layered(
        self, model: Layered, one: Histories, places: Places, block: _Block, row: int
    ) -> tuple[Added, dict[str, float]]:
        found = block.layers
        assert found is not None
        weights = {CONTEXT: found.context, COHORT: found.cohort, "individual": found.individual}
        layers = {name: float(weight[row]) for name, weight in weights.items()}
        rest = {CONTEXT: found.from_context, COHORT: found.from_cohort, DISLIKED: found.disliked}
        every = {kind: values[row, places].astype(np.float64) for kind, values in rest.items()}
        every = {kind: values for kind, values in every.items() if values.any()}
        others = Added(np.zeros((one.rows.nnz, len(places))), every, True, "popular")
        if model.individual is None or self.columns is None or not found.factor[row]:
            return others, layers
        own = over(model.individual, one, places, self.columns, block.facts.of(row))
        return summed([own.times(float(found.factor[row])), others])._replace(by=own.by), layers

    def _wished(
        self, made: Added, row: NDArray[np.float32], entries: Places, vocabulary: pl.Series, at: slice
    ) -> Added:
        """With what the user said: everything lowered alike, and what answers and settings add (`Wished.adjust`)."""
        assert self.wishes is not None
        if self.vocabulary is not vocabulary:
            self.vocabulary, self.wished_there = vocabulary, self.wishes.over(vocabulary)
        wished = self.wished_there
        if wished is None or not wished.moves(at)[0]:
            return made
        places = _moved(np.arange(len(vocabulary)), vocabulary, self.items)
        before = np.where(places >= 0, row[0, places], np.float32(0))[None, :]
        lowered, answered, done = before.copy(), before.copy(), before.copy()
        wished.lower(lowered, at)
        events = self.histories.events[at]
        nothing = 0.0 * wished.leading
        replace(wished, leading=nothing).adjust(answered, at, events)
        wished.adjust(done, at, events)
        first, low, mid, last = (one[0, entries].astype(np.float64) for one in (before, lowered, answered, done))
        left = made.times(np.divide(low, first, out=np.ones_like(first), where=first != 0))
        return summed([left, _only(left, {ANSWERS: mid - low, PREFERRED: last - mid})])


def names(home: Home, items: pl.Series) -> list[str]:
    """How people know each item: its title, else its id (n_items,)."""
    if not tables.exists(home, "items"):
        return items.to_list()
    from persona_cli.events.catalogue import current

    titles = current(home, "items").select("item_id", "title")
    named = items.to_frame("item_id").join(titles, on="item_id", how="left", maintain_order="left")
    return named.select(pl.coalesce("title", "item_id")).to_series().to_list()


def _share(kind: str, item: str | None, share: float) -> Share:
    return {"kind": kind, "item_id": item, "share": round(float(share), 8)}


def _placed(lists: Lists, number: int, column: int) -> str | None:
    """Whether a rule alone put the entry where it is (pinned, drawn); None: its score did."""
    if not isinstance(lists, Ruled):
        return None
    if column < lists.pinned[number]:
        return PINNED
    return DRAWN if lists.drawn[number, column] else None


def _said(key: str) -> str:
    """A rule in words, such as "pinned by rule summer"."""
    _, kind, *name = key.split(".", 2)
    return f"{_DONE[kind]} by rule {name[0]}" if kind in _DONE else _WORDS[DRAWN]


def _moved(entries: Places, vocabulary: pl.Series, items: pl.Series) -> Places:
    """Positions in `items` of positions in `vocabulary`, -1 where missing."""
    return entries if vocabulary is items else positions(vocabulary.gather(entries), items)


def _spread(made: Added, covered: Places, n: int) -> Added:
    """Parts of the `covered` entries among all n."""
    if len(covered) == n:
        return made
    own = np.zeros((len(made.own), n))
    own[:, covered] = made.own
    rest: dict[str, Numbers] = {kind: np.zeros(n) for kind in made.rest}
    for kind, values in made.rest.items():
        rest[kind][covered] = values
    return made._replace(own=own, rest=rest)


def _only(like: Added, rest: dict[str, Numbers]) -> Added:
    """Parts that no item of the history has."""
    return like._replace(own=np.zeros_like(like.own), rest=rest)
