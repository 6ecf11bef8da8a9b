"""Messages about runs and jobs: submit, cancel, ask, wait, watch.

A selector names a run: its id, its alias, a unique prefix of either, or ``@last``.
"""

from __future__ import annotations

from typing import ClassVar

from msgspec import Struct, field

from titan_proto.ids import AttemptRef
from titan_proto.messages.base import Message, Request
from titan_proto.messages.gates import GateView
from titan_proto.opcodes import OpCode
from titan_proto.specs import JobKind, JobSpec, Resources, RunSpec, Shape
from titan_proto.states import AttemptState, ExitReason, JobState, OpenEnum, RunState


class Fired(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which schedule began a run, and for which slot."""

    schedule: str
    schedule_id: str
    version: int
    slot_at_ms: int
    triggered: bool = False
    """A person asked for it."""


class RunReceipt(Message, frozen=True, kw_only=True):
    """The run is durable."""

    OPCODE: ClassVar[OpCode] = OpCode.RUN_RECEIPT
    run_id: str
    alias: str
    known: bool = False
    """The same key had been accepted before: this is that run."""
    notices: tuple[str, ...] = ()
    """What became of the files that came along, where their owners should know of it."""


class SubmitRun(Request[RunReceipt], frozen=True, kw_only=True):
    """Ask for a run. The same key with the same content is the same run."""

    OPCODE: ClassVar[OpCode] = OpCode.SUBMIT_RUN
    key: str
    """Made by the client before its first try; every retry carries it again."""
    spec: RunSpec | None = None
    spec_digest: str = ""
    """Instead of `spec`: the digest of an uploaded artifact that holds its encoding."""
    parent: AttemptRef | None = None
    """The attempt that asks for it, if it is one: its worker is preferred for the run's jobs."""


class RunView(Message, frozen=True, kw_only=True):
    """A run as it stands."""

    OPCODE: ClassVar[OpCode] = OpCode.RUN_VIEW
    run_id: str
    alias: str
    name: str
    state: RunState
    submitted_at_ms: int
    ended_at_ms: int = 0
    jobs: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    """Jobs by state."""
    rerun_of: str = ""
    """Alias of the run that this one repeats."""
    fired: Fired | None = None
    """Of a run that a schedule has begun."""


class JobView(Message, frozen=True, kw_only=True):
    """A job as it stands, with its newest attempt."""

    OPCODE: ClassVar[OpCode] = OpCode.JOB_VIEW
    run_id: str
    run_alias: str
    job_id: str
    kind: JobKind
    state: JobState
    attempt: int = 0
    attempt_state: AttemptState = AttemptState.UNKNOWN
    worker: str = ""
    reason: ExitReason = ExitReason.UNKNOWN
    exit_code: int = 0
    signal: int = 0
    message: str = ""
    ready_at_ms: int = 0
    placed_at_ms: int = 0
    started_at_ms: int = 0
    ended_at_ms: int = 0
    lost: int = 0
    """Attempts that were lost."""
    port: int = 0
    dependencies: tuple[str, ...] = ()
    waits_for: tuple[str, ...] = ()
    """What it waits for: dependencies, and what still runs above those that ended early; the first few."""
    stdout_bytes: int = 0
    stderr_bytes: int = 0
    failures: int = 0
    """Attempts that failed by themselves."""
    retries: int = 0
    """How many of those may be followed by another try."""
    gate: GateView | None = None
    """Of a gate: its question, and what became of it."""
    outputs: dict[str, str] = field(default_factory=dict)
    """Of a job that succeeded: the small values that it left for others."""
    resources: Resources | None = None
    """What an attempt of it may use at most, where something was asked for."""
    shape: Shape | None = None
    """What its run says of it beside its definition, where it says something."""


class CancelRun(Request[RunView], frozen=True, kw_only=True):
    """End a run: nothing new starts, what runs is stopped. Cancelling twice is one cancel."""

    OPCODE: ClassVar[OpCode] = OpCode.CANCEL_RUN
    run: str


class GetRun(Request[RunView], frozen=True, kw_only=True):
    """One run."""

    OPCODE: ClassVar[OpCode] = OpCode.GET_RUN
    run: str


class RunList(Message, frozen=True, kw_only=True):
    """One page of runs, newest first."""

    OPCODE: ClassVar[OpCode] = OpCode.RUN_LIST
    runs: tuple[RunView, ...]
    cursor: str = ""
    """Give it to the next request; empty when this is the last page."""


class ListRuns(Request[RunList], frozen=True, kw_only=True):
    """Active runs; with `ended`, ended ones too."""

    OPCODE: ClassVar[OpCode] = OpCode.LIST_RUNS
    ended: bool = False
    cursor: str = ""
    limit: int = 100


class JobList(Message, frozen=True, kw_only=True):
    """One page of a run's jobs, in the order of the submission."""

    OPCODE: ClassVar[OpCode] = OpCode.JOB_LIST
    jobs: tuple[JobView, ...]
    cursor: str = ""


class ListJobs(Request[JobList], frozen=True, kw_only=True):
    """The jobs of a run."""

    OPCODE: ClassVar[OpCode] = OpCode.LIST_JOBS
    run: str
    cursor: str = ""
    limit: int = 1_000


class GetJob(Request[JobView], frozen=True, kw_only=True):
    """One job; with no run, that job of the newest run that has it."""

    OPCODE: ClassVar[OpCode] = OpCode.GET_JOB
    job: str
    run: str = ""


class AttemptView(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One try at executing a job."""

    number: int
    state: AttemptState
    worker: str = ""
    reason: ExitReason = ExitReason.UNKNOWN
    exit_code: int = 0
    signal: int = 0
    message: str = ""
    placed_at_ms: int = 0
    started_at_ms: int = 0
    ended_at_ms: int = 0
    stdout_bytes: int = 0
    stderr_bytes: int = 0


class AttemptList(Message, frozen=True, kw_only=True):
    """What a job is, and every try at it: by number, the newest last."""

    OPCODE: ClassVar[OpCode] = OpCode.ATTEMPT_LIST
    job: JobView
    attempts: tuple[AttemptView, ...] = ()
    """Of a job that was tried more often than ``ATTEMPTS_LISTED``, the newest."""
    spec: JobSpec | None = None
    """As it was submitted, but for the values of `env`: they may be secrets, and are left out."""


class ListAttempts(Request[AttemptList], frozen=True, kw_only=True):
    """Ask for them. The run is named by a selector, a service's further instance by its own id."""

    OPCODE: ClassVar[OpCode] = OpCode.LIST_ATTEMPTS
    run: str
    job: str


class WaitRun(Request[RunView], frozen=True, kw_only=True):
    """Answered when the run has ended; at once if it has."""

    OPCODE: ClassVar[OpCode] = OpCode.WAIT_RUN
    run: str


class JobMilestone(OpenEnum):
    """What `WaitJob` waits for."""

    STARTED = "STARTED"
    """An attempt of it runs, or it has ended."""
    ENDED = "ENDED"
    """It is terminal (for a service: settled)."""
    UNKNOWN = "UNKNOWN"


class WaitJob(Request[JobView], frozen=True, kw_only=True):
    """Answered when the job has come so far."""

    OPCODE: ClassVar[OpCode] = OpCode.WAIT_JOB
    run: str
    job: str
    until: JobMilestone = JobMilestone.ENDED


class JobChange(Message, frozen=True, kw_only=True):
    """A job has another state now. The stream's last one carries the run's end in `run_state`."""

    OPCODE: ClassVar[OpCode] = OpCode.JOB_CHANGE
    run_id: str
    at_ms: int
    job_id: str = ""
    state: JobState = JobState.UNKNOWN
    attempt: int = 0
    worker: str = ""
    reason: ExitReason = ExitReason.UNKNOWN
    exit_code: int = 0
    signal: int = 0
    message: str = ""
    port: int = 0
    run_state: RunState = RunState.ACTIVE


class WatchRun(Request[JobChange], frozen=True, kw_only=True):
    """A stream: the present state of each job that has moved, then every change to the end."""

    OPCODE: ClassVar[OpCode] = OpCode.WATCH_RUN
    run: str


class RerunRun(Request[RunReceipt], frozen=True, kw_only=True):
    """Run an ended run again, as a new run that names it.

    Without `failed` and `from_job` every job runs again. What is not run again is taken over as it
    ended: its state, and the files in the run's shared folder.
    """

    OPCODE: ClassVar[OpCode] = OpCode.RERUN_RUN
    key: str
    """As a submission's."""
    run: str
    failed: bool = False
    """Only what did not succeed."""
    from_job: str = ""
    """This job, everything that hangs on it, and what did not succeed."""
