"""The main job on the sample data, step by step.

The demo decides which commands to run and reads the JSON that they print; whoever calls it runs them. So every step
that it shows is a command that a user can type.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from persona_cli.demo import learned
from persona_cli.errors import CannotWrite, MissingInput, Refused
from persona_cli.workspace import artifacts
from persona_cli.workspace.home import SETTINGS_FILE

Perform = Callable[[Sequence[str]], Any]
"""Runs one command, given as its words; answers the JSON document that it prints (None where it prints nothing)."""

MARKER = ".persona-demo"
LISTS = "-recommendations.jsonl"  # beside the workspace: what lies in it is looked after by persona
_TABLES = {"items": "items.jsonl", "users": "users.csv", "accounts": "accounts.csv", "events": "events.jsonl.gz"}
_HELD = "SELECT (SELECT count(*) FROM events) AS events, (SELECT count(*) FROM profiles) AS users"
_REJECTED = "SELECT reason, count(*) AS lines FROM quarantine GROUP BY reason ORDER BY lines DESC, reason"


def sample_data() -> Path:
    """The folder of the sample data: in the package where it was installed, beside it in a checkout."""
    package = Path(__file__).parents[1]
    for folder in (package / "sample_data", package.parent / "sample_data"):
        if (folder / _TABLES["events"]).is_file():
            return folder
    raise MissingInput("the sample data is not installed", "pip install --force-reinstall persona-cli")


def claim(folder: Path) -> None:
    """Make `folder` one that the demo may fill; Refused where it holds something that no demo put there."""
    if folder.exists() and not folder.is_dir():
        raise CannotWrite(f"{folder} is a file; the demo needs a folder")
    if folder.is_dir() and not (folder / MARKER).exists() and any(folder.iterdir()):
        what = "a workspace of yours" if (folder / SETTINGS_FILE).exists() else "not empty"
        raise Refused(f"{folder} is {what}; the demo does not mix its sample data into it", "persona demo OTHER-DIR")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Written first: a demo that was killed right after can be run again.
    artifacts.write_text(folder / MARKER, "This workspace was made by `persona demo`; it can be deleted.\n")


def demo(folder: Path, perform: Perform, tell: Callable[[str], None], program: str = "persona") -> dict[str, Any]:
    """Run the main job into `folder`; `tell` gets the lines of each step. Answers what was learned (`learned.page`).

    `program` is how the user calls persona, for the commands to type next.
    """
    data = sample_data()
    claim(folder)
    began = time.monotonic()
    there = ("-w", str(folder))

    def step(*words: str) -> Any:
        tell(f"$ persona {shlex.join(words)}")
        return perform([*words, "--json"])

    tell(f"$ persona init {shlex.quote(str(folder))}")
    perform(["init", str(folder)])
    tell("  a folder with every setting in persona.toml, and nothing else yet")
    for kind, name in _TABLES.items():
        kinds = () if kind == "events" else ("--kind", kind)
        tell(f"  {_ingested(kind, step('ingest', _shortest(data / name), *kinds, *there))}")
    trained = step("train", *there)
    tell(f"  {_trained(trained)}")
    evaluated = step("evaluate", *there)
    tell(f"  {learned.lift_line(evaluated)}")
    lists = folder.with_name(folder.name + LISTS)
    tell(f"$ persona recommend {shlex.join(there)} > {shlex.quote(str(lists))}")
    perform(["recommend", "--out", str(lists), *there])
    served = learned.read_lists(lists)
    popular = sum(bool(line.get("holdout")) for line in served)
    tell(f"  {len(served):,} lists, one a user; {popular:,} are popular lists for the permanent holdout")
    tastes = learned.known_tastes(data / "truth.jsonl", data / _TABLES["items"], served)
    user = learned.example_user(served, tastes)
    profile = step("profile", "show", user, *there)
    tell(f"  {_profiled(profile)}")
    rejected = perform(["sql", _REJECTED, *there, "--json"])
    (held,) = perform(["sql", _HELD, *there, "--json"])
    return {
        "workspace": str(folder),
        "seconds": round(time.monotonic() - began, 1),
        "events": held["events"],
        "users": held["users"],
        "rejected": {row["reason"]: row["lines"] for row in rejected},
        "latest": trained["latest"],
        "evaluation": learned.best_of(evaluated),
        "lists": len(served),
        "in_taste": tastes.shares,
        "example": learned.example_of(user, profile, served, tastes),
        "next": [
            f"{program} {shlex.join(['profile', 'show', user, *there])}",
            f'{program} sql "SELECT stage, count(*) AS users FROM profiles GROUP BY stage" {shlex.join(there)}',
            f"{program} ingest YOUR-EVENTS.jsonl --dry-run",
        ],
    }


def _shortest(path: Path) -> str:
    """The path from here where it lies below, as a user would type it."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _ingested(kind: str, counts: Mapping[str, Any]) -> str:
    parts = [f"{counts['accepted']:,} of {counts['read']:,} {'lines' if kind == 'events' else 'rows'} taken"]
    parts += [f"{counts[name]:,} {name}" for name in ("rejected", "duplicates") if counts[name]]
    if kind == "events":
        parts.append(f"{counts['users']:,} users")
    return f"{', '.join(parts)}; {counts['seconds']:.1f} s"


def _trained(trained: Mapping[str, Any]) -> str:
    scores = {model["model"]: model["validation"]["value"] for model in trained["models"] if model["validation"]}
    best = ", ".join(f"{name} {scores[name]:.3f}" for name in sorted(scores, key=lambda name: (-scores[name], name)))
    metric = next((model["validation"]["metric"].upper() for model in trained["models"] if model["validation"]), "")
    return f"{metric} on a validation cut: {best}; serving {trained['latest']}"


def _profiled(profile: Mapping[str, Any]) -> str:
    liked = " and ".join(entry["category"] for entry in profile["categories"][:2]) or "nothing yet"
    return f"{profile['events']:,} events in {profile['sessions']:,} sessions, stage {profile['stage']}, likes {liked}"
