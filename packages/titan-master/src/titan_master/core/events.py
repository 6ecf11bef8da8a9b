"""What became true: the journal's vocabulary. ``apply`` turns each into state, nothing else does.

A tagged union: the reader is never older than the writer. Fields are added with a default that
means "as before", never renamed or retyped; a retired event keeps its tag and gets an upcaster
(``store/codec.py``). An event carries what history needs of it, so that the projection needs no
state.
"""

from __future__ import annotations

from msgspec import Struct, field

from titan_proto.limits import WORKER_LOST_AFTER_MS
from titan_proto.messages.runs import Fired
from titan_proto.messages.worker import Left
from titan_proto.specs import ScheduleSpec
from titan_proto.states import ExitReason, JobState, RunState, ScalingKind


class Event(Struct, frozen=True, kw_only=True, omit_defaults=True, tag=True):
    """Base of all events; the tag is the class's name."""

    at_ms: int


class ClusterFounded(Event, frozen=True, kw_only=True):
    """First event of a journal."""

    cluster_id: str
    name: str


class MasterStarted(Event, frozen=True, kw_only=True):
    """A master took the lead under a new term. Every worker gets a fresh lease."""

    term: int
    software: str = ""
    lost_after_ms: int = WORKER_LOST_AFTER_MS
    """The lease that it tells its workers."""
    fence: int = 0
    """Every fence from now on is above this; 0 changes nothing."""


# -- runs ---------------------------------------------------------------------------------------
class RunAccepted(Event, frozen=True, kw_only=True):
    """A run, whole: `apply` derives every job's first state from the spec."""

    run_id: str
    key: str
    digest: str
    name: str
    slug: str
    number: int
    """With `slug`, the run's alias ``slug-number``."""
    owner: str
    jobs: int
    spec: bytes
    """msgpack of the RunSpec, as it arrived."""
    rerun_of: str = ""
    """Id of the run that this one repeats."""
    rerun_alias: str = ""
    taken_over: tuple[str, ...] = ()
    """Jobs that succeeded there and do not run again: they begin as SUCCEEDED."""
    outputs: dict[str, dict[str, str]] = field(default_factory=dict)
    """What those of them that left outputs left there."""
    left: tuple[tuple[str, Left], ...] = ()
    """By job, in the order in which it was accepted there: the files that they left."""
    homes: tuple[tuple[str, str], ...] = ()
    """By job: in which worker's workspace the files lie that it left there and nobody has stored."""
    ancestors: tuple[str, ...] = ()
    """The runs that `rerun_of` repeated in its turn, the newest first: on a machine where nothing of
    `rerun_of` was executed, its shared folder is still that of one of them."""
    near: str = ""
    """The worker on which the attempt ran that asked for it: preferred for its jobs."""
    fired: Fired | None = None
    """Of a run that a schedule begins: its slot is decided by this event, and by no other."""


class RunCancelRequested(Event, frozen=True, kw_only=True):
    """Somebody cancelled the run; its jobs follow by events of their own."""

    run_id: str


class RunEnded(Event, frozen=True, kw_only=True):
    """Every job is terminal. The run leaves memory; history has it."""

    run_id: str
    state: RunState
    schedule: str = ""
    """Name of the schedule that began it."""


# -- jobs ---------------------------------------------------------------------------------------
class JobsScheduled(Event, frozen=True, kw_only=True):
    """Ready but delayed; each waits until its own time."""

    run_id: str
    job_ids: tuple[str, ...]
    until_ms: tuple[int, ...]


class JobsQueued(Event, frozen=True, kw_only=True):
    """Ready to be placed."""

    run_id: str
    job_ids: tuple[str, ...]


class JobBackoff(Event, frozen=True, kw_only=True):
    """Its attempt failed or was lost, and it will be queued again, but not before `until_ms`."""

    run_id: str
    job_id: str
    until_ms: int
    failures: int
    """Attempts that failed by themselves, this one included."""


class GatesOpened(Event, frozen=True, kw_only=True):
    """Somebody has to decide about these now. Those without dependencies open with their run."""

    run_id: str
    job_ids: tuple[str, ...]
    expires_ms: tuple[int, ...]
    """When each is decided by time; 0 means never."""


class GateDecided(Event, frozen=True, kw_only=True):
    """A person decided about a gate, or its time did; its JobEnded stands beside this event."""

    run_id: str
    job_id: str
    reason: ExitReason
    """APPROVED or REJECTED by a person, EXPIRED by time."""
    by: str = ""
    """The public id of the token that decided."""
    comment: str = ""
    opened_at_ms: int = 0
    expires_at_ms: int = 0


class JobCancelling(Event, frozen=True, kw_only=True):
    """The job's attempt has been told to stop; the job ends when the attempt does."""

    run_id: str
    job_id: str
    reason: ExitReason = ExitReason.CANCELLED
    """TIMED_OUT when the job as a whole took too long."""


