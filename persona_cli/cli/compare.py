"""Commands: compare: whether one kept evaluation is better than another."""

from __future__ import annotations

from typing import Annotated

import typer

from persona_cli.cli.common import (
    FormatOption,
    JsonOption,
    OutOption,
    chosen_format,
    command,
    emit_json,
    locate_home,
    render,
    render_parts,
    warn,
)
from persona_cli.errors import UsageError


def register(app: typer.Typer) -> None:
    command(app, compare, panel="Models")


def compare(
    first: Annotated[
        str,
        typer.Argument(metavar="FIRST", help="A run with a kept evaluation, or the beginning of its id; or RUN:MODEL."),
    ] = "previous",
    second: Annotated[str, typer.Argument(metavar="SECOND", help="What is judged over FIRST.")] = "latest",
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", metavar="NAME", help="Only this model, in both runs; may repeat."),
    ] = None,
    metric: Annotated[
        str | None, typer.Option(metavar="NAME@K", help="What is compared; default: what the run leads with.")
    ] = None,
    margin: Annotated[
        str | None,
        typer.Option(metavar="SHARE", help="Loss that still counts as no worse: 1% of the other's, or 0.01."),
    ] = None,
    format: FormatOption = None,
    as_json: JsonOption = False,
    out: OutOption = None,
) -> None:
    """Say whether one evaluation is better than another, or only luckier.

    Each user asked in both counts once: the difference and the lift of SECOND over FIRST with 95 % intervals, a paired
    test (corrected where several models are compared), whether SECOND is shown to be no worse than FIRST, and how many
    users it would take to tell them apart. Without names, latest is judged over previous. Compared are the models that
    both runs have, or the best of each; RUN:MODEL compares any two, also of one run.

    Examples:
    persona compare
    persona compare 20260301T101500 latest --metric recall@20
    persona compare previous:ease latest:knn --margin 2%
    persona compare latest:popular latest:ease --json
    """
    chosen = chosen_format(format, as_json)
    share = None if margin is None else _share(margin)

    from persona_cli.evaluation.kept import contest, document, parts, records

    home = locate_home()
    found = contest(
        home, first, second, model or (), metric, home.settings.number("evaluate.margin") if share is None else share
    )
    if found.differences:
        warn(f"the two are not the same exam, so they differ in more than models: {'; '.join(found.differences)}")
    if chosen == "json":
        emit_json(document(found), out)
    elif chosen == "table":
        render_parts(parts(found), out)
    else:
        render(records(found), chosen, out)


def _share(text: str) -> float:
    """`1%` and `0.01` as 0.01."""
    number, percent, after = text.strip().partition("%")
    try:
        share = float(number) / (100 if percent else 1)
    except ValueError:
        share = -1.0
    if after or not 0.0 <= share < 1.0:
        raise UsageError(f"--margin is {text!r}; expected a share below 1, such as 1% or 0.01")
    return share
