"""How often the intervals of off-policy estimates hold the truth, on synthetic logs: python benchmarks/off_policy.py

A log: contexts x ~ N(0, I) in 5 dimensions, 10 actions, a softmax policy acts, the reward is Bernoulli with a logistic
chance that a linear model of x and the action can only approximate (it interacts them). The policy in question is
another softmax. The truth is the mean over a million contexts.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from persona_cli.experiments import off_policy

D, ACTIONS = 5, 10


def softmax(scores: np.ndarray) -> np.ndarray:
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    return scores / scores.sum(axis=1, keepdims=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--logs", type=int, default=1_000)
    parser.add_argument("--rows", type=int, default=5_000)
    options = parser.parse_args()
    world = np.random.default_rng(7)
    acts, asked, likes = (world.normal(size=(D, ACTIONS)) for _ in range(3))

    def of(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return softmax(0.3 * x @ acts), softmax(0.5 * x @ asked), 1 / (1 + np.exp(-(x @ likes - 1.5)))

    _, policy, chance = of(world.normal(size=(1_000_000, D)))
    truth = float((policy * chance).sum(axis=1).mean())
    inside: dict[str, list[bool]] = {}
    errors: dict[str, list[float]] = {}
    sizes, began = [], time.perf_counter()
    for log in range(options.logs):
        rng = np.random.default_rng([11, log])
        x = rng.normal(size=(options.rows, D))
        logged, policy, chance = of(x)
        action = (rng.random(options.rows)[:, None] > logged.cumsum(axis=1)).sum(axis=1).clip(max=ACTIONS - 1)
        rows = np.arange(options.rows)
        reward = (rng.random(options.rows) < chance[rows, action]).astype(float)
        found = off_policy.weights(logged[rows, action], policy[rows, action])
        model = off_policy.cross_fitted(x, action, reward, policy, seed=log)
        sizes.append(found.ess)
        estimates = {
            "IPS": off_policy.ips(reward, found.w),
            "SNIPS": off_policy.snips(reward, found.w),
            "DM": off_policy.dm(model.v),
            "DR": off_policy.dr(reward, found.w, model.q, model.v),
            "DR, weights shrunken (λ = 100)": off_policy.dr(reward, found.w, model.q, model.v, shrink=100.0),
        }
        for name, one in estimates.items():
            inside.setdefault(name, []).append(one.low <= truth <= one.high)
            errors.setdefault(name, []).append(one.value - truth)
    seconds = time.perf_counter() - began
    print(
        f"{options.logs:,} logs of {options.rows:,} decisions, {seconds:.0f} s; truth {truth:.4f}; "
        f"mean ESS {np.mean(sizes):.0f}"
    )
    print("| estimator | coverage of 95 % | bias | root mean square error |\n|---|---|---|---|")
    for name, held in inside.items():
        share = float(np.mean(held))
        error = np.sqrt(share * (1 - share) / len(held))
        off = np.array(errors[name])
        print(f"| {name} | {share:.3f} ± {error:.3f} | {off.mean():+.5f} | {np.sqrt((off**2).mean()):.5f} |")


if __name__ == "__main__":
    main()
