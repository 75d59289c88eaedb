"""Commands: experiment: variants that are tried on parts of the people, from the start to the stop."""

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
    render,
    say,
    warn,
)
from persona_cli.cli.planning import numbers, plan
from persona_cli.cli.what_if import what_if
from persona_cli.errors import UsageError

if TYPE_CHECKING:
    from persona_cli.experiments.allocation import Arms
    from persona_cli.experiments.running import Experiment

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The experiment.")]


def register(app: typer.Typer) -> None:
    experiment = group(app, "experiment", "Variants that are tried on parts of the people.", panel="Experiment")
    command(experiment, plan)
    command(experiment, start)
    command(experiment, experiment_list, name="list")
    command(experiment, show)
    command(experiment, assign)
    command(experiment, update)
    command(experiment, stop)
    command(experiment, what_if)


def start(
    name: NameArgument,
    more: Annotated[list[str] | None, typer.Argument(metavar="[VARIANT]...", help="More variants.")] = None,
    variants: Annotated[
        list[str] | None,
        typer.Option(
            metavar="VARIANT...",
            help="NAME=latest (as configured), NAME=MODEL, or NAME=KEY=VALUE,KEY=VALUE; the first is the control.",
        ),
    ] = None,
    kind: Annotated[str, typer.Option(metavar="KIND", help="ab, interleave or bandit.")] = "ab",
    surface: Annotated[
        str, typer.Option(metavar="NAME", help="What is varied: recommend, or a [surface.NAME].")
    ] = "recommend",
    shares: Annotated[
        str | None, typer.Option(metavar="A,B,…", help="Shares of the variants, adding up to 1; default: equal.")
    ] = None,
    metric: Annotated[str | None, typer.Option(metavar="NAME", help="What decides: persona metric list.")] = None,
    guardrail: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A metric that may not fall; may repeat.")
    ] = None,
    layer: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Experiments of a layer have different people; default: the surface's."),
    ] = None,
    part: Annotated[
        float | None, typer.Option(metavar="SHARE", help="Of the layer; default: the largest free part.")
    ] = None,
    ramp: Annotated[float, typer.Option(metavar="SHARE", help="Of the people in it who are enrolled so far.")] = 1.0,
    planned_units: Annotated[
        int | None, typer.Option(metavar="N", help="People that the plan asks for: persona experiment plan.")
    ] = None,
    looks: Annotated[
        int | None, typer.Option(metavar="N", help="Of an ab test: looks planned on the way to --planned-units.")
    ] = None,
    method: Annotated[
        str | None, typer.Option(metavar="NAME", help="How lists are interleaved; default: team-draft.")
    ] = None,
    policy: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of a bandit: thompson (the default) or ucb1.")
    ] = None,
    floor: Annotated[
        float | None, typer.Option(metavar="SHARE", help="Of a bandit: the least share of a variant; default: 0.05.")
    ] = None,
    discount: Annotated[
        float | None,
        typer.Option(metavar="SHARE", help="Of a bandit: what a period counts in the next, for drift; default: 1."),
    ] = None,
    wait: WaitOption = 0.0,
    format: FormatOption = None,
    as_json: JsonOption = False,
    out: OutOption = None,
) -> None:
    """Start an experiment: from now on persona recommend or persona decide gives people their variants.

    Who is in which variant follows from the first id seen of a person and never changes; the permanent holdout, and
    people whom personalization or analytics do not cover, are in none. Lists are interleaved where --interleave NAME
    asks for it. Keep what is served (--log), or nothing can be measured.

    Examples:
    persona experiment start new-model --variants a=latest b=ease --metric ctr
    persona experiment start dense --surface navigation --variants a=latest b=density=compact --ramp 0.1
    persona experiment start lists --kind interleave --variants a=knn b=ease
    persona experiment start mix --kind bandit --variants a=latest b=ease c=rules.strength=0.5
    """
    given = [*(variants or ()), *(more or ())]
    if not variants:
        raise UsageError("the variants are missing", f"persona experiment start {name} --variants a=latest b=ease")
    for one, value, wanted in (
        ("--method", method, "interleave"), ("--policy", policy, "bandit"), ("--floor", floor, "bandit"),
        ("--discount", discount, "bandit"), ("--looks", looks, "ab"),
    ):  # fmt: skip
        if value is not None and kind != wanted:
            raise UsageError(f"{one} says nothing of an experiment of the kind {kind}", f"--kind {wanted}")
    how: dict[str, Any] = {"method": method, "policy": policy, "floor": floor, "discount": discount, "looks": looks}
    from persona_cli.experiments.running import start as begin
    from persona_cli.workspace.runs import recording

    home = locate_home()
    with recording(home, invocation.words) as run:
        made = begin(
            home,
            name,
            given,
            kind=kind,
            surface=surface,
            shares=numbers(shares),
            metric=metric,
            guardrails=guardrail or (),
            layer=layer,
            size=part,
            ramp=ramp,
            planned_units=planned_units,
            wait=wait,
            **{key: value for key, value in how.items() if value is not None},
        )
        run.counts |= {"variants": len(made.variants)}
        _tell(made, format, as_json, out)
    where = f"persona recommend --interleave {name} --log" if kind == "interleave" else "persona recommend --log"
    say(f"{name} runs; served with: {where if surface == 'recommend' else f'persona decide {surface}'}")


