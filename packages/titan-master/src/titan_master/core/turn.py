"""The turn: what comes out of one pass of the core, and the draft of it in the making.

Every decision of the core goes through ``Draft.emit``: the event is applied at once, what is
volatile (the index of free workers, deadlines, waiters) follows it, and it is put down for the
journal. Handlers read state, emit events, ask for effects; they keep nothing themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from msgspec import Struct

from titan_master.core.apply import apply
from titan_master.core.cron import Calendars
from titan_master.core.effects import CloseLog, Effect, OpenLog, Reply, Tell
from titan_master.core.events import (
    AnyEvent,
    AttemptEnded,
    AttemptPlaced,
    AttemptStarted,
    Event,
    GatesOpened,
    JobBackoff,
    JobCancelling,
    JobEnded,
    JobsDropped,
    JobsQueued,
    JobsScheduled,
    RunAccepted,
    RunEnded,
    SchedulePaused,
    SchedulePut,
    ScheduleRemoved,
    ScheduleResumed,
    ServiceAdded,
    ServiceQueued,
    SiblingDismissed,
    WorkerCordoned,
    WorkerDraining,
    WorkerJoined,
    WorkerLost,
    WorkerRetired,
    WorkerReturned,
    WorkerSilent,
)
from titan_master.core.inputs import Origin
from titan_master.core.presence import Roster
from titan_master.core.state import Job, Run, State
from titan_master.core.storage import Storage
from titan_master.core.timers import Timers
from titan_master.core.waiters import Waiters
from titan_proto.errors import ErrorCode, Problem
from titan_proto.ids import AttemptRef
from titan_proto.limits import (
    CRASH_LIMIT,
    HEARTBEATS_PER_LEASE,
    ORDER_BYTES_PER_FRAME,
    SCALE_EVERY_MS,
    SCHEDULES,
    SIBLING_IDLE_MS,
    SIBLINGS,
    SIBLINGS_PER_HOST,
    SLOTS_PER_CORE,
    SPAWN_TIMEOUT_MS,
    WORKER_LOST_AFTER_MS,
)
from titan_proto.messages import (
    AnyMessage,
    AttemptOrder,
    Error,
    ReportAcks,
    StartAttempts,
    StopAttempts,
)
from titan_proto.specs import RunSpec
from titan_proto.states import ExitReason, WorkerState

REFS_PER_FRAME: Final = 10_000
"""Names of attempts in one message to a worker; each takes at most some 170 bytes."""


class CoreConfig(Struct, frozen=True, kw_only=True):
    """Policy: what an operator may choose. Nothing of it is ever used by ``apply``."""

    lost_after_ms: int = WORKER_LOST_AFTER_MS
    """A worker silent for so long is LOST; for a third of it, SILENT."""
    heartbeats_per_lease: int = HEARTBEATS_PER_LEASE
    forget_after_ms: int = 24 * 3600 * 1000
    """A worker lost for so long is forgotten."""
    crash_limit: int = CRASH_LIMIT
    """A job is quarantined when so many of its attempts were lost."""
    live_runs_max: int = 10_000
    live_jobs_max: int = 1_000_000
    placements_max: int = 500
    """Placements in one turn."""
    deadlines_max: int = 1_000
    """Deadlines looked at in one turn."""
    slot_jobs_max: int = 20_000
    """Once the slots of a turn have begun so many jobs, those that are left begin in the next turns."""
    condition_chars_max: int = 200_000
    """Characters of conditions (``when``) decided in one turn; each counts as 200 at least."""
    schedules_max: int = SCHEDULES
    ageing_step_ms: int = 60_000
    """A waiting job gains one step of priority each time so much has passed ..."""
    ageing_priority_max: int = 9
    """... up to this one."""
    autoscale: bool = False
    """Whether the queue makes workers spawn others."""
    scale_every_ms: int = SCALE_EVERY_MS
    sibling_idle_ms: int = SIBLING_IDLE_MS
    spawn_timeout_ms: int = SPAWN_TIMEOUT_MS
    siblings_per_host: int = SIBLINGS_PER_HOST
    siblings_max: int = SIBLINGS
    slots_per_core: int = SLOTS_PER_CORE
    spawn_key: bytes = b""
    """Makes the proofs that siblings show; the same after a restart, and never in the journal."""

    @property
    def scale_patience_ms(self) -> int:
        """So long a job must have waited before anything is spawned for it."""
        return self.scale_every_ms // 4

    @property
    def silent_after_ms(self) -> int:
        """A third of the lease."""
        return self.lost_after_ms // 3

    @property
    def give_away_after_ms(self) -> int:
        """How long after the loss of a worker its exclusive jobs may be placed elsewhere.

        Their own worker stops them before its lease ends; a tenth more is for clocks that do not
        run at one rate.
        """
        return max(1, self.lost_after_ms // 10)

    @property
    def old_lease_ms(self) -> int:
        """As long may what an earlier process of a worker held go on, if that process lives still.

        Its ledger may have been copied: who says that the attempt is lost need not be on the machine
        on which it runs.
        """
        return self.lost_after_ms + self.give_away_after_ms

    @property
    def heartbeat_ms(self) -> int:
        """How often a worker is asked to give a sign of life."""
        return max(1, self.lost_after_ms // self.heartbeats_per_lease)


class Turn(Struct, frozen=True):
    """One pass: inputs went in, these came out."""

    events: tuple[AnyEvent, ...]
    """What became true, in order."""
    effects: tuple[Effect, ...]
    """What to do, in order, once the events are durable."""


class Scaler:
    """When to look at spawned workers and at what waits; forgotten with the process."""

    def __init__(self) -> None:
        self.next_ms: int | None = None
        """The next look; None: there is nothing to look at."""
        self.last_ms = 0
        self.awake_ms = 0
        """When this process had stood still last: whom it could not hear has not been late."""
        self.idle: dict[str, int] = {}
        """Spawned workers that hold nothing, and since when this process knows that."""


class Slots:
    """What looks at schedules know of one another; forgotten with the process."""

    def __init__(self) -> None:
        self.jobs = 0
        """So many have slots begun in this turn."""
        self.put_off: dict[str, int] = {}
        """Schedules that the turn's bound keeps waiting, and since when: they are not late for that."""
        self.no_room_ms: dict[str, int] = {}
        """Schedules for which there is no room, and since when."""

    def forget(self, name: str) -> None:
        """Nothing holds this schedule up any more."""
        self.put_off.pop(name, None)
        self.no_room_ms.pop(name, None)


