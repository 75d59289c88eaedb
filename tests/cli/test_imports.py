"""Help and completion answer at once: they load nothing heavy."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {
    "altair",
    "deltalake",
    "duckdb",
    "implicit",
    "joblib",
    "lightfm",
    "msgspec",
    "numpy",
    "polars",
    "pyarrow",
    "scipy",
    "sklearn",
    "threadpoolctl",
    "torch",
}
# Prints the modules that are loaded when the process ends, however it ends.
PRINT_MODULES = """
import atexit, sys
atexit.register(lambda: print("modules:", " ".join(sorted(sys.modules)), file=sys.stderr))
from persona_cli.cli.main import main
sys.argv = ["persona", *sys.argv[1:]]
main()
"""


def loaded(*args: str) -> tuple[int, set[str]]:
    done = subprocess.run([sys.executable, "-c", PRINT_MODULES, *args], capture_output=True, text=True, check=False)
    listing = next(line for line in done.stderr.splitlines() if line.startswith("modules:"))
    return done.returncode, set(listing.split()[1:])


@pytest.mark.parametrize(
    "args", [("--help",), ("config", "--help"), ("config", "show", "--help"), ("--version",)], ids=" ".join
)
def test_help_loads_nothing_heavy(args: tuple[str, ...]) -> None:
    code, modules = loaded(*args)
    assert code == 0
    assert not {module.split(".")[0] for module in modules} & HEAVY


def test_root_help_loads_neither_rich_nor_the_parsers_of_values() -> None:
    _, modules = loaded("--help")
    assert not {module.split(".")[0] for module in modules} & {"rich", "pydantic", "markdown_it", "pygments"}


def test_the_package_itself_is_light() -> None:
    code = "import sys, persona_cli; print(persona_cli.__version__, sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "polars" not in done.stdout and "numpy" not in done.stdout


@pytest.mark.parametrize("kind", ["ui", "feature"])
def test_surfaces_of_the_interface_load_neither_models_nor_queries(kind: str) -> None:
    modules = f"persona_cli.serving.surfaces.{kind}, persona_cli.feedback.deciding, persona_cli.feedback.decisions"
    code = f"import sys, {modules}, persona_cli.serving.surfaces.deciding; print(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {module.split(".")[0] for module in done.stdout.split()} & {"scipy", "sklearn", "duckdb", "pandas"}
