"""Commands: signals: what events say about interest, what dwell seconds mean, and where people go."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from persona_cli.cli.common import (
    AsOfOption,
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
    out_stream,
    render,
    render_parts,
    say,
)

if TYPE_CHECKING:
    from persona_cli.profiles.signal_fit import SignalFit

HtmlOption = Annotated[
    Path | None,
    typer.Option("--html", metavar="FILE", help="Also write a page; its plot needs the extra report."),
]


def register(app: typer.Typer) -> None:
    signals = group(app, "signals", "What events say about interest, and what dwell seconds mean.", panel="Data")
    command(signals, fit)
    command(signals, show)
    command(signals, navigation)


def fit(
    source: Annotated[
        Literal["dwell", "gaps"] | None,
        typer.Option(
            "--from",
            metavar="SOURCE",
            help="dwell (seconds of dwell events) or gaps (to the next event); default: dwell where there are enough.",
        ),
    ] = None,
    html: HtmlOption = None,
    as_json: JsonOption = False,
    wait: WaitOption = 0,
) -> None:
    """Learn from all events how dwell divides into reading and idle tabs, and count the evidence of each signal.

    From then on a dwell counts by the chance that it was spent reading (signals.graded), and the event types of
    [signals.minimum] that have enough events count. Histories are folded again where that changes strengths. Run it
    again when there is much more data.

    Examples:
    persona signals fit
    persona signals fit --from gaps --html dwell.html
    """
    from persona_cli.profiles.fitting import fit_signals
    from persona_cli.profiles.sync import sync
    from persona_cli.workspace import runs

    home = locate_home()
    with runs.recording(home, invocation.words) as run:
        found = fit_signals(home, source, wait)
        # Opened anew, the workspace has what was just fitted.
        home = locate_home()
        synced = sync(home, wait=wait)
        run.counts = {"version": int(found.fitted.folder.name), "new": found.new}
        if found.fit.dwell is not None:
            run.counts |= {"dwell_events": found.fit.dwell.events, "targets": found.fit.targets.height}
    if html is not None:
        _page(html, found.fit)
    if as_json:
        emit_json(_document(found.fit) | {"new": found.new, "histories": synced.mode})
        return
    for line in _sentences(found.fit):
        say(line)
    state = "is in force" if found.new else "was in force already: nothing new"
    say(f"version {found.fitted.folder.name} {state}; profiles {synced.mode} ({synced.reason})")


def show(
    html: HtmlOption = None,
    as_json: JsonOption = False,
    out: OutOption = None,
) -> None:
    """Show the strengths in force, how often each signal was seen, and the dwell fit in words.

    Examples:
    persona signals show
    persona signals show --json
    persona signals show --html signals.html
    """
    from persona_cli.profiles import signal_fit
    from persona_cli.reports.parts import Part

    home = locate_home()
    found = signal_fit.load(home.settings.fitted) if home.settings.fitted else None
    if html is not None:
        _page(html, found)
    if as_json:
        emit_json(_document(found), out)
        return
    rows = [
        [
            row["signal"],
            "never again" if row["strength"] == "never" else f"{row['strength']:g}",
            f"{row['events']:,}",
            f"{row['needed']:,}" if row["needed"] else "",
            row["note"],
        ]
        for row in _signals(found)
    ]
    render_parts(
        [Part(columns=["signal", "strength", "events", "needed", "note"], rows=rows), Part(_sentences(found))], out
    )


def navigation(
    user: Annotated[str | None, typer.Option("--user", metavar="USER", help="Of one user only.")] = None,
    by: Annotated[
        Literal["place", "item", "type"],
        typer.Option("--by", metavar="WHAT", help="place (page, else (event type)), item or type (event type)."),
    ] = "place",
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many, most often first.")] = 20,
    as_of: AsOfOption = None,
    format: FormatOption = None,
    as_json: JsonOption = False,
    out: OutOption = None,
) -> None:
    """Show from where to where people go within a session: how often, and how many of them.

    Transitions of fewer than 20 users are left out and counted. All of them: `persona sql "SELECT * FROM navigation"`.

    Examples:
    persona signals navigation
    persona signals navigation --by type --format csv
    persona signals navigation --user u0001 --as-of 2026-09-01
    """
    from persona_cli.profiles import SMALLEST_CELL
    from persona_cli.profiles.views import navigation as over_all
    from persona_cli.profiles.views import navigation_of
    from persona_cli.workspace import runs
    from persona_cli.workspace.setting import parse_moment

    home, moment = locate_home(), parse_moment(as_of) if as_of else None
    with runs.recording(home, invocation.words, ids=[user] if user else []):
        if user is not None:
            render(navigation_of(home, user, by, moment).head(limit), chosen_format(format, as_json), out)
            return
        found, hidden = over_all(home, by, moment)
        render(found.head(limit), chosen_format(format, as_json), out)
        if hidden:
            say(f"{hidden:,} other transitions were made by fewer than {SMALLEST_CELL} users and are not shown")


def _signals(found: SignalFit | None) -> list[dict[str, Any]]:
    """A row a rule in force, in the order in which they are tried; then event types that no rule names."""
    from persona_cli.profiles.fitting import event_counts
    from persona_cli.profiles.folds.explicit import RATING
    from persona_cli.profiles.permitted import ANALYTICS
    from persona_cli.profiles.signal_fit import SETTING
    from persona_cli.profiles.signals import DWELL, NEVER, SCROLL, THOUSANDTHS, rules, too_few

    home = locate_home()
    settings, counts = home.settings, event_counts(home, purpose=ANALYTICS)
    minimum, weak = settings.table("signals.minimum"), too_few(settings)
    graded, centred, rows = settings.flag("signals.graded"), settings.flag(SETTING), []
    ordered = [(str(rule), rule.event_type, entry, rule.op) for rule, entry in rules(settings)]
    named = {kind for _, kind, _, op in ordered if op is None}
    other = round(settings.number("signals.other") * THOUSANDTHS)
    ordered += [(kind, kind, other, "other") for kind in sorted({*counts, *minimum} - named)]
    for name, kind, entry, op in ordered:
        notes = ["signals.other"] if op == "other" else []
        if kind in weak:
            counted, needed = weak[kind]
            notes.append(f"counts nothing: the last fit saw {counted:,} of {needed:,}")
            if counts.get(kind, 0) >= needed:
                notes.append("there are enough now: persona signals fit")
        elif graded and op is None and entry and kind == SCROLL:
            notes.append("by depth")
        elif graded and op is None and entry and kind == DWELL:
            fitted = found is not None and found.dwell is not None
            notes.append("by the chance of reading" if fitted else "in full: not fitted yet")
        elif centred and entry and kind == RATING:
            notes.append("by the distance from the user's mean (1 at it)")
        strength = NEVER if entry is None else entry / THOUSANDTHS
        rows.append(
            {
                "signal": name,
                "event_type": kind,
                "strength": strength,
                "events": counts.get(kind, 0),
                "needed": int(minimum.get(kind, 0)),
                "enough": kind not in weak,
                "note": "; ".join(notes),
            }
        )
    return rows


def _sentences(found: SignalFit | None) -> list[str]:
    """The fit as people would say it."""
    return [*_of_dwell(found), *_of_ratings(found)]


def _of_ratings(found: SignalFit | None) -> list[str]:
    """Where ratings are centred: on what."""
    from persona_cli.profiles.signal_fit import SETTING

    if not locate_home().settings.flag(SETTING):
        return []
    if found is None or found.ratings is None:
        return [
            "Ratings count by their distance from the user's own mean: too few are fitted to draw it to that of all."
        ]
    mean, unit, weight = (found.ratings[name] for name in ("mean", "unit", "weight"))
    return [
        f"Ratings count by their distance from the user's own mean, in steps of {unit:.2f}; it is drawn to the mean of "
        f"all, {mean:.2f}, as if by {weight:.1f} more ratings."
    ]


def _of_dwell(found: SignalFit | None) -> list[str]:
    settings = locate_home().settings
    needed = settings.whole("signals.dwell.min_events")
    if found is None:
        return ["Nothing is fitted yet: a dwell counts in full, whatever its seconds. persona signals fit"]
    fit = found.dwell
    if fit is None:
        return [f"Fewer than {needed:,} durations: dwell is not fitted and counts in full."]
    of = "dwell events" if found.source == "dwell" else "times to the next event of a session"
    reading, idle, beyond = fit.median("engaged"), fit.median("idle"), fit.idle_from()
    parts = [f"median engaged reading {_span(reading or 0)}"]
    if idle is None:
        parts.append("no idle tabs can be told apart")
    else:
        parts.append(f"beyond {_span(beyond)} a tab is idle" if beyond else "no length is more likely idle than not")
        parts.append(f"{fit.idle_time:.0%} of the page time is idle")
    lines = [f"Of {fit.events:,} {of}: {'; '.join(parts)}."]
    shares = ", ".join(f"{fit.share(role):.0%} {role}" for role in dict.fromkeys(fit.roles))
    if fit.share_error is not None and idle is not None:
        shares += f" (reading ± {1.96 * 100 * fit.share_error:.1f} points)"
    worse = ", ".join(f"{n} by {bic - min(fit.bic):,.0f}" for n, bic in enumerate(fit.bic, 1) if bic > min(fit.bic))
    lines.append(
        f"Components: {shares}; of other numbers of components BIC is worse: {worse}. "
        f"Seconds come in steps of {fit.resolution:g}."
    )
    lines.append(
        f"{found.targets.height:,} targets with at least {needed:,} of their own have a fit of their own."
        if found.targets.height
        else f"No target has {needed:,} of its own: the fit of all holds for each."
    )
    if found.source == "gaps":
        lines.append("Times to the next event are a stand-in: dwell events say more.")
    if not settings.flag("signals.graded"):
        lines.append("signals.graded is false: the fit is not in force.")
    return lines


def _document(found: SignalFit | None) -> dict[str, Any]:
    dwell = None
    if found is not None and found.dwell is not None:
        fit = found.dwell
        said = {name: value for name, value in fit.said().items() if name != "histogram"}
        dwell = said | {
            "source": found.source,
            "engaged_median": fit.median("engaged"),
            "idle_from": fit.idle_from(),
            "engaged_share": fit.share("engaged"),
            "targets": found.targets.height,
        }
    ratings = None if found is None or found.ratings is None else dict(found.ratings)
    return {"signals": _signals(found), "dwell": dwell, "ratings": ratings}


def _page(file: Path, found: SignalFit | None) -> None:
    from persona_cli.reports.attention import html

    with out_stream(file) as stream:
        stream.write(html(_sentences(found), found.dwell if found else None, _signals(found)).encode())
    say(f"page: {file}")


def _span(seconds: float) -> str:
    """38 s, 9 min, 1.5 h"""
    for unit, name in ((3600, "h"), (60, "min")):
        if seconds >= 1.5 * unit:
            return f"{seconds / unit:.2g} {name}"
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
