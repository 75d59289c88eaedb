"""Interleaved lists as frames, and what the clicks on them say: which ranking people prefer, and how sure that is.

Lists of the same person are not independent, so that everything is reckoned by person: each brings the sum of what the
own lists say and how many of them were clicked. With outcome o in [-1, 1] of a clicked list (see `outcomes`),

    preference = mean(o) / 2 = (wins of A + ties / 2) / clicked lists - 1/2        (Chapelle et al., TOIS 2012)

from -0.5 (always B) to 0.5 (always A); the second form where outcomes are 1, 0 or -1. For a preference r / 2 every
user has e = sum(o) - r * lists, of mean 0; the test rejects where (sum e)^2 > z^2 sum e^2, and the interval holds every
r that it does not reject (a quadratic, as of Fieller 1954): p and interval never disagree, and a handful of users who
all say the same proves nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from persona_cli.errors import BadData, UsageError, nearest
from persona_cli.experiments.interleaving import METHODS, Merged, interleave, outcomes
from persona_cli.experiments.merging import NOBODY, PADDING, TEAM_A, TEAM_B, Clicks, Floats, Ints, Teams
from persona_cli.experiments.multileaving import contests, multileave
from persona_cli.experiments.sequential import FIRST_LOOK, open_ended_times
from persona_cli.profiles.draws import Keys, hashed, mixed

TEAM_NAMES = {TEAM_A: "a", TEAM_B: "b"}
LETTERS = tuple("abcdefghijklmnopqrst")
"""Teams of lists merged of more than two, in the order of the variants."""
PLANNED_USERS = 1000  # where the always-valid interval is narrowest, unless told


class Tally(NamedTuple):
    """What the test needs of each of many experiments: sums over users; arrays of one shape, or numbers."""

    users: Floats
    """Users with a clicked list."""
    lists: Floats
    """Their clicked lists."""
    outcome: Floats
    """Sum of outcomes."""
    outcome2: Floats
    """Sum over users of (sum of outcomes)^2."""
    cross: Floats
    """Sum over users of (sum of outcomes) * lists."""
    lists2: Floats
    """Sum over users of lists^2."""


class Preference(NamedTuple):
    """Who is preferred: A above 0, B below."""

    method: str
    users: int
    """Users with at least one clicked list; `lists` counts all lists, `clicked` those with a click."""
    lists: int
    clicked: int
    wins_a: int
    wins_b: int
    ties: int
    """Clicked lists that say nothing: wins_a + wins_b + ties = clicked."""
    preference: float
    """From -0.5 to 0.5; 0 where nothing was clicked."""
    low: float
    high: float
    p: float
    """Two-sided, of no preference."""
    always_low: float
    always_high: float
    """An interval that holds at every look at once, for those who stop as soon as they know."""
    stop: bool
    """Whether the always-valid interval leaves out 0: enough is known, whenever that is looked at."""
    confidence: float


def tally(outcome: Floats, clicked: NDArray[np.bool_], group: Ints, groups: int, user: Ints, users: int) -> Tally:
    """Sums (groups,) of lists (n,): outcome, whether clicked, experiment, and user, numbered within the experiment."""
    at = group * users + user
    size = groups * users
    said = np.bincount(at, weights=np.where(clicked, outcome, 0.0), minlength=size).astype(np.float64)
    seen = np.bincount(at, weights=clicked, minlength=size).astype(np.float64)
    return tally_users(said.reshape(groups, users), seen.reshape(groups, users))


def tally_users(said: Floats, seen: Floats) -> Tally:
    """Sums from each user's sum of outcomes and number of clicked lists, both (..., users)."""
    return Tally(
        (seen > 0).sum(axis=-1).astype(np.float64),
        seen.sum(axis=-1),
        said.sum(axis=-1),
        (said * said).sum(axis=-1),
        (said * seen).sum(axis=-1),
        (seen * seen).sum(axis=-1),
    )


def p_values(sums: Tally) -> Floats:
    """Two-sided p of no preference, of each experiment; 1 where no list says anything."""
    from scipy.special import erfc

    z = np.abs(sums.outcome) / np.sqrt(np.where(sums.outcome2 > 0, sums.outcome2, 1.0))
    return np.asarray(erfc(z / np.sqrt(2.0)))


