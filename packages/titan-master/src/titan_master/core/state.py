"""State: everything the master knows that a restart must not change.

Only ``apply`` writes it, and only from events. What here can be computed from the rest (the ready
queue, counters, indexes) is kept by ``apply`` too, so that nothing ever scans all jobs, and is left
out of ``digest``. What a restart may forget (who is connected, who waits for an answer, when to
look again) is not here at all: see ``presence``, ``waiters`` and ``timers``.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Collection, Iterator
from itertools import islice
from typing import Final, NamedTuple

import msgspec
from msgspec import Struct, field
from msgspec.structs import replace

from titan_proto.limits import PRIORITY_MAX, WORKER_LOST_AFTER_MS
from titan_proto.messages import ScalingChange
from titan_proto.messages.runs import Fired
from titan_proto.messages.schedules import LastFired
from titan_proto.messages.worker import Layer, Left
from titan_proto.specs import (
    ArtifactRef,
    GateSection,
    JobSpec,
    Needs,
    ScheduleSpec,
    Shape,
    Terms,
    Trigger,
)
from titan_proto.states import (
    JOB_TERMINAL,
    AttemptState,
    ExitReason,
    JobState,
    OpenEnum,
    ServiceState,
    WorkerState,
)

LINE_LOOKED_AT: Final = 1_000
"""So far into a line it is looked for one that need not wait for what those before it wait for."""
OFFERS_REMEMBERED: Final = 256
"""Of so many different sets of workers' skills it is remembered which jobs they fit."""


_USUAL_GATE: Final = GateSection()
_NO_TERMS: Final = Terms()

UNCOUNTED: Final = frozenset({"cpu", "memory"})
"""Resources that every machine has: where a worker does not say how much, nothing is counted."""


class InvariantViolation(Exception):
    """A bug here: the process ends and recovers. Nobody catches it but the engine's way out."""


class Attempt(Struct, kw_only=True, gc=False, eq=False):
    """The newest try at a job; kept after its end for those who ask."""

    number: int
    worker_id: str
    worker: str
    """The worker's name, for people; the worker may be gone before its attempt is forgotten."""
    incarnation: int
    """Of the worker's process that it was placed on."""
    fence: int
    placed_at_ms: int
    state: AttemptState = AttemptState.PREPARING
    started_at_ms: int = 0
    ended_at_ms: int = 0
    port: int = 0
    reason: ExitReason = ExitReason.UNKNOWN
    exit_code: int = 0
    signal: int = 0
    message: str = ""
    stdout_bytes: int = 0
    stderr_bytes: int = 0
    workspace: str = ""
    """Id of the folder of its worker: what lies there outlives a worker that was spawned for a while."""

    @property
    def is_live(self) -> bool:
        """Whether it holds a slot."""
        return self.state is not AttemptState.ENDED


class Gate(Struct, kw_only=True, gc=False, eq=False):
    """What is known of a gate once it has been opened."""

    number: int
    """Its place in the order in which all gates were opened."""
    opened_at_ms: int
    expires_at_ms: int
    """0 means never."""
    decided_by: str = ""
    comment: str = ""


