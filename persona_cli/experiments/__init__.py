"""Experiments: assignment, inference, simulation, interleaving, bandits and off-policy estimates."""

from __future__ import annotations

from persona_cli.workspace.home import Home

FOLDER = "experiments"
"""Where a workspace keeps them, a folder each."""


def any_there(home: Home) -> bool:
    """Whether an experiment was ever started: without, nothing of this package need be loaded to serve."""
    return home.path(FOLDER).is_dir()