def interval(sums: Tally, squared: Floats | float) -> tuple[Floats, Floats]:
    """Preferences that (sum e)^2 <= squared * sum e^2 does not reject: low and high, cut to -0.5 and 0.5.

    Where users are too few for their own lists to be told from chance, every preference is possible.
    """
    lead = np.asarray(sums.lists**2 - squared * sums.lists2)
    middle = sums.outcome * sums.lists - squared * sums.cross
    end = sums.outcome**2 - squared * sums.outcome2
    root = np.sqrt(np.maximum(middle**2 - lead * end, 0.0))
    known = lead > 0
    safe = np.where(known, lead, 1.0)
    low = np.where(known, (middle - root) / safe, -1.0)
    high = np.where(known, (middle + root) / safe, 1.0)
    return np.clip(low, -1, 1) / 2, np.clip(high, -1, 1) / 2


def always_valid(users: Floats | float, confidence: float, planned: float) -> Floats:
    """What z^2 becomes for an interval that holds at all numbers of users at once, narrowest at about `planned` users.

    The confidence sequence of `sequential.py`; before its first look z^2 is so large that no preference is left out.
    """
    times = open_ended_times(np.maximum(users, 1), planned, 1 - confidence)
    return np.asarray(np.where(np.asarray(users) >= FIRST_LOOK, times**2, 1e12))


def measured(
    merged: Merged,
    clicks: Clicks,
    users: Ints,
    method: str,
    confidence: float = 0.95,
    planned: float = PLANNED_USERS,
) -> Preference:
    """The preference that clicks (n, length) of numbered users (n,) on merged lists tell."""
    clicked: NDArray[np.bool_] = np.any((clicks > 0) & (merged.items >= 0), axis=1)
    return preferred(outcomes(merged, clicks, method), clicked, users, method, confidence, planned)


def preferred(
    outcome: Floats, clicked: NDArray[np.bool_], users: Ints, method: str, confidence: float, planned: float
) -> Preference:
    """The preference that outcomes (n,) of lists tell, of which some were clicked (n,), of numbered users (n,)."""
    from scipy.special import ndtri

    count = int(users.max(initial=-1)) + 1
    sums = tally(outcome, clicked, np.zeros(len(users), dtype=np.int64), 1, users, count)
    low, high = interval(sums, float(ndtri(0.5 + confidence / 2)) ** 2)
    early, late = interval(sums, always_valid(sums.users, confidence, planned))
    n = int(clicked.sum())
    wins_a, wins_b = int((clicked & (outcome > 0)).sum()), int((clicked & (outcome < 0)).sum())
    return Preference(
        method=method,
        users=int(sums.users[0]),
        lists=len(users),
        clicked=n,
        wins_a=wins_a,
        wins_b=wins_b,
        ties=n - wins_a - wins_b,
        preference=float(sums.outcome[0]) / n / 2 if n else 0.0,
        low=float(low[0]),
        high=float(high[0]),
        p=float(p_values(sums)[0]),
        always_low=float(early[0]),
        always_high=float(late[0]),
        stop=bool(early[0] > 0 or late[0] < 0),
        confidence=confidence,
    )


def measured_pairs(
    items: Ints,
    teams: Teams,
    clicks: Clicks,
    users: Ints,
    rankers: int,
    confidence: float = 0.95,
    planned: float = PLANNED_USERS,
) -> dict[tuple[int, int], Preference]:
    """Who is preferred in multileaved lists (n, length) of numbered users (n,), pair by pair as two would be compared.

    A list is won by the one of the two with more clicks. p and intervals are those of each pair by itself.
    """
    beaten = contests(items, teams, clicks, rankers)
    clicked: NDArray[np.bool_] = np.any((clicks > 0) & (items >= 0), axis=1)
    return {
        (one, other): preferred(beaten[:, one, other], clicked, users, "team-draft", confidence, planned)
        for one in range(rankers)
        for other in range(one + 1, rankers)
    }


def list_keys(salt: str, users: pl.Series, lists: pl.Series | None = None) -> Keys:
    """The chance of each list (n,): of the experiment's salt, the user's id and the list's, and of nothing else."""
    keys = _hashes(users, salt, b"user")
    return mixed(keys if lists is None else keys ^ mixed(_hashes(lists.cast(pl.String), salt, b"list")))