class JobsDropped(Event, frozen=True, kw_only=True):
    """Jobs that end without (another) attempt: SKIPPED or CANCELLED, or FAILED before the first."""

    run_id: str
    job_ids: tuple[str, ...]
    state: JobState
    reason: ExitReason
    messages: tuple[str, ...] = ()
    """What is said of each, where something is."""


class JobEnded(Event, frozen=True, kw_only=True):
    """A job that had attempts is terminal, or a gate. For a service: it has settled."""

    run_id: str
    job_id: str
    state: JobState
    reason: ExitReason
    number: int
    lost: int = 0
    failures: int = 0
    exit_code: int = 0
    signal: int = 0
    message: str = ""
    outputs: dict[str, str] = field(default_factory=dict)
    """Of a success: what that attempt left for others. No other attempt's is ever recorded."""
    home: str = ""
    """Of a success that left files in the shared folder of its run which were not stored: the worker's
    workspace where they are, and nowhere else."""
    left: Left | None = None
    """Likewise: the files."""


# -- attempts -----------------------------------------------------------------------------------
class AttemptPlaced(Event, frozen=True, kw_only=True):
    """The decision "this attempt on that worker"."""

    run_id: str
    job_id: str
    number: int
    worker_id: str
    incarnation: int
    fence: int


class AttemptStarted(Event, frozen=True, kw_only=True):
    """Its process runs."""

    run_id: str
    job_id: str
    number: int
    port: int = 0


class AttemptEnded(Event, frozen=True, kw_only=True):
    """It is over; `reason` says how. LOST when nobody can say."""

    run_id: str
    job_id: str
    number: int
    worker_id: str
    worker: str
    """The worker's name at that time, for history."""
    reason: ExitReason
    exit_code: int = 0
    signal: int = 0
    message: str = ""
    placed_at_ms: int = 0
    started_at_ms: int = 0
    stdout_bytes: int = 0
    stderr_bytes: int = 0


# -- services -----------------------------------------------------------------------------------
class ServiceUp(Event, frozen=True, kw_only=True):
    """A service's attempt is healthy for the first time: from now on an object of the cluster."""

    name: str
    run_id: str
    job_id: str
    number: int
    worker_id: str
    port: int = 0
    restarts: int = 0


class ServiceAdded(Event, frozen=True, kw_only=True):
    """There is to be one more instance of a service: beside those there are, or in place of one."""

    run_id: str
    job_id: str
    of: str
    """The instance whose definition it has."""
    number: int
    """Its own among the instances of its job; never given again."""
    replaces: str = ""
    """The instance that goes once this one is healthy."""
    avoid: tuple[str, ...] = ()
    """Workers (by id) that it is not to come to."""
    why: str = ""
    """Where nobody asked for it: what made it."""


class ServiceChanged(Event, frozen=True, kw_only=True):
    """Its worker starts its process again, or that one answers."""

    run_id: str
    job_id: str
    healthy: bool
    restarts: int
    """In all, by this worker."""


class ServiceQueued(Event, frozen=True, kw_only=True):
    """Its attempt has ended and it is wanted still: it is to come up again, on whichever worker."""

    run_id: str
    job_id: str
    reason: ExitReason
    """Of the end of its last attempt."""
    moves: int = 0
    """How often it has been given away because it failed where it was, this time included."""
    avoid: tuple[str, ...] = ()
    """Workers (by id) that it is not to come to, since it failed there."""
    until_ms: int = 0
    """Not before; 0: at once."""
    why: str = ""
    """Of one whose worker was told to leave: why it was stopped there before it is up elsewhere."""


class ServiceStopping(Event, frozen=True, kw_only=True):
    """A person stopped it, or something took its place."""

    run_id: str
    job_id: str
    why: str = ""
    """Where nobody said that it shall stop: what made it."""


class ServiceEnded(Event, frozen=True, kw_only=True):
    """It is down; its AttemptEnded stands beside this event."""

    run_id: str
    job_id: str
    number: int
    stopped: bool
    """As ordered; otherwise it failed."""
    reason: ExitReason


# -- schedules ----------------------------------------------------------------------------------
class SchedulePut(Event, frozen=True, kw_only=True):
    """From now on this runs at these times: a new schedule, or a new version of one."""

    schedule: str
    """Its name."""
    schedule_id: str
    version: int
    spec: ScheduleSpec
    run: bytes
    """msgpack of the RunSpec."""
    digest: str
    """Of what the client sent: the same again is no new version."""
    owner: str = ""
    jobs: int = 0


class SchedulePaused(Event, frozen=True, kw_only=True):
    """It fires no more; slots that waited are dropped."""

    schedule: str
    by: str = ""
    """The public id of a token; empty where it paused itself."""
    why: str = ""


