"""Experiments: assignment, inference, simulation, interleaving, bandits and off-policy estimates."""
