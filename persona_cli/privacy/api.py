"""`Workspace.privacy`: the commands of `persona privacy` for a notebook or a program."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from persona_cli.workspace import runs
from persona_cli.workspace.home import Home
from persona_cli.workspace.setting import moment_of

if TYPE_CHECKING:
    from persona_cli.consent.receipts import State
    from persona_cli.events.ingest import Report
    from persona_cli.privacy.access import Handed
    from persona_cli.privacy.choices import Chosen, Status
    from persona_cli.privacy.consent_documents import Imported
    from persona_cli.privacy.erasure import Forgotten
    from persona_cli.privacy.own_data import Corrected, Own
    from persona_cli.privacy.recipients import Key
    from persona_cli.privacy.records.documents import Recorded
    from persona_cli.privacy.requests import Request
    from persona_cli.privacy.searching import Residue
    from persona_cli.privacy.settling import Expired

Moment = str | date | datetime | None


def personal(words: Sequence[str]) -> list[str]:
    """The words of `persona privacy COMMAND …` that may say something of a person: all but names of options."""
    return [word for word in words[2:] if not word.startswith("-") or "=" in word]


class Privacy:
    """What protects the people in the data of one workspace.

    Runs are recorded as those of the command line are; ids stand in their manifests as keyed digests.
    """

    def __init__(self, home: Home) -> None:
        self.home = home

    def status(self) -> Status:
        """How privacy stands: purposes, refusals, requests, what is overdue; see `privacy.choices`."""
        from persona_cli.privacy.choices import status

        return status(self.home)

    def requests(self) -> list[Request]:
        """What people asked for, by when it must be answered, and what became of it; the oldest first."""
        from persona_cli.privacy.requests import requests

        return requests(self.home)

    def open_request(self, kind: str, user: str, *, received: Moment = None, channel: str = "api") -> Request:
        """Note a request of a person; `kind` is one of `privacy.requests.KINDS`."""
        from persona_cli.privacy.requests import find_request, open_request

        when = moment_of(received)
        return find_request(self.home, open_request(self.home, kind, [user], received=when, channel=channel))

    def extend_request(self, request_id: str, reason: str) -> Request:
        """Prolong a request by two months (45 days under ccpa), once and within its first period."""
        from persona_cli.privacy.requests import extend_request

        return extend_request(self.home, request_id, reason)

    def close_request(self, request_id: str, outcome: str) -> Request:
        """Note how a request ended."""
        from persona_cli.privacy.requests import close_request, find_request

        close_request(self.home, request_id, outcome)
        return find_request(self.home, request_id)

    def say(
        self,
        users: Sequence[str],
        state: State,
        purposes: Sequence[str],
        *,
        at: Moment = None,
        notice: Path | str | None = None,
        source: str | None = None,
        proof: str | None = None,
        wait: float = 0.0,
        words: Sequence[str] = (),
    ) -> Chosen:
        """Note what people said about purposes ("given", "withdrawn", …) for all their ids; see `privacy.choices`."""
        from persona_cli.privacy.choices import say

        with runs.recording(self.home, words or ["privacy", "consent", state], users) as run:
            done = say(
                self.home, users, state, purposes,
                at=moment_of(at), notice=notice, source=source, proof=proof, wait=wait,
            )  # fmt: skip
            run.counts = {"receipts": len(done.receipts), "ids": done.ids, "request": done.request}
        return done

    def optout(
        self, users: Sequence[str], *, undo: bool = False, wait: float = 0.0, words: Sequence[str] = ()
    ) -> Chosen:
        """Opt people out of everything, or take that back; see `privacy.choices`."""
        from persona_cli.privacy.choices import opt_in, opt_out

        with runs.recording(self.home, words or ["privacy", "optout"], users) as run:
            done = (opt_in if undo else opt_out)(self.home, users, wait=wait)
            run.counts = {"receipts": len(done.receipts), "ids": done.ids, "request": done.request}
        return done

    def spread(self, report: Report) -> Report:
        """Write what browsers signalled in an ingest for the other ids of the same people; counted in `receipts`."""
        from persona_cli.privacy.choices import spread

        if report.opted_out_by_signal:
            report.receipts += spread(self.home, report.run)
        return report

    def import_consent(self, file: str, *, wait: float = 0.0, words: Sequence[str] = ()) -> Imported:
        """Take over a file of what people told another system; see `privacy.consent_documents`."""
        from persona_cli.privacy.consent_documents import import_words

        with runs.recording(self.home, words or ["privacy", "consent", "import", file]) as run:
            done = import_words(self.home, file, wait)
            run.counts = done._asdict()
        return done

    def purposes(self) -> list[dict[str, Any]]:
        """Each purpose with its basis and for how many people of the events it is permitted."""
        from persona_cli.privacy.choices import overview

        return overview(self.home)

    def preferences(self, user: str) -> Own:
        """What a person decided about their own lists."""
        from persona_cli.privacy.own_data import own

        return own(self.home, user)

    def set_preferences(
        self,
        user: str,
        put: Mapping[str, str] | None = None,
        *,
        block: Sequence[str] = (),
        unblock: Sequence[str] = (),
        reset: bool = False,
        paused: bool | None = None,
        wait: float = 0.0,
        words: Sequence[str] = (),
    ) -> Own:
        """Change a person's own settings, blocks and pause, in the order reset, settings, pause; answers what stands.

        See `privacy.own_data`, which also says what is raised.
        """
        from persona_cli.privacy import own_data

        with runs.recording(self.home, words or ["privacy", "preferences"], personal(words)) as run:
            if reset:
                own_data.reset(self.home, user, wait)
            if put or block or unblock:
                own_data.change(self.home, user, put=put, block=block, unblock=unblock, wait=wait, run=run.id)
            if paused is not None:
                (own_data.pause if paused else own_data.resume)(self.home, user)
        return own_data.own(self.home, user)

    def access(self, user: str, out: str | Path, *, recipient: str | None = None, words: Sequence[str] = ()) -> Handed:
        """Write everything that is held of a person to a ZIP for them; see `privacy.access`."""
        from persona_cli.privacy.access import access

        with runs.recording(self.home, words or ["privacy", "access"], personal(words)) as run:
            done = access(self.home, user, Path(out), recipient=recipient)
            run.counts = {"request": done.request, "files": len(done.files), "rows": sum(done.held.values())}
        return done

    def correct(
        self,
        event_id: str,
        changes: Mapping[str, str] | None = None,
        *,
        delete: bool = False,
        month: str | None = None,
        refit: bool = True,
        wait: float = 0.0,
        words: Sequence[str] = (),
    ) -> Corrected:
        """Correct a stored event or take it out, with all that follows from it; see `privacy.own_data`."""
        from persona_cli.privacy.own_data import correct

        with runs.recording(self.home, words or ["privacy", "correct"], personal(words)) as run:
            done = correct(self.home, event_id, changes, delete=delete, month=month, refit=refit, wait=wait)
            run.counts = {"fields": list(done.fields), "deleted": done.deleted, "request": done.request}
        return done

    def records(self, out: str | Path | None = None, *, check: bool = False, words: Sequence[str] = ()) -> Recorded:
        """Write the records of privacy to a folder (None: privacy/records), or with `check` compare them only; see
        `privacy.records.writing`.
        """
        from persona_cli.privacy.records.documents import record

        with runs.recording(self.home, words or ["privacy", "records"]) as run:
            done = record(self.home, None if out is None else Path(out), check=check)
            run.counts = {"files": done.files, "changed": len(done.changed), "open": len(done.open_points)}
        return done

    def retention(self) -> list[dict[str, Any]]:
        """How long what is kept and how much of it is due; see `privacy.retention.shown`."""
        from persona_cli.privacy.retention import shown

        return shown(self.home)

    def expire(
        self, *, wait: float = 0.0, progress: Callable[[str], None] | None = None, words: Sequence[str] = ()
    ) -> Expired:
        """Remove what is older than its period, with all that follows from it; see `privacy.settling`."""
        from persona_cli.privacy.settling import expire

        with runs.recording(self.home, words or ["privacy", "expire"]) as run:
            done = expire(self.home, wait=wait, progress=progress)
            run.counts = {"removed": done.removed, "persons": done.plan.persons, "completed": done.completed}
        return done

    def forget(
        self,
        users: Sequence[str],
        *,
        recipients_out: str | Path | None = None,
        retrain: bool = True,
        key: Key | None = None,
        wait: float = 0.0,
        progress: Callable[[str], None] | None = None,
        words: Sequence[str] = (),
    ) -> Forgotten:
        """Erase everything of these people, as if they had never been there; see `privacy.erasure`."""
        from persona_cli.privacy.erasure import forget

        out = None if recipients_out is None else Path(recipients_out)
        with runs.recording(self.home, words or ["privacy", "forget", *users], list(users)) as run:
            done = forget(self.home, users, recipients_out=out, retrain=retrain, key=key, wait=wait, progress=progress)
            run.counts = {"request": done.request, "persons": done.persons, "rows": sum(done.before.values())}
        return done

    def verify_erasure(
        self,
        users: Sequence[str] = (),
        *,
        request: str | None = None,
        key: Key | None = None,
        domains: Sequence[str] = (),
        words: Sequence[str] = (),
    ) -> list[Residue]:
        """Every place where a byte of people is left, or of those whom an erasure of this request took out."""
        from persona_cli.privacy.erasure import verify

        with runs.recording(self.home, words or ["privacy", "verify-erasure", *users], list(users)) as run:
            found = verify(self.home, users, request, key, domains)
            run.counts = {"residues": len(found)}
        return found