class Draft:
    """The present turn in the making, with everything that a handler may read."""

    def __init__(self, state: State, config: CoreConfig) -> None:
        self.state = state
        self.config = config
        self.now_ms = 0
        self.roster = Roster(state)
        self.timers = Timers()
        self.waiters = Waiters()
        self.storage = Storage()
        self.calendars = Calendars()
        self.placement_due = True
        """Something has changed that may let a queued job be placed."""
        self.places_due = True
        """Workers have gone, or a service has failed on one: what was to be replaced beside itself may
        have no place for that now."""
        self.leaving_due: dict[str, None] = {}
        """Workers that leave and may wait for less than before, in order."""
        self.condition_chars = config.condition_chars_max
        """So many characters of conditions may be decided in this turn still."""
        self.undecided: dict[str, list[Job]] = {}
        """By run: jobs whose conditions turns before this had no room for. Found again at each start."""
        self.scaler = Scaler()
        self.slots = Slots()
        self.held_until_ms = 0
        """What must never run twice and may run on unheard is not placed again before: time has jumped."""
        self.culprit = ""
        """The digest of the schedule that is being dealt with; stays where that breaks an invariant."""
        self._events: list[AnyEvent] = []
        self._effects: list[Effect] = []
        self._acks: dict[int, list[AttemptRef]] = {}
        self._orders: dict[int, list[AttemptOrder]] = {}
        self._stops: dict[tuple[int, ExitReason], list[AttemptRef]] = {}

    # -- events -----------------------------------------------------------------------------------
    def emit(self, event: AnyEvent, spec: RunSpec | None = None) -> None:
        """Make it true, let the volatile parts follow, put it down for the journal."""
        apply(self.state, event, spec)
        self._events.append(event)
        follow = _FOLLOW.get(type(event))
        if follow is not None:
            follow(self, event)

    def end_run(self, run: Run, event: RunEnded) -> None:
        """Emit the end of a run and answer who waits for it: afterwards the run is gone."""
        if self.state.seats:
            self.placement_due = True  # another run of its group may begin
        self.emit(event)
        self.timers.forget_run(run.run_id)
        if run.fired is not None and run.fired.schedule in self.state.schedules:
            self.timers.watch_schedule(run.fired.schedule, self.now_ms)
        if run.layers:
            self.roster.forget_run(run.run_id)
        if self.waiters.concerns(run.run_id):
            self._effects.extend(self.waiters.run_ended(run, event.state, event.at_ms))

    def jobs_changed(self, run_id: str, job_ids: Sequence[str]) -> None:
        """Tell those who wait for news of these jobs."""
        if self.waiters.concerns(run_id):
            run = self.state.runs[run_id]
            jobs = [run.jobs[job_id] for job_id in job_ids]
            self._effects.extend(self.waiters.jobs_changed(run, jobs, self.now_ms))

    # -- effects ----------------------------------------------------------------------------------
    def require(self, effect: Effect) -> None:
        """Ask for an effect."""
        self._effects.append(effect)

    def reply(self, origin: Origin, message: AnyMessage) -> None:
        """Answer an exchange and end it."""
        self._effects.append(Reply(origin=origin, message=message))

    def refuse(
        self,
        origin: Origin,
        code: ErrorCode,
        message: str,
        *,
        details: dict[str, str] | None = None,
        problems: tuple[Problem, ...] = (),
    ) -> None:
        """Answer an exchange with an error."""
        error = Error(code=code, message=message, details=details or {}, problems=problems)
        self.reply(origin, error)

    def acknowledge(self, link_id: int, ref: AttemptRef) -> None:
        """The end of this attempt is recorded, or of no interest: the worker may forget it."""
        self._acks.setdefault(link_id, []).append(ref)

    def order(self, link_id: int, order: AttemptOrder) -> None:
        """Send a placement to its worker."""
        self._orders.setdefault(link_id, []).append(order)

    def stop(self, worker_id: str, ref: AttemptRef, reason: ExitReason) -> None:
        """Tell a worker to stop an attempt; one without a link is told when it joins."""
        link_id = self.roster.link_of(worker_id)
        if link_id is not None:
            self._stops.setdefault((link_id, reason), []).append(ref)

    def take(self) -> Turn:
        """The finished turn; the next one starts empty."""
        # One message a worker and kind, behind everything else: a Joined, say, must come first.
        term = self.state.term
        for link_id, refs in self._acks.items():
            for few in _batches(refs):
                self.require(Tell(link_id=link_id, message=ReportAcks(refs=few)))
        for link_id, orders in self._orders.items():
            # A worker takes one that comes behind a newer one for a repetition.
            orders.sort(key=lambda order: order.fence)
            for part in _frames(orders):
                message = StartAttempts(term=term, orders=part)
                self.require(Tell(link_id=link_id, message=message))
        for (link_id, reason), refs in self._stops.items():
            for few in _batches(refs):
                stop = StopAttempts(term=term, refs=few, reason=reason)
                self.require(Tell(link_id=link_id, message=stop))
        turn = Turn(tuple(self._events), tuple(self._effects))
        self._events, self._effects = [], []
        self.condition_chars = self.config.condition_chars_max
        self._acks, self._orders, self._stops = {}, {}, {}
        self.slots.jobs = 0
        return turn


