"""SQL that reads JSON lines and says of each row whether it may be trusted.

Two strengths of the same query, both conservative: what they do not vouch for (`ok` false) goes to the next reader,
at last to `judge`, which is the definition. Trust is argued, never sampled:

*exact* reads only keys named in `tree` and demands that the lengths of the values it read, their keys and punctuation
add up to the length of the line. Then nothing else is on the line: no unknown or repeated key, no white space, no
trailing comma. A backslash in the line, or a number whose text DuckDB may have rewritten (`1e5` → `100000.0`), is not
vouched for.

*general* reads every field, asks for the keys of each object, builds `props` from those that are unknown, and leaves
out what DuckDB's parser takes though JSON forbids it (NaN, Infinity, trailing commas).
"""

from __future__ import annotations

import json
from typing import Union

from persona_cli.events.mapping import Mapping, Path
from persona_cli.events.schema import EVENTS, HASH_VERSION, ID_FIELDS, MAX_ID_BYTES, Field

Tree = dict[str, Union[str, "Tree"]]

_DATE = "[0-9]{4}-[0-9]{2}-[0-9]{2}[T ]([01][0-9]|2[0-3]):[0-9]{2}:[0-9]{2}([.][0-9]{1,6})?"
_BLANK_OR_CONTROL = r"'[\x00-\x1f]'"


def tree_of(mapping: Mapping, only: set[Path] | None = None) -> Tree:
    """Nested keys → canonical names; with `only`, just the paths that were seen in the input."""
    tree: Tree = {}
    for name, path in mapping.paths.items():
        if only is not None and path not in only:
            continue
        place = tree
        for key in path[:-1]:
            below = place.setdefault(key, {})
            if isinstance(below, str):
                break
            place = below
        else:
            place.setdefault(path[-1], name)
    return tree


def parents_of(tree: Tree, prefix: Path = ()) -> list[Path]:
    """Paths of the nested objects that hold fields, outermost first."""
    found: list[Path] = []
    for key, below in tree.items():
        if isinstance(below, dict):
            found += [(*prefix, key), *parents_of(below, (*prefix, key))]
    return found


def exact(mapping: Mapping, tree: Tree, *, gap: int, newline: int, latest_us: int) -> str:
    """Query over table `lines(line)`; `gap` 1 when keys and commas are followed by a space, `newline` its bytes."""
    leaves = _leaves(tree)
    length = f"{_length(tree, '', gap)} + {newline}"
    checks = [f"strlen(line) = {length}", f"strlen(line) <= {MAX_ID_BYTES}", "not contains(line, '\\')"]
    return _query(mapping, tree, leaves, checks, latest_us, gap=gap, props="cast(null as varchar)")


def general(mapping: Mapping, latest_us: int) -> str:
    """Query over table `lines(line)` for any valid object; also gives `props`."""
    tree = tree_of(mapping)
    checks = [
        r"not regexp_matches(line, '[:,\[]\s*-?(?i:nan|inf)')",
        r"not regexp_matches(line, ',\s*[}\]]')",
        "json_type(doc) = 'OBJECT'",
        "len(json_keys(doc)) = len(list_distinct(json_keys(doc)))",
        "coalesce(json_type(doc, '$.props'), 'OBJECT') in ('OBJECT', 'NULL')",
    ]
    for path in parents_of(tree):
        place = _pointer(path)
        checks.append(f"coalesce(json_type(doc, {place}), 'OBJECT') in ('OBJECT', 'NULL')")
        keys = f"json_keys(doc, {place})"
        checks.append(f"coalesce(len({keys}) = len(list_distinct({keys})), true)")
    return _query(mapping, tree, _leaves(tree), checks, latest_us, gap=None, props=props(tree))


