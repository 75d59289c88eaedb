"""Settings: flag > environment (`PERSONA_INGEST_ASSUME_TZ`) > persona.toml > default, each value with its origin.

Nothing is ignored: an unknown key, section or variable, a wrong type and a value out of range are all `BadSettings`,
naming the place, the value seen and what was expected. A missing key has its default. Models of other distributions
count by their entry points (group `persona.models`), without importing any.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from persona_cli.errors import BadSettings, nearest
from persona_cli.workspace.declarations import BY_KEY, SETTINGS
from persona_cli.workspace.setting import Setting, checked, seconds, table_entry

GROUP = "persona.models"


@cache
def plugin_models() -> dict[str, tuple[EntryPoint, ...]]:
    """Name → who offers a model of that name, names sorted; more than one where two distributions do."""
    found: dict[str, tuple[EntryPoint, ...]] = {}
    for point in sorted(entry_points(group=GROUP), key=lambda point: (point.name, owner(point))):
        found[point.name] = (*found.get(point.name, ()), point)
    return found


def owner(point: EntryPoint) -> str:
    """The distribution that an entry point is of."""
    return point.dist.name if point.dist is not None else point.value


def plugin_of(key: str) -> str | None:
    """The plug-in whose setting `model.NAME.key` is; None where it is of none."""
    parts = key.split(".")
    return parts[1] if len(parts) == 3 and parts[0] == "model" and parts[2] and parts[1] in plugin_models() else None


SECTIONS = tuple(dict.fromkeys(setting.key if setting.is_table else setting.section for setting in SETTINGS))
# Kinds of tables whose entries are single values; the entries of all others are sections.
_BY_ENTRY = ("strengths", "counts", "coarsening")
# Variables with a meaning of their own, not settings.
OTHER_VARIABLES = ("PERSONA_WORKSPACE", "PERSONA_NO_PROGRESS", "PERSONA_DEBUG")


@dataclass(frozen=True)
class Fitted:
    """What was learned of signals from the data of the workspace: it stands beside what people declare."""

    folder: Path
    digest: str
    """sha256 of all that strengths follow from."""


@dataclass(frozen=True)
class Settings:
    """All settings with the place each value came from. Frozen: `with_flags` answers a new one."""

    values: Mapping[str, Any]
    origins: Mapping[str, str]
    fitted: Fitted | None = None
    """What `persona signals fit` found last; None before it has."""

    def _of(self, key: str, *kinds: str) -> Any:
        if BY_KEY[key].kind not in kinds:
            raise TypeError(f"{key} is of kind {BY_KEY[key].kind}")
        return self.values[key]

    def text(self, key: str) -> str:
        return str(self._of(key, "text", "zone", "duration"))

    def number(self, key: str) -> float:
        value = self._of(key, "number", "whole")
        if isinstance(value, str):
            raise TypeError(f"{key} is {value!r}: ask number_or_word")
        return float(value)

    def number_or_word(self, key: str) -> float | str:
        """A number, or a word such as "auto" where the setting allows one."""
        value = self._of(key, "number", "whole")
        return value if isinstance(value, str) else float(value)

    def whole(self, key: str) -> int:
        return int(self._of(key, "whole"))

    def flag(self, key: str) -> bool:
        return bool(self._of(key, "flag"))

    def texts(self, key: str) -> tuple[str, ...]:
        return tuple(self._of(key, "texts"))

    def wholes(self, key: str) -> tuple[int, ...]:
        return tuple(self._of(key, "wholes"))

    def seconds(self, key: str) -> float:
        return seconds(self._of(key, "duration"))

    def section(self, name: str) -> dict[str, Any]:
        """What is given in the section of a plug-in, such as model.mine, by key; its defaults are its own affair."""
        return {key[len(name) + 1 :]: value for key, value in self.values.items() if key.startswith(f"{name}.")}

    def table(self, key: str) -> dict[str, float | str]:
        """A free table, in the order of the file."""
        return dict(self._of(key, "strengths", "counts", "coarsening"))

    def origin(self, key: str) -> str:
        """`default`, `persona.toml`, `environment` or `flag`."""
        return self.origins[key]

    def with_flags(self, given: Mapping[str, Any]) -> Settings:
        """With values from the command line: typed, or text as in `--set key=value`.

        `signals.strengths.click` changes one entry of a free table.
        """
        values, origins = dict(self.values), dict(self.origins)
        for key, value in given.items():
            _put(values, key, value, f"--set {key}")
            origins[_setting_of(key).key] = "flag"
        return Settings(values, origins, self.fitted)

    def digest(self, prefixes: Iterable[str] = ("",)) -> str:
        """sha256 over the values of all keys that start with one of `prefixes`; the order of a free table counts."""
        wanted = tuple(prefixes)
        chosen = [
            [key, list(value.items()) if isinstance(value, Mapping) else value]
            for key, value in sorted(self.values.items())
            if key.startswith(wanted)
        ]
        return hashlib.sha256(json.dumps(chosen, ensure_ascii=False).encode()).hexdigest()


def load(path: Path | None, environ: Mapping[str, str]) -> Settings:
    """Defaults, then the file (if there is one), then the environment."""
    values = {setting.key: checked(setting, setting.default) for setting in SETTINGS}
    origins = dict.fromkeys(values, "default")
    for key, value in _entries(_read(path), path.name) if path is not None and path.exists() else ():
        _put(values, key, value, f"{path}: {key}")
        origins[key] = "persona.toml"
    variables = {variable_name(key): key for key in BY_KEY}
    for name, text in sorted(environ.items()):
        if name in variables:
            _put(values, variables[name], text, name)
            origins[variables[name]] = "environment"
        elif (plugged := _plugin_key(name)) is not None:
            _put(values, plugged, text, name)
            origins[plugged] = "environment"
        elif _looks_like_setting(name):
            raise BadSettings(f"the environment variable {name} names no setting{nearest(name, variables)}", _HINT)
    return Settings(values, origins)


_HINT = "persona config show --origin"


def variable_name(key: str) -> str:
    """`ingest.assume_tz` → `PERSONA_INGEST_ASSUME_TZ`."""
    return "PERSONA_" + re.sub(r"[^A-Z0-9]", "_", key.upper())


def is_setting(key: str) -> bool:
    """Whether the key is declared, an entry of a table that is, or of a model that is installed beside persona."""
    return _declared(key) is not None or (plugin_of(key) is not None and key.rpartition(".")[0] not in SECTIONS)


def _plugin_key(variable: str) -> str | None:
    """`PERSONA_MODEL_MINE_DECAY` → `model.mine.decay`, where a plug-in is called mine."""
    if not variable.startswith("PERSONA_MODEL_"):
        return None
    sections = {
        variable_name(f"model.{name}") + "_": name for name in plugin_models() if f"model.{name}" not in SECTIONS
    }
    return next(
        (
            f"model.{name}.{variable.removeprefix(start).lower()}"
            for start, name in sections.items()
            if variable.startswith(start)
        ),
        None,
    )


def _looks_like_setting(name: str) -> bool:
    # Others may own variables that start with PERSONA_; only those under one of our sections can be a misspelt setting.
    return name not in OTHER_VARIABLES and any(name.startswith(variable_name(s) + "_") for s in SECTIONS)


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadSettings(f"{path} is not valid TOML: {error}", _HINT) from error


def _entries(tree: Mapping[str, Any], file: str, above: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) for every declared key in a parsed file; anything else is an error."""
    for name, value in tree.items():
        key = f"{above}.{name}" if above else name
        if key in BY_KEY:
            yield key, value
        elif above == "model" and key not in SECTIONS and name in plugin_models() and isinstance(value, Mapping):
            yield from ((f"{key}.{inner}", given) for inner, given in value.items())
        elif any(section == key or section.startswith(key + ".") for section in SECTIONS):
            if not isinstance(value, Mapping):
                raise BadSettings(f"{file}: {key} is a section, written [{key}], but is {_shown(value)} here", _HINT)
            yield from _entries(value, file, key)
        else:
            raise BadSettings(f"{file}: {key} is not a setting{_similar(key)}", _HINT)


