"""What every store of the master promises, whatever it writes to.

A store keeps the journal (the truth) and history (a projection of it, changed in the same
transaction). It never decides anything and never changes an event. The engine calls `open`,
`commit` and `close` from one writer thread; the query methods may be called from any thread at
any time between, and see whole commits only.

History answers for runs that have ended. Live runs are the core's to answer for: no query here
returns one.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final, Protocol

from msgspec import Struct

from titan_master.core.events import AnyEvent
from titan_master.core.state import State
from titan_proto.errors import TitanError
from titan_proto.messages import JobList, JobView, RunList, RunView, ServiceView
from titan_proto.messages.worker import Left
from titan_proto.states import ExitReason, JobState


class StoreError(TitanError):
    """The store cannot go on; the process ends and recovers."""


class JournalDamaged(StoreError):
    """A record is not what was written. Exit 65; everything up to `last_good_seq` is sound."""

    def __init__(self, reason: str, last_good_seq: int) -> None:
        super().__init__(f"journal damaged after record {last_good_seq}: {reason}")
        self.reason = reason
        self.last_good_seq = last_good_seq


class JournalTooNew(StoreError):
    """Written by a newer master; this one would not understand it."""

    def __init__(self, found: int, known: int) -> None:
        super().__init__(
            f"the journal has format {found}, this titan-master knows formats up to {known}: "
            f"install the version that wrote it, or a later one"
        )
        self.found = found
        self.known = known


class HistoryDamaged(StoreError):
    """A row about an ended run is not what was written; no answer is made from it."""


class TermLost(StoreError):
    """Another master has opened this store since: nothing of this commit was written."""

    def __init__(self, mine: int, present: int) -> None:
        super().__init__(f"term {mine} is over, the store is at term {present}")
        self.mine = mine
        self.present = present


def exit_code_of(error: StoreError) -> int:
    """The exit code of a process that could not go on for this."""
    if isinstance(error, JournalDamaged):
        return os.EX_DATAERR
    return os.EX_CONFIG if isinstance(error, JournalTooNew) else os.EX_IOERR


TERM_JUMP: Final = 1_000_000
"""A store that may have forgotten something goes on with a term so much higher: workers have heard
those that it forgot, and obey no lower one."""
FENCE_JUMP: Final = 1 << 32
"""Likewise for fences, which jobs may have shown to others."""


class Recovered(Struct, frozen=True, kw_only=True):
    """What `open` found, and the term it took."""

    state: State
    """The fold of every event in the journal."""
    term: int
    """Durable already; every commit names it."""
    last_seq: int
    """The journal's last record; 0 for a fresh store."""
    last_at_ms: int = 0
    """Its time stamp: a clock that would start below it starts there."""
    is_behind: bool = False
    """What was once acknowledged may be missing: a backup was restored, or somebody accepted a
    loss. Numbers that must never come twice have to be given from far ahead."""
    note: str = ""
    """What an operator should read, in one line; empty where all was as it should be."""


class JournalKeep(Struct, frozen=True, kw_only=True):
    """How much of the journal is kept behind the last checkpoint, for people to look into."""

    ms: int = 24 * 3600 * 1000
    """By the records' own clock ..."""
    bytes: int = 256 * 1024 * 1024
    """... and never more than this."""


class AttemptRow(Struct, frozen=True, kw_only=True):
    """One attempt of history: what a log reader and `titan show` need."""

    run_id: str
    job_id: str
    number: int
    worker: str = ""
    worker_id: str = ""
    ended: bool = False
    """False for the attempt of a service that outlives its run."""
    reason: ExitReason = ExitReason.UNKNOWN
    exit_code: int = 0
    signal: int = 0
    message: str = ""
    placed_at_ms: int = 0
    started_at_ms: int = 0
    ended_at_ms: int = 0
    stdout_bytes: int = 0
    stderr_bytes: int = 0


_CURSOR_DIGITS: Final = 18
"""More than any position takes, and less than a column of a database holds."""


def position(cursor: str) -> int | None:
    """The number that a cursor holds; None where it begins. Not every cursor is one of ours."""
    return int(cursor[:_CURSOR_DIGITS]) if cursor.isdecimal() else None


class History(Protocol):
    """Questions about runs that have ended."""

    def resolve(self, selector: str) -> tuple[str, ...]:
        """The ended runs a selector fits, newest first, at most ten.

        A run with exactly that id or alias comes alone; else those whose id or alias begins so.
        ``@last`` is the newest one accepted, of those ended.
        """
        ...

    def run(self, run_id: str) -> RunView | None:
        """One run, by its exact id."""
        ...

    def runs(self, cursor: str, limit: int) -> RunList:
        """A page of runs, in the order of acceptance, newest first; an empty cursor starts."""
        ...

    def jobs(self, run_id: str, cursor: str, limit: int) -> JobList | None:
        """A page of a run's jobs, in the order of the submission."""
        ...

    def job(self, run_id: str, job_id: str) -> JobView | None:
        """One job of one run."""
        ...

    def newest_with_job(self, job_id: str) -> str | None:
        """The newest ended run that has a job of that id."""
        ...

    def newest_with_gate(self, job_id: str) -> str | None:
        """The newest ended run that has a gate of that id about which somebody, or time, decided."""
        ...

    def attempts(self, run_id: str, job_id: str) -> tuple[AttemptRow, ...]:
        """Every attempt that was placed of one job, by number."""
        ...

    def spec(self, run_id: str) -> bytes | None:
        """The run's spec, as the journal has it."""
        ...

    def ends(self, run_id: str) -> dict[str, JobState]:
        """How each of its jobs ended."""
        ...

    def outputs(self, run_id: str) -> dict[str, dict[str, str]]:
        """What those of its jobs that left outputs left."""
        ...

    def left(self, run_id: str) -> tuple[tuple[str, Left], ...]:
        """The files that those of its jobs that left any left, in the order of acceptance."""
        ...

    def homes(self, run_id: str) -> tuple[tuple[str, str], ...]:
        """By job: the workspace where the files lie that it left and nobody stored."""
        ...

    def repeats(self, run_id: str) -> tuple[str, ...]:
        """The run that it repeats, the one that that one repeated, and so on as far as it was told."""
        ...

    def dead(self, cursor: str, limit: int) -> JobList:
        """A page of jobs that failed for good, those of the newest run first."""
        ...

    def services(self, run_id: str, limit: int) -> tuple[ServiceView, ...]:
        """Services that were up and have ended, the last to end first; of one run, where it is named.

        A service is an object of its own: its run may have ended long before, or go on.
        """
        ...


class Store(History, Protocol):
    """Journal and history."""

    def open(self) -> Recovered:
        """Verify and fold the journal, and take the next term, durably.

        Raises JournalDamaged, JournalTooNew.
        """
        ...

    def commit(self, events: Sequence[AnyEvent], term: int) -> int:
        """Make one turn's events durable, all or none, with their history; the last one's seq.

        Returns only when a power cut can no longer undo it. Raises TermLost; any other error means
        that nobody knows what is on the disk, and the process must end.
        """
        ...

    def keep_up(self) -> None:
        """Do a share of what lags behind the commits, so that a journal without a pause is bounded.

        Called now and then by who commits, in proportion to what was committed.
        """
        ...

    def checkpoint(self) -> None:
        """Keep what the journal has come to, so that opening need not read it from its start."""
        ...

    def tidy(self) -> None:
        """Do what may wait for a moment without commits, on the thread that commits."""
        ...

    def close(self) -> None:
        """Release what is held; a closed store may be opened again."""
        ...
