"""The sequence model: its scores by numpy against the definition in plain loops, its training against torch's own."""

from __future__ import annotations

import math
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from histories import histories, liked, matrix, training
from numpy.typing import NDArray
from scipy import sparse

import persona_cli.models
from persona_cli.errors import BadSettings, Unavailable
from persona_cli.models.base import Histories, Training
from persona_cli.models.sequence import Sequence, names
from persona_cli.models.transformer import latest, states

N_ITEMS, DIM, BLOCKS, HEADS, LENGTH = 30, 12, 2, 3, 20
rng = np.random.default_rng(5)


def random_arrays(n_items: int = N_ITEMS) -> dict[str, NDArray[np.float32]]:
    shapes: dict[str, tuple[int, ...]] = {"items": (n_items, DIM), "bias": (n_items,)}
    for name in names(BLOCKS)[2:]:
        layer, _, shift = name.rpartition(".")[2].partition("_")
        if layer == "distance":
            shapes[name] = (HEADS, LENGTH)
            continue
        wide = {"qkv": (DIM, 3 * DIM), "up": (DIM, 2 * DIM), "down": (2 * DIM, DIM), "out": (DIM, DIM)}
        shape = wide.get(layer, (DIM, DIM))
        shapes[name] = (DIM,) if layer.startswith("norm") else (shape[1:] if shift else shape)
    return {name: (rng.standard_normal(shape) / 2).astype(np.float32) for name, shape in shapes.items()}


def by_definition(arrays: dict[str, Any], sequence: list[int]) -> NDArray[np.float64]:
    """The state after the sequence, position by position in doubles."""
    p = {name: array.astype(np.float64) for name, array in arrays.items()}

    def norm(x: NDArray[np.float64], name: str) -> NDArray[np.float64]:
        return (x - x.mean()) / math.sqrt(x.var() + 1e-5) * p[name] + p[f"{name}_shift"]

    xs = [p["items"][item] * math.sqrt(DIM) for item in sequence]
    width = DIM // HEADS
    for b in range(BLOCKS):
        qkv = [norm(x, f"{b}.norm1") @ p[f"{b}.qkv"] + p[f"{b}.qkv_shift"] for x in xs]
        attended = []
        for t in range(len(xs)):
            out = np.zeros(DIM)
            for h in range(HEADS):
                part = slice(h * width, (h + 1) * width)
                query = qkv[t][:DIM][part]
                keys = [qkv[s][DIM : 2 * DIM][part] for s in range(t + 1)]
                logits = [query @ key / math.sqrt(width) + p[f"{b}.distance"][h, t - s] for s, key in enumerate(keys)]
                weights = np.exp(np.array(logits) - max(logits))
                weights /= weights.sum()
                out[part] = sum(w * qkv[s][2 * DIM :][part] for s, w in enumerate(weights))
            attended.append(out)
        for t, out in enumerate(attended):
            xs[t] = xs[t] + out @ p[f"{b}.out"] + p[f"{b}.out_shift"]
            up = np.maximum(norm(xs[t], f"{b}.norm2") @ p[f"{b}.up"] + p[f"{b}.up_shift"], 0)
            xs[t] = xs[t] + up @ p[f"{b}.down"] + p[f"{b}.down_shift"]
    return norm(xs[-1], "norm")


def untrained(n_items: int = N_ITEMS) -> Sequence:
    """A model with random parameters: nothing here needs torch."""
    model = Sequence(DIM, BLOCKS, HEADS, LENGTH)
    model.items = pl.Series("item_id", [f"i{i:02d}" for i in range(n_items)])
    model.arrays_, model.epochs_, model.negatives_ = random_arrays(n_items), 1, n_items
    return model


