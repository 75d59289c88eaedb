"""kill -9 at random moments of train and recommend: what was served stays, and the next run completes."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "serving"))

from shop import START, add, shop

from persona_cli.feedback.training import train
from persona_cli.models import registry
from persona_cli.models.gram import build_gram
from persona_cli.models.interactions import interactions
from persona_cli.profiles.history import history
from persona_cli.workspace import artifacts
from persona_cli.workspace.home import Home, open_home

ROOT = Path(__file__).parents[2]
FEW, MANY = 3, 24


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = shop(tmp_path_factory.mktemp("faults") / "w")
    train(home)
    return home.root


@pytest.fixture
def home(made_once: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    shutil.copytree(made_once, elsewhere / "persona-workspace")
    return open_home(elsewhere / "persona-workspace")


def started(*words: str, **more: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "persona_cli", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more)  # type: ignore[call-overload,no-any-return]


def finished(*words: str) -> float:
    """Run a command that must succeed; how long it took."""
    began = time.monotonic()
    running = started(*words)
    _, err = running.communicate()
    assert running.returncode == 0, err.decode()
    return time.monotonic() - began


def killed(words: list[str], after: float, how: signal.Signals = signal.SIGKILL) -> tuple[int, float]:
    """The exit code of a command that is sent a signal after so many seconds, and how long it ran."""
    began = time.monotonic()
    running = started(*words)
    try:
        running.communicate(timeout=after)
    except subprocess.TimeoutExpired:
        running.send_signal(how)
        running.communicate()
    return running.returncode, time.monotonic() - began


def clean(home: Home) -> None:
    """`persona doctor` clears up, and then there is nothing left that no manifest and no table names."""
    finished("doctor")
    done = started("doctor", "--json", "--dry-run")
    findings = json.loads(done.communicate()[0])
    assert done.returncode == 0, findings
    assert artifacts.leftovers(home.root) == []
    for folder in home.path("models").glob("*/*"):
        assert artifacts.verify(folder), folder


def rounds(few: bool) -> list[float]:
    """Moments as shares of a whole run, spread evenly with some noise: no part of it is left out."""
    n = FEW if few else MANY
    noise = random.Random(7)
    return [(number + noise.random()) / n for number in range(n)]


def kill_train(home: Home, moments: list[float]) -> None:
    add(home, [{"user_id": "u00", "item_id": "a01", "timestamp": START + timedelta(weeks=19)}])
    whole = finished("train")
    codes = []
    for number, share in enumerate(moments):
        served = registry.latest(home)
        at = START + timedelta(weeks=20 + number)
        add(home, [{"user_id": f"u{number:02d}", "item_id": f"{'ab'[number % 2]}{number % 20:02d}", "timestamp": at}])
        code, took = killed(["train"], whole * share)
        codes.append(code)
        whole = min(whole, took) if code == 0 else whole  # the machine has become faster: aim anew
        now = registry.load_model(home)
        if codes[-1] != 0:
            assert now.reference in (served, f"layered/{int(str(served).partition('/')[2]) + 1}")
    assert -signal.SIGKILL in codes, "no run was killed while it worked"
    finished("train")
    finished("recommend", "--user", "u05")
    # What the survivors hold is what a workspace has that never saw a fault.
    gram = build_gram(interactions(history(home), home.settings), home.settings)
    newest = max(home.path("models", "gram").iterdir(), key=lambda path: int(path.name) if path.name.isdigit() else -1)
    assert artifacts.read_manifest(newest)["digest"] == gram.digest()
    before = {name: artifacts.read_manifest(registry.find(home, name))["files"] for name in ("popular", "knn", "ease")}
    shutil.rmtree(home.path("models"))
    train(home)
    again = {name: artifacts.read_manifest(registry.find(home, name))["files"] for name in ("popular", "knn", "ease")}
    assert again == before
    clean(home)


def test_train_killed_at_a_few_moments(home: Home) -> None:
    kill_train(home, rounds(few=True))


@pytest.mark.slow
def test_train_killed_at_many_moments(home: Home) -> None:
    kill_train(home, rounds(few=False))


def kill_recommend(home: Home, moments: list[float]) -> None:
    out = home.root.parent / "lists.jsonl"
    words = ["recommend", "--out", str(out)]
    whole = finished(*words)
    first = out.read_bytes()
    finished(*words, "--top", "7")
    second = out.read_bytes()
    assert first != second
    codes = []
    for number, share in enumerate(moments):
        wanted = [*words, "--top", "7"] if number % 2 else words
        code, took = killed(wanted, whole * share)
        codes.append(code)
        whole = min(whole, took) if code == 0 else whole
        assert out.read_bytes() in (first, second), "a list is there whole or as it was before"
    assert -signal.SIGKILL in codes, "no run was killed while it worked"
    finished(*words)
    assert out.read_bytes() == first
    assert [path.name for path in out.parent.iterdir() if path.name.startswith(".tmp")] == []
    clean(home)


def test_recommend_killed_at_a_few_moments(home: Home) -> None:
    kill_recommend(home, rounds(few=True))


@pytest.mark.slow
def test_recommend_killed_at_many_moments(home: Home) -> None:
    kill_recommend(home, rounds(few=False))


def test_terminated_training_leaves_what_was_served(home: Home) -> None:
    add(home, [{"user_id": "u00", "item_id": "a01", "timestamp": START + timedelta(weeks=19)}])
    code, _ = killed(["train"], 0.7, signal.SIGTERM)
    # Before its own handler is in place, Python ends by the signal itself.
    assert code in (0, 143, -signal.SIGTERM)
    assert registry.load_model(home).reference in ("layered/1", "layered/2")
    assert artifacts.leftovers(home.root) == [], "whoever is asked to stop clears up"
    finished("train")
    assert registry.load_model(home).reference == "layered/2"


def test_a_full_disk_is_said_and_leaves_nothing(home: Home, tmp_path: Path) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "persona_cli", "recommend"], stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert done.returncode == 74
    assert b"the disk is full" in done.stderr


def test_two_trainings_at_once_are_one_after_the_other(home: Home) -> None:
    add(home, [{"user_id": "u00", "item_id": "a01", "timestamp": START + timedelta(weeks=19)}])
    running = [started("train", "--wait", "60") for _ in range(2)]
    said = [one.communicate()[1].decode() for one in running]
    assert [one.returncode for one in running] == [0, 0], said
    assert registry.load_model(home).reference == "layered/2"
    clean(home)
