"""How far the fitted shares of a mixture may lie from the true ones: standard errors by the likelihood's curvature.

With p_b the chance of bin b given that it was recorded, c_b its count and g_b = ∂ log p_b / ∂θ, the information is
I = Σ c_b g_b g_bᵀ (Berndt, Hall, Hall & Hausman, Estimation and inference in nonlinear structural models, 1974), and a
share s(θ) has the standard error √(∇sᵀ I⁻¹ ∇s): the bound of Cramér and Rao, which no unbiased estimate gets below.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from persona_cli.profiles.mixture import Durations, Floats, Mixture, log_densities, outside, recorded_shares

_STEP = 1e-5


def share_error(durations: Durations, mixture: Mixture, components: Sequence[int]) -> float | None:
    """The standard error of the share that these components have among what was recorded.

    None where the data do not tell the parameters apart; 0 where the components are all there are.
    """
    k = len(mixture.weights)
    if len(set(components)) in (0, k):
        return 0.0

    def share(theta: Floats) -> Floats:
        shares: Floats = recorded_shares(durations, _mixture(theta, k))[list(components)]
        return np.array([shares.sum()])

    theta = np.concatenate([np.log(mixture.weights[1:] / mixture.weights[0]), mixture.means, np.log(mixture.sds)])
    scores = _gradient(lambda at: _log_chances(durations, _mixture(at, k)), theta)  # (n_theta, n_bins)
    information = (scores * durations.counts) @ scores.T
    scale = np.sqrt(np.diag(information))
    if not (np.isfinite(information).all() and (scale > 0).all()):
        return None
    standard = information / np.outer(scale, scale)
    if np.linalg.cond(standard) > 1e10:
        return None
    slope = _gradient(share, theta)[:, 0] / scale
    return float(np.sqrt(slope @ np.linalg.solve(standard, slope)))


def _mixture(theta: Floats, k: int) -> Mixture:
    """Of log-odds against the first weight (k - 1,), means (k,) and logs of sds (k,)."""
    weights = np.exp(np.append(0.0, theta[: k - 1]))
    return Mixture(weights / weights.sum(), theta[k - 1 : 2 * k - 1], np.exp(theta[2 * k - 1 :]))


def _log_chances(durations: Durations, mixture: Mixture) -> Floats:
    """Of each bin, given that it was recorded (n_bins,)."""
    density = np.exp(log_densities(durations.nodes, mixture)) @ mixture.weights  # (n_nodes,)
    bins = np.add.reduceat(durations.shares * density, durations.starts)
    inside = 1 - float(mixture.weights @ outside(durations.low, durations.high, mixture).mass.sum(axis=0))
    return np.asarray(np.log(np.maximum(bins, 1e-300)) - np.log(inside))


def _gradient(of: Callable[[Floats], Floats], theta: Floats) -> Floats:
    """Central differences (n_theta, n)."""
    steps = _STEP * np.eye(len(theta))
    return np.stack([(of(theta + step) - of(theta - step)) / (2 * _STEP) for step in steps])
