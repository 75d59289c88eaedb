from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from histories import Entry, histories, liked, training
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics.pairwise import cosine_similarity

from persona_cli.errors import BadData, MissingInput
from persona_cli.models.base import Histories, Training, known
from persona_cli.models.content import Content, discriminant
from persona_cli.models.knn import Knn
from persona_cli.models.layered import Layered
from persona_cli.models.popular import CELL, Popular
from persona_cli.models.stored import positions

TITLES = ["Taming late payers", "Late payers again", "The tame lion", "A lion for tea", "Tea and tea", "Tea late"]
CATALOGUE = pl.DataFrame(
    {
        "item_id": [f"i{n}" for n in range(6)],
        "title": TITLES,
        "category": ["money", "money", "animals", "animals", "food", "food"],
        "tags": [["a", "b"], ["a"], ["b"], ["a", "b"], [], None],
        "text": [None, "with payers", None, None, None, None],
        "price": [None] * 6,
        "props": [None] * 6,
    },
    schema_overrides={"tags": pl.List(pl.String), "text": pl.String, "price": pl.Float64, "props": pl.String},
)
TEXTS = [title if n != 1 else title + " with payers" for n, title in enumerate(TITLES)]
ENTRIES: list[Entry] = [(0, 0, 0, 1000, False), (0, 4, 0, 500, False), (1, 2, 0, 1000, False), (2, 9, 0, 1000, False)]


def described(entries: list[Entry], catalogue: pl.DataFrame | None = CATALOGUE) -> Training:
    return dataclasses.replace(training(entries), catalogue=catalogue)


def asked(model: Content, given: Training) -> Histories:
    return histories(given.interactions, model.items)


def vectorised(texts: list[str], **options: object) -> np.ndarray:
    matrix: np.ndarray = (
        TfidfVectorizer(token_pattern=r"\w+", min_df=2, sublinear_tf=True).fit_transform(texts).toarray()
    )
    return matrix


def test_is_the_cosine_of_scikit_learn() -> None:
    given = described(ENTRIES)
    model = Content(category=0, tags=0, price=0, text=1).fit(given)
    assert model.items.to_list() == ["i0", "i1", "i2", "i3", "i4", "i5", "i9"]
    vectors = np.vstack([vectorised(TEXTS), np.zeros((1, vectorised(TEXTS).shape[1]))])
    rows = asked(model, given).rows.toarray()
    assert np.allclose(model.scores(asked(model, given)), cosine_similarity(rows @ vectors, vectors), atol=1e-6)


def test_blocks_add_up_by_their_weights() -> None:
    given = described(ENTRIES)
    weights = {"category": 1.0, "tags": 2.0, "price": 5.0, "text": 3.0, "embedding": 7.0}
    model = Content(**weights).fit(given)
    # Neither prices nor embeddings are there.
    assert model.settings() == {"category": 1 / 6, "tags": 2 / 6, "price": 0.0, "text": 3 / 6, "embedding": 0.0}
    alone = {
        name: Content(**{**dict.fromkeys(weights, 0.0), name: 1.0}).fit(given).scores(asked(model, given))
        for name in ("category", "tags", "text")
    }
    wanted = alone["category"] / 6 + alone["tags"] / 3 + alone["text"] / 2
    assert np.allclose(model.scores(asked(model, given)), wanted, atol=1e-6)
    # User 0 liked money (twice as strongly) and food; one category is one dimension.
    assert np.allclose(alone["category"][0], np.array([2, 2, 0, 0, 1, 1, 0]) / 5**0.5, atol=1e-6)


def test_what_nothing_is_known_of_scores_zero() -> None:
    given = described(ENTRIES)
    model = Content().fit(given)
    scores = model.scores(asked(model, given))
    assert (scores[:, model.items.to_list().index("i9")] == 0).all()
    assert (scores[2] == 0).all()  # that user likes i9 alone


def test_items_without_events_are_recommended() -> None:
    given = described(liked([(0, 0), (1, 2)]))
    model = Content().fit(given)
    scores = model.scores(asked(model, given))
    scores[asked(model, given).rows.toarray() > 0] = -1
    assert [model.items[int(best)] for best in scores.argmax(axis=1)] == ["i1", "i3"]


EMBEDDED = [[3.0, 4.0], [1.0, 0.0], [0.0, 2.0], None, [1.0, 2.0, 3.0], [0.0, 0.0]]


