"""The training of a sequence model, in torch: the loss matters more than the network.

Each position of a history predicts the item after it by cross-entropy over all items, as SASRec does not and as what
outdoes it does (Klenitskiy & Vasilev 2023). Where all items are too many, a step compares with a sample that all its
positions share: item j is in it with a known chance c_j, and its exponential counts 1 / c_j times, so the estimated
denominator is right on average however small the sample (no overconfidence: Petrov & Macdonald 2023).

Parameters are plain tensors by name, with the names and shapes that `transformer` reads.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as nn
from numpy.typing import NDArray
from scipy import sparse
from threadpoolctl import threadpool_limits

from persona_cli.models.base import Floats
from persona_cli.models.topk import products, topk
from persona_cli.models.transformer import NORM_EPSILON, states

log = logging.getLogger("persona")
Tensors = dict[str, Any]
Ints = NDArray[np.int64]
FEED_FORWARD = 2
"""Width of the feed-forward layer, in units of dim."""
STEPS, LEAST_TOKENS, MOST_TOKENS = 300, 256, 8192
"""Steps of an epoch, as long as a step has between so many positions."""
ALL_STEPS, LEAST_EPOCHS, MOST_EPOCHS = 6000, 3, 60
"""Where epochs is "auto": as many as make so many steps, within these bounds."""
WARM_UP, LAST_RATE = 0.05, 0.02
"""Share of the steps in which the learning rate rises, and the share of its peak at which it ends."""
VALIDATION_SHARE, MOST_VALIDATED, LEAST_VALIDATED = 0.1, 1000, 100
"""Users whose last item is kept out to tell epochs apart; with fewer than the last the last epoch is taken."""
MOST_SHUFFLED, SHUFFLED = 0.25, 2000
"""Of few events it is learned rather what goes together than what comes next: in an epoch so many events, or that share
if it is less, are of users whose items are read in any order."""
PATIENCE = 5
"""Epochs without a better one after which training ends."""
_CHUNK_CELLS = 1 << 19
_DEPTH = 10


@dataclass(frozen=True)
class Recipe:
    """What is trained and how; nothing is "auto"."""

    dim: int
    blocks: int
    heads: int
    length: int
    dropout: float
    learning_rate: float
    epochs: int
    negatives: int
    seed: int
    threads: int


class Window(NamedTuple):
    """A step of training: inputs and the items that follow them, padded with -1 in `after` (n, width)."""

    items: Ints
    after: Ints


def trained(rows: sparse.csr_array, times: sparse.csr_array | None, recipe: Recipe) -> dict[str, Floats]:
    """Parameters learned from histories (n_users, n_items); items of one instant, or of none, are in any order."""
    rng = np.random.default_rng(recipe.seed)
    learned, judged = _held_out(rows, times, rng)
    lengths = np.diff(learned.ends, prepend=0)
    n_tokens = int(np.maximum(lengths - 1, 0).sum())
    popularity = np.bincount(learned.items, minlength=rows.shape[1]).astype(np.float64)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with _determined(recipe):
        parameters = initial(popularity, recipe, device)
        best, found, since = _copied(_exported(parameters)), -1.0, 0
        if not n_tokens:
            return best
        size = step_size(n_tokens)
        optimizer = torch.optim.Adam(parameters.values(), lr=recipe.learning_rate, betas=(0.9, 0.98), fused=True)
        compared = _Compared(popularity, recipe.negatives)
        all_steps, step = recipe.epochs * -(-n_tokens // size), 0
        for epoch in range(recipe.epochs):
            began, total = time.monotonic(), 0.0
            for window in _windows(learned, recipe.length, size, rng):
                for group in optimizer.param_groups:
                    group["lr"] = recipe.learning_rate * _pace(step / all_steps)
                total += _step(parameters, window, compared, recipe, rng, device)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                step += 1
            now = _exported(parameters)
            quality = float(epoch) if judged is None else _ndcg(now, recipe.heads, judged)
            told = "" if judged is None else f", NDCG@10 {quality:.4f} of those kept out"
            seconds = time.monotonic() - began
            log.debug("sequence: epoch %d: loss %.4f%s, %.1f s", epoch + 1, total / n_tokens, told, seconds)
            since = 0 if quality > found else since + 1
            if not since:
                best, found = _copied(now), quality
            if since >= PATIENCE:
                break
    return best


def step_size(n_events: int) -> int:
    """Positions of a step."""
    return max(LEAST_TOKENS, min(MOST_TOKENS, n_events // STEPS))


def epochs_for(n_events: int) -> int:
    """Epochs by rule."""
    return max(LEAST_EPOCHS, min(MOST_EPOCHS, ALL_STEPS * step_size(n_events) // max(n_events, 1)))


def initial(popularity: NDArray[np.float64], recipe: Recipe, device: str = "cpu") -> Tensors:
    """Parameters to begin with: small vectors, and a bias by which items are as likely as they are popular."""
    dim, wide = recipe.dim, FEED_FORWARD * recipe.dim
    shapes: dict[str, tuple[int, ...]] = {"items": (len(popularity), dim)}
    for number in range(recipe.blocks):
        for layer, rows, columns in (("qkv", dim, 3 * dim), ("out", dim, dim), ("up", dim, wide), ("down", wide, dim)):
            shapes |= {f"{number}.{layer}": (rows, columns), f"{number}.{layer}_shift": (columns,)}
        for layer in ("norm1", "norm2"):
            shapes |= {f"{number}.{layer}": (dim,), f"{number}.{layer}_shift": (dim,)}
        shapes[f"{number}.distance"] = (recipe.heads, recipe.length)
    shapes |= {"norm": (dim,), "norm_shift": (dim,)}
    made: Tensors = {}
    for name, shape in shapes.items():
        if name.endswith(("_shift", ".distance")):
            made[name] = torch.zeros(shape)
        elif len(shape) == 1:
            made[name] = torch.ones(shape)
        else:
            # Blocks begin as small corrections of what they are given.
            spread = 0.05 if name == "items" else shape[0] ** -0.5
            made[name] = torch.randn(shape) * (spread * 0.3 if name.endswith((".out", ".down")) else spread)
    share = (popularity + 1) / (popularity + 1).sum()
    made["bias"] = torch.from_numpy(np.log(share * len(share)).astype(np.float32))
    return {name: tensor.to(device).requires_grad_() for name, tensor in made.items()}


def forward(parameters: Tensors, items: Any, heads: int, dropout: float = 0.0) -> Any:
    """States (n, width, dim) after each position of `items` (n, width)."""
    n, width = items.shape
    table = parameters["items"]
    dim = table.shape[1]
    x = nn.dropout(nn.embedding(items, table) * dim**0.5, dropout)
    places = torch.arange(width, device=items.device)
    ages = places[:, None] - places  # (width, width)
    for number in range(sum(name.endswith(".qkv") for name in parameters)):

        def of(layer: str, value: Any, number: int = number) -> Any:
            return value @ parameters[f"{number}.{layer}"] + parameters[f"{number}.{layer}_shift"]

        y = _normed(parameters, f"{number}.norm1", x)
        queries, keys, values = of("qkv", y).view(n, width, 3, heads, dim // heads).permute(2, 0, 3, 1, 4)
        offset = parameters[f"{number}.distance"][:, ages.clamp(min=0)].masked_fill(ages < 0, -math.inf)
        together = nn.scaled_dot_product_attention(queries, keys, values, attn_mask=offset)  # (n, heads, width, head)
        x = x + nn.dropout(of("out", together.transpose(1, 2).reshape(n, width, dim)), dropout)
        y = _normed(parameters, f"{number}.norm2", x)
        x = x + nn.dropout(of("down", nn.relu(of("up", y))), dropout)
    return _normed(parameters, "norm", x)


def cross_entropy(
    state: Any, after: Any, parameters: Tensors, columns: Any = None, chance: Any = None
) -> tuple[float, Any, Any, Any]:
    """Summed loss of states (n, dim) that predict the items `after` (n,), and its gradients by state, items and bias.

    Compared are all items, or those of `columns` (sorted), each of which was drawn with the `chance` given. By hand and
    in chunks: logits stay in the cache, are raised to e once, and are never divided by their sum.
    """
    items, bias = parameters["items"].detach(), parameters["bias"].detach()
    table, offset = (items, bias) if columns is None else (items[columns], bias[columns] - chance.log())
    by_state, by_table, by_offset = torch.empty_like(state), torch.zeros_like(table), torch.zeros_like(offset)
    wanted = items[after]
    own = (state * wanted).sum(1) + bias[after]  # (n,)
    if columns is None:
        where, drawn = after, None
    else:
        where = torch.searchsorted(columns, after).clamp(max=len(columns) - 1)
        drawn = columns[where] == after
    pull = torch.empty_like(own)
    loss = 0.0
    chunk = max(1, _CHUNK_CELLS // max(len(table), 1))
    for start in range(0, len(state), chunk):
        part = slice(start, start + chunk)
        logits = torch.addmm(offset, state[part], table.T)  # (chunk, n_compared)
        at = where[part, None]
        # The item that did follow is no negative of its own position.
        hidden = -math.inf if drawn is None else logits.gather(1, at).masked_fill(drawn[part, None], -math.inf)
        logits.scatter_(1, at, hidden)
        top = torch.maximum(logits.amax(1), own[part]) if logits.shape[1] else own[part]
        logits.sub_(top[:, None]).exp_()
        its = (own[part] - top).exp()
        whole = logits.sum(1) + its
        loss += float((top + whole.log() - own[part]).sum())
        share = 1 / whole
        by_state[part] = (logits @ table) * share[:, None]
        by_table.addmm_(logits.T, state[part] * share[:, None])
        by_offset.addmv_(logits.T, share)
        pull[part] = its * share - 1
    by_state += wanted * pull[:, None]
    if columns is None:
        by_items, by_bias = by_table, by_offset
    else:
        by_items, by_bias = torch.zeros_like(items), torch.zeros_like(bias)
        by_items[columns], by_bias[columns] = by_table, by_offset
    by_items.index_add_(0, after, state * pull[:, None])
    by_bias.index_add_(0, after, pull)
    return loss, by_state, by_items, by_bias


class _Histories(NamedTuple):
    """Items of all users one after another, in time."""

    items: Ints
    users: Ints
    moments: Ints
    """What orders a user's items; those of equal moments are in any order."""
    ends: Ints
    """Where each user's items end (n_users,)."""


