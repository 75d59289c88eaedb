"""Commands: simulate: an experiment played on people made from the workspace, before anybody real is asked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from persona_cli.cli.common import (
    FormatOption,
    JsonOption,
    OutOption,
    SetOption,
    chosen_format,
    command,
    emit_json,
    invocation,
    locate_home,
    out_stream,
    pairs,
    progress,
    render,
    render_parts,
    say,
)
from persona_cli.errors import UsageError

if TYPE_CHECKING:
    from persona_cli.cli.output import Format
    from persona_cli.experiments.simulation import Simulated


def register(app: typer.Typer) -> None:
    command(app, simulate, panel="Experiment")


def simulate(
    kind: Annotated[
        Literal["aa", "ab", "interleave", "bandit"],
        typer.Argument(metavar="KIND", help="aa (both arms get A), ab, interleave or bandit."),
    ],
    a: Annotated[str, typer.Option("--a", metavar="MODEL", help="The control: ease, ease/3 or latest.")] = "latest",
    b: Annotated[str | None, typer.Option("--b", metavar="MODEL", help="What is judged over it; not for aa.")] = None,
    users: Annotated[int, typer.Option(metavar="N", help="People in a run, both arms together.")] = 2000,
    days: Annotated[float, typer.Option(metavar="N", help="How long each person is followed.")] = 14.0,
    runs: Annotated[int, typer.Option(metavar="N", help="How often the experiment is played.")] = 1000,
    seed: Annotated[int, typer.Option(metavar="N", help="Another seed, another chance.")] = 0,
    metric: Annotated[
        Literal["clicks", "clicked", "ctr"] | None,
        typer.Option(
            help="Clicks a user (the default), the share of users who click (of bandits), or clicks an item shown."
        ),
    ] = None,
    alpha: Annotated[float, typer.Option(metavar="SHARE", help="False alarms that are put up with.")] = 0.05,
    power: Annotated[float, typer.Option(metavar="SHARE", help="How often a difference is to be found.")] = 0.8,
    k: Annotated[int, typer.Option("--k", min=1, max=100, metavar="K", help="Length of the lists.")] = 10,
    clicks: Annotated[
        Literal["position", "cascade"] | None,
        typer.Option(help="The click model; default: what fits logged lists better, else the cascade."),
    ] = None,
    relevant: Annotated[
        float, typer.Option(metavar="CHANCE", help="Chance of a click on what a person turned to later.")
    ] = 0.4,
    base: Annotated[
        float,
        typer.Option(
            metavar="CHANCE", help="The base rate: of anything else; where lists are logged, found from them."
        ),
    ] = 0.02,
    method: Annotated[
        Literal["team-draft", "competitive-pairs", "probabilistic", "optimised", "balanced"] | None,
        typer.Option(help="How lists are interleaved; default: team-draft."),
    ] = None,
    policy: Annotated[
        Literal["thompson", "ucb1"] | None, typer.Option(help="How a bandit allocates; default: thompson.")
    ] = None,
    floor: Annotated[
        float | None, typer.Option(metavar="SHARE", help="Of a bandit: the least share of an arm; default: 0.05.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Default: compute.threads; changes no figure.")
    ] = None,
    settings: SetOption = None,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Also write a page with charts (extra report).")
    ] = None,
    format: FormatOption = None,
    as_json: JsonOption = False,
    out: OutOption = None,
) -> None:
    """Play an experiment many times on people made from your own data, before anybody real is asked.

    Both models are trained again on what was before the cut of `evaluate`. What each user turned to afterwards is
    relevant to them; anything else is clicked at a base rate. How lists are clicked is fitted on logged lists where
    there are enough, how people differ and how often they come back is taken from the events.

    ab says how many users and days an A/B test needs, aa how often it would see what is not there, interleave how many
    users fewer do, bandit what allocating by success saves. Positive differences are for B.

    Tables and --json are the whole; --format parquet, csv or jsonl has one row a run.

    Examples:
    persona simulate ab --a ease --b popular
    persona simulate aa --a latest --users 5000 --json
    persona simulate interleave --a ease --b knn --html simulated.html
    persona simulate bandit --a popular --b ease --format parquet --out runs.parquet
    """
    chosen = chosen_format(format, as_json)
    if kind == "aa" and b is not None:
        raise UsageError("aa gives A to both arms, so --b cannot apply", "leave --b out, or simulate ab")
    if kind != "aa" and b is None:
        raise UsageError(f"{kind} needs a second model", "name it with --b, such as --b popular")
    if method is not None and kind != "interleave":
        raise UsageError(f"--method says how lists are interleaved; {kind} interleaves none")
    if kind != "bandit" and (policy is not None or floor is not None):
        raise UsageError(f"--policy and --floor are of a bandit; {kind} has fixed shares")
    if days <= 0:
        raise UsageError(f"--days is {days:g}; expected more than 0")

    import dataclasses
    import os

    from persona_cli.experiments.playing import Plan

    plan = Plan(
        kind,
        users=users,
        runs=runs,
        seed=seed,
        metric=metric or ("clicked" if kind == "bandit" else "clicks"),
        alpha=alpha,
        power=power,
        method=method or "team-draft",
        policy=policy or "thompson",
        floor=0.05 if floor is None else floor,
    )
    plan.checked()
    if html is not None:
        from persona_cli.reports.charts import check

        check()  # before the work, not after it

    from persona_cli.experiments.behaviour import behaviour
    from persona_cli.experiments.simulation import simulate as play
    from persona_cli.workspace.runs import recording

    home = locate_home()
    home = dataclasses.replace(home, settings=home.settings.with_flags(pairs(settings)))
    plan = dataclasses.replace(plan, threads=threads or home.settings.whole("compute.threads") or os.cpu_count() or 1)
    with recording(home, invocation.words) as run:
        found = behaviour(home, a, b, k=k, days=days, clicks=clicks, relevant=relevant, base=base)
        say(found.clicking.told)
        with progress("simulating", users * runs) as advance:
            simulated = play(found, plan, advance)
        run.counts.update(users=users, runs=runs)
    _show(simulated, chosen, out)
    if html is not None:
        _page(simulated, html)


def _show(simulated: Simulated, format: Format, out: Path | None) -> None:
    from persona_cli.reports.simulation import parts

    if format == "json":
        emit_json(simulated.document, out)
    elif format == "table":
        render_parts(parts(simulated.document), out)
    else:
        import polars as pl

        render(pl.DataFrame(simulated.rows), format, out)


def _page(simulated: Simulated, file: Path) -> None:
    from persona_cli.reports.simulation import html

    with out_stream(file) as stream:
        stream.write(html(simulated.document).encode())
    say(f"page: {file}")
