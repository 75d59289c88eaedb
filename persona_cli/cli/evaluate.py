"""Commands: evaluate: how good the models are on what they have not seen."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

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
    out_stream,
    pairs,
    printable,
    render,
    say,
)
from persona_cli.errors import UsageError


def register(app: typer.Typer) -> None:
    command(app, evaluate, panel="Models", everyday=True)


def evaluate(
    split: Annotated[
        Literal["time", "leave-last", "user", "per-user"] | None,
        typer.Option(
            help="What is tested: the last fifth of all events (time, the default), each user's last new item, a fifth "
            "of the users, or the last fifth of each user's events."
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
    test: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Right answers (user_id, item_id) of your own: scores what was trained on everything ingested, all "
            "items ranked, ingested pairs excluded.",
        ),
    ] = None,
    holdout: Annotated[
        bool, typer.Option("--holdout", help="Also compare personalised users with the permanent holdout.")
    ] = False,
    refit: Annotated[
        bool,
        typer.Option(
            "--refit/--no-refit", help="Refit the recipe before the cut, or score it as it was trained on later events."
        ),
    ] = True,
    as_of: AsOfOption = None,
    format: FormatOption = None,
    as_json: JsonOption = False,
    out: OutOption = None,
) -> None:
    """Score models on what they have not seen, always beside the popular list.

    The recipe of latest (its name and settings) is trained again on what happened before a cut, and ranks all items for
    every user with something new afterwards. Every such user counts, a list that is missing scores 0, and each figure
    has its 95 % interval over users. Figures by user are kept in evaluations/ of the workspace.

    Examples:
    persona evaluate
    persona evaluate --model ease --model knn --k 5,10,20
    persona evaluate --split leave-last --set model.ease.lambda=200
    persona evaluate --test held-out.csv --json
    persona evaluate --holdout
    """
    chosen = chosen_format(format, as_json)
    lengths = None if k is None else _lengths(k)

    from persona_cli.evaluation.evaluate import evaluate as examine
    from persona_cli.evaluation.report import page, records
    from persona_cli.workspace.artifacts import file_digest
    from persona_cli.workspace.moments import parse_moment
    from persona_cli.workspace.runs import recording

    home = locate_home()
    moment = parse_moment(as_of) if as_of else None
    with recording(home, invocation.words) as run:
        evaluation = examine(
            home,
            run.id,
            split=split,
            models=model or (),
            overrides=pairs(settings),
            ks=lengths,
            test=None if test is None else str(test),
            holdout=holdout,
            refit=refit,
            as_of=moment,
        )
        result = evaluation.result
        if test is not None and test.is_file():
            run.inputs[str(test)] = file_digest(test)
        run.counts |= {name: result[name] for name in ("users", "test_pairs", "items", "train_events")}
        run.outputs |= evaluation.files
        if chosen == "json":
            emit_json(result, out)
        elif chosen == "table":
            with out_stream(out) as stream:
                stream.write("".join(f"{printable(line)}\n" for line in page(result)).encode())
        else:
            render(records(result), chosen, out)
    say(f"by user: {evaluation.folder}")


def _lengths(text: str) -> tuple[int, ...]:
    """`10,20` as numbers, each from 1 and only once."""
    parts = [part.strip() for part in text.split(",")]
    numbers = [int(part) for part in parts if part.isascii() and part.isdigit()]
    if len(numbers) < len(parts) or min(numbers) < 1 or len(set(numbers)) < len(numbers):
        raise UsageError(f"--k is {text!r}; expected different whole numbers from 1, such as 10,20")
    return tuple(numbers)
