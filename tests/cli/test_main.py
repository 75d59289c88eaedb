"""The manners of the command line, as a shell sees them: exit codes, signals, pipes, terminals."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from persona_cli import __version__, errors
from persona_cli.cli import failures, main
from persona_cli.cli.help import summary
from persona_cli.cli.main import run, whole
from persona_cli.workspace import home as homes
from persona_cli.workspace import runs
from persona_cli.workspace.settings import render_default

# A persona with one more command, to see how a command that does something ends.
EXTRA = """
import os, sys, time
from persona_cli import errors
from persona_cli.cli import common, main
def extra():
    "One more."
    BODY
common.command(main.whole(), extra)
sys.argv = ["persona", *sys.argv[1:]]
main.main()
"""


@pytest.fixture(autouse=True)
def apart(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No workspace but those a test makes."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))  # also where it is not installed


def persona(*args: object, **more: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "persona_cli", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **more)  # type: ignore[call-overload]


def with_extra(body: str) -> list[str]:
    return [sys.executable, "-c", EXTRA.replace("BODY", textwrap.indent(textwrap.dedent(body), "    ").strip())]


def test_alone_it_says_how_to_begin_and_then_what_there_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 0
    assert "persona demo" in capsys.readouterr().out
    homes.create(tmp_path / "persona-workspace")
    assert run([]) == 0
    shown = capsys.readouterr().out
    assert str(tmp_path / "persona-workspace") in shown
    assert "persona ingest FILE" in shown


def test_version_before_and_after_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    for args in (["--version"], ["status", "--version"]):
        assert run(args) == 0
        assert capsys.readouterr().out == f"persona {__version__}\n"


@pytest.mark.parametrize("name", ["--workspace", "-w"])
def test_the_workspace_is_named_before_or_after_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    homes.create(tmp_path / "a")
    for args in (
        [name, "a", "status", "--json"],
        ["status", "--json", name, "a"],
        [name, "b", "status", "--json", name, "a"],
    ):
        assert run(args) == 0
        assert json.loads(capsys.readouterr().out)["workspace"] == str(tmp_path / "a")
    assert run([name, "a"]) == 0
    assert str(tmp_path / "a") in capsys.readouterr().out


def test_an_error_is_a_sentence_a_blank_line_and_a_hint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["-w", "nope", "status"]) == 66
    seen = capsys.readouterr()
    assert seen.out == ""
    assert seen.err == (
        f"persona: the workspace {tmp_path}/nope does not exist\n\nhint: persona init {tmp_path}/nope\n"
    )
    assert run(["-w", "nope"]) == 66
    assert run(["-w", "nope", "doctor"]) == 66


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["ini"], "Did you mean 'init'"),
        (["status", "--jsn"], "--json"),
        (["config", "show", "--format", "xml"], "'xml'"),
        (["runs", "list", "--limit", "0"], "greater than or equal to 1"),
        (["init", "a", "b"], "unexpected extra argument"),
        (["config", "show", "--json", "--format", "csv"], "contradict"),
    ],
)
def test_a_wrong_command_line_is_2_with_a_hint(capsys: pytest.CaptureFixture[str], args: list[str], words: str) -> None:
    assert run(args) == 2
    seen = capsys.readouterr()
    assert seen.out == "" and words in seen.err
    assert seen.err.startswith("persona: ")


def test_a_group_alone_shows_its_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["runs"]) == 2
    assert "list" in capsys.readouterr().out


def test_every_error_has_its_own_exit_code() -> None:
    classes = [value for value in vars(errors).values() if isinstance(value, type)]
    codes = {found.__name__: found.exit_code for found in classes if issubclass(found, errors.PersonaError)}
    assert codes == {
        "PersonaError": 1,
        "UsageError": 2,
        "CheckFailed": 10,
        "BadData": 65,
        "MissingInput": 66,
        "Unavailable": 69,
        "CannotWrite": 74,
        "Busy": 75,
        "Refused": 77,
        "BadSettings": 78,
    }


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OSError(28, "No space left on device"), 74),
        (OSError(30, "Read-only file system"), 74),
        (OSError(13, "Permission denied"), 74),
        (OSError(122, "Disk quota exceeded"), 74),
        (RuntimeError("Generic LocalFileSystem error: No space left on device (os error 28)"), 74),
        (FileNotFoundError(2, "No such file or directory", "events.jsonl"), 66),
    ],
)
def test_faults_of_the_disk_are_explained(error: Exception, code: int) -> None:
    known = failures.explained(error)
    assert known is not None and known.exit_code == code


def test_a_cause_counts_and_a_fault_of_our_own_stays_unexpected() -> None:
    wrapped = RuntimeError("the commit failed")
    wrapped.__cause__ = OSError(28, "No space left on device")
    known = failures.explained(wrapped)
    assert known is not None and known.exit_code == 74
    assert failures.explained(ZeroDivisionError("division by zero")) is None


def test_the_unexpected_is_one_sentence_and_a_traceback_only_when_asked() -> None:
    command = with_extra("raise ZeroDivisionError('u\\x1b[31m1')")
    done = subprocess.run([*command, "extra"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("persona: something unexpected happened: ZeroDivisionError: u\\x1b[31m1\n\nhint: ")
    assert "Traceback" not in done.stderr
    for args, environ in ((["extra", "--debug"], {}), (["--debug", "extra"], {}), (["extra"], {"PERSONA_DEBUG": "1"})):
        done = subprocess.run(
            [*command, *args], capture_output=True, text=True, check=False, env={**os.environ, **environ}
        )
        assert done.returncode == 1 and "Traceback" in done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_clean_up_and_have_their_codes(tmp_path: Path, number: signal.Signals, code: int) -> None:
    body = """
        from pathlib import Path
        from persona_cli.workspace import artifacts, runs
        home = common.locate_home()
        with runs.recording(home, ["extra"]), artifacts.publish(home.path("models", "1")):
            print("ready", flush=True)
            time.sleep(60)
    """
    made = homes.create(tmp_path / "persona-workspace")
    process = subprocess.Popen([*with_extra(body), "extra"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert process.returncode == code
    assert "Traceback" not in said and len(said.splitlines()) == 1
    assert list(made.path("models").iterdir()) == []
    (recorded,) = runs.read_runs(made)
    assert (recorded["status"], recorded["exit_code"]) == ("interrupted", code)


def test_a_reader_that_goes_away_ends_quietly() -> None:
    body = "for n in range(200_000): print(n)"
    process = subprocess.Popen([*with_extra(body), "extra"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline() == "0\n"
    process.stdout.close()
    assert process.wait(timeout=30) == 141
    assert process.stderr.read() == ""
    process.stderr.close()


def test_a_reader_that_was_never_there_ends_quietly() -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "persona_cli", "config", "show"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (done.returncode, done.stderr.replace("no workspace here: these are the defaults\n", "")) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_74() -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "persona_cli", "config", "show", "-q"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 74
    assert done.stderr == "persona: cannot write: the disk is full\n\nhint: persona doctor\n"
    assert persona("config", "show", "--out", "/dev/full").returncode == 74


def test_a_file_that_cannot_grow_leaves_the_old_one(tmp_path: Path) -> None:
    out = tmp_path / "out.txt"
    out.write_text("old")
    limited = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100));"
        "from persona_cli.cli.main import run; sys.exit(run(['config', 'show', '-q', '--out', sys.argv[1]]))"
    )
    done = subprocess.run([sys.executable, "-c", limited, str(out)], capture_output=True, text=True, check=False)
    assert done.returncode == 74, done.stderr
    assert out.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out.txt"]


def test_what_is_written_is_for_its_owner_only(tmp_path: Path) -> None:
    assert persona("config", "show", "--out", tmp_path / "out.txt").returncode == 0
    assert (tmp_path / "out.txt").stat().st_mode & 0o077 == 0


def test_quiet_says_nothing_when_all_is_well(tmp_path: Path) -> None:
    for args in (("-q", "init", "a"), ("init", "b", "--quiet")):
        done = persona(*args)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert "created the workspace" in persona("init", "c").stderr


def test_nothing_is_coloured_in_a_pipe_or_where_colour_is_not_wanted() -> None:
    assert "\033" not in persona("--help").stdout
    assert "\033" in in_terminal(["--help"], {"TERM": "xterm"})
    assert "\033[" not in in_terminal(["--help"], {"TERM": "xterm", "NO_COLOR": "1"})
    assert "\033[" not in in_terminal(["config", "show"], {"TERM": "xterm", "NO_COLOR": "1"})


def in_terminal(args: list[str], environ: dict[str, str]) -> str:
    """What a person at a terminal sees."""
    master, slave = pty.openpty()
    env = {name: value for name, value in os.environ.items() if name != "NO_COLOR"} | environ
    process = subprocess.Popen(
        [sys.executable, "-m", "persona_cli", *args], stdin=slave, stdout=slave, stderr=slave, env=env
    )
    os.close(slave)
    seen = b""
    while True:
        try:
            chunk = os.read(master, 65536)
        except OSError:
            break
        if not chunk:
            break
        seen += chunk
    os.close(master)
    assert process.wait() == 0
    return seen.decode()


def test_help_has_panels_in_order_examples_and_the_options_of_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    page = capsys.readouterr().out
    panels = [line for line in page.splitlines() if line in ("Every day:", "Data:", "Models:", "Serve:")]
    assert panels == [panel for panel in ("Every day:", "Data:", "Models:", "Serve:") if panel in panels]
    assert run(["config", "show", "--help"]) == 0
    page = capsys.readouterr().out
    for words in (
        "Usage: persona config show [OPTIONS] [KEY]",
        "--origin",
        "--workspace DIR",
        "Examples:\n  persona config",
    ):
        assert words in page


def every_command(group: Any, path: str = "persona") -> Iterator[tuple[str, Any]]:
    for name, found in group.commands.items():
        if hasattr(found, "commands"):
            yield from every_command(found, f"{path} {name}")
        else:
            yield f"{path} {name}", found


def test_every_command_has_a_summary_that_fits_and_an_example_of_its_own() -> None:
    for path, found in every_command(typer.main.get_command(whole())):
        assert 10 < len(summary(found)) <= 120, path
        _, _, examples = found.help.partition("Examples:\n")
        assert any(line.strip().startswith(path) for line in examples.splitlines()), path
        undescribed = [param.name for param in found.params if not param.help]
        assert not undescribed, f"{path}: {undescribed}"


def test_the_table_of_parts_names_what_each_registers() -> None:
    for part, names in main.PARTS.items():
        assert sorted(typer.main.get_command(main.build([part])).commands) == sorted(names), part  # type: ignore[attr-defined]


def test_completion_names_commands() -> None:
    environ = {"_PERSONA_COMPLETE": "complete_bash", "COMP_WORDS": "persona stat", "COMP_CWORD": "1"}
    done = persona(env={**os.environ, **environ})
    assert (done.returncode, done.stdout.split()) == (0, ["status"])


def test_init_makes_a_workspace_and_twice_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["init", "w"]) == 0
    before = (tmp_path / "w" / "workspace.json").read_bytes()
    assert run(["init", "w"]) == 0
    assert "already a workspace" in capsys.readouterr().err
    assert (tmp_path / "w" / "workspace.json").read_bytes() == before
    assert run(["init"]) == 0
    assert (tmp_path / "persona-workspace" / "persona.toml").read_text() == render_default()


def test_config_shows_values_with_their_origin(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = homes.create(tmp_path / "w")
    made.path("persona.toml").write_text("[recommend]\ntop = 5\n")
    monkeypatch.setenv("PERSONA_WORKSPACE", str(made.root))
    monkeypatch.setenv("PERSONA_MODEL_KNN_NEIGHBOURS", "7")
    assert run(["config", "show", "--origin", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["recommend.top"] == {"value": 5, "origin": "persona.toml"}
    assert shown["model.knn.neighbours"] == {"value": 7, "origin": "environment"}
    assert shown["evaluate.k"] == {"value": [10, 20], "origin": "default"}
    assert shown["signals.strengths.rating>=4"]["value"] == 3.0
    assert run(["config", "show", "recommend", "--format", "csv"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == ["setting,value", "recommend.top,5", 'recommend.consumed_by,"[""*""]"']
    assert all(line.startswith("recommend.") for line in lines[1:])
    assert run(["config", "show", "recomend"]) == 78
    assert "did you mean 'recommend'" in capsys.readouterr().err
    made.path("persona.toml").write_text("[recommend]\ntopp = 5\n")
    assert run(["status"]) == 78


def test_runs_are_listed_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = homes.create(tmp_path / "persona-workspace")
    assert run(["runs", "list"]) == 0
    assert capsys.readouterr() == ("", "no runs yet\n")
    with runs.recording(made, ["train", "--model", "ease"]) as recorded:
        pass
    assert run(["runs", "list", "--format", "jsonl"]) == 0
    assert json.loads(capsys.readouterr().out)["id"] == recorded.id
    for name in ("latest", recorded.id[:12]):
        assert run(["runs", "show", name]) == 0
        assert json.loads(capsys.readouterr().out)["arguments"] == ["train", "--model", "ease"]
    assert run(["runs", "show", "zzz"]) == 66


def test_doctor_clears_up_after_killed_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = homes.create(tmp_path / "persona-workspace")
    left = made.path("models", ".tmp-4194305-0123456789ab")
    left.mkdir(parents=True)
    (left / "half").write_text("x")
    with runs.recording(made, ["train"]) as recorded:
        started = json.loads(made.path("runs", f"{recorded.id}.json").read_text())
    runs.write_manifest(made, started | {"pid": 4194305})
    assert run(["doctor", "--dry-run"]) == 10
    assert left.exists()
    assert "persona doctor --fix" in capsys.readouterr().err
    assert run(["doctor", "--json"]) == 0
    findings = json.loads(capsys.readouterr().out)
    assert {finding["check"] for finding in findings if finding["state"] == "repaired"} == {"leftover", "runs"}
    assert not left.exists()
    assert run(["doctor"]) == 0
    assert json.loads(made.path("runs", f"{recorded.id}.json").read_text())["status"] == "killed"


def test_doctor_notes_what_a_question_names_and_no_item_has(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = homes.create(tmp_path / "persona-workspace")
    (tmp_path / "items.jsonl").write_text('{"item_id": "tea", "category": "drinks", "tags": ["green"]}\n')
    assert run(["ingest", "--quiet", "items.jsonl", "--kind", "items"]) == 0
    with home.path("persona.toml").open("a") as file:
        file.write('[survey.taste]\nanswers.a = { categories = ["drinks", "dirnks"], tags = ["green", "gren"] }\n')
    capsys.readouterr()
    assert run(["doctor", "--json"]) == 0
    said = [one["detail"] for one in json.loads(capsys.readouterr().out) if one["check"] == "survey"]
    assert said == [
        f'survey.taste: the answer "a" names the {kind} "{name}", which no item has'
        for kind, name in (("category", "dirnks"), ("tag", "gren"))
    ]


def test_doctor_finds_a_damaged_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from persona_cli.workspace import artifacts

    made = homes.create(tmp_path / "persona-workspace")
    with artifacts.publish(made.path("models", "ease", "1")) as folder:
        (folder / "weights.npy").write_text("x")
        artifacts.write_manifest(folder, {})
    assert run(["doctor", "--format", "csv"]) == 0
    made.path("models", "ease", "1", "weights.npy").write_text("y")
    assert run(["doctor", "--format", "csv"]) == 10
    assert "ease/1/weights.npy" in capsys.readouterr().out
