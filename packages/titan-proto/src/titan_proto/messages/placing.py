"""Messages about placement: what workers have for jobs, and why a job is not on one."""

from __future__ import annotations

from typing import ClassVar

from msgspec import Struct, field

from titan_proto.messages.base import Message, Request
from titan_proto.messages.cluster import WorkerView
from titan_proto.opcodes import OpCode
from titan_proto.states import JobState, OpenEnum


class Room(Struct, frozen=True, kw_only=True):
    """How much of a counted resource a worker has, and how much of that is taken."""

    total: int
    taken: int = 0


class WorkerDetail(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A worker, with what decides about placements on it beside slots and skills."""

    worker: WorkerView
    resources: dict[str, Room] = field(default_factory=dict)
    """By name; in the units of `Counted`."""
    cordoned: bool = False
    """It is given nothing new, until somebody takes that back."""
    attempts: int = 0
    """Live ones on it, services included."""


class WorkerList(Message, frozen=True, kw_only=True):
    """Workers, by host and port."""

    OPCODE: ClassVar[OpCode] = OpCode.WORKER_LIST
    workers: tuple[WorkerDetail, ...]


class ListWorkers(Request[WorkerList], frozen=True, kw_only=True):
    """Ask for all of them, or for one."""

    OPCODE: ClassVar[OpCode] = OpCode.LIST_WORKERS
    worker: str = ""
    """Its port, its name (`host:port`) or its id."""


class CordonWorker(Request[WorkerList], frozen=True, kw_only=True):
    """Give a worker nothing new, or take that back. Lasts through crashes of both sides."""

    OPCODE: ClassVar[OpCode] = OpCode.CORDON_WORKER
    worker: str
    """Its port, its name (`host:port`) or its id."""
    cordoned: bool = True
    drain: bool = False
    """Its services are brought up elsewhere, too; each is stopped once that is healthy."""


class CauseKind(OpenEnum):
    """Why a job does not run; or, PLACED, why it is where it is."""

    DEPENDENCIES = "DEPENDENCIES"
    """Jobs before it have not come as far as it needs them."""
    DELAY = "DELAY"
    """It is not its time yet."""
    APPROVAL = "APPROVAL"
    """A person decides."""
    BACKOFF = "BACKOFF"
    """It failed, and is tried again after a while."""
    GROUP = "GROUP"
    """As many of its concurrency group are live as may."""
    SKILLS = "SKILLS"
    """No worker has what it needs, or there is none."""
    RESOURCES = "RESOURCES"
    """Of something that is counted not enough is left."""
    SLOTS = "SLOTS"
    """Not enough slots are free."""
    AFFINITY = "AFFINITY"
    """It has to be where another job was, or where its files are, and nobody can have it there."""
    PIN = "PIN"
    """The worker that it is for is not here."""
    AWAY = "AWAY"
    """Workers that could have it are known, and none of them is here."""
    CORDONED = "CORDONED"
    """Those that could have it are given nothing new."""
    PORT = "PORT"
    """A service has its fixed port wherever it could be."""
    AVOIDED = "AVOIDED"
    """It has failed wherever it could be."""
    REPLACES = "REPLACES"
    """It is exclusive, and takes the place of what is not gone yet."""
    STORAGE = "STORAGE"
    """The master's disk is full: nothing begins."""
    TURN = "TURN"
    """It can be placed, and is about to be."""
    STOPPING = "STOPPING"
    """It is being stopped."""
    PLACED = "PLACED"
    """It is on a worker."""
    ENDED = "ENDED"
    UNKNOWN = "UNKNOWN"


class WorkerReason(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What keeps a job from one worker, with numbers."""

    worker: str
    kind: CauseKind
    message: str
    resource: str = ""
    """Of RESOURCES: which; in its own unit are the numbers."""
    wanted: int = 0
    """Slots, or units of the resource ..."""
    free: int = 0
    total: int = 0
    """... and how many this worker has."""


class Cause(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that keeps a job from running."""

    kind: CauseKind
    message: str
    since_ms: int = 0
    until_ms: int = 0
    """When it is over, where that is known."""
    jobs: tuple[str, ...] = ()
    """Those that it waits for, or that have what it needs; the first few."""
    workers: tuple[WorkerReason, ...] = ()
    """What keeps it from each; the first few."""
    position: int = 0
    """In the queue of those that need the same: 1 is next."""
    queued: int = 0
    """How many are in that queue."""
    group: str = ""
    limit: int = 0
    taken: int = 0
    """Of the group."""


class Explanation(Message, frozen=True, kw_only=True):
    """Why a job does not run, one cause after the other: the next one counts once the first is gone."""

    OPCODE: ClassVar[OpCode] = OpCode.EXPLANATION
    run_id: str
    run_alias: str
    job_id: str
    state: JobState
    causes: tuple[Cause, ...]
    expected_at_ms: int = 0
    """When it begins, where that is known."""
    at_ms: int = 0


class ExplainJob(Request[Explanation], frozen=True, kw_only=True):
    """Ask why a job of a live run, or a service, does not run."""

    OPCODE: ClassVar[OpCode] = OpCode.EXPLAIN_JOB
    job: str
    run: str
    """The run's id or alias."""