class Job(Struct, gc=False, eq=False):
    """A node of a run. A run may have 100,000, so this is small, and the garbage collector does not
    look after it: it names other jobs by text or number only and never becomes part of a cycle.
    """

    spec: JobSpec
    run_id: str
    index: int
    """Its place in the submission."""
    state: JobState
    waiting: int
    """Dependencies that are not over yet. Derived."""
    ready_at_ms: int = 0
    """When it was queued last; while SCHEDULED, when it will be."""
    queued_seq: int = 0
    """Its place in the order of all queueings."""
    lost: int = 0
    """Attempts that were lost."""
    attempt: Attempt | None = None
    reason: ExitReason = ExitReason.UNKNOWN
    ended_at_ms: int = 0
    message: str = ""
    failures: int = 0
    """Attempts that failed by themselves."""
    first_placed_at_ms: int = 0
    """When its first attempt was placed: from here the time of the job as a whole is counted."""
    stop_reason: ExitReason = ExitReason.UNKNOWN
    """While CANCELLING: why."""
    gate: Gate | None = None
    outputs: dict[str, str] | None = None
    """What its successful attempt left for others; None where that is nothing. Never changed."""
    left: Left | None = None
    """Likewise: the files."""
    layer: int = 0
    """The place of its files of the shared folder among those of all jobs of its run; 0: it left none."""
    layers: int = 0
    """Once it has ended: the layers that it and the jobs above it have left, as bits. Derived."""
    shape: Shape | None = None
    """What its run says of it beside its spec. Derived."""

    @property
    def trigger(self) -> Trigger:
        """Which ends of its dependencies let it begin."""
        return Trigger.ALL_SUCCEEDED if self.shape is None else self.shape.trigger

    @property
    def question(self) -> GateSection:
        """What a gate asks, and for how long."""
        return self.spec.gate or _USUAL_GATE

    @property
    def number(self) -> int:
        """The newest attempt's number; 0 before the first."""
        return 0 if self.attempt is None else self.attempt.number

    @property
    def is_terminal(self) -> bool:
        """Whether its state is final."""
        return self.state in JOB_TERMINAL

    @property
    def is_over(self) -> bool:
        """Whether nobody waits for it any more: it has ended, and so has everything above it.

        One that was skipped or cancelled may have ended before that. One that was taken over ended in an
        earlier run, with all that it came after.
        """
        return self.is_terminal and (not self.waiting or self.reason is ExitReason.TAKEN_OVER)


class Run(Struct, kw_only=True, eq=False):
    """A live run. It leaves memory when it ends; history has it then."""

    run_id: str
    key: str
    digest: str
    name: str
    slug: str
    number: int
    owner: str
    serial: int
    """Its place among all runs ever accepted."""
    submitted_at_ms: int
    workspace: ArtifactRef | None
    jobs: dict[str, Job]
    """In the order of the submission."""
    order: list[Job]
    """The same, for paging. Derived."""
    children: dict[int, list[int]]
    """Dependants by index, only of jobs that have any. Derived."""
    counts: dict[JobState, int]
    """Jobs by state. Derived."""
    remaining: int
    """Jobs that are not terminal. Derived."""
    outputs_bytes: int = 0
    """What the outputs of its jobs weigh together. Derived."""
    layers: list[int] = field(default_factory=list)
    """Which jobs, by index, have left files in the shared folder, in the order of acceptance. Derived."""
    cancelled: bool = False
    """Somebody asked for its cancellation."""
    skills: frozenset[tuple[str, ...]] = frozenset()
    """The sets of skills that its jobs need, as they name them. Derived."""
    params: dict[str, str] = field(default_factory=dict)
    """Values that were given for it. Derived."""
    homes: tuple[str, ...] = ()
    """Workspaces of workers in which jobs left files for others that are nowhere else."""
    rerun_of: str = ""
    """Id of the run that this one repeats."""
    rerun_alias: str = ""
    ancestors: tuple[str, ...] = ()
    """The runs that `rerun_of` repeated in its turn, the newest first."""
    near: str = ""
    """The worker on which the attempt ran that asked for it."""
    is_tied: bool = False
    """Some of its jobs can be done by certain workers only, whatever their skills. Derived."""
    fired: Fired | None = None
    """The schedule and the slot that it was begun for."""

    @property
    def alias(self) -> str:
        """What people see and type."""
        return f"{self.slug}-{self.number}"


class Service(Struct, kw_only=True, eq=False):
    """A service that has settled and is wanted: an object of the cluster, whatever became of its run."""

    name: str
    run_id: str
    run_alias: str
    job_id: str
    state: ServiceState
    attempt: Attempt
    """The newest; while it waits for a worker, the one that has ended."""
    healthy_at_ms: int
    """Since when, or until when it was."""
    restarts: int = 0
    """By the worker that it is on."""
    spec: JobSpec | None = None
    """What is placed, with the outputs of others filled in and no dependencies. None in journals of
    before: such a one is never placed again."""
    run_name: str = ""
    workspace: ArtifactRef | None = None
    layers: tuple[Layer, ...] = ()
    """What must be in the shared folder wherever it is placed ..."""
    intake: dict[str, Left] = field(default_factory=dict)
    """... and where the files are listed that it takes in."""
    base: str = ""
    """The job that it comes from: its own id, but for an instance beside the first."""
    made: int = 1
    """The highest number that an instance of that job has, or had."""
    replaces: str = ""
    """The instance (of the same job) that goes once this one is healthy."""
    moves: int = 0
    """How often it was given to another worker because it failed where it was."""
    avoid: tuple[str, ...] = ()
    """Workers where it failed, since it was last well for long."""
    queued_seq: int = 0
    """Its place in the order of all queueings, when it was queued last."""
    queued_at_ms: int = 0
    not_before_ms: int = 0
    """Until then it is not queued, for it may still run, unheard, where it was; 0: it is not held back."""

    @property
    def instance_name(self) -> str:
        """Its name, and which instance it is where that is not the first."""
        return f"{self.name.rpartition('/')[0]}/{self.job_id}"


