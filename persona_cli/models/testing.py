"""The contract of models as checks, for authors of plug-ins and for persona's own models.

    from persona_cli.models.testing import CHECKS

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    def test_contract(check):
        check(Mine)

Each check is given a factory of an unfitted model, which it calls without an argument: the class itself where all its
settings have defaults. It raises AssertionError with a sentence where the model breaks the contract, and
`unittest.SkipTest` (pytest skips the test) where the contract asks nothing of such a model. Nothing here needs pytest.

What models are tried on is the checkerboard of `models.checkerboard`.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from unittest import SkipTest

import numpy as np
import polars as pl
from scipy import sparse
from threadpoolctl import threadpool_limits

from persona_cli.errors import BadData
from persona_cli.models import kinds
from persona_cli.models.base import Floats, Histories, Model, parts_of
from persona_cli.models.checkerboard import (
    AS_OF,
    CHECKERBOARD,
    OTHER,
    SETTINGS,
    Audience,
    N,
    asked,
    at,
    catalogue_of,
    events_of,
    nobody,
    training,
)
from persona_cli.models.layered import Layered
from persona_cli.models.preparing import prepare
from persona_cli.models.ranking import rank
from persona_cli.workspace.settings import Settings

Factory = Callable[[], Model]
_PARTS = ("name", "from_settings", "fit", "settings", "scores", "save", "load")
_MAGIC = {".npy": b"\x93NUMPY", ".parquet": b"PAR1", ".json": b""}


def is_a_model(make: Factory) -> None:
    """It has a name, is made by settings, and `fit` answers the model itself."""
    model = make()
    kind: Any = type(model)
    missing = [part for part in _PARTS if not hasattr(kind, part)]
    _ensure(not missing, f"{kind.__name__} has no {', '.join(missing)}")
    _ensure(isinstance(kind.name, str) and kind.name.isidentifier(), f"its name is {kind.name!r}; expected a word")
    _ensure(model.fit(training(CHECKERBOARD)) is model, "fit answers something else than the model")
    _ensure(isinstance(model.exact, bool), "`exact` is neither True nor False after fit")


def known_answer(make: Factory) -> None:
    """On the checkerboard everybody gets the one item of their kind that is missing."""
    model = make().fit(training(CHECKERBOARD))
    who = asked(model)
    scores = np.array(model.scores(who))
    scores[who.rows.toarray() > 0] = -np.inf
    found = model.items.gather(scores.argmax(axis=1)).to_list()
    # Nobody has had the last item, so only its description tells for whom it is.
    wrong = [u for u in range(N) if found[u] != f"i{u:02d}" and not (found[u] == f"i{N:02d}" and u % 2 == N % 2)]
    _ensure(not wrong, f"u{wrong[0]:02d} gets {found[wrong[0]]} first and not i{wrong[0]:02d}" if wrong else "")


def scores_are_single_precision_and_finite(make: Factory) -> None:
    """float32 of shape (users, items), no NaN, no infinity, for users with and without a history, and for no user."""
    model = make().fit(training(CHECKERBOARD))
    who = asked(model)
    for asked_of in (who, nobody(who), who.block(0, 0)):
        _finite(model, asked_of)


def what_is_given_and_answered_stays(make: Factory) -> None:
    """Neither `fit` nor `scores` writes into what it is given, and who writes into scores changes nothing else."""
    given = training(CHECKERBOARD)
    before = _content(given.interactions.strengths, given.gram.cells, given.gram.users, given.interactions.events)
    model = make().fit(given)
    after = _content(given.interactions.strengths, given.gram.cells, given.gram.users, given.interactions.events)
    _ensure(before == after, "fit changed the training that it was given")
    who = asked(model)
    asked_of = _content(who.rows, who.events)
    scores = model.scores(who)
    _ensure(_content(who.rows, who.events) == asked_of, "scores changed the histories that it was given")
    if scores.flags.writeable:
        kept = scores[1:].copy()
        scores[0] = -np.inf
        _ensure(np.array_equal(scores[1:], kept), "two users share one row of scores")
        _finite(model, who)


def vocabulary_is_sorted(make: Factory) -> None:
    """`items` are distinct ids, sorted, of items that were learned from or are in the catalogue."""
    model = make().fit(training(CHECKERBOARD))
    ids = model.items.to_list()
    _ensure(model.items.dtype == pl.String and bool(ids), "items are not a Series of item_id")
    _ensure(ids == sorted(set(ids)), "items are not sorted, or hold an item twice")
    _ensure(set(ids) <= {f"i{i:02d}" for i in range(N + 1)}, "items hold one that was nowhere in the training")


def empty_users_are_alike(make: Factory) -> None:
    """Users without a history get the same scores in the same context: 0, or what is popular there."""
    model = make().fit(training(CHECKERBOARD))
    scores = model.scores(nobody(asked(model)))
    for half in (scores[: N // 2], scores[N // 2 :]):
        _ensure(bool((half == half[0]).all()), "two users without a history and with equal contexts differ in scores")


def unknown_items_say_nothing(make: Factory) -> None:
    """A user of whose items none was learned from is scored as one without a history."""
    model = make().fit(training(CHECKERBOARD))
    stranger = asked(model, [(0, 90), (0, 91)])
    _ensure(
        np.array_equal(model.scores(stranger), model.scores(nobody(stranger))),
        "a history of unknown items alone is scored otherwise than none",
    )


def one_item_is_enough(make: Factory) -> None:
    """A catalogue of one item can be learned, scored, saved and loaded."""
    pairs = [(u, 0) for u in range(3)]
    model = make().fit(training(pairs, 1))
    _ensure(model.items.to_list() == ["i00"], f"items are {model.items.to_list()}; expected the only one")
    scores = _finite(model, asked(model, pairs))
    with saved(model) as there:
        _same(_loaded(there).scores(asked(model, pairs)), scores, "loaded")


def identical_users_are_alike(make: Factory) -> None:
    """Equal histories and contexts get equal scores, whoever else is in the block and in whatever block they are."""
    model = make().fit(training(CHECKERBOARD))
    who = asked(model)
    whole = model.scores(who)
    _same(model.scores(at(who, [3, 5, 3, 20, 3])), whole[[3, 5, 3, 20, 3]], "asked in another order")
    parts = [model.scores(who.block(start, start + 5)) for start in range(0, N, 5)]
    _same(np.concatenate(parts), whole, "asked in blocks of five")
    _same(model.scores(who.block(7, 8)), whole[7:8], "asked alone")


def refit_is_a_fresh_fit(make: Factory) -> None:
    """`fit` forgets the past."""
    again, fresh = make().fit(training(CHECKERBOARD)).fit(training(OTHER)), make().fit(training(OTHER))
    _same_models(again, fresh, "fitted a second time, on other events")


def order_of_the_input_does_not_matter(make: Factory) -> None:
    """Shuffled events and counts give the same files."""
    mixed = events_of(CHECKERBOARD).sample(fraction=1, shuffle=True, seed=3)
    shuffled = prepare(mixed, SETTINGS, AS_OF, catalogue=catalogue_of(N + 1), ordered=True)
    counts = shuffled.popularity.sample(fraction=1, shuffle=True, seed=4)
    _same_models(
        make().fit(replace(shuffled, popularity=counts)), make().fit(training(CHECKERBOARD)), "of shuffled input"
    )


def subtracted_is_refitted(make: Factory) -> None:
    """An `exact` model of sums that a user was taken out of is the model that never knew the user."""
    pairs, gone = [pair for pair in CHECKERBOARD if pair[0] != 7], [pair for pair in CHECKERBOARD if pair[0] == 7]
    whole, rest, one = training(CHECKERBOARD), training(pairs), training(gone)
    refitted = make().fit(rest)
    if not refitted.exact:
        raise SkipTest("it is not exact: after an erasure it is trained again")
    gram = whole.gram.subtract(one.gram)
    _ensure(gram.digest() == rest.gram.digest(), "the Gram without the user is not the Gram of the others")
    counts = pl.concat([whole.popularity, one.popularity.with_columns(-pl.col("n"))])
    counts = counts.group_by(pl.exclude("n")).agg(pl.col("n").sum()).filter(pl.col("n") > 0)
    _same_models(make().fit(replace(rest, gram=gram, popularity=counts)), refitted, "of sums without the user")


def threads_change_nothing(make: Factory) -> None:
    """compute.threads 1 and 2 give the same files and the same lists."""
    found = []
    for threads in (1, 2):
        settings = SETTINGS.with_flags({"compute.threads": threads})
        with threadpool_limits(threads):
            model = _by_settings(make(), settings).fit(training(CHECKERBOARD))
            lists = rank(model, Audience(CHECKERBOARD), 5, settings, block=5)
        with saved(model) as there:
            found.append((there.digests, lists.sort("user_id", "rank").rows()))
    _ensure(found[0][0] == found[1][0], "compute.threads changes what is saved")
    _ensure(found[0][1] == found[1][1], "compute.threads changes the lists")


def another_process_learns_the_same(make: Factory) -> None:
    """Fitted in another process, with another hash seed, it is the same model."""
    with saved(make().fit(training(CHECKERBOARD))) as here:
        _ensure(_elsewhere().submit(_fitted, make()).result() == here.digests, "another process learns another model")


def another_process_loads_the_same(make: Factory) -> None:
    """Saved and loaded in a process that knows nothing of it, it has the same settings, scores and files."""
    model = make().fit(training(CHECKERBOARD))
    with saved(model) as there:
        items, settings, scores, again = _elsewhere().submit(_known, there).result()
        _ensure(items == model.items.to_list(), "loaded, it has other items")
        _ensure(settings == json.loads(json.dumps(dict(model.settings()))), "loaded, it states other settings")
        _same(scores, model.scores(asked(model)), "loaded in another process")
        _ensure(again == there.digests, "loaded and saved again, it writes other files")


def settings_are_stated(make: Factory) -> None:
    """`settings()` is JSON, and says what is in force: nothing is "auto"."""
    stated = dict(make().fit(training(CHECKERBOARD)).settings())
    try:
        text = json.dumps(stated, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise AssertionError(f"settings() is not JSON: {error}") from error
    _ensure(json.loads(text) == stated, "settings() reads back from JSON as something else (a list of a tuple)")
    _ensure('"auto"' not in text, f'settings() still says "auto": {text}')


def files_are_plain(make: Factory) -> None:
    """Only .npy, .parquet and .json, no object arrays, no pickle."""
    with saved(make().fit(training(CHECKERBOARD))) as there:
        for path in (path for path in there.folder.rglob("*") if path.is_file()):
            known = path.suffix in _MAGIC and path.read_bytes().startswith(_MAGIC[path.suffix])
            _ensure(known, f"{path.name} is not a .npy, .parquet or .json file")
            if path.suffix == ".npy":
                np.load(path, allow_pickle=False)
            elif path.suffix == ".json":
                json.loads(path.read_bytes())


def a_damaged_file_is_named(make: Factory) -> None:
    """A file that was cut off is BadData with its name, not a traceback and not a model."""
    with saved(make().fit(training(CHECKERBOARD))) as there:
        arrays = sorted((there.folder / "own").glob("*.npy"))
        if not arrays:
            raise SkipTest("it has no arrays of its own")
        arrays[-1].write_bytes(arrays[-1].read_bytes()[:40])
        try:
            _loaded(there)
        except BadData as error:
            _ensure(arrays[-1].name in error.message, f"the error does not name {arrays[-1].name}: {error.message}")
        else:
            raise AssertionError(f"{arrays[-1].name} was cut off, and the model is loaded all the same")


Check = Callable[[Factory], None]
WITHOUT_HISTORY: tuple[Check, ...] = (
    is_a_model,
    scores_are_single_precision_and_finite,
    what_is_given_and_answered_stays,
    vocabulary_is_sorted,
    empty_users_are_alike,
    unknown_items_say_nothing,
    one_item_is_enough,
    identical_users_are_alike,
    refit_is_a_fresh_fit,
    order_of_the_input_does_not_matter,
    subtracted_is_refitted,
    threads_change_nothing,
    another_process_learns_the_same,
    another_process_loads_the_same,
    settings_are_stated,
    files_are_plain,
    a_damaged_file_is_named,
)
"""What is asked of every model, also of one that scores everybody alike."""
CHECKS: tuple[Check, ...] = (known_answer, *WITHOUT_HISTORY)
"""What is asked of a model that scores users by their histories."""


# Models on disk and elsewhere


class Stored(NamedTuple):
    """A model in a folder of its own (`own`) with the models inside it beside, by role."""

    folder: Path
    kind: Any
    settings: Mapping[str, Any]
    parts: Mapping[str, Stored]
    digests: Mapping[str, str]
    """sha256 of every file below the folder by its relative path."""


@contextmanager
def saved(model: Model) -> Iterator[Stored]:
    """The model in a temporary folder."""
    with TemporaryDirectory() as folder:
        yield _stored(model, Path(folder))


def _stored(model: Model, folder: Path) -> Stored:
    (folder / "own").mkdir(parents=True)
    model.save(folder / "own")
    parts = {role: _stored(part, folder / role) for role, part in parts_of(model).items()}
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    digests = {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    return Stored(folder, type(model), json.loads(json.dumps(dict(model.settings()))), parts, digests)


def _loaded(there: Stored) -> Model:
    parts = {role: _loaded(part) for role, part in there.parts.items()}
    found: Model = there.kind.load(there.folder / "own", there.settings, *([parts] if parts else []))
    return found


def _by_settings(model: Model, settings: Settings) -> Model:
    """An unfitted model of the same kind, made by settings."""
    kind: Any = type(model)
    if model.name in kinds.MODELS and kinds.MODELS[model.name] is kind:
        inside = model.individual if isinstance(model, Layered) else None
        return kinds.unfitted(model.name, settings, None if inside is None else inside.name)
    made: Model = kind.from_settings(settings)
    return made


@cache
def _elsewhere() -> ProcessPoolExecutor:
    """A process of its own, started from nothing, whose strings have other hashes."""
    before = os.environ.get("PYTHONHASHSEED")
    os.environ["PYTHONHASHSEED"] = "12345"
    try:
        pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
        pool.submit(os.getpid).result()
    finally:
        os.environ.pop("PYTHONHASHSEED")
        if before is not None:
            os.environ["PYTHONHASHSEED"] = before
    return pool


def _fitted(model: Model) -> Mapping[str, str]:
    with saved(model.fit(training(CHECKERBOARD))) as there:
        return there.digests


def _known(there: Stored) -> tuple[list[str], Mapping[str, Any], Floats, Mapping[str, str]]:
    """What the model says after it was loaded: items, settings, scores, and the files that it writes."""
    model = _loaded(there)
    with saved(model) as again:
        return model.items.to_list(), again.settings, model.scores(asked(model)), again.digests


def _finite(model: Model, who: Histories) -> Floats:
    scores = model.scores(who)
    shape = (len(who.events), len(model.items))
    _ensure(isinstance(scores, np.ndarray) and scores.dtype == np.float32, "scores are not an array of float32")
    _ensure(scores.shape == shape, f"scores are of shape {scores.shape}; expected {shape}")
    _ensure(bool(np.isfinite(scores).all()), "a score is NaN or infinite")
    return scores


def _same_models(one: Model, other: Model, which: str) -> None:
    with saved(one) as here, saved(other) as there:
        _ensure(here.digests == there.digests, f"{which}, it writes other files")
        _ensure(here.settings == there.settings, f"{which}, it states other settings")
    _same(one.scores(asked(one)), other.scores(asked(other)), which)


def _same(scores: Floats, expected: Floats, which: str) -> None:
    _ensure(np.array_equal(scores, expected), f"{which}, users have other scores")


def _content(*arrays: Any) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        for part in (array.data, array.indices, array.indptr) if isinstance(array, sparse.csr_array) else (array,):
            digest.update(np.ascontiguousarray(part).data)
    return digest.hexdigest()


def _ensure(holds: bool, sentence: str) -> None:
    if not holds:
        raise AssertionError(sentence)
