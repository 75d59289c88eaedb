"""Commands: measure: what experiments say, of this workspace or of anybody's data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from persona_cli.cli.common import (
    AsOfOption,
    Format,
    FormatOption,
    JsonOption,
    OutOption,
    chosen_format,
    command,
    emit_json,
    invocation,
    locate_home,
    out_stream,
    plain,
    printable,
    render,
    render_parts,
    say,
    warn,
    with_options,
)
from persona_cli.cli.help import Group
from persona_cli.errors import UsageError

if TYPE_CHECKING:
    from persona_cli.experiments.measuring import Measured
    from persona_cli.reports.parts import Part

_Texts = list[str] | None
AlphaOption = Annotated[float, typer.Option("--alpha", metavar="SHARE", help="Chance of a false finding.")]
CorrectOption = Annotated[
    str, typer.Option("--correct", metavar="WAY", help="Correction for several tests: holm, bh or none.")
]
PeekOption = Annotated[
    str | None,
    typer.Option("--peek", metavar="WAY", help="Intervals that hold at every look: open (for ever) or horizon."),
]
PlannedOption = Annotated[
    float | None,
    typer.Option("--planned", metavar="N", min=1, help="Units of all variants planned, for --peek and --looks."),
]
ForceOption = Annotated[
    bool, typer.Option("--force", help="Show figures even where the shares say that they are wrong.")
]
_CORRECTIONS = {"bh": "benjamini-hochberg"}

ABOUT = """What experiments say: of a workspace, or of anybody's data with --from.

With --from every unit of a file (CSV, TSV, Parquet, JSON lines) counts once: rows of one unit are added up. Words come
first, then the figures. Where the numbers of units are not as planned (p below 0.001) nothing is shown, exit 77.

