"""persona: personalization from the command line; `from persona_cli import Workspace` has the same verbs in Python."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from persona_cli.api import Workspace

__version__ = "0.1.0"
__all__ = ["Workspace", "__version__"]


def __getattr__(name: str) -> Any:
    # Lazy, so that `persona --help` does not load polars and numpy.
    if name == "Workspace":
        from persona_cli.api import Workspace

        return Workspace
    raise AttributeError(f"module 'persona_cli' has no attribute {name!r}")
