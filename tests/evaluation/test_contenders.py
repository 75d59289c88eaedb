"""Which recipe a contender is made by: the saved one it names, the newest, or the settings in force."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from persona_cli.errors import MissingInput, UsageError
from persona_cli.evaluation.contenders import as_saved, full_keys, recipes
from persona_cli.feedback.training import train
from persona_cli.workspace.home import Home, open_home

ROWS = [(f"u{user}", f"i{(user + n) % 7}", 24.0 * n) for user in range(8) for n in range(4)]


def test_short_names_of_settings() -> None:
    assert full_keys({"lambda": 1, "evaluate.k": "5"}, ["ease/3"]) == {"model.ease.lambda": 1, "evaluate.k": "5"}
    assert full_keys({"knn.left": 0.5}, ["knn", "ease"]) == {"model.knn.left": 0.5}
    assert full_keys({"lambda": 1}, ["knn", "ease"]) == {"lambda": 1}  # of which? settings will say that it is none


def test_settings_in_force_where_nothing_was_trained(ingest: Callable[..., Home]) -> None:
    home = ingest(ROWS)
    knn, popular = recipes(home, ["knn"], {"model.knn.left": 0.25})
    assert (knn.label, knn.saved, knn.settings.number("model.knn.left")) == ("knn", None, 0.25)
    assert popular.label == "popular" and not knn.chosen_after(None)
    layered, _ = recipes(home, ["layered"])
    assert layered.individual == "knn"
    assert [one.label for one in recipes(home, ["popular", "knn", "popular"])] == ["popular", "knn"]
    with pytest.raises(UsageError, match="there is no model 'nkn'"):
        recipes(home, ["nkn"])
    with pytest.raises(MissingInput, match="no knn model has been trained yet"):
        as_saved(recipes(home, ["knn"]))


def test_saved_recipes_win_over_the_file_and_lose_to_flags(ingest: Callable[..., Home]) -> None:
    home = ingest(ROWS)
    train(home, ["knn"], {"knn.left": 0.25})
    text = (home.root / "persona.toml").read_text().replace('left = "auto"', "left = 0.75")
    (home.root / "persona.toml").write_text(text)
    home = open_home(home.root)
    assert home.settings.number("model.knn.left") == 0.75
    layered, popular = recipes(home, [])
    assert layered.settings.number("model.knn.left") == 0.25 and layered.unchanged
    assert layered.individual == "knn" and popular.saved is not None
    given, _ = recipes(home, ["layered/1"], {"model.knn.left": 0.5})
    assert given.label == "layered/1" and given.settings.number("model.knn.left") == 0.5 and not given.unchanged


def test_what_was_chosen_on_data_is_known_until_a_flag_decides(ingest: Callable[..., Home]) -> None:
    home = ingest(ROWS)
    train(home)
    layered, _ = recipes(home, [])
    assert layered.saved is not None and "individual" in layered.chosen
    until = layered.saved.trained_until
    assert layered.chosen_after(until - timedelta(days=1)) and not layered.chosen_after(until)
    assert not layered.chosen_after(None)
    given, _ = recipes(home, [], {"model.layered.evidence": 2.0})
    assert "model.layered.evidence" not in given.chosen and given.settings.number("model.layered.evidence") == 2.0
