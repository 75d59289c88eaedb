"""forget that is killed at any moment, two at once, and readers beside."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from forgetting import DEVICE, GONE, N, assert_same_models, assert_same_tables, workspace

from persona_cli.cli.main import run
from persona_cli.errors import Busy
from persona_cli.feedback.training import train
from persona_cli.privacy.erasure import complete, forget, verify
from persona_cli.privacy.requests import requests
from persona_cli.workspace import artifacts, locks, tables
from persona_cli.workspace.doctor import pending_erasures
from persona_cli.workspace.home import Home, open_home

ROOT = Path(__file__).parents[2]
FEW, MANY = 3, 30

# Runs forget and ends, as by a power cut, before the n-th step that changes something on disk. 0: only counts the
# steps; -1: stands still once it is under way.
SCRIPT = """
import os, signal, sys
from pathlib import Path

limit, root, users = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
steps = 0

def counted(function):
    def step(*args, **more):
        global steps, limit
        steps += 1
        if steps == limit:
            os.kill(os.getpid(), signal.SIGKILL)
        if limit < 0 and list(Path(root).glob("privacy/pending/R-*.json")):
            limit = 0
            os.kill(os.getpid(), signal.SIGSTOP)
        return function(*args, **more)
    return step

from persona_cli.privacy.erasure import forget
from persona_cli.workspace.home import open_home

for name in ("fsync", "rename", "replace", "unlink", "rmdir"):
    setattr(os, name, counted(getattr(os, name)))
forget(open_home(Path(root)), users)
print(steps)
"""


@pytest.fixture(scope="module")
def whole_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = workspace(tmp_path_factory.mktemp("faults") / "whole")
    train(home, ["knn"])
    return home.root


@pytest.fixture(scope="module")
def never_once(whole_once: Path) -> Path:
    home = workspace(whole_once.parent / "never", open_home(whole_once), GONE)
    train(home, ["knn"])
    return home.root


@pytest.fixture
def whole(whole_once: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return copied(whole_once, elsewhere / "whole")


def copied(root: Path, to: Path) -> Home:
    return open_home(Path(shutil.copytree(root, to)))


def started(limit: int, home: Home, users: list[str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SCRIPT, str(limit), str(home.root), *users]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def killed_at(moments: list[int], whole_once: Path, never_once: Path, folder: Path) -> None:
    never = open_home(never_once)
    for number in moments:
        home = copied(whole_once, folder / f"killed-{number}")
        running = started(number, home, GONE)
        running.communicate()
        assert running.returncode == -signal.SIGKILL
        begun = pending_erasures(home)
        for request in begun:
            path = home.path("privacy", "pending", f"{request}.json")
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert any(one.id == request and one.closed is None for one in requests(home))
        if not begun and verify(home, GONE):
            forget(home, GONE)  # nothing was touched yet
        elif number % 2:
            complete(home)
        else:
            forget(home, ["nobody"])
        assert pending_erasures(home) == [] and artifacts.leftovers(home.root) == [] and tables.orphans(home) == []
        assert_same_tables(home, never)
        assert_same_models(home, never)
        assert verify(home, [*GONE, DEVICE]) == [], number
        shutil.rmtree(home.root)


def steps_of(whole_once: Path, folder: Path) -> int:
    running = started(0, copied(whole_once, folder / "counted"), GONE)
    out, err = running.communicate()
    assert running.returncode == 0, err
    return int(out)


@pytest.mark.parametrize("n", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
def test_killed(n: int, whole: Home, whole_once: Path, never_once: Path, elsewhere: Path) -> None:
    steps = steps_of(whole_once, elsewhere)
    assert steps > 2 * n
    moments = [1 + (2 * number + 1) * steps // (2 * n) for number in range(n)]
    killed_at(moments, whole_once, never_once, elsewhere)


def test_doctor_and_status_tell_of_one_that_was_killed(whole: Home, capsys: pytest.CaptureFixture[str]) -> None:
    path = whole.path("privacy", "pending", "R-0123456789ab.json")
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"ids": GONE}))
    where = ["-w", str(whole.root)]
    assert run(["doctor", *where]) == 10
    assert "R-0123456789ab was begun and not completed" in capsys.readouterr().out
    assert run(["status", *where]) == 0
    assert "persona privacy forget" in capsys.readouterr().out


def until(happened: Callable[[], bool], seconds: float = 60) -> bool:
    """Wait for something; whether it happened."""
    end = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def test_two_at_once(whole: Home, capsys: pytest.CaptureFixture[str]) -> None:
    first = started(-1, whole, GONE[:1])
    assert until(lambda: bool(pending_erasures(whole))), first.communicate()
    assert run(["privacy", "forget", GONE[1], "--yes", "-w", str(whole.root)]) == 75
    assert f"pid {first.pid}" in capsys.readouterr().err
    assert until(lambda: first.poll() is not None or os.kill(first.pid, signal.SIGCONT) is not None)
    assert (first.communicate(), first.returncode)[1] == 0
    assert run(["privacy", "forget", GONE[1], "--yes", "-w", str(whole.root)]) == 0
    assert verify(whole, GONE[:2]) == []


@pytest.mark.slow
def test_a_reader_beside_gets_the_lists_of_before_or_after(whole: Home) -> None:
    names = {f"u{number:02d}" for number in range(N)}
    command = [sys.executable, "-m", "persona_cli", "recommend", "-w", str(whole.root)]
    for who in GONE[:1]:
        readers = []
        thread = threading.Thread(target=lambda gone=who: forget(whole, [gone]))
        readers.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        thread.start()
        time.sleep(0.2)
        readers.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        thread.join()
        for reader in readers:
            out, err = reader.communicate()
            assert reader.returncode == 0, err
            users = {json.loads(line)["user_id"] for line in out.splitlines()}
            assert users in (names, names - {who}, names | {DEVICE}, (names | {DEVICE}) - {who})
        names -= {who}


def test_files_that_somebody_reads_are_deleted_when_they_are_done(whole: Home) -> None:
    reading = subprocess.Popen(
        [sys.executable, "-c", "import sys; from pathlib import Path; from persona_cli.workspace import home, locks;"
         f"locks.read(home.open_home(Path({str(whole.root)!r}))); print('reading', flush=True); sys.stdin.read()"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert reading.stdout is not None and reading.stdout.readline() == "reading\n"
    with locks.unread(whole, 0) as alone:
        assert not alone
    thread = threading.Thread(target=lambda: forget(whole, GONE[:1]))
    before = tables.row_count(whole, "events")
    thread.start()
    assert until(lambda: tables.row_count(whole, "events") < before)
    old = list(whole.path("events").rglob("*.parquet"))
    time.sleep(0.3)
    assert thread.is_alive() and all(path.exists() for path in old)
    reading.communicate("")
    thread.join()
    assert not all(path.exists() for path in old) and verify(whole, GONE[:1]) == []


def test_a_command_that_waits_for_a_lock_is_not_waited_for(whole: Home) -> None:
    locks.read(whole)
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with locks.hold(whole, "models", "other"):
            held.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    with pytest.raises(Busy), locks.hold(whole, "models", "train", wait=0.2):
        pass
    with locks.unread(whole, 0) as alone:
        assert alone
    done.set()
    thread.join()
    locks.stop_reading()