def rows_of(sequences: list[list[int]], n_items: int = N_ITEMS) -> Histories:
    """Users who had these items in this order, one a microsecond."""
    users = np.repeat(np.arange(len(sequences)), [len(one) for one in sequences])
    items = np.array([item for one in sequences for item in one], dtype=np.int64)
    moments = np.array([at + 1 for one in sequences for at in range(len(one))], dtype=np.int64)
    shape = (len(sequences), n_items)
    times = sparse.csr_array((moments, (users, items)), shape=shape)
    times.sort_indices()
    rows = sparse.csr_array((np.ones(times.nnz, dtype=np.float32), times.indices, times.indptr), shape=shape)
    nowhere = pl.DataFrame({"device": [None] * len(sequences), "country": [None] * len(sequences)})
    return Histories(rows, np.diff(rows.indptr).astype(np.int64), nowhere, times)


def walks(n_users: int, n_items: int, seed: int = 0) -> list[list[int]]:
    """Each user goes round a ring of items, from somewhere on, and stops before the round is full."""
    draw = np.random.default_rng(seed)
    return [
        [(int(start) + step) % n_items for step in range(int(length))]
        for start, length in zip(
            draw.integers(0, n_items, n_users), draw.integers(3, n_items - 1, n_users), strict=True
        )
    ]


def training_of(sequences: list[list[int]], n_items: int, with_times: bool = True) -> Training:
    who = rows_of(sequences, n_items)
    made = training(liked([(u, i) for u, one in enumerate(sequences) for i in one])).interactions
    items = pl.Series("item_id", [f"i{i:02d}" for i in range(n_items)])
    assert who.times is not None
    made = type(made)(
        pl.Series("user_id", [f"u{u:04d}" for u in range(len(sequences))]),
        items,
        who.rows,
        who.rows.astype(bool),
        who.events,
        who.times.data if with_times else None,
    )
    return Training(made, training([]).gram, pl.DataFrame(), datetime(2026, 3, 1, tzinfo=UTC))


def test_states_are_those_of_the_definition() -> None:
    arrays = random_arrays()
    sequences = [[3], [1, 2], [4, 4, 7], list(range(9)), list(rng.permutation(N_ITEMS)[:LENGTH]), list(range(8))]
    found = states(arrays, HEADS, [np.array(one) for one in sequences])
    assert found.dtype == np.float32
    for state, sequence in zip(found, sequences, strict=True):
        assert state == pytest.approx(by_definition(arrays, sequence), rel=1e-4, abs=1e-4)


def test_scores_are_chances_in_units_of_an_even_one() -> None:
    model = untrained()
    sequences = [[5, 1, 9], [2]]
    scores = model.scores(rows_of(sequences))
    assert scores.dtype == np.float32
    for row, sequence in zip(scores, sequences, strict=True):
        logits = model.arrays_["items"] @ by_definition(model.arrays_, sequence) + model.arrays_["bias"]
        chances = np.exp(logits) / np.exp(logits).sum()
        assert row == pytest.approx(chances * N_ITEMS, rel=1e-3, abs=1e-5)
    assert (scores > 0).all()


def test_the_order_in_time_is_read_and_the_order_of_columns_is_not() -> None:
    model = untrained()
    forth, back = model.scores(rows_of([[5, 1, 9]])), model.scores(rows_of([[9, 1, 5]]))
    assert not np.allclose(forth, back)


def test_only_the_latest_items_are_read() -> None:
    model = untrained()
    long = [int(item) for item in rng.permutation(N_ITEMS)]
    assert np.array_equal(model.scores(rows_of([long])), model.scores(rows_of([long[-LENGTH:]])))


def test_latest_sorts_by_time_then_position_else_by_strength() -> None:
    rows = sparse.csr_array(np.array([[0.5, 0.0, 0.2, 0.2], [0.0, 0.0, 0.0, 0.0]], dtype=np.float32))
    times = sparse.csr_array((np.array([7, 9, 7], dtype=np.int64), rows.indices, rows.indptr), shape=rows.shape)
    assert [one.tolist() for one in latest(rows, times, 10)] == [[0, 3, 2], []]
    assert [one.tolist() for one in latest(rows, times, 2)] == [[3, 2], []]
    assert [one.tolist() for one in latest(rows, None, 10)] == [[2, 3, 0], []]