def interleave_lists(
    a: pl.DataFrame, b: pl.DataFrame, method: str = "team-draft", salt: str = "", length: int | None = None
) -> pl.DataFrame:
    """Lists of two models merged: `user_id`[, `list_id`], `items` in; the same columns and `teams` out, sorted by user.

    `items` are lists of ids, best first (a repeated or null id is dropped); `teams` holds "a", "b" or null for each.
    `probabilistic` and `optimised` add `credit`, `balanced` adds `rank_a` and `rank_b`: `measure_preferences` needs
    them. A user whom only one model has a list for gets that list, credited to nobody. `salt` is the experiment's.
    Raises BadData where a user (and list_id) comes twice.
    """
    on = ["user_id", "list_id"] if "list_id" in a.columns else ["user_id"]
    for name, frame in (("A", a), ("B", b)):
        if len(twice := frame.filter(frame.select(on).is_duplicated())):
            user = twice["user_id"][0]
            raise BadData(f"user {user!r} has more than one list of {name}; expected one, or a list_id for each")
    both = a.select(*on, "items").join(b.select(*on, others="items"), on=on, how="full", coalesce=True).sort(on)
    ids = pl.concat([both["items"].explode(), both["others"].explode()]).drop_nulls().unique().sort()
    merged = interleave(
        _matrix(both["items"], ids),
        _matrix(both["others"], ids),
        list_keys(salt, both["user_id"], both["list_id"] if "list_id" in on else None),
        method,
        length,
    )
    sizes = (merged.items >= 0).sum(axis=1)
    names = pl.Series(list(TEAM_NAMES.values()))
    columns = {
        "items": _lists(ids, merged.items, sizes),
        "teams": _lists(names, merged.teams, sizes),
    }
    if merged.credit is not None:
        columns["credit"] = _lists(None, merged.credit, sizes)
    if merged.ranks is not None:
        columns["rank_a"], columns["rank_b"] = (_lists(None, merged.ranks[:, :, team], sizes) for team in (0, 1))
    return both.select(on).with_columns(**columns)


def multileave_lists(frames: Sequence[pl.DataFrame], salt: str = "", length: int | None = None) -> pl.DataFrame:
    """Lists of more than two models merged by team draft: `user_id`, `items` in; and `teams` out, sorted by user.

    `teams` holds one of `LETTERS` for each entry, or null. Where a user lacks a list of one model nothing is credited.
    """
    whole = frames[0].select("user_id", items0="items")
    for number, frame in enumerate(frames[1:], 1):
        whole = whole.join(
            frame.select("user_id", pl.col("items").alias(f"items{number}")), "user_id", "full", coalesce=True
        )
    whole = whole.sort("user_id")
    columns = [whole[f"items{number}"] for number in range(len(frames))]
    ids = pl.concat([one.explode() for one in columns]).drop_nulls().unique().sort()
    parts = [_matrix(one, ids) for one in columns]
    width = max(part.shape[1] for part in parts)
    rankings = np.full((whole.height, len(parts), width), PADDING, dtype=np.int64)
    for number, part in enumerate(parts):
        rankings[:, number, : part.shape[1]] = part
    items, teams = multileave(rankings, list_keys(salt, whole["user_id"]), length)
    sizes = (items >= 0).sum(axis=1)
    return whole.select("user_id").with_columns(
        items=_lists(ids, items, sizes), teams=_lists(pl.Series(LETTERS), teams, sizes)
    )


def measure_pairs(
    lists: pl.DataFrame, rankers: int, confidence: float = 0.95, planned: float = PLANNED_USERS
) -> dict[tuple[int, int], Preference]:
    """`measured_pairs` of lists as `multileave_lists` wrote them, with `clicks`; BadData as `measure_preferences`."""
    _check_lengths(lists)
    numbers = {name: team for team, name in enumerate(LETTERS[:rankers])}
    teams = lists["teams"].list.eval(pl.element().replace_strict(numbers, default=NOBODY, return_dtype=pl.Int8))
    items = np.where(_inside(lists["clicks"]), 0, PADDING)
    clicks = _filled(lists["clicks"].cast(pl.List(pl.Float64)), 0.0)
    users = lists["user_id"].rank("dense").to_numpy().astype(np.int64) - 1
    return measured_pairs(items, _filled(teams, NOBODY).astype(np.int8), clicks, users, rankers, confidence, planned)


def _check_lengths(lists: pl.DataFrame) -> None:
    wrong = lists.filter(pl.col("teams").list.len() != pl.col("clicks").list.len())
    if len(wrong):
        user = wrong["user_id"][0]
        raise BadData(f"a list of user {user!r} has another number of clicks than of items; expected one for each")


