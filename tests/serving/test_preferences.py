"""What users tell by themselves: what they block is never shown, what they want less of comes later, answers lead."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import polars as pl
import pytest
from shop import N_ITEMS, START, add, add_items, clicks, user

from persona_cli.evaluation import rivals
from persona_cli.evaluation.contenders import recipes, sit
from persona_cli.evaluation.exams import by_split
from persona_cli.feedback import candidates
from persona_cli.feedback.holding import held
from persona_cli.feedback.training import train
from persona_cli.models.gram_store import update
from persona_cli.models.interactions import interactions_of
from persona_cli.models.preparing import prepare
from persona_cli.profiles.history import history, signal_events
from persona_cli.profiles.people import people, person
from persona_cli.profiles.permitted import in_holdout
from persona_cli.profiles.sync import sync
from persona_cli.serving.context import audience
from persona_cli.serving.recommend import recommend
from persona_cli.serving.similar import score
from persona_cli.workspace import tables
from persona_cli.workspace.home import Home

ME = user(0)  # of taste a
ALL = [f"{taste}{number:02d}" for taste in "ab" for number in range(N_ITEMS)]
LATER = START + timedelta(weeks=30)
SURVEY = {
    "taste": {"text": "Which?", "answers": {"a": {"categories": ["A"]}, "b": {"categories": ["B"]}}},
    "more": {"answers": {"odd": {"tags": ["odd"]}}},
}


@pytest.fixture
def described(home: Home) -> Home:
    """The shop with a category for each taste and a tag for every odd item."""
    tags = [["odd"] if int(item[1:]) % 2 else ["even"] for item in ALL]
    add_items(
        home,
        [
            {"item_id": item, "category": item[0].upper(), "tags": names, "available": True}
            for item, names in zip(ALL, tags, strict=True)
        ],
    )
    return home


def tell(home: Home, kind: str, target: str | None = None, *, who: str = ME, days: float = 0, **more: Any) -> None:
    add(
        home,
        [{"user_id": who, "event_type": kind, "target": target, "timestamp": LATER + timedelta(days=days), **more}],
    )
    sync(home)


def changed(home: Home, **given: Any) -> Home:
    settings = home.settings.with_flags({key.replace("__", "."): value for key, value in given.items()})
    return Home(home.root, settings, home.salt)


def listed(home: Home, who: str = ME, top: int = 40, **asked: Any) -> list[tuple[str, float]]:
    made = recommend(home, users=pl.Series([who]), top=top, **{"include_holdout": True, **asked})
    return [(entry["item_id"], entry["score"]) for block in made.blocks for entry in block["items"][0]]


def scores(home: Home, who: str = ME) -> dict[str, float | None]:
    pairs = pl.DataFrame({"user_id": [who] * len(ALL), "item_id": ALL})
    found = score(home, pairs, include_holdout=True)
    return dict(zip(ALL, found["score"], strict=True))


@pytest.mark.parametrize(
    ("topic", "gone"),
    [
        ("category:A", lambda item: item[0] == "a"),
        ("tag:odd", lambda item: int(item[1:]) % 2 == 1),
    ],
)
def test_a_blocked_topic_is_in_no_list_until_the_block_is_taken_back(described: Home, topic: str, gone: Any) -> None:
    before = listed(described)
    assert any(gone(item) for item, _ in before)
    tell(described, "block", topic)
    after = [item for item, _ in listed(described)]
    assert after and not any(gone(item) for item in after)
    assert listed(described, as_of=LATER) == before
    assert not any(gone(item) for item, _ in listed(described, as_of=LATER + timedelta(seconds=1)))
    tell(described, "unblock", topic, days=1)
    assert listed(described) == before
    tell(described, "block", topic, days=0.5)  # heard of late: the last word is still the other one
    assert listed(described) == before


def test_the_held_out_are_not_shown_what_they_blocked_either(described: Home) -> None:
    everyone = pl.Series([user(number) for number in range(80)])
    held = everyone.filter(in_holdout(described, everyone))[0]
    tell(described, "block", "category:B", who=held)
    found = listed(described, held, include_holdout=False)
    assert found and {item[0] for item, _ in found} == {"a"}


def test_an_item_comes_back_when_its_block_is_taken_back_unless_it_was_had(described: Home) -> None:
    before = dict(listed(described))
    fresh, had = max(before, key=lambda item: before[item]), clicks(0)[0]
    tell(described, "block", item_id=fresh)
    tell(described, "block", item_id=fresh, days=0.1)
    tell(described, "block", item_id=had)
    assert fresh not in dict(listed(described))
    tell(described, "unblock", item_id=fresh, days=1)
    tell(described, "unblock", item_id=had, days=1)
    after = dict(listed(described))
    assert fresh in after and had not in after
    assert fresh not in dict(listed(described, as_of=LATER + timedelta(hours=12)))


def test_an_event_that_is_taken_back_was_never_said(described: Home) -> None:
    before = listed(described)
    files = {file.path for file in tables.open_table(described, "events").files}  # type: ignore[union-attr]
    tell(described, "block", "category:A")
    assert listed(described) != before
    table = tables.open_table(described, "events")
    assert table is not None
    table.commit([], [file for file in table.files if file.path not in files])
    sync(described)
    assert listed(described) == before


def test_a_blocked_item_has_no_score_and_says_why(described: Home) -> None:
    tell(described, "block", "category:B")
    pairs = pl.DataFrame({"user_id": [ME, ME, user(1)], "item_id": ["b00", "a00", "b00"]})
    found = score(described, pairs, include_holdout=True)
    assert found["blocked"].to_list() == [True, None, None]
    assert found["score"].is_null().to_list() == [True, False, False]


def test_less_of_a_topic_halves_its_scores_and_fades_by_the_users_own_clock(described: Home) -> None:
    before = scores(described)
    tell(described, "show_less", "category:A")
    for item, now in scores(described).items():
        factor = 0.5 if item[0] == "a" else 1.0
        assert now == pytest.approx(before[item] * factor, rel=1e-4), item  # type: ignore[operator]
    tell(described, "show_less", "category:A")
    assert scores(described)["a00"] == pytest.approx(before["a00"] / 4, rel=1e-4)  # type: ignore[operator]
    tell(described, "page_view", days=365)
    assert scores(described)["a00"] == pytest.approx(before["a00"] / 2, rel=1e-4), "two at half strength"  # type: ignore[operator]
    harder = changed(described, recommend__show_less_factor=0.1, recommend__show_less_half_life_days=0)
    assert scores(harder)["a00"] == pytest.approx(before["a00"] / 100, rel=1e-4)  # type: ignore[operator]
    assert scores(described, user(2)) == scores(changed(described, recommend__show_less_factor=1), user(2))


def test_less_of_an_item_lowers_it_once_and_what_goes_with_it_through_dislikes(described: Home) -> None:
    item = next(item for item, _ in listed(described) if item[0] == "a")
    tell(described, "show_less", item_id=item)
    assert item in dict(listed(described)), "later, not gone"
    silent = changed(described, signals__strengths={**described.settings.table("signals.strengths"), "show_less": 0})
    both = scores(described)
    sync(silent)
    alone = scores(silent)
    assert both[item] == pytest.approx(alone[item], rel=1e-4)
    lowered = [other for other in ALL if other != item and (both[other] or 0) < (alone[other] or 0) * 0.999]
    assert lowered, "dislikes lower what goes with it"


def test_answers_lead_the_list_of_a_new_user_and_give_way_to_evidence(described: Home) -> None:
    home = changed(described, survey=SURVEY)
    plain = listed(home, "new")
    best = plain[0][1]
    tell(home, "survey_answer", "taste", who="new", props='{"answer": "b"}')
    named = listed(home, "new")
    assert [item for item, _ in named] == [i for i, _ in plain if i[0] == "b"] + [i for i, _ in plain if i[0] == "a"]
    assert dict(named)["b00"] == pytest.approx(dict(plain)["b00"] + best, rel=1e-4)
    tell(home, "survey_answer", "more", who="new", props='{"answer": ["odd", "unheard of"]}')
    both = [item for item, _ in listed(home, "new")]
    assert [(item[0] == "b") + int(item[1:]) % 2 for item in both] == [2] * 10 + [1] * 20 + [0] * 10
    assert listed(home, "new", as_of=LATER) == plain
    tell(home, "survey_answer", "taste", who="new", days=1, props='{"answer": "a"}')
    assert {item[0] for item, _ in listed(home, "new")[:10]} == {"a"}, "the last answer counts"
    off = changed(home, recommend__survey_evidence=0)
    assert listed(off, "new") == plain
    add(home, [{"user_id": "new", "item_id": f"b{n:02d}", "timestamp": LATER} for n in range(5)])
    sync(home)
    raised, usual = scores(home, "new"), scores(off, "new")
    top = max(value or 0.0 for value in usual.values())
    assert raised["a00"] == pytest.approx((usual["a00"] or 0) + top / 2, rel=1e-4), "5 events: half"


def test_nobody_who_says_nothing_is_touched(described: Home) -> None:
    tell(described, "block", "category:A")
    tell(described, "show_less", "tag:odd")
    assert audience(described, pl.Series([user(3)])).wishes is None


def test_an_exam_hides_what_was_blocked_before_its_cut_and_not_what_was_blocked_later(described: Home) -> None:
    early, late = user(2), user(4)  # of taste a
    said = {"event_type": "block", "target": "tag:even"}
    add(described, [{"user_id": early, "timestamp": START, **said}, {"user_id": late, "timestamp": LATER, **said}])
    sync(described)
    exam = by_split(signal_events(described).collect(), "time", 0.2)
    sitting = sit(described, recipes(described, ["popular"]), exam, 40)
    for lists in sitting.lists.values():
        even = lists.filter(pl.col("item_id").str.slice(1).cast(pl.Int64) % 2 == 0)
        assert early not in even["user_id"]
        assert late in even["user_id"]
    assert early in lists["user_id"]


def even_of(lists: pl.DataFrame) -> set[str]:
    """Users whose lists hold an even item."""
    return set(lists.filter(pl.col("item_id").str.slice(1).cast(pl.Int64) % 2 == 0)["user_id"])


def made_in(module: Any, monkeypatch: pytest.MonkeyPatch) -> list[pl.DataFrame]:
    """All lists that the module makes from now on."""
    made: list[pl.DataFrame] = []
    rank = module.rank

    def kept(*given: Any, **more: Any) -> pl.DataFrame:
        made.append(rank(*given, **more))
        return made[-1]

    monkeypatch.setattr(module, "rank", kept)
    return made


def test_models_that_are_compared_show_nothing_that_was_blocked_before_the_cut(
    described: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    early, late = user(2), user(4)
    said = {"event_type": "block", "target": "tag:even"}
    add(described, [{"user_id": early, "timestamp": START, **said}, {"user_id": late, "timestamp": LATER, **said}])
    sync(described)
    made = made_in(candidates, monkeypatch)
    train(described, ["knn", "ease"])
    of_training = len(made)
    assert of_training >= 3, "popular, and layered around each"
    held(described, "r", cuts=1, time_limit=1.0)
    assert len(made) > of_training
    for lists in made:
        assert early in lists["user_id"] and early not in even_of(lists)
        assert late in even_of(lists)


def test_two_models_side_by_side_show_nothing_that_is_blocked_and_what_was_unblocked(
    described: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = next(item for item, _ in listed(described, user(4)))
    tell(described, "block", "tag:even")
    tell(described, "block", "tag:even", who=user(2))
    tell(described, "unblock", "tag:even", who=user(2), days=1)
    tell(described, "block", item_id=fresh, who=user(4))
    tell(described, "unblock", item_id=fresh, who=user(4), days=1)
    tell(described, "block", item_id=fresh, who=user(6))
    made = made_in(rivals, monkeypatch)
    rivals.rivalry(described, "knn", "ease", "ndcg@20")
    for lists in made:
        if lists["user_id"].n_unique() == 80:  # the others are of a warm-up
            assert ME in lists["user_id"] and ME not in even_of(lists)
            assert user(2) in even_of(lists)
            shown = set(lists.filter(pl.col("item_id") == fresh)["user_id"])
            assert user(4) in shown and user(6) not in shown
    assert sum(lists["user_id"].n_unique() == 80 for lists in made) == 2


def test_what_is_learned_of_an_item_that_was_unblocked_is_as_if_it_had_never_been_blocked(home: Home) -> None:
    item, last = clicks(0)[0], START + timedelta(weeks=11, hours=2)  # the day of the last click: nothing fades anew

    def learned() -> str:
        events = signal_events(home).collect()
        digest = update(home, interactions_of(events, home.settings, history(home)), home.settings).gram.digest()
        for seed in range(3):
            mixed = events.sample(fraction=1.0, shuffle=True, seed=seed)
            assert prepare(mixed, home.settings, LATER).gram.digest() == digest
        return digest

    def say(kind: str, minutes: int) -> None:
        about = {"user_id": ME, "item_id": item, "timestamp": last + timedelta(minutes=minutes)}
        add(home, [{**about, "event_type": kind}])
        sync(home)

    before = learned()
    say("block", 0)
    blocked = learned()
    assert blocked != before
    say("unblock", 0)
    assert learned() == blocked, "of words at one instant the block counts"
    say("unblock", 2)
    assert learned() == before
    say("block", 1)  # heard of late
    assert learned() == before
    assert (
        prepare(signal_events(home, last + timedelta(minutes=2)).collect(), home.settings, LATER).gram.digest()
        == blocked
    )
    say("block", 3)
    assert learned() == blocked


def test_items_of_the_category_that_a_user_set_come_first_however_much_is_known(described: Home) -> None:
    before = listed(described)
    assert {item[0] for item, _ in before[:5]} == {"a"}
    tell(described, "preference", "preferred_category", props='{"value":"B"}')
    after = listed(described)
    assert {item[0] for item, _ in after[:N_ITEMS]} == {"b"}
    assert sorted(item for item, _ in after) == sorted(item for item, _ in before)
    assert [score for _, score in after] == sorted((score for _, score in after), reverse=True)
    other = user(2)
    assert listed(described, other) == listed(described, other)
    tell(described, "preference", "preferred_category", props='{"value":""}', days=1)
    assert listed(described) == before


def test_settings_take_the_place_of_learned_features(described: Home) -> None:
    learned = person(described, ME)
    assert learned["features"]["usual_channel"] is None and learned["preferred_category"] == "A"
    for days, (key, value) in enumerate(
        [("preferred_category", "B"), ("usual_channel", "email"), ("usual_hour", "7"), ("country", "de")]
    ):
        tell(described, "preference", key, props=f'{{"value":"{value}"}}', days=days)
    stated = person(described, ME)
    shown = {name: stated["features"][name] for name in ("usual_channel", "usual_channel_certainty", "usual_hour")}
    assert shown == {"usual_channel": "email", "usual_channel_certainty": 1.0, "usual_hour": 7}
    names = ("preferred_category", "preferred_category_share", "preferred_category_certainty")
    assert [stated[name] for name in names] == ["B", None, 1.0]
    row = people(described).filter(pl.col("user_id") == ME).row(0, named=True)
    assert [row[name] for name in (*names, "usual_hour")] == ["B", None, 1.0, 7]
    asked = audience(described, pl.Series([ME, user(1)]), include_holdout=True)
    assert asked.context["country"].to_list() == ["DE", None]
    tell(described, "preference", "usual_hour", props='{"value":"25"}', days=9)
    assert person(described, ME)["features"]["usual_hour"] == learned["features"]["usual_hour"]
