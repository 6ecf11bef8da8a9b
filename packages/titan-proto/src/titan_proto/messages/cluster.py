"""Messages about the cluster as a whole."""

from __future__ import annotations

from typing import ClassVar

from msgspec import Struct

from titan_proto.messages.base import Message, Request
from titan_proto.messages.runs import JobList
from titan_proto.opcodes import OpCode
from titan_proto.states import WorkerState


class WorkerView(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A worker as the master sees it."""

    worker_id: str
    host: str
    port: int
    state: WorkerState
    slots: int
    used: int
    """Slots taken."""
    skills: tuple[str, ...]
    incarnation: int = 0
    seen_ms_ago: int = 0
    cpu_permille: int = 0
    memory_used_bytes: int = 0
    memory_total_bytes: int = 0
    software: str = ""
    services: tuple[str, ...] = ()
    """Ids of the services on it, as `titan stop` takes them."""
    link_down_ms: int = 0
    """For so long it has had no link; 0: it has one. Its state follows only when the lease does."""


class Stats(Message, frozen=True, kw_only=True):
    """The cluster at a glance."""

    OPCODE: ClassVar[OpCode] = OpCode.STATS
    cluster_id: str
    cluster_name: str
    term: int
    at_ms: int
    started_at_ms: int
    """When this master started."""
    workers: tuple[WorkerView, ...]
    runs_active: int
    queued: int
    blocked: int
    delayed: int
    running: int
    services: int
    software: str = ""
    waiting: int = 0
    """Gates that are open."""
    backoff: int = 0
    """Jobs that will be tried again after a while."""


class GetStats(Request[Stats], frozen=True, kw_only=True):
    """Ask for them."""

    OPCODE: ClassVar[OpCode] = OpCode.GET_STATS


class Traffic(Message, frozen=True, kw_only=True):
    """What comes and goes beside the core, since this master started."""

    OPCODE: ClassVar[OpCode] = OpCode.TRAFFIC
    links: int
    """Open now."""
    log_datagrams: int
    """Pieces of logs that came ahead of their links."""


class GetTraffic(Request[Traffic], frozen=True, kw_only=True):
    """Ask for it."""

    OPCODE: ClassVar[OpCode] = OpCode.GET_TRAFFIC


class ListDead(Request[JobList], frozen=True, kw_only=True):
    """Jobs that failed for good: their tries are spent, or they lost too many workers. Newest first."""

    OPCODE: ClassVar[OpCode] = OpCode.LIST_DEAD
    cursor: str = ""
    limit: int = 100


class ShutdownOrdered(Message, frozen=True, kw_only=True):
    """The worker was told to leave; as it was then."""

    OPCODE: ClassVar[OpCode] = OpCode.SHUTDOWN_ORDERED
    worker: WorkerView


class ShutDownWorker(Request[ShutdownOrdered], frozen=True, kw_only=True):
    """Have a worker drain, say goodbye and end. Refused if it cannot be told now."""

    OPCODE: ClassVar[OpCode] = OpCode.SHUT_DOWN_WORKER
    worker: str
    """Its port, its name (`host:port`) or its id."""
    drain_ms: int | None = None
    """How long its running tasks may go on; 0: not at all; absent: as it was started to let them."""