class WorkerInfo(Struct, kw_only=True, eq=False):
    """A worker that has joined and has not been retired."""

    worker_id: str
    host: str
    port: int
    incarnation: int
    boot_id: str
    slots: int
    skills: tuple[str, ...]
    software: str
    state: WorkerState
    since_ms: int
    """When it came into its state."""
    held: dict[tuple[str, str], int] = field(default_factory=dict)
    """Live attempts placed here: (run, job) → number."""
    used: int = 0
    """Slots that they take together; nearly always one each. Derived."""
    workspace: str = ""
    """Id of the folder that its jobs run in; several workers of one machine may share it."""
    kinship: Kinship | None = None
    """Of one that another worker has spawned."""
    spawns_failed: int = 0
    """How often in a row what it was asked to spawn has not joined ..."""
    spawn_failed_at_ms: int = 0
    """... and when it was so last."""
    resources: dict[str, int] = field(default_factory=dict)
    """What jobs can take of it, in the units of `Counted`."""
    cordoned: bool = False
    """It is given nothing new, until somebody takes that back."""
    taken: dict[str, int] = field(default_factory=dict)
    """What is taken of each resource that any of its attempts takes. Derived."""
    network: str = ""
    """Id of the network that its jobs listen in; empty where its software does not say it."""

    @property
    def name(self) -> str:
        """What people see and type; unique among the workers that are not lost."""
        return f"{self.host}:{self.port}"

    @property
    def ports(self) -> str:
        """Whose ports its jobs listen on: workers of one machine share them, containers may not."""
        return self.network or f"{self.host} {self.boot_id}"


class Spawn(Struct, frozen=True, kw_only=True):
    """A worker that has been asked for, and has neither joined nor been given up."""

    number: int
    parent_id: str
    parent: str
    host: str
    port: int
    slots: int
    skills: tuple[str, ...]
    asked_at_ms: int
    exact: bool = False
    by_hand: bool = False
    cause: str = ""


class Kinship(Struct, frozen=True, kw_only=True):
    """How a spawned worker came to be."""

    number: int
    parent_id: str
    parent: str
    by_hand: bool = False
    cause: str = ""
    dismissed: bool = False
    """It has been told to leave."""


class Schedule(Struct, kw_only=True, eq=False):
    """What is run again and again, and up to when its times have been decided about."""

    name: str
    schedule_id: str
    version: int
    spec: ScheduleSpec
    run: bytes
    """msgpack of the RunSpec with which a run of this version begins."""
    digest: str
    owner: str
    jobs: int
    created_at_ms: int
    put_at_ms: int
    cursor_ms: int
    """Every slot up to here has become a run, or waits, or never will be one."""
    paused_at_ms: int = 0
    """0: it is not paused."""
    paused_by: str = ""
    paused_why: str = ""
    live: dict[str, str] = field(default_factory=dict)
    """Its runs that go on, in the order of acceptance: id → alias."""
    waiting: list[int] = field(default_factory=list)
    """Slots that begin once those have ended."""
    failed: str = ""
    """Alias of a run that has FAILED, until it has been decided what follows from that."""
    last: LastFired | None = None
    fired: int = 0
    skipped: int = 0
    missed: int = 0


class KeyRecord(Struct, frozen=True, kw_only=True):
    """A submit key that was used: the same key with the same content is the same run."""

    digest: str
    run_id: str
    alias: str
    at_ms: int


def layers_above(run: Run, job: Job) -> int:
    """The layers that the jobs above it have left, as bits; all its dependencies have ended."""
    above = 0
    for parent in job.spec.dependencies:
        above |= run.jobs[parent].layers
    return above


