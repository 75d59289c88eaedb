"""Commands: compare: whether one kept evaluation, or one trained model, is better than another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from persona_cli.cli.common import (
    FormatOption,
    JsonOption,
    OutOption,
    chosen_format,
    command,
    emit_json,
    locate_home,
    out_stream,
    render,
    render_parts,
    say,
    warn,
)
from persona_cli.errors import UsageError

if TYPE_CHECKING:
    from persona_cli.cli.output import Format
    from persona_cli.reports.parts import Part
    from persona_cli.workspace.home import Home


def register(app: typer.Typer) -> None:
    command(app, compare, panel="Models")


def compare(
    first: Annotated[
        str,
        typer.Argument(
            metavar="FIRST",
            help="A trained model (ease, ease/3); or a run with a kept evaluation, or the beginning of its id; or "
            "RUN:MODEL.",
        ),
    ] = "previous",
    second: Annotated[
        str, typer.Argument(metavar="SECOND", help="What is judged over FIRST; latest beside a model: what is served.")
    ] = "latest",
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
    slices: Annotated[
        list[str] | None,
        typer.Option(
            "--slice",
            metavar="CONDITION",
            help="Of two models, compare for these users too: \"device = 'mobile'\", or segment:NAME as it was at the "
            "cut; may repeat.",
        ),
    ] = None,
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Also write a page.")] = None,
    format: FormatOption = None,
    as_json: JsonOption = False,
    out: OutOption = None,
) -> None:
    """Say whether one evaluation or model is better than another, or only luckier.

    Two evaluations: each user asked in both counts once: the difference and the lift of SECOND over FIRST with 95 %
    intervals, a paired test (corrected where several models are compared), whether SECOND is shown to be no worse than
    FIRST, and how many users it would take to tell them apart. Without names, latest is judged over previous. Compared
    are the models that both runs have, or the best of each; RUN:MODEL compares any two, also of one run.

    Two models: how alike their lists are, whom each of them serves better (both are trained again on what was before
    the last fifth of the events, and judged on that), how far they favour what is popular, coverage, speed and size.

    Examples:
    persona compare
    persona compare ease layered/7 --html compared.html
    persona compare ease knn --slice segment:keen
    persona compare 20260301T101500 latest --metric recall@20
    persona compare previous:ease latest:knn --margin 2%
    persona compare latest:popular latest:ease --json
    """
    chosen = chosen_format(format, as_json)
    share = None if margin is None else _share(margin)

    from persona_cli.models.kinds import MODELS

    home = locate_home()
    share = home.settings.number("evaluate.margin") if share is None else share
    if any(name.partition("/")[0] in MODELS for name in (first, second)):
        if model:
            raise UsageError("--model names models of two evaluations; FIRST and SECOND are the models already")
        _models(home, (first, second), metric, share, slices or (), chosen, out, html)
        return
    if slices:
        raise UsageError("--slice is for two models; slices of an evaluation are made by: persona evaluate --slice")

    from persona_cli.evaluation.kept import contest, document, parts, records

    found = contest(home, first, second, model or (), metric, share)
    if found.differences:
        warn(f"the two are not the same exam, so they differ in more than models: {'; '.join(found.differences)}")
    _show(document(found), records(found), parts(found), chosen, out)
    if html is not None:
        _page(
            "Two evaluations",
            list(zip(("What was compared", "Models", "What it comes to"), parts(found), strict=True)),
            html,
        )


def _models(
    home: Home,
    names: tuple[str, str],
    metric: str | None,
    margin: float,
    slices: Sequence[str],
    format: Format,
    out: Path | None,
    html: Path | None,
) -> None:
    from persona_cli.evaluation.rivals import rivalry
    from persona_cli.evaluation.rivals_report import document, parts, records

    found = rivalry(home, *names, metric, margin, slices)
    told = parts(found)
    _show(document(found), records(found), told, format, out)
    if html is not None:
        _page("Two models", list(zip(("Side by side", "By group of users"), told, strict=True)), html)


def _show(
    document: dict[str, Any], records: list[dict[str, Any]], parts: list[Part], format: Format, out: Path | None
) -> None:
    if format == "json":
        emit_json(document, out)
    elif format == "table":
        render_parts(parts, out)
    else:
        render(records, format, out)


def _page(heading: str, parts: list[tuple[str, Part]], file: Path) -> None:
    from persona_cli.reports.parts import html

    with out_stream(file) as stream:
        stream.write(html(heading, parts, "figures with 95 % intervals over users").encode())
    say(f"page: {file}")


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