class _Judged(NamedTuple):
    """Users by whom epochs are compared."""

    histories: list[Ints]
    """All that they have but the last item, oldest first."""
    lasts: Ints


class _Compared:
    """Which items a step compares with: all, or about `negatives`, half of them by popularity and half evenly."""

    def __init__(self, popularity: NDArray[np.float64], negatives: int) -> None:
        self.chances: NDArray[np.float64] | None = None
        if negatives < len(popularity):
            share = 0.5 * popularity / popularity.sum() + 0.5 / len(popularity)
            low, high = 0.0, negatives / float(share.min())
            for _ in range(60):
                factor = (low + high) / 2
                low, high = (factor, high) if np.minimum(factor * share, 1).sum() < negatives else (low, factor)
            self.chances = np.minimum(high * share, 1.0)

    def draw(self, rng: np.random.Generator, device: str) -> tuple[Any, Any]:
        if self.chances is None:
            return None, None
        columns = np.flatnonzero(rng.random(len(self.chances)) < self.chances)
        chances = self.chances[columns].astype(np.float32)
        return torch.from_numpy(columns).to(device), torch.from_numpy(chances).to(device)


def _step(
    parameters: Tensors, window: Window, compared: _Compared, recipe: Recipe, rng: np.random.Generator, device: str
) -> float:
    """Add the gradients of one step to the parameters and answer its summed loss."""
    after = torch.from_numpy(window.after).to(device)
    there = after >= 0
    output = forward(parameters, torch.from_numpy(window.items).to(device), recipe.heads, recipe.dropout)[there]
    columns, chance = compared.draw(rng, device)
    with torch.no_grad():
        loss, by_state, by_items, by_bias = cross_entropy(output, after[there], parameters, columns, chance)
    n = len(output)
    output.backward(by_state / n)
    parameters["items"].grad.add_(by_items, alpha=1 / n)
    parameters["bias"].grad = by_bias / n
    return loss


