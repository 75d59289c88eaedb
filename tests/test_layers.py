"""The layout tells the story: a stage imports only from earlier stages, and a module fits one reading."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "persona_cli"
# A stage may import from its own rank and from lower ones.
RANKS = (
    ("errors",),
    ("workspace",),
    ("consent",),
    ("events",),
    ("profiles",),
    ("models",),
    ("serving", "feedback", "evaluation", "experiments", "privacy", "reports"),
    ("api", "demo"),
    ("cli",),
)
RANK = {name: rank for rank, names in enumerate(RANKS) for name in names}
MODULES = sorted(PACKAGE.rglob("*.py"))
LONGEST = 400


def stage(path: Path) -> str | None:
    """The top-level part that a module belongs to; None for the package's own __init__ and __main__."""
    first = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return None if first.startswith("__") else first


def imported_stages(source: str) -> set[str]:
    """The parts of persona_cli that a module imports, anywhere in it, also for types only."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "persona_cli" and len(parts) > 1 and not parts[1].startswith("__"):
                found.add("api" if parts[1] == "Workspace" else parts[1])
    return found


def test_every_part_has_a_rank() -> None:
    assert {part for path in MODULES if (part := stage(path))} <= set(RANK)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    part = stage(path)
    if part is None:
        return
    upward = {other for other in imported_stages(path.read_text()) if RANK[other] > RANK[part]}
    assert not upward, f"{part} may not import {upward}"


def test_parts_of_one_rank_do_not_import_in_circles() -> None:
    imports: dict[str, set[str]] = {}
    for path in MODULES:
        if (part := stage(path)) is not None:
            imports.setdefault(part, set()).update(imported_stages(path.read_text()) - {part})
    finished: set[str] = set()

    def visit(part: str, above: tuple[str, ...]) -> None:
        assert part not in above, f"a circle: {' → '.join((*above, part))}"
        if part not in finished:
            for other in imports.get(part, ()):
                visit(other, (*above, part))
            finished.add(part)

    for part in imports:
        visit(part, ())


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_fits_one_reading(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= LONGEST
