"""What may enter the worker's core: messages of the master, and what became of its effects."""

from __future__ import annotations

from msgspec import Struct, field

from titan_proto.ids import AttemptRef
from titan_proto.messages import (
    HeartbeatAck,
    Joined,
    ReportAcks,
    ShutDown,
    SpawnSibling,
    SpawnVerdicts,
    StartAttempts,
    StopAttempts,
)
from titan_proto.messages.worker import Left


class Started(Struct, frozen=True, kw_only=True):
    """First input of a process; whatever earlier incarnations left running has been swept."""

    boot_id: str


class LinkUp(Struct, frozen=True, kw_only=True):
    """The handshake is done; the core answers with Join."""

    cluster_id: str
    term: int


class LinkDown(Struct, frozen=True, kw_only=True):
    """The link is gone. Attempts go on; reports wait."""


class FromMaster(Struct, frozen=True, kw_only=True):
    """A message of the master on the present link."""

    message: (
        Joined
        | StartAttempts
        | StopAttempts
        | ReportAcks
        | HeartbeatAck
        | ShutDown
        | SpawnSibling
        | SpawnVerdicts
    )


class WorkspaceReady(Struct, frozen=True, kw_only=True):
    """The attempt's workspace is there and filled."""

    ref: AttemptRef


class WorkspaceFailed(Struct, frozen=True, kw_only=True):
    """It could not be made; `message` is for people."""

    ref: AttemptRef
    message: str


class Spawned(Struct, frozen=True, kw_only=True):
    """The process runs. (pid, start_ticks, boot id) is its identity, never the pid alone."""

    ref: AttemptRef
    pid: int
    start_ticks: int
    port: int = 0
    at_ms: int = 0
    """When it was started; 0: now. A host may tell a start a little late."""


class SpawnFailed(Struct, frozen=True, kw_only=True):
    """It could not be started."""

    ref: AttemptRef
    message: str


class Exited(Struct, frozen=True, kw_only=True):
    """The attempt's first process has ended and its group is gone.

    Of an exclusive attempt, or one that was told to stop, everything is gone that it started.
    """

    ref: AttemptRef
    exit_code: int
    """0 to 255; meaningless when `signal` is set."""
    signal: int
    stdout_bytes: int
    stderr_bytes: int
    lease_ended: bool = False
    """The guard of an exclusive attempt stopped it: no renewal came in time."""
    outputs: dict[str, str] = field(default_factory=dict)
    """What it left for others ..."""
    output_problem: str = ""
    """... or why that cannot be read, for people."""
    oom_killed: bool = False
    """The kernel has ended something of it, because it used more memory than its job may."""
    keeps: bool = False
    """There is something in the shared folder of its run, and nowhere but here."""
    left: Left | None = None
    """The files that it left for others, stored with the master by now ..."""
    left_problem: str = ""
    """... or why they cannot be taken, for people."""
    last_words: str = ""
    """Of a service: the end of what it wrote, for people who ask why it ended."""


class ProbeAnswered(Struct, frozen=True, kw_only=True):
    """A service's port answers, or a check of it passed."""

    ref: AttemptRef
    left: Left | None = None
    """The files that it has left for others by now."""


class ProbeFailed(Struct, frozen=True, kw_only=True):
    """A check of a service failed; at most one in its interval."""

    ref: AttemptRef
    message: str
    """Why, for people."""


class UsageSampled(Struct, frozen=True, kw_only=True):
    """The host's load, for the next heartbeat."""

    cpu_permille: int
    memory_used_bytes: int
    memory_total_bytes: int


class SiblingBegan(Struct, frozen=True, kw_only=True):
    """A sibling's process runs. (pid, start_ticks, boot id) is its identity."""

    number: int
    pid: int
    start_ticks: int
    port: int = 0
    """That it really has."""


class SiblingGone(Struct, frozen=True, kw_only=True):
    """A sibling's process has ended, or never came to be."""

    number: int
    message: str = ""
    """Why, for people."""


class StopRequested(Struct, frozen=True, kw_only=True):
    """Somebody here wants this worker to end: it drains and leaves. Said again: it drains no longer."""

    at_once: bool = False
    """Do not drain at all."""


Input = (
    Started
    | LinkUp
    | LinkDown
    | FromMaster
    | WorkspaceReady
    | WorkspaceFailed
    | Spawned
    | SpawnFailed
    | Exited
    | ProbeAnswered
    | ProbeFailed
    | UsageSampled
    | SiblingBegan
    | SiblingGone
    | StopRequested
)
