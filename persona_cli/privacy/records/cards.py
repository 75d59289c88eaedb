"""Model cards: what each model in use was made of, how good it is, where its limits are, and what it tells of people.

After Mitchell and others, Model cards for model reporting (2019), with the statement on anonymity that EDPB Opinion
28/2024 asks for: a model made from personal data is anonymous only if neither extracting data from it nor querying it
would insignificantly likely give personal data, which has to be shown case by case.
"""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

from persona_cli.errors import PersonaError
from persona_cli.evaluation import kept
from persona_cli.evaluation.document import FOLDER
from persona_cli.models.kinds import ALL_BUILT_IN, distribution_of
from persona_cli.models.registry import latest_or_none
from persona_cli.models.stored import load_items
from persona_cli.reports import words
from persona_cli.workspace import artifacts
from persona_cli.workspace.home import Home

Doc = dict[str, Any]
SHOWN = ("ndcg", "recall", "hit_rate", "map", "coverage", "novelty")
_NOT_ANONYMOUS = (
    "Not anonymous. The model was made from personal data, and nothing here shows that no personal data can be got out "
    "of it; so it is to be protected, and handed on, as personal data is."
)
_DIFFERENCE = (
    "Who has two versions of it, one from before an erasure and one from after, can tell from the difference what the "
    "erased person had done; never hand both to the same recipient."
)


def cards(home: Home, co_occurrences: Doc | None) -> list[Doc]:
    """A card of what is served, of every model inside it, and of the item sums; what is served comes first."""
    result = last_evaluation(home)
    made = []
    for reference, role in in_use(home):
        folder = home.path("models", reference)
        try:
            manifest = artifacts.read_manifest(folder)
        except PersonaError:
            continue
        made.append(_card(reference, role, folder, manifest, result, co_occurrences))
    return made


def in_use(home: Home) -> list[tuple[str, str]]:
    """`(layered/7, "served")`, then the models inside with their roles, then the newest item sums."""
    found: list[tuple[str, str]] = []
    serving = latest_or_none(home)
    waiting = [(serving, "served")] if serving else []
    while waiting:
        reference, role = waiting.pop(0)
        if reference in (known for known, _ in found):
            continue
        found.append((reference, role))
        manifest_file = home.path("models", reference, artifacts.MANIFEST)
        if manifest_file.is_file():
            parts = artifacts.read_manifest(manifest_file.parent).get("parts", {})
            waiting += [(part, f"{name} part of {reference}") for name, part in sorted(parts.items())]
    sums = home.path("models", "gram")
    versions = [int(path.name) for path in sums.iterdir() if path.name.isdecimal()] if sums.is_dir() else []
    return [*found, *([(f"gram/{max(versions)}", "item sums, from which models are computed")] if versions else [])]


def last_evaluation(home: Home) -> Doc | None:
    """The result of the newest evaluation that is kept; None without one, or where it cannot be read."""
    for run in kept.names(home):
        try:
            found: Doc = json.loads(home.path(FOLDER, run, "result.json").read_bytes())
            return found if {"models", "k", "split"} <= found.keys() else None
        except (OSError, ValueError):
            continue
    return None


def _card(
    reference: str, role: str, folder: Path, manifest: Doc, result: Doc | None, co_occurrences: Doc | None
) -> Doc:
    name = reference.partition("/")[0]
    entry = _entry(result, reference)
    return {
        "model": reference,
        "role": role,
        "what": _about(name),
        "made_by": distribution_of(name) or "persona",
        "trained_until": manifest.get("trained_until"),
        "as_of": manifest.get("as_of"),
        "users": manifest.get("users"),
        "events": manifest.get("events"),
        "items": len(load_items(folder)) if (folder / "items.parquet").is_file() else manifest.get("items"),
        "exact": manifest.get("exact", name == "gram"),
        "settings": manifest.get("settings", {}),
        "chosen": manifest.get("chosen", []),
        "parts": manifest.get("parts", {}),
        "quality": _quality(result, entry) or _choice(manifest),
        "limits": _limits(manifest, result, entry, role),
        "privacy": _privacy(name, manifest, co_occurrences),
    }


