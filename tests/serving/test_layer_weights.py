"""`profile show`: the layers that serve a user are those of the lists, and what the next one needs."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from shop import START, add, add_items, events, shop, user

from persona_cli.consent.receipts import record
from persona_cli.errors import MissingInput
from persona_cli.feedback.training import train
from persona_cli.models import registry
from persona_cli.models.base import reads_queries
from persona_cli.models.layered import Layered
from persona_cli.profiles.people import person
from persona_cli.profiles.permitted import PERSONALIZATION, in_holdout
from persona_cli.profiles.sync import sync
from persona_cli.serving.context import audience
from persona_cli.serving.layer_weights import half_of, layers_of
from persona_cli.workspace.home import Home, create

NEW = [
    {"user_id": "new", "item_id": item, "timestamp": START + timedelta(days=day)}
    for day, item in enumerate(["a00", "b03", "a01"])
]
STRANGE = [{"user_id": "odd", "item_id": f"z{day}", "timestamp": START + timedelta(days=day)} for day in range(6)]


def told(home: Home, name: str) -> dict[str, Any]:
    found: dict[str, Any] = person(home, name, layers=layers_of)["layers"]
    return found


def of_lists(home: Home, name: str) -> dict[str, float]:
    """The weights by which the lists of a user are added up."""
    saved = registry.load_model(home)
    assert isinstance(saved.model, Layered)
    asked = audience(home, pl.Series("user_id", [name]), queries=reads_queries(saved.model))
    layers = saved.model.layers(asked.histories(saved.model.items, saved.recipe(home.settings)))
    return {key: float(getattr(layers, key)[0]) for key in ("context", "cohort", "individual")}


def with_more(home: Home) -> Home:
    add(home, NEW + STRANGE)
    sync(home)
    return home


def everybody(home: Home) -> list[str]:
    names = pl.Series([*map(user, range(12)), "new", "odd"])
    return names.filter(~in_holdout(home, names)).to_list()


def test_weights_are_those_of_the_lists(home: Home) -> None:
    home = with_more(home)
    for name in everybody(home):
        assert told(home, name)["weights"] == pytest.approx(of_lists(home, name), abs=1e-4)
    new = told(home, "new")
    assert (new["model"], new["events"], new["divergence"]) == (registry.latest(home), 3, None)
    assert new["next"] == [
        {"layer": "cohort", "from": 5, "items": 2, "half": None},  # what is served has no cohort part
        {"layer": "individual", "from": 20, "items": 17, "half": 1},
    ]
    odd = told(home, "odd")
    assert odd["weights"] == {"context": 1.0, "cohort": 0.0, "individual": 0.0}
    assert odd["why"].endswith("knows nothing that this user did")


def test_with_a_cohort_part_divergence_counts(tmp_path: Path) -> None:
    home = shop(tmp_path / "w")
    leaning = {"model.layered.evidence": 15.0, "model.layered.few_users": 1000.0}
    train(home, ["knn"], {"model.layered.cohort_evidence": 5.0, **leaning})
    home = with_more(home)
    for name in everybody(home):
        found = told(home, name)
        assert found["weights"] == pytest.approx(of_lists(home, name), abs=1e-4)
        assert 0 <= found["divergence"] <= 1
    new = {one["layer"]: one for one in told(home, "new")["next"]}
    assert new["cohort"] == {"layer": "cohort", "from": 5, "items": 2, "half": 5}
    # 80 users of 1,000: 15 · (1 + ½ · 0.92) = 21.9 events where nothing diverges.
    assert new["individual"]["half"] == 22
    assert told(home, "odd")["weights"]["cohort"] == 0.0


def test_searches_count_where_a_model_reads_them(tmp_path: Path) -> None:
    home = create(tmp_path / "w")
    add(home, events())
    add_items(
        home, [{"item_id": f"{side}{n:02d}", "title": f"thing {side}{side}{side}"} for side in "ab" for n in range(20)]
    )
    train(home, ["content"])
    asked = {"event_type": "search", "timestamp": START, "item_id": None}
    add(home, [{"user_id": "seeker", "query": "aaa", **asked}, {"user_id": "lost", "query": "qqq", **asked}])
    sync(home)
    for name in pl.Series(["seeker", "lost"]).to_list():
        if not in_holdout(home, pl.Series([name]))[0]:
            assert told(home, name)["weights"] == pytest.approx(of_lists(home, name), abs=1e-4)
    assert told(home, "lost")["weights"]["individual"] == 0.0


def test_without_a_model_it_says_what_would_be(tmp_path: Path) -> None:
    home = with_more(create(tmp_path / "w"))
    found = told(home, "new")
    assert found["model"] is None
    if not in_holdout(home, pl.Series(["new"]))[0]:
        assert found["weights"] == {"context": 0.25, "cohort": 0.0, "individual": 0.75}
        assert found["why"] == "no model is trained yet, the settings would give this"
        settings = home.settings.with_flags({"model.layered.cohort_evidence": 3.0, "model.layered.evidence": 4.0})
        # u = 81 / (81 + 256) and c = 3 / (3 + 3) of what is left
        weights = told(replace(home, settings=settings), "new")["weights"]
        assert weights == pytest.approx({"context": 0.3798, "cohort": 0.3798, "individual": 0.2404})


def test_who_is_held_out_or_not_covered_has_the_context_alone(home: Home) -> None:
    names = pl.Series([user(number) for number in range(80)])
    held = in_holdout(home, names)
    one = names.filter(held)[0]
    found = told(home, one)
    assert found["weights"] == {"context": 1.0, "cohort": 0.0, "individual": 0.0}
    assert found["why"].startswith("held out")
    assert found["model"] is not None
    one = names.filter(~held)[0]
    record(home, [one], [PERSONALIZATION], "withdrawn", at=START + timedelta(weeks=20), source="test")
    found = told(home, one)
    assert found["weights"] == {"context": 1.0, "cohort": 0.0, "individual": 0.0}
    assert found["why"] == "personalization does not cover them"


def test_half_of_the_weight_is_the_first_number_of_events_that_reaches_it() -> None:
    assert half_of(lambda n: n / (n + 7.0)) == 7
    assert half_of(lambda n: n**2 / (n**2 + 6.5**2)) == 7
    assert half_of(lambda n: np.zeros(len(n))) is None


def test_nobody_of_that_name_is_said(home: Home) -> None:
    with pytest.raises(MissingInput):
        told(home, "nobody")
