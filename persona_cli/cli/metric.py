"""Commands: metric: what experiments are judged by."""

from __future__ import annotations

from typing import Annotated

import typer

from persona_cli.cli.common import (
    AsOfOption,
    FormatOption,
    JsonOption,
    OutOption,
    chosen_format,
    command,
    emit_json,
    group,
    locate_home,
    render,
)

NamesArgument = Annotated[
    list[str] | None, typer.Argument(metavar="[NAME]…", help="Metrics; without a name those declared, or all.")
]


def register(app: typer.Typer) -> None:
    metric = group(app, "metric", "What experiments are judged by.", panel="Experiment")
    command(metric, metric_list, name="list")
    command(metric, metric_check, name="check")


def metric_list(format: FormatOption = None, as_json: JsonOption = False, out: OutOption = None) -> None:
    """List the metrics: those that are ready and those of [metric.NAME] in persona.toml.

    Examples:
    persona metric list
    persona metric list --json
    """
    from persona_cli.experiments import metrics

    home = locate_home()
    declared = home.settings.values["metric"]
    rows = [
        {
            "metric": one.name,
            "kind": one.kind,
            "events": one.events,
            "value": one.value,
            "per": one.per,
            "window_days": one.window_days,
            "before_days": one.before_days,
            "winsor": one.winsor,
            "direction": one.direction,
            "declared": one.name in declared,
        }
        for one in metrics.metrics(home).values()
    ]
    render(rows, chosen_format(format, as_json), out)


def metric_check(
    names: NamesArgument = None,
    days: Annotated[
        float, typer.Option("--days", metavar="N", min=0.01, max=3650, help="Days before the last event to look at.")
    ] = 28.0,
    as_of: AsOfOption = None,
    format: FormatOption = None,
    as_json: JsonOption = False,
    out: OutOption = None,
) -> None:
    """Check that metrics find their events, and what effect an experiment on all traffic could tell.

    For each metric: people seen in the days before the last event and how many of them have it, its mean and variance,
    and the smallest relative effect that two variants of half of them each find with 80 % power, the time before taken
    into account. Exit code 10 where a metric finds nothing; of ready metrics that are not declared only a named one.
    Figures of fewer than 20 people are left out.

    Examples:
    persona metric check
    persona metric check purchase arpu --days 14
    persona metric check ctr --json
    """
    from persona_cli.experiments import metrics
    from persona_cli.profiles import SMALLEST_CELL
    from persona_cli.workspace.setting import moment_of

    home = locate_home()
    chosen = chosen_format(format, as_json)
    declared = home.settings.values["metric"]
    asked = metrics.named(home, names or metrics.metrics(home))
    until = None if as_of is None else moment_of(as_of)
    rows = []
    for one in metrics.check(home, asked, days, until):
        row = one._asdict() | {"missing": list(one.missing)}
        if one.people < SMALLEST_CELL or 0 < one.having < SMALLEST_CELL:
            few = ("having", "value", "variance", "detectable", "detectable_relative")
            row |= dict.fromkeys(few)
        rows.append(row)
    if chosen == "json":
        emit_json(rows, out)
    else:
        render([{name: _shown(value) for name, value in row.items()} for row in rows], chosen, out)
    empty = [row["metric"] for row in rows if not row["found"] and (names or row["metric"] in declared)]
    if empty:
        from persona_cli.errors import CheckFailed

        gone = {row["metric"]: ", ".join(row["missing"]) for row in rows}
        why = "; ".join(f"{name}{f' (no event of type {gone[name]})' if gone[name] else ''}" for name in empty)
        raise CheckFailed(
            f"nothing is found by {why}", "persona metric list shows the events; [metric.NAME] event = … changes them"
        )


def _shown(value: object) -> object:
    if isinstance(value, list):
        return ", ".join(value)
    if isinstance(value, float):
        return float(f"{value:.6g}") if value == value else None
    return value
