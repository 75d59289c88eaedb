"""`Workspace.explain`: why an item is in somebody's list."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from typing import TYPE_CHECKING

from persona_cli.workspace.home import Home
from persona_cli.workspace.setting import moment_of

if TYPE_CHECKING:
    from persona_cli.serving.counterfactual import Explanation


class Explaining:
    """The method that explains."""

    home: Home

    def explain(
        self,
        user: str,
        item: str,
        *,
        top: int | None = None,
        model: str | None = None,
        as_of: str | date | datetime | None = None,
        context: Mapping[str, str] | None = None,
        include_holdout: bool = False,
    ) -> Explanation:
        """Why the item is in the user's list of `top`, or why not; see `serving.counterfactual.explain`."""
        from persona_cli.serving.counterfactual import explain
        from persona_cli.workspace.runs import recording

        with recording(self.home, ["explain", user, item], ids=[user]) as run:
            found = explain(
                self.home,
                user,
                item,
                top=top,
                model=model,
                as_of=moment_of(as_of),
                context=context,
                include_holdout=include_holdout,
            )
            run.counts |= {"tried": found.tried}
        return found
