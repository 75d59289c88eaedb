"""Commands: experiment what-if, and evaluate where it looks at logged decisions instead of at held-out events."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from persona_cli.cli.common import (
    AsOfOption,
    FormatOption,
    JsonOption,
    OutOption,
    chosen_format,
    emit_json,
    invocation,
    locate_home,
    out_stream,
    render_parts,
    say,
)
from persona_cli.errors import UsageError

if TYPE_CHECKING:
    from persona_cli.cli.output import Format
    from persona_cli.experiments.what_if import Answer, Asked
    from persona_cli.workspace.home import Home

SinceOption = Annotated[
    str | None, typer.Option("--since", metavar="TIME", help="Logged decisions made at this time or later.")
]
UntilOption = Annotated[
    str | None, typer.Option("--until", metavar="TIME", help="Logged decisions made before this time.")
]
RewardOption = Annotated[
    Literal["click", "conversion"] | None,
    typer.Option("--reward", help="What a logged decision earns: click (the default) or conversion."),
]
ForceOption = Annotated[
    bool, typer.Option("--force", help="Show what logged decisions say also below an effective sample of 50.")
]


def what_if(
    file: Annotated[Path, typer.Argument(metavar="NEW.toml", help="What would be changed of a surface.")],
    surface: Annotated[
        str | None, typer.Option("--surface", metavar="NAME", help="The surface, where the file names none.")
    ] = None,
    reward: RewardOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    as_of: AsOfOption = None,
    force: ForceOption = False,
    probabilities: Annotated[
        Path | None,
        typer.Option(
            "--probabilities", metavar="FILE", help="Also write, by logged decision, its probability (Parquet)."
        ),
    ] = None,
    format: FormatOption = None,
    as_json: JsonOption = False,
    out: OutOption = None,
) -> None:
    """Tell what changed settings would have earned, from decisions that were logged under the present ones.

    The file holds what changes on one surface: model and [rules] of lists, [shares] of variants or arms, or [bandit]
    with policy, floor and discount. Only what was drawn by chance counts (rules.exploration, experiments): each logged
    decision is weighted by its probability under the new settings, over its propensity. Estimates are IPS, SNIPS, DM
    and DR with 95 % intervals; below an effective sample of 50 they are refused (77) unless --force is given, and so
    are settings under which that probability cannot be computed. docs/off-policy.md says what the figures mean.

    Examples:
    persona experiment what-if new.toml
    persona experiment what-if shares.toml --surface recommend --since 2026-03-01 --json
    persona experiment what-if new.toml --reward conversion --probabilities weights.parquet
    """

    def found(home: Home, asked: Asked) -> Answer:
        from persona_cli.experiments.what_if import of_settings

        return of_settings(home, file, asked)

    chosen = chosen_format(format, as_json)
    answer = _answered(found, surface, reward, since, until, as_of, force, chosen, out)
    if probabilities is not None:
        with out_stream(probabilities) as stream:
            answer.entries[0].probabilities.write_parquet(stream)
        say(f"probabilities of {answer.entries[0].probabilities.height:,} logged decisions: {probabilities}")


def off_policy(
    models: list[str],
    surface: str | None,
    reward: Literal["click", "conversion"] | None,
    since: str | None,
    until: str | None,
    as_of: str | None,
    force: bool,
    format: Format,
    out: Path | None,
) -> None:
    """Models by logged lists that explored or, without one, the arms of a surface."""

    def found(home: Home, asked: Asked) -> Answer:
        from persona_cli.experiments.what_if import of_arms, of_models

        return of_models(home, models, asked) if models else of_arms(home, asked)

    _answered(found, surface, reward, since, until, as_of, force, format, out)


def _answered(
    find: Callable[[Home, Asked], Answer],
    surface: str | None,
    reward: Literal["click", "conversion"] | None,
    since: str | None,
    until: str | None,
    as_of: str | None,
    force: bool,
    format: Format,
    out: Path | None,
) -> Answer:
    from persona_cli.experiments.what_if import Asked, page
    from persona_cli.feedback.decisions import LISTS, NAME
    from persona_cli.workspace import tables
    from persona_cli.workspace.runs import recording
    from persona_cli.workspace.setting import moment_of

    if format not in ("table", "json"):
        raise UsageError(f"what logged decisions say has no --format {format}; there are table and json")
    home = locate_home()
    if not tables.row_count(home, NAME):
        from persona_cli.errors import MissingInput

        raise MissingInput("no decisions are logged yet", "persona recommend --log --out lists.jsonl")
    asked = Asked(surface or LISTS, reward or "click", moment_of(since), moment_of(until), moment_of(as_of), force)
    with recording(home, invocation.words) as run:
        answer = find(home, asked)
        run.counts = {"decisions": answer.result["decisions"]}
    if format == "json":
        emit_json(answer.result, out)
    else:
        render_parts(page(answer.result), out)
    return answer