class Line:
    """Jobs of one class and one priority, first come first served.

    A job taken out of the middle (cancelled) stays as a dead entry until it comes to the front or
    the dead outnumber the living: removal is O(1) and memory stays in proportion.
    """

    __slots__ = ("dead", "jobs")

    def __init__(self) -> None:
        self.jobs: deque[Job] = deque()
        self.dead = 0

    def head(self) -> Job | None:
        """The first living one."""
        jobs = self.jobs
        while jobs and jobs[0].state is not JobState.QUEUED:
            jobs.popleft()
            self.dead -= 1
        return jobs[0] if jobs else None

    def first(self, passed: Collection[int]) -> Job | None:
        """The first living one that has not been passed over, of those near the front."""
        for job in islice(self.jobs, LINE_LOOKED_AT):
            if job.state is JobState.QUEUED and job.queued_seq not in passed:
                return job
        return None

    def remove(self, job: Job) -> None:
        """Take out a job that has just left QUEUED, from the front or as a dead entry."""
        jobs = self.jobs
        if jobs and jobs[0] is job:
            jobs.popleft()
            return
        if not job.is_terminal:
            jobs.remove(job)  # it may be queued again: a dead entry would come back to life
            return
        self.dead += 1
        if self.dead > 64 and self.dead * 2 > len(jobs):
            self.jobs = deque(job for job in jobs if job.state is JobState.QUEUED)
            self.dead = 0


class ClassKey(NamedTuple):
    """What jobs of one class need of a worker."""

    skills: tuple[str, ...]
    """Sorted, each once."""
    slots: int
    terms: Terms | None = None
    """Only what can keep a job waiting; None where nothing of it can."""
    run_id: str = ""
    """Where that is something of the run: which."""


def _binding(terms: Terms | None) -> Terms | None:
    """What of the terms can keep a job waiting, in one form for all that mean the same."""
    if terms is None:
        return None
    counted = tuple(sorted(terms.counted, key=lambda one: one.name))
    binding = replace(
        terms,
        counted=counted,
        near=terms.near if terms.required else "",
        required=terms.required and bool(terms.near),
        spread=False,
    )
    return binding if binding != _NO_TERMS else None


class ReadyClass:
    """Queued jobs of equal needs. One that cannot be placed never holds up another."""

    __slots__ = ("key", "lines", "size")

    def __init__(self, key: ClassKey) -> None:
        self.key = key
        self.size = 0
        self.lines: list[Line | None] = [None] * (PRIORITY_MAX + 1)

    def heads(self, passed: Collection[int] = ()) -> Iterator[Job]:
        """The first job of each priority; of those that have not been passed over, where some have."""
        for line in self.lines:
            if line is not None:
                job = line.first(passed) if passed else line.head()
                if job is not None:
                    yield job


def fits(skills: tuple[str, ...], offered: tuple[str, ...]) -> bool:
    """Whether a worker that offers these has all those skills."""
    return skills == offered or all(skill in offered for skill in skills)


def short_of(worker: WorkerInfo, terms: Terms | None) -> str:
    """A counted resource of which the worker has less to give now than that; empty if there is none."""
    if terms is None:
        return ""
    for one in terms.counted:
        total = worker.resources.get(one.name)
        if total is None and one.name in UNCOUNTED:
            continue
        if one.amount > (total or 0) - worker.taken.get(one.name, 0):
            return one.name
    return ""


def has_too_little(worker: WorkerInfo, terms: Terms | None) -> str:
    """A counted resource of which the worker has less than that even when idle; empty if none."""
    if terms is None:
        return ""
    for one in terms.counted:
        total = worker.resources.get(one.name)
        if total is None and one.name in UNCOUNTED:
            continue
        if one.amount > (total or 0):
            return one.name
    return ""


def is_meant(worker: WorkerInfo, terms: Terms | None) -> bool:
    """Whether a job that may be pinned to a worker may be on this one."""
    if terms is None or not terms.worker:
        return True
    return terms.worker in (worker.name, worker.host, worker.worker_id)


