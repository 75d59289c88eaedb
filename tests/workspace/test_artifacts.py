from __future__ import annotations

import os
import random
import signal
import stat
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from persona_cli.errors import BadData, CannotWrite, MissingInput
from persona_cli.workspace import artifacts


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def python(code: str, *args: object) -> subprocess.Popen[str]:
    """A process that runs `code` and prints a line when it is where the test wants it."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, args)], stdout=subprocess.PIPE, text=True
    )


def kill_when_ready(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "models" / "ease" / "1"
    with artifacts.publish(target) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "a").write_text("x")
        assert not target.exists()
    assert (target / "sub" / "a").read_text() == "x"
    assert names(target.parent) == ["1"]


def test_a_folder_whose_making_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), artifacts.publish(tmp_path / "1") as folder:
        (folder / "a").write_text("x")
        raise KeyboardInterrupt
    assert names(tmp_path) == []


def test_a_folder_that_is_there_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    with pytest.raises(FileExistsError), artifacts.publish(tmp_path / "1"):
        pytest.fail("the body must not run")
    with pytest.raises(FileExistsError), artifacts.publish(tmp_path / "2"):
        (tmp_path / "2").mkdir()
    assert names(tmp_path) == ["1", "2"]


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    artifacts.write_text(path, "old")
    with pytest.raises(ValueError, match="no"), artifacts.replace_file(path) as beside:
        beside.write_text("half")
        raise ValueError("no")
    assert path.read_text() == "old"
    with artifacts.replace_file(path) as beside:
        beside.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert names(tmp_path) == ["out.jsonl"]


def test_a_replaced_file_keeps_its_permissions_and_a_link_stays_a_link(tmp_path: Path) -> None:
    path, link = tmp_path / "out", tmp_path / "link"
    path.write_text("old")
    path.chmod(0o640)
    link.symlink_to(path)
    artifacts.write_text(link, "new")
    assert link.is_symlink() and path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_device_is_written_directly(tmp_path: Path) -> None:
    with artifacts.replace_file(Path(os.devnull)) as path:
        assert path == Path(os.devnull)


def test_where_no_file_can_be_is_said(tmp_path: Path) -> None:
    with pytest.raises(CannotWrite, match="is a folder"), artifacts.replace_file(tmp_path):
        pass
    with pytest.raises(CannotWrite) as caught, artifacts.replace_file(tmp_path / "no" / "x"):
        pass
    assert caught.value.hint == f"mkdir -p {tmp_path / 'no'}"


def test_of_two_first_writers_one_wins(tmp_path: Path) -> None:
    artifacts.write_new(tmp_path / "a", "first")
    artifacts.write_new(tmp_path / "a", "second")
    assert (tmp_path / "a").read_text() == "first"
    assert names(tmp_path) == ["a"]


def test_a_manifest_states_every_file_and_equal_folders_have_equal_manifests(tmp_path: Path) -> None:
    for name in ("1", "2"):
        with artifacts.publish(tmp_path / name) as folder:
            (folder / "b").write_bytes(b"")
            (folder / "sub").mkdir()
            (folder / "sub" / "a").write_text("x")
            artifacts.write_manifest(folder, {"model": "ease"})
    manifest = artifacts.verify(tmp_path / "1")
    assert manifest["model"] == "ease"
    assert manifest["files"]["b"] == {
        "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "bytes": 0,
    }
    assert list(manifest["files"]) == ["b", "sub/a"]
    assert (tmp_path / "1" / "manifest.json").read_bytes() == (tmp_path / "2" / "manifest.json").read_bytes()


@pytest.mark.parametrize("contents", [True, False])
def test_what_differs_from_the_manifest_is_named(tmp_path: Path, contents: bool) -> None:
    with artifacts.publish(tmp_path / "1") as folder:
        (folder / "a").write_text("x")
        artifacts.write_manifest(folder, {})
    path = tmp_path / "1" / "a"
    path.write_text("y")
    if contents:
        with pytest.raises(BadData, match="1/a"):
            artifacts.verify(tmp_path / "1")
    else:
        artifacts.verify(tmp_path / "1", contents=False)
    path.write_text("longer")
    with pytest.raises(BadData, match="1/a"):
        artifacts.verify(tmp_path / "1", contents=contents)
    path.unlink()
    with pytest.raises(BadData, match="missing"):
        artifacts.verify(tmp_path / "1", contents=contents)
    path.write_text("x")
    (tmp_path / "1" / "more").write_text("")
    with pytest.raises(BadData, match="not in the manifest"):
        artifacts.verify(tmp_path / "1", contents=contents)


def test_a_folder_without_a_whole_manifest_is_no_artifact(tmp_path: Path) -> None:
    with pytest.raises(MissingInput):
        artifacts.verify(tmp_path)
    for text in ("{", "[]", "{}"):
        (tmp_path / "manifest.json").write_text(text)
        with pytest.raises(BadData, match="damaged"):
            artifacts.verify(tmp_path)


WRITE_FOLDER = """
    import sys, time
    from pathlib import Path
    from persona_cli.workspace import artifacts
    with artifacts.publish(Path(sys.argv[1])) as folder:
        (folder / "big").write_text("x" * 100000)
        print("ready", flush=True)
        time.sleep(60)
