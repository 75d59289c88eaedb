"""Input of other systems → batches: each record through its dialect, what comes out judged one by one.

`read` counts records after they are taken apart: a batch of ten counts ten, an order of three products three, and
`read` = rows + rejects + dropped. What is rejected keeps the line and offset of its line; its bytes are the line, or
the JSON text of the one record where a line holds several or means nothing without the header of its table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any

import pyarrow as pa

from persona_cli.events import tabular
from persona_cli.events.batch import Batch, Reject, Singly
from persona_cli.events.dialects.dialect import Choice, Dialect, Dropped, Record, Rejected, value_at
from persona_cli.events.judge import Rules, json_text, judge, parse_json
from persona_cli.events.opening import Block, Damage, Format, too_long
from persona_cli.events.parquet import NO_OFFSET
from persona_cli.events.scan import Positions
from persona_cli.events.schema import FIELDS, KEY, MAX_RAW_BYTES, Kind, Mapping, Path, json_type, parse_flags

LOOKED_AT = 100  # records that decide which dialect a file is of
ENOUGH = 0.9  # of these, where some are damaged
_SEPARATORS: dict[Format, str] = {"csv": ",", "tsv": "\t"}


@dataclass(frozen=True)
class Translator:
    """A dialect, with what --map says beside it: paths in the records of the input, and constants."""

    dialect: Dialect
    paths: dict[str, Path] = field(default_factory=dict)
    constants: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, dialect: Dialect, flags: Sequence[str]) -> Translator:
        return cls(dialect, *parse_flags(dialect.kind, flags))

    @property
    def mapping(self) -> Mapping:
        """Canonical names as they are: what the dialect gives."""
        return Mapping(self.dialect.kind, {spec.name: (spec.name,) for spec in FIELDS[self.dialect.kind]})

    def parts(self, whole: Any) -> list[Any]:
        """The records of one line: of an array, of a batch object, or the one that it is."""
        inner = whole if isinstance(whole, list) else [whole]
        unpack = self.dialect.unpack
        return list(chain.from_iterable(unpack(part) if isinstance(part, dict) else [part] for part in inner))

    def natives(self, part: Any) -> list[Record]:
        """The native records that one record stands for; raises Rejected and Dropped."""
        if not isinstance(part, dict):
            raise Rejected(f"expected a JSON object, got {json_type(part)}")
        given = self._given(part)
        found = self.dialect.records(self.overridden(part))
        if not found:
            raise Dropped("nothing to keep")
        return [record | given for record in found] if given else found

    def overridden(self, part: Record) -> Record:
        """The record with what --map says where the dialect looks for it, so that it does not miss it."""
        for name, value in self._given(part).items():
            part = _with(part, self.dialect.sources.get(name, ()), value)
        return part

    def _given(self, part: Record) -> Record:
        return {name: value_at(part, ".".join(path)) for name, path in self.paths.items()} | self.constants


@dataclass
class Translated:
    """Records that are judged as they come out of a dialect."""

    translator: Translator
    singly: Singly
    whole_lines: bool = True  # a line says all of itself
    read: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    about: dict[Kind, list[Record]] = field(default_factory=dict)

    def add(self, line: int, offset: int, raw: bytes | Callable[[], bytes], record: Callable[[], Any]) -> None:
        """Judge what one line (or row) holds; `record` gives it or raises Rejected, `raw` is its text."""
        try:
            whole = record()
            parts = _sheltered(self.translator, self.translator.parts, whole)
        except Rejected as rejected:
            self._reject(line, offset, raw, rejected)
            return
        if not parts:
            self._drop("an empty batch")
        alone = self.whole_lines and len(parts) == 1 and parts[0] is whole
        for part in parts:
            text = raw if alone else partial(_json_bytes, part)
            try:
                natives = _sheltered(self.translator, self.translator.natives, part)
            except Dropped as dropped:
                self._drop(str(dropped))
            except Rejected as rejected:
                self._reject(line, offset, text, rejected)
            else:
                self.read += len(natives)
                before = len(self.singly.rows)
                for native in natives:
                    self.singly.add(line, offset, text, partial(dict, native))
                if self.translator.dialect.attributes is not None and len(self.singly.rows) > before:
                    self._describe(line, part, self.translator.dialect.attributes)

    def _describe(self, line: int, part: Record, attributes: Callable[[Record], list[tuple[Kind, Record]]]) -> None:
        """Keep what an accepted record says about somebody; what cannot be read as its field goes to props."""
        try:
            found = _sheltered(self.translator, attributes, self.translator.overridden(part))
        except Rejected:
            return
        for kind, row in found:
            key = KEY[kind]
            plain = {name: value for name, value in row.items() if name not in (key, "valid_from", "props")}
            bare = {key: row.get(key), "valid_from": row.get("valid_from"), "props": plain | (row.get("props") or {})}
            for attempt in (row, bare):
                try:
                    judged = judge(attempt, self._rules(kind))
                except Rejected:
                    continue
                if judged["valid_from"] is not None:
                    self.about.setdefault(kind, []).append(judged | {"line": line})
                break

    def _rules(self, kind: Kind) -> Rules:
        rules = self.singly.rules
        return Rules(
            Mapping(kind, {spec.name: (spec.name,) for spec in FIELDS[kind]}), rules.latest_us, rules.assume_tz
        )

    def batch(self, many: pa.Table | None = None, lines: Positions | None = None) -> Batch:
        """With `many` rows that were read together (judged columns), and their line numbers."""
        batch = self.singly.batch(self.read + (0 if many is None else many.num_rows), many, lines)
        batch.dropped, batch.about = self.dropped, self.about
        return batch

    def _reject(self, line: int, offset: int, raw: bytes | Callable[[], bytes], rejected: Rejected) -> None:
        text = raw if isinstance(raw, bytes) else raw()
        self.singly.rejects.append(Reject(line, offset, str(rejected), text[:MAX_RAW_BYTES]))
        self.read += 1

    def _drop(self, reason: str) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + 1
        self.read += 1


def _with(record: Record, paths: Sequence[str], value: Any) -> Record:
    """A copy of the record in which `value` lies at the first of `paths` that is a place in it."""
    path = next((path for path in paths if "[]." not in path and not path.startswith("=")), None)
    if path is None or value is None:
        return record
    key, dot, rest = path.partition(".")
    inner = record.get(key)
    if dot and not isinstance(inner, dict | None):
        return record
    return record | {key: _with(inner or {}, (rest,), value) if dot else value}


def _sheltered(translator: Translator, step: Callable[[Any], list[Any]], given: Any) -> list[Any]:
    """One bad record may not end the run, whoever wrote the dialect."""
    try:
        return step(given)
    except (Rejected, Dropped):
        raise
    except Exception as error:
        raise Rejected(f"the dialect {translator.dialect.name} failed on it: {type(error).__name__}") from error


def _json_bytes(part: Any) -> bytes:
    return json_text(part).encode("utf-8", "replace")


def parse_line(raw: bytes, max_line: int) -> Any:
    """The JSON object or array of objects on a line; raises Rejected for anything else."""
    if len(raw) > max_line:
        raise Rejected(too_long(max_line))
    if raw.lstrip()[:1] == b"[":
        return parse_json(b'{"":%b}' % raw)[""]
    return parse_json(raw)


def read_json(block: Block, translator: Translator, max_line: int, rules: Rules) -> Batch:
    """The batch of a block of JSON lines."""
    found = Translated(translator, Singly(rules))
    offset = block.offset
    for number, raw in enumerate(block.data.split(b"\n")[:-1]):
        found.add(block.line + number, offset, raw, partial(parse_line, raw, max_line))
        offset += len(raw) + 1
    return found.batch()


def read_rows(rows: Sequence[tabular.Record], names: Sequence[str], translator: Translator, rules: Rules) -> Batch:
    """The batch of rows of a table of text."""
    found = Translated(translator, Singly(rules), whole_lines=False)
    for row in rows:
        found.add(row.line, row.offset, row.raw, partial(named, row.cells, names))
    return found.batch()


def read_block(
    block: Block, names: Sequence[str], separator: str, translator: Translator, max_line: int, rules: Rules
) -> Batch:
    """The batch of a block of a table with a header."""
    return read_rows(tabular.split(block, separator, max_line), names, translator, rules)


def read_headerless(block: Block, translator: Translator, max_line: int, rules: Rules) -> Batch:
    """The batch of a block of a table whose columns the dialect names; cells are cut at separators, quotes are text."""
    found = Translated(translator, Singly(rules))
    offset = block.offset
    for number, raw in enumerate(block.data.split(b"\n")[:-1]):
        found.add(block.line + number, offset, raw, partial(cells_of, raw, translator.dialect, max_line))
        offset += len(raw) + 1
    return found.batch()


def read_table(table: pa.Table, line: int, translator: Translator, rules: Rules) -> Batch:
    """The batch of a piece of Parquet whose first record has number `line`."""
    found = Translated(translator, Singly(rules), whole_lines=False)
    for number, record in enumerate(table.to_pylist()):
        found.add(line + number, NO_OFFSET, partial(_json_bytes, record), partial(dict, record))
    return found.batch()


def cells_of(raw: bytes, dialect: Dialect, max_line: int) -> Record:
    """The named cells of a line without header, empty ones None; raises Rejected."""
    if len(raw) > max_line:
        raise Rejected(too_long(max_line))
    try:
        text = raw.removesuffix(b"\r").decode(dialect.encoding)
    except UnicodeDecodeError:
        raise Rejected("not UTF-8" if dialect.encoding == "utf-8" else f"not {dialect.encoding}") from None
    if not text.strip():
        raise Rejected("blank line")
    separator = separator_of(dialect)
    return named(text.split(separator), dialect.columns)


def separator_of(dialect: Dialect) -> str:
    """What stands between the cells of a table without a header."""
    return dialect.separator or _SEPARATORS.get(dialect.formats[0], "\t")


def named(cells: Sequence[str] | str, names: Sequence[str]) -> Record:
    """Cells by column, empty ones None; raises Rejected for another number of them, or the reason that they are."""
    if isinstance(cells, str):
        raise Rejected(cells)
    if len(cells) != len(names):
        raise Rejected(f"expected {len(names)} columns, got {len(cells)}")
    return {name: cell or None for name, cell in zip(names, cells, strict=True)}


def of_lines(first: Block | Damage | None, format: Format, choice: Choice, max_line: int) -> Dialect | None:
    """The dialect of JSON lines or of a table without a header, by its first lines; None for what has a header."""
    json_like = not isinstance(first, Block) or first.data[:4096].lstrip()[:1] in (b"{", b"[")
    lines = (
        [raw for raw in first.data.split(b"\n", LOOKED_AT)[:LOOKED_AT] if raw.strip()]
        if isinstance(first, Block)
        else []
    )
    if json_like and format == "jsonl":
        found = (_tried(parse_line, raw, max_line) for raw in lines)
        return of_records(choice, [part for one in found for part in (one if isinstance(one, list) else [one])])
    fitting: list[tuple[int, Dialect]] = []
    for dialect in choice.dialects:
        if dialect.columns:
            rows = [_tried(cells_of, raw, dialect, max_line) for raw in lines]
            # A first line unlike the others names columns: nine in ten are not enough to call it damaged.
            if recognised(dialect, rows) and (choice.sure or recognised(dialect, rows[:1])):
                return dialect
            fitting.append((sum(row is not None for row in rows), dialect))
    if choice.sure and fitting:
        cut, best = max(fitting, key=lambda one: one[0])
        if cut or len(fitting) == len(choice.dialects):
            return best
    return of_records(choice, []) if choice.sure and format == "jsonl" else None


def of_rows(
    first: Block | Damage | None, names: Sequence[str], separator: str, choice: Choice, max_line: int
) -> Dialect | None:
    """The dialect of a table with the header `names`, by its first rows."""
    rows: list[Any] = []
    if isinstance(first, Block):
        head = b"\n".join(first.data.split(b"\n", 2 * LOOKED_AT)[: 2 * LOOKED_AT]) + b"\n"
        for row in tabular.records_of(Block(head, first.line, first.offset), separator, max_line, last=True):
            if isinstance(row, tabular.Record) and isinstance(row.cells, list) and len(row.cells) == len(names):
                rows.append(named(row.cells, names))
            if len(rows) == LOOKED_AT:
                break
    return of_records(choice, rows)


def of_records(choice: Choice, records: Sequence[Any]) -> Dialect | None:
    """The dialect with names of its own in each record that knows these first ones, else the one that is named."""
    dialects = [dialect for dialect in choice.dialects if not dialect.columns]
    if not choice.sure and records and all(map(_native, records)):
        return None
    for dialect in dialects:
        if recognised(dialect, records):
            return dialect
    return dialects[0] if choice.sure and dialects else None


def recognised(dialect: Dialect, records: Sequence[Any]) -> bool:
    """Whether a dialect knows these records; None stands for a line that could not be read.

    A few damaged ones do not hide what a file is: nine in ten that the dialect knows by themselves are enough.
    """
    try:
        readable = [record for record in records if isinstance(record, dict)]
        inner = [part for record in readable for part in dialect.unpack(record)][:LOOKED_AT]
        parts = [part for part in inner if isinstance(part, dict)]
        if not parts or len(readable) < ENOUGH * len(records) or len(parts) < ENOUGH * len(inner):
            return False
        return bool(dialect.recognises(parts)) or sum(map(partial(_knows, dialect), parts)) >= ENOUGH * len(parts)
    except Exception:  # keys or types that it does not expect: not of this dialect
        return False


def _knows(dialect: Dialect, record: Record) -> bool:
    try:
        return bool(dialect.recognises([record]))
    except Exception:
        return False


def _native(record: Any) -> bool:
    if not isinstance(record, dict):
        return False
    return "event_type" in record and "timestamp" in record and ("user_id" in record or "anon_id" in record)


def _tried(step: Callable[..., Any], *given: Any) -> Any:
    try:
        return step(*given)
    except Rejected:
        return None


def unique_names(names: Sequence[str]) -> tuple[str, ...]:
    """Names of columns in which the second `a` is called `a_2`."""
    seen: dict[str, int] = {}
    found = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        found.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return tuple(found)
