"""The auditor: an independent set of books about what the cluster promised, did and said.

It reads the journal as events become durable, watches every process on every machine and every
answer a client gets, and raises `Violation` at the first broken promise. It shares no code with the
cores on purpose: what both got wrong, nobody would notice.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from tests.sim.books import ScheduleBooks
from tests.sim.coverage import Choice, Coverage, Fault, Move, Rearing
from tests.sim.driver import CrashPoint
from tests.sim.world import Violation, World
from titan_master.core import events as e
from titan_master.core.core import CoreConfig
from titan_master.core.state import State
from titan_master.core.state import digest as master_digest_of
from titan_proto.ids import AttemptRef
from titan_proto.limits import RERUN_ANCESTORS, SERVICE_MOVES
from titan_proto.messages import (
    GateView,
    JobChange,
    JobView,
    ReportAcks,
    RunReceipt,
    RunView,
    SpawnSibling,
    SpawnVerdicts,
    StartAttempts,
    StopAttempts,
)
from titan_proto.messages.worker import AttemptOrder, Left
from titan_proto.specs import (
    GateExpiry,
    GateSection,
    JobKind,
    JobSpec,
    Launch,
    RetryCause,
    RunSpec,
    Shape,
    Share,
    Terms,
    Trigger,
)
from titan_proto.states import JOB_TERMINAL, ExitReason, JobState, RunState, ScalingKind

_SPEC: msgspec.msgpack.Decoder[RunSpec] = msgspec.msgpack.Decoder(RunSpec)

OVERTIME_MS = 60_000
"""How late a master may be that was down, or stood still, when a job's time was over."""

_USED = re.compile(r"\$\{\{ jobs\.(\w+)\.outputs\.(\w+) \}\}")
_STATE = re.compile(r"jobs\.(\w+)\.state != '(\w+)'")
_ATTEMPT = re.compile(r"'\.1' in jobs\.(\w+)\.outputs\.attempt")
_ANY = Launch()
_MOVED = (ExitReason.CRASH_LOOP, ExitReason.START_FAILED, ExitReason.PREPARE_FAILED)
"""Ends of a service that another worker may mend."""
_CAUSES = {
    ExitReason.EXITED: RetryCause.EXIT,
    ExitReason.SIGNALLED: RetryCause.SIGNAL,
    ExitReason.OOM_KILLED: RetryCause.SIGNAL,
    ExitReason.START_FAILED: RetryCause.START,
    ExitReason.PREPARE_FAILED: RetryCause.START,
    ExitReason.TIMED_OUT: RetryCause.TIMEOUT,
    ExitReason.BAD_OUTPUT: RetryCause.EXIT,
    ExitReason.BAD_FILES: RetryCause.EXIT,
}

TIMEOUT_SLACK_MS = 6_000
"""What a worker that stands still at no time may need to notice, to write down and to signal."""
OVERLAP_MS = 1_000
"""How long a machine that wakes up may take to stop an exclusive attempt that was given away."""
FASTEST = 1.12
"""So much faster than time a machine's clock may run."""

LOST_MAX = 3
"""The crash limit: after so many lost attempts a job is not tried again."""

CRASH_FAULTS = {
    CrashPoint.BEFORE_COMMIT: Fault.MASTER_CRASH_BEFORE_COMMIT,
    CrashPoint.LOST_TAIL: Fault.MASTER_CRASH_LOST_TAIL,
    CrashPoint.KEPT_TAIL: Fault.MASTER_CRASH_KEPT_TAIL,
    CrashPoint.RELEASING: Fault.MASTER_CRASH_RELEASING,
    CrashPoint.COMMIT_FAILED: Fault.FSYNC_ERROR,
}

BUDGET_MS: Final = 50_000
"""In so much time no restart is forgiven or forgotten, whichever way a clock is off."""


def _used(spec: JobSpec) -> list[tuple[str, str]]:
    """The outputs that a job's definition names: (job, key)."""
    launch = spec.launch
    texts = (launch.shell, *launch.args, *launch.env.values())
    return [(match[1], match[2]) for text in texts for match in _USED.finditer(text)]


def _alone(spec: JobSpec) -> JobSpec:
    """What a service is without its run."""
    return replace(spec, id="", dependencies=(), launch=_ANY)


def _begins(spec: JobSpec, ready_ms: int) -> int:
    """A job's own moment first, then its delay."""
    return max(spec.launch.at_ms, ready_ms) + spec.delay_ms


def left_by(ref: AttemptRef) -> Left:
    """The files that an attempt leaves, if it leaves any: no other attempt's list is like it."""
    digest = hashlib.sha256(str(ref).encode()).hexdigest()
    return Left(digest=digest, size_bytes=ref.number, shared=1)


def _may_begin(trigger: Trigger, parents: list[JobBook]) -> bool:
    """Whether these ends are what the trigger asks for."""
    ends = {one.end for one in parents}
    failed = any(one.is_failure for one in parents)
    if trigger is Trigger.ALL_SUCCEEDED:
        return ends == {JobState.SUCCEEDED}
    if trigger is Trigger.ANY_SUCCEEDED:
        return JobState.SUCCEEDED in ends
    if trigger is Trigger.ANY_FAILED:
        return failed
    return trigger is Trigger.ALL_DONE or (not failed and JobState.CANCELLED not in ends)


class JobBook:
    """What the journal has said of one job."""

    def __init__(self, spec: JobSpec, shape: Shape | None = None) -> None:
        self.spec = spec
        self.trigger = Trigger.ALL_SUCCEEDED if shape is None else shape.trigger
        self.when = "" if shape is None else shape.when
        self.cell = {} if shape is None else shape.cell
        self.begun = False
        """Whether it was decided that it begins."""
        self.end: JobState | None = None
        self.reason = ExitReason.UNKNOWN
        """Once it has ended: for what."""
        self.numbers = 0
        self.live: int | None = None
        """The attempt that is placed and has not ended."""
        self.last: e.AttemptEnded | None = None
        self.was_on: tuple[str, str, str] | None = None
        """Where its newest attempt was placed: the worker's id, and its name and its folder then."""
        self.lost = 0
        self.failures = 0
        self.fence = 0
        self.not_before_ms = 0
        self.first_placed_ms = 0
        self.stopped_for: ExitReason | None = None
        self.opened_ms = 0
        """When it was opened, of a gate; 0 before that."""
        self.decision: e.GateDecided | None = None
        self.outputs: dict[str, str] = {}
        self.avoid: tuple[str, ...] = ()
        """Of a service: where it has failed."""
        self.moves = 0
        self.replaces = ""
        self.left: Left | None = None

    @property
    def is_failure(self) -> bool:
        """Whether it counts as failed for those after it."""
        return self.end is JobState.FAILED or self.reason is ExitReason.PARENT_FAILED

    @property
    def is_gate(self) -> bool:
        return self.spec.kind is JobKind.GATE

    @property
    def section(self) -> GateSection:
        return self.spec.gate or GateSection()


class RunBook:
    """What the journal has said of one run."""

    def __init__(self, event: e.RunAccepted) -> None:
        self.run_id = event.run_id
        self.key = event.key
        self.alias = f"{event.slug}-{event.number}"
        self.slot_ms = 0
        """Of a run that a schedule began."""
        spec = _SPEC.decode(event.spec)
        self.params = spec.params
        self.jobs = {job.id: JobBook(job, spec.shapes.get(job.id)) for job in spec.jobs}
        for job in self.jobs.values():
            job.not_before_ms = _begins(job.spec, event.at_ms)
        self.taken_over = frozenset(event.taken_over)
        for job_id in event.taken_over:
            self.jobs[job_id].end = JobState.SUCCEEDED
        self.rerun_of = event.rerun_of
        self.ancestors = event.ancestors
        self.near = event.near
        terms = (job.spec.needs.terms for job in self.jobs.values() if not job.is_gate)
        self.run_group = next((one.run_group for one in terms if one is not None), "")
        self.has_begun = False
        for job in self.jobs.values():
            is_free = set(job.spec.dependencies) <= set(event.taken_over)
            is_free = is_free and job.trigger is Trigger.ALL_SUCCEEDED and not job.when
            if job.is_gate and job.end is None and is_free and job.not_before_ms <= event.at_ms:
                job.opened_ms = event.at_ms
        self.state = RunState.ACTIVE
        self.cancelled = False
        self.layers: list[Left] = []
        """What its jobs have left in the shared folder, in the order of acceptance."""
        self.instances: dict[str, JobBook] = {}
        """Of services, those beside the first."""
        self.home_of: dict[str, str] = {}
        """By job: where it has left files that are nowhere else."""
        self.stopped: set[str] = set()
        """Jobs that somebody has stopped, one by one."""

    def find(self, job_id: str) -> JobBook:
        """A job, or an instance of a service."""
        return self.jobs.get(job_id) or self.instances[job_id]

    def leave(self, job_id: str, left: Left) -> None:
        """One of its jobs has succeeded, and left this."""
        self.jobs[job_id].left = left
        if left.shared:
            self.layers.append(left)

    def running_above(self, job_id: str) -> set[str]:
        """The jobs that come before this one, however indirectly, and have not ended."""
        seen: set[str] = set()
        todo = [job_id]
        while todo:
            found = set(self.find(todo.pop()).spec.dependencies) - seen
            seen |= found
            todo += found - self.taken_over
        return {name for name in seen if self.jobs[name].end is None}

    def ended_above(self, job_id: str) -> set[str]:
        """The jobs that come before this one and have ended, each with all between the two."""
        above: set[str] = set()
        todo = [job_id]
        while todo:
            parents = set(self.find(todo.pop()).spec.dependencies) - above
            parents = {name for name in parents if self.jobs[name].end is not None}
            above |= parents
            todo += parents
        return above


