"""Commands: recommend, similar and score: lists, neighbours and given pairs."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from persona_cli.cli.common import (
    AsOfOption,
    Format,
    FormatOption,
    JsonOption,
    NoExperimentsOption,
    OutOption,
    RecipientOption,
    WaitOption,
    chosen_format,
    command,
    invocation,
    locate_home,
    out_stream,
    pairs,
    render,
    say,
)
from persona_cli.cli.propensity import is_asked, score_chances
from persona_cli.errors import UsageError

if TYPE_CHECKING:
    import polars as pl

    from persona_cli.serving.recommend import Recommendations
    from persona_cli.workspace.home import Home

    Blocks = Iterator[pl.DataFrame]

ModelOption = Annotated[
    str | None, typer.Option("--model", "-m", metavar="NAME[/V]", help="ease, or ease/3; default: what is served.")
]
TopOption = Annotated[
    int | None,
    typer.Option("--top", "-k", metavar="N", min=1, max=10_000, help="Items a list; default: recommend.top."),
]
ContextOption = Annotated[
    list[str] | None,
    typer.Option("--context", metavar="KEY=VALUE", help="device or country of everybody asked; may repeat."),
]
HoldoutOption = Annotated[
    bool, typer.Option("--include-holdout", help="Personalise for the permanent holdout as well.")
]


def register(app: typer.Typer) -> None:
    command(app, recommend, panel="Serve", everyday=True)
    command(app, similar, panel="Serve")
    command(app, score, panel="Serve")


def recommend(
    users: Annotated[
        str | None, typer.Option(metavar="FILE|-", help="Users to recommend to (text, CSV, JSON lines, Parquet).")
    ] = None,
    user: Annotated[list[str] | None, typer.Option("--user", "-u", metavar="ID", help="One user; may repeat.")] = None,
    segment: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only to members of this segment of persona.toml.")
    ] = None,
    candidates: Annotated[
        str | None,
        typer.Option(metavar="FILE|-", help="Rank exactly these items, or these (user_id, item_id) pairs."),
    ] = None,
    top: TopOption = None,
    model: ModelOption = None,
    as_of: AsOfOption = None,
    context: ContextOption = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Add to every item its reasons and what its score is made of.")
    ] = False,
    include_holdout: HoldoutOption = False,
    log: Annotated[
        bool, typer.Option("--log", help="Keep what is served, with a decision_id in each line, to be judged later.")
    ] = False,
    no_experiments: NoExperimentsOption = False,
    interleave: Annotated[
        str | None,
        typer.Option(metavar="EXPERIMENT", help="Merge the lists of the two variants of this experiment."),
    ] = None,
    recipient: RecipientOption = None,
    wait: WaitOption = 0.0,
    format: FormatOption = None,
    as_json: JsonOption = False,
    out: OutOption = None,
) -> None:
    """Recommend items to all known users, or to those given, sorted by user.

    JSON lines by default: one object a user with items, scores, the model, what the list stands on (base) and how far
    the user is known (stage). Unknown users get the popular list of their context. Nothing that a user has consumed or
    blocked and nothing unavailable is in a list. Members of the permanent holdout get the list that is the same for
    all, and say so. Whom personalization does not cover (privacy consent) gets what an unknown user gets: stage
    "generic", "consent": false. With --explain every item has reasons in words and shares of its score by items of the
    user's own history and whatever else adds to it, and every list its layers: context, cohort, individual. With --log
    each list is kept as a decision (persona decisions), except of people whom analytics do not cover; send its
    decision_id back in the events that answer to it. Where an experiment runs on recommend (persona experiment), who is
    in it gets the list of their variant, which is told in the line; not with --model or --as-of.

    Examples:
    persona recommend > out.jsonl
    persona recommend --users users.txt --top 10 --out lists.parquet --format parquet
    persona recommend --user u42 --explain --format table
    persona recommend --segment keen --top 10 --out keen.jsonl
    persona recommend --candidates hits.csv --context device=mobile
    persona recommend --out lists.jsonl --recipient "Mail house Ltd"
    persona recommend --log --out lists.jsonl
    persona recommend --interleave new-model --log --out lists.jsonl
    """
    from persona_cli.events.lists import read_ids
    from persona_cli.feedback.decisions import serving
    from persona_cli.privacy.recipients import named
    from persona_cli.privacy.recipients import register as note
    from persona_cli.workspace.artifacts import file_digest
    from persona_cli.workspace.runs import recording
    from persona_cli.workspace.setting import parse_moment

    chosen = chosen_format(format, as_json, "jsonl")
    if users is not None and user:
        raise UsageError("--users names a file and --user single users; give one of them")
    if users == "-" and candidates == "-":
        raise UsageError("--users and --candidates cannot both be standard input")
    if wait and not log:
        raise UsageError("--wait waits for others that write, and nothing is written without --log")
    recipient = None if recipient is None else named(recipient)
    home = locate_home()
    moment = None if as_of is None else parse_moment(as_of)
    with (
        recording(home, invocation.words, ids=user or ()) as run,
        serving(home, run, log, moment is not None, wait) as served,
    ):
        run.inputs |= {name: file_digest(Path(name)) for name in (users, candidates) if name and Path(name).is_file()}
        asked = read_ids(users, ["user_id"])["user_id"] if users is not None else None
        if user:
            import polars as pl

            asked = pl.Series("user_id", user, dtype=pl.String)
        listed: Any = None
        if candidates is not None:
            listed = read_ids(candidates, ["item_id"], ["user_id"])
            listed = listed if "user_id" in listed.columns else listed["item_id"]
        made = _serving(home, not no_experiments, interleave)(
            home,
            users=asked,
            segment=segment,
            candidates=listed,
            top=top,
            model=model,
            as_of=moment,
            context=pairs(context, "--context"),
            explain=explain,
            include_holdout=include_holdout,
        )
        run.counts |= {"users": made.users, "holdout": made.holdout, "model": made.model}
        if recipient is not None and out is None:  # what was written before a failure has left already
            note(home, recipient, "recommendations, to standard output", ids="user_ids")
        _write(served(made.blocks, made.context), chosen, out, whole=log)
        if out is not None and out.is_file():
            run.outputs[out.name] = file_digest(out)
        if recipient is not None and out is not None:
            note(home, recipient, "recommendations", run.outputs.get(out.name), ids="user_ids")
    if unlogged := made.users - run.counts.get("logged", made.users):
        say(f"{unlogged:,} of {made.users:,} lists are not logged: analytics do not cover these people")
    if out is not None:
        say(f"{made.users:,} lists by {made.model} in {out}")


def _serving(home: Home, experiments: bool, interleave: str | None) -> Callable[..., Recommendations]:
    """What makes lists: with experiments where there may be any."""
    from persona_cli.experiments import any_there

    if interleave is None and not (experiments and any_there(home)):
        from persona_cli.serving.recommend import recommend as serve

        return serve
    from persona_cli.experiments.applied import recommend as tried

    return functools.partial(tried, experiments=experiments, interleave=interleave)


def _write(lists: AbstractContextManager[Blocks], format: Format, out: Path | None, whole: bool) -> None:
    """Write lists; of a `whole` nothing leaves before all are made and logged."""
    from persona_cli.serving import writing

    fast = {
        "jsonl": writing.write_lines,
        "json": writing.write_json,
        "csv": writing.write_csv,
        "parquet": writing.write_parquet,
    }
    if format not in fast:
        with lists as blocks:
            rows = [row for block in blocks for row in writing.flat(block).to_dicts()]
        render(rows, format, out)
        return
    _not_to_a_terminal(format, out)
    with out_stream(out, whole) as stream, lists as blocks:
        fast[format](blocks, stream)


def _write_rows(rows: Any, format: Format, out: Path | None) -> None:
    from persona_cli.serving.writing import write_rows

    if format not in ("jsonl", "csv", "parquet"):
        render(rows, format, out)
        return
    _not_to_a_terminal(format, out)
    with out_stream(out) as stream:
        write_rows(rows, format, stream)


def _not_to_a_terminal(format: Format, out: Path | None) -> None:
    if format == "parquet" and out is None and sys.stdout.isatty():
        raise UsageError("Parquet is binary and stdout is a terminal", "add --out FILE.parquet")


def similar(
    item: Annotated[str | None, typer.Argument(metavar="ITEM", help="An item.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="For every item.")] = False,
    top: TopOption = None,
    model: ModelOption = None,
    format: FormatOption = None,
    as_json: JsonOption = False,
    out: OutOption = None,
) -> None:
    """Show the items that go with an item, by the individual model inside what is served.

    Examples:
    persona similar i42
    persona similar --all --top 5 --format csv --out similar.csv
    """
    if (item is None) == (not everything):
        raise UsageError("name one item, or ask for --all", "persona similar --help")

    from persona_cli.serving.similar import similar as find
    from persona_cli.workspace.runs import recording

    home = locate_home()
    with recording(home, invocation.words) as run:
        found = find(home, item, top=top, model=model)
        run.counts |= {"rows": found.height}
        _write_rows(found, chosen_format(format, as_json), out)


def score(
    file: Annotated[
        str | None,
        typer.Argument(
            metavar="FILE|-", help="Pairs: user_id, item_id (CSV, JSON lines, Parquet); of propensity: users."
        ),
    ] = None,
    model: ModelOption = None,
    as_of: AsOfOption = None,
    context: ContextOption = None,
    include_holdout: HoldoutOption = False,
    format: FormatOption = None,
    as_json: JsonOption = False,
    out: OutOption = None,
) -> None:
    """Score given pairs of user and item, in their order, on the scale of the lists.

    Users of whom nothing is known, and the permanent holdout, get the score of the popular list; items that the model
    has never seen get none, and none those that the user has blocked (blocked is true). CSV by default.

    Examples:
    persona score pairs.csv > scored.csv
    persona score pairs.jsonl --format jsonl --out scored.jsonl
    persona score --model propensity > chances.csv
    """
    if is_asked([model] if model else []):
        if context or include_holdout:
            raise UsageError("--context and --include-holdout do not apply to --model propensity")
        _write_rows(score_chances(file, model, as_of), chosen_format(format, as_json, "csv"), out)
        return
    if file is None:
        raise UsageError("the pairs to score are missing", "persona score pairs.csv")
    from persona_cli.events.lists import read_ids
    from persona_cli.serving.similar import score as find
    from persona_cli.workspace.runs import recording
    from persona_cli.workspace.setting import parse_moment

    home = locate_home()
    moment = None if as_of is None else parse_moment(as_of)
    with recording(home, invocation.words) as run:
        given = read_ids(file, ["user_id", "item_id"])
        scored = find(
            home,
            given,
            model=model,
            as_of=moment,
            context=pairs(context, "--context"),
            include_holdout=include_holdout,
        )
        run.counts |= {"pairs": scored.height, "without_score": scored["score"].null_count()}
        _write_rows(scored, chosen_format(format, as_json, "csv"), out)
