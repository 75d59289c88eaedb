"""What every model promises, tested on every model (a layered one is made of these: tests/models/test_layered.py).

The checkerboard: users and items are even or odd, and users like items of their own kind only, all but the one of
their own number. Whoever has learned anything recommends that one.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from persona_cli.errors import BadData
from persona_cli.models.base import Histories, Model, Training
from persona_cli.models.gram import build_gram
from persona_cli.models.interactions import Interactions, interactions, rows_for
from persona_cli.models.popular import Popular
from persona_cli.models.kinds import INDIVIDUAL, is_composite
from persona_cli.workspace.settings import load

SETTINGS = load(None, {})
PERSONAL: list[type[Any]] = [kind for kind in INDIVIDUAL.values() if not is_composite(kind)]
MODELS = [Popular, *PERSONAL]
N = 24
every_model = pytest.mark.parametrize("kind", MODELS, ids=lambda kind: kind.name)
every_personal_model = pytest.mark.parametrize("kind", PERSONAL, ids=lambda kind: kind.name)

Pairs = list[tuple[int, int]]
CHECKERBOARD: Pairs = [(u, i) for u in range(N) for i in range(N) if u % 2 == i % 2 and u != i]
# Another world, with fewer items: even users like low numbers.
OTHER: Pairs = [(u, i) for u in range(N) for i in range(10) if (u % 2 == 0) == (i < 5) and (u + i) % 3]


def training(pairs: Pairs) -> Training:
    rows = [(f"u{u:02d}", f"i{i:02d}", date(2026, 1, 1 + i), 1000, 1, 1, 0) for u, i in sorted(pairs)]
    schema = ["user_id", "item_id", "day", "strength", "n", "consumed", "never"]
    history = pl.DataFrame(rows, schema=schema, orient="row").sort("user_id", "item_id", "day")
    made = interactions(history, SETTINGS)
    popularity = (
        history.with_columns(
            device=pl.when(pl.col("user_id") < "u12").then(pl.lit("mobile")).otherwise(pl.lit("web")),
            country=pl.lit(None, dtype=pl.String),
        )
        .group_by("item_id", "day", "device", "country")
        .agg(n=pl.len().cast(pl.Int64))
        .sort("item_id", "day", "device")
    )
    return Training(made, build_gram(made, SETTINGS), popularity, datetime(2026, 3, 1, tzinfo=UTC))


def histories(made: Interactions, model: Model) -> Histories:
    context = pl.DataFrame(
        {"device": ["mobile" if user < "u12" else None for user in made.users], "country": [None] * len(made.users)},
        schema={"device": pl.String, "country": pl.String},
    )
    return Histories(rows_for(made, model.items, SETTINGS), made.events, context)


def fitted(kind: type[Any], pairs: Pairs = CHECKERBOARD) -> Any:
    return kind.from_settings(SETTINGS).fit(training(pairs))


def saved(model: Model, folder: Path) -> dict[str, str]:
    """sha256 of every file that the model writes."""
    folder.mkdir()
    model.save(folder)
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@every_personal_model
def test_the_checkerboard(kind: type[Any]) -> None:
    model = fitted(kind)
    who = histories(training(CHECKERBOARD).interactions, model)
    scores = model.scores(who)
    scores[who.rows.toarray() > 0] = -np.inf
    assert scores.argmax(axis=1).tolist() == list(range(N))


@every_model
def test_scores_are_finite_single_precision_numbers_one_a_user_and_item(kind: type[Any]) -> None:
    model = fitted(kind)
    who = histories(training(CHECKERBOARD).interactions, model)
    scores = model.scores(who)
    assert isinstance(scores, np.ndarray)
    assert scores.dtype == np.float32
    assert scores.shape == (N, len(model.items))
    assert np.isfinite(scores).all()
    # The caller writes into it: neither the model nor another user's row may change with it.
    scores[0, 0] = -np.inf
    assert np.isfinite(scores[1:]).all()
    assert np.isfinite(model.scores(who)).all()


@every_model
def test_the_vocabulary_is_sorted_text(kind: type[Any]) -> None:
    items = fitted(kind).items
    assert items.dtype == pl.String
    assert items.to_list() == [f"i{i:02d}" for i in range(N)]


@every_model
def test_a_user_without_history_has_finite_scores(kind: type[Any]) -> None:
    model = fitted(kind)
    nobody = interactions(
        pl.DataFrame(
            schema={
                "user_id": pl.String,
                "item_id": pl.String,
                "day": pl.Date,
                "strength": pl.Int64,
                "n": pl.Int32,
                "consumed": pl.Int32,
                "never": pl.Int32,
            }
        ),
        SETTINGS,
    )
    assert model.scores(histories(nobody, model)).shape == (0, N)
    known = histories(training(CHECKERBOARD).interactions, model)
    empty = Histories(known.rows * np.float32(0), known.events * 0, known.context)
    assert np.isfinite(model.scores(empty)).all()


@every_model
def test_blocks_of_users_make_the_whole(kind: type[Any]) -> None:
    model = fitted(kind)
    who = histories(training(CHECKERBOARD).interactions, model)
    parts = [model.scores(who.block(start, start + 5)) for start in range(0, N, 5)]
    assert np.array_equal(np.concatenate(parts), model.scores(who))


@every_model
def test_fitting_again_forgets(kind: type[Any], tmp_path: Path) -> None:
    again = fitted(kind).fit(training(OTHER))
    assert saved(again, tmp_path / "again") == saved(fitted(kind, OTHER), tmp_path / "fresh")
    assert again.settings() == fitted(kind, OTHER).settings()


@every_model
def test_fit_answers_the_model(kind: type[Any]) -> None:
    model = kind.from_settings(SETTINGS)
    assert model.fit(training(CHECKERBOARD)) is model


@every_model
def test_saved_and_loaded_it_scores_the_same(kind: type[Any], tmp_path: Path) -> None:
    model = fitted(kind)
    saved(model, tmp_path / "model")
    settings = json.loads(json.dumps(dict(model.settings())))
    assert "auto" not in settings.values()
    loaded = kind.load(tmp_path / "model", settings)
    who = histories(training(CHECKERBOARD).interactions, model)
    assert loaded.items.equals(model.items)
    assert np.array_equal(loaded.scores(who), model.scores(who))
    assert loaded.settings() == model.settings()
    assert saved(loaded, tmp_path / "again") == saved(model, tmp_path / "once more")


@every_model
def test_files_are_plain_arrays_and_tables(kind: type[Any], tmp_path: Path) -> None:
    names = saved(fitted(kind), tmp_path / "model")
    assert names
    assert {Path(name).suffix for name in names} <= {".npy", ".parquet"}
    for path in (tmp_path / "model").glob("*.npy"):
        assert np.load(path, allow_pickle=False).dtype != object


@every_model
def test_the_order_of_the_input_does_not_matter(kind: type[Any], tmp_path: Path) -> None:
    shuffled = training(CHECKERBOARD)
    shuffled = Training(
        shuffled.interactions,
        shuffled.gram,
        shuffled.popularity.sample(fraction=1, shuffle=True, seed=3),
        shuffled.as_of,
    )
    model = kind.from_settings(SETTINGS).fit(shuffled)
    assert saved(model, tmp_path / "shuffled") == saved(fitted(kind), tmp_path / "sorted")


@every_model
def test_without_a_user_it_is_as_if_the_user_had_never_been(kind: type[Any], tmp_path: Path) -> None:
    if not kind.exact:
        pytest.skip("not exact: it is trained again")
    whole, rest = training(CHECKERBOARD), training([pair for pair in CHECKERBOARD if pair[0] != 7])
    gone = training([pair for pair in CHECKERBOARD if pair[0] == 7])
    keys = ["item_id", "day", "device", "country"]
    taken_back = gone.popularity.with_columns(-pl.col("n"))
    counts = pl.concat([whole.popularity, taken_back]).group_by(keys).agg(pl.col("n").sum()).filter(pl.col("n") > 0)
    left = Training(rest.interactions, whole.gram.subtract(gone.gram), counts, whole.as_of)
    subtracted, refit = kind.from_settings(SETTINGS).fit(left), kind.from_settings(SETTINGS).fit(rest)
    assert saved(subtracted, tmp_path / "subtracted") == saved(refit, tmp_path / "refit")


@every_model
def test_a_damaged_file_is_named(kind: type[Any], tmp_path: Path) -> None:
    model = fitted(kind)
    saved(model, tmp_path / "model")
    victim = max((tmp_path / "model").glob("*.npy"))
    victim.write_bytes(victim.read_bytes()[:40])
    with pytest.raises(BadData, match=victim.name):
        kind.load(tmp_path / "model", model.settings())
