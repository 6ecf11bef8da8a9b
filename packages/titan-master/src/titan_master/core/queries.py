"""State → views: what people and programs are shown. Reads, never writes, asks for nothing.

Called by ``asking`` for requests and by ``waiters`` for what others wait for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final

from titan_master.core import graph
from titan_master.core.cron import Calendar
from titan_master.core.explaining import ITS_TURN, why_queued
from titan_master.core.presence import Roster
from titan_master.core.state import Attempt, Job, Run, Schedule, Service, State, WorkerInfo
from titan_proto.ids import AttemptRef
from titan_proto.messages import (
    GateList,
    GateView,
    JobChange,
    JobList,
    JobView,
    RunView,
    ScheduleView,
    ServiceView,
    Stats,
    WorkerView,
)
from titan_proto.outputs import size_of
from titan_proto.specs import JobKind
from titan_proto.states import (
    DECISIONS,
    AttemptState,
    ExitReason,
    JobState,
    RunState,
    ServiceState,
)

WAITS_FOR_ITEMS: Final = 10
GATE_REASONS: Final = (ExitReason.APPROVED, ExitReason.REJECTED, ExitReason.EXPIRED)
"""How a gate is decided; one that is cancelled or skipped never is."""

DEPENDENCIES_LISTED: Final = 10_000
"""A view lists no more, and a page ends once it has listed so many: it must fit into a frame."""

SERVICES_LISTED: Final = 200
"""So many services that have ended are listed at once: each may have a long message."""

SLOTS_SHOWN: Final = 5
"""Of a schedule's slots to come, and of those that wait."""
LIVE_SHOWN: Final = 10
"""Of its runs that go on."""
SERVICES_EXPLAINED: Final = 20
"""Of so many services that wait for a worker a list says why: each takes a look at every worker."""

DEAD_LISTED: Final = 500
"""So many failed jobs of live runs are listed at once."""

_CHARS_OF_A_NAME: Final = 64
"""So many characters of a message count as one name: they take as much of a frame."""
_CURSOR_DIGITS: Final = 18
"""More than any position takes, and less than Python refuses to read."""

_MOVED: Final = (JobState.BLOCKED, JobState.SCHEDULED, JobState.QUEUED)


def run_view(run: Run, state: RunState = RunState.ACTIVE, ended_at_ms: int = 0) -> RunView:
    """A run as it stands."""
    return RunView(
        run_id=run.run_id,
        alias=run.alias,
        name=run.name,
        state=state,
        submitted_at_ms=run.submitted_at_ms,
        ended_at_ms=ended_at_ms,
        jobs=len(run.order),
        counts={str(job_state): number for job_state, number in run.counts.items() if number},
        rerun_of=run.rerun_alias,
        fired=run.fired,
    )


def schedule_view(schedule: Schedule, calendar: Calendar, *, known: bool = False) -> ScheduleView:
    """A schedule as it stands."""
    upcoming: list[int] = []
    after_ms = schedule.cursor_ms
    while not schedule.paused_at_ms and len(upcoming) < SLOTS_SHOWN:
        slot_ms = calendar.next_ms(after_ms)
        if slot_ms is None:
            break
        upcoming.append(slot_ms)
        after_ms = slot_ms
    return ScheduleView(
        name=schedule.name,
        schedule_id=schedule.schedule_id,
        version=schedule.version,
        spec=schedule.spec,
        words=calendar.words(),
        jobs=schedule.jobs,
        owner=schedule.owner,
        created_at_ms=schedule.created_at_ms,
        put_at_ms=schedule.put_at_ms,
        paused_at_ms=schedule.paused_at_ms,
        paused_by=schedule.paused_by,
        paused_why=schedule.paused_why,
        next_at_ms=tuple(upcoming),
        live=tuple(islice(schedule.live.values(), LIVE_SHOWN)),
        waiting=tuple(schedule.waiting[:SLOTS_SHOWN]),
        last=schedule.last,
        fired=schedule.fired,
        skipped=schedule.skipped,
        missed=schedule.missed,
        known=known,
    )