class WorkerBook:
    """What the journal has said of one worker."""

    def __init__(self, event: e.WorkerJoined) -> None:
        self.host = event.host
        self.spawn = event.spawn
        self.slots = event.slots
        self.skills = event.skills
        self.resources = event.resources
        self.worker_id = event.worker_id
        self.host, self.port = event.host, event.port
        self.workspace = event.workspace
        self.network = event.network
        self.state = "ONLINE"
        self.cordoned = False
        self.holds: dict[AttemptRef, None] = {}
        self.drained: dict[AttemptRef, None] = {}
        self.came_back = False
        """Another process of it was here before."""
        self.to_move: dict[AttemptRef, None] = {}
        """Services on it that others could have had when it began to leave, and that are not replaced."""
        """What it held when the master learned that it is being shut down."""

    def has_all(self, spec: JobSpec) -> bool:
        """Whether it may have the job, and has what that takes of counted resources, free or not."""
        if spec.needs.terms is None:
            return True
        names = ("", self.worker_id, self.host, f"{self.host}:{self.port}")
        return spec.needs.terms.worker in names and all(
            one.amount <= self.resources.get(one.name, one.amount if one.name == "cpu" else 0)
            for one in spec.needs.terms.counted
        )


_REARINGS = {
    ScalingKind.JOINED: Rearing.JOINED,
    ScalingKind.FAILED: Rearing.FAILED,
    ScalingKind.TIMED_OUT: Rearing.TIMED_OUT,
}
CORES_MAX = 16
"""Of any host here."""


