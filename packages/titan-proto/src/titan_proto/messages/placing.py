"""Messages about placement: what workers have for jobs, and whether they are given any."""

from __future__ import annotations

from typing import ClassVar

from msgspec import Struct, field

from titan_proto.messages.base import Message, Request
from titan_proto.messages.cluster import WorkerView
from titan_proto.opcodes import OpCode


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
