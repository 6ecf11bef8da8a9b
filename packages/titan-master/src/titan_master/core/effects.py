"""What must be done: asked for by the core, done by the engine once the turn's events are durable.

Effects are level-triggered: a crash between commit and release loses none for good, because the
state still says what to do and a reconnecting peer (a worker's Join, a client's retry with its
key) makes the core ask again.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from titan_master.core.inputs import Origin
from titan_proto.errors import ErrorCode
from titan_proto.ids import AttemptRef
from titan_proto.messages import (
    AnyMessage,
    CancelRun,
    DecideGate,
    GetJob,
    GetRun,
    JobView,
    ListAttempts,
    ListDead,
    ListJobs,
    ListRuns,
    ListServices,
    ReadLog,
    RerunRun,
    RunView,
    ServiceView,
    StopJob,
    WaitJob,
    WaitRun,
    WatchRun,
)
from titan_proto.specs import JobSpec

RUNS_NAMED: Final = 5
"""So many of the runs that an ambiguous name fits are named in the refusal."""


class Reply(Struct, frozen=True, kw_only=True):
    """Answer an exchange; `end` closes it."""

    origin: Origin
    message: AnyMessage
    end: bool = True


class Tell(Struct, frozen=True, kw_only=True):
    """Send a worker something outside any exchange."""

    link_id: int
    message: AnyMessage


class HangUp(Struct, frozen=True, kw_only=True):
    """Close a link after what was sent, saying why."""

    link_id: int
    code: ErrorCode
    reason: str


HistoryAsk = (
    GetRun
    | ListRuns
    | ListJobs
    | GetJob
    | ListAttempts
    | WaitRun
    | WaitJob
    | WatchRun
    | ReadLog
    | CancelRun
    | RerunRun
    | ListDead
    | DecideGate
    | ListServices
    | StopJob
)


class AskHistory(Struct, frozen=True, kw_only=True):
    """The core alone cannot answer: the run has ended, or its name may be another run's prefix.

    The engine looks into the store (off the loop) and answers; where the answer is one of
    `live_ids`, it gives the request back to the core with that exact id. What history makes of a
    RerunRun is a submission, which goes to the core like any other.
    """

    origin: Origin
    request: HistoryAsk
    live_ids: tuple[str, ...] = ()
    """Live runs that the selector fits as a prefix, or that have the bare job id."""
    live_aliases: tuple[str, ...] = ()
    """Of those runs, in their order; as many as are named where the selector fits several."""
    live_runs: tuple[RunView, ...] = ()
    """For ListRuns: the active ones, newest first, to stand before the ended ones."""
    live_jobs: tuple[JobView, ...] = ()
    """For ListDead: those of active runs, to stand before those of ended ones. For ListAttempts: the
    job, if it is of an active run, or a service that is up."""
    live_spec: JobSpec | None = None
    """For ListAttempts: what that job is."""
    live_services: tuple[ServiceView, ...] = ()
    """For ListServices: those that are up, to stand before the ended ones."""
    by: str = ""
    """For RerunRun and DecideGate: who asks."""
    open_gates: str = ""
    """For DecideGate: what is open, for the refusal."""


class ServeLog(Struct, frozen=True, kw_only=True):
    """Stream a stored log to `origin`; sizes are final where `ended`."""

    origin: Origin
    ref: AttemptRef
    request: ReadLog
    ended: bool
    stdout_bytes: int = 0
    stderr_bytes: int = 0
    lost: bool = False
    """Nobody knows the sizes; what is stored is all there may ever be."""


class OpenLog(Struct, frozen=True, kw_only=True):
    """This worker may ship that attempt's log from now on."""

    ref: AttemptRef
    worker_id: str


class CloseLog(Struct, frozen=True, kw_only=True):
    """The attempt has ended with so many bytes: followers end when they have them."""

    ref: AttemptRef
    stdout_bytes: int
    stderr_bytes: int
    lost: bool
    """Nobody knows how many bytes there are; what is stored is all there may ever be."""


Effect = Reply | Tell | HangUp | AskHistory | ServeLog | OpenLog | CloseLog
