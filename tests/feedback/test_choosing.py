"""The choice between models: the simpler one stays unless another is clearly better, and why is said."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from shop import START, add, clicks, shop

from persona_cli.errors import MissingInput
from persona_cli.feedback import choosing
from persona_cli.feedback.candidates import METRIC, Further, Judged, around
from persona_cli.feedback.choosing import EVIDENCE, choose, clearly_better, decide
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
    monkeypatch.setattr(choosing, "clearly_better", lambda *_, **__: False)
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


def cut(number: int, users: range = range(400), **means: float) -> Judged:
    """One cut with candidates of these means: noise common to all candidates of a user, and some of their own."""
    draws = np.random.default_rng(number)
    ids = [f"u{user:04d}" for user in users]
    common = draws.normal(0.0, 0.1, len(ids))
    columns = {
        name: common + mean + (own := draws.normal(0.0, 0.05, len(ids))) - own.mean() - common.mean()
        for name, mean in means.items()
    }
    moment = START + timedelta(weeks=number)
    return Judged(f"cut {number}", moment, moment + timedelta(weeks=1), pl.DataFrame({"user_id": ids, **columns}))


def figures(popular: float, knn: float, ease: float, **tuned: float) -> dict[str, float]:
    layered = {around("knn"): knn, around("ease"): ease}
    return {"popular": popular, "knn": knn, "ease": ease, **layered, **tuned}


def test_a_planted_winner_at_every_cut_is_taken() -> None:
    cuts = [cut(number, **figures(0.1, 0.12, 0.14)) for number in range(3)]
    choice = decide(cuts, ["knn", "ease"], headline="three cuts")
    assert (choice.individual, choice.served, choice.users, choice.headline) == (
        *("ease", "layered around ease"),
        *(400, "three cuts"),
    )
    assert choice.figures["layered"].value == pytest.approx(0.14)
    assert "of 400 users at 3 cuts" in choice.why


def test_what_is_better_at_one_cut_only_is_not_taken() -> None:
    """Far ahead at one cut, a little behind at the other: clearly better in the mean, but not steady."""
    lucky, other = cut(0, **figures(0.1, 0.14, 0.24)), cut(1, **figures(0.1, 0.14, 0.135))
    assert decide([lucky], ["knn", "ease"]).individual == "ease", "one cut alone misleads"
    choice = decide([lucky, other], ["knn", "ease"])
    assert choice.figures["ease"].value > choice.figures["knn"].value + 0.04
    assert choice.individual == "knn"
    assert decide([cut(0, **figures(0.1, 0.2, 0.2)), cut(1, **figures(0.1, 0.09, 0.09))], ["knn"]).individual is None


def test_noise_is_not_taken_for_a_winner() -> None:
    """300 times two equal models at two cuts: the second takes the place of the first in at most 2.5 % of them."""
    taken = 0
    for seed in range(300):
        draws = np.random.default_rng(seed)
        cuts = []
        for number in range(2):
            values = draws.normal(0.1, 0.05, (3, 300)) + draws.normal(0.0, 0.1, 300)
            values[0] -= 0.1
            columns = dict(zip(("popular", around("knn"), around("ease")), values, strict=True))
            frame = pl.DataFrame({"user_id": [f"u{user}" for user in range(300)], **columns}).sort("user_id")
            frame = frame.with_columns(knn=around("knn"), ease=around("ease"))
            cuts.append(Judged(f"cut {number}", START, None, frame))
        choice = decide(cuts, ["knn", "ease"])
        assert choice.individual is not None
        taken += choice.individual == "ease"
    assert taken <= 300 * 0.025 + 2 * (300 * 0.025 * 0.975) ** 0.5


def test_people_who_are_asked_again_and_again_are_no_more_evidence() -> None:
    """Ten cuts that repeat the same users with the same figures: as sure as one cut is, and no more."""
    one = cut(0, range(200), **figures(0.05, 0.1, 0.104))
    repeated, both = [one] * 10, ["knn", "ease"]
    assert not clearly_better(one.values(around("ease")), one.values(around("knn")))
    assert decide([one], both).individual == "knn"
    assert decide(repeated, both).individual == "knn"
    assert decide(repeated, both).figures["ease"] == pytest.approx(decide([one], both).figures["ease"])


def test_the_model_by_rule_needs_less_to_stand_instead_of_the_popular_list() -> None:
    """A gain that 200 users cannot be sure of, at both cuts: enough for the model by rule, not for one in its place."""
    likely = [cut(number, range(200), **figures(0.1, 0.106, 0.1)) for number in range(2)]
    assert not clearly_better(likely[0].values(around("knn")), likely[0].values("popular"))
    assert decide(likely, ["knn", "ease"]).individual == "knn"
    assert decide(likely, ["ease"]).individual is None, "ease is not ahead"
    unsteady = [likely[0], cut(1, range(200, 400), **figures(0.1, 0.099, 0.1))]
    assert decide(unsteady, ["knn", "ease"]).individual is None


def test_evidence_is_tuned_by_the_same_rule() -> None:
    steady = [
        cut(number, **figures(0.1, 0.14, 0.1, **{around("knn", 3.0): 0.16, around("knn", 10.0): 0.15}))
        for number in range(2)
    ]
    choice = decide(steady, ["knn"], "auto", Further(("knn",), (3.0, 10.0)))
    assert (choice.evidence, choice.served) == (3.0, "layered around knn, evidence 3")
    assert choice.figures["layered"].value == pytest.approx(0.16) and "with evidence 3 (0.1600)" in choice.why
    lucky = [
        cut(number, **figures(0.1, 0.14, 0.1, **{around("knn", 3.0): mean})) for number, mean in enumerate((0.2, 0.139))
    ]
    assert decide(lucky, ["knn"], "auto", Further(("knn",), (3.0,))).evidence == "auto"


def many(root: Path, n_users: int) -> Home:
    """A shop with as many users as every cut needs."""
    home = create(root)
    rows = [
        {"user_id": f"u{number:03d}", "item_id": item, "timestamp": START + timedelta(weeks=week, minutes=number)}
        for number in range(n_users)
        for week, item in enumerate(clicks(number))
    ]
    add(home, rows)
    return home


def test_models_are_compared_at_the_cuts_asked_for_and_the_record_says_how(tmp_path: Path) -> None:
    home = many(tmp_path / "many", 140)
    choice = choose(events(home), home.settings, ["knn"], tune=True, cuts=2)
    first, second = choice.cuts
    assert first.until == second.cut and second.until is None
    assert first.users >= choosing.FEW and second.users >= choosing.FEW
    assert "2 cuts in time: trained before 2026-" in choice.headline
    record = choice.record()
    assert record is not None and json.loads(json.dumps(record, allow_nan=False)) == record
    assert record["served"] == choice.served and record["users"] == choice.users <= 140
    assert record["served"] in record["cuts"][0]["figures"] and record["cuts"][1]["until"] is None
    assert len(choose(events(home), home.settings, ["knn"], tune=False, cuts=1).cuts) == 1
    default = choose(events(home), home.settings, ["knn"], tune=True)
    assert default == choose(events(home), home.settings, ["knn"], True, home.settings.whole("train.cuts"))


def test_with_few_users_there_are_fewer_cuts(home: Home) -> None:
    assert len(choose(events(home), home.settings, ["knn"], tune=False, cuts=3).cuts) == 1


def test_at_several_cuts_no_more_users_are_asked_than_at_one(tmp_path: Path) -> None:
    home = many(tmp_path / "many", 140)
    settings = home.settings.with_flags({"train.validation_users": 120})
    choice = choose(events(home), settings, ["knn"], tune=False, cuts=2)
    assert choice.users == 120 and len(choice.cuts) == 2
