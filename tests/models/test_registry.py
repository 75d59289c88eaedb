"""Versions: equal trainings make none, what is there never changes, and what is wrong is said."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from histories import DEFAULTS, liked, training

from persona_cli.errors import BadData, MissingInput, UsageError
from persona_cli.models import kinds, registry
from persona_cli.models.base import Model
from persona_cli.models.ease import Ease
from persona_cli.models.knn import Knn
from persona_cli.models.layered import Layered
from persona_cli.models.popular import Popular
from persona_cli.workspace import artifacts
from persona_cli.workspace.home import Home, create

TRAINING = training(liked([(u, i) for u in range(6) for i in range(8) if (u + i) % 2]))
OTHER = training(liked([(u, i) for u in range(6) for i in range(8) if (u * i) % 3]))
SAID = {"trained_until": datetime(2026, 3, 1, tzinfo=UTC).isoformat(), "parts": {}, "recipe": {}}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return create(tmp_path / "w")


def save(home: Home, model: Model, **more: object) -> int:
    return registry.save_model(home, model, {**SAID, **more})


def save_layered(home: Home) -> int:
    popular, ease = Popular().fit(TRAINING), Ease(2.0).fit(TRAINING)
    parts = {"popular": f"popular/{save(home, popular)}", "individual": f"ease/{save(home, ease)}"}
    return save(home, Layered(popular, ease, 5.0).joined(), parts=parts)


def test_versions_count_from_one_and_equal_models_make_none(home: Home) -> None:
    assert save(home, Ease(2.0).fit(TRAINING)) == 1
    assert save(home, Ease(2.0).fit(TRAINING)) == 1
    assert save(home, Ease(3.0).fit(TRAINING)) == 2
    assert save(home, Ease(2.0).fit(OTHER)) == 3
    assert save(home, Ease(2.0).fit(TRAINING)) == 1, "an older version that is equal counts too"
    assert save(home, Ease(2.0).fit(TRAINING), trained_until="2026-04-01T00:00:00+00:00") == 4
    assert sorted(path.name for path in home.path("models", "ease").iterdir()) == ["1", "2", "3", "4"]


def test_what_is_loaded_is_what_was_saved(home: Home) -> None:
    model = Knn(5).fit(TRAINING)
    save(home, model)
    loaded = registry.load_model(home, "knn")
    assert (loaded.name, loaded.version, loaded.reference) == ("knn", 1, "knn/1")
    assert loaded.model.items.equals(model.items)
    assert (loaded.model.weights_ != model.weights_).nnz == 0  # type: ignore[attr-defined]
    assert loaded.trained_until == datetime(2026, 3, 1, tzinfo=UTC)


def test_a_name_is_its_newest_version_by_number(home: Home) -> None:
    for penalty in range(1, 12):
        save(home, Ease(float(penalty)).fit(TRAINING))
    assert registry.load_model(home, "ease").version == 11
    assert registry.load_model(home, "ease/2").model.settings()["lambda"] == 2.0


def test_layered_is_loaded_with_its_parts(home: Home) -> None:
    registry.set_latest(home, save_layered(home))
    save(home, Ease(99.0).fit(TRAINING))  # a newer version, not the one inside
    loaded = registry.load_model(home)
    assert loaded.reference == "layered/1"
    assert loaded.parts == {"popular": "popular/1", "individual": "ease/1"}
    assert isinstance(loaded.model, Layered)
    assert loaded.model.individual.settings()["lambda"] == 2.0  # type: ignore[union-attr]
    assert loaded.model.evidence_ == 5.0


def test_latest_is_written_only_for_what_is_there_and_only_when_it_changes(home: Home) -> None:
    with pytest.raises(MissingInput, match="layered/1"):
        registry.set_latest(home, 1)
    assert registry.latest(home) is None
    version = save_layered(home)
    registry.set_latest(home, version)
    path = home.path("models", "latest.json")
    assert json.loads(path.read_text()) == {"model": "layered", "version": 1}
    before = path.stat().st_mtime_ns, path.stat().st_ino
    registry.set_latest(home, version)
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == before
    path.write_text("{")
    with pytest.raises(BadData, match="damaged"):
        registry.load_model(home)
    registry.set_latest(home, version)
    assert registry.load_model(home).version == 1


def test_what_is_not_there_is_said_with_the_way_out(home: Home) -> None:
    with pytest.raises(MissingInput) as error:
        registry.load_model(home)
    assert error.value.hint == "persona train"
    with pytest.raises(MissingInput, match="no ease model") as error:
        registry.load_model(home, "ease")
    assert error.value.hint == "persona train --model ease"
    save(home, Ease(2.0).fit(TRAINING))
    with pytest.raises(MissingInput, match="there are ease/1"):
        registry.load_model(home, "ease/7")
    with pytest.raises(UsageError, match="did you mean 'ease'"):
        registry.load_model(home, "eaze")
    for reference in ("ease/x", "ease/", "ease/-1", "ease/1/2", "ease/١"):
        with pytest.raises(UsageError, match="not a model"):
            registry.load_model(home, reference)


def test_a_file_of_another_size_is_refused(home: Home) -> None:
    save(home, Ease(2.0).fit(TRAINING))
    items = home.path("models", "ease", "1", "items.parquet")
    items.write_bytes(items.read_bytes()[:-1])
    with pytest.raises(BadData, match="not the file that the manifest describes"):
        registry.load_model(home, "ease")


def test_a_manifest_that_describes_no_model_is_refused(home: Home) -> None:
    folder = home.path("models", "ease", "1")
    folder.mkdir(parents=True)
    artifacts.write_manifest(folder, {"name": "gram"})
    with pytest.raises(BadData, match="does not describe a model"):
        registry.load_model(home, "ease")


def test_a_damaged_version_is_not_taken_for_an_equal_one(home: Home) -> None:
    for damage in (lambda f: (f / "items.parquet").write_bytes(b""), lambda f: (f / "manifest.json").write_text("{")):
        version = save(home, Ease(2.0).fit(TRAINING))
        damage(home.path("models", "ease", str(version)))
        assert save(home, Ease(2.0).fit(TRAINING)) == version + 1
        assert registry.load_model(home, "ease").version == version + 1


def test_nothing_is_left_where_saving_fails(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: Ease, folder: Path) -> None:
        (folder / "half.npy").write_bytes(b"x")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Ease, "save", fails)
    with pytest.raises(OSError, match="No space"):
        save(home, Ease(2.0).fit(TRAINING))
    assert list(home.path("models", "ease").iterdir()) == []


def test_models_are_listed_by_name_and_version(home: Home) -> None:
    assert registry.list_models(home) == []
    registry.set_latest(home, save_layered(home))
    for penalty in range(3, 13):
        save(home, Ease(float(penalty)).fit(TRAINING))
    listed = registry.list_models(home)
    assert [(r["model"], r["version"]) for r in listed] == [
        *(("ease", version) for version in range(1, 12)),
        ("layered", 1),
        ("popular", 1),
    ]
    assert [(r["model"], r["parts"]) for r in listed if r["latest"]] == [("layered", ["popular/1", "ease/1"])]
    assert listed[0]["bytes"] == sum(
        path.stat().st_size for path in home.path("models", "ease", "1").iterdir() if path.name != artifacts.MANIFEST
    )


def test_unfitted_models_follow_the_settings() -> None:
    settings = DEFAULTS.with_flags({"model.ease.lambda": 7, "model.layered.evidence": 2})
    made = kinds.unfitted("layered", settings, "ease")
    assert isinstance(made, Layered)
    assert made.fit(TRAINING).settings() == {"evidence": 2.0}
    assert made.individual.settings()["lambda"] == 7.0  # type: ignore[union-attr]
    with pytest.raises(UsageError, match="no model 'popular'"):
        kinds.unfitted("layered", settings, "popular")
    with pytest.raises(UsageError, match="did you mean 'popular'"):
        kinds.unfitted("populer", settings)


def test_a_recipe_brings_the_settings_back(home: Home) -> None:
    settings = DEFAULTS.with_flags({"model.ease.lambda": 7, "model.gram.cap": 2, "recommend.top": 3})
    recipe = registry.recipe_of(settings, ["ease"])
    assert set(recipe) == {"model.ease.lambda", "model.ease.max_items", "model.gram.cap", "model.gram.user_exponent"}
    save(home, Ease.from_settings(settings).fit(TRAINING), recipe=recipe)
    again = registry.load_model(home, "ease").recipe(DEFAULTS)
    assert again.number("model.ease.lambda") == 7.0
    assert again.number("model.gram.cap") == 2.0
    assert again.whole("recommend.top") == DEFAULTS.whole("recommend.top")


def test_old_versions_go_but_never_what_is_served_or_inside_a_model_that_stays(home: Home) -> None:
    registry.set_latest(home, save_layered(home))
    for penalty in range(3, 8):
        save(home, Ease(float(penalty)).fit(TRAINING))
    assert registry.prune(home, 2) == ["ease/2", "ease/3", "ease/4"]
    assert [path.name for path in sorted(home.path("models", "ease").iterdir())] == ["1", "5", "6"]
    assert registry.load_model(home).parts["individual"] == "ease/1"
    assert registry.prune(home, 2) == []


def test_a_layered_model_that_goes_takes_its_parts_with_it(home: Home) -> None:
    save_layered(home)
    popular, knn = Popular().fit(OTHER), Knn(5).fit(OTHER)
    parts = {"popular": f"popular/{save(home, popular)}", "individual": f"knn/{save(home, knn)}"}
    newer = save(home, Layered(popular, knn, 5.0).joined(), parts=parts)
    registry.set_latest(home, newer)
    assert set(registry.prune(home, 1)) == {"layered/1", "popular/1"}, "ease/1 is the newest of its name"
    assert not artifacts.leftovers(home.root)
