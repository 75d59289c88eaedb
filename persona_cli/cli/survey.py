"""Command: profile survey: what to ask new users."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from persona_cli.cli.common import (
    AsOfOption,
    JsonOption,
    OutOption,
    emit_json,
    invocation,
    locate_home,
    out_stream,
    printable,
    warn,
)


def survey(
    questions: Annotated[int, typer.Option("--questions", "-n", min=1, max=10, help="How many questions.")] = 3,
    as_of: AsOfOption = None,
    as_json: JsonOption = False,
    out: OutOption = None,
) -> None:
    """Name the few questions that divide the users best, to ask somebody of whom nothing is known.

    Tried are the questions of [survey] and questions by category, tag and popular items. The gain is how much an answer
    says of what its user likes, in bits for one item, on items that were held out. Each question comes as a section of
    persona.toml; with it, the answers of a user without a history (events survey_answer) lead that user's list.

    Examples:
    persona profile survey
    persona profile survey --questions 2 --json
    """
    from persona_cli.profiles.survey import survey as find
    from persona_cli.profiles.survey import unknown_names
    from persona_cli.workspace.runs import recording
    from persona_cli.workspace.setting import parse_moment

    home = locate_home()
    with recording(home, invocation.words) as run:
        for sentence in unknown_names(home):
            warn(sentence)
        found = find(home, questions, parse_moment(as_of) if as_of else None)
        run.counts = {"questions": len(found)}
        if as_json:
            emit_json(found, out)
            return
        with out_stream(out) as stream:
            stream.write("".join(f"{line}\n" for line in _page(found)).encode())


def _page(found: list[dict[str, Any]]) -> Iterator[str]:
    if not found:
        yield "no question says anything of what users like"
    for number, one in enumerate(found, 1):
        known = "" if not one["configured"] else ", in persona.toml"
        yield f"{number}. {printable(one['text'])}  ({one['gain']:.3f} bits{known})"
        for answer in one["answers"]:
            yield f"   {answer['share']:>6.1%}  {printable(answer['answer'])}"
    suggested = [one["toml"] for one in found if not one["configured"]]
    if suggested:
        yield "\n# for persona.toml\n" + "\n\n".join(
            "\n".join(printable(line) for line in text.split("\n")) for text in suggested
        )
