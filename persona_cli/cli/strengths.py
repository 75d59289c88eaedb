"""Commands: strengths: what each event type says about what users will want, learned from the past."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from persona_cli.cli.common import (
    AsOfOption,
    FormatOption,
    JsonOption,
    OutOption,
    SetOption,
    chosen_format,
    command,
    emit_json,
    invocation,
    locate_home,
    pairs,
    render,
    render_parts,
)

if TYPE_CHECKING:
    from persona_cli.evaluation.intervals import Interval
    from persona_cli.feedback.strengths import Learned, Weighed
    from persona_cli.reports.parts import Part


def register(app: typer.Typer) -> None:
    command(app, strengths, panel="Models")


def strengths(
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            metavar="TYPE",
            help="What is wanted: an event type, or rating>=4; default: the strongest type declared that is frequent.",
        ),
    ] = None,
    model: Annotated[
        str, typer.Option("--model", "-m", metavar="NAME", help="The model around which lists are judged.")
    ] = "knn",
    settings: SetOption = None,
    as_of: AsOfOption = None,
    format: FormatOption = None,
    as_json: JsonOption = False,
    out: OutOption = None,
) -> None:
    """Learn what each event type is worth, and print it as lines for persona.toml.

    Lists are made as they would have been at past cuts, with other strengths of one event type after the other and with
    other half-lives, and judged by how well they meet what users wanted next: held-out items of the target. A declared
    value is replaced only where another is clearly better over all users and no worse at any cut; noise keeps it.

    Nothing is written: put the lines into persona.toml in the place of the section, then train again.

    Examples:
    persona strengths
    persona strengths --target purchase --set train.validation_users=10000
    persona strengths --as-of 2026-03-01 --json
    """
    from persona_cli.api import Workspace

    chosen = chosen_format(format, as_json)
    found = Workspace.of(locate_home()).strengths(
        target, model=model, settings=pairs(settings), as_of=as_of, words=invocation.words
    )
    if chosen == "json":
        emit_json(_document(found), out)
    elif chosen == "table":
        render_parts(_parts(found), out)
    else:
        render([_record(one) for one in (*found.signals, found.half_life)], chosen, out)


def _document(found: Learned) -> dict[str, Any]:
    return {
        "target": found.target,
        "why": found.why,
        "model": found.model,
        "metric": found.metric,
        "users": found.users,
        "cuts": [vars(one) for one in found.cuts],
        "tried": found.tried,
        "signals": [_entry(one) for one in found.signals],
        "half_life_days": {name: value for name, value in _entry(found.half_life).items() if name != "event_type"},
        "declared": found.declared._asdict(),
        "learned": found.learned._asdict(),
        "gain": _ends(found.gain),
        "settings": found.settings,
        "toml": found.toml(),
        "notes": found.notes,
    }


def _entry(one: Weighed) -> dict[str, Any]:
    return vars(one) | {"gain": _ends(one.gain)}


def _ends(interval: Interval | None) -> dict[str, float | None] | None:
    return None if interval is None else interval._asdict()


def _record(one: Weighed) -> dict[str, Any]:
    """A flat row, for a spreadsheet."""
    value, low, high = (None, None, None) if one.gain is None else one.gain
    entry = {name: found for name, found in vars(one).items() if name != "gain"}
    return entry | {"gain": value, "gain_low": low, "gain_high": high}


def _parts(found: Learned) -> list[Part]:
    from persona_cli.reports.parts import Part

    last = found.cuts[-1].headline
    at = last if len(found.cuts) == 1 else f"{len(found.cuts)} cuts, the last: {last}"
    prose = [
        f"Target {found.target}: {found.why}.",
        f"Judged by {found.metric} of what would be served around {found.model}, over {found.users:,} users; {at}.",
    ]
    name = "NDCG" + found.metric.removeprefix("ndcg")
    columns = ("event type", "events", "users", "declared", "learned", f"{name} gain", "")
    rows = [_row(one) for one in (*found.signals, replace(found.half_life, event_type="half-life, days"))]
    declared = f"{name} with what is declared: {_ranged(found.declared)}"
    after = [
        "A gain is that of the best value tried over the declared one, all else as learned; its interval holds 95 % "
        "over all values tried in that place.",
        *found.notes,
    ]
    if found.gain is None:
        return [Part(prose), Part((), columns, rows, [*after, f"{declared}. Nothing is clearly better: all is kept."])]
    learned = (
        f"{declared}; with what is learned: {_ranged(found.learned)}, a gain of {_signed(found.gain)} among the users "
        "it was chosen by."
    )
    return [Part(prose), Part((), columns, rows, [*after, learned]), Part(found.toml())]


def _row(one: Weighed) -> tuple[str, ...]:
    gain = "" if one.gain is None else _signed(one.gain)
    shown = [_number(value) for value in (one.declared, one.learned)]
    return (one.event_type, f"{one.events:,}", f"{one.users:,}", *shown, gain, one.note)


def _number(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def _ranged(interval: Interval) -> str:
    if interval.low is None or interval.high is None:
        return f"{interval.value:.4f}"
    return f"{interval.value:.4f} ({interval.low:.4f} to {interval.high:.4f})"


def _signed(interval: Interval) -> str:
    if interval.low is None or interval.high is None:
        return f"{interval.value:+.4f}"
    return f"{interval.value:+.4f} ({interval.low:+.4f} to {interval.high:+.4f})"