def experiment_list(format: FormatOption = None, as_json: JsonOption = False, out: OutOption = None) -> None:
    """List the experiments, running and stopped, with the part of its layer that each has.

    Examples:
    persona experiment list
    persona experiment list --json
    """
    from persona_cli.experiments.running import load, names

    home = locate_home()
    found = [load(home, name) for name in names(home)]
    if not found:
        say("no experiment was started yet: persona experiment start NAME --variants a=latest b=ease")
    render([_row(one) for one in found], chosen_format(format, as_json), out)


def show(
    name: NameArgument,
    crossovers: Annotated[
        bool, typer.Option("--crossovers", help="List people seen in two variants instead; it names them.")
    ] = False,
    format: FormatOption = None,
    as_json: JsonOption = False,
    out: OutOption = None,
) -> None:
    """Show an experiment: its variants and shares, the people seen in each, and who was seen in two.

    People are those of logged decisions, each in the first variant seen; fewer than 20 are not told (null in JSON).
    A crossover is a person seen in two variants, as happens where two ids turn out to be one person. What the
    variants brought is in persona measure experiment NAME.

    Examples:
    persona experiment show new-model
    persona experiment show new-model --json
    persona experiment show new-model --crossovers --format csv
    """
    from persona_cli.experiments.power import SRM_BLOCKS
    from persona_cli.experiments.running import load
    from persona_cli.experiments.standing import crossovers as crossed
    from persona_cli.experiments.standing import state

    home, chosen = locate_home(), chosen_format(format, as_json)
    experiment = load(home, name)
    if crossovers:
        found = crossed(home, experiment)
        if chosen in ("table", "csv", "md"):
            import polars as pl

            found = found.with_columns(pl.col("variants").list.join(" "))
        render(found, chosen, out)
        return
    told = state(home, experiment)
    if chosen in ("table", "csv", "md"):
        rows = [{**one, "overrides": _changes(one["overrides"])} for one in told["variants"]]
        if chosen != "csv":
            rows = [{**one, "planned": round(one["planned"], 4), "share": round(one["share"], 4)} for one in rows]
        render(rows, chosen, out)
        say(
            f"{name}: {told['kind']} on {told['surface']}, {told['state']} since "
            f"{told['stopped'] or told['started']}, layer {told['layer']} {told['from']:g}-{told['to']:g}, "
            f"{told['ramp']:.0%} enrolled; {told['people']:,} people, {told['crossovers']:,} crossovers"
        )
    else:
        emit_json(told, out) if chosen == "json" else render([told], chosen, out)
    if told["srm_p"] is not None and told["srm_p"] < SRM_BLOCKS:
        warn(
            f"the people of the variants are not in the shares planned (p = {told['srm_p']:.2g}): "
            "no lift is to be believed"
        )