class ReadyQueue:
    """All queued jobs, by class of needs. Derived from the jobs; written by ``apply`` alone."""

    __slots__ = ("_fitting", "_keys", "classes", "size", "slotless")

    def __init__(self) -> None:
        self.classes: dict[ClassKey, ReadyClass] = {}
        self.size = 0
        self.slotless = 0
        """Those that take no slot: a full worker may have them."""
        self._keys: dict[Needs, ClassKey] = {}
        self._fitting: dict[tuple[str, ...], dict[ClassKey, ReadyClass]] = {}
        """By what a worker offers: the classes that it fits. Filled when first asked for."""

    def fitting(self, offered: tuple[str, ...]) -> dict[ClassKey, ReadyClass]:
        """The classes that a worker of these skills can execute: others are never looked at."""
        found = self._fitting.get(offered)
        if found is None:
            if len(self._fitting) >= OFFERS_REMEMBERED:
                self._fitting.clear()
            found = {key: ready for key, ready in self.classes.items() if fits(key.skills, offered)}
            self._fitting[offered] = found
        return found

    def remembered(self) -> Iterator[tuple[tuple[str, ...], Collection[ClassKey]]]:
        """What `fitting` would answer without looking; for ``check``."""
        yield from self._fitting.items()

    def key(self, job: Job) -> ClassKey:
        """The class of what a job needs: the order of skills and repetitions mean nothing."""
        needs = job.spec.needs
        key = self._keys.get(needs)
        if key is None:
            if len(self._keys) > 10_000:
                self._keys.clear()
            skills = tuple(sorted(dict.fromkeys(needs.skills)))
            key = self._keys[needs] = ClassKey(skills, needs.slots, _binding(needs.terms))
        terms = key.terms
        if terms is not None and (terms.near or terms.run_group):
            return key._replace(run_id=job.run_id)
        return key

    def push(self, job: Job) -> None:
        """Last in its line."""
        key = self.key(job)
        ready = self.classes.get(key)
        if ready is None:
            ready = self.classes[key] = ReadyClass(key)
            for offered, classes in self._fitting.items():
                if fits(key.skills, offered):
                    classes[key] = ready
        line = ready.lines[job.spec.priority]
        if line is None:
            line = ready.lines[job.spec.priority] = Line()
        line.jobs.append(job)
        ready.size += 1
        self.size += 1
        self.slotless += not key.slots

    def remove(self, job: Job) -> None:
        """Out; its state says already that it is not QUEUED any more."""
        key = self.key(job)
        ready = self.classes[key]
        line = ready.lines[job.spec.priority]
        if line is None:
            raise InvariantViolation(f"{job.run_id}/{job.spec.id} is in no line of the ready queue")
        line.remove(job)
        ready.size -= 1
        self.size -= 1
        self.slotless -= not key.slots
        if not ready.size:
            del self.classes[key]
            for classes in self._fitting.values():
                classes.pop(key, None)


class State(Struct, kw_only=True, eq=False):
    """The whole. See the module's docstring for what is not here, and why."""

    cluster_id: str = ""
    cluster_name: str = ""
    term: int = 0
    software: str = ""
    started_at_ms: int = 0
    lost_after_ms: int = WORKER_LOST_AFTER_MS
    """The lease that workers were told last."""
    fence: int = 0
    """Grows with every placement of the cluster, for ever."""
    runs_accepted: int = 0
    queued_seq: int = 0
    last_run_id: str = ""
    """The run accepted last, live or not."""
    runs: dict[str, Run] = field(default_factory=dict)
    """Live runs by id, in the order of acceptance."""
    keys: dict[str, KeyRecord] = field(default_factory=dict)
    """Submit keys of the last days, oldest first."""
    slugs: dict[str, int] = field(default_factory=dict)
    """The highest number given to each slug, for ever."""
    workers: dict[str, WorkerInfo] = field(default_factory=dict)
    services: dict[tuple[str, str], Service] = field(default_factory=dict)
    """Services that are wanted, by (run, job): up, or on their way there."""
    poison: dict[str, str] = field(default_factory=dict)
    gates_opened: int = 0
    spawns: dict[int, Spawn] = field(default_factory=dict)
    """Workers that have been asked for, by number."""
    scalings: tuple[ScalingChange, ...] = ()
    """The last of what became of spawned workers, oldest first."""
    schedules: dict[str, Schedule] = field(default_factory=dict)
    """By name, in the order in which they were first put there."""

    # -- derived: kept by apply, not in the digest ------------------------------------------------
    aliases: dict[str, str] = field(default_factory=dict)
    """Alias → id of the live runs."""
    names: dict[str, str] = field(default_factory=dict)
    """Worker's name → id of the worker that has it."""
    workspaces: dict[str, int] = field(default_factory=dict)
    """By the folder that their jobs run in: how many workers."""
    neighbours: dict[str, dict[str, None]] = field(default_factory=dict)
    """By whose ports their jobs listen on: the workers."""
    counts: dict[JobState, int] = field(default_factory=dict)
    """Jobs of live runs by state."""
    queue: ReadyQueue = field(default_factory=ReadyQueue)
    gates: dict[tuple[str, str], Job] = field(default_factory=dict)
    """Gates that are open, by (run, job), in the order in which they were opened."""
    groups: dict[str, int] = field(default_factory=dict)
    """Live attempts by concurrency group."""
    seats: dict[str, dict[str, None]] = field(default_factory=dict)
    """By concurrency group of runs: the live ones that have begun."""
    instances: dict[tuple[str, str], Job] = field(default_factory=dict)
    """Services as placement sees them, by (run, job): each the job that it would be on its own."""
    siblings: dict[str, None] = field(default_factory=dict)
    """Ids of workers that other workers have spawned."""
    observer: Callable[[str, OpenEnum, OpenEnum], None] | None = None
    """Told of every transition (table, from, to); None in production, a counter in tests."""

    def find_attempt(self, run_id: str, job_id: str) -> Attempt | None:
        """The newest attempt of a service or of a live run's job."""
        service = self.services.get((run_id, job_id))
        if service is not None:
            return service.attempt
        job = self.find_job(run_id, job_id)
        return None if job is None else job.attempt

    def find_job(self, run_id: str, job_id: str) -> Job | None:
        """What is placed under this name: a service, once there is one, else a live run's job."""
        instance = self.instances.get((run_id, job_id))
        if instance is not None:
            return instance
        run = self.runs.get(run_id)
        return None if run is None else run.jobs.get(job_id)


