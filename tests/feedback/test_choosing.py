"""The choice between models: the simpler one stays unless another is clearly better, and why is said."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from shop import START, add, shop

from persona_cli.errors import MissingInput
from persona_cli.feedback import choosing
from persona_cli.feedback.choosing import EVIDENCE, METRIC, choose, clearly_better
from persona_cli.profiles.history import signal_events
from persona_cli.workspace.home import Home, create


def events(home: Home) -> pl.DataFrame:
    return signal_events(home).collect()


def test_where_tastes_differ_an_individual_model_is_taken(home: Home) -> None:
    choice = choose(events(home), home.settings, ["knn", "ease"], tune=True)
    assert choice.individual in ("knn", "ease")
    assert set(choice.figures) == {"popular", "knn", "ease", "layered"}
    assert choice.figures["layered"].value > choice.figures["popular"].value + 0.1
    assert choice.evidence == "auto" or choice.evidence in EVIDENCE
    assert choice.individual in choice.why
    assert METRIC in choice.why


def test_where_everybody_is_alike_the_popular_list_is_kept(tmp_path) -> None:
    home = create(tmp_path / "alike")
    add(
        home,
        [
            {"user_id": f"u{u:02d}", "item_id": f"i{week:02d}", "timestamp": START + timedelta(weeks=week, minutes=u)}
            for u in range(40)
            for week in range(12)
        ],
    )
    choice = choose(events(home), home.settings, ["knn", "ease"], tune=True)
    assert choice.individual is None
    assert choice.evidence == "auto"
    assert "nothing is clearly better than the popular list" in choice.why


def test_with_few_users_any_gain_makes_lists_personal_and_with_many_only_a_sure_one(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choosing, "clearly_better", lambda *_: False)
    few = choose(events(home), home.settings, ["knn", "ease"], tune=True)
    assert few.users < choosing.FEW
    assert few.individual == "knn", "and the simplest of them"
    monkeypatch.setattr(choosing, "FEW", few.users)
    assert choose(events(home), home.settings, ["knn", "ease"], tune=True).individual is None


def test_the_simpler_of_two_equal_models_is_kept(home: Home) -> None:
    # With so large a penalty EASE is the item sums without their normalisation: not clearly better than knn.
    settings = home.settings.with_flags({"model.ease.lambda": 1e9, "model.knn.left": 0, "model.knn.right": 0})
    choice = choose(events(home), settings, ["knn", "ease"], tune=False)
    assert choice.figures["knn"].value == pytest.approx(choice.figures["ease"].value)
    assert choice.individual == "knn"


def test_evidence_is_chosen_only_where_it_is_auto_and_asked_for(home: Home) -> None:
    fixed = home.settings.with_flags({"model.layered.evidence": 2.5})
    assert choose(events(home), fixed, ["knn"], tune=True).evidence == 2.5
    assert choose(events(home), home.settings, ["knn"], tune=False).evidence == "auto"


def test_at_most_the_users_allowed_are_asked_and_they_are_always_the_same(home: Home) -> None:
    settings = home.settings.with_flags({"train.validation_users": 25})
    first, second = (choose(events(home), settings, ["knn"], tune=True) for _ in range(2))
    assert first.users == 25
    assert first == second
    shuffled = events(home).sample(fraction=1.0, shuffle=True, seed=1)
    assert choose(shuffled, settings, ["knn"], tune=True) == first


def test_with_nothing_to_ask_there_is_no_choice(tmp_path) -> None:
    home = shop(tmp_path / "one", n_users=1)
    few = events(home).head(1)
    with pytest.raises(MissingInput):
        choose(few, home.settings, ["knn"], tune=True)


def test_clearly_better_is_paired_and_strict() -> None:
    base = np.linspace(0, 1, 200)
    assert clearly_better(base + 0.01, base), "a small gain that everybody has is sure"
    assert not clearly_better(base, base)
    assert not clearly_better(base - 0.01, base)
    assert not clearly_better(np.where(np.arange(200) % 2, base + 0.5, base - 0.49), base), "a gain by luck is not"