def assign(
    name: NameArgument,
    users: Annotated[
        str | None, typer.Option(metavar="FILE|-", help="Users (text, CSV, JSON lines, Parquet); default: all known.")
    ] = None,
    user: Annotated[list[str] | None, typer.Option("--user", "-u", metavar="ID", help="One user; may repeat.")] = None,
    format: FormatOption = None,
    as_json: JsonOption = False,
    out: OutOption = None,
) -> None:
    """Tell who is in which variant, sorted by user: user_id, variant (none: null) and the chance of it. CSV by default.

    For what is served elsewhere; log it there, or send the variant with the events. Nothing is logged here.

    Examples:
    persona experiment assign new-model > variants.csv
    persona experiment assign new-model --user u42
    """
    import polars as pl

    from persona_cli.events.lists import read_ids
    from persona_cli.experiments.applied import members
    from persona_cli.serving.context import everyone
    from persona_cli.workspace.runs import recording

    if users is not None and user:
        raise UsageError("--users names a file and --user single users; give one of them")
    home = locate_home()
    with recording(home, invocation.words, ids=user or ()) as run:
        if user:
            asked = pl.Series("user_id", user, dtype=pl.String)
        else:
            asked = everyone(home) if users is None else read_ids(users, ["user_id"])["user_id"]
        found = members(home, name, asked.unique().sort())
        run.counts |= {"users": found.height, "assigned": found["variant"].count()}
        render(found, chosen_format(format, as_json, "csv"), out)


def update(
    name: NameArgument,
    ramp: Annotated[
        float | None, typer.Option(metavar="SHARE", help="Enrol this share of the people; only up.")
    ] = None,
    drop: Annotated[
        list[str] | None, typer.Option(metavar="VARIANT", help="End a variant: its people get the control; may repeat.")
    ] = None,
    days: Annotated[
        float | None,
        typer.Option(
            metavar="N",
            help="Of a bandit: people count after so many; default: the metric's window, else decisions.window_days.",
        ),
    ] = None,
    wait: WaitOption = 0.0,
    format: FormatOption = None,
    as_json: JsonOption = False,
    out: OutOption = None,
) -> None:
    """Enrol more people, drop variants, and let a bandit allocate anew by what came of those before.

    Nobody who is in a variant moves, but those of a dropped one; the control stays. For a bandit run it from cron:
    people who come until the next run get the new shares, which are written down, so that the result can be judged
    (persona measure). What they follow from is told: how many people count by now, and their mean reward.

    Examples:
    persona experiment update new-model --ramp 0.5
    persona experiment update new-model --drop c
    persona experiment update mix
    """
    from persona_cli.experiments.standing import update as renew
    from persona_cli.workspace.runs import recording

    home = locate_home()
    with recording(home, invocation.words):
        made, sums = renew(home, name, ramp=ramp, drop=drop or (), days=days, wait=wait)
        _tell(made, format, as_json, out, sums)
    if sums is not None and not sums.n.sum():
        say(f"nobody counts yet: a person does once the window since their first decision in {name} is over")


def stop(name: NameArgument, wait: WaitOption = 0.0) -> None:
    """Stop an experiment: everybody gets what is configured, and its part of the layer is free.

    It stays listed and can be measured. Its name is not used again.

    Examples:
    persona experiment stop new-model
    """
    from persona_cli.experiments.running import stop as end
    from persona_cli.workspace.runs import recording

    home = locate_home()
    with recording(home, invocation.words):
        end(home, name, wait=wait)
    say(f"{name} is stopped; persona measure experiment {name} tells what it brought")


def _tell(made: Experiment, format: Any, as_json: bool, out: Any, sums: Arms | None = None) -> None:
    """Its variants, and what holds for those who come now; of a bandit also by how many people and which mean reward
    (None for fewer than 20)."""
    rows: list[dict[str, Any]] = [
        {
            "variant": variant.name,
            "overrides": _changes(variant.overrides),
            "share": round(share, 4),
            "dropped": variant.name in made.dropped,
        }
        for variant, share in zip(made.variants, made.current, strict=True)
    ]
    if sums is not None:
        from persona_cli.profiles import SMALLEST_CELL

        for row, n, total in zip(rows, sums.n.tolist(), sums.total.tolist(), strict=True):
            enough = n >= SMALLEST_CELL
            row |= {"counted": round(n) if enough or not n else None, "reward": round(total / n, 6) if enough else None}
    render(rows, chosen_format(format, as_json), out)


def _row(one: Experiment) -> dict[str, Any]:
    return {
        "name": one.name,
        "kind": one.kind,
        "surface": one.surface,
        "variants": " ".join(one.names),
        "metric": one.metric,
        "layer": one.layer,
        "from": one.part.begin,
        "to": one.part.end,
        "ramp": one.ramp,
        "started": one.started.isoformat(timespec="seconds"),
        "stopped": None if one.stopped is None else one.stopped.isoformat(timespec="seconds"),
    }


def _changes(overrides: dict[str, str]) -> str:
    return " ".join(f"{key}={value}" for key, value in overrides.items()) or "as configured"