def _batches(refs: list[AttemptRef]) -> Iterator[tuple[AttemptRef, ...]]:
    """The refs in as many messages as fit into frames; nearly always one."""
    for start in range(0, len(refs), REFS_PER_FRAME):
        yield tuple(refs[start : start + REFS_PER_FRAME])


def _frames(orders: list[AttemptOrder]) -> Iterator[tuple[AttemptOrder, ...]]:
    """The orders in as many messages as fit into frames; nearly always one."""
    start = weight = 0
    for place, order in enumerate(orders):
        weight += _weight(order)
        if weight > ORDER_BYTES_PER_FRAME and place > start:
            yield tuple(orders[start:place])
            start, weight = place, _weight(order)
    yield tuple(orders[start:])


def _weight(order: AttemptOrder) -> int:
    """About how many bytes an order takes, from the parts of a spec that can be long."""
    launch = order.spec.launch
    texts = (
        launch.script,
        launch.shell,
        *launch.command,
        *launch.args,
        *launch.env,
        *launch.env.values(),
        launch.artifact.name if launch.artifact is not None else "",
        order.workspace.name if order.workspace is not None else "",
        *order.spec.needs.skills,
    )
    files = 256 * (len(order.layers) + len(order.intake))
    # A character may take four bytes; and each text has its own head.
    return 1024 + files + sum(4 * len(text) + 5 for text in texts)