class ScheduleResumed(Event, frozen=True, kw_only=True):
    """It fires again, from now on: what came meanwhile is nobody's."""

    schedule: str


class ScheduleRemoved(Event, frozen=True, kw_only=True):
    """It is gone; its runs go on."""

    schedule: str


class SlotsPassed(Event, frozen=True, kw_only=True):
    """Slots up to `until_ms` that became nothing, and never will."""

    schedule: str
    until_ms: int
    count: int
    """So many; of very many, at least so many."""
    missed: bool = False
    """Nobody was there in time; otherwise a run of the schedule went on."""


class SlotQueued(Event, frozen=True, kw_only=True):
    """A slot that begins once the runs of its schedule have ended."""

    schedule: str
    slot_at_ms: int
    instead: bool = False
    """Of all that waited before."""


# -- workers ------------------------------------------------------------------------------------
class WorkerJoined(Event, frozen=True, kw_only=True):
    """A worker's process is here for the first time (a new worker or a new incarnation)."""

    worker_id: str
    host: str
    port: int
    incarnation: int
    boot_id: str
    slots: int
    skills: tuple[str, ...]
    software: str = ""
    workspace: str = ""
    """Id of the folder that its jobs run in."""
    spawn: int = 0
    """It is the sibling that was asked for under this number."""
    resources: dict[str, int] = field(default_factory=dict)
    """What jobs can take of it; see `Join`."""
    network: str = ""
    """Id of the network that its jobs listen in."""


class WorkerSilent(Event, frozen=True, kw_only=True):
    """Nothing heard for a third of the lease: nothing new is placed there."""

    worker_id: str


class WorkerDraining(Event, frozen=True, kw_only=True):
    """It said that it is being shut down: nothing new is placed there."""

    worker_id: str
    at_once: bool = False
    """It waits for nothing: its services are not replaced while they answer."""


class WorkerCordoned(Event, frozen=True, kw_only=True):
    """Somebody wants nothing new to be placed there, or has taken that back."""

    worker_id: str
    cordoned: bool
    by: str = ""


class WorkerReturned(Event, frozen=True, kw_only=True):
    """A silent (or lost) worker of the same incarnation is heard again."""

    worker_id: str


class WorkerLost(Event, frozen=True, kw_only=True):
    """Silent for the whole lease. Its attempts end as LOST by events of their own."""

    worker_id: str


class WorkerRetired(Event, frozen=True, kw_only=True):
    """It left in good order, or was forgotten long after it was lost."""

    worker_id: str


# -- workers that workers spawn -------------------------------------------------------------------
class SpawnAsked(Event, frozen=True, kw_only=True):
    """A worker shall spawn another one on its host. Waits for its SpawnSettled."""

    number: int
    """A fence: no placement and no other spawn has it."""
    worker_id: str
    """Of the worker that shall do it."""
    parent: str
    """Its name at that time."""
    host: str
    port: int
    slots: int
    skills: tuple[str, ...]
    exact: bool = False
    """Under that port and no other."""
    by_hand: bool = False
    cause: str = ""
    """For people: what waits, and what there is to serve it."""


class SpawnSettled(Event, frozen=True, kw_only=True):
    """What became of it: the new worker has joined, or none will be let in under that number."""

    number: int
    worker_id: str
    """Of the worker that was asked."""
    kind: ScalingKind
    """JOINED, FAILED or TIMED_OUT."""
    sibling_id: str = ""
    message: str = ""


class SiblingDismissed(Event, frozen=True, kw_only=True):
    """A spawned worker is told to leave. It gets nothing new."""

    worker_id: str
    why: str = ""


class PoisonRemembered(Event, frozen=True, kw_only=True):
    """An input with this digest broke an invariant; it is refused from now on."""

    digest: str
    what: str = ""


AnyEvent = (
    ClusterFounded
    | MasterStarted
    | RunAccepted
    | RunCancelRequested
    | RunEnded
    | JobsScheduled
    | JobsQueued
    | JobBackoff
    | GatesOpened
    | GateDecided
    | JobCancelling
    | JobsDropped
    | JobEnded
    | AttemptPlaced
    | AttemptStarted
    | AttemptEnded
    | ServiceUp
    | ServiceAdded
    | ServiceChanged
    | ServiceQueued
    | ServiceStopping
    | ServiceEnded
    | SchedulePut
    | SchedulePaused
    | ScheduleResumed
    | ScheduleRemoved
    | SlotsPassed
    | SlotQueued
    | WorkerJoined
    | WorkerSilent
    | WorkerDraining
    | WorkerCordoned
    | WorkerReturned
    | WorkerLost
    | WorkerRetired
    | SpawnAsked
    | SpawnSettled
    | SiblingDismissed
    | PoisonRemembered
)
