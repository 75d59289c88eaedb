"""Commands: bandit: what the arms of surfaces have earned, and with which chances they are chosen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from persona_cli.cli.common import (
    FormatOption,
    JsonOption,
    OutOption,
    WaitOption,
    chosen_format,
    command,
    emit_json,
    group,
    invocation,
    locate_home,
    pairs,
    render,
    say,
)
from persona_cli.errors import BadData, UsageError, nearest

if TYPE_CHECKING:
    from persona_cli.serving.surfaces import Surface


def register(app: typer.Typer) -> None:
    bandit = group(
        app, "bandit", "Which arm of a surface serves whom best, learned from what was served.", panel="Serve"
    )
    command(bandit, update)
    command(bandit, show)


def update(
    surface: Annotated[
        str | None, typer.Argument(metavar="SURFACE", help="A surface with arms; default: all that have some.")
    ] = None,
    wait: WaitOption = 0.0,
    as_json: JsonOption = False,
    out: OutOption = None,
) -> None:
    """Learn what the arms of surfaces have earned, from the decisions that were seen; for cron.

    A decision counts once its window (bandit.window_hours) is over by the last event of anybody; rewards that come
    later than that, and decisions that were erased since, are as they are at the next update. Updating again changes
    nothing. The chances with which persona decide draws arms follow from it.

    Examples:
    persona bandit update
    persona bandit update navigation --json
    """
    from persona_cli.feedback.bandit_state import update as learn
    from persona_cli.workspace.runs import recording

    home = locate_home()
    with recording(home, invocation.words) as run:
        found = learn(home, surface, wait=wait)
        records = [
            {
                "surface": one.surface,
                "learned": int(one.learned.sums.n.sum()),
                "new": one.new,
                "waiting": one.learned.waiting,
                "until": one.learned.until,
                "changed": one.changed,
            }
            for one in found
        ]
        run.counts = {"surfaces": len(records), "learned": sum(one["learned"] for one in records)}
    if as_json:
        emit_json(records, out)
        return
    render(records, "table", out)
    for one in records:
        if not one["learned"]:
            say(f"{one['surface']}: no decision whose window is over was seen yet; all arms are tried alike")


def show(
    surface: Annotated[str, typer.Argument(metavar="SURFACE", help="A surface with arms.")],
    feature: Annotated[
        list[str] | None,
        typer.Option("--feature", metavar="NAME=VALUE", help="A feature of the person asked about; may repeat."),
    ] = None,
    format: FormatOption = None,
    as_json: JsonOption = False,
    out: OutOption = None,
) -> None:
    """Show what each arm has earned, and its chance for a person with these features (default: none is known).

    learned: decisions that are in the sums; rate: their mean reward (none where fewer than 20 people are in it);
    expected and sd: of the person's reward; chance: with which persona decide draws the arm for them, where it is open.

    Examples:
    persona bandit show navigation
    persona bandit show navigation --feature device=mobile --feature maturity=0.8 --json
    """
    import numpy as np

    from persona_cli.feedback.bandit_state import checked
    from persona_cli.models import bandits
    from persona_cli.profiles import SMALLEST_CELL
    from persona_cli.serving.surfaces import surface_of
    from persona_cli.serving.surfaces.arms import learned_for, policy_of

    home, chosen = locate_home(), chosen_format(format, as_json)
    one = checked(surface_of(home, surface))
    learned, policy = learned_for(home, one), policy_of(one)
    x = _features(one, pairs(feature, "--feature"))
    known = bandits.posterior(learned.sums, policy)
    mean, variance = bandits.expected(known, bandits.quantised(x) / bandits.ONE)
    spread = variance[0] if variance.ndim == 2 else np.diagonal(variance[0])
    told = bandits.chances(policy, known, x)
    records: list[dict[str, Any]] = []
    for place, arm in enumerate(learned.arms):
        n = int(learned.sums.n[place])
        enough = bool(learned.people) and learned.people[place] >= SMALLEST_CELL
        rate = float(learned.sums.b[place, 0]) / bandits.ONE**2 / n if enough else None
        records.append(
            {
                "arm": arm,
                "learned": n,
                "rate": None if rate is None else round(rate, 6),
                "expected": round(float(mean[0, place]), 6),
                "sd": round(float(np.sqrt(spread[place])), 6),
                "chance": round(float(told.p[0, place]), 6),
            }
        )
    render(records, chosen, out)
    if told.error > bandits.QUADRATURE_ERROR:
        say(f"the chances are summed by draws: standard error at most {told.error:.4f}")
    if not learned.sums.n.any():
        say(f"nothing was learned yet: persona bandit update {surface}")


def _features(surface: Surface, given: dict[str, str]) -> Any:
    """Features (1, d) of the person who is told of."""
    import polars as pl

    from persona_cli.serving.surfaces.arms import encoded, told_features
    from persona_cli.workspace.surface_declarations import BANDIT

    declared = surface.options[BANDIT]["features"]
    for name in given:
        if name not in declared:
            close = nearest(name, declared) if declared else "; the surface declares none"
            raise UsageError(f"--feature {name}: no feature of [surface.{surface.name}] has that name{close}")
    columns: dict[str, pl.Series] = {}
    for name, values in declared.items():
        if isinstance(values[0], str):
            columns[name] = pl.Series(name, [given.get(name)], dtype=pl.String)
            continue
        try:
            number = float(given[name]) if name in given else None
        except ValueError as error:
            raise BadData(f"--feature {name}={given[name]}: expected a number") from error
        columns[name] = pl.Series(name, [number], dtype=pl.Float64)
    return encoded(surface, told_features(surface, pl.DataFrame(columns)), 1)