# -- what follows an event ------------------------------------------------------------------------
def _schedule_changed(draft: Draft, event: SchedulePut | ScheduleResumed) -> None:
    draft.timers.watch_schedule(event.schedule, draft.now_ms)


def _schedule_still(draft: Draft, event: SchedulePaused) -> None:
    draft.timers.forget_schedule(event.schedule)
    draft.slots.forget(event.schedule)


def _schedule_removed(draft: Draft, event: ScheduleRemoved) -> None:
    draft.timers.forget_schedule(event.schedule)
    draft.calendars.forget(event.schedule)
    draft.slots.forget(event.schedule)


def _run_accepted(draft: Draft, event: RunAccepted) -> None:
    draft.timers.delay_run(draft.state.runs[event.run_id])
    draft.placement_due = True


def _jobs_scheduled(draft: Draft, event: JobsScheduled) -> None:
    draft.timers.delay_jobs(event.run_id, event.job_ids, event.until_ms)
    draft.jobs_changed(event.run_id, event.job_ids)


def _job_backoff(draft: Draft, event: JobBackoff) -> None:
    draft.timers.delay_jobs(event.run_id, (event.job_id,), (event.until_ms,))
    draft.jobs_changed(event.run_id, (event.job_id,))


def _jobs_queued(draft: Draft, event: JobsQueued) -> None:
    draft.placement_due = True
    draft.jobs_changed(event.run_id, event.job_ids)


def _service_queued(draft: Draft, event: ServiceQueued) -> None:
    draft.placement_due = True
    if event.until_ms:
        draft.timers.watch_service(event.run_id, event.job_id, event.until_ms)


def _service_added(draft: Draft, event: ServiceAdded) -> None:
    del event
    draft.placement_due = True


def _gates_opened(draft: Draft, event: GatesOpened) -> None:
    mortal = [pair for pair in zip(event.job_ids, event.expires_ms, strict=True) if pair[1]]
    if mortal:
        job_ids, expires_ms = zip(*mortal, strict=True)
        draft.timers.delay_jobs(event.run_id, job_ids, expires_ms)
    draft.jobs_changed(event.run_id, event.job_ids)


def _jobs_dropped(draft: Draft, event: JobsDropped) -> None:
    draft.jobs_changed(event.run_id, event.job_ids)


