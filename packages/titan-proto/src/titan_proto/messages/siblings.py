"""Messages about workers that workers spawn: the order, what became of it, and who is whose sibling."""

from __future__ import annotations

from typing import ClassVar

from msgspec import Struct

from titan_proto.messages.base import Message, Request
from titan_proto.opcodes import OpCode
from titan_proto.states import ScalingKind


class SpawnReport(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a worker says of a sibling that it was told to spawn."""

    number: int
    ended: bool = False
    """Its process is gone, or never came to be."""
    message: str = ""
    """Why, for people."""


class Kin(Message, frozen=True, kw_only=True):
    """What a worker says, just before its Join, of workers that it spawns and of the one that spawned it.

    Masters of before ignore it, and workers that do not say it cannot spawn.
    """

    OPCODE: ClassVar[OpCode] = OpCode.KIN
    cores: int = 0
    """Of its host; 0: it cannot spawn."""
    number: int = 0
    """It is the sibling that was asked for under this number ..."""
    proof: str = ""
    """... as this shows, which only the order for it has said."""
    spawned: tuple[SpawnReport, ...] = ()
    """Siblings that it was told to spawn, and of which no verdict has been heard."""


class SpawnSibling(Message, frozen=True, kw_only=True):
    """Spawn a worker like yourself, once for each number, however often this is said."""

    OPCODE: ClassVar[OpCode] = OpCode.SPAWN_SIBLING
    term: int
    number: int
    """A fence: it grows with everything that is ordered in the cluster, for ever."""
    proof: str
    """What the new worker must show when it joins."""
    port: int
    """Part of its name; where another process has it the next free one, unless `exact`."""
    slots: int
    skills: tuple[str, ...]
    exact: bool = False
    join_within_ms: int = 0
    """It ends by itself if it has not joined so long after its start."""


class SpawnReports(Message, frozen=True, kw_only=True):
    """Siblings whose processes have ended, or could not be started."""

    OPCODE: ClassVar[OpCode] = OpCode.SPAWN_REPORTS
    reports: tuple[SpawnReport, ...]


class SpawnVerdicts(Message, frozen=True, kw_only=True):
    """What the master has decided about siblings that a worker has spawned."""

    OPCODE: ClassVar[OpCode] = OpCode.SPAWN_VERDICTS
    term: int
    settled: tuple[int, ...] = ()
    """They have joined, or their end is known: nothing need be said of them any more."""
    given_up: tuple[int, ...] = ()
    """They are wanted no more and have not joined: to be killed."""


class SpawnOrdered(Message, frozen=True, kw_only=True):
    """A worker was told to spawn another one; what becomes of it is in Scaling."""

    OPCODE: ClassVar[OpCode] = OpCode.SPAWN_ORDERED
    number: int
    parent: str
    """Name of the worker that spawns it."""
    port: int


class SpawnWorker(Request[SpawnOrdered], frozen=True, kw_only=True):
    """Have a worker spawned by hand. It stays until it is shut down."""

    OPCODE: ClassVar[OpCode] = OpCode.SPAWN_WORKER
    port: int
    parent: str = ""
    """Port, name or id of the worker that shall do it; empty: the master picks one."""
    slots: int = 0
    """0: as many as that one has."""
    skills: tuple[str, ...] = ()
    """Empty: as that one's."""


class SiblingView(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A worker that was spawned by another one."""

    worker_id: str
    worker: str
    number: int
    parent_id: str
    parent: str
    """Name of the worker that spawned it."""
    by_hand: bool = False
    cause: str = ""
    dismissed: bool = False
    """It has been told to leave, because it was idle."""


class SpawnView(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A worker that has been asked for and has not joined yet."""

    number: int
    parent: str
    port: int
    asked_at_ms: int
    by_hand: bool = False
    cause: str = ""


class ScalingChange(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that happened to a spawned worker, and why."""

    at_ms: int
    number: int
    kind: ScalingKind
    parent: str = ""
    worker: str = ""
    """Its name, once it has joined; before that the one that it is to have."""
    cause: str = ""


class Scaling(Message, frozen=True, kw_only=True):
    """Which workers were spawned, by whom and why, and what may be spawned."""

    OPCODE: ClassVar[OpCode] = OpCode.SCALING
    on: bool
    """Whether the queue makes workers spawn others."""
    every_ms: int
    idle_ms: int
    per_host: int
    total: int
    slots_per_core: int
    siblings: tuple[SiblingView, ...] = ()
    asked: tuple[SpawnView, ...] = ()
    recent: tuple[ScalingChange, ...] = ()
    """The last of all, oldest first."""


class GetScaling(Request[Scaling], frozen=True, kw_only=True):
    """Ask for it."""

    OPCODE: ClassVar[OpCode] = OpCode.GET_SCALING
