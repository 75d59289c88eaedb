"""How often the leakage alarm goes off: on evaluations that leak, by every plant, and on honest ones.

    python benchmarks/leakage.py --runs 200

Every run is a log of its own (tests/evaluation/leaks.py). Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from multiprocessing import get_context
from pathlib import Path

# Before polars and numpy start their threads: runs go side by side in processes.
for name in ("POLARS_MAX_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "evaluation"))

import leaks  # noqa: E402

from persona_cli.evaluation.leakage import Evidence, check  # noqa: E402

CLEAN = "(clean)"


def evidence(case: leaks.Case) -> Evidence:
    """What an evaluation can hand over."""
    return Evidence(case.exam, case.lists, case.events, case.known, case.births)


def run(seed: int) -> list[tuple[str, str, int, tuple[str, ...]]]:
    """plant, how, seed and the checks that fired, for every plant and the honest evaluation of one log."""
    world = leaks.world(seed)
    cases = {CLEAN: leaks.clean, **leaks.PLANTS}
    rows = []
    for name, plant in cases.items():
        case = plant(world)
        found = check(evidence(case))
        rows.append((name, case.how, seed, tuple(one.name for one in found if one.status == "leak")))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--first", type=int, default=0, help="seed of the first run")
    parser.add_argument("--misses", action="store_true", help="print every run that the alarm is wrong about")
    given = parser.parse_args()
    rows = []
    with get_context("spawn").Pool(2) as pool:
        for found in pool.imap_unordered(run, range(given.first, given.first + given.runs)):
            rows += found
    print("| plant | runs | alarms | checks that fired |")
    print("|---|---|---|---|")
    for plant in (*leaks.PLANTS, CLEAN):
        mine = [fired for name, _, _, fired in rows if name == plant]
        fired = Counter(check for one in mine for check in one)
        which = ", ".join(f"{name} {n}" for name, n in sorted(fired.items(), key=lambda one: (-one[1], one[0])))
        print(f"| {plant} | {len(mine)} | {sum(map(bool, mine)) / len(mine):.1%} | {which} |")
    if given.misses:
        for name, how, seed, fired in sorted(rows):
            if bool(fired) == (name == CLEAN):
                print(name, seed, how, fired, sep=" | ")


if __name__ == "__main__":
    main()