@pytest.mark.parametrize("where", ["column", "props"])
def test_embeddings_of_the_commonest_length_count(where: str) -> None:
    if where == "column":
        catalogue = CATALOGUE.with_columns(embedding=pl.Series(EMBEDDED, dtype=pl.List(pl.Float64)))
    else:
        texts = [json.dumps({"colour": "red", "embedding": one}) for one in EMBEDDED]
        texts[3] = json.dumps({"embedding": "none [yet]"})
        catalogue = CATALOGUE.with_columns(props=pl.Series(texts))
    given = described(liked([(0, 0), (1, 1), (1, 2)]), catalogue)
    model = Content(0, 0, 0, 0, 1).fit(given)
    r = 0.5**0.5
    wanted = [[1, 0.6, 0.8, 0, 0, 0], [1.4 * r, r, r, 0, 0, 0]]
    assert np.allclose(model.scores(asked(model, given)), wanted, atol=1e-6)


def test_learned_weights_are_fishers_direction() -> None:
    rng = np.random.default_rng(5)
    n, lift = 60, np.array([0.5, 0.2])
    cosines = rng.random((2, n, n)) + lift[:, None, None] * np.eye(n)
    cosines[1] += 0.5 * cosines[0]
    weights = discriminant(cosines.astype(np.float32), np.arange(n))
    right = np.eye(n, dtype=bool)
    x = np.concatenate([cosines[:, right].T, cosines[:, ~right].T])
    # Equal classes, as `discriminant` weighs them.
    spread = np.cov(cosines[:, right]) + np.cov(cosines[:, ~right])
    ahead = cosines[:, right].mean(axis=1) - cosines[:, ~right].mean(axis=1)
    wanted = np.linalg.solve(spread, ahead)
    assert np.allclose(weights, wanted / wanted.sum(), rtol=0.02)
    oracle = LinearDiscriminantAnalysis(solver="lsqr", priors=[0.5, 0.5]).fit(x, [1] * n + [0] * (n * n - n))
    assert np.dot(weights, oracle.coef_[0]) > 0


def test_a_block_that_misleads_gets_no_weight() -> None:
    rng = np.random.default_rng(6)
    cosines = rng.random((2, 50, 50)) + np.array([0.5, -0.5])[:, None, None] * np.eye(50)
    assert discriminant(cosines.astype(np.float32), np.arange(50)).tolist() == [1.0, 0.0]


def test_weights_follow_what_users_like_together() -> None:
    # Tastes go by category; tags and titles are drawn without regard to them.
    rng = np.random.default_rng(7)
    n_items, n_users = 60, 80
    catalogue = pl.DataFrame(
        {
            "item_id": [f"i{n:02d}" for n in range(n_items)],
            "title": [" ".join(rng.choice(list("abcdefgh"), 3)) for _ in range(n_items)],
            "category": [f"c{n % 6}" for n in range(n_items)],
            "tags": [[f"t{tag}"] for tag in rng.integers(0, 6, n_items)],
            "price": rng.random(n_items),
        }
    )
    pairs = [(u, 6 * int(j) + u % 6) for u in range(n_users) for j in rng.choice(10, 4, replace=False)]
    entries = [(user, item, 0, 1000, False) for user, item in sorted(set(pairs))]
    base = training(entries)
    named = base.interactions.items.str.replace("i", "").str.zfill(2)
    items = ("i" + named).alias("item_id")
    order = items.arg_sort().to_numpy()
    strengths = base.interactions.strengths[:, order]
    matrix = dataclasses.replace(base.interactions, items=items[order], strengths=strengths)
    weights = Content().fit(dataclasses.replace(base, interactions=matrix, catalogue=catalogue)).settings()
    assert weights["category"] > 0.9
    assert sum(weights.values()) == pytest.approx(1)


def test_few_users_teach_no_weights() -> None:
    assert Content().fit(described(ENTRIES)).settings() == {
        "category": 1 / 3,
        "tags": 1 / 3,
        "price": 0.0,
        "text": 1 / 3,
        "embedding": 0.0,
    }


def test_a_search_points_to_what_it_names() -> None:
    model = Content(0, 0, 0, 1, 0).fit(described(ENTRIES))
    vectors = model.query(pl.Series(["lion", "nothing known"]))
    assert vectors.nnz == 1
    similar = (model.descriptions_.vectors[:, -vectors.shape[1] :] @ vectors.T.toarray())[:, 0]
    assert np.flatnonzero(similar).tolist() == [2, 3]