def _windows(histories: _Histories, length: int, size: int, rng: np.random.Generator) -> Iterator[Window]:
    """All histories once, in windows of at most `length` cut at random places; alike lengths make a step."""
    share = min(MOST_SHUFFLED, SHUFFLED / max(len(histories.items), 1))
    mixed = (rng.random(len(histories.ends)) < share)[histories.users]
    moments = np.where(mixed, 0, histories.moments)
    order = np.lexsort((rng.random(len(histories.items)), moments, histories.users))
    items = histories.items[order]
    begins = np.concatenate(([0], histories.ends[:-1]))
    starts, lengths = [], []
    for begin, end in zip(begins.tolist(), histories.ends.tolist(), strict=True):
        positions = end - 1 - begin  # those that something follows
        if positions < 1:
            continue
        first = positions if positions <= length else int(rng.integers(1, length + 1))
        cuts = [0, *range(first, positions, length), positions]
        for left, right in pairwise(cuts):
            starts.append(begin + left)
            lengths.append(right - left)
    sizes, places = np.array(lengths, dtype=np.int64), np.array(starts, dtype=np.int64)
    by_length = np.argsort(sizes * (1 + 0.2 * rng.random(len(sizes))), kind="stable")
    groups = (np.cumsum(sizes[by_length]) - 1) // size
    batches = np.split(by_length, np.flatnonzero(np.diff(groups)) + 1)
    for number in rng.permutation(len(batches)):
        batch = batches[number]
        width = int(sizes[batch].max())
        there = np.arange(width) < sizes[batch][:, None]
        at = np.minimum(places[batch][:, None] + np.arange(width), len(items) - 2)
        yield Window(items[at], np.where(there, items[at + 1], -1))


