"""Command: explain: why an item is in a user's list, or why not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from persona_cli.cli.common import (
    AsOfOption,
    JsonOption,
    command,
    emit_json,
    invocation,
    locate_home,
    pairs,
    printable,
)

if TYPE_CHECKING:
    from persona_cli.serving.counterfactual import Explanation


def register(app: typer.Typer) -> None:
    command(app, explain, panel="Serve")


def explain(
    user: Annotated[str, typer.Argument(metavar="USER", help="A user.")],
    item: Annotated[str, typer.Argument(metavar="ITEM", help="An item, in the user's list or not.")],
    top: Annotated[
        int | None,
        typer.Option("--top", "-k", metavar="K", min=1, max=10_000, help="Items a list; default: recommend.top."),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", metavar="NAME[/V]", help="ease, or ease/3; default: what is served.")
    ] = None,
    as_of: AsOfOption = None,
    context: Annotated[
        list[str] | None,
        typer.Option("--context", metavar="KEY=VALUE", help="device or country of the visit; may repeat."),
    ] = None,
    include_holdout: Annotated[
        bool, typer.Option("--include-holdout", help="Personalise for the permanent holdout as well.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Say why an item is in the user's list of recommendations, or what keeps it out.

    Of an item in the list: the fewest items of the user's own history without which it is not there, found by leaving
    them out and ranking again; that nothing smaller does it, or, where not all was tried, that none can be spared; and
    what would come instead. Or that it is popular where the user is, pinned by a rule, or drawn at random. Of an item
    that is not in the list: its rank and score, what is missing, or what excludes it. Nobody else is ever named, nor
    what rules.sensitive is about.

    Examples:
    persona explain u42 i7
    persona explain u42 i7 --top 10 --json
    """
    from persona_cli.serving.counterfactual import explain as find
    from persona_cli.workspace.runs import recording
    from persona_cli.workspace.setting import parse_moment

    home = locate_home()
    moment = None if as_of is None else parse_moment(as_of)
    with recording(home, invocation.words, ids=[user]) as run:
        found = find(
            home,
            user,
            item,
            top=top,
            model=model,
            as_of=moment,
            context=pairs(context, "--context"),
            include_holdout=include_holdout,
        )
        run.counts |= {"tried": found.tried}
    if as_json:
        emit_json(found.to_dict())
    else:
        _show(found)


def _show(found: Explanation) -> None:
    for sentence in found.text:
        typer.echo(printable(sentence[:1].upper() + sentence[1:] + "."))