Examples:
persona measure --from users.csv --unit user --variant group --value bought
persona measure --from users.csv --unit user --variant group --value bought --looks 5 --look 2
persona measure --from log.parquet --unit user --variant arm --value clicks --denominator views
persona measure --from users.csv --variant group --value spent --before spent_before --winsor 0.999
persona measure --from users.csv --variant group --value bought --peek open --planned 20000 --segment country
"""


def register(app: typer.Typer) -> None:
    inner = typer.Typer(
        cls=Group, rich_markup_mode=None, add_completion=False, invoke_without_command=True, no_args_is_help=True
    )
    inner.callback()(with_options(of_file))
    command(inner, experiment)
    command(inner, interleave)
    app.add_typer(inner, name="measure", help=ABOUT, rich_help_panel="Experiment")


def of_file(
    ctx: typer.Context,
    source: Annotated[
        Path | None, typer.Option("--from", metavar="FILE", help="A file of .csv, .tsv, .parquet or .jsonl.")
    ] = None,
    unit: Annotated[
        str | None, typer.Option("--unit", metavar="COLUMN", help="Who was assigned; without it each row is a unit.")
    ] = None,
    variant: Annotated[str | None, typer.Option("--variant", metavar="COLUMN", help="The variant of the unit.")] = None,
    value: Annotated[_Texts, typer.Option("--value", metavar="COLUMN", help="A metric; may repeat.")] = None,
    kind: Annotated[
        _Texts,
        typer.Option(
            "--kind",
            metavar="KIND",
            help="auto, mean, proportion, ratio, count, nps or quantile:Q; one, or one for each --value.",
        ),
    ] = None,
    denominator: Annotated[
        _Texts, typer.Option("--denominator", metavar="COLUMN", help="What the value is a ratio to; may repeat.")
    ] = None,
    before: Annotated[
        _Texts, typer.Option("--before", metavar="COLUMN", help="The same metric before, for less variance (CUPED).")
    ] = None,
    denominator_before: Annotated[
        _Texts, typer.Option("--denominator-before", metavar="COLUMN", help="The denominator before.")
    ] = None,
    down: Annotated[_Texts, typer.Option("--down", metavar="COLUMN", help="A --value of which less is better.")] = None,
    control: Annotated[
        str | None, typer.Option("--control", metavar="NAME", help="The variant that others are held against.")
    ] = None,
    share: Annotated[
        _Texts, typer.Option("--share", metavar="NAME=SHARE", help="Planned share of a variant; equal if not given.")
    ] = None,
    segment: Annotated[
        str | None, typer.Option("--segment", metavar="COLUMN", help="Show effects by this, drawn towards their mean.")
    ] = None,
    winsor: Annotated[
        float | None, typer.Option("--winsor", metavar="SHARE", help="Cut values above this quantile, as 0.999.")
    ] = None,
    alpha: AlphaOption = 0.05,
    correct: CorrectOption = "holm",
    peek: PeekOption = None,
    planned: PlannedOption = None,
    looks: Annotated[
        int | None, typer.Option("--looks", metavar="N", min=2, max=50, help="Looks planned, at equal steps.")
    ] = None,
    look: Annotated[
        int | None, typer.Option("--look", metavar="K", min=1, help="Which of them this is, with --looks.")
    ] = None,
    force: ForceOption = False,
    format: FormatOption = None,
    as_json: JsonOption = False,
    out: OutOption = None,
) -> None:
    if ctx.invoked_subcommand is not None:
        return
    if source is None or variant is None or not value:
        missing = "--from" if source is None else "--variant" if variant is None else "--value"
        raise UsageError(
            f"{missing} is missing; a file, its variant and a value are measured", "persona measure --help"
        )
    if (looks is None) != (look is None):
        raise UsageError("--looks says how many were planned and --look which of them this is; give both")
    if looks is not None and peek is not None:
        raise UsageError("--looks are planned and --peek is at any time; give one of them")

    from persona_cli.experiments import units
    from persona_cli.experiments.measuring import measure
    from persona_cli.experiments.sequential import looks_to
    from persona_cli.experiments.verdicts import LOOKS, Design

    chosen = chosen_format(format, as_json)
    asked = units.asked(value, kind or (), denominator or (), before or (), denominator_before or (), down or ())
    read = units.read(source, asked, variant, unit=unit, control=control, segment=segment, winsor=winsor)
    shares = planned_shares(share or (), read.variants)
    design = Design(read.variants, shares, alpha, _CORRECTIONS.get(correct, correct), peek, planned)
    if looks is not None and look is not None:
        reached = None if planned is None else read.frame.height / planned
        design = design._replace(peek=LOOKS, looks=looks, fractions=looks_to(look, looks, reached))
    found = measure(
        read.frame,
        read.questions,
        design,
        given=read.given,
        segment="segment" if segment else None,
        notes=read.notes,
        force=force,
    )
    show(found, chosen, out)


def experiment(
    name: Annotated[str, typer.Argument(metavar="NAME", help="An experiment: persona experiment list.")],
    metric: Annotated[
        _Texts, typer.Option("--metric", metavar="NAME", help="Instead of the metric it was started with; may repeat.")
    ] = None,
    segment: Annotated[
        str | None,
        typer.Option("--segment", metavar="NAME", help="Show effects by a segment of persona.toml, or a column."),
    ] = None,
    alpha: AlphaOption = 0.05,
    correct: CorrectOption = "holm",
    peek: PeekOption = None,
    planned: PlannedOption = None,
    force: ForceOption = False,
    as_of: AsOfOption = None,
    format: FormatOption = None,
    as_json: JsonOption = False,
    out: OutOption = None,
) -> None:
    """What the variants of an experiment brought, from each person's first exposure on.

    By its metric and guardrails, with the time before taken into account. People seen in two variants are left out.
    Where looks were planned (start --looks), each run with more people is the next of them, and its intervals hold
    over all. The result is kept in reports/experiment-NAME-RUN/ (measured.json, and sums.parquet without anybody's id).

    Examples:
    persona measure experiment new-model
    persona measure experiment new-model --metric arpu --metric ctr --segment device
    persona measure experiment new-model --peek horizon --planned 20000 --json
    """
    from datetime import UTC, datetime

    from persona_cli.experiments import measured, results
    from persona_cli.workspace.runs import recording
    from persona_cli.workspace.setting import moment_of

    home, chosen = locate_home(), chosen_format(format, as_json)
    until = moment_of(as_of) or datetime.now(UTC)
    with recording(home, invocation.words) as run:
        made = results.measure_experiment(
            home,
            name,
            until,
            asked=metric or (),
            segment=segment,
            alpha=alpha,
            correction=_CORRECTIONS.get(correct, correct),
            peek=peek,
            planned=planned,
            force=force,
        )
        found = made.measured
        said = plain({"experiment": name, "until": made.until, **measured.document(found)})
        if made.look is not None:
            said["look"] = plain(made.look._asdict())
        folder = results.write(home, name, run.id, said, made.sums)
    if chosen == "json":
        emit_json(said, out)
    else:
        show(found, chosen, out)
    say(f"kept in {folder}")


def interleave(
    name: Annotated[str, typer.Argument(metavar="NAME", help="An experiment whose lists are interleaved.")],
    alpha: AlphaOption = 0.05,
    planned: Annotated[
        float | None,
        typer.Option("--planned", metavar="N", min=1, help="People at whom looking at any time is to cost least."),
    ] = None,
    as_of: AsOfOption = None,
    format: FormatOption = None,
    as_json: JsonOption = False,
    out: OutOption = None,
) -> None:
    """Which of two interleaved rankings people prefer, how sure that is, and whether it is enough to stop.

    Of more than two, each pair, with p corrected over all. From clicks on merged lists that were logged (persona
    recommend --interleave NAME --log).

    Examples:
    persona measure interleave new-model
    persona measure interleave new-model --planned 2000 --json
    """
    from datetime import UTC, datetime

    from persona_cli.experiments import results
    from persona_cli.experiments.running import load
    from persona_cli.reports.parts import Part
    from persona_cli.workspace.runs import recording
    from persona_cli.workspace.setting import moment_of

    home, chosen = locate_home(), chosen_format(format, as_json)
    until = moment_of(as_of) or datetime.now(UTC)
    with recording(home, invocation.words) as run:
        found = results.measure_interleaved(home, name, until, alpha=alpha, planned=planned)
        pairs = [plain(one) for one in results.preference_documents(found, load(home, name).names)]
        said = {"experiment": name, "until": plain(until), **(pairs[0] if len(pairs) == 1 else {"pairs": pairs})}
        folder = results.write(home, name, run.id, said)
    if chosen == "json":
        emit_json(said, out)
    elif chosen == "table":
        render_parts([Part(one["words"]) for one in pairs], out)
    else:
        told = {"experiment": name, "until": said["until"]}
        render([{**told, **{key: value for key, value in one.items() if key != "words"}} for one in pairs], chosen, out)
    say(f"kept in {folder}")


def planned_shares(given: list[str] | tuple[str, ...], variants: tuple[str, ...]) -> tuple[float, ...] | None:
    """Shares in the order of the variants; None where none are given."""
    from persona_cli.cli.common import pairs
    from persona_cli.errors import nearest

    if not given:
        return None
    named = pairs(given, "--share")
    for name in named:
        if name not in variants:
            raise UsageError(f"--share {name}: no such variant{nearest(name, variants)}")
    if missing := [name for name in variants if name not in named]:
        raise UsageError(f"--share says nothing of {missing[0]}; expected one for each variant")
    try:
        shares = [float(named[name]) for name in variants]
    except ValueError as error:
        raise UsageError(f"--share {given[0]}: expected NAME=SHARE with a number, as b=0.5") from error
    if not all(0 < one < float("inf") for one in shares):
        raise UsageError(f"--share {given[0]}: expected shares over 0")
    return tuple(one / sum(shares) for one in shares)


def show(found: Measured, chosen: Format, out: Path | None) -> None:
    """A measured experiment in the format asked for."""
    from persona_cli.experiments import measured

    if chosen == "json":
        emit_json(measured.document(found), out)
    elif chosen == "table":
        render_parts(measured.parts(found), out)
    elif chosen == "md":
        with out_stream(out) as stream:
            stream.write("".join(f"{line}\n" for line in _markdown(measured.parts(found))).encode())
    else:
        if found.srm != "ok":
            warn(measured.sentences(found)[0])
        render(measured.records(found), chosen, out)


def _markdown(parts: list[Part]) -> list[str]:
    def safe(text: str) -> str:
        return printable(text).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")

    lines: list[str] = []
    for part in parts:
        lines += [*([""] if lines else []), *(f"- {safe(text)}" for text in part.prose)]
        if part.columns:
            lines += [*([""] if part.prose else []), f"| {' | '.join(map(safe, part.columns))} |"]
            lines += ["|" + "---|" * len(part.columns)]
            lines += [f"| {' | '.join(map(safe, row))} |" for row in part.rows]
        lines += [f"- {safe(text)}" for text in part.after]
    return lines
