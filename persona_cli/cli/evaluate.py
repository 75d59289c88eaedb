"""Commands: evaluate: how good the models, or anybody's lists, are on what they have not seen."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

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
    locate_home_if_any,
    out_stream,
    pairs,
    render,
    render_parts,
    say,
)
from persona_cli.cli.what_if import ForceOption, RewardOption, SinceOption, UntilOption
from persona_cli.errors import CheckFailed, UsageError

if TYPE_CHECKING:
    from persona_cli.cli.output import Format
    from persona_cli.evaluation.document import Evaluation


def register(app: typer.Typer) -> None:
    command(app, evaluate, panel="Models", everyday=True)


def evaluate(
    split: Annotated[
        Literal["time", "leave-last", "user", "per-user", "random"] | None,
        typer.Option(
            help="What is tested: the last fifth of all events (time, the default), each user's last new item, a fifth "
            "of the users, the last fifth of each user's events, or (too good to be true) random pairs."
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", metavar="NAME", help="ease, or ease/3; default: latest; may repeat."),
    ] = None,
    settings: SetOption = None,
    k: Annotated[
        str | None, typer.Option("--k", metavar="K,…", help="Lengths of lists, such as 10,20; default: evaluate.k.")
    ] = None,
    cuts: Annotated[
        int, typer.Option(min=1, max=50, metavar="N", help="Divide what is tested into N windows, and show the trend.")
    ] = 1,
    slices: Annotated[
        list[str] | None,
        typer.Option(
            "--slice",
            metavar="CONDITION",
            help="Figures of these users too: \"device = 'mobile'\", or segment:NAME as it was at the cut; may repeat.",
        ),
    ] = None,
    test: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Right answers (user_id, item_id) of your own: scores what was trained on everything ingested, all "
            "items ranked, ingested pairs excluded.",
        ),
    ] = None,
    lists: Annotated[
        list[str] | None,
        typer.Option(
            "--from",
            metavar="FILE",
            help="Score these lists, anybody's, against --test FILE, without a model; may repeat.",
        ),
    ] = None,
    compat: Annotated[
        list[str] | None,
        typer.Option(
            "--compat",
            metavar="LIBRARY",
            help="What rectools, replay, lenskit, recommenders, implicit, recbole or all would print, and why.",
        ),
    ] = None,
    inflation: Annotated[
        bool, typer.Option("--inflation", help="Also evaluate with a random split: how much a look ahead flatters.")
    ] = False,
    choice: Annotated[
        bool, typer.Option("--choice", help="How well the choices of `train` held: at past moments, on what followed.")
    ] = False,
    holdout: Annotated[
        bool, typer.Option("--holdout", help="Also compare personalised users with the permanent holdout.")
    ] = False,
    off_policy: Annotated[
        list[str] | None,
        typer.Option(
            "--off-policy", metavar="MODEL", help="What it would earn, by logged lists that explored; may repeat."
        ),
    ] = None,
    surface: Annotated[
        str | None,
        typer.Option(
            "--surface", metavar="NAME", help="What each logged variant or arm earns; or lists of --off-policy."
        ),
    ] = None,
    reward: RewardOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    force: ForceOption = False,
    refit: Annotated[
        bool,
        typer.Option(
            "--refit/--no-refit", help="Refit the recipe before the cut, or score it as it was trained on later events."
        ),
    ] = True,
    as_of: AsOfOption = None,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Also write a page with plots (extra: report).")
    ] = None,
    format: FormatOption = None,
    as_json: JsonOption = False,
    out: OutOption = None,
) -> None:
    """Score models on what they have not seen, always beside the baselines.

    The recipe of latest (its name and settings) is trained again on what happened before a cut, and ranks all items for
    every user with something new afterwards. Every such user counts, a list that is missing scores 0, and each figure
    has its 95 % interval over users. Lists are searched for what could not be known at the cut; where there is any, the
    command fails (10) and says what. Figures by user are kept in evaluations/ of the workspace.

    Examples:
    persona evaluate
    persona evaluate --model ease --model knn --k 5,10,20
    persona evaluate --cuts 4 --slice "activity = 'heavy' and plan in ('pro', 'team')" --html report.html
    persona evaluate --slice segment:keen --slice "segment:keen and device = 'mobile'"
    persona evaluate --split leave-last --set model.ease.lambda=200
    persona evaluate --test held-out.csv --compat all --json
    persona evaluate --from theirs.jsonl --from ours.parquet --test held-out.csv
    persona evaluate --choice
    persona evaluate --holdout
    persona evaluate --off-policy ease --off-policy knn --since 2026-03-01
    persona evaluate --surface recommend --reward conversion
    """
    chosen = chosen_format(format, as_json)
    of_events: dict[str, object] = {"--split": split, "--model": model, "--set": settings, "--cuts": cuts > 1}
    of_events |= {"--inflation": inflation, "--holdout": holdout, "--no-refit": not refit}
    if off_policy or surface is not None:
        from persona_cli.cli.what_if import off_policy as by_logged

        more = {"--k": k, "--slice": slices, "--test": test, "--from": lists, "--compat": compat, "--html": html}
        _only("logged decisions are looked at, not held-out events", {**of_events, **more, "--choice": choice})
        by_logged(off_policy or [], surface, reward, since, until, as_of, force, chosen, out)
        return
    _only(
        "these are of logged decisions: add --off-policy MODEL or --surface NAME",
        {"--reward": reward, "--since": since, "--until": until, "--force": force},
    )
    lengths = None if k is None else _lengths(k)
    if html is not None:
        from persona_cli.reports.charts import check

        check()  # before the work, not after it
    if choice:
        _choice(cuts, as_of, chosen, out)
        return
    if lists:
        _only("--from scores lists as they are, without a model", of_events)
        if test is None:
            raise UsageError("--from needs the right answers too", "add --test FILE with user_id and item_id")
        evaluation = _given(lists, str(test), lengths, slices or (), compat or (), as_of)
    else:
        from persona_cli.api import Workspace

        evaluation = Workspace.of(locate_home()).evaluate(
            *(model or ()),
            split=split,
            settings=pairs(settings),
            k=lengths,
            test=test,
            cuts=cuts,
            slices=slices or (),
            compat=compat or (),
            inflation=inflation,
            holdout=holdout,
            refit=refit,
            as_of=as_of,
            words=invocation.words,
        )
    _show(evaluation, chosen, out)
    if html is not None:
        _page(evaluation.result, html)
    if evaluation.folder is not None:
        say(f"by user: {evaluation.folder}")
    if evaluation.leaks:
        raise CheckFailed(
            f"these figures cannot be trusted: {'; '.join(evaluation.leaks)}",
            "repair the data or the model named, and evaluate again",
        )


def _show(evaluation: Evaluation, format: Format, out: Path | None) -> None:
    from persona_cli.evaluation.report import parts, records

    if format == "json":
        emit_json(evaluation.result, out)
    elif format == "table":
        render_parts(parts(evaluation.result), out)
    else:
        render(records(evaluation.result), format, out)


def _page(result: dict[str, Any], file: Path) -> None:
    from persona_cli.evaluation.metrics import METRICS
    from persona_cli.reports.evaluation import html

    definitions = {name: metric.definition for name, metric in METRICS.items()}
    with out_stream(file) as stream:
        stream.write(html(result, definitions).encode())
    say(f"page: {file}")


def _given(
    lists: list[str],
    test: str,
    lengths: tuple[int, ...] | None,
    slices: list[str] | tuple[str, ...],
    compat: list[str] | tuple[str, ...],
    as_of: str | None,
) -> Evaluation:
    """Lists from files; with a workspace, where one is named or found, the baselines are beside them."""
    from persona_cli.api import Workspace
    from persona_cli.evaluation.given import evaluate_lists

    if (home := locate_home_if_any()) is None:
        return evaluate_lists(None, "", lists, test, ks=lengths, slices=slices, compat=compat)
    return Workspace.of(home).evaluate_lists(
        lists, test, k=lengths, slices=slices, compat=compat, as_of=as_of, words=invocation.words
    )


def _only(why: str, others: Mapping[str, object]) -> None:
    """Raise UsageError where an option is given that could do nothing."""
    if named := [name for name, value in others.items() if value]:
        raise UsageError(f"{why}; {', '.join(named)} cannot apply")


def _choice(cuts: int, as_of: str | None, format: Format, out: Path | None) -> None:
    from persona_cli.feedback.holding import held, page
    from persona_cli.reports.parts import Part
    from persona_cli.workspace.runs import recording
    from persona_cli.workspace.setting import moment_of

    if format not in ("table", "json"):
        raise UsageError(f"--choice has no --format {format}; there are table and json")
    home = locate_home()
    with recording(home, invocation.words) as run:
        found = held(home, run.id, cuts if cuts > 1 else 3, moment_of(as_of))
    if format == "json":
        emit_json(found, out)
        return
    render_parts([Part(page(found))], out)


def _lengths(text: str) -> tuple[int, ...]:
    """`10,20` as numbers, each from 1 and only once."""
    parts = [part.strip() for part in text.split(",")]
    numbers = [int(part) for part in parts if part.isascii() and part.isdigit()]
    if len(numbers) < len(parts) or min(numbers) < 1 or len(set(numbers)) < len(numbers):
        raise UsageError(f"--k is {text!r}; expected different whole numbers from 1, such as 10,20")
    return tuple(numbers)