def test_a_user_without_history_gets_zeros() -> None:
    scores = untrained().scores(rows_of([[], [3], []]))
    assert not scores[[0, 2]].any()
    assert (scores[1] > 0).all()
    assert untrained().scores(rows_of([])).shape == (0, N_ITEMS)


def test_a_user_is_scored_the_same_in_any_company() -> None:
    model = untrained(300)
    sequences = [[int(item) for item in rng.permutation(300)[: 1 + at % LENGTH]] for at in range(90)]
    together = model.scores(rows_of(sequences, 300))
    alone = np.concatenate([model.scores(rows_of([one], 300)) for one in sequences])
    assert np.array_equal(together, alone)


def test_saved_and_loaded_it_scores_the_same_without_torch(tmp_path: Path) -> None:
    model = untrained()
    model.save(tmp_path)
    loaded = Sequence.load(tmp_path, model.settings())
    assert {path.suffix for path in tmp_path.iterdir()} == {".npy", ".parquet"}
    assert loaded.settings() == model.settings()
    who = rows_of([[5, 1, 9], [2]])
    assert np.array_equal(loaded.scores(who), model.scores(who))


def test_without_torch_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "persona_cli.models.sequence_training", raising=False)
    monkeypatch.delattr(persona_cli.models, "sequence_training", raising=False)
    with pytest.raises(Unavailable) as told:
        Sequence().fit(training(liked([(0, 0), (0, 1)])))
    assert told.value.exit_code == 69
    assert "persona-cli[deep]" in str(told.value.hint)


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(BadSettings, match=r"heads is 5.*dim, 64"):
        Sequence(dim=64, heads=5).fit(training(liked([(0, 0)])))


