"""Messages between a worker and its master: joining, orders, reports, heartbeats, leaving."""

from __future__ import annotations

from typing import ClassVar

from msgspec import Struct, field

from titan_proto.ids import AttemptRef
from titan_proto.messages.base import Message
from titan_proto.opcodes import OpCode
from titan_proto.specs import ArtifactRef, JobSpec
from titan_proto.states import AttemptState, ExitReason


class HeldAttempt(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of a worker's inventory: an attempt that it has not been allowed to forget."""

    ref: AttemptRef
    state: AttemptState


class Left(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The files that an attempt left for others: a list of them, stored as an artifact.

    The list names the bytes of each file by their digest, or holds them where they are few.
    """

    digest: str
    """Of the list; empty where nothing has been stored."""
    size_bytes: int
    """Of the list."""
    shared: int = 0
    """Files of the run's shared folder, new or changed."""
    artifacts: int = 0
    """Files of its working folder that its job hands out."""
    kept: bool = False
    """There is something in the shared folder of its run that was not to be stored: it is in this
    worker's and nowhere else."""


class Layer(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one job has left in its run's shared folder, and its place among all that did."""

    index: int
    """1 for the first that was accepted: of two files of one path the later counts."""
    left: Left


class Join(Message, frozen=True, kw_only=True):
    """A worker introduces itself on a new link, with everything it holds."""

    OPCODE: ClassVar[OpCode] = OpCode.JOIN
    worker_id: str
    """For ever; lives in the worker's ledger."""
    host: str
    port: int
    """Part of the worker's name (`host:port`); nothing need listen there."""
    incarnation: int
    """Grows by one at each start of the worker's process."""
    boot_id: str
    software: str
    slots: int
    skills: tuple[str, ...]
    held: tuple[HeldAttempt, ...] = ()
    pid: int = 0
    leaving: bool = False
    """It has been told to stop, and joins only to be heard: nothing new for it."""
    takes_shutdown: bool = False
    """It understands ShutDown. Workers of before do not, and can be ended on their host only."""
    workspace: str = ""
    """Id of the folder that its jobs run in, which several workers may share."""
    resources: dict[str, int] = field(default_factory=dict)
    """What jobs can take of it, in the units of `Counted`. Of `cpu` and `memory`, where they are not
    there, it does not know, and nothing is counted; of all others it has none."""
    network: str = ""
    """Id of the network that its jobs listen in: two workers that say the same share their ports. One
    that says nothing shares those of its host and boot."""


class Joined(Message, frozen=True, kw_only=True):
    """The master has reconciled the inventory."""

    OPCODE: ClassVar[OpCode] = OpCode.JOINED
    term: int
    heartbeat_ms: int
    lost_after_ms: int
    stop: tuple[AttemptRef, ...] = ()
    """Attempts the worker must stop: they were given away, cancelled, or are unknown here."""
    forget: tuple[AttemptRef, ...] = ()
    """Ended attempts whose reports are already recorded, or are of no use any more."""
    moves_services: bool = False
    """This master brings the services of a worker that leaves up elsewhere, and then tells it to stop
    them: it keeps them up for so long, within its time for leaving."""


class WorkerStatus(Message, frozen=True, kw_only=True):
    """Heartbeat. Stamped on receipt, never journalled."""

    OPCODE: ClassVar[OpCode] = OpCode.WORKER_STATUS
    running: int
    """Attempts that occupy a slot."""
    beat: int = 0
    """Grows with every heartbeat of a link; its acknowledgement names it."""
    cpu_permille: int = 0
    """Of the whole host: 1000 means every core is busy."""
    memory_used_bytes: int = 0
    memory_total_bytes: int = 0
    leaving: bool = False
    """It has been told to stop: said at once, before anything that follows from it."""
    at_once: bool = False
    """And to wait for nothing, as where the whole cluster goes down: its services are being stopped, and
    come up again, as what they are, where there is a worker for them."""


class HeartbeatAck(Message, frozen=True, kw_only=True):
    """That heartbeat was heard, and the worker's lease renewed, counted from when it was sent."""

    OPCODE: ClassVar[OpCode] = OpCode.HEARTBEAT_ACK
    beat: int


class AttemptOrder(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One placement: everything the worker needs to execute it."""

    ref: AttemptRef
    fence: int
    """One number that grows with every placement of the cluster."""
    spec: JobSpec
    run_name: str
    workspace: ArtifactRef | None = None
    takes_over: str = ""
    """Id of the run that this one repeats: its shared folder is where this one's begins."""
    publishes: bool = False
    """What it leaves in the shared folder is recorded, because it may be wanted in another one."""
    layers: tuple[Layer, ...] = ()
    """What must be in the shared folder before it starts, and was not named on this link before."""
    intake: dict[str, Left] = field(default_factory=dict)
    """By job: where the files that it takes in are listed."""
    ancestors: tuple[str, ...] = ()
    """The runs that `takes_over` repeated in its turn, the newest first: where nothing of it was executed
    here, the shared folder of the first of them that is here stands in for its own."""
    scheduled_for_ms: int = 0
    """Of a run that a schedule has begun: the slot."""


class StartAttempts(Message, frozen=True, kw_only=True):
    """Placements, many in one frame, those of one link in the order of their fences.

    One that is held is not begun again; nor is one, held no more, that comes behind a newer one.
    """

    OPCODE: ClassVar[OpCode] = OpCode.START_ATTEMPTS
    term: int
    orders: tuple[AttemptOrder, ...]


class StopAttempts(Message, frozen=True, kw_only=True):
    """Stop these: SIGTERM to the group, the attempt's stop grace, SIGKILL."""

    OPCODE: ClassVar[OpCode] = OpCode.STOP_ATTEMPTS
    term: int
    refs: tuple[AttemptRef, ...]
    reason: ExitReason


class AttemptReport(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of an attempt. State RUNNING: it started (or became healthy). ENDED: how."""

    ref: AttemptRef
    state: AttemptState
    started_at_ms: int = 0
    ended_at_ms: int = 0
    healthy: bool = False
    """A service's port answers."""
    port: int = 0
    reason: ExitReason = ExitReason.UNKNOWN
    exit_code: int = 0
    signal: int = 0
    message: str = ""
    """What a person reads when the attempt failed before or beside its process."""
    stdout_bytes: int = 0
    stderr_bytes: int = 0
    restarts: int = 0
    """How often a service's process was started again in this attempt."""
    outputs: dict[str, str] = field(default_factory=dict)
    """Of one that exited well: the small values that it leaves for others."""
    left: Left | None = None
    """Of one that exited well, and of a service that is healthy: the files."""


class AttemptReports(Message, frozen=True, kw_only=True):
    """Reports, many in one frame, in the order in which things happened."""

    OPCODE: ClassVar[OpCode] = OpCode.ATTEMPT_REPORTS
    reports: tuple[AttemptReport, ...]


class ReportAcks(Message, frozen=True, kw_only=True):
    """The ends of these attempts are durable: the worker may forget them."""

    OPCODE: ClassVar[OpCode] = OpCode.REPORT_ACKS
    refs: tuple[AttemptRef, ...]


class ShutDown(Message, frozen=True, kw_only=True):
    """Somebody wants this worker gone: drain, say goodbye, and end. Said twice, the sooner counts."""

    OPCODE: ClassVar[OpCode] = OpCode.SHUT_DOWN
    term: int
    drain_ms: int | None = None
    """How long running tasks may go on; 0: not at all; absent: as long as the worker was started
    to let them."""


class Leave(Message, frozen=True, kw_only=True):
    """The worker has stopped everything, reported it, and goes."""

    OPCODE: ClassVar[OpCode] = OpCode.LEAVE