def runs_newest_first(state: State) -> Iterator[Run]:
    """Live runs, the last accepted first."""
    return reversed(state.runs.values())


def job_view(run: Run, job: Job, why_waiting: str = "") -> JobView:
    """A job as it stands, with its newest attempt; `why_waiting` explains a queued one."""
    attempt = job.attempt
    base = JobView(
        run_id=run.run_id,
        run_alias=run.alias,
        job_id=job.spec.id,
        kind=job.spec.kind,
        state=job.state,
        reason=job.reason,
        message=_words(job) or why_waiting,
        ready_at_ms=job.ready_at_ms,
        ended_at_ms=job.ended_at_ms,
        lost=job.lost,
        dependencies=job.spec.dependencies[:DEPENDENCIES_LISTED],
        waits_for=_waits_for(run, job),
        failures=job.failures,
        retries=job.spec.retries.limit,
        gate=gate_view(run, job) if job.spec.kind is JobKind.GATE else None,
        outputs=job.outputs or {},
        resources=job.spec.launch.resources,
        shape=job.shape,
    )
    if attempt is None:
        return base
    ended = attempt.state is AttemptState.ENDED
    return JobView(
        run_id=base.run_id,
        run_alias=base.run_alias,
        job_id=base.job_id,
        kind=base.kind,
        state=base.state,
        attempt=attempt.number,
        attempt_state=attempt.state,
        worker=attempt.worker,
        reason=attempt.reason if ended and not job.is_terminal else job.reason,
        exit_code=attempt.exit_code,
        signal=attempt.signal,
        message=base.message or attempt.message,
        ready_at_ms=base.ready_at_ms,
        placed_at_ms=attempt.placed_at_ms,
        started_at_ms=attempt.started_at_ms,
        ended_at_ms=base.ended_at_ms,
        lost=base.lost,
        port=attempt.port,
        dependencies=base.dependencies,
        waits_for=base.waits_for,
        stdout_bytes=attempt.stdout_bytes,
        stderr_bytes=attempt.stderr_bytes,
        failures=base.failures,
        retries=base.retries,
        outputs=base.outputs,
        resources=base.resources,
        shape=base.shape,
    )


def _waits_for(run: Run, job: Job) -> tuple[str, ...]:
    if job.state is not JobState.BLOCKED:
        return ()
    return tuple(islice((one.spec.id for one in graph.unmet(run, job)), WAITS_FOR_ITEMS))


def position(cursor: str) -> int | None:
    """The number that a cursor holds; None where it begins. Not every cursor is one of ours."""
    return int(cursor[:_CURSOR_DIGITS]) if cursor.isdecimal() else None


def job_page(run: Run, cursor: str, limit: int) -> JobList:
    """One page of a run's jobs in the order of the submission; `cursor` is a position in it."""
    first = position(cursor) or 0
    jobs: list[Job] = []
    listed = 0
    for job in run.order[first : first + limit]:
        jobs.append(job)
        chars = _message_chars(job) + (size_of(job.outputs) if job.outputs else 0)
        chars += 0 if job.shape is None else len(job.shape.when) + size_of(job.shape.cell)
        listed += len(job.spec.dependencies) + chars // _CHARS_OF_A_NAME
        if listed >= DEPENDENCIES_LISTED:
            break
    after = first + len(jobs)
    return JobList(
        jobs=tuple(job_view(run, job) for job in jobs),
        cursor=str(after) if after < len(run.order) else "",
    )


def dead_jobs(state: State) -> tuple[JobView, ...]:
    """Jobs of live runs that failed for good, newest run first; bounded like any page."""
    failed = (
        job_view(run, job)
        for run in runs_newest_first(state)
        if run.counts.get(JobState.FAILED)
        for job in run.order
        if job.state is JobState.FAILED and job.reason not in DECISIONS
    )
    return tuple(islice(failed, DEAD_LISTED))


def _message_chars(job: Job) -> int:
    if job.spec.kind is JobKind.GATE:
        # Its view has the question as the gate's, and either that or the decision as the job's.
        return len(job.question.message) + max(2 * len(job.message), len(job.question.message))
    message = job.message or (job.attempt.message if job.attempt is not None else "")
    return len(message)


