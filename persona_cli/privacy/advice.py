"""What to do about something that `privacy scan` found, by where it stands."""

from __future__ import annotations

_IDS = ("user_id", "anon_id", "account_id", "session_id", "event_id", "decision_id")
_KEYS = ("jwt", "api_key", "private_key", "url_secret", "secret")


def advice(table: str, name: str, kind: str, *, stored: bool, collect: bool) -> str:
    """One sentence. `stored`: it is in the workspace already; `collect`: [privacy.collect] can leave fields out.

    A found key is void from now on wherever it stands, so that comes first.
    """
    first = "make the key or password invalid where it was issued; then " if kind in _KEYS else ""
    return (
        first
        + _where(table, name, collect)
        + ("; what is stored goes with `persona ingest undo RUN`" if stored else "")
    )


def _where(table: str, name: str, collect: bool) -> str:
    if table == "quarantine":
        return "correct the lines at their source; the quarantine keeps them for quarantine.retention_days"
    if name in _IDS:
        return "replace the ids by pseudonyms before ingest: persona privacy pseudonymize FILE"
    if name == "source":
        return "give the files names that name nobody"
    if name.startswith("props"):
        if collect:
            return "leave the field out of [privacy.collect], or drop it where it is sent"
        return "drop the field where it is sent, or before ingest"
    if name in ("page", "referrer", "url"):
        return "send a template of the page instead (/account/:id); ingest.strip_queries = true cuts what follows ?"
    if name in ("query", "title", "text", "name"):
        return f"remove it from the text where it is sent, or read another column: ingest --map {name}=COLUMN"
    return f"read another column into it: ingest --map {name}=COLUMN, or drop it where it is sent"
