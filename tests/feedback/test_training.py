"""Training: what is saved and served, the same bytes again, and what may be asked of it."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from shop import START, add, clicks, shop, user

from persona_cli.errors import BadSettings, Busy, MissingInput, UsageError
from persona_cli.feedback import candidates
from persona_cli.feedback.candidates import PORTFOLIO, estimated_seconds, fitting, ranking_seconds
from persona_cli.feedback.training import hyper_parameters, train
from persona_cli.models import registry
from persona_cli.models.gram import build_gram
from persona_cli.models.interactions import interactions
from persona_cli.models.layered import Layered
from persona_cli.profiles.history import history
from persona_cli.workspace import artifacts, locks
from persona_cli.workspace.home import Home, create


def hashes(home: Home) -> dict[str, str]:
    """Every file under models/ but the Gram's."""
    root = home.path("models")
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.parts[len(root.parts)] != "gram"
    }


def manifest(home: Home, reference: str) -> dict[str, Any]:
    return artifacts.read_manifest(home.path("models", *reference.split("/")))


def test_without_names_all_are_trained_and_the_best_is_served(home: Home) -> None:
    report = train(home)
    able = [name for name in PORTFOLIO if name not in report.skipped]
    trained = [one for one in report.models if one.model != "blend"]
    assert [one.model for one in trained] == ["popular", *able, "layered"]
    assert {"knn", "ease", "spectral"} <= set(able)
    assert all(one.validation and one.validation["metric"] == "ndcg@20" for one in trained)
    assert report.latest == "layered/1"
    assert registry.latest(home) == "layered/1"
    served = registry.load_model(home)
    assert isinstance(served.model, Layered)
    assert served.parts["individual"] in [f"{name}/1" for name in (*able, "blend")]
    assert served.manifest["chosen"][0] == "individual"
    assert (report.users, report.events) == (80, 960)
    assert set(report.skipped) <= {"content", "hybrid"}, "no catalogue; LightFM may be missing"


def test_the_same_training_again_makes_the_same_bytes_and_no_version(home: Home, tmp_path: Path) -> None:
    first = train(home)
    before = hashes(home)
    second = train(home)
    assert hashes(home) == before
    assert second.latest == first.latest
    other = shop(tmp_path / "other")
    train(other)
    assert hashes(other) == before, "another workspace with the same events has the same files"


def test_new_events_make_new_versions_and_the_old_ones_stay(home: Home) -> None:
    train(home)
    before = hashes(home)
    add(home, [{"user_id": "new", "item_id": "a01", "timestamp": START + timedelta(weeks=20)}])
    report = train(home)
    assert report.latest == "layered/2"
    after = hashes(home)
    assert {name: after[name] for name in before if name != "latest.json"} == {
        name: digest for name, digest in before.items() if name != "latest.json"
    }
    assert registry.load_model(home).parts["popular"] == "popular/2"


def test_what_was_trained_says_until_when_and_by_what(home: Home) -> None:
    train(home)
    last = START + timedelta(weeks=11, minutes=79)
    for name in ("popular", "knn", "ease", "layered"):
        said = manifest(home, f"{name}/1")
        assert datetime.fromisoformat(said["trained_until"]) == last + timedelta(microseconds=1)
        assert said["as_of"] is None
        assert said["exact"] is True or name == "layered"
        assert len(said["weights_digest"]) == 64
    assert manifest(home, "ease/1")["recipe"]["model.ease.lambda"] == "auto"
    assert isinstance(manifest(home, "ease/1")["settings"]["lambda"], float)


def test_a_named_model_is_served_inside_without_a_comparison(home: Home) -> None:
    report = train(home, ["ease"], {"lambda": "300"})
    assert [one.model for one in report.models] == ["popular", "ease", "layered"]
    assert all(one.validation is None for one in report.models)
    served = registry.load_model(home)
    assert served.parts == {"popular": "popular/1", "individual": "ease/1"}
    assert manifest(home, "ease/1")["settings"]["lambda"] == 300.0
    assert manifest(home, "ease/1")["recipe"]["model.ease.lambda"] == 300.0
    assert served.manifest["chosen"] == []
    train(home, ["knn"])
    assert registry.load_model(home).parts == {"popular": "popular/1", "individual": "knn/1"}