def _job_changed(draft: Draft, event: JobCancelling | JobEnded) -> None:
    draft.jobs_changed(event.run_id, (event.job_id,))


def _attempt_started(draft: Draft, event: AttemptStarted) -> None:
    # What a service does once its job has settled is not news of its run.
    if (event.run_id, event.job_id) not in draft.state.instances:
        draft.jobs_changed(event.run_id, (event.job_id,))


def _attempt_placed(draft: Draft, event: AttemptPlaced) -> None:
    draft.roster.refresh(event.worker_id)
    draft.scaler.idle.pop(event.worker_id, None)
    ref = AttemptRef(event.run_id, event.job_id, event.number)
    draft.require(OpenLog(ref=ref, worker_id=event.worker_id))
    if (event.run_id, event.job_id) in draft.state.instances:
        return
    job = draft.state.runs[event.run_id].jobs[event.job_id]
    if job.spec.job_timeout_ms and event.number == 1:
        draft.timers.watch_job(
            event.run_id, event.job_id, job.first_placed_at_ms + job.spec.job_timeout_ms
        )
    draft.jobs_changed(event.run_id, (event.job_id,))


def _attempt_ended(draft: Draft, event: AttemptEnded) -> None:
    draft.roster.refresh(event.worker_id)
    draft.placement_due = True
    worker = draft.state.workers[event.worker_id]
    if worker.kinship is not None and not worker.held:
        draft.scaler.idle[event.worker_id] = draft.now_ms
    if worker.state is WorkerState.DRAINING:
        draft.leaving_due[event.worker_id] = None
    draft.require(
        CloseLog(
            ref=AttemptRef(event.run_id, event.job_id, event.number),
            stdout_bytes=event.stdout_bytes,
            stderr_bytes=event.stderr_bytes,
            lost=event.reason is ExitReason.LOST,
        )
    )


def _worker_changed(
    draft: Draft,
    event: WorkerSilent | WorkerDraining | WorkerCordoned | WorkerLost | WorkerReturned,
) -> None:
    draft.roster.refresh(event.worker_id)
    draft.placement_due = True
    if not isinstance(event, WorkerReturned):
        draft.places_due = True


def _worker_joined(draft: Draft, event: WorkerJoined) -> None:
    draft.roster.regroup(event.worker_id)
    draft.placement_due = True
    draft.places_due = True  # it may have come back smaller, or on another host


def _worker_retired(draft: Draft, event: WorkerRetired) -> None:
    draft.roster.forget(event.worker_id)
    draft.scaler.idle.pop(event.worker_id, None)
    draft.places_due = True


def _sibling_dismissed(draft: Draft, event: SiblingDismissed) -> None:
    draft.roster.refresh(event.worker_id)


_FOLLOW: Final[dict[type[Event], Callable[[Draft, Any], None]]] = {
    RunAccepted: _run_accepted,
    SchedulePut: _schedule_changed,
    ScheduleResumed: _schedule_changed,
    SchedulePaused: _schedule_still,
    ScheduleRemoved: _schedule_removed,
    JobsScheduled: _jobs_scheduled,
    JobsQueued: _jobs_queued,
    JobBackoff: _job_backoff,
    GatesOpened: _gates_opened,
    JobsDropped: _jobs_dropped,
    JobCancelling: _job_changed,
    JobEnded: _job_changed,
    AttemptStarted: _attempt_started,
    ServiceAdded: _service_added,
    ServiceQueued: _service_queued,
    AttemptPlaced: _attempt_placed,
    AttemptEnded: _attempt_ended,
    WorkerJoined: _worker_joined,
    WorkerSilent: _worker_changed,
    WorkerDraining: _worker_changed,
    WorkerCordoned: _worker_changed,
    WorkerLost: _worker_changed,
    WorkerReturned: _worker_changed,
    WorkerRetired: _worker_retired,
    SiblingDismissed: _sibling_dismissed,
}