def _held_out(
    rows: sparse.csr_array, times: sparse.csr_array | None, rng: np.random.Generator
) -> tuple[_Histories, _Judged | None]:
    """What is learned from, and the users whose last item is kept out; None where they would be too few."""
    users = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
    moments = np.zeros(rows.nnz, dtype=np.int64) if times is None else times.data.astype(np.int64)
    order = np.lexsort((rows.indices, moments, users))
    items, moments, ends = rows.indices[order].astype(np.int64), moments[order], rows.indptr[1:].astype(np.int64)
    candidates = np.flatnonzero(np.diff(rows.indptr) >= 3)
    n = min(MOST_VALIDATED, int(VALIDATION_SHARE * len(candidates)))
    if n < LEAST_VALIDATED:
        return _Histories(items, users, moments, ends), None
    chosen = np.sort(rng.choice(candidates, n, replace=False))
    histories = [items[rows.indptr[user] : ends[user] - 1] for user in chosen]
    kept = np.ones(len(items), dtype=bool)
    kept[ends[chosen] - 1] = False
    left = np.concatenate(([0], np.cumsum(kept)))[ends]
    return _Histories(items[kept], users[kept], moments[kept], left), _Judged(histories, items[ends[chosen] - 1])


def _ndcg(arrays: dict[str, Floats], heads: int, judged: _Judged) -> float:
    """NDCG@10 of the items kept out, among all that the user did not have."""
    length = arrays["0.distance"].shape[1]
    found = states(arrays, heads, [whole[-length:] for whole in judged.histories])
    scores = products(found, arrays["items"]) + arrays["bias"]
    for row, whole in zip(scores, judged.histories, strict=True):
        row[whole] = -np.inf
    hits = topk(scores, _DEPTH)[0] == judged.lasts[:, None]
    return float((hits / np.log2(np.arange(2, hits.shape[1] + 2))).sum(axis=1).mean())


def _pace(done: float) -> float:
    """The learning rate as a share of its peak: a short rise, then half a cosine."""
    rise = min(1.0, (done + 1e-4) / WARM_UP)
    return rise * (LAST_RATE + (1 - LAST_RATE) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0))))


def _normed(parameters: Tensors, name: str, x: Any) -> Any:
    scale = parameters[name]
    return nn.layer_norm(x, scale.shape, scale, parameters[f"{name}_shift"], NORM_EPSILON)


def _copied(arrays: dict[str, Floats]) -> dict[str, Floats]:
    return {name: array.copy() for name, array in arrays.items()}


def _exported(parameters: Tensors) -> dict[str, Floats]:
    return {name: tensor.detach().cpu().numpy() for name, tensor in parameters.items()}


@contextmanager
def _determined(recipe: Recipe) -> Iterator[None]:
    """torch's state as the recipe says, and as it was afterwards."""
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    with torch.random.fork_rng(), threadpool_limits(recipe.threads):
        try:
            torch.manual_seed(recipe.seed)
            torch.set_num_threads(recipe.threads)
            torch.use_deterministic_algorithms(True, warn_only=True)
            yield
        finally:
            torch.use_deterministic_algorithms(strict)
            torch.set_num_threads(threads)
