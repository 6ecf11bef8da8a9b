"""What may enter the master's core: facts from outside, already parsed and authorised.

The shells make these; the core never sees a socket, only link numbers. Randomness (run ids) and
lookups (files by name, digests) have been done before an input is made.
"""

from __future__ import annotations

from enum import Enum

from msgspec import Struct, field

from titan_proto.ids import AttemptRef
from titan_proto.messages import (
    CancelRun,
    CordonWorker,
    DecideGate,
    ExplainJob,
    Fired,
    GetJob,
    GetRun,
    GetScaling,
    GetSchedule,
    GetStats,
    Join,
    Kin,
    ListAttempts,
    ListDead,
    ListGates,
    ListJobs,
    ListRuns,
    ListSchedules,
    ListServices,
    ListWorkers,
    PauseSchedule,
    ReadLog,
    RemoveSchedule,
    RerunRun,
    RestartService,
    ScaleService,
    ShutDownWorker,
    SpawnReport,
    SpawnWorker,
    StopJob,
    StopService,
    TriggerSchedule,
    WaitJob,
    WaitRun,
    WatchRun,
    WorkerStatus,
)
from titan_proto.messages.worker import AttemptReport, Left
from titan_proto.specs import RunSpec, ScheduleSpec


class Origin(Struct, frozen=True, order=True):
    """Where an answer goes: a link and the exchange on it. Link numbers are never used twice."""

    link_id: int
    correlation: int


Ask = (
    CancelRun
    | GetRun
    | ListRuns
    | ListJobs
    | GetJob
    | ListAttempts
    | WaitRun
    | WaitJob
    | WatchRun
    | ReadLog
    | RerunRun
    | ListDead
    | ListServices
    | StopService
    | ScaleService
    | RestartService
    | StopJob
    | ListGates
    | DecideGate
    | GetStats
    | ShutDownWorker
    | CordonWorker
    | ExplainJob
    | ListWorkers
    | SpawnWorker
    | GetScaling
    | ListSchedules
    | GetSchedule
    | PauseSchedule
    | TriggerSchedule
    | RemoveSchedule
)
"""Requests that go to the core as they are."""


class RunSubmitted(Struct, frozen=True, kw_only=True):
    """A valid spec, decoded; `run_id` was drawn in the shell for the case that it is accepted."""

    origin: Origin
    run_id: str
    key: str
    digest: str
    """SHA-256 of `spec_bytes`: decides whether the same key has the same content."""
    spec: RunSpec
    spec_bytes: bytes
    """The msgpack encoding of `spec`, as the journal keeps it."""
    owner: str
    rerun_of: str = ""
    """Id of the ended run that this one repeats."""
    rerun_alias: str = ""
    taken_over: tuple[str, ...] = ()
    """Jobs that succeeded there and need not run again."""
    outputs: dict[str, dict[str, str]] = field(default_factory=dict)
    """What they left there for others."""
    left: tuple[tuple[str, Left], ...] = ()
    """Likewise: the files, in the order in which they were accepted there."""
    homes: tuple[tuple[str, str], ...] = ()
    """Of those that left files which nobody has stored: the workspaces where they lie."""
    ancestors: tuple[str, ...] = ()
    """The runs that `rerun_of` repeated in its turn, the newest first."""
    parent: AttemptRef | None = None
    """The attempt that asked for it."""
    notices: tuple[str, ...] = ()
    """For the receipt: what became of the files that came along."""
    fired: Fired | None = None
    """The slot of the run that this one repeats."""


class ScheduleSubmitted(Struct, frozen=True, kw_only=True):
    """A valid schedule; `schedule_id` was drawn in the shell for the case that it is a new one."""

    origin: Origin
    name: str
    schedule_id: str
    spec: ScheduleSpec
    run: RunSpec
    run_bytes: bytes
    """The msgpack encoding of `run`, as the journal keeps it."""
    digest: str
    """Of what the client sent: the same again changes nothing."""
    owner: str


class Asked(Struct, frozen=True, kw_only=True):
    """A request."""

    origin: Origin
    request: Ask
    by: str = ""
    """The public id of the token behind the link; a run keeps it as its owner, a gate as its judge."""


class ExchangeDropped(Struct, frozen=True, kw_only=True):
    """The requester cancelled this exchange: nobody waits for it any more."""

    origin: Origin


class WorkerArrived(Struct, frozen=True, kw_only=True):
    """A worker joins on a link."""

    link_id: int
    join: Join
    kin: Kin | None = None
    """What it has said before that of workers that are spawned."""


class WorkerHeard(Struct, frozen=True, kw_only=True):
    """A heartbeat of a worker that was silent; all others are heard past the inbox."""

    link_id: int
    status: WorkerStatus


class Heard(Enum):
    """Whose heartbeat it was, and so what to do about it."""

    STRANGER = "STRANGER"
    """Nobody who has joined on that link, or somebody given up: no acknowledgement."""
    KNOWN = "KNOWN"
    """Acknowledge it."""
    CHANGING = "CHANGING"
    """Acknowledge it, and put it into the inbox too: the worker's state changes by it."""


class ReportsArrived(Struct, frozen=True, kw_only=True):
    """A worker reports on its attempts."""

    link_id: int
    reports: tuple[AttemptReport, ...]


class SpawnsReported(Struct, frozen=True, kw_only=True):
    """A worker says what became of siblings that it was told to spawn."""

    link_id: int
    reports: tuple[SpawnReport, ...]


class WorkerLeft(Struct, frozen=True, kw_only=True):
    """A worker says goodbye for good."""

    link_id: int


class LinkClosed(Struct, frozen=True, kw_only=True):
    """A link is gone, whoever was on it."""

    link_id: int


class StorageChanged(Struct, frozen=True, kw_only=True):
    """Somebody has looked at the disk that the journal lies on. Never journalled."""

    room_bytes: int
    """So much may be begun; 0 and less: what is left is kept for what has begun already."""
    free_bytes: int
    """As the disk says."""
    wanted_bytes: int
    """So much must be free for new work to be let in again."""


Input = (
    RunSubmitted
    | ScheduleSubmitted
    | Asked
    | ExchangeDropped
    | WorkerArrived
    | WorkerHeard
    | ReportsArrived
    | SpawnsReported
    | WorkerLeft
    | LinkClosed
    | StorageChanged
)