def _words(job: Job) -> str:
    """What is said of a job: of an open gate, its question."""
    return job.question.message if job.state is JobState.WAITING else job.message


def gate_view(run: Run, job: Job) -> GateView:
    """A gate as it stands, be it open already or not."""
    gate = job.gate
    is_decided = gate is not None and job.reason in GATE_REASONS
    return GateView(
        run_id=run.run_id,
        run_alias=run.alias,
        job_id=job.spec.id,
        state=job.state,
        message=job.question.message,
        opened_at_ms=gate.opened_at_ms if gate is not None else 0,
        expires_at_ms=gate.expires_at_ms if gate is not None else 0,
        decided_at_ms=job.ended_at_ms if is_decided else 0,
        decided_by=gate.decided_by if gate is not None else "",
        reason=job.reason if is_decided else ExitReason.UNKNOWN,
        comment=gate.comment if gate is not None else "",
    )


def gate_page(state: State, cursor: str, limit: int) -> GateList:
    """One page of the open gates, oldest first; `cursor` is the number of the last one seen."""
    seen = position(cursor) or 0
    views: list[GateView] = []
    listed = last = 0
    for job in state.gates.values():
        gate = job.gate
        if gate is None or gate.number <= seen:
            continue
        if len(views) == limit or listed >= DEPENDENCIES_LISTED:
            return GateList(gates=tuple(views), cursor=str(last))
        views.append(gate_view(state.runs[job.run_id], job))
        listed += len(job.question.message) // _CHARS_OF_A_NAME
        last = gate.number
    return GateList(gates=tuple(views))


def job_change(run: Run, job: Job, at_ms: int) -> JobChange:
    """The news that a job is in the state it is in."""
    attempt = job.attempt
    if attempt is None:
        return JobChange(
            run_id=run.run_id,
            at_ms=at_ms,
            job_id=job.spec.id,
            state=job.state,
            reason=job.reason,
            message=_words(job),
        )
    return JobChange(
        run_id=run.run_id,
        at_ms=at_ms,
        job_id=job.spec.id,
        state=job.state,
        attempt=attempt.number,
        worker=attempt.worker,
        reason=job.reason if job.is_terminal else attempt.reason,
        exit_code=attempt.exit_code,
        signal=attempt.signal,
        message=job.message or attempt.message,
        port=attempt.port,
    )


def has_moved(job: Job) -> bool:
    """Whether a watcher who comes late must be told of it: it has been on its way at least once."""
    return job.attempt is not None or job.state not in _MOVED


def attempt_ref(job: Job) -> AttemptRef:
    """The newest attempt's name."""
    return AttemptRef(job.run_id, job.spec.id, job.number)


def has_final_sizes(attempt: Attempt) -> bool:
    """Whether the worker said how much it wrote; of a lost attempt nobody can."""
    return attempt.state is AttemptState.ENDED and attempt.reason is not ExitReason.LOST


def service_view(service: Service, message: str = "") -> ServiceView:
    """A service as it stands; `message`: what it waits for."""
    attempt = service.attempt
    is_nowhere = service.state is ServiceState.STARTING and not attempt.is_live
    return ServiceView(
        name=service.name,
        run_id=service.run_id,
        run_alias=service.run_alias,
        job_id=service.job_id,
        attempt=attempt.number,
        state=service.state,
        worker="" if is_nowhere else attempt.worker,
        port=0 if is_nowhere else attempt.port,
        healthy_at_ms=service.healthy_at_ms,
        restarts=service.restarts,
        ended_at_ms=attempt.ended_at_ms,
        reason=attempt.reason,
        message=message,
    )