class Auditor:
    """Everything that must hold, whoever is to blame if it does not."""

    def __init__(self, world: World, coverage: Coverage) -> None:
        self._world = world
        self._coverage = coverage
        self.runs: dict[str, RunBook] = {}
        self.workers: dict[str, WorkerBook] = {}
        self.services: dict[tuple[str, str], str] = {}
        self.well: set[tuple[str, str]] = set()
        """Those of them that are healthy."""
        self._keys: dict[str, str] = {}
        self._aliases: dict[str, str] = {}
        self._fence = 0
        self._term = 0
        self._slots: dict[str, int] = {}
        self._restarts: dict[AttemptRef, list[int]] = {}
        """When a service's process was started again, in this attempt."""
        self._spawned: dict[AttemptRef, str] = {}
        self._outcomes: dict[AttemptRef, tuple[int, int]] = {}
        self._alive: dict[AttemptRef, int] = {}
        """Processes that run, and since when."""
        self._lasted: dict[AttemptRef, int] = {}
        self._heard_late: dict[AttemptRef, None] = {}
        """Those that ended while their worker stood still, or had other things to see to first."""
        self._written: dict[AttemptRef, tuple[dict[str, str], str]] = {}
        """What processes left for others, or what was wrong with it."""
        self._files: dict[AttemptRef, tuple[Left | None, str]] = {}
        self._asleep: dict[AttemptRef, int] = {}
        """Processes whose machine sleeps, and until when."""
        self._must_go: dict[AttemptRef, int] = {}
        """Exclusive attempts that have a successor, and when they must be gone."""
        self._incarnations: dict[str, int] = {}
        self._broken_by: set[str] = set()
        self._wishes: set[tuple[str, bool]] = set()
        """What somebody wanted to become of gates with this job id."""
        self._shut_down: dict[str, None] = {}
        """Workers that were ever told to end in good order."""
        self._left: dict[AttemptRef, None] = {}
        """Attempts that ran when their worker said so: no job may be blamed for their ends."""
        self._needed: dict[AttemptRef, dict[str, str]] = {}
        """By attempt: the files that had been left above its job when it was placed; of a service, first."""
        self.schedules = ScheduleBooks(self.check)
        self.triggered: set[str] = set()
        """Keys under which somebody wanted a schedule to run at once."""
        self.receipts: dict[str, str] = {}
        """What clients were told: key → run."""
        self.learned: dict[str, RunState] = {}
        """What clients were told: run → how it ended."""
        self.scaling: CoreConfig
        self._asked: dict[int, e.SpawnAsked] = {}
        """Workers that were asked for, by number."""
        self._waited_for: set[int] = set()
        """Those of them that have neither joined nor been given up."""
        self._joined_as: dict[int, str] = {}
        self._born: dict[int, tuple[str, int]] = {}
        """By number: the machine on which a process was started for it, and how often that had booted."""
        self.master_digest = ""
        self._durable_digest = ""
        self._keepers: dict[type, Callable[[Any], None]] = {
            e.MasterStarted: self._on_master_started,
            e.RunAccepted: self._on_run_accepted,
            e.RunCancelRequested: self._on_run_cancel_requested,
            e.RunEnded: self._on_run_ended,
            e.JobsQueued: self._on_jobs_queued,
            e.JobsScheduled: self._on_jobs_scheduled,
            e.JobBackoff: self._on_job_backoff,
            e.JobCancelling: self._on_job_cancelling,
            e.GatesOpened: self._on_gates_opened,
            e.GateDecided: self._on_gate_decided,
            e.AttemptPlaced: self._on_attempt_placed,
            e.AttemptStarted: self._on_attempt_started,
            e.AttemptEnded: self._on_attempt_ended,
            e.JobEnded: self._on_job_ended,
            e.JobsDropped: self._on_jobs_dropped,
            e.ServiceUp: self._on_service_up,
            e.ServiceChanged: self._on_service_changed,
            e.ServiceAdded: self._on_service_added,
            e.ServiceQueued: self._on_service_queued,
            e.ServiceStopping: self._on_service_stopping,
            e.ServiceEnded: self._on_service_ended,
            e.SchedulePut: self.schedules.put,
            e.SchedulePaused: self.schedules.paused,
            e.ScheduleResumed: self.schedules.resumed,
            e.ScheduleRemoved: self.schedules.removed,
            e.SlotsPassed: self.schedules.passed,
            e.SlotQueued: self.schedules.queued,
            e.WorkerJoined: self._on_worker_joined,
            e.WorkerSilent: self._on_worker_silent,
            e.WorkerDraining: self._on_worker_draining,
            e.WorkerCordoned: self._on_worker_cordoned,
            e.WorkerReturned: self._on_worker_returned,
            e.WorkerLost: self._on_worker_lost,
            e.WorkerRetired: self._on_worker_retired,
            e.SpawnAsked: self._on_spawn_asked,
            e.SpawnSettled: self._on_spawn_settled,
            e.SiblingDismissed: self._on_sibling_dismissed,
        }

    def check(self, holds: object, promise: str) -> None:
        """Raise Violation where a promise does not hold."""
        if not holds:
            raise Violation(promise)

    # -- what is durable --------------------------------------------------------------------------

    def journalled(self, event: Any) -> None:
        """An event of the master is durable."""
        self._durable_digest = self.master_digest
        keep = self._keepers.get(type(event))
        if keep is not None:
            keep(event)

    def recovered(self, state: State) -> None:
        """A master has started and folded its journal."""
        if self._durable_digest:
            self.check(
                master_digest_of(state) == self._durable_digest,
                "recovery comes to another state than the process before had made durable",
            )
        self.master_digest = master_digest_of(state)

    def _on_master_started(self, event: e.MasterStarted) -> None:
        self.check(event.term > self._term, f"term {event.term} follows term {self._term}")
        self._term = event.term

    def _on_run_accepted(self, event: e.RunAccepted) -> None:
        book = RunBook(event)
        self.check(event.run_id not in self.runs, f"run {event.run_id} is accepted twice")
        is_slot = event.fired is not None and not event.fired.triggered and not event.rerun_of
        self.check(is_slot == (not event.key), f"run {event.run_id} of key {event.key!r}")
        self.check(is_slot or event.key not in self._keys, f"key {event.key} is accepted twice")
        self.check(book.alias not in self._aliases, f"alias {book.alias} is given twice")
        if event.taken_over:
            before = self.runs[event.rerun_of]
            self._coverage.reason(ExitReason.TAKEN_OVER)
            for job_id in event.taken_over:
                self.check(
                    before.jobs[job_id].end is JobState.SUCCEEDED,
                    f"{event.run_id} takes {job_id} over, which ended as {before.jobs[job_id].end}",
                )
                again = [
                    name
                    for name in book.jobs[job_id].spec.dependencies
                    if name not in event.taken_over
                    # One that is not up any more is brought up again for what comes after.
                    and book.jobs[name].spec.kind is not JobKind.SERVICE
                ]
                self.check(not again, f"{event.run_id} takes {job_id} over, and {again} run again")
                left = book.jobs[job_id].outputs = event.outputs.get(job_id, {})
                self.check(
                    left == before.jobs[job_id].outputs,
                    f"{event.run_id} takes over {left}, {job_id} left {before.jobs[job_id].outputs}",
                )
            self._check_taken_over(before, event)
            for job_id, files in event.left:
                book.leave(job_id, files)
            book.home_of = dict(event.homes)
        self.runs[event.run_id] = book
        self._keys[event.key] = event.run_id
        self._aliases[book.alias] = event.run_id
        if event.fired is not None:
            book.slot_ms = event.fired.slot_at_ms
            wanted = event.key in self.triggered
            self.schedules.began(event, event.fired, wanted=wanted)

    def _check_taken_over(self, before: RunBook, event: e.RunAccepted) -> None:
        """Of the files, all that those jobs left, in the order of acceptance."""
        left = {job_id: before.jobs[job_id].left for job_id in event.taken_over}
        files = {job_id: one for job_id, one in left.items() if one is not None}
        layers = [one for one in before.layers if one in files.values()]
        self.check(
            dict(event.left) == files and [one for _, one in event.left if one.shared] == layers,
            f"{event.run_id} takes over {event.left}, left was {files}",
        )
        homes = {name: home for name, home in before.home_of.items() if name in event.taken_over}
        self.check(
            dict(event.homes) == homes,
            f"{event.run_id} takes files over from {event.homes}, they lie in {homes}",
        )
        known = (before.rerun_of, *before.ancestors) if before.rerun_of else ()
        self.check(
            event.ancestors == known[:RERUN_ANCESTORS],
            f"{event.run_id} comes after {event.ancestors}, before {before.run_id} were {known}",
        )

    def _on_run_cancel_requested(self, event: e.RunCancelRequested) -> None:
        self.runs[event.run_id].cancelled = True

    def _on_run_ended(self, event: e.RunEnded) -> None:
        run = self.runs[event.run_id]
        self.check(run.state is RunState.ACTIVE, f"run {event.run_id} ends twice")
        ends = [job.end for job in run.jobs.values()]
        self.check(None not in ends, f"run {event.run_id} ends before its jobs")
        expected = RunState.SUCCEEDED
        if JobState.FAILED in ends:
            expected = RunState.FAILED
        elif JobState.CANCELLED in ends:
            expected = RunState.CANCELLED
        self.check(event.state is expected, f"run {event.run_id} is {event.state}, not {expected}")
        run.state = event.state
        failed = event.state is RunState.FAILED
        self.schedules.ended(event.run_id, event.schedule, failed=failed)

    def _on_jobs_queued(self, event: e.JobsQueued) -> None:
        for job_id in event.job_ids:
            self._ready(event.run_id, job_id)
            is_gate = self.runs[event.run_id].jobs[job_id].is_gate
            self.check(not is_gate, f"gate {event.run_id}/{job_id} is queued like a task")

    def _on_gates_opened(self, event: e.GatesOpened) -> None:
        for job_id, expires_ms in zip(event.job_ids, event.expires_ms, strict=True):
            self._ready(event.run_id, job_id)
            job = self.runs[event.run_id].jobs[job_id]
            name = f"gate {event.run_id}/{job_id}"
            self.check(job.is_gate and not job.opened_ms, f"{name} is no gate, or is opened twice")
            self.check(event.at_ms >= job.not_before_ms, f"{name} opens before its delay is over")
            timeout_ms = job.section.timeout_ms
            expected = event.at_ms + timeout_ms if timeout_ms else 0
            self.check(expires_ms == expected, f"{name} expires at {expires_ms}, not {expected}")
            job.opened_ms = event.at_ms

    def _on_gate_decided(self, event: e.GateDecided) -> None:
        job = self.runs[event.run_id].jobs[event.job_id]
        name = f"gate {event.run_id}/{event.job_id}"
        self.check(job.is_gate and job.opened_ms, f"{name} is decided and was never opened")
        self.check(job.decision is None and job.end is None, f"{name} is decided a second time")
        self.check(event.opened_at_ms == job.opened_ms, f"{name} opened at {job.opened_ms}")
        job.decision = event
        if event.reason is ExitReason.EXPIRED:
            timeout_ms = job.section.timeout_ms
            is_over = timeout_ms and event.at_ms >= job.opened_ms + timeout_ms
            self.check(is_over and not event.by, f"{name} expires before its time: {event}")
        else:
            wish = (event.job_id, event.reason is ExitReason.APPROVED)
            self.check(wish in self._wishes, f"{name} is decided as nobody wished: {event}")
            self.check(event.by == "sim", f"{name} is decided by {event.by!r}")

    def _check_gate_end(self, name: str, job: JobBook, event: e.JobEnded) -> None:
        """It ends as was decided, and succeeds only if a person or its own time approved."""
        decision = job.decision
        self.check(decision is not None, f"{name} passes and nobody has decided")
        assert decision is not None
        approved = decision.reason is ExitReason.APPROVED or (
            decision.reason is ExitReason.EXPIRED and job.section.on_timeout is GateExpiry.APPROVE
        )
        expected = JobState.SUCCEEDED if approved else JobState.FAILED
        self.check(event.state is expected, f"{name} is {event.state} after {decision}")
        self.check(event.reason is decision.reason, f"{name} ends for {event.reason}: {decision}")

    def _on_jobs_scheduled(self, event: e.JobsScheduled) -> None:
        for job_id, until_ms in zip(event.job_ids, event.until_ms, strict=True):
            self._ready(event.run_id, job_id)
            job = self.runs[event.run_id].jobs[job_id]
            job.not_before_ms = _begins(job.spec, event.at_ms)
            self.check(until_ms == job.not_before_ms, f"{job_id} waits until {until_ms}: {event}")

    def _on_job_backoff(self, event: e.JobBackoff) -> None:
        """It will be tried again: the policy says so, and the attempt before is over."""
        job = self.runs[event.run_id].jobs[event.job_id]
        name = f"{event.run_id}/{event.job_id}"
        self.check(job.end is None, f"{name} is tried again after its end")
        self.check(job.live is None, f"{name} backs off while attempt {job.live} lives")
        self.check(not self.runs[event.run_id].cancelled, f"{name} backs off and is cancelled")
        last, policy = job.last, job.spec.retries
        assert last is not None
        if last.reason in {ExitReason.LOST, ExitReason.WORKER_LEFT}:
            self.check(job.spec.exclusive, f"{name} was lost, is not exclusive, and waits")
            self.check(event.failures == job.failures, f"{name} counts a loss as a failure")
        else:
            job.failures += 1
            self.check(
                event.failures == job.failures, f"{name} failed {job.failures} times: {event}"
            )
            self.check(job.failures <= policy.limit, f"{name} is tried again too often: {event}")
            self.check(
                event.until_ms - event.at_ms <= policy.max_delay_ms,
                f"{name} waits too long: {event}",
            )
        job.not_before_ms = event.until_ms

    def _on_job_cancelling(self, event: e.JobCancelling) -> None:
        job = self.runs[event.run_id].jobs[event.job_id]
        job.stopped_for = event.reason
        if event.reason is ExitReason.TIMED_OUT:
            limit_ms = job.spec.job_timeout_ms
            self.check(
                limit_ms and event.at_ms - job.first_placed_ms >= limit_ms,
                f"{event.run_id}/{event.job_id} is stopped before its time is over",
            )

    def _ready(self, run_id: str, job_id: str) -> None:
        run = self.runs[run_id]
        job = run.jobs[job_id]
        self.check(job.end is None, f"{run_id}/{job_id} is ready after its end")
        self.check(job.live is None, f"{run_id}/{job_id} is ready while an attempt lives")
        self._check_parents(run, job)

    def _check_parents(self, run: RunBook, job: JobBook) -> None:
        if job.when and not job.begun:
            said = self._condition(run, job)
            self.check(said is True, f"{run.run_id}/{job.spec.id} begins, and its when is {said}")
        job.begun = True
        parents = [run.jobs[parent] for parent in job.spec.dependencies]
        if not parents:
            return
        name, trigger = f"{run.run_id}/{job.spec.id}", job.trigger
        above = run.running_above(job.spec.id)
        self.check(not above, f"{name} goes on before {above}, above it, have ended")
        self._coverage.trigger(trigger, begins=True)
        self.check(
            _may_begin(trigger, parents),
            f"{name} goes on by {trigger} after {[one.end for one in parents]}",
        )

    def _on_attempt_placed(self, event: e.AttemptPlaced) -> None:
        run = self.runs[event.run_id]
        job = run.find(event.job_id)
        ref = AttemptRef(event.run_id, event.job_id, event.number)
        worker = self.workers[event.worker_id]
        state = self.services.get((event.run_id, event.job_id))
        if state is not None:
            self.check(state == "QUEUED", f"{ref} is placed, and its service is {state}")
            self.check(event.worker_id not in job.avoid, f"{ref} is placed where it failed")
            self.services[event.run_id, event.job_id] = "UP"
        else:
            self.check(job.end is None, f"{ref} is placed after its job's end")
            self.check(not run.cancelled, f"{ref} is placed after its run's cancellation")
            self.check(job.lost < LOST_MAX, f"{ref} is placed after {job.lost} lost attempts")
            self.check(
                not run.home_of
                or not job.spec.dependencies
                or worker.workspace in run.home_of.values(),
                f"{ref} is placed where files that it may need are not",
            )
        self.check(not job.is_gate, f"{ref} is placed, and a gate takes no slot")
        self.check(job.live is None, f"{ref} is placed beside attempt {job.live}")
        if not job.spec.retries.after_loss:
            before = (AttemptRef(ref.run_id, ref.job_id, n) for n in range(1, ref.number))
            begun = any(earlier in self._spawned for earlier in before)
            self.check(not begun, f"{ref} is placed and was to be done once")
        self.check(event.number == job.numbers + 1, f"{ref} follows attempt {job.numbers}")
        self.check(event.fence > self._fence, f"{ref} has fence {event.fence} after {self._fence}")
        self.check(worker.state == "ONLINE", f"{ref} is placed on a worker that is {worker.state}")
        self.check(not worker.cordoned, f"{ref} is placed on a worker that is cordoned")
        self.check(
            set(job.spec.needs.skills) <= set(worker.skills), f"{ref} is placed where skills lack"
        )
        self.check(event.at_ms >= job.not_before_ms, f"{ref} is placed before its delay is over")
        self._check_parents(run, job)
        self._fence = job.fence = event.fence
        job.was_on = (event.worker_id, f"{worker.host}:{worker.port}", worker.workspace)
        job.numbers = event.number
        self._need(run, event.job_id, ref if job.spec.kind is JobKind.TASK else None)
        job.live = event.number
        job.first_placed_ms = job.first_placed_ms or event.at_ms
        limit_ms = job.spec.job_timeout_ms
        self.check(
            not limit_ms or event.at_ms - job.first_placed_ms <= limit_ms + OVERTIME_MS,
            f"{ref} is placed long after its job's time was over",
        )
        worker.holds[ref] = None
        taken = sum(self._job(held).spec.needs.slots for held in worker.holds)
        self.check(
            taken <= worker.slots or not job.spec.needs.slots,
            f"{ref} is one too many on {event.worker_id}",
        )
        self._check_resources(ref, worker)
        self._check_terms(ref, event.worker_id, worker)
        self._check_port(ref, worker)

    def _check_terms(self, ref: AttemptRef, worker_id: str, worker: WorkerBook) -> None:
        """It is where it has to be, and one of no more than may be."""
        job = self._job(ref)
        terms = job.spec.needs.terms
        run = self.runs[ref.run_id]
        if run.near and worker_id == run.near:
            self._coverage.choice(Choice.CHILD)
        if terms is None:
            return
        if terms.worker:
            names = (worker_id, worker.host, f"{worker.host}:{worker.port}")
            self.check(terms.worker in names, f"{ref} is pinned to {terms.worker}, and on {names}")
            self._coverage.choice(Choice.PINNED)
        if terms.spread:
            self._coverage.choice(Choice.SPREAD)
        self._check_beside(ref, terms, worker_id)
        if terms.group:
            # It is among those that its worker holds already.
            live = sum(
                found is not None and found.group == terms.group
                for other in self.workers.values()
                for held in other.holds
                for found in (self._job(held).spec.needs.terms,)
            )
            self.check(live <= terms.limit, f"{ref} is the {live}th of group {terms.group}")
            self._coverage.choice(Choice.GROUPED)
        if terms.run_group and run.state is RunState.ACTIVE:
            begun = [
                other.run_id
                for other in self.runs.values()
                if other.state is RunState.ACTIVE
                and other.has_begun
                and other.run_group == terms.run_group
            ]
            self.check(
                run.has_begun or len(begun) < terms.run_limit,
                f"{ref} begins a run of group {terms.run_group} beside {begun}",
            )
            run.has_begun = True
            self._coverage.choice(Choice.RUNS_GROUPED)

    def _check_beside(self, ref: AttemptRef, terms: Terms, worker_id: str) -> None:
        run = self.runs[ref.run_id]
        if not terms.near or (ref.run_id, ref.job_id) in self.services:
            return
        was = run.find(terms.near).was_on
        if not was:
            return  # it was taken over: nobody knows where it was
        worker = self.workers[worker_id]
        names = (worker_id, f"{worker.host}:{worker.port}", worker.workspace)
        is_there = any(mine == its for mine, its in zip(names, was, strict=True))
        if terms.required:
            self.check(is_there, f"{ref} is on {worker_id}, and {terms.near} was on {was}")
            self._coverage.choice(Choice.BESIDE)
        else:
            self._coverage.choice(Choice.NEAR if is_there else Choice.NOT_NEAR)

    def _check_resources(self, ref: AttemptRef, worker: WorkerBook) -> None:
        """What is counted is never given away twice."""
        terms = self._job(ref).spec.needs.terms
        for one in () if terms is None else terms.counted:
            self._coverage.choice(Choice.COUNTED)
            if one.name == "cpu" and "cpu" not in worker.resources:
                continue  # nobody knows how much there is
            held = (self._job(other).spec.needs.terms for other in worker.holds)
            taken = sum(
                other.amount
                for found in held
                if found is not None
                for other in found.counted
                if other.name == one.name
            )
            has = worker.resources.get(one.name, 0)
            self.check(taken <= has, f"{ref} is placed where {taken} of {has} {one.name} are taken")

    def _check_port(self, ref: AttemptRef, worker: WorkerBook) -> None:
        """Two services of one fixed port are never where their ports are the same."""
        ports = [
            section.port
            for held in self._held_beside(worker)
            if (section := self._job(held).spec.service) is not None and section.port
        ]
        self.check(len(ports) == len(set(ports)), f"{ref} is placed where its port is taken")

    def _held_beside(self, worker: WorkerBook) -> list[AttemptRef]:
        """What is held by the workers whose ports are the same."""
        books = (one for one in self.workers.values() if one.network == worker.network)
        return [ref for one in books for ref in one.holds]

    def _on_attempt_started(self, event: e.AttemptStarted) -> None:
        ref = AttemptRef(event.run_id, event.job_id, event.number)
        self.check(self._job(ref).live == ref.number, f"{ref} starts and is not the live attempt")
        self.check(ref in self._spawned, f"{ref} started, says the journal, but no process did")

    def _on_attempt_ended(self, event: e.AttemptEnded) -> None:
        ref = AttemptRef(event.run_id, event.job_id, event.number)
        job = self._job(ref)
        worker = self.workers.get(event.worker_id)
        self.check(job.live == ref.number, f"{ref} ends and is not the live attempt")
        job.live = None
        job.last = event
        if worker is not None:
            self.check(ref not in worker.to_move, f"{ref} was up, and was not moved")
        if event.reason is ExitReason.LOST and job.end is None:
            job.lost += 1
        if self.services.get((ref.run_id, ref.job_id)) == "UP":
            self.services[ref.run_id, ref.job_id] = "DOWN"
            self.well.discard((ref.run_id, ref.job_id))
        if event.message.endswith("came back without it"):
            self.check(
                ref not in self._spawned or ref in self._outcomes,
                f"{ref} is given up for not being where it runs",
            )
        if event.reason is ExitReason.WORKER_LEFT:
            self._check_shut_down(event.worker_id, f"{ref} ends by its worker's leave")
        if event.reason is ExitReason.LOST and worker is not None:
            # What was being stopped for another reason is over: nobody counts what became of it.
            stopping = self.services.get((ref.run_id, ref.job_id)) == "STOPPING"
            stopping = stopping or job.stopped_for is not None
            # Nor of one whose worker had left, came back with its end, and was lost before it could tell.
            untold = worker.state == "LOST" and worker.came_back
            blamed = ref in self._left and ref in worker.drained and not stopping and not untold
            self.check(not blamed, f"{ref} was stopped by a leave and counts as lost")
        if event.reason in {ExitReason.EXITED, ExitReason.SIGNALLED, ExitReason.OOM_KILLED}:
            self.check(
                self._outcomes.get(ref) == (event.exit_code, event.signal),
                f"{ref} ended otherwise than its process: {event} {self._outcomes.get(ref)}",
            )
        if event.reason is ExitReason.BAD_OUTPUT:
            self.check(
                self._outcomes.get(ref) == (0, 0) and self._written[ref][1] == event.message,
                f"{ref} is blamed for its outputs: {event}, it left {self._written.get(ref)}",
            )
        if event.reason is ExitReason.BAD_FILES:
            self.check(
                self._outcomes.get(ref) == (0, 0) and self._files[ref][1] == event.message,
                f"{ref} is blamed for its files: {event}, it left {self._files.get(ref)}",
            )
        if self._succeeded(event) and job.spec.kind is JobKind.TASK:
            self.check(not self._written[ref][1], f"{ref} is taken for a success: {event}")
            self.check(not self._files[ref][1], f"{ref} is taken for a success: {event}")
        if event.reason is ExitReason.CANCELLED:
            run = self.runs[ref.run_id]
            asked = run.cancelled or ref.job_id in run.stopped
            self.check(asked, f"{ref} is stopped, and nobody cancelled")
        if event.reason is ExitReason.STOPPED:
            service = self.services.get((ref.run_id, ref.job_id))
            self.check(service == "STOPPING", f"{ref} is stopped, and its service is {service}")
        if event.reason is ExitReason.TIMED_OUT and not job.spec.job_timeout_ms:
            # A worker that is behind may look at its clock before it hears of the exit.
            lasted_ms = self._lasted.get(ref, 0) * FASTEST
            self.check(
                job.spec.timeout_ms
                and (lasted_ms >= job.spec.timeout_ms or ref in self._heard_late),
                f"{ref} timed out after {self._lasted.get(ref)} of {job.spec.timeout_ms} ms",
            )
        self._coverage.reason(event.reason)
        if worker is not None:
            self.check(ref in worker.holds, f"{ref} ends on a worker that never had it")
            del worker.holds[ref]

    def _on_job_ended(self, event: e.JobEnded) -> None:
        ref = AttemptRef(event.run_id, event.job_id, event.number)
        job = self._job(ref)
        self._end_job(event.run_id, job, event.state, event.reason)
        last = job.last
        if job.is_gate:
            self._check_gate_end(f"gate {ref.run_id}/{ref.job_id}", job, event)
            return
        if event.state is JobState.SUCCEEDED and job.spec.kind is JobKind.TASK:
            self.check(
                last is not None and last.number == event.number and self._succeeded(last),
                f"{ref} succeeded by {last}",
            )
            wrote = self._written[ref][0]
            self.check(event.outputs == wrote, f"{ref} left {wrote}, recorded is {event.outputs}")
        else:
            self.check(not event.outputs, f"{ref} did not succeed and left {event.outputs}")
        job.outputs = event.outputs
        if event.home:
            self.runs[ref.run_id].home_of[ref.job_id] = event.home
        self._check_left(ref, job, event)
        if event.reason is ExitReason.MISSING_OUTPUT:
            run = self.runs[ref.run_id]
            self.check(
                any(key not in run.jobs[name].outputs for name, key in _used(job.spec)),
                f"{ref} was not started for want of outputs that are there",
            )
            self.check(not event.number, f"{ref} has been started with outputs that are missing")
            return
        if event.reason is ExitReason.TAKEN_OVER:
            self._check_kept(event, job)
            return
        if event.state is JobState.SUCCEEDED and job.spec.kind is JobKind.SERVICE:
            self.check((ref.run_id, ref.job_id) in self.services, f"{ref} settles and is not up")
        if event.state is JobState.CANCELLED:
            run = self.runs[ref.run_id]
            asked = run.cancelled or ref.job_id in run.stopped
            self.check(asked, f"{ref} is cancelled by nobody")
        if event.reason in {ExitReason.LOST, ExitReason.WORKER_LEFT}:
            once = not job.spec.retries.after_loss
            self.check(once, f"{ref} is given up after a loss")
        elif event.reason is ExitReason.QUARANTINED:
            self.check(job.lost >= LOST_MAX, f"{ref} failed for {job.lost} lost attempts")
        elif event.state is JobState.FAILED and event.reason is not ExitReason.TIMED_OUT:
            self._check_spent(job, event)

    def _check_kept(self, event: e.JobEnded, job: JobBook) -> None:
        """A healthy service of another run of this name is what the job asks for."""
        run = self.runs[event.run_id]
        self.check(event.number == 0, f"{event} is kept, and has been placed")
        whose = event.message.removeprefix("kept from ")
        kept = [
            key
            for key in self.well
            if self.runs[key[0]].alias == whose
            and key[0] != event.run_id
            and key[1].partition("~")[0] == event.job_id
            and _alone(self.runs[key[0]].find(key[1]).spec) == _alone(job.spec)
        ]
        self.check(kept, f"{run.run_id}/{event.job_id} is kept from {whose}, where none is like it")

    def _check_spent(self, job: JobBook, event: e.JobEnded) -> None:
        """It failed by itself and is not tried again: the policy has no further try for it."""
        if job.spec.kind is JobKind.SERVICE:
            return  # its worker's budget is looked at with its processes
        policy = job.spec.retries
        cause = _CAUSES[event.reason]
        self.check(
            job.failures >= policy.limit
            or cause not in policy.causes
            or (cause is RetryCause.EXIT and event.exit_code in policy.not_exit_codes),
            f"{event} after {job.failures} failures, and there was another try",
        )

    def _succeeded(self, event: e.AttemptEnded) -> bool:
        return (event.reason, event.exit_code, event.signal) == (ExitReason.EXITED, 0, 0)

    def _on_jobs_dropped(self, event: e.JobsDropped) -> None:
        run = self.runs[event.run_id]
        for job_id in event.job_ids:
            job = run.jobs[job_id]
            self._end_job(event.run_id, job, event.state, event.reason)
            parents = {run.jobs[parent].end for parent in job.spec.dependencies}
            if event.reason in {ExitReason.WHEN_FALSE, ExitReason.BAD_WHEN}:
                self._check_undecided(run, job, event)
            elif event.state is JobState.SKIPPED:
                self._check_skipped(run, job, event)
            else:
                self.check(
                    run.cancelled or job_id in run.stopped or JobState.CANCELLED in parents,
                    f"{event.run_id}/{job_id} is {event.state} and nobody cancelled",
                )

    def _condition(self, run: RunBook, job: JobBook) -> bool | None:
        """What a condition of the workload's comes to, by its parts; None where it cannot be decided."""
        word = " and " if " and " in job.when else " or "
        found = False
        for part in job.when.split(word):
            if part in ("true", "false"):
                found = part == "true"
            elif part.startswith("params."):
                found = run.params["p"] != part[-1]
            elif part.startswith("matrix."):
                found = job.cell["n"] == part[-1]
            elif match := _STATE.fullmatch(part):
                found = run.jobs[match[1]].end is not JobState[match[2]]
            else:
                name = _ATTEMPT.fullmatch(part)[1]  # type: ignore[index]  # the workload's
                if "attempt" not in run.jobs[name].outputs:
                    return None
                found = ".1" in run.jobs[name].outputs["attempt"]
            if found == (word == " or "):
                return found
        return found

    def _check_undecided(self, run: RunBook, job: JobBook, event: e.JobsDropped) -> None:
        """By its condition it does not begin: it is false, or cannot be decided."""
        name = f"{run.run_id}/{job.spec.id}"
        parents = [run.jobs[parent] for parent in job.spec.dependencies]
        above = run.running_above(job.spec.id)
        self.check(not above, f"{name} is decided about before {above} have ended: {event}")
        self.check(
            not parents or _may_begin(job.trigger, parents), f"{name} has no turn yet: {event}"
        )
        is_false = event.reason is ExitReason.WHEN_FALSE
        said = self._condition(run, job)
        self.check(said is (False if is_false else None), f"{name}: {job.when} is {said}: {event}")
        self.check(
            event.state is (JobState.SKIPPED if is_false else JobState.FAILED), f"{name}: {event}"
        )

    def _check_skipped(self, run: RunBook, job: JobBook, event: e.JobsDropped) -> None:
        """Nothing that may still happen would let it begin, and the reason is what was in its way."""
        name, trigger = f"{run.run_id}/{job.spec.id}", job.trigger
        parents = [run.jobs[parent] for parent in job.spec.dependencies]
        known = [one for one in parents if one.end]
        failed = [one for one in known if one.is_failure]
        self._coverage.trigger(trigger, begins=False)
        expected = ExitReason.PARENT_FAILED if failed else ExitReason.PARENT_SKIPPED
        if trigger is Trigger.ANY_FAILED:
            expected = ExitReason.TRIGGER_UNMET
        self.check(event.reason is expected, f"{name} is skipped for {event.reason}: {trigger}")
        early = failed and trigger in (Trigger.ALL_SUCCEEDED, Trigger.NONE_FAILED)
        self.check(
            early or not run.running_above(job.spec.id),
            f"{name} is skipped while something above it runs",
        )
        self.check(not _may_begin(trigger, known), f"{name} is skipped, and its {trigger} is there")

    def _end_job(self, run_id: str, job: JobBook, state: JobState, reason: ExitReason) -> None:
        name = f"{run_id}/{job.spec.id}"
        self.check(job.end is None, f"{name} ends as {state} and had ended as {job.end}")
        self.check(state in JOB_TERMINAL, f"{name} ends as {state}")
        service = job.spec.kind is JobKind.SERVICE
        self.check(
            job.live is None or (service and state is JobState.SUCCEEDED),
            f"{name} ends as {state} while attempt {job.live} lives",
        )
        job.end = state
        job.reason = reason
        self._coverage.reason(reason)

    def _on_service_up(self, event: e.ServiceUp) -> None:
        key = (event.run_id, event.job_id)
        self.check(key not in self.services, f"service {key} comes up twice")
        self.services[key] = "UP"
        self.well.add(key)

    def _on_service_changed(self, event: e.ServiceChanged) -> None:
        key = (event.run_id, event.job_id)
        self.check(self.services[key] == "UP", f"service {key} changes, and is not up")
        if event.healthy:
            self.well.add(key)
        else:
            self.well.discard(key)

    def _on_service_added(self, event: e.ServiceAdded) -> None:
        """Beside one that is wanted, under a name that nothing ever had."""
        run, key = self.runs[event.run_id], (event.run_id, event.job_id)
        like = run.find(event.of)
        base = event.job_id.partition("~")[0]
        self.check(key not in self.services, f"instance {key} is there twice")
        self.check(event.job_id == f"{base}~{event.number}", f"{key} has number {event.number}")
        self.check(
            event.of.partition("~")[0] == base
            and self.services[event.run_id, event.of] not in {"STOPPING", "ENDED"},
            f"{key} is made like {event.of}, which is not wanted",
        )
        if event.why:
            self._check_move(event, like)
        else:
            self.check(not event.avoid, f"{key} is to avoid {event.avoid}: {event}")
        book = JobBook(replace(like.spec, id=event.job_id, dependencies=()))
        book.avoid = event.avoid
        book.end = JobState.SUCCEEDED
        book.replaces = event.replaces
        run.instances[event.job_id] = book
        self.services[key] = "QUEUED"

    def _check_move(self, event: e.ServiceAdded, like: JobBook) -> None:
        """Its worker is leaving, or drained, and it can be beside its replacement."""
        ref = AttemptRef(event.run_id, event.of, like.live or 0)
        on = [worker for worker in self.workers.values() if ref in worker.holds]
        self.check(
            event.replaces == event.of
            and len(on) == 1
            and (on[0].state == "DRAINING" or on[0].cordoned),
            f"{event.of} is moved away from a worker that stays: {event}",
        )
        is_up = self.services[event.run_id, event.of] == "UP"
        self.check(is_up, f"{ref} is moved, and is not up")
        self.check(not like.spec.exclusive, f"{ref} is exclusive, and moved: {event}")
        self.check(event.avoid == like.avoid, f"{event.job_id} may go where it failed: {event}")
        on[0].to_move.pop(ref, None)

    def _replacements(self, run_id: str, job_id: str) -> list[tuple[tuple[str, str], JobBook]]:
        """What is there to take the place of this instance."""
        return [
            ((run_id, name), book)
            for name, book in self.runs[run_id].instances.items()
            if book.replaces == job_id and self.services[run_id, name] != "ENDED"
        ]

    def told_to_stop(self, message: StopAttempts) -> None:
        """A service goes with its worker only where no replacement of it is under way."""
        if message.reason is not ExitReason.WORKER_LEFT:
            return
        for ref in message.refs:
            under_way = [
                key for key, book in self._replacements(ref.run_id, ref.job_id) if book.live
            ]
            self.check(not under_way, f"{ref} is told to go, and {under_way} is coming up for it")
            holders = [worker for worker in self.workers.values() if ref in worker.holds]
            for worker in holders:
                self.check(worker.state == "DRAINING", f"{ref} is told to go, and its worker stays")
            if (ref.run_id, ref.job_id) in self.well:
                self._coverage.move(Move.STAYED)

    def _on_service_queued(self, event: e.ServiceQueued) -> None:
        """It is wanted still, and its last attempt is over for a reason that it could not help."""
        key = (event.run_id, event.job_id)
        job = self.runs[event.run_id].find(event.job_id)
        state = self.services[key]
        last = job.last
        assert last is not None
        self.check(event.reason is last.reason, f"service {key} is queued for {event.reason}")
        if "had room" in event.why:
            self._coverage.move(Move.CAME_BACK)
        if state == "HELD":
            self.check(not event.until_ms, f"service {key} is held back twice")
        else:
            self.check(state == "DOWN", f"service {key} is queued, and is {state}")
        gone = event.reason in {ExitReason.LOST, ExitReason.WORKER_LEFT}
        if gone:
            self.check(event.avoid == job.avoid, f"service {key} avoids {event.avoid}: {event}")
            if state != "HELD":
                coming = [other for other, book in self._replacements(*key) if book.numbers]
                text = f"service {key} is queued beside {coming}, which takes its place"
                self.check(not coming, text)
        else:
            self.check(
                event.reason in _MOVED and 0 < event.moves <= SERVICE_MOVES,
                f"service {key} moves: {event}",
            )
            self.check(last.worker_id in event.avoid, f"service {key} may come back: {event}")
        job.avoid = event.avoid
        job.moves = event.moves
        if event.until_ms:
            self.check(gone and job.spec.exclusive, f"service {key} is held back: {event}")
            job.not_before_ms = event.until_ms
        self.services[key] = "HELD" if event.until_ms else "QUEUED"

    def _on_service_stopping(self, event: e.ServiceStopping) -> None:
        key = (event.run_id, event.job_id)
        self.check(self.services[key] == "UP", f"service {key} is stopped, and is not up")
        self.services[key] = "STOPPING"
        if event.why.startswith("replaced by"):
            by = event.why.removeprefix("replaced by ").partition("/")[2]
            others = [
                other
                for other, state in self.services.items()
                if other != key and other[1] == by and state == "UP" and other in self.well
            ]
            self.check(others, f"service {key} goes for {by}, which is not well")
            job = self.runs[key[0]].find(key[1])
            ref = AttemptRef(*key, job.live or 0)
            if any(ref in one.holds and one.state == "DRAINING" for one in self.workers.values()):
                self._coverage.move(Move.REPLACED)
        elif "for its replacement" in event.why:
            coming = [book for _, book in self._replacements(*key) if book.avoid]
            self._coverage.move(Move.MADE_WAY_LATE if coming else Move.MADE_WAY)

    def _on_service_ended(self, event: e.ServiceEnded) -> None:
        """A person stopped it, or it came to its own end where nobody else could have it."""
        key = (event.run_id, event.job_id)
        state = self.services[key]
        if event.stopped and state == "DOWN":
            coming = [other for other, book in self._replacements(*key) if book.numbers]
            self.check(coming, f"service {key} is given up, and nothing takes its place")
            self._coverage.move(Move.LEFT_BEHIND)
        elif event.stopped:
            self.check(
                state in {"STOPPING", "QUEUED", "HELD"},
                f"service {key} was {state} and ended as stopped",
            )
        else:
            self.check(state == "DOWN", f"service {key} was {state} and ended")
            gone = event.reason in {ExitReason.LOST, ExitReason.WORKER_LEFT}
            self.check(not gone, f"service {key} is given up with its worker")
            if event.reason in _MOVED:
                self._check_nowhere_else(key)
        self.services[key] = "ENDED"

    def _check_nowhere_else(self, key: tuple[str, str]) -> None:
        job = self.runs[key[0]].find(key[1])
        last = job.last
        assert last is not None
        could = [
            worker_id
            for worker_id, worker in self.workers.items()
            if worker.state in {"ONLINE", "SILENT"}
            and not worker.cordoned
            and set(job.spec.needs.skills) <= set(worker.skills)
            and worker.has_all(job.spec)
            and worker_id not in (*job.avoid, last.worker_id)
        ]
        if self._replacements(*key):
            return  # which goes on alone
        if could and job.moves < SERVICE_MOVES and self._would_end_another(key, job, could):
            self._coverage.move(Move.SPARED)
            return
        self.check(
            not could or job.moves >= SERVICE_MOVES,
            f"service {key} is given up, and {could} could have it",
        )

    def _would_end_another(self, key: tuple[str, str], job: JobBook, could: list[str]) -> bool:
        """Whether it crashed, and what it replaces, which is well, has its port wherever it could go."""
        replaced = (key[0], job.replaces)
        if job.last is None or job.last.reason is not ExitReason.CRASH_LOOP:
            return False
        if not job.replaces or replaced not in self.well or self.services[replaced] != "UP":
            return False
        port = 0 if job.spec.service is None else job.spec.service.port
        held = [self._held_beside(self.workers[worker_id]) for worker_id in could]
        return bool(port) and all(
            any((ref.run_id, ref.job_id) == replaced for ref in refs) for refs in held
        )

    def _on_worker_joined(self, event: e.WorkerJoined) -> None:
        book = WorkerBook(event)
        before = self.workers.get(event.worker_id)
        if before is not None:
            book.holds, book.drained = before.holds, before.drained
            book.came_back = True
            book.cordoned = before.cordoned
        if event.spawn:
            number, worker_id = event.spawn, event.worker_id
            is_wanted = number in self._waited_for or self._joined_as.get(number) == worker_id
            self.check(is_wanted, f"{worker_id} is let in as {number}, which nobody waits for")
            self.check(number in self._born, f"{worker_id} is let in as {number}, never spawned")
        self.workers[event.worker_id] = book

    def _on_worker_silent(self, event: e.WorkerSilent) -> None:
        self.workers[event.worker_id].state = "SILENT"

    def _on_worker_cordoned(self, event: e.WorkerCordoned) -> None:
        worker = self.workers[event.worker_id]
        self.check(worker.cordoned is not event.cordoned, f"{event.worker_id} is cordoned twice")
        worker.cordoned = event.cordoned

    def _on_worker_draining(self, event: e.WorkerDraining) -> None:
        self._check_shut_down(event.worker_id, f"{event.worker_id} drains")
        worker = self.workers[event.worker_id]
        worker.state = "DRAINING"
        worker.drained = dict(worker.holds)
        if not event.at_once:
            worker.to_move = {ref: None for ref in worker.holds if self._could_move(ref)}

    def _could_move(self, ref: AttemptRef) -> bool:
        """Whether it is up, and another worker could have it besides."""
        key = (ref.run_id, ref.job_id)
        if self.services.get(key) != "UP" or key not in self.well or self._replacements(*key):
            return False
        job = self._job(ref)
        return not job.spec.exclusive and any(
            self._could_have(worker, job)
            and worker_id not in job.avoid
            and not self._has_port(worker, job)
            for worker_id, worker in self.workers.items()
        )

    def look(self) -> None:
        """Nothing waits for ever for the port of what waits for it."""
        for key, state in self.services.items():
            job = self.runs[key[0]].find(key[1])
            replaced = (key[0], job.replaces)
            if state != "QUEUED" or self.services.get(replaced) != "UP":
                continue
            port = 0 if job.spec.service is None else job.spec.service.port
            places = [
                self._held_beside(worker)
                for worker_id, worker in self.workers.items()
                if worker_id not in job.avoid and self._could_have(worker, job)
            ]
            only = [
                refs for refs in places if any((one.run_id, one.job_id) == replaced for one in refs)
            ]
            stuck = port and places and len(only) == len(places)
            self.check(not stuck, f"{key} waits for the port of {replaced}, which waits for it")

    @staticmethod
    def _could_have(worker: WorkerBook, job: JobBook) -> bool:
        return (
            worker.state in {"ONLINE", "SILENT"}
            and not worker.cordoned
            and set(job.spec.needs.skills) <= set(worker.skills)
            and job.spec.needs.slots <= worker.slots
            and worker.has_all(job.spec)
        )

    def _has_port(self, worker: WorkerBook, job: JobBook) -> bool:
        port = 0 if job.spec.service is None else job.spec.service.port
        held = (self._job(ref).spec.service for ref in self._held_beside(worker))
        return bool(port) and any(section is not None and section.port == port for section in held)

    def _check_shut_down(self, worker_id: str, what: str) -> None:
        # In another cluster it goes by its ledger's name with a suffix.
        self.check(worker_id.partition("-")[0] in self._shut_down, f"{what}, told by nobody")

    def _on_worker_returned(self, event: e.WorkerReturned) -> None:
        self.workers[event.worker_id].state = "ONLINE"

    def _on_worker_lost(self, event: e.WorkerLost) -> None:
        self.workers[event.worker_id].state = "LOST"

    def _on_worker_retired(self, event: e.WorkerRetired) -> None:
        worker = self.workers[event.worker_id]
        self.check(not worker.holds, f"{event.worker_id} retires and holds {list(worker.holds)}")
        worker.state = "RETIRED"
        worker.cordoned = False  # should it come back, it is a new one

    # -- workers that workers spawn -----------------------------------------------------------------

    def _on_spawn_asked(self, event: e.SpawnAsked) -> None:
        config, parent = self.scaling, self.workers[event.worker_id]
        self.check(event.number > self._fence, f"spawn {event.number} after fence {self._fence}")
        self._fence = event.number
        self.check(parent.state == "ONLINE", f"{event.worker_id} is {parent.state}: {event}")
        self.check(event.cause, f"nobody knows why: {event}")
        here = [one for one in self.workers.values() if one.state not in {"LOST", "RETIRED"}]
        to_come = [self._asked[number] for number in self._waited_for]
        spawned = [one for one in here if one.spawn]
        total = len(spawned) + len(to_come)
        self.check(total < config.siblings_max, f"{total} have been spawned: {event}")
        if not event.by_hand:
            self.check(config.autoscale, f"nobody wanted that: {event}")
            siblings = sum(one.host == event.host for one in (*spawned, *to_come))
            most = config.siblings_per_host
            self.check(siblings < most, f"{siblings} are on that host, at most {most}: {event}")
            slots = sum(one.slots for one in (*here, *to_come) if one.host == event.host)
            most = config.slots_per_core * CORES_MAX
            self.check(slots + event.slots <= most, f"{slots} slots are on that host: {event}")
            self.check(set(event.skills) == set(parent.skills), f"with other skills: {event}")
        self._asked[event.number] = event
        self._waited_for.add(event.number)
        self._coverage.rearing(Rearing.BY_HAND if event.by_hand else Rearing.BY_QUEUE)

    def _on_spawn_settled(self, event: e.SpawnSettled) -> None:
        number = event.number
        self.check(number in self._waited_for, f"{event}, and it is not waited for")
        self._waited_for.discard(number)
        if event.kind is ScalingKind.JOINED:
            self.check(number not in self._joined_as, f"a second one has joined as {number}")
            self._joined_as[number] = event.sibling_id
            spawn = self.workers[event.sibling_id].spawn
            self.check(spawn == number, f"{event.sibling_id} has joined as {spawn}: {event}")
        else:
            self.check(event.message, f"nobody knows why: {event}")
            if event.kind is ScalingKind.TIMED_OUT:
                waited_ms = event.at_ms - self._asked[number].at_ms
                self.check(waited_ms >= self.scaling.spawn_timeout_ms, f"too early: {event}")
        self._coverage.rearing(_REARINGS[event.kind])

    def _on_sibling_dismissed(self, event: e.SiblingDismissed) -> None:
        worker = self.workers[event.worker_id]
        self.check(worker.spawn and not self._asked[worker.spawn].by_hand, f"not its own: {event}")
        self.check(not worker.holds, f"{event}, and it holds {list(worker.holds)}")
        self.check(worker.state == "ONLINE" and event.why, f"{worker.state}: {event}")
        worker.state = "DISMISSED"
        self._coverage.rearing(Rearing.DISMISSED)

    def told_to_spawn(self, order: SpawnSibling) -> None:
        """A worker was told to spawn another one."""
        asked = self._asked.get(order.number)
        self.check(asked is not None, f"it is not in the journal: {order}")
        assert asked is not None
        same = (order.port, order.slots, order.skills) == (asked.port, asked.slots, asked.skills)
        self.check(same, f"{asked} is sent as {order}")

    def told_verdicts(self, verdicts: SpawnVerdicts) -> None:
        """A worker was told what has been decided about its siblings."""
        for number in (*verdicts.settled, *verdicts.given_up):
            is_open = number in self._waited_for
            self.check(not is_open, f"{verdicts}, and {number} is waited for")

    def born(self, number: int, host: str, boots: int) -> None:
        """A process was started for it, since so many boots of its machine.

        A second one is excused where the machine went down, with the first one and what was written of
        it; and by a copied folder, for its worker is there twice: but one of both is let in.
        """
        before, before_boots = self._born.get(number, ("", 0))
        is_excused = before_boots != boots or "copy" in f"{before} {host}"
        self.check(is_excused, f"{number} is started on {host}, and was on {before}")
        self.check(number in self._asked, f"{number} is started on {host}, asked for by nobody")
        self._born[number] = (host, boots)

    def expected(self, worker_id: str) -> bool:
        """Whether this spawned worker was asked for by a person, and so stays until it is told to go."""
        worker = self.workers.get(worker_id)
        return worker is None or not worker.spawn or self._asked[worker.spawn].by_hand

    def _check_left(self, ref: AttemptRef, job: JobBook, event: e.JobEnded) -> None:
        """What is recorded of files is what that attempt left, and of a success only."""
        if event.state is JobState.SUCCEEDED and job.spec.kind is JobKind.TASK:
            left = self._files[ref][0]
            self.check(event.left == left, f"{ref} left {left}, recorded is {event.left}")
        elif event.left is not None:
            is_up = event.state is JobState.SUCCEEDED and job.spec.kind is JobKind.SERVICE
            self.check(
                is_up and event.left == left_by(ref),
                f"{ref} ended as {event.state}, recorded is {event.left}",
            )
        if event.left is not None:
            self.runs[ref.run_id].leave(ref.job_id, event.left)

    def _job(self, ref: AttemptRef) -> JobBook:
        return self.runs[ref.run_id].find(ref.job_id)

    # -- what the master says ---------------------------------------------------------------------

    def ordered(self, worker_id: str, message: StartAttempts) -> None:
        """A worker was told to start these."""
        for order in message.orders:
            ref = order.ref
            run = self.runs.get(ref.run_id)
            self.check(
                run is not None and ref.number <= run.find(ref.job_id).numbers,
                f"{worker_id} is told to start {ref}, which is not in the journal",
            )
            job = self._job(ref)
            if ref.number == job.numbers:
                self.check(order.fence == job.fence, f"{ref} is sent with fence {order.fence}")
                # Whom the job waited for is not the worker's business and is left out.
            told = order.spec.launch
            if run is not None and (ref.run_id, ref.job_id) not in self.services:
                self.check(
                    order.scheduled_for_ms == run.slot_ms,
                    f"{ref} is told of slot {order.scheduled_for_ms}, it is {run.slot_ms}",
                )
            same = order.spec == replace(job.spec, dependencies=(), launch=told)
            self.check(same, f"{ref} is sent as another job: {order.spec}")
            if run is not None:
                self._check_told(run, job.spec.launch, told)
                wanted = any(ref.job_id in other.spec.dependencies for other in run.jobs.values())
                kept = not wanted or job.spec.launch.share is Share.NODE
                self.check(not (order.publishes and kept), f"{ref} is to publish for nobody")

    def acked(self, message: ReportAcks) -> None:
        """A worker was told that it may forget these."""
        for ref in message.refs:
            run = self.runs.get(ref.run_id)
            live = run.find(ref.job_id).live if run is not None else None
            self.check(live != ref.number, f"{ref} is acknowledged before its end is durable")

    def wished(self, job_id: str, approve: bool) -> None:
        """Somebody is about to ask for this decision about a gate with that job id."""
        self._wishes.add((job_id, approve))

    def told_gate(self, view: GateView) -> None:
        """A client was told how a gate stands."""
        run = self.runs.get(view.run_id)
        self.check(run is not None, f"a client hears of {view}, which is not durable")
        assert run is not None
        job = run.jobs[view.job_id]
        self.check(job.is_gate, f"{view} was told of a {job.spec.kind}")
        self.check(view.message == job.section.message, f"{view} asks another question")
        if view.state in JOB_TERMINAL:
            self.check(job.end is view.state, f"{view} was told, the journal says {job.end}")
        if view.opened_at_ms:
            self.check(view.opened_at_ms == job.opened_ms, f"{view} was opened {job.opened_ms}")
        decision = job.decision
        if view.reason is not ExitReason.UNKNOWN:
            self.check(
                decision is not None
                and (view.reason, view.decided_by, view.comment, view.decided_at_ms)
                == (decision.reason, decision.by, decision.comment, decision.at_ms),
                f"{view} was told, the journal says {decision}",
            )

    def received(self, key: str, receipt: RunReceipt) -> None:
        """A client was told that its run is accepted."""
        run = self.runs.get(receipt.run_id)
        self.check(run is not None, f"run {receipt.run_id} is acknowledged and not durable")
        assert run is not None
        self.check(run.key == key, f"key {key} was answered with the run of {run.key}")
        self.check(run.alias == receipt.alias, f"{receipt.alias} is the alias of {run.alias}")
        known = self.receipts.setdefault(key, receipt.run_id)
        self.check(known == receipt.run_id, f"key {key} is run {known} and {receipt.run_id}")

    def told(self, view: RunView) -> None:
        """A client was told how a run stands."""
        run = self.runs.get(view.run_id)
        self.check(run is not None, f"a client hears of run {view.run_id}, which is not durable")
        assert run is not None
        self.check(sum(view.counts.values()) == len(run.jobs), f"the counts of {view} are wrong")
        if view.state is not RunState.ACTIVE:
            self._told_end(view.run_id, view.state)

    def told_job(self, view: JobView) -> None:
        """A client was told how a job stands."""
        run = self.runs.get(view.run_id)
        self.check(run is not None, f"a client hears of {view}, which is not durable")
        assert run is not None
        job = run.jobs[view.job_id]
        if view.state in JOB_TERMINAL:
            self.check(job.end is view.state, f"{view} was told, the journal says {job.end}")
            # A service goes on to have attempts; history shows the newest that has begun.
            is_newest = view.attempt == job.numbers or job.spec.kind is JobKind.SERVICE
            self.check(
                is_newest and view.attempt <= job.numbers,
                f"{view} was told of attempt {job.numbers}",
            )
            if job.spec.kind is JobKind.TASK:
                self.check(view.lost in {0, job.lost}, f"{view} was told, {job.lost} were lost")
            decided = view.gate is not None and view.gate.reason is not ExitReason.UNKNOWN
            self.check(decided == (job.decision is not None), f"{view} hides a gate's decision")
        outputs = job.outputs if view.state in JOB_TERMINAL else {}
        self.check(view.outputs == outputs, f"{view} was told, and {outputs} is recorded")
        self.check((view.gate is not None) == job.is_gate, f"{view} is told of a {job.spec.kind}")
        if view.gate is not None:
            self.told_gate(view.gate)

    def watched(self, change: JobChange) -> None:
        """A client was told of a change."""
        run = self.runs.get(change.run_id)
        self.check(run is not None, f"a client hears of run {change.run_id}, not durable")
        assert run is not None
        if change.job_id and change.state in JOB_TERMINAL:
            end = run.jobs[change.job_id].end
            self.check(end is change.state, f"{change} was told, the journal says {end}")
        if change.run_state is not RunState.ACTIVE:
            self._told_end(change.run_id, change.run_state)

    def _told_end(self, run_id: str, state: RunState) -> None:
        known = self.runs[run_id].state
        self.check(known is state, f"a client is told {state} of run {run_id}, which is {known}")
        self.learned[run_id] = state

    def living(self) -> list[AttemptRef]:
        """Attempts of which a process runs somewhere."""
        return list(self._alive)

    # -- what really happens ----------------------------------------------------------------------

    def machine(self, host: str, slots: int) -> None:
        """There is a machine."""
        self._slots[host] = slots

    def worker_started(self, worker_id: str, incarnation: int) -> None:
        """A worker's process has started, under an incarnation that it never had."""
        known = self._incarnations.get(worker_id, 0)
        self.check(incarnation > known, f"{worker_id} has incarnation {incarnation} after {known}")
        self._incarnations[worker_id] = incarnation

    def shut_down(self, worker_id: str) -> None:
        """A worker has been told to end in good order."""
        self._shut_down[worker_id] = None

    def says_that_it_leaves(self, running: Iterable[AttemptRef]) -> None:
        """A worker has told its master so; these are its processes at that moment."""
        self._left.update(dict.fromkeys(running))

    def spawned(self, host: str, order: AttemptOrder, live: int) -> None:
        """A process started on a machine of which so many slots are taken now."""
        ref = order.ref
        if ref in self._spawned:
            self._check_restart(host, order)
        self._spawned[ref] = host
        self.check(live <= self._slots[host], f"{live} slots are taken on {host}")
        run = self.runs[ref.run_id]
        self._check_parents(run, run.find(ref.job_id))
        self._check_told(run, run.find(ref.job_id).spec.launch, order.spec.launch)
        if order.spec.exclusive:
            self._check_alone(ref, host)
        self._alive[ref] = self._world.now_ms

    def port_refused(self, ref: AttemptRef, holder: AttemptRef) -> None:
        """A process was not started, for another one listens on its fixed port.

        That must be one that nobody counts on any more: what the journal holds for up was placed first.
        """
        held = {one for worker in self.workers.values() for one in worker.holds}
        self.check(not {ref, holder} <= held, f"{ref} is refused its port, which {holder} has")

    def _check_told(self, run: RunBook, wanted: Launch, told: Launch) -> None:
        """Where another job's output is named stands exactly what the journal has of it."""

        def filled(text: str) -> str:
            return _USED.sub(lambda match: run.jobs[match[1]].outputs[match[2]], text)

        shell = told.shell
        for name, value in told.env.items():
            shell = shell.replace(f"${{{name}}}", value)
        env = {name: told.env.get(name) for name in wanted.env}
        self.check(
            shell == filled(wanted.shell)
            and told.args == tuple(map(filled, wanted.args))
            and env == {name: filled(text) for name, text in wanted.env.items()}
            # What the shell would read as code stands in the environment alone.
            and not any(value and value in told.shell for value in told.env.values()),
            f"{wanted} was started as {told}",
        )

    def left(
        self, ref: AttemptRef, outputs: tuple[dict[str, str], str], files: tuple[Left | None, str]
    ) -> None:
        """A process is about to end, and has written this for others; or what is wrong with it."""
        self._written[ref] = outputs
        self._files[ref] = files

    def named_files(self, order: AttemptOrder, named: dict[int, Left]) -> None:
        """A worker is about to start this, and was told of these layers of its run."""
        run = self.runs[order.ref.run_id]
        for index, left in named.items():
            self.check(
                index <= len(run.layers) and run.layers[index - 1] == left,
                f"{order.ref}: {left} is named as layer {index} of {run.layers}",
            )
        told = {left.digest for left in named.values()}
        for job_id, digest in self._needs(order.ref).items():
            self.check(digest in told, f"{order.ref} starts without what {job_id} left")

    def _need(self, run: RunBook, job_id: str, ref: AttemptRef | None) -> None:
        """It is placed: it is to have what has been left above it by now.

        What comes later is not for it, though it is above: what was skipped for one failure did not wait
        for the others. Of a service it is what was there when it was placed first.
        """
        key = ref or AttemptRef(run.run_id, job_id, 0)
        if key in self._needed:
            return
        self._needed[key] = {
            name: left.digest
            for name in run.ended_above(job_id)
            if (left := run.jobs[name].left) is not None and left.shared
        }

    def _needs(self, ref: AttemptRef) -> dict[str, str]:
        if ref in self._needed:
            return self._needed[ref]
        return self._needed.get(AttemptRef(ref.run_id, ref.job_id, 0), {})

    def _check_restart(self, host: str, order: AttemptOrder) -> None:
        """Only a service has more than one process in an attempt: on one machine, in its budget."""
        ref, service = order.ref, order.spec.service
        before = self._spawned[ref]
        self.check(service is not None, f"{ref} runs on {host}, ran on {before}")
        self.check(before == host, f"service {ref} is started again on {host}, ran on {before}")
        self.check(ref not in self._alive, f"service {ref} is started beside itself")
        now_ms = self._world.now_ms
        times = [at_ms for at_ms in self._restarts.get(ref, ()) if now_ms - at_ms < BUDGET_MS]
        self._restarts[ref] = [*times, now_ms]
        allowed = 0 if service is None else service.restart.max
        self.check(len(times) < allowed, f"service {ref} is started again beyond its budget")

    def _check_alone(self, ref: AttemptRef, host: str) -> None:
        """No other attempt of this exclusive job executes anything, wherever it was started."""
        now_ms = self._world.now_ms
        for other in self._alive:
            if (other.run_id, other.job_id) != (ref.run_id, ref.job_id):
                continue
            wakes_ms = self._asleep.get(other, 0)
            self.check(
                now_ms <= wakes_ms + OVERLAP_MS,
                f"{ref} starts on {host}, it is exclusive, and {other} still runs on "
                f"{self._spawned[other]}",
            )
            self._must_go[other] = wakes_ms + OVERLAP_MS

    def frozen(self, ref: AttemptRef, until_ms: int) -> None:
        """The machine of this process sleeps."""
        self._asleep[ref] = until_ms

    def exited(self, ref: AttemptRef, exit_code: int, signal: int, *, was_watched: bool) -> None:
        """A process ended; `was_watched`: its worker could act all the time."""
        self._outcomes[ref] = (exit_code, signal)
        now_ms = self._world.now_ms
        lasted_ms = self._lasted[ref] = now_ms - self._alive.pop(ref)
        self._asleep.pop(ref, None)
        if not was_watched:
            self._heard_late[ref] = None
        must_go_ms = self._must_go.pop(ref, now_ms)
        self.check(now_ms <= must_go_ms, f"{ref} goes {now_ms - must_go_ms} ms too late")
        spec = self._job(ref).spec
        limit_ms = spec.timeout_ms + spec.stop_grace_ms + TIMEOUT_SLACK_MS
        self.check(
            not spec.timeout_ms or not was_watched or lasted_ms <= limit_ms,
            f"{ref} was there for {lasted_ms} ms, its timeout is {spec.timeout_ms} ms",
        )

    def exit_waits(self, ref: AttemptRef) -> None:
        """A process has ended, and its worker will not hear of it in its next turn, or not at once."""
        self._heard_late[ref] = None

    def is_live_on(self, ref: AttemptRef, worker_id: str) -> bool:
        """Whether the journal has this attempt as live on that worker."""
        worker = self.workers.get(worker_id)
        return worker is not None and ref in worker.holds

    def forgotten(self, worker_id: str, ref: AttemptRef) -> None:
        """A worker has let go of an attempt of this cluster."""
        live = self.runs[ref.run_id].find(ref.job_id).live
        self.check(
            live != ref.number, f"{worker_id} forgets {ref}, whose end the master does not know"
        )

    def broken_by(self, digest: str) -> None:
        """A request has broken the master."""
        self.check(digest not in self._broken_by, "one request breaks the master twice")
        self._broken_by.add(digest)

    def stop_asked(self, run_id: str, job_id: str) -> None:
        """Somebody is about to stop this job."""
        self.runs[run_id].stopped.add(job_id)

    # -- faults that the drivers carry out --------------------------------------------------------

    def master_crashed(self, point: CrashPoint) -> None:
        """An armed crash took effect."""
        self._coverage.fault(CRASH_FAULTS[point])

    def worker_crashed(self, point: CrashPoint) -> None:
        """Likewise."""
        del point
        self._coverage.fault(Fault.WORKER_CRASH_IN_TURN)

    # -- at the end -------------------------------------------------------------------------------

    def unfinished(self) -> list[str]:
        """What has been accepted and has not come to its end."""
        return (
            [
                f"{run.run_id}/{job_id} attempts={job.numbers} live={job.live}"
                for run in self.runs.values()
                if run.state is RunState.ACTIVE
                for job_id, job in run.jobs.items()
                if job.end is None
            ]
            + [f"{number} is waited for" for number in self._waited_for]
            + [
                f"service {key} is {state}"
                for key, state in self.services.items()
                if state != "ENDED"
            ]
        )

    def finish(self) -> None:
        """Nothing that was acknowledged is lost, and everybody knows how it ended."""
        for key, run_id in self.receipts.items():
            run = self.runs.get(run_id)
            self.check(run is not None, f"run {run_id} of key {key} was acknowledged and is lost")
            assert run is not None
            self.check(run.state is not RunState.ACTIVE, f"run {run_id} never ended")
            self.check(run_id in self.learned, f"the client of {run_id} never learned its end")