"""
WRITE_FILE = """
    import sys, time
    from pathlib import Path
    from persona_cli.workspace import artifacts
    with artifacts.replace_file(Path(sys.argv[1])) as beside:
        beside.write_text("half")
        print("ready", flush=True)
        time.sleep(60)
"""


def test_leftovers_of_a_killed_writer_are_found_and_of_a_living_one_are_not(tmp_path: Path) -> None:
    dead = python(WRITE_FOLDER, tmp_path / "models" / "1")
    kill_when_ready(dead)
    living = python(WRITE_FOLDER, tmp_path / "models" / "2")
    assert living.stdout is not None and living.stdout.readline() == "ready\n"
    try:
        found = artifacts.leftovers(tmp_path)
        assert [path.parent for path in found] == [tmp_path / "models"]
        assert f".tmp-{dead.pid}-" in found[0].name
        artifacts.remove(found[0])
        assert artifacts.leftovers(tmp_path) == []
        assert [name.split("-")[1] for name in names(tmp_path / "models")] == [str(living.pid)]
    finally:
        living.kill()
        living.wait()
        living.stdout.close()


def test_age_decides_where_the_number_of_the_process_is_in_use_again(tmp_path: Path) -> None:
    path = tmp_path / f".tmp-{os.getpid()}-0123456789ab"
    path.write_text("")
    assert artifacts.leftovers(tmp_path) == []
    os.utime(path, (1, 1))
    assert artifacts.leftovers(tmp_path) == [path]


def test_other_names_are_never_leftovers(tmp_path: Path) -> None:
    for name in (".tmp", ".tmp-x-0123456789ab", ".tmp-999999999-0123", "tmp-999999999-0123456789ab", "x.tmp"):
        (tmp_path / name).write_text("")
    assert artifacts.leftovers(tmp_path) == []


def test_the_next_writer_of_a_file_sweeps_what_a_killed_one_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    artifacts.write_text(path, "old")
    kill_when_ready(python(WRITE_FILE, path))
    kill_when_ready(python(WRITE_FILE, tmp_path / "other"))
    assert path.read_text() == "old"
    assert len(names(tmp_path)) == 3
    artifacts.write_text(path, "new")
    left = [name for name in names(tmp_path) if name != "out.jsonl"]
    assert path.read_text() == "new"
    assert len(left) == 1 and left[0].endswith("-other")


WRITE_FOR_EVER = """
    import itertools, sys
    from pathlib import Path
    from persona_cli.workspace import artifacts
    root = Path(sys.argv[1])
    taken = [int(path.name) for path in root.glob("models/[0-9]*")]
    print("ready", flush=True)
    for n in itertools.count(max(taken, default=0) + 1):
        with artifacts.publish(root / "models" / str(n)) as folder:
            (folder / "a").write_text("x" * 300_000)
            artifacts.write_manifest(folder, {"n": n})
        artifacts.write_text(root / "latest", str(n))
"""


@pytest.mark.slow
def test_killed_at_any_moment_what_is_there_is_whole_and_the_rest_can_be_removed(tmp_path: Path) -> None:
    moments = random.Random(7)
    latest = 0
    for _ in range(25):
        process = python(WRITE_FOR_EVER, tmp_path)
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        time.sleep(moments.random() * 0.05)
        process.kill()
        process.wait()
        process.stdout.close()
        for left in artifacts.leftovers(tmp_path):
            artifacts.remove(left)
        assert not list(tmp_path.rglob(".tmp-*"))
        published = sorted(int(path.name) for path in tmp_path.glob("models/*"))
        assert [artifacts.verify(tmp_path / "models" / str(n))["n"] for n in published] == published
        if (tmp_path / "latest").exists():
            before, latest = latest, int((tmp_path / "latest").read_text())
            assert latest in published and latest >= before
    assert published