def test_layered_by_name_stays_around_what_is_served(home: Home) -> None:
    train(home, ["ease"])
    train(home, ["layered"], {"layered.evidence": "9"})
    served = registry.load_model(home)
    assert served.parts["individual"] == "ease/1"
    assert served.manifest["settings"] == {"evidence": 9.0}


def test_layered_by_name_begins_with_knn_where_nothing_is_served(home: Home) -> None:
    train(home, ["layered"])
    assert registry.load_model(home).parts["individual"] == "knn/1"
    home.path("models", "latest.json").write_text("{")
    assert train(home, ["layered"]).latest == "layered/1", "a damaged latest.json is mended"
    assert registry.load_model(home).reference == "layered/1"


def test_the_popular_list_by_name_is_served_alone(home: Home) -> None:
    train(home)
    train(home, ["popular"])
    assert registry.load_model(home).parts == {"popular": "popular/1"}


def test_of_several_named_the_better_is_served_by_rule(home: Home) -> None:
    report = train(home, ["ease", "knn"])
    assert [one.model for one in report.models] == ["popular", "knn", "ease", "layered"]
    assert report.models[1].validation is not None
    assert registry.load_model(home).manifest["recipe"]["model.layered.evidence"] == "auto"


def test_as_of_learns_only_from_before(home: Home) -> None:
    cut = START + timedelta(weeks=6)
    train(home, as_of=cut)
    earlier = create(home.root.parent / "earlier")
    add(
        earlier,
        [
            {
                "user_id": user(number),
                "item_id": item,
                "timestamp": START + timedelta(weeks=week, minutes=number),
                "device": "mobile" if number % 4 < 2 else "desktop",
            }
            for number in range(80)
            for week, item in enumerate(clicks(number)[:6])
        ],
    )
    train(earlier, as_of=cut)
    assert hashes(home) == hashes(earlier)
    assert datetime.fromisoformat(manifest(home, "layered/1")["trained_until"]) < cut
    assert not home.path("models", "gram").exists(), "the stored sums are of today's events"


def test_the_stored_gram_is_updated_by_the_changed_users_only(home: Home) -> None:
    train(home)
    add(home, [{"user_id": "u03", "item_id": "a01", "timestamp": START + timedelta(weeks=20)}])
    train(home)
    assert manifest(home, "gram/2")["update"] == {"changed_users": 1, "mode": "updated"}
    assert manifest(home, "gram/2")["digest"] == _gram(home).digest()


def _gram(home: Home) -> Any:
    return build_gram(interactions(history(home), home.settings), home.settings)


