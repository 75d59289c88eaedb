"""Command: experiment plan: the people and days that an experiment takes."""

from __future__ import annotations

from typing import Annotated

import typer

from persona_cli.cli.common import (
    FormatOption,
    JsonOption,
    OutOption,
    chosen_format,
    invocation,
    locate_home,
    render,
    say,
)
from persona_cli.errors import UsageError


def plan(
    metric: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="What is to be moved: persona metric list; may repeat.")
    ] = None,
    effect: Annotated[
        str | None, typer.Option(metavar="SHARE", help="The relative effect to be found, such as 5% or 0.05.")
    ] = None,
    days: Annotated[
        list[float] | None, typer.Option(metavar="N", help="Run so long; may repeat. Default: weeks, up to 90 days.")
    ] = None,
    variants: Annotated[int, typer.Option(metavar="N", help="How many, the control included.")] = 2,
    shares: Annotated[
        str | None, typer.Option(metavar="A,B,…", help="Shares of the variants, the control first; default: equal.")
    ] = None,
    part: Annotated[float, typer.Option(metavar="SHARE", help="Of the layer.")] = 1.0,
    ramp: Annotated[float, typer.Option(metavar="SHARE", help="Of the people in it who are enrolled.")] = 1.0,
    alpha: Annotated[float, typer.Option(metavar="P", help="How often nothing may be taken for an effect.")] = 0.05,
    power: Annotated[float, typer.Option(metavar="P", help="How often the effect is to be found.")] = 0.8,
    looks: Annotated[int, typer.Option(metavar="N", help="Look so often, at equal steps, the end included.")] = 1,
    format: FormatOption = None,
    as_json: JsonOption = False,
    out: OutOption = None,
) -> None:
    """Plan an experiment: the people and days it takes, and the smallest effect that it finds.

    As if it had run on the last days of this workspace: who came, what each brought and how much people differ, less
    what the time before tells (CUPED), without the holdout and those who may not be in an experiment. The test is
    two-sided, at one look at the end or at --looks (start --looks keeps to them); who looks at any time needs up to
    twice the people. With more than two variants alpha is divided by the comparisons with the control.

    Examples:
    persona experiment plan --metric purchase --effect 5%
    persona experiment plan --metric purchase --metric arpu --days 14 --days 28 --json
    persona experiment plan --metric adoption --effect 0.02 --variants 3 --part 0.5 --looks 5
    """
    if not metric:
        raise UsageError("name a metric", "persona experiment plan --metric purchase --effect 5%; persona metric list")
    from persona_cli.experiments.planning import plan as planned
    from persona_cli.workspace.runs import recording

    home = locate_home()
    wanted = None if effect is None else _relative(effect)
    if not 0 < part <= 1 or not 0 < ramp <= 1:
        raise UsageError(f"--part {part:g} and --ramp {ramp:g}: expected shares over 0, up to 1")
    with recording(home, invocation.words):
        rows = planned(
            home,
            tuple(dict.fromkeys(metric)),
            variants=variants,
            shares=numbers(shares),
            effect=wanted,
            days=days or (),
            enrolled=part * ramp,
            alpha=alpha,
            chance=power,
            looks=looks,
        )
        told = [row._asdict() for row in rows]
        if wanted is None:
            told = [{key: one[key] for key in one if key not in ("needed", "enough")} for one in told]
        chosen = chosen_format(format, as_json)
        if chosen in ("table", "md"):
            told = [
                {key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in one.items()}
                for one in told
            ]
        render(told, chosen, out)
    for name in dict.fromkeys(metric) if wanted is not None else ():
        mine = [row for row in rows if row.metric == name and row.needed is not None]
        first = next((row for row in mine if row.enough), None)
        if not mine:
            say(f"{name}: nobody differs in it, so that nothing can be planned; persona metric check {name}")
        elif first is None:
            say(f"{name}: {_percent(wanted)} needs {mine[-1].needed:,} people: more than {mine[-1].days:g} days")
        else:
            say(f"{name}: {_percent(wanted)} needs {first.needed:,} people: {first.days:g} days are enough")


def _percent(effect: float | None) -> str:
    return f"{100 * (effect or 0.0):+.3g} %".replace("-", "−")


def _relative(text: str) -> float:
    """`5%` or `0.05`."""
    number = text.strip()
    try:
        return float(number[:-1]) / 100 if number.endswith("%") else float(number)
    except ValueError:
        raise UsageError(f"--effect {text}: expected a share such as 5% or 0.05") from None


def numbers(shares: str | None) -> list[float]:
    """`0.5,0.3,0.2`; none where nothing is given."""
    try:
        return [float(text) for text in shares.split(",")] if shares else []
    except ValueError:
        raise UsageError(f"--shares {shares}: expected numbers such as 0.5,0.3,0.2") from None