_ENCODER: Final = msgspec.msgpack.Encoder(order="deterministic")


def _job_digest(job: Job) -> tuple[object, ...]:
    # The spec is covered by the run's digest, the index by the order of the list.
    return (
        job.spec.id,
        job.state,
        job.waiting,
        job.ready_at_ms,
        job.queued_seq,
        job.lost,
        job.attempt,
        job.reason,
        job.ended_at_ms,
        job.message,
        job.failures,
        job.first_placed_at_ms,
        job.stop_reason,
        job.gate,
        job.outputs,
        job.left,
        job.layer,
    )


def _run_digest(run: Run) -> tuple[object, ...]:
    return (
        run.run_id,
        run.key,
        run.digest,
        run.name,
        run.slug,
        run.number,
        run.owner,
        run.serial,
        run.submitted_at_ms,
        run.workspace,
        run.cancelled,
        run.homes,
        run.rerun_of,
        run.rerun_alias,
        run.ancestors,
        run.near,
        run.fired,
        [_job_digest(job) for job in run.jobs.values()],
    )


def _worker_digest(worker: WorkerInfo) -> tuple[object, ...]:
    return (
        worker.worker_id,
        worker.host,
        worker.port,
        worker.incarnation,
        worker.boot_id,
        worker.slots,
        worker.skills,
        worker.software,
        worker.state,
        worker.since_ms,
        sorted(worker.held.items()),
        worker.workspace,
        worker.kinship,
        worker.spawns_failed,
        worker.spawn_failed_at_ms,
        sorted(worker.resources.items()),
        worker.cordoned,
        worker.network,
    )


def digest(state: State) -> str:
    """One text for all that is durable; equal states have equal digests, whatever the process."""
    head = (
        state.cluster_id,
        state.cluster_name,
        state.term,
        state.software,
        state.started_at_ms,
        state.lost_after_ms,
        state.fence,
        state.runs_accepted,
        state.queued_seq,
        state.last_run_id,
        state.gates_opened,
        sorted(state.spawns.items()),
        state.scalings,
    )
    body = (
        head,
        [_run_digest(run) for _, run in sorted(state.runs.items())],
        sorted(state.keys.items()),
        sorted(state.slugs.items()),
        [_worker_digest(worker) for _, worker in sorted(state.workers.items())],
        [service for _, service in sorted(state.services.items())],
        sorted(state.poison.items()),
        [schedule for _, schedule in sorted(state.schedules.items())],
    )
    return hashlib.sha256(_ENCODER.encode(body)).hexdigest()
