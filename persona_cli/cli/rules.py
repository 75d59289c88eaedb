"""Commands: rules: what shapes lists beside the model."""

from __future__ import annotations

from typing import Annotated

import typer

from persona_cli.cli.common import JsonOption, command, emit_json, group, locate_home, printable, say
from persona_cli.errors import CheckFailed


def register(app: typer.Typer) -> None:
    rules = group(app, "rules", "Rules over lists: quotas, pins, exclusions, exploration.", panel="Serve")
    command(rules, check)


def check(
    top: Annotated[
        int | None, typer.Option("--top", "-k", metavar="N", min=1, help="Items a list; default: recommend.top.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Look for contradictions in [rules] of persona.toml, before any list is made.

    The rules that hold on each content surface of persona.toml are looked at as well, for lists of its length.
    Pins of what is excluded, more pins than a list has entries, quotas and shares that the catalogue cannot fill,
    columns that are not there, conditions that are true of nothing: one sentence each, and exit code 10. Lists are made
    all the same: what cannot be met gives way in the order of rules.give_way, and the list says so.

    Examples:
    persona rules check
    persona rules check --top 10 --json
    """
    from persona_cli.serving.rule_checks import contradictions

    found = contradictions(locate_home(), top)
    if as_json:
        emit_json(found)
    else:
        for sentence in found:
            typer.echo(printable(sentence))
    if found:
        many = len(found) > 1
        raise CheckFailed(
            f"{len(found)} contradiction{'s' * many} in the rules", "change [rules] in persona.toml; docs/rules.md"
        )
    say("no contradiction in the rules")