def _similar(key: str) -> str:
    section = key.rpartition(".")[0]
    known = dict.fromkeys((*SECTIONS, *BY_KEY, *(f"model.{name}" for name in plugin_models())))
    siblings = [name for name in known if section and name.startswith(section + ".")]
    return nearest(key, siblings or known)


def _declared(key: str) -> Setting | None:
    """The declaration that `key` names: by its own key, or as an entry of a free table."""
    tables = (setting for setting in SETTINGS if setting.is_table and key.startswith(setting.key + "."))
    return BY_KEY.get(key) or next(tables, None)


def _setting_of(key: str) -> Setting:
    """The setting that `key` names, declared or of a plug-in; BadSettings where it names none."""
    if (setting := _declared(key)) is not None:
        return setting
    if is_setting(key):
        return Setting(key, "any", None, "")
    raise BadSettings(f"{key} is not a setting{_similar(key)}", _HINT)


def _put(values: dict[str, Any], key: str, value: Any, place: str) -> None:
    setting = _setting_of(key)
    if isinstance(value, str) and setting.kind not in ("text", "zone", "duration"):
        value = _from_text(value)
    try:
        if key == setting.key:
            values[key] = checked(setting, value)
        else:
            entry = key[len(setting.key) + 1 :]
            if setting.kind not in _BY_ENTRY and ("." in entry or not isinstance(value, Mapping)):
                section = f"[{setting.key}.{entry.partition('.')[0]}]"
                raise BadSettings(f"{place}: {section} is a section, which is written whole, into persona.toml", _HINT)
            values[setting.key] = {**values[setting.key], entry: table_entry(setting, entry, value)}
    except ValueError as error:
        raise BadSettings(f"{place} is {_shown(value)}; expected {error}", _HINT) from error


