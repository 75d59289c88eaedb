"""Models of other distributions: the example of docs/plugins.md installed, used as users do, and broken on purpose."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from persona_cli.cli.main import run
from persona_cli.models import kinds
from persona_cli.models.base import Model
from persona_cli.models.testing import CHECKS, SETTINGS
from persona_cli.workspace.settings import plugin_models

PAGE = Path(__file__).parents[2] / "docs" / "plugins.md"
Installer = Callable[..., Path]
pytestmark = pytest.mark.usefixtures("elsewhere")


def example() -> dict[str, str]:
    """The files of the example on the page, by name."""
    blocks = re.findall(r"^`([\w.]+)`:\n\n```\w+\n(.*?)^```$", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)
    return dict(blocks)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installer:
    """Puts a distribution with this entry point and these files where Python finds it, and answers the folder."""
    modules: list[str] = []

    def put(name: str, point: str, files: dict[str, str], version: str = "1.0") -> Path:
        folder = tmp_path / f"site-{name}"
        info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[persona.models]\n{point}\n")
        for file, text in files.items():
            (folder / file).write_text(text)
            modules.append(file.removesuffix(".py"))
        monkeypatch.syspath_prepend(folder)
        importlib.invalidate_caches()
        plugin_models.cache_clear()
        return folder

    yield put  # type: ignore[misc]
    plugin_models.cache_clear()
    for module in modules:
        sys.modules.pop(module, None)


@pytest.fixture
def together(install: Installer) -> Path:
    """The example, installed by what its pyproject.toml says."""
    files = example()
    project = tomllib.loads(files["pyproject.toml"])["project"]
    ((name, value),) = project["entry-points"]["persona.models"].items()
    return install(project["name"], f"{name} = {value}", {"persona_together.py": files["persona_together.py"]})


@pytest.fixture
def workspace(films: Callable[[int], Path]) -> Path:
    return films(60)


def answered(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> tuple[str, str]:
    assert run([words[0], "-w", "w", *words[1:]]) == code, capsys.readouterr().err
    out, err = capsys.readouterr()
    return out, err


def test_the_example_keeps_the_contract(together: Path) -> None:
    def made() -> Model:
        return kinds.unfitted("together", SETTINGS)

    for check in CHECKS:
        if "another_process" not in check.__name__:  # that one was started without the example
            check(made)


@pytest.mark.slow
def test_its_own_tests_pass_as_the_page_runs_them(together: Path) -> None:
    (together / "test_together.py").write_text(example()["test_together.py"])
    paths = os.pathsep.join([str(together), str(PAGE.parents[1])])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_together.py"],
        cwd=together,
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and f"{len(CHECKS)} passed" in done.stdout, done.stdout


def test_it_is_trained_served_and_evaluated_by_its_name(
    together: Path, workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, _ = answered(capsys, "train", "--model", "together", "--set", "shrinkage=2", "--json")
    assert [one["model"] for one in json.loads(out)["models"]] == ["popular", "together", "layered"]
    manifest = json.loads((workspace / "models" / "together" / "1" / "manifest.json").read_text())
    assert manifest["settings"] == {"shrinkage": 2} and manifest["recipe"]["model.together.shrinkage"] == 2
    assert manifest["distribution"] == "persona-together 1.0"
    out, _ = answered(capsys, "recommend", "--user", "u01", "--top", "3", "--include-holdout", "--format", "jsonl")
    assert all(int(item["item_id"][1:]) % 2 == 1 for item in json.loads(out)["items"])
    out, _ = answered(capsys, "evaluate", "--model", "together", "--model", "knn", "--k", "5", "--json")
    entries = {entry["model"]: entry for entry in json.loads(out)["models"]}
    assert entries["together"]["settings"]["model.together.shrinkage"] == 2
    assert entries["together"]["metrics"]["recall@5"]["value"] > entries["popular"]["metrics"]["recall@5"]["value"]


def test_settings_in_the_file_and_in_the_environment(
    together: Path, workspace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with (workspace / "persona.toml").open("a") as file:
        file.write("\n[model.together]\nshrinkage = 5.5\n")
    answered(capsys, "train", "--model", "together")
    stored = workspace / "models" / "together"
    assert json.loads((stored / "1" / "manifest.json").read_text())["settings"] == {"shrinkage": 5.5}
    monkeypatch.setenv("PERSONA_MODEL_TOGETHER_SHRINKAGE", "7")
    answered(capsys, "train", "--model", "together")
    assert json.loads((stored / "2" / "manifest.json").read_text())["settings"] == {"shrinkage": 7}
    assert run(["config", "show", "-w", "w", "model.together", "--json", "--origin"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown == {"model.together.shrinkage": {"value": 7, "origin": "environment"}}


def test_a_setting_that_it_does_not_know(together: Path, workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, err = answered(capsys, "train", "--model", "together", "--set", "shrinkag=2", code=78)
    assert "[model.together] does not suit the model of persona-together" in err and "'shrinkag'" in err
    with (workspace / "persona.toml").open("a") as file:
        file.write("\n[model.togther]\nshrinkage = 5.5\n")
    _, err = answered(capsys, "train", "--model", "together", code=78)
    assert "model.togther is not a setting; did you mean 'model.together'?" in err


def test_a_plug_in_that_is_gone_is_named(
    together: Path, workspace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answered(capsys, "train", "--model", "together")
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != str(together)])
    plugin_models.cache_clear()
    _, err = answered(capsys, "recommend", code=69)
    assert "together/1 was made by persona-together 1.0, which is not installed" in err
    assert "pip install persona-together==1.0" in err
    answered(capsys, "train", "--model", "knn")
    answered(capsys, "recommend", "--user", "u01")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import a_module_that_is_nowhere", "cannot be loaded (ModuleNotFoundError: No module named"),
        ("class Other: pass", "cannot be loaded (AttributeError:"),
        ("class Mine: name = 'mine'", "has no from_settings, fit, scores, settings, save, load"),
        ("from persona_cli.models.knn import Knn as Mine", "calls itself 'knn'"),
    ],
)
def test_a_broken_plug_in_is_named_with_its_distribution(
    install: Installer, workspace: Path, capsys: pytest.CaptureFixture[str], source: str, said: str
) -> None:
    install("persona-mine", "mine = mine_of_tests:Mine", {"mine_of_tests.py": source})
    _, err = answered(capsys, "train", "--model", "mine", code=69)
    assert f"the model 'mine' of persona-mine {said}" in err
    answered(capsys, "train", "--model", "knn")


def test_two_models_of_one_name(install: Installer, workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("persona-mine", "persona-yours"):
        install(name, "mine = mine_of_tests:Mine", {"mine_of_tests.py": "class Mine: pass"})
    _, err = answered(capsys, "train", "--model", "mine", code=69)
    assert "persona-mine and persona-yours both have a model 'mine'" in err


def test_names_of_persona_are_not_taken(install: Installer) -> None:
    before = kinds.MODELS["ease"]
    install("persona-mine", "ease = mine_of_tests:Mine", {"mine_of_tests.py": "class Mine: pass"})
    assert kinds.MODELS["ease"] is before
    assert list(kinds.MODELS).count("ease") == 1