def test_what_does_not_fit_the_time_is_left_out_and_said(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = {"knn": 1.0}
    monkeypatch.setattr(candidates, "estimated_seconds", lambda name, *_: quick.get(name, 61.0))
    report = train(home, time_limit=60)
    assert [one.model for one in report.models] == ["popular", "knn", "layered"]
    assert "of the 60 s allowed" in report.skipped["ease"]
    quick.clear()
    report = train(home, time_limit=60)
    assert [one.model for one in report.models] == ["popular", "layered"]
    assert registry.load_model(home).parts == {"popular": "popular/1"}


def test_the_estimate_grows_with_the_cube_of_the_items_and_stops_at_the_most_covered(home: Home) -> None:
    made = interactions(_history(home), home.settings)
    training: Any = SimpleNamespace(interactions=made, gram=build_gram(made, home.settings))
    few = home.settings.with_flags({"model.ease.max_items": len(training.gram.items) // 2})
    whole, half = (estimated_seconds("ease", training, settings) for settings in (home.settings, few))
    assert whole == pytest.approx(8 * half)


@pytest.mark.parametrize(
    ("items", "limit", "covered"), [(50_000, 300, 16_400), (50_000, 1e6, 20_000), (9_000, 300, 20_000)]
)
def test_ease_covers_as_many_items_as_the_time_allows(home: Home, items: int, limit: float, covered: int) -> None:
    training: Any = SimpleNamespace(gram=SimpleNamespace(items=range(items)))
    settings = fitting(training, home.settings, limit, 1)
    assert settings.whole("model.ease.max_items") == covered
    if items > covered:
        needed = 2 * estimated_seconds("ease", training, settings) + ranking_seconds(training, settings)
        assert needed <= limit
    hopeless = fitting(training, home.settings, 0.01, 1)
    assert 2 * estimated_seconds("ease", training, hopeless) > 0.01, "too few would be left: it is skipped"


def _history(home: Home) -> Any:
    from persona_cli.profiles.history import fold_history, signal_events

    return fold_history(signal_events(home))


def test_without_anything_to_compare_a_rule_decides(tmp_path: Path) -> None:
    home = create(tmp_path / "w")
    add(home, [{"user_id": f"u{item}", "item_id": item, "timestamp": START} for item in ("i1", "i2")])
    report = train(home)
    assert "by rule" in report.why
    assert registry.load_model(home).parts["individual"] == "spectral/1"


def test_a_single_item_leaves_the_popular_list(tmp_path: Path) -> None:
    home = create(tmp_path / "w")
    add(home, [{"user_id": f"u{n}", "item_id": "only", "timestamp": START + timedelta(hours=n)} for n in range(5)])
    report = train(home)
    assert registry.load_model(home).parts == {"popular": "popular/1"}
    assert set(report.skipped) == set(PORTFOLIO)


def test_nothing_to_learn_from_is_missing_input(tmp_path: Path) -> None:
    home = create(tmp_path / "w")
    with pytest.raises(MissingInput) as error:
        train(home)
    assert error.value.hint == "persona ingest FILE"
    add(home, [{"user_id": "u1", "item_id": "i1", "timestamp": START, "event_type": "impression"}])
    with pytest.raises(MissingInput, match="strength above 0"):
        train(home)
    with pytest.raises(MissingInput, match="no events before 2025-01-01"):
        train(home, as_of=datetime(2025, 1, 1, tzinfo=UTC))
    assert registry.latest(home) is None


def test_set_takes_full_names_shorter_ones_and_bare_ones_beside_one_model() -> None:
    assert hyper_parameters({"model.ease.lambda": 1, "knn.neighbours": 2}, []) == {
        "model.ease.lambda": 1,
        "model.knn.neighbours": 2,
    }
    assert hyper_parameters({"lambda": "5"}, ["ease"]) == {"model.ease.lambda": "5"}
    for names in ([], ["ease", "knn"]):
        with pytest.raises(BadSettings, match="no hyper-parameter"):
            hyper_parameters({"lambda": 5}, names)
    with pytest.raises(BadSettings, match=r"did you mean 'model\.ease\.lambda'"):
        hyper_parameters({"model.ease.lamda": 5}, [])
    with pytest.raises(BadSettings, match="not a setting of models") as error:
        hyper_parameters({"signals.half_life_days": 5}, [])
    assert "persona.toml" in str(error.value.hint)


def test_wrong_values_names_and_combinations_are_refused_before_anything_is_written(home: Home) -> None:
    with pytest.raises(BadSettings, match="max_items"):
        train(home, ["ease"], {"max_items": "0"})
    with pytest.raises(UsageError, match="did you mean 'ease'"):
        train(home, ["eas"])
    with pytest.raises(UsageError, match="--time-limit"):
        train(home, ["ease"], time_limit=5)
    assert not home.path("models").exists()


def test_a_second_training_meanwhile_is_told_so(home: Home) -> None:
    with locks.hold(home, "models", "train"):
        import threading

        errors: list[BaseException] = []

        def other() -> None:
            try:
                train(home)
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert isinstance(errors[0], Busy)


def test_latest_is_written_last(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    train(home, ["knn"])
    before = json.loads(home.path("models", "latest.json").read_text())

    def dies(*_: object) -> None:
        assert home.path("models", "layered", "2").is_dir()
        raise KeyboardInterrupt

    monkeypatch.setattr(registry, "set_latest", dies)
    with pytest.raises(KeyboardInterrupt):
        train(home, ["ease"])
    assert json.loads(home.path("models", "latest.json").read_text()) == before
    monkeypatch.undo()
    assert train(home, ["ease"]).latest == "layered/2", "what the dead run had saved is used again"