def props(tree: Tree, doc: str = "doc") -> str:
    """SQL for what is left of an object when the known keys are taken out: JSON text, null when nothing is left."""
    rest = f"json_merge_patch({doc}, {_removal(tree, (), doc)})"
    nested = f"json_extract({doc}, '$.props')"
    merged = f"case when json_type({nested}) = 'OBJECT' then json_merge_patch({nested}, {rest}) else {rest} end"
    return f"nullif(cast({merged} as varchar), '{{}}')"


def finish(rows: str) -> str:
    """SQL over judged rows (a table or sub-query) that adds event_id, `given` and the 64-bit `key` of the id.

    event_id when absent: md5 of hash version, person, type, target, item, microseconds, value and session, joined by
    the unit separator, nulls as empty text. The occurrence number joins later, only for identical rows of one file.
    """
    text = (
        f"concat_ws(chr(31), '{HASH_VERSION}', coalesce(user_id, anon_id), event_type, coalesce(target, ''), "
        "coalesce(item_id, ''), cast(epoch_us(timestamp) as varchar), coalesce(cast(value as varchar), ''), "
        "coalesce(session_id, ''))"
    )
    return (
        "select * replace (id as event_id), hash(id) as key, cast(year(timestamp) * 12 + month(timestamp) - 1 as int) "
        "as month from (select *, event_id is not null as given, "
        f"coalesce(event_id, md5({text})) as id from ({rows})) rows".replace("select * replace (id", "select * exclude (id) replace (id")
    )


def _query(
    mapping: Mapping, tree: Tree, leaves: dict[str, tuple[str, str]], checks: list[str], latest_us: int,
    *, gap: int | None, props: str,
) -> str:  # fmt: skip
    """The three layers: parse once, take the text of each leaf, then type and check."""
    texts, columns, oks = [], [], list(checks)
    zoneless = "false"
    for spec in EVENTS:
        name = spec.name
        if name in mapping.constants:
            columns.append(f"{_quote(mapping.constants[name])} as {name}")
        elif name in leaves:
            leaf, key = leaves[name]
            texts.append(f"cast({leaf} as varchar) as {name}_j")
            column, check = _typed(spec, key, exact_gap=gap)
            texts.append(f"{_inner(name, gap)} as {name}_s")
            columns.append(f"{column} as {name}")
            oks.append(check)
            if name == "timestamp":
                zoneless = "starts_with(timestamp_j, '\"') and strlen(timestamp_s) <= 26 and timestamp_s not like '%Z'"
        else:
            columns.append(f"cast(null as {_SQL_TYPES[spec.type]}) as {name}")
    who = [name for name in ("user_id", "anon_id") if name in leaves or name in mapping.constants]
    oks.append("(" + " or ".join(f"{name} is not null" for name in who) + ")")
    oks += ["event_type is not null", "timestamp is not null"]
    oks.append("epoch_us(timestamp) between 631152000000000 and " + str(latest_us))
    parsed = f"select line, case when json_valid(line) then line end as valid, {_transform(tree)} as r from lines"
    if gap is None:
        parsed = parsed.replace("select line,", "select line, case when json_valid(line) then cast(line as json) end as doc,")
    doc = ", doc" if gap is None else ""
    layer1 = f"select line{doc}, {', '.join(texts[0::2])} from ({parsed})"
    layer2 = f"select *, {', '.join(texts[1::2])} from ({layer1})"
    ordered = {column.rsplit(" as ", 1)[1]: column for column in columns}
    typed = ", ".join(ordered[spec.name] for spec in EVENTS)
    layer3 = f"select *, {zoneless} as zoneless, " + ", ".join(
        f"{column.rsplit(' as ', 1)[0]} as c_{name}" for name, column in ordered.items()
    ) + f" from ({layer2})"
    del typed
    final = ", ".join(f"c_{spec.name} as {spec.name}" for spec in EVENTS)
    ok = " and ".join(f"coalesce({check}, false)" for check in oks)
    for spec in EVENTS:
        pass
    return f"select {final}, {props} as props, zoneless, {_prefixed(ok)} as ok from ({layer3})"
