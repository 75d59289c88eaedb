"""Command: privacy preferences: what a person decided about their own lists."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from persona_cli.cli.common import (
    JsonOption,
    OutOption,
    WaitOption,
    command,
    emit_json,
    invocation,
    locate_home,
    out_stream,
    pairs,
    printable,
    say,
)
from persona_cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from persona_cli.privacy.own_data import Own


def register(privacy: typer.Typer) -> None:
    """Join the group `privacy`."""
    command(privacy, preferences)


def preferences(
    user: Annotated[str, typer.Argument(metavar="USER", help="Any id of the person.")],
    put: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting of theirs; may repeat.")
    ] = None,
    block: Annotated[
        list[str] | None,
        typer.Option("--block", metavar="WHAT", help="item:ID, category:NAME, tag:NAME or topic:NAME; may repeat."),
    ] = None,
    unblock: Annotated[
        list[str] | None, typer.Option("--unblock", metavar="WHAT", help="Take a block back; may repeat.")
    ] = None,
    reset: Annotated[
        bool, typer.Option("--reset", help="Take back all settings, blocks, answers and 'show me less'.")
    ] = False,
    pause: Annotated[bool, typer.Option("--pause", help="Lists that know nothing of them, until --resume.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="End the pause.")] = False,
    wait: WaitOption = 0.0,
    as_json: JsonOption = False,
    out: OutOption = None,
) -> None:
    """Show or change what a person decided about their own lists, which outranks what is learned.

    What is blocked is in no list of theirs, and items of the category that is set as preferred_category come first. The
    settings preferred_category, usual_channel, usual_hour and country take the place of what was learned; others are
    kept for you. While paused they get the list for everybody. A topic is the category and the tag of that name.

    Examples:
    persona privacy preferences u1
    persona privacy preferences u1 --set preferred_category=comedy --block topic:war
    persona privacy preferences u1 --unblock item:i7 --pause
    persona privacy preferences u1 --reset
    """
    from persona_cli.privacy import own_data
    from persona_cli.privacy.api import Privacy

    if pause and resume:
        raise UsageError("--pause and --resume contradict each other")
    home = locate_home()
    privacy = Privacy(home)
    given = pairs(put)
    if reset:
        _tell_removed(privacy.preferences(user))
    if given or block or unblock or reset or pause or resume:
        now = privacy.set_preferences(
            user,
            given,
            block=block or (),
            unblock=unblock or (),
            reset=reset,
            paused=True if pause else False if resume else None,
            wait=wait,
            words=invocation.words,
        )
    else:
        from persona_cli.privacy.api import personal
        from persona_cli.workspace.runs import recording

        with recording(home, invocation.words, personal(invocation.words)):
            now = privacy.preferences(user)
    held = own_data.paused(home, user)
    if as_json:
        emit_json({**vars(now), "paused": held}, out)
        return
    with out_stream(out) as stream:
        stream.write("".join(f"{printable(line)}\n" for line in _lines(now, held)).encode())


def _tell_removed(own: Own) -> None:
    gone = [f"{len(part)} {name}" for name, part in _parts(own) if part]
    say(f"taken back: {', '.join(gone)}" if gone else "there was nothing to take back")


def _parts(own: Own) -> list[tuple[str, Any]]:
    return [
        ("settings", own.settings),
        ("blocks", own.blocked),
        ('"show me less"', own.show_less),
        ("answers", own.answers),
    ]


def _lines(own: Own, paused: bool) -> Iterator[str]:
    yield f"paused     {'yes: the list for everybody' if paused else 'no'}"
    yield f"settings   {', '.join(f'{key} = {value}' for key, value in own.settings.items()) or 'none'}"
    yield f"blocked    {', '.join(own.blocked) or 'nothing'}"
    if own.show_less:
        yield f"less of    {', '.join(f'{key} ({left:g} left)' for key, left in own.show_less.items())}"
    if own.answers:
        said = [f"{name}: {', '.join(answer)}" for name, answer in own.answers.items()]
        yield f"answers    {'; '.join(said)}"