def test_searches_join_the_profile_of_words() -> None:
    given = described(ENTRIES)
    model = Content(0, 0, 0, 1, 0).fit(given)
    who = asked(model, given)
    queries = pl.Series(["lion", None, "lion"])
    scores = model.scores(dataclasses.replace(who, queries=queries))
    words = model.query(queries).toarray()
    vectors = model.descriptions_.vectors.toarray()[:, -words.shape[1] :]
    rows = who.rows.toarray()
    profiles = rows @ vectors / rows.sum(axis=1, keepdims=True) + words
    assert np.allclose(scores, cosine_similarity(profiles, vectors), atol=1e-6)
    # Who searched and has no described item in the history is scored too; who did not is scored as before.
    assert scores[2].argmax() in (2, 3)
    assert np.allclose(scores[1], model.scores(who)[1], atol=1e-6)


def test_who_only_searched_is_compared_by_words_whatever_words_weigh_besides() -> None:
    given = described(ENTRIES)
    model = Content(1, 1, 0, 0, 0).fit(given)
    who = dataclasses.replace(asked(model, given), queries=pl.Series([None, "lion", "lion"]))
    scores = model.scores(who)
    # User 2 likes an item without a description, so only the search is known.
    assert np.flatnonzero(scores[2]).tolist() == [2, 3]
    assert np.allclose(scores[:2], model.scores(asked(model, given))[:2], atol=1e-6)


def test_what_a_model_knows_of_users_is_their_items_and_the_words_it_has() -> None:
    given = described(ENTRIES)
    model = Content().fit(given)
    nothing = asked(model, given).rows[[0, 0, 0, 0]] * 0
    nothing.eliminate_zeros()
    context = pl.DataFrame({"device": [None] * 4, "country": [None] * 4}, schema=dict.fromkeys(CELL, pl.String))
    queries = pl.Series(["lion", "zebra", None, "zebra\nlate payers\nlion"])
    who = Histories(nothing, np.zeros(4, dtype=np.int64), context, queries=queries)
    assert known(model, who).tolist() == [True, False, False, True]
    around = Layered(Popular(), model, 1.0)
    around.popular.fit(given)
    # A query weighs as much as an event where there is none.
    assert around.joined().weights(who.over(*_over(model.items, around.items))).tolist() == [0.5, 0.0, 0.0, 0.75]
    other = Layered(around.popular, Knn().fit(given), 1.0).joined()
    assert not other.weights(who.over(*_over(model.items, other.items))).any(), "knn reads no queries"


def _over(of: pl.Series, vocabulary: pl.Series) -> tuple[np.ndarray, int]:
    return positions(vocabulary, of), len(vocabulary)


@pytest.mark.parametrize("catalogue", [None, CATALOGUE.clear()])
def test_without_a_catalogue_it_says_how_to_get_one(catalogue: pl.DataFrame | None) -> None:
    with pytest.raises(MissingInput, match="catalogue") as caught:
        Content().fit(described(ENTRIES, catalogue))
    assert caught.value.hint == "persona ingest --kind items FILE"


def test_the_order_of_the_catalogue_does_not_matter_and_a_saved_one_is_the_same(tmp_path: Path) -> None:
    given = described(ENTRIES)
    models = [Content().fit(given), Content().fit(described(ENTRIES, CATALOGUE[[3, 1, 5, 0, 2, 4]]))]
    for number, model in enumerate(models):
        (tmp_path / str(number)).mkdir()
        model.save(tmp_path / str(number))
    for path in (tmp_path / "0").iterdir():
        assert path.read_bytes() == (tmp_path / "1" / path.name).read_bytes(), path.name
    loaded = Content.load(tmp_path / "0", models[0].settings())
    assert np.array_equal(loaded.scores(asked(loaded, given)), models[0].scores(asked(loaded, given)))
    who = asked(loaded, given)
    parts = [loaded.scores(who.block(user, user + 1)) for user in range(3)]
    assert np.array_equal(np.concatenate(parts), loaded.scores(who))


def test_a_damaged_vocabulary_is_named(tmp_path: Path) -> None:
    model = Content().fit(described(ENTRIES))
    model.save(tmp_path)
    (tmp_path / "words.parquet").write_bytes(b"PAR1")
    with pytest.raises(BadData, match=r"words\.parquet"):
        Content.load(tmp_path, model.settings())
