"""How long help takes to appear, against importing the two packages it is made with; whole processes, interleaved.

python benchmarks/startup.py [--repeat 25]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

COMMANDS = {
    'python -c "import typer, rich.console"': [sys.executable, "-c", "import typer, rich.console"],
    "persona --help": [sys.executable, "-m", "persona_cli", "--help"],
    "persona ingest --help": [sys.executable, "-m", "persona_cli", "ingest", "--help"],
    "persona profile show --help": [sys.executable, "-m", "persona_cli", "profile", "show", "--help"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=25)
    repeat = parser.parse_args().repeat
    taken: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(repeat + 1):
        for name, command in COMMANDS.items():
            began = time.perf_counter()
            subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
            taken[name].append(time.perf_counter() - began)
    base = statistics.median(next(iter(taken.values()))[1:])
    print("| command | milliseconds (median) | ratio |\n|---|---|---|")
    for name, times in taken.items():
        median = statistics.median(times[1:])
        print(f"| `{name}` | {1000 * median:.0f} | {median / base:.2f} |")


if __name__ == "__main__":
    main()
