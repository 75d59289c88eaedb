"""Whether a cohort part is served: only where it is clearly better, for all or for the users that it is for."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from shop import START, shop

from persona_cli.errors import BadSettings
from persona_cli.evaluation.evaluate import evaluate
from persona_cli.feedback import choosing
from persona_cli.feedback.candidates import Further, Judged, around
from persona_cli.feedback.choosing import WITH_COHORT, choose, decide, with_cohort
from persona_cli.feedback.training import train
from persona_cli.models import registry
from persona_cli.models.layered import Layered
from persona_cli.profiles.history import signal_events
from persona_cli.serving.recommend import recommend
from persona_cli.workspace.home import Home, create

NEW = around("knn", 9.0, cohort=True)
OFFERED = Further(("knn",), (), (), (9.0,))


def cut(number: int, few: float, many: float, n_few: int = 300) -> Judged:
    """600 users, the first `n_few` with 5 known events, the others with 50; what the cohort part changes for either."""
    draws = np.random.default_rng(number)
    noise = draws.normal(0.0, 0.02, 600)
    base = draws.normal(0.2, 0.1, 600)
    change = np.where(np.arange(600) < n_few, few, many) + noise - noise.mean()
    columns = {"popular": base - 0.1, "knn": base, around("knn"): base, NEW: base + change}
    frame = pl.DataFrame({"user_id": [f"u{user:03d}" for user in range(600)], **columns})
    return Judged(f"cut {number}", START, None, frame, np.where(np.arange(600) < n_few, 5, 50))


def chosen(*cuts: Judged) -> float | None:
    return decide(cuts, ["knn"], "auto", OFFERED).cohort_evidence


def test_what_is_clearly_better_for_all_is_taken_and_said() -> None:
    choice = decide([cut(0, 0.01, 0.01), cut(1, 0.01, 0.01)], ["knn"], "auto", OFFERED)
    assert (choice.cohort_evidence, choice.evidence, choice.served) == (2.0, 9.0, NEW)
    assert "knn is taken with a cohort part and evidence 9 (" in choice.why
    record = choice.record()
    assert record is not None
    assert (record["cohort_evidence"], record["served"]) == (2.0, "layered around knn with cohorts, evidence 9")


def test_what_helps_users_with_few_events_is_taken_where_nobody_pays_for_it() -> None:
    paid = [cut(number, 0.02, -0.019) for number in range(2)]
    pooled = [np.mean([one.values(name) for one in paid], axis=0) for name in (NEW, "knn")]
    assert not choosing.clearly_better(*pooled), "not better for all"
    assert chosen(*paid) == 2.0, "and nothing is lost"
    assert chosen(cut(0, 0.02, -0.04), cut(1, 0.02, -0.04)) is None, "others lose more than 1 % of all"
    assert chosen(cut(0, 0.02, -0.019), cut(1, -0.002, 0.002)) is None, "at one cut only"
    assert chosen(cut(0, 0.02, -0.003, 90), cut(1, 0.02, -0.003, 90)) is None, "too few to be sure"


def test_what_helps_beginnings_is_taken_where_nobody_pays_for_it() -> None:
    def at(number: int, early: float, all_of_them: float, new: int = 300) -> Judged:
        one = cut(number, all_of_them, all_of_them, 0)
        draws = np.random.default_rng(number + 50)
        base, noise = draws.normal(0.1, 0.05, new), draws.normal(0.0, 0.02, new)
        known = {"user_id": [f"n{user:03d}" for user in range(new)], around("knn"): base}
        frame = pl.DataFrame({**known, NEW: base + early + noise - noise.mean()})
        return replace(one, beginnings=frame)

    assert chosen(*[at(number, 0.02, 0.0) for number in range(2)]) == 2.0
    assert chosen(*[at(number, 0.02, -0.01) for number in range(2)]) is None, "all others lose 5 %"
    assert chosen(at(0, 0.02, 0.0), at(1, -0.01, 0.0)) is None, "at one cut only"
    assert chosen(*[at(number, 0.02, 0.0, 60) for number in range(2)]) is None, "too few to be sure"


def test_of_parts_that_help_the_one_for_beginnings_is_taken() -> None:
    other = around("knn", 27.0, cohort=True)
    cuts = []
    for number in range(2):
        one = cut(number, 0.0, 0.0, 0)
        base = np.linspace(0.05, 0.2, 300)
        frame = pl.DataFrame(
            {"user_id": [f"n{user:03d}" for user in range(300)], around("knn"): base, NEW: base + 0.02}
        ).with_columns(pl.Series(other, base + 0.03))
        figures = one.figures.with_columns(pl.col(NEW).alias(other))
        cuts.append(replace(one, figures=figures, beginnings=frame))
    choice = decide(cuts, ["knn"], "auto", Further(("knn",), (), (), (9.0, 27.0)))
    assert (choice.evidence, choice.served) == (27.0, other)


def test_noise_is_not_taken_for_help() -> None:
    taken = 0
    for seed in range(200):
        cuts = []
        for number in range(2):
            made = cut(number, 0.0, 0.0)
            drawn = np.random.default_rng([seed, number]).normal(0.0, 0.05, 600)
            frame = made.figures.with_columns(pl.Series(NEW, made.values("knn") + drawn))
            cuts.append(Judged("", START, None, frame, made.events))
        taken += chosen(*cuts) is not None
    assert taken <= 10


def test_without_known_counts_only_all_users_decide() -> None:
    cuts = [cut(number, 0.02, -0.019) for number in range(2)]
    assert chosen(*[Judged(one.headline, one.cut, one.until, one.figures) for one in cuts]) is None


def test_it_is_tried_where_settings_leave_it_open(tmp_path: Path) -> None:
    settings = create(tmp_path / "w").settings
    assert with_cohort(settings) == WITH_COHORT
    assert with_cohort(settings.with_flags({"model.layered.evidence": 7})) == (7.0,)
    assert with_cohort(settings.with_flags({"model.layered.cohort_evidence": "none"})) == ()
    assert with_cohort(settings.with_flags({"model.layered.cohort_evidence": 4})) == ()
    with pytest.raises(BadSettings):
        settings.with_flags({"model.layered.cohort_evidence": -1})


def test_training_compares_with_and_without(tmp_path: Path) -> None:
    home = shop(tmp_path / "w")
    choice = choose(signal_events(home).collect(), home.settings, ["knn"], tune=True)
    assert {around("knn", value, cohort=True) for value in WITH_COHORT} <= set(choice.cuts[0].figures)


def lists(home: Home) -> pl.DataFrame:
    return pl.concat(list(recommend(home, top=5, include_holdout=True).blocks))


def test_a_chosen_part_is_saved_served_and_refitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = shop(tmp_path / "w")
    monkeypatch.setattr(choosing, "_helps", lambda *_: True)
    report = train(home, time_limit=1)
    assert "with a cohort part and evidence" in report.why
    saved = registry.load_model(home)
    assert saved.parts["cohort"] == "cohort/1"
    assert isinstance(saved.model, Layered)
    assert saved.model.cohort is not None
    assert {"individual", "model.layered.evidence", "model.layered.cohort_evidence"} <= set(saved.manifest["chosen"])
    assert saved.manifest["exact"] is False
    made = lists(home)
    assert train(home, time_limit=1).latest == report.latest, "the same again is no new version"
    assert lists(home).equals(made)
    result = evaluate(home, "run").result["models"][0]
    assert result["settings"]["model.layered.cohort_evidence"] == 2.0
    assert result["settings"]["model.cohort.cohorts"] >= 1
    assert lists(home).equals(made)


def test_a_part_that_settings_ask_for_is_there_whatever_is_compared(tmp_path: Path) -> None:
    home = shop(tmp_path / "w")
    train(home, ["knn"], {"model.layered.cohort_evidence": 3})
    first = registry.load_model(home)
    assert first.manifest["settings"] == {"evidence": 9.0, "cohort_evidence": 3.0, "few_users": 0.0}
    assert list(first.parts) == ["popular", "cohort", "individual"]
    assert first.manifest["chosen"] == []
    train(home, ["knn", "cohort"], {"model.layered.cohort_evidence": 3}, as_of=START + timedelta(weeks=30))
    assert registry.load_model(home).parts["cohort"].startswith("cohort/")