def _about(name: str) -> str:
    """The first sentence about the model's module."""
    if name == "gram":
        return "Sums over users: which items go together, and what each user has put into that"
    if name not in ALL_BUILT_IN:
        return "A model of another distribution"
    module = import_module(f"persona_cli.models.{ALL_BUILT_IN[name].partition(':')[0]}")
    return (module.__doc__ or "").strip().partition("\n")[0].rstrip(".")


def _entry(result: Doc | None, reference: str) -> Doc | None:
    """What the evaluation says of this very version."""
    models = result["models"] if result else ()
    return next((entry for entry in models if entry.get("version") == reference), None)


def _quality(result: Doc | None, entry: Doc | None) -> Doc | None:
    if result is None or entry is None:
        return None
    k = max(result["k"])
    metrics = {f"{name}@{k}": entry["metrics"].get(f"{name}@{k}") for name in SHOWN}
    popular = next((one for one in result["models"] if one["model"] == "popular"), entry)
    return {
        "from": f"evaluation {result['run']}: {result['split']['headline']}",
        "users": result["users"],
        "metrics": {name: one for name, one in metrics.items() if one is not None},
        "popular": {name: popular["metrics"].get(name) for name in metrics} if popular is not entry else {},
    }


def _choice(manifest: Doc) -> Doc | None:
    """The figures of the comparison in which it was chosen, where no evaluation has any."""
    choice = manifest.get("choice") or {}
    figure = (choice.get("figures") or {}).get(manifest.get("name"))
    if not figure or "metric" not in choice:
        return None
    return {
        "from": "the comparison in which it was chosen; such figures are a little too good",
        "users": choice.get("users"),
        "metrics": {choice["metric"]: figure},
        "popular": {choice["metric"]: choice["figures"].get("popular")},
    }


def _limits(manifest: Doc, result: Doc | None, entry: Doc | None, role: str) -> list[str]:
    found = []
    if role == "served" and entry is None:
        found.append("no evaluation of this version is kept: persona evaluate")
    if result is not None and entry is not None:
        if entry.get("chosen_with_later_data"):
            found.append(
                "some of its settings were chosen with data from after the cut, so the figures are a little too good"
            )
        if entry.get("within_noise_of"):
            found.append(f"not told apart from {', '.join(_texts(entry['within_noise_of']))} by this evaluation")
        if (result.get("leakage") or {}).get("leaked"):
            found.append("the evaluation found that right answers had leaked into training: its figures do not hold")
        for one in (result.get("served_worse") or ()) if role == "served" else ():
            metric = words.leading(result)
            found.append(
                f"serves users with {one['segmentation']} = {one['group']} worse: {words.metric_name(metric)} "
                f"{one['value']['value']:.3f} against {one['rest']:.3f} of the others ({one['users']:,} users)"
            )
    if manifest.get("exact") is False:
        found.append("learned as a whole: after an erasure it is trained again rather than changed")
    if (users := manifest.get("users")) is not None and users < 1000:
        found.append(f"made from {users:,} users, which is few")
    return found


def _texts(value: Any) -> list[str]:
    return [str(value)] if isinstance(value, str) else [str(one) for one in value]


def _privacy(name: str, manifest: Doc, co_occurrences: Doc | None) -> list[str]:
    if name == "gram":
        found = ["Personal data: it holds a row for each user, under the user's id, so that it can be taken out again."]
    else:
        found = [_NOT_ANONYMOUS]
    if manifest.get("parts") and not manifest.get("files"):
        return [*found, "What it was made of is in its parts."]
    if co_occurrences is not None and co_occurrences["pairs"] and name != "popular":
        alone, pairs = co_occurrences["by_at_most"][0]["pairs"], co_occurrences["pairs"]
        found.append(
            f"Of the pairs of items that the same people have, {100 * alone / pairs:.1f} % are of a single person "
            f"({alone:,} of {pairs:,}, by the newest item sums)."
        )
    return [*found, _DIFFERENCE]
