"""How busy workers are, and what their attempts use: looked at, never decided by, never journalled."""

from __future__ import annotations

from typing import ClassVar

from msgspec import Struct

from titan_proto.ids import AttemptRef
from titan_proto.messages.base import Message, Request
from titan_proto.opcodes import OpCode


class AttemptUsage(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One attempt, with all that it has started."""

    ref: AttemptRef
    cpu_milli: int = 0
    """Thousandths of a core, on average since the sample before."""
    memory_bytes: int = 0
    """What its processes have in memory; what they share counts for each."""
    processes: int = 0


class Usage(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One look at a worker's host, and at what the worker runs."""

    cpu_permille: int = 0
    """Of all cores together, on average since the sample before."""
    load_milli: int = 0
    """Thousandths of the load average of a minute."""
    memory_used_bytes: int = 0
    memory_total_bytes: int = 0
    disk_used_bytes: int = 0
    """Of the file system that the worker's data folder is on."""
    disk_total_bytes: int = 0
    received_bytes_per_s: int = 0
    """By all interfaces of the host but the loopback."""
    sent_bytes_per_s: int = 0
    attempts: tuple[AttemptUsage, ...] = ()
    """Those that run, the largest first, at most ``USAGE_ATTEMPTS``."""


class WorkerUsage(Message, frozen=True, kw_only=True):
    """A worker tells how busy it is. Ancillary: masters of before ignore it."""

    OPCODE: ClassVar[OpCode] = OpCode.WORKER_USAGE
    usage: Usage
    limits: str = ""
    """For people: what holds its attempts to their limits."""


class SampleUsage(Message, frozen=True, kw_only=True):
    """Somebody looks: tell it more often for a while. Ancillary: workers of before ignore it."""

    OPCODE: ClassVar[OpCode] = OpCode.SAMPLE_USAGE
    every_ms: int
    for_ms: int


class UsagePoint(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A look at a worker, and when the master heard of it."""

    at_ms: int
    usage: Usage


class WorkerUsageView(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the master remembers of one worker."""

    worker_id: str
    name: str
    """`host:port`."""
    at_ms: int
    usage: Usage
    """The newest."""
    limits: str = ""


class UsageView(Message, frozen=True, kw_only=True):
    """How busy the workers are; of one, how busy it has been."""

    OPCODE: ClassVar[OpCode] = OpCode.USAGE_VIEW
    at_ms: int
    workers: tuple[WorkerUsageView, ...] = ()
    history: tuple[UsagePoint, ...] = ()
    """Oldest first, at most ``USAGE_HISTORY_MS`` back; where that does not fit into a frame, the newest."""


class GetUsage(Request[UsageView], frozen=True, kw_only=True):
    """Ask for it. For as long as somebody asks again and again, workers look more often."""

    OPCODE: ClassVar[OpCode] = OpCode.GET_USAGE
    history_of: str = ""
    """The id of a worker."""
