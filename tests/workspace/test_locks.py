from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from persona_cli.errors import Busy
from persona_cli.workspace import locks
from persona_cli.workspace.home import Home, create

HOLD = """
    import sys, time
    from pathlib import Path
    from persona_cli.workspace import locks
    from persona_cli.workspace.home import open_home
    with locks.hold(open_home(Path(sys.argv[1])), "tables", "persona ingest events.jsonl"):
        print("ready", flush=True)
        time.sleep(float(sys.argv[2]))
"""


@pytest.fixture
def workspace(tmp_path: Path) -> Home:
    return create(tmp_path / "w")


@contextmanager
def held(workspace: Home, seconds: float = 60) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock."""
    command = [sys.executable, "-c", textwrap.dedent(HOLD), str(workspace.root), str(seconds)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_second_process_is_told_who_what_and_what_to_do(workspace: Home) -> None:
    with held(workspace) as process:
        with pytest.raises(Busy) as caught, locks.hold(workspace, "tables", "persona ingest"):
            pytest.fail("the body must not run")
        assert caught.value.exit_code == 75
        assert f"pid {process.pid} (persona ingest events.jsonl)" in caught.value.message
        assert "tables" in caught.value.message and " s: " in caught.value.message and "cron" in caught.value.message
        assert caught.value.hint is not None and "--wait" in caught.value.hint
        assert (locks.holder(workspace, "tables") or {})["pid"] == process.pid
        with locks.hold(workspace, "models", "persona train"):
            assert (locks.holder(workspace, "models") or {})["pid"] == os.getpid()


def test_a_killed_holder_holds_nothing(workspace: Home) -> None:
    with held(workspace) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        with locks.hold(workspace, "tables", "persona ingest"):
            pass
    assert locks.holder(workspace, "tables") is None


def test_waiting_gets_the_lock_when_it_comes_free_and_gives_up_after_the_time_given(workspace: Home) -> None:
    with held(workspace, 0.5), locks.hold(workspace, "tables", "persona ingest", wait=30):
        pass
    late = locks.hold(workspace, "tables", "persona ingest", wait=0.2)
    with held(workspace), pytest.raises(Busy, match="also after waiting"), late:
        pass


def test_the_same_thread_passes_and_releases_only_at_the_end(workspace: Home) -> None:
    with locks.hold(workspace, "tables", "outer"):
        with locks.hold(workspace, "tables", "inner"):
            pass
        assert (locks.holder(workspace, "tables") or {})["command"] == "outer"
    assert locks.holder(workspace, "tables") is None


def test_another_thread_does_not_pass(workspace: Home) -> None:
    seen: list[BaseException] = []

    def attempt() -> None:
        try:
            with locks.hold(workspace, "tables", "other thread"):
                pass
        except Busy as busy:
            seen.append(busy)

    with locks.hold(workspace, "tables", "main thread"):
        thread = threading.Thread(target=attempt)
        thread.start()
        thread.join()
    assert len(seen) == 1 and "another thread" in str(seen[0])


def test_a_lock_is_released_when_the_body_fails(workspace: Home) -> None:
    with pytest.raises(ValueError, match="x"), locks.hold(workspace, "tables", "x"):
        raise ValueError("x")
    assert locks.holder(workspace, "tables") is None


def test_a_child_that_outlives_its_parent_and_keeps_the_lock_is_named_as_the_cause(workspace: Home) -> None:
    forking = """
        import os, sys, time
        from pathlib import Path
        from persona_cli.workspace import locks
        from persona_cli.workspace.home import open_home
        with locks.hold(open_home(Path(sys.argv[1])), "tables", "parent"):
            if child := os.fork():
                print(child, flush=True)
                os._exit(0)
            time.sleep(60)
    """
    command = [sys.executable, "-c", textwrap.dedent(forking), str(workspace.root)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    process.wait()
    try:
        with pytest.raises(Busy, match="that process has ended"), locks.hold(workspace, "tables", "x"):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        process.stdout.close()
    deadline = time.monotonic() + 10
    while locks.holder(workspace, "tables") is not None and time.monotonic() < deadline:
        time.sleep(0.01)
    with locks.hold(workspace, "tables", "x", wait=10):
        pass


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"), (864_000, "10 days"), (-5, "0 s")]
)
def test_ages(seconds: float, text: str) -> None:
    assert locks.age_text(seconds) == text
