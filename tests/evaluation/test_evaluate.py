"""Whole evaluations of small worlds: against dense numpy, without a look at the future, the same every time."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from persona_cli.errors import MissingInput, UsageError
from persona_cli.evaluation.evaluate import evaluate
from persona_cli.feedback.training import train
from persona_cli.workspace.artifacts import verify
from persona_cli.workspace.home import Home

Rows = list[tuple[str, str | None, float]]
PLAIN = {
    "signals.half_life_days": 0,
    "model.popular.half_life_days": 0,
    "model.ease.lambda": 2.5,
    "model.knn.left": 0.8,
    "model.knn.right": 0.3,
}
"""Nothing fades, so that a history is a set and popularity a count; nothing is left to a rule."""
K = 3
BASELINES = ["popular", "recent-popular", "last-items", "random"]


def world(n_users: int = 40, n_items: int = 30, n_events: int = 10, seed: int = 5) -> Rows:
    """Every user has `n_events` different items over as many days, of one of two tastes for the most part."""
    draws = np.random.default_rng(seed)
    rows: Rows = []
    for user in range(n_users):
        weights = np.where(np.arange(n_items) % 2 == user % 2, 4.0, 1.0)
        chosen = draws.choice(n_items, size=n_events, replace=False, p=weights / weights.sum())
        rows += [(f"u{user:02d}", f"i{item:02d}", 24 * n + user / 100) for n, item in enumerate(chosen)]
    return rows


def oracle(
    train_pairs: set[tuple[str, str]], answers: set[tuple[str, str]], name: str
) -> dict[str, tuple[float, float]]:
    """user → (recall@K, NDCG@K) of a model by dense algebra in float64."""
    users, items = sorted({u for u, _ in train_pairs}), sorted({i for _, i in train_pairs})
    x = np.array([[float((user, item) in train_pairs) for item in items] for user in users])
    degrees = x.sum(axis=0)
    q = np.floor(65536 * x / np.sqrt(x.sum(axis=1, keepdims=True)))
    gram = q.T @ q / 2.0**32
    if name == "ease":
        inverse = np.linalg.inv(gram + 2.5 * np.eye(len(items)))
        weights = -inverse / np.diag(inverse)
    else:
        weights = gram / np.outer(degrees**0.8, degrees**0.3)
    np.fill_diagonal(weights, 0.0)
    found = {}
    for user in sorted({u for u, _ in answers}):
        wanted = {item for u, item in answers if u == user}
        history = x[users.index(user)] if user in users else np.zeros(len(items))
        scores = history @ weights if name != "popular" and history.any() else degrees
        best = [item for item in np.argsort(-scores, kind="stable") if not history[item]][:K]
        hits = np.array([items[item] in wanted for item in best])
        discounts = 1 / np.log2(np.arange(2, K + 2))
        ideal = discounts[: min(K, len(wanted))].sum()
        found[user] = (hits.sum() / len(wanted), (hits * discounts).sum() / ideal)
    return found


def measured(per_user: pl.DataFrame, name: str) -> dict[str, tuple[float, float]]:
    mine = per_user.filter(pl.col("model") == name)
    return {row["user_id"]: (row[f"recall@{K}"], row[f"ndcg@{K}"]) for row in mine.iter_rows(named=True)}


def entry(result: dict[str, Any], name: str) -> dict[str, Any]:
    return next(one for one in result["models"] if one["model"] == name)


def test_time_split_agrees_with_dense_numpy(ingest: Callable[..., Home]) -> None:
    rows = world()
    home = ingest(rows)
    found = evaluate(home, "r", models=["ease", "knn"], overrides=PLAIN, ks=[K])
    train_pairs = {(user, str(item)) for user, item, hours in rows if hours < 24 * 8}
    answers = {(user, str(item)) for user, item, hours in rows if hours >= 24 * 8}
    assert found.result["split"]["kind"] == "time" and found.result["split"]["cut"] == "2026-01-09T00:00:00Z"
    assert found.result["train_events"] == len(train_pairs) and found.result["test_pairs"] == len(answers)
    assert [one["model"] for one in found.result["models"]] == ["ease", "knn", *BASELINES]
    assert [one["baseline"] for one in found.result["models"]] == [False, False, True, True, True, True]
    for name in ("ease", "knn", "popular"):
        expected = oracle(train_pairs, answers, name)
        values = measured(found.per_user, name)
        assert values.keys() == expected.keys()
        for user in expected:
            assert values[user] == pytest.approx(expected[user], abs=1e-6)
        means = np.mean(list(expected.values()), axis=0)
        assert entry(found.result, name)["metrics"][f"recall@{K}"]["value"] == pytest.approx(means[0], abs=1e-6)
    lift = entry(found.result, "ease")["lift"][f"ndcg@{K}"]
    ndcg = {name: entry(found.result, name)["metrics"][f"ndcg@{K}"]["value"] for name in ("ease", "popular")}
    assert lift["value"] == pytest.approx(ndcg["ease"] / ndcg["popular"] - 1)
    assert lift["low"] < lift["value"] < lift["high"]
    assert entry(found.result, "popular")["lift"] == {}


def test_test_file_agrees_with_dense_numpy_and_counts_strangers(ingest: Callable[..., Home], tmp_path: Path) -> None:
    rows = world()
    train_pairs = {(user, str(item)) for user, item, hours in rows if hours < 24 * 8}
    answers = {(user, str(item)) for user, item, hours in rows if hours >= 24 * 8} | {("stranger", "i00")}
    home = ingest([row for row in rows if row[2] < 24 * 8])
    file = tmp_path / "test.csv"
    lines = [f"{user},{item}" for user, item in sorted(answers | {("u00", str(rows[0][1]))})]
    file.write_text("\n".join(["user_id,item_id", *lines]) + "\n")
    found = evaluate(home, "r", models=["ease", "knn"], overrides=PLAIN, ks=[K], test=str(file))
    assert found.result["users"] == 41 and found.result["split"]["kind"] == "test"
    assert any(note.startswith("1 of the") for note in found.result["notes"])
    for name in ("ease", "knn", "popular"):
        expected = oracle(train_pairs, answers, name)
        values = measured(found.per_user, name)
        assert {user: pytest.approx(value, abs=1e-6) for user, value in expected.items()} == values


def test_the_same_events_in_any_order_give_the_same_evaluation(
    ingest: Callable[..., Home], canonical: Callable[..., pl.DataFrame]
) -> None:
    events = canonical(world())
    one = evaluate(ingest(events), "r", models=["ease"], ks=[K])
    shuffled = ingest(events.sample(fraction=1.0, shuffle=True, seed=9), name="shuffled")
    other = evaluate(shuffled, "r", models=["ease"], ks=[K], overrides={"compute.threads": 1})
    assert one.result == other.result
    assert one.per_user.equals(other.per_user)
    assert one.files["users.parquet"] == other.files["users.parquet"]


@pytest.mark.parametrize("split", ["time", "leave-last"])
def test_what_happens_after_the_cut_changes_nothing_that_was_learned(ingest: Callable[..., Home], split: str) -> None:
    rows = world()
    last = 24 * 9
    # The same users do other things on the last day, with items of the future that everybody wants.
    planted: Rows = [(user, "future" if user < "u30" else item, hours) for user, item, hours in rows if hours >= last]
    rows = [row for row in rows if row[2] < last]
    honest: Rows = [row for row in world() if row[2] >= last]
    one = evaluate(
        ingest(rows + honest), "r", models=["ease"], ks=[K], split=split, overrides={"evaluate.test_share": 0.1}
    )
    two = evaluate(
        ingest(rows + planted, name="planted"),
        "r",
        models=["ease"],
        ks=[K],
        split=split,
        overrides={"evaluate.test_share": 0.1},
    )
    for name in ("items", "train_events", "as_of"):
        assert one.result[name] == two.result[name]
    untouched = pl.col("user_id") >= "u30"
    assert one.per_user.filter(untouched).height == 10 * (1 + len(BASELINES))
    assert one.per_user.filter(untouched).equals(two.per_user.filter(untouched))
    # Nobody could know of the item of the future.
    assert two.per_user.filter(~untouched)[f"recall@{K}"].to_list() == [0.0] * 30 * (1 + len(BASELINES))


def test_latest_is_refitted_by_its_recipe_and_marked(ingest: Callable[..., Home]) -> None:
    home = ingest(world())
    with pytest.raises(MissingInput, match="no model has been trained yet"):
        evaluate(home, "r")
    train(home, ["ease"], {"model.ease.lambda": 3.5})
    found = evaluate(home, "named", ks=[K])
    layered = entry(found.result, "layered")
    assert layered["version"] == "layered/1" and layered["base"] == "ease"
    assert layered["settings"]["model.ease.lambda"] == 3.5
    assert layered["chosen_with_later_data"] is False  # nothing was chosen on data
    train(home)
    chosen = evaluate(home, "chosen", ks=[K])
    layered = entry(chosen.result, "layered")
    assert layered["chosen"][0] == "individual" and layered["chosen_with_later_data"] is True
    # The model that was named before still stands, by its version.
    again = evaluate(home, "again", ks=[K], models=["layered/1"])
    assert entry(again.result, "layered/1")["metrics"] == entry(found.result, "layered")["metrics"]
    other = evaluate(home, "other", ks=[K], models=["layered/1"], overrides={"ease.lambda": 900})
    assert entry(other.result, "layered/1")["settings"]["model.ease.lambda"] == 900


def test_a_choice_made_before_the_cut_is_not_marked(ingest: Callable[..., Home]) -> None:
    home = ingest([row for row in world() if row[2] < 24 * 8])
    train(home)
    ingest([row for row in world() if row[2] >= 24 * 8])
    layered = entry(evaluate(home, "r", ks=[K]).result, "layered")
    assert layered["chosen"] and layered["chosen_with_later_data"] is False


def test_a_saved_model_is_taken_where_it_is_what_a_refit_would_be(ingest: Callable[..., Home], tmp_path: Path) -> None:
    home = ingest([row for row in world() if row[2] < 24 * 8])
    file = tmp_path / "test.csv"
    pairs = [f"{user},{item}" for user, item, hours in world() if hours >= 24 * 8]
    file.write_text("\n".join(["user_id,item_id", *pairs]))
    train(home, ["ease"])
    one = evaluate(home, "saved", ks=[K], test=str(file))
    two = evaluate(home, "refitted", ks=[K], test=str(file), overrides={"model.ease.max_items": 19_999})
    assert entry(one.result, "layered")["metrics"] == entry(two.result, "layered")["metrics"]
    # What was ingested since is learned from, although the saved model knows nothing of it.
    ingest([(f"new{n}", item, 24 * 8.5) for n in range(50) for item in ("i00", "novel")])
    file.write_text("user_id,item_id\nu00,novel\n")
    since = evaluate(home, "since", ks=[K], test=str(file))
    assert since.result["items"] == one.result["items"] + 1
    assert since.result["train_events"] == one.result["train_events"] + 100
    assert measured(since.per_user, "popular")["u00"][0] == 1.0
    # Settings given for the run are what counts, too.
    set_here = evaluate(home, "set", ks=[K], test=str(file), overrides={"ease.lambda": 900})
    assert entry(set_here.result, "layered")["settings"]["model.ease.lambda"] == 900


def test_without_refit_saved_models_answer_for_what_came_later(ingest: Callable[..., Home]) -> None:
    home = ingest([row for row in world() if row[2] < 24 * 8])
    train(home, ["ease"])
    with pytest.raises(MissingInput, match="no event is later than what layered/1, popular/1 was trained on"):
        evaluate(home, "none", ks=[K], refit=False)
    ingest([row for row in world() if row[2] >= 24 * 8])
    saved = evaluate(home, "saved", ks=[K], refit=False)
    refitted = evaluate(home, "refitted", ks=[K])
    # The same moment and the same recipe: the refit must be the saved model.
    for name in ("layered", "popular"):
        assert entry(saved.result, name)["metrics"] == entry(refitted.result, name)["metrics"]
    with pytest.raises(UsageError, match="--set cannot apply"):
        evaluate(home, "set", refit=False, overrides={"model.ease.lambda": 1})


def test_users_held_out_whole_are_scored_from_their_past(ingest: Callable[..., Home]) -> None:
    found = evaluate(ingest(world(n_users=100)), "r", models=["ease"], ks=[K], split="user")
    asked = set(found.per_user["user_id"])
    assert 5 <= len(asked) <= 40
    assert found.result["train_events"] == 10 * (100 - len(asked))
    ease, popular = (entry(found.result, name)["metrics"]["ndcg@3"]["value"] for name in ("ease", "popular"))
    assert ease > popular


def test_what_is_kept_is_whole_and_says_the_same(ingest: Callable[..., Home]) -> None:
    found = evaluate(ingest(world()), "20260101T000000-abc", models=["popular"], ks=[2, K], holdout=True)
    assert found.folder.name == "20260101T000000-abc" and found.folder.parent.name == "evaluations"
    assert verify(found.folder)["kind"] == "evaluation"
    assert json.loads((found.folder / "result.json").read_text()) == found.result
    table = pl.read_parquet(found.folder / "users.parquet")
    assert table.equals(found.per_user) and table.columns[:3] == ["model", "user_id", "recall@2"]
    assert found.result["online"]["users"]["personalised"] + found.result["online"]["users"]["holdout"] == 40
    assert found.result["online"]["compared"] is False


def test_as_of_hides_what_came_later(ingest: Callable[..., Home]) -> None:
    from persona_cli.workspace.setting import parse_moment

    moment = parse_moment("2026-01-06")
    one = evaluate(ingest(world()), "r", models=["knn"], ks=[K], as_of=moment)
    past = ingest([row for row in world() if row[2] < 24 * 5], name="past")
    assert evaluate(past, "r", models=["knn"], ks=[K]).result == one.result