def test_torch_trains_the_network_that_numpy_evaluates() -> None:
    torch = pytest.importorskip("torch")
    from persona_cli.models.sequence_training import Recipe, forward, initial

    recipe = Recipe(DIM, BLOCKS, HEADS, LENGTH, 0.1, 1e-3, 1, N_ITEMS, 0, 1)
    assert {name: tuple(part.shape) for name, part in initial(np.ones(N_ITEMS), recipe).items()} == {
        name: array.shape for name, array in random_arrays().items()
    }
    arrays = random_arrays()
    items = rng.integers(0, N_ITEMS, (4, LENGTH))
    with torch.no_grad():
        parameters = {name: torch.from_numpy(array) for name, array in arrays.items()}
        wanted = forward(parameters, torch.from_numpy(items), HEADS).numpy()
    for length in (1, 7, 8, LENGTH):
        found = states(arrays, HEADS, [row[:length] for row in items])
        assert found == pytest.approx(wanted[:, length - 1], rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("n", [5, 700])
def test_the_loss_over_all_items_and_its_gradients_are_those_of_torch(n: int) -> None:
    torch = pytest.importorskip("torch")
    from persona_cli.models import sequence_training

    state = torch.from_numpy(rng.standard_normal((n, 6))).requires_grad_()
    parameters = {
        "items": torch.from_numpy(rng.standard_normal((900, 6))).requires_grad_(),
        "bias": torch.from_numpy(rng.standard_normal(900)).requires_grad_(),
    }
    after = torch.from_numpy(rng.integers(0, 900, n))
    logits = state @ parameters["items"].T + parameters["bias"]
    wanted = torch.nn.functional.cross_entropy(logits, after, reduction="sum")
    wanted.backward()
    with torch.no_grad():
        loss, *gradients = sequence_training.cross_entropy(state, after, parameters)
    assert loss == pytest.approx(wanted.item(), rel=1e-9)
    for gradient, tensor in zip(gradients, (state, parameters["items"], parameters["bias"]), strict=True):
        assert gradient.numpy() == pytest.approx(tensor.grad.numpy(), rel=1e-6, abs=1e-9)


def test_a_sample_that_is_certain_to_hold_all_items_is_all_items() -> None:
    torch = pytest.importorskip("torch")
    from persona_cli.models.sequence_training import cross_entropy

    state, after = torch.from_numpy(rng.standard_normal((40, 6))), torch.from_numpy(rng.integers(0, 50, 40))
    parameters = {
        "items": torch.from_numpy(rng.standard_normal((50, 6))),
        "bias": torch.from_numpy(rng.standard_normal(50)),
    }
    whole = cross_entropy(state, after, parameters)
    sampled = cross_entropy(state, after, parameters, torch.arange(50), torch.ones(50))
    for one, other in zip(whole, sampled, strict=True):
        assert np.asarray(other) == pytest.approx(np.asarray(one), rel=1e-6, abs=1e-9)


def test_a_sampled_denominator_is_right_on_average() -> None:
    torch = pytest.importorskip("torch")
    from persona_cli.models.sequence_training import _Compared, cross_entropy

    state, after = torch.from_numpy(rng.standard_normal((1, 4))), torch.tensor([3])
    parameters = {
        "items": torch.from_numpy(rng.standard_normal((200, 4))),
        "bias": torch.zeros(200, dtype=torch.float64),
    }
    logits = (parameters["items"] @ state[0]).numpy()
    compared, draw = _Compared(np.arange(200.0), 60), np.random.default_rng(1)
    sizes, sums = [], []
    for _ in range(3000):
        columns, chance = compared.draw(draw, "cpu")
        loss = cross_entropy(state, after, parameters, columns, chance)[0]
        sizes.append(len(columns))
        sums.append(math.exp(loss + logits[3]))
    assert np.mean(sizes) == pytest.approx(60, rel=0.02)
    assert np.mean(sums) == pytest.approx(np.exp(logits).sum(), abs=4 * np.std(sums) / math.sqrt(3000))


@pytest.mark.parametrize("negatives", ["auto", 6])
def test_it_learns_what_comes_next(negatives: int | str) -> None:
    pytest.importorskip("torch")
    model = Sequence(dim=16, length=10, learning_rate=0.01, epochs=12, negatives=negatives)
    model.fit(training_of(walks(400, 12), 12))
    asked = walks(50, 12, seed=1)
    best = model.scores(rows_of(asked, 12)).argmax(axis=1)
    assert best.tolist() == [(one[-1] + 1) % 12 for one in asked]
    assert model.settings()["negatives"] == (12 if negatives == "auto" else negatives)


def test_of_histories_without_instants_it_learns_what_goes_together() -> None:
    pytest.importorskip("torch")
    draw = np.random.default_rng(2)
    kinds = [[int(item) for item in 2 * draw.permutation(6)[:4] + user % 2] for user in range(300)]
    model = Sequence(dim=16, length=10, learning_rate=0.01, epochs=10).fit(training_of(kinds, 12, with_times=False))
    who = rows_of([[0, 2], [1, 3, 5]], 12)
    scores = model.scores(Histories(who.rows, who.events, who.context))
    assert scores[0, [4, 6, 8, 10]].min() > 3 * scores[0, [1, 3, 5, 7, 9, 11]].max()
    assert scores[1, [7, 9, 11]].min() > 3 * scores[1, [0, 2, 4, 6, 8, 10]].max()


def test_the_seed_decides_all(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    given = training_of(walks(120, 12), 12)
    torch.manual_seed(99)
    fits = [Sequence(dim=8, epochs=2, seed=seed).fit(given) for seed in (0, 0, 1)]
    first, again, other = ({name: array.tobytes() for name, array in fit.arrays_.items()} for fit in fits)
    assert first == again
    assert first != other
    # What else is drawn by torch in this process goes on as if nothing had been trained.
    drawn = torch.rand(1)
    torch.manual_seed(99)
    assert torch.equal(drawn, torch.rand(1))


def test_single_items_teach_popularity() -> None:
    pytest.importorskip("torch")
    model = Sequence(dim=8, epochs=2).fit(training(liked([(0, 0), (1, 0), (2, 0), (3, 1)])))
    made = matrix(liked([(0, 0)]))
    scores = model.scores(histories(made, model.items))
    assert scores.shape == (1, 2)
    assert np.isfinite(scores).all()