def _from_text(text: str) -> Any:
    """A flag's or variable's text as TOML reads it (`0.3`, `true`, `[10, 20]`), else as `a,b` or the text itself."""
    if "\n" in text:
        return text
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        pass
    if "," not in text:
        return text
    parts = [_from_text(part.strip()) for part in text.split(",")]
    return parts if all(isinstance(part, str | int) for part in parts) else text


def _shown(value: Any) -> str:
    shown = json.dumps(value, ensure_ascii=False, default=str)
    return shown if len(shown) <= 80 else shown[:77] + "…"


def render_default() -> str:
    """persona.toml with every setting at its default, each under a comment."""
    lines = ["# Settings of this persona workspace. Precedence: flag > environment (PERSONA_…) > this file > default."]
    section = ""
    for setting in SETTINGS:
        if not setting.is_table and setting.section != section:
            section = setting.section
            lines += ["", f"[{section}]"]
        if setting.is_table:
            section = setting.key
            lines += [""]
        lines += [f"# {line}" for line in setting.comment.split("\n")]
        if setting.words and setting.kind == "text":
            lines[-1] += f" One of {', '.join(setting.words)}."
        if setting.is_table:
            lines += render_table(setting.key, setting.default)
        else:
            lines.append(f"{setting.name} = {_toml(setting.default)}")
    return "\n".join(lines) + "\n"


def render_table(key: str, entries: Mapping[str, Any]) -> list[str]:
    """A free table as lines of persona.toml."""
    return [f"[{key}]", *(f"{_toml_key(name)} = {_toml(value)}" for name, value in entries.items())]


def _toml_key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _toml(name)


def _toml(value: Any) -> str:
    """A TOML literal; JSON's strings, numbers, booleans and lists are TOML's."""
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)
