"""Commands: surface: how sure each surface is of what it chooses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from persona_cli.cli.common import (
    JsonOption,
    OutOption,
    command,
    emit_json,
    group,
    invocation,
    locate_home,
    render_parts,
    say,
)
from persona_cli.errors import MissingInput

if TYPE_CHECKING:
    from persona_cli.reports.parts import Part


def register(app: typer.Typer) -> None:
    surface = group(app, "surface", "How sure surfaces are of what they choose for a person.", panel="Serve")
    command(surface, calibrate)
    command(surface, show)


def calibrate(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help="Surfaces of the kind content, ui or feature; default: all of them."),
    ] = None,
    as_json: JsonOption = False,
    out: OutOption = None,
) -> None:
    """Learn how often what a surface would have chosen was right, by how much was known of the person; for cron.

    The surface chooses as of a moment before the last events (evaluate.test_share of them), with a model of then, and
    what each person did next tells whether it was right. From then on persona decide compares min_confidence with the
    chance that this gives, instead of n / (n + m). Shown is how far both are off (expected calibration error) for
    people whom the curve was not learned from. A surface with fewer than 100 people to learn from is left as it is:
    with exit code 66 where it was named, or where there is no other.

    Examples:
    persona surface calibrate
    persona surface calibrate home navigation --json
    """
    from persona_cli.feedback.calibrating import calibrate as learn
    from persona_cli.serving.surfaces.confidence import FOLLOWS
    from persona_cli.workspace.runs import recording

    home = locate_home()
    declared: Mapping[str, Mapping[str, Any]] = home.settings.values["surface"]
    wanted = names or [name for name, one in sorted(declared.items()) if one["kind"] in FOLLOWS]
    if not wanted:
        raise MissingInput("persona.toml has no surface of the kind content, ui or feature", "docs/surfaces.md")
    found, refused = list[dict[str, Any]](), list[MissingInput]()
    with recording(home, invocation.words) as run:
        for name in dict.fromkeys(wanted):
            try:
                found.append(learn(home, name))
            except MissingInput as error:
                refused.append(error)
        run.counts = {"surfaces": len(found), "people": sum(one["people"] for one in found)}
        if found:
            _show(found, as_json, out)
        if refused and (names or not found):
            raise refused[0]
    for one in refused:
        say(one.message)


def show(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Surfaces; default: all that were calibrated.")
    ] = None,
    as_json: JsonOption = False,
    out: OutOption = None,
) -> None:
    """Show what was learned: the confidence by evidence, and how far off it was for people it was not learned from.

    Examples:
    persona surface show
    persona surface show home --json
    """
    from persona_cli.feedback.calibrating import kept

    found = kept(locate_home(), names or ())
    if not found:
        raise MissingInput("no surface was calibrated yet", "persona surface calibrate")
    _show(found, as_json, out)


def _show(found: Sequence[Mapping[str, Any]], as_json: bool, out: Any) -> None:
    if as_json:
        emit_json(list(found), out)
    else:
        render_parts([_part(one) for one in found], out)


def _part(one: Mapping[str, Any]) -> Part:
    """Words first, then the table."""
    from persona_cli.reports.parts import Part

    check, error = one["check"], one["check"]["error"]
    n, m = one["evidence"], one["half"]
    said = [
        f"{one['surface']} ({one['kind']}): {one['choice']} for {one['right']:.1%} of {one['people']:,} people, "
        f"asked as of {one['cut'][:16].replace('T', ' ')} UTC",
        f"expected calibration error: {error['evidence']:.3f} by n / (n + {m:g}), {error['calibrated']:.3f} by the "
        f"curve of other people ({check['by_chance']:.3f} would be chance alone)",
    ]
    curve = [row["confidence"] for row in one["bins"]]
    if curve[0] == curve[-1]:
        said.append(f"{n} do not tell whether a choice is right: the curve is flat")
    if not one.get("current", True):
        said.append(
            f"the surface was changed since, so none of this is used until: persona surface calibrate {one['surface']}"
        )
    rows = [
        [
            f"{row['at']:.1f}",
            f"{row['people']:,}",
            *(f"{row[name]:.3f}" for name in ("right", "evidence", "calibrated")),
        ]
        for row in check["bins"]
    ]
    return Part(said, [n, "people", "right", f"n / (n + {m:g})", "calibrated"], rows)