def instance_view(state: State, roster: Roster, service: Service) -> JobView:
    """An instance of a service as the job that it would be on its own."""
    job, attempt = state.instances[service.run_id, service.job_id], service.attempt
    return JobView(
        run_id=service.run_id,
        run_alias=service.run_alias,
        job_id=service.job_id,
        kind=JobKind.SERVICE,
        state=job.state,
        attempt=attempt.number,
        attempt_state=attempt.state if attempt.number else AttemptState.UNKNOWN,
        worker=attempt.worker,
        reason=attempt.reason,
        message=_why_waiting(state, roster, service)
        if job.state is JobState.QUEUED
        else attempt.message,
        ready_at_ms=job.ready_at_ms,
        placed_at_ms=attempt.placed_at_ms,
        started_at_ms=attempt.started_at_ms,
        port=attempt.port,
        stdout_bytes=attempt.stdout_bytes,
        stderr_bytes=attempt.stderr_bytes,
        resources=job.spec.launch.resources,
    )


def service_views(
    state: State, roster: Roster, services: Iterable[Service]
) -> tuple[ServiceView, ...]:
    """These services as they stand, in their order, and of the first that wait for a worker why."""
    views = []
    explained = 0
    for one in services:
        waits = state.instances[one.run_id, one.job_id].state is JobState.QUEUED
        is_explained = waits and explained < SERVICES_EXPLAINED
        explained += is_explained
        views.append(service_view(one, _why_waiting(state, roster, one) if is_explained else ""))
    return tuple(views)


def _why_waiting(state: State, roster: Roster, service: Service) -> str:
    """Why it is not placed, and what a person can do where it waits to take the place of another."""
    why = why_queued(state, roster, state.instances[service.run_id, service.job_id])
    old = state.services.get((service.run_id, service.replaces))
    if old is None or why == ITS_TURN:
        return why
    if old.state is ServiceState.STOPPING:
        return f"waits for the end of {old.instance_name}, which makes way for it"
    return (
        f"{why}. {old.instance_name} stays up until this one is healthy: free a slot or start another "
        f"worker; or `titan stop {old.name}` and run its pipeline again, which leaves a gap"
    )


def stats(state: State, roster: Roster, now_ms: int) -> Stats:
    """The cluster at a glance: counts workers and services, never jobs."""
    services: dict[str, list[str]] = {}
    for service in state.services.values():
        if service.attempt.is_live:
            services.setdefault(service.attempt.worker_id, []).append(service.instance_name)
    workers = sorted(state.workers.values(), key=lambda worker: (worker.host, worker.port))
    counts = state.counts
    return Stats(
        cluster_id=state.cluster_id,
        cluster_name=state.cluster_name,
        term=state.term,
        at_ms=now_ms,
        started_at_ms=state.started_at_ms,
        workers=tuple(
            worker_view(worker, roster, tuple(services.get(worker.worker_id, ())), state, now_ms)
            for worker in workers
        ),
        runs_active=len(state.runs),
        queued=state.queue.size,
        blocked=counts.get(JobState.BLOCKED, 0),
        delayed=counts.get(JobState.SCHEDULED, 0),
        running=counts.get(JobState.PLACED, 0)
        + counts.get(JobState.RUNNING, 0)
        + counts.get(JobState.CANCELLING, 0),
        services=len(state.services),
        software=state.software,
        waiting=counts.get(JobState.WAITING, 0),
        backoff=counts.get(JobState.BACKOFF, 0),
    )


def worker_view(
    worker: WorkerInfo, roster: Roster, services: tuple[str, ...], state: State, now_ms: int
) -> WorkerView:
    """A worker, with the services that are on it."""
    presence = roster.of(worker.worker_id)
    status = presence.status
    since_ms = presence.unlinked_ms or state.started_at_ms
    return WorkerView(
        worker_id=worker.worker_id,
        host=worker.host,
        port=worker.port,
        state=worker.state,
        slots=worker.slots,
        used=worker.used,
        skills=worker.skills,
        incarnation=worker.incarnation,
        seen_ms_ago=max(0, now_ms - presence.seen_ms),
        cpu_permille=status.cpu_permille if status else 0,
        memory_used_bytes=status.memory_used_bytes if status else 0,
        memory_total_bytes=status.memory_total_bytes if status else 0,
        software=worker.software,
        services=services,
        link_down_ms=max(1, now_ms - since_ms) if presence.link_id is None else 0,
    )
