"""Ratings by their distance from the user's own mean: what they speak, and that it follows from mergeable sums."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest
import strategies
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from stored import Event, add, at, frame

from persona_cli.errors import MissingInput
from persona_cli.evaluation.exams import by_pairs
from persona_cli.models.interactions import interactions_of
from persona_cli.profiles import history as histories
from persona_cli.profiles.coding import coded
from persona_cli.profiles.fitting import fit_signals
from persona_cli.profiles.history import decayed, faded, fold_history, history, negative, signal_events, summed
from persona_cli.profiles.read import preferred_categories
from persona_cli.profiles.signal_fit import ALONE, MOST, Centring, centring, estimated
from persona_cli.profiles.signals import coded_signals, signals_digest, weights_digest, with_signals
from persona_cli.profiles.sync import behind, sync
from persona_cli.serving.context import audience
from persona_cli.workspace import tables
from persona_cli.workspace.home import Home, open_home
from persona_cli.workspace.settings import load

OFF = load(None, {})
ON = OFF.with_flags({"signals.center_ratings": True})
with_ratings = st.lists(
    st.one_of(
        strategies.event(),
        st.builds(
            lambda user, item, value, day: {
                "user_id": user, "item_id": item, "event_type": "rating", "value": value, "timestamp": at(day)
            },
            st.sampled_from("uvw"), st.sampled_from("xyz"), st.sampled_from([1.0, 3.5, 5.0, None]), st.integers(0, 9),
        ),
    ),
    max_size=25,
)  # fmt: skip


def rating(item: str, value: float | None, day: int = 0, user: str = "u") -> Event:
    return {"user_id": user, "item_id": item, "event_type": "rating", "value": value, "timestamp": at(day)}


def folded(events: Sequence[Event]) -> pl.DataFrame:
    keyed = frame(events).lazy().with_columns(user_id=pl.coalesce("user_id", "anon_id"))
    return fold_history(with_signals(keyed, ON))


def turned_on(home: Home, more: str = "") -> Home:
    (home.root / "persona.toml").write_text(f"signals.center_ratings = true\nsignals.half_life_days = 0\n{more}")
    return open_home(home.root)


def test_a_rating_speaks_by_its_distance_from_the_users_own_mean() -> None:
    strict = [rating("x", 3), rating("y", 2), rating("z", 1)]
    mild = [rating(item, value, user="v") for item, value in zip("xyz", (5, 4, 3), strict=True)]
    same = [rating(item, 4, user="w") for item in "xyz"]
    found = decayed(folded([*strict, *mild, *same]), 0)
    assert found["strength"].to_list() == [2, 1, 0, 2, 1, 0, 1, 1, 1]
    # Drawn to a mean of 3 as if by two more ratings, in units of half a star: u's mean becomes (6 + 6) / 5.
    drawn = decayed(folded(strict), 0, Centring(3.0, 0.5, 2.0))
    assert drawn["strength"].to_list() == pytest.approx([1 + (value - 2.4) / 0.5 for value in (3, 2, 1)])


def test_other_signals_are_beside_it_and_both_fade() -> None:
    found = decayed(folded([rating("x", 5), rating("y", 1), {"item_id": "x", "timestamp": at(10)}]), 10)
    assert found["strength"].to_list() == pytest.approx([0.5 * 3 + 1, 0.5 * -1])
    assert found["n"].to_list() == [2, 1]


def test_what_is_declared_as_nothing_or_never_stays_so() -> None:
    table = {"rating>=5": "never", "rating>=3": 1, "rating": 0}
    settings = ON.with_flags({"signals.strengths": table})
    rows = with_signals(frame([rating("x", value) for value in (5, 4, 1, None)]).lazy(), settings).collect()
    assert rows["rated"].to_list() == [None, 4000, None, None]
    assert "rated" not in with_signals(frame([rating("x", 5)]).lazy(), OFF).collect().columns


@examples(max_examples=60, deadline=None)
@given(with_ratings, st.data())
def test_folds_of_parts_add_up_and_coded_signals_agree(events: list[Event], data: st.DataObject) -> None:
    part = data.draw(st.lists(st.integers(0, 2), min_size=len(events), max_size=len(events)))
    parts = [folded([e for e, p in zip(events, part, strict=True) if p == number]) for number in range(3)]
    whole = folded(events)
    assert summed(pl.concat(parts)).equals(whole)
    without = summed(pl.concat([whole, negative(parts[1])]))
    assert without.equals(folded([e for e, p in zip(events, part, strict=True) if p != 1]))
    keyed = frame(events).with_columns(user_id=pl.coalesce("user_id", "anon_id"))
    texts = ["user_id", "item_id", "event_type"]
    if events:
        rows = coded(keyed.select(*texts, "value", "timestamp"), texts)
        assert histories.fold_coded_history(rows, coded_signals(rows, ON)).equals(whole)


@examples(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from("xyz"), st.integers(1, 5), st.integers(0, 9)), min_size=2, max_size=12))
def test_incremental_is_rebuilt_and_as_of_is_the_past(make_home: object, drawn: list[tuple[str, int, int]]) -> None:
    home = turned_on(make_home())  # type: ignore[operator]
    events = [rating(item, value, day) for item, value, day in drawn]
    for event in events:
        add(home, [event])
        sync(home)
    grown = history(home)
    assert grown.equals(fold_history(signal_events(home)))
    assert sync(home, rebuild=True).mode == "rebuilt" and history(home).equals(grown)
    earlier = [event for event in events if event["timestamp"] < at(5)]
    assert faded(history(home, at(5)), home.settings).equals(faded(folded(earlier), home.settings))


def test_a_history_of_another_version_or_setting_is_made_again(home: Home) -> None:
    add(home, [rating("x", 5), rating("y", 4)])
    sync(home)
    declared = history(home)
    assert declared["strength"].to_list() == [3000, 3000] and declared["ratings"].to_list() == [0, 0]
    tables.drop(home, histories.NAME)
    older = histories.SCHEMA
    for name in ("rated", "ratings"):
        older = older.remove(older.get_field_index(name))
    tables.open_or_create(home, histories.NAME, older, ["bucket"])
    assert behind(home) == "they are of another version of persona"
    for read in (history, preferred_categories, lambda one: audience(one, pl.Series("user_id", ["u"]))):
        with pytest.raises(MissingInput, match="another version of persona"):
            read(home)
    assert sync(home).mode == "rebuilt" and history(home).equals(declared)
    home = turned_on(home)
    assert sync(home).mode == "rebuilt"
    assert history(home).select("strength", "rated", "ratings").rows() == [(0, 5000, 1), (0, 4000, 1)]


def test_right_answers_stay_those_of_the_declared_strengths() -> None:
    events = with_signals(frame([rating("x", 5), rating("y", 4.5), rating("z", 4)]).lazy(), ON).collect()
    matrix = interactions_of(events, ON)
    assert matrix.strengths.toarray().tolist() == [[1.5, 1.0, 0.5]]
    assert (events["strength"] > 0).all()
    later = pl.DataFrame({"user_id": ["u"], "item_id": ["new"]})
    assert by_pairs(events.with_columns(consumed=True), later, "t").train["rated"].to_list() == [5000, 4500, 4000]


def test_a_fit_finds_mean_spread_and_weight(home: Home) -> None:
    rng = np.random.default_rng(1)
    means = rng.normal(3.5, 0.5, 2000)
    n = rng.integers(2, 30, 2000)
    stars = [rng.normal(mean, 1.0, size) for mean, size in zip(means, n, strict=True)]
    users = pl.DataFrame({"n": n, "total": [one.sum() for one in stars], "squares": [(one**2).sum() for one in stars]})
    found = estimated(users)
    assert found is not None
    assert found.mean == pytest.approx(3.5, abs=0.05)
    assert found.unit == pytest.approx(1.0, abs=0.02)
    assert found.weight == pytest.approx(4.0, rel=0.15)  # 1 / 0.5²
    assert estimated(users.head(19)) is None, "fewer people than may be told of"
    alike = pl.DataFrame({"n": [2] * 30, "total": [6.0] * 30, "squares": [20.0] * 30})
    assert estimated(alike) == Centring(3.0, 1.414214, MOST)
    assert estimated(alike.with_columns(squares=pl.lit(18.0))) is None, "all of one user's ratings alike"


def test_a_fit_is_in_force_with_the_setting_alone(home: Home) -> None:
    events = [rating(f"i{k}", 1 + (k * n) % 5, user=f"u{n:02d}") for n in range(1, 25) for k in range(4)]
    add(home, events)
    on = turned_on(home)
    assert centring(on.settings) == ALONE
    kept, before = weights_digest(home.settings), weights_digest(on.settings)
    fit_signals(on)
    home, on = open_home(home.root), open_home(home.root)
    off = home.settings.with_flags({"signals.center_ratings": False})
    assert weights_digest(off.with_flags({"signals.half_life_days": 180})) == kept
    assert weights_digest(on.settings) != before
    assert signals_digest(on.settings) != signals_digest(off)
    counts = frame(events)["value"]
    assert centring(on.settings).mean == pytest.approx(counts.mean(), abs=1e-6)