def measure_preferences(
    lists: pl.DataFrame, method: str = "team-draft", confidence: float = 0.95, planned: float = PLANNED_USERS
) -> Preference:
    """The preference told by lists as `interleave_lists` wrote them and their `clicks` (a number or Boolean an item).

    `planned` users is where the always-valid interval is to be narrowest. Raises UsageError for an unknown method,
    BadData for a column that the method needs and the frame lacks, or lists of another length than their clicks.
    """
    if method not in METHODS:
        raise UsageError(f"no interleaving method {method!r}{nearest(method, METHODS)}")
    extra = {"balanced": ("rank_a", "rank_b"), "probabilistic": ("credit",), "optimised": ("credit",)}
    needed = ("user_id", "teams", "clicks", *extra.get(method, ()))
    if missing := [name for name in needed if name not in lists.columns]:
        raise BadData(f"interleaved lists have no column {missing[0]!r}; expected {', '.join(needed)} for {method}")
    _check_lengths(lists)
    numbers = {name: team for team, name in TEAM_NAMES.items()}
    teams = lists["teams"].list.eval(pl.element().replace_strict(numbers, default=NOBODY, return_dtype=pl.Int8))
    ranks = None
    if method == "balanced":
        ranks = np.stack([_filled(lists[name], 0) for name in ("rank_a", "rank_b")], axis=2).astype(np.int16)
    merged = Merged(
        np.where(_inside(lists["clicks"]), 0, PADDING),  # which items they are is of no account
        _filled(teams, NOBODY).astype(np.int8),
        _filled(lists["credit"], 0.0) if method in ("probabilistic", "optimised") else None,
        ranks,
    )
    clicks = _filled(lists["clicks"].cast(pl.List(pl.Float64)), 0.0)
    users = lists["user_id"].rank("dense").to_numpy().astype(np.int64) - 1
    return measured(merged, clicks, users, method, confidence, planned)


def _hashes(ids: pl.Series, salt: str, what: bytes) -> Keys:
    """Keyed blake2b of each id, 64 bits (n_ids,)."""
    key = hashlib.blake2b(salt.encode(), digest_size=32, person=what).digest()
    return hashed(ids.cast(pl.String).fill_null("None"), key)[:, 0]


def _where(lists: pl.Series) -> tuple[Ints, Ints, int]:
    """Row and place of each entry of a column of lists, and the longest list."""
    sizes = lists.list.len().fill_null(0).to_numpy().astype(np.int64)
    starts = np.cumsum(sizes) - sizes
    row = np.repeat(np.arange(len(sizes)), sizes)
    return row, np.arange(len(row)) - starts[row], int(sizes.max(initial=0))


def _entries(lists: pl.Series) -> pl.Series:
    """All entries one after another: nothing for an empty or missing list."""
    return lists.drop_nulls().filter(lists.drop_nulls().list.len() > 0).explode()


def _filled(lists: pl.Series, otherwise: float) -> Floats:
    """A column of lists of numbers as (n, longest), `otherwise` after the end and for null."""
    row, place, width = _where(lists)
    matrix = np.full((len(lists), width), otherwise, dtype=np.float64)
    matrix[row, place] = _entries(lists).cast(pl.Float64).fill_null(otherwise).to_numpy()
    return matrix


def _inside(lists: pl.Series) -> NDArray[np.bool_]:
    """Which places of (n, longest) a column of lists fills."""
    row, place, width = _where(lists)
    matrix = np.zeros((len(lists), width), dtype=np.bool_)
    matrix[row, place] = True
    return matrix


def _matrix(lists: pl.Series, ids: pl.Series) -> Ints:
    """A column of lists of ids as numbers into sorted `ids` (n, longest), -1 after the end and for null."""
    row, place, width = _where(lists)
    numbers = pl.DataFrame({"id": ids, "number": np.arange(len(ids))})
    found = _entries(lists).to_frame("id").join(numbers, on="id", how="left", maintain_order="left")["number"]
    matrix = np.full((len(lists), width), PADDING, dtype=np.int64)
    matrix[row, place] = found.fill_null(PADDING).to_numpy()
    return matrix


def _lists(names: pl.Series | None, matrix: NDArray[np.generic], sizes: Ints) -> pl.Series:
    """Rows of a matrix cut to their sizes (n,), as lists of the names that their numbers stand for (null below 0)."""
    flat = pl.Series("entry", np.ascontiguousarray(matrix).ravel())
    if names is not None:
        flat = names.gather(pl.select(pl.when(flat >= 0).then(flat)).to_series())
    if not flat.len():
        return pl.Series([[]] * len(matrix), dtype=pl.List(flat.dtype))
    rows = flat.rename("rows").reshape(matrix.shape).arr.to_list()
    return pl.DataFrame({"rows": rows, "size": sizes}).select(pl.col("rows").list.head(pl.col("size"))).to_series()
