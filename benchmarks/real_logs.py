"""Real logs through the README's commands: init, ingest, train, evaluate in a fresh workspace, and a table of figures.

    python benchmarks/real_logs.py [--folder DIR] [NAME ...]

Names: ml-100k, ml-1m, taobao, online-retail-2010, gowalla (see convert.py for where they are looked for). The models
of each set are evaluated on the default split; sets that come with right answers of their own also on those. Sets of
more than 20,000 items are run without EASE, whose exact solution takes minutes there.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from convert import SETS, convert

PERSONA = [sys.executable, "-m", "persona_cli"]
MODELS = {"taobao": ["knn", "als", "spectral", "cohort", "hybrid", "ranker"], "gowalla": ["knn"]}
FIGURES = ("recall@20", "ndcg@20", "hit_rate@20", "coverage@20")


def run(workspace: Path, *words: str, seconds: dict[str, float] | None = None) -> str:
    """stdout of one persona command; stderr goes through."""
    began = time.monotonic()
    command = [*PERSONA, words[0], "-w", str(workspace), *words[1:]]
    print("$ persona " + " ".join(words), file=sys.stderr)
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    if seconds is not None:
        seconds[words[0]] = seconds.get(words[0], 0.0) + time.monotonic() - began
    return output


def evaluate_set(name: str, folder: Path) -> tuple[list[dict[str, Any]], dict[str, float], dict[str, Any]]:
    """Evaluations of one set, the seconds of each step, and what ingest counted."""
    files = convert(name, folder)
    workspace = folder / f"workspace-{name}"
    shutil.rmtree(workspace, ignore_errors=True)
    subprocess.run([*PERSONA, "init", "--quiet", str(workspace)], check=True)
    seconds: dict[str, float] = {}
    events = next(path for path in sorted(files.iterdir()) if path.stem == "events")
    counts = json.loads(run(workspace, "ingest", str(events), "--max-rejected", "1.0", "--json", seconds=seconds))
    for kind in ("items", "users"):
        for path in sorted(files.glob(f"{kind}.*")):
            run(workspace, "ingest", str(path), "--kind", kind, "--json", seconds=seconds)
    names = MODELS.get(name, ["ease", "knn"])
    chosen = [word for model in names for word in ("--model", model)]
    # Without a name, train compares and chooses; with names it trains these.
    run(workspace, "train", *(chosen if name in MODELS else []), "--json", seconds=seconds)
    asked = [*chosen, "--model", "layered", "--json"]
    evaluations = [json.loads(run(workspace, "evaluate", *asked, seconds=seconds))]
    if (files / "test.csv").exists():
        evaluations.append(json.loads(run(workspace, "evaluate", "--test", str(files / "test.csv"), *asked)))
    return evaluations, seconds, counts


def row(name: str, evaluation: dict[str, Any], entry: dict[str, Any]) -> str:
    cells = [name, evaluation["split"]["kind"], f"{evaluation['users']:,}", entry["model"]]
    for figure in FIGURES:
        interval = entry["metrics"][figure]
        bounds = "" if interval["low"] is None else f" ({interval['low']:.4f} to {interval['high']:.4f})"
        cells.append(f"{interval['value']:.4f}{bounds}")
    lift = entry["lift"].get("ndcg@20")
    cells.append("" if lift is None else f"{100 * lift['value']:+.0f} %")
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(SETS))
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "persona-real-logs")
    options = parser.parse_args()
    if unknown := set(options.names) - set(SETS):
        parser.error(f"no set is named {', '.join(sorted(unknown))}; known: {', '.join(SETS)}")
    rows, notes = [], []
    for name in options.names or SETS:
        evaluations, seconds, counts = evaluate_set(name, options.folder)
        rows += [row(name, evaluation, entry) for evaluation in evaluations for entry in evaluation["models"]]
        notes += [f"- {name}: {evaluation['split']['headline']}" for evaluation in evaluations]
        shown = ", ".join(f"{part} {counts[part]:,}" for part in ("read", "accepted", "duplicates", "rejected"))
        notes.append(f"- {name}: {shown}; " + ", ".join(f"{step} {spent:.1f} s" for step, spent in seconds.items()))
    print("| set | split | users | model | " + " | ".join(FIGURES) + " | lift of NDCG@20 |")
    print("|" + "---|" * (len(FIGURES) + 5))
    print("\n".join([*rows, "", *notes]))


if __name__ == "__main__":
    main()
