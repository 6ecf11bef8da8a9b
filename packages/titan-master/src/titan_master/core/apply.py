"""apply(state, event): the only writer of state, live and in recovery alike.

It never decides: no policy, no configuration, no clock but the event's own stamp. It keeps the
derived parts (counters, indexes, the ready queue) in step, and refuses only what cannot be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from titan_master.core import filling, sharing, transitions
from titan_master.core.events import (
    AnyEvent,
    AttemptEnded,
    AttemptPlaced,
    AttemptStarted,
    ClusterFounded,
    Event,
    GateDecided,
    GatesOpened,
    JobBackoff,
    JobCancelling,
    JobEnded,
    JobsDropped,
    JobsQueued,
    JobsScheduled,
    MasterStarted,
    PoisonRemembered,
    RunAccepted,
    RunCancelRequested,
    RunEnded,
    SchedulePaused,
    SchedulePut,
    ScheduleRemoved,
    ScheduleResumed,
    ServiceAdded,
    ServiceChanged,
    ServiceEnded,
    ServiceQueued,
    ServiceStopping,
    ServiceUp,
    SiblingDismissed,
    SlotQueued,
    SlotsPassed,
    SpawnAsked,
    SpawnSettled,
    WorkerCordoned,
    WorkerDraining,
    WorkerJoined,
    WorkerLost,
    WorkerRetired,
    WorkerReturned,
    WorkerSilent,
)
from titan_master.core.state import (
    Attempt,
    Gate,
    InvariantViolation,
    Job,
    KeyRecord,
    Kinship,
    ReadyQueue,
    Run,
    Schedule,
    Service,
    Spawn,
    State,
    WorkerInfo,
    layers_above,
)
from titan_proto.limits import SCALINGS_KEPT
from titan_proto.messages import ScalingChange
from titan_proto.messages.runs import Fired
from titan_proto.messages.schedules import LastFired
from titan_proto.messages.worker import Left
from titan_proto.outputs import size_of
from titan_proto.specs import JobKind, JobSpec, Launch, RunSpec
from titan_proto.states import (
    JOB_TERMINAL,
    AttemptState,
    ExitReason,
    JobState,
    OpenEnum,
    RunState,
    ScalingKind,
    ServiceState,
    WorkerState,
)

KEY_REMEMBERED_MS: Final = 7 * 24 * 3600 * 1000
"""How long a submit key is kept, counted from the acceptance: part of the journal's meaning."""

_SPEC: Final = msgspec.msgpack.Decoder(RunSpec)


def apply(state: State, event: AnyEvent, spec: RunSpec | None = None) -> None:
    """Make `event` true in `state`.

    Args:
        state: changed in place.
        event: what became true.
        spec: what the bytes of a RunAccepted decode to, from a caller that has it already: the
            one who admits a run of 100,000 jobs has just been given it. Recovery decodes.
    """
    if type(event) is RunAccepted:
        _run_accepted(state, event, _SPEC.decode(event.spec) if spec is None else spec)
        return
    _APPLY[type(event)](state, event)


# -- moving things from state to state ------------------------------------------------------------
def _check_move(state: State, table: str, frm: OpenEnum, to: OpenEnum, what: str) -> None:
    if (frm, to) not in transitions.TABLES[table]:
        raise InvariantViolation(f"{what}: {frm} to {to} is no legal move of table {table}")
    if state.observer is not None:
        state.observer(table, frm, to)


def _move_job(state: State, run: Run, job: Job, to: JobState) -> None:
    frm = job.state
    if (frm, to) not in transitions.JOB:
        raise InvariantViolation(f"{run.run_id}/{job.spec.id}: {frm} to {to} is no legal move")
    job.state = to
    run.counts[frm] -= 1
    run.counts[to] = run.counts.get(to, 0) + 1
    state.counts[frm] -= 1
    state.counts[to] = state.counts.get(to, 0) + 1
    if frm is JobState.QUEUED:
        state.queue.remove(job)
    elif frm is JobState.WAITING:
        del state.gates[run.run_id, job.spec.id]
    if to in JOB_TERMINAL:
        run.remaining -= 1
    if state.observer is not None:
        state.observer("JOB", frm, to)


def _move_attempt(state: State, attempt: Attempt, to: AttemptState, what: str) -> None:
    _check_move(state, "ATTEMPT", attempt.state, to, what)
    attempt.state = to


def _move_worker(state: State, worker: WorkerInfo, to: WorkerState, at_ms: int) -> None:
    _check_move(state, "WORKER", worker.state, to, worker.worker_id)
    worker.state = to
    worker.since_ms = at_ms


def _move_service(state: State, service: Service, to: ServiceState) -> None:
    _check_move(state, "SERVICE", service.state, to, service.name)
    service.state = to


def _move_instance(state: State, job: Job, to: JobState) -> None:
    """As `_move_job`, for a service that is placed on its own: no run counts it."""
    what = f"{job.run_id}/{job.spec.id}"
    _check_move(state, "JOB", job.state, to, what)
    frm, job.state = job.state, to
    if frm is JobState.QUEUED:
        state.queue.remove(job)


def _enqueue(state: State, job: Job, at_ms: int) -> None:
    state.queued_seq += 1
    job.queued_seq = state.queued_seq
    job.ready_at_ms = at_ms
    state.queue.push(job)


def _open_gate(state: State, job: Job, at_ms: int, expires_at_ms: int) -> None:
    state.gates_opened += 1
    job.gate = Gate(number=state.gates_opened, opened_at_ms=at_ms, expires_at_ms=expires_at_ms)
    job.ready_at_ms = at_ms
    state.gates[job.run_id, job.spec.id] = job


def _run_of(state: State, run_id: str) -> Run:
    run = state.runs.get(run_id)
    if run is None:
        raise InvariantViolation(f"no live run {run_id}")
    return run


def _attempt_of(job: Job, number: int) -> Attempt:
    attempt = job.attempt
    if attempt is None or attempt.number != number:
        raise InvariantViolation(f"{job.run_id}/{job.spec.id}: no attempt {number}")
    return attempt


# -- the cluster ----------------------------------------------------------------------------------
def _cluster_founded(state: State, event: ClusterFounded) -> None:
    state.cluster_id = event.cluster_id
    state.cluster_name = event.name


def _master_started(state: State, event: MasterStarted) -> None:
    state.term = event.term
    state.software = event.software
    state.started_at_ms = event.at_ms
    state.lost_after_ms = event.lost_after_ms
    state.fence = max(state.fence, event.fence)


def _poison_remembered(state: State, event: PoisonRemembered) -> None:
    state.poison[event.digest] = event.what


# -- runs -----------------------------------------------------------------------------------------
def _run_accepted(state: State, event: RunAccepted, spec: RunSpec) -> None:
    if event.run_id in state.runs:
        raise InvariantViolation(f"run {event.run_id} is live already")
    _forget_old_keys(state, event.at_ms)
    state.runs_accepted += 1
    state.last_run_id = event.run_id
    state.slugs[event.slug] = event.number
    run = Run(
        run_id=event.run_id,
        key=event.key,
        digest=event.digest,
        name=event.name,
        slug=event.slug,
        number=event.number,
        owner=event.owner,
        serial=state.runs_accepted,
        submitted_at_ms=event.at_ms,
        workspace=spec.workspace,
        params=spec.params,
        jobs={},
        order=[],
        children={},
        counts={},
        remaining=len(spec.jobs) - len(event.taken_over),
        rerun_of=event.rerun_of,
        rerun_alias=event.rerun_alias,
        ancestors=event.ancestors,
        homes=tuple(dict.fromkeys(home for _, home in event.homes)),
        near=event.near,
        fired=event.fired,
    )
    state.runs[event.run_id] = run
    state.aliases[run.alias] = event.run_id
    if event.fired is not None:
        _slot_fired(state, run, event.fired)
    if event.key:  # a slot has none: its schedule's cursor is what keeps it from firing twice
        # The newest use of a key stands last, where the oldest are dropped from the front.
        state.keys.pop(event.key, None)
        state.keys[event.key] = KeyRecord(
            digest=event.digest, run_id=event.run_id, alias=run.alias, at_ms=event.at_ms
        )
    _add_jobs(state, run, spec, frozenset(event.taken_over), event.at_ms)
    for job_id, outputs in event.outputs.items():
        run.jobs[job_id].outputs = outputs
        run.outputs_bytes += size_of(outputs)
    for job_id, left in event.left:
        _leave(run, run.jobs[job_id], left)
    _derive_layers(run)


def expired_keys(state: State, at_ms: int) -> list[str]:
    """The submit keys that an acceptance at that time lets go. Reads only."""
    old = []
    for key, record in state.keys.items():
        if at_ms - record.at_ms < KEY_REMEMBERED_MS:
            break
        old.append(key)
    return old


def _forget_old_keys(state: State, at_ms: int) -> None:
    for key in expired_keys(state, at_ms):
        del state.keys[key]


def _add_jobs(
    state: State, run: Run, spec: RunSpec, taken_over: frozenset[str], at_ms: int
) -> None:
    """Every job in its first state. One loop, because a run may have 100,000 jobs."""
    run_id, jobs, order = run.run_id, run.jobs, run.order
    push = state.queue.push
    seq = state.queued_seq
    blocked, scheduled, queued = JobState.BLOCKED, JobState.SCHEDULED, JobState.QUEUED
    shapes = spec.shapes
    dependants: list[Job] = []
    delayed = waiting = opened = 0
    for index, job_spec in enumerate(spec.jobs):
        # Where nothing is taken over, the usual case, no name is looked up.
        if taken_over and job_spec.id in taken_over:
            job = Job(job_spec, run_id, index, JobState.SUCCEEDED, 0)
            job.reason = ExitReason.TAKEN_OVER
            job.message = f"from {run.rerun_alias}"
            job.ended_at_ms = at_ms
            dependants.append(job)
        elif (job_spec.dependencies and not taken_over.issuperset(job_spec.dependencies)) or (
            shapes and job_spec.id in shapes and shapes[job_spec.id].is_conditional
        ):
            job = Job(job_spec, run_id, index, blocked, 0)
            dependants.append(job)
            waiting += 1
        elif job_spec.delay_ms > 0 or job_spec.launch.at_ms > at_ms:
            delayed += 1
            job = Job(job_spec, run_id, index, scheduled, 0, job_spec.begins_at_ms(at_ms))
        elif job_spec.kind is JobKind.GATE:
            opened += 1
            job = Job(job_spec, run_id, index, JobState.WAITING, 0)
            timeout_ms = job.question.timeout_ms
            _open_gate(state, job, at_ms, at_ms + timeout_ms if timeout_ms else 0)
        else:
            seq += 1
            job = Job(job_spec, run_id, index, queued, 0, at_ms, seq)
            push(job)
        jobs[job_spec.id] = job
        order.append(job)
        if taken_over and job_spec.dependencies and job.state not in (blocked, JobState.SUCCEEDED):
            dependants.append(job)  # of taken over ones only: it waits for none of them
    if len(jobs) != len(order):
        raise InvariantViolation(f"run {run_id} has two jobs of one id")
    children = run.children
    for job in dependants:
        parents = dict.fromkeys(job.spec.dependencies)
        job.waiting = len(parents) - sum(parent in taken_over for parent in parents)
        for parent in parents:
            children.setdefault(jobs[parent].index, []).append(job.index)
    for job_id, shape in shapes.items():
        jobs[job_id].shape = shape
    run.skills = frozenset(job_spec.needs.skills for job_spec in spec.jobs)
    run.is_tied = _is_tied(spec.jobs)
    state.queued_seq, ready = seq, seq - state.queued_seq
    for first, number in (
        (blocked, waiting),
        (scheduled, delayed),
        (JobState.WAITING, opened),
        (queued, ready),
        (JobState.SUCCEEDED, len(taken_over)),
    ):
        if number:
            run.counts[first] = number
            state.counts[first] = state.counts.get(first, 0) + number


def _is_tied(jobs: Iterable[JobSpec]) -> bool:
    every = (one.needs.terms for one in jobs)
    return any(
        terms is not None and (terms.counted or terms.worker or terms.required) for terms in every
    )


def _run_cancel_requested(state: State, event: RunCancelRequested) -> None:
    _run_of(state, event.run_id).cancelled = True


def _run_ended(state: State, event: RunEnded) -> None:
    run = _run_of(state, event.run_id)
    if run.remaining:
        raise InvariantViolation(f"run {run.run_id} cannot end: {run.remaining} jobs are left")
    _check_move(state, "RUN", RunState.ACTIVE, event.state, run.run_id)
    if run.fired is not None:
        _slot_ended(state, run, run.fired, event.state)
    del state.runs[run.run_id]
    del state.aliases[run.alias]
    if state.seats:
        _give_up_seats(state, run.run_id)
    for job_state, number in run.counts.items():
        state.counts[job_state] -= number


def _give_up_seats(state: State, run_id: str) -> None:
    for group in [group for group, runs in state.seats.items() if run_id in runs]:
        del state.seats[group][run_id]
        if not state.seats[group]:
            del state.seats[group]


# -- jobs -----------------------------------------------------------------------------------------
def _jobs_scheduled(state: State, event: JobsScheduled) -> None:
    run = _run_of(state, event.run_id)
    for job_id, until_ms in zip(event.job_ids, event.until_ms, strict=True):
        job = run.jobs[job_id]
        _move_job(state, run, job, JobState.SCHEDULED)
        job.ready_at_ms = until_ms


def _jobs_queued(state: State, event: JobsQueued) -> None:
    run = _run_of(state, event.run_id)
    for job_id in event.job_ids:
        job = run.jobs[job_id]
        if job.attempt is not None and job.attempt.is_live:
            raise InvariantViolation(f"{run.run_id}/{job_id}: queued while an attempt is live")
        _move_job(state, run, job, JobState.QUEUED)
        _enqueue(state, job, event.at_ms)


def _job_backoff(state: State, event: JobBackoff) -> None:
    run = _run_of(state, event.run_id)
    job = run.jobs[event.job_id]
    if job.attempt is None or job.attempt.is_live:
        raise InvariantViolation(f"{run.run_id}/{event.job_id}: backs off from no ended attempt")
    _move_job(state, run, job, JobState.BACKOFF)
    job.ready_at_ms = event.until_ms
    job.failures = event.failures


def _gates_opened(state: State, event: GatesOpened) -> None:
    run = _run_of(state, event.run_id)
    for job_id, expires_ms in zip(event.job_ids, event.expires_ms, strict=True):
        job = run.jobs[job_id]
        _move_job(state, run, job, JobState.WAITING)
        _open_gate(state, job, event.at_ms, expires_ms)


def _gate_decided(state: State, event: GateDecided) -> None:
    job = _run_of(state, event.run_id).jobs[event.job_id]
    if job.gate is None or job.state is not JobState.WAITING:
        raise InvariantViolation(f"{event.run_id}/{event.job_id}: no open gate to decide about")
    job.gate.decided_by = event.by
    job.gate.comment = event.comment


def _job_cancelling(state: State, event: JobCancelling) -> None:
    run = _run_of(state, event.run_id)
    job = run.jobs[event.job_id]
    attempt = _attempt_of(job, job.number)
    _move_job(state, run, job, JobState.CANCELLING)
    job.stop_reason = event.reason
    _move_attempt(state, attempt, AttemptState.STOPPING, f"{event.run_id}/{event.job_id}")


def _jobs_dropped(state: State, event: JobsDropped) -> None:
    run = _run_of(state, event.run_id)
    for job_id in event.job_ids:
        job = run.jobs[job_id]
        _move_job(state, run, job, event.state)
        job.reason = event.reason
        job.ended_at_ms = event.at_ms
        # Before the next one ends: whoever has ended is let go of by what it waits for, and once only.
        _let_go(run, job)
    for job_id, message in zip(event.job_ids, event.messages, strict=False):
        run.jobs[job_id].message = message


def _job_ended(state: State, event: JobEnded) -> None:
    run = _run_of(state, event.run_id)
    job = run.jobs[event.job_id]
    _move_job(state, run, job, event.state)
    job.reason = event.reason
    job.message = event.message
    job.failures = event.failures
    job.ended_at_ms = event.at_ms
    if event.outputs:
        job.outputs = event.outputs
        run.outputs_bytes += size_of(event.outputs)
    if event.left is not None:
        _leave(run, job, event.left)
    if event.home and event.home not in run.homes:
        run.homes = (*run.homes, event.home)
    _let_go(run, job)


def _let_go(run: Run, job: Job) -> None:
    """It is terminal."""
    if run.layers:
        _add_layers(run, job)
    if not job.waiting:
        _release_below(run, job)


def _release_below(run: Run, job: Job) -> None:
    """It is over: those after it wait for it no more, nor for what had ended before it."""
    order, children = run.order, run.children
    todo = [job.index]
    while todo:
        for index in children.get(todo.pop(), ()):
            child = order[index]
            child.waiting -= 1
            if (
                not child.waiting
                and child.state in JOB_TERMINAL
                and child.reason is not ExitReason.TAKEN_OVER
            ):
                todo.append(index)


def _leave(run: Run, job: Job, left: Left) -> None:
    job.left = left
    if left.shared:
        run.layers.append(job.index)
        job.layer = len(run.layers)


def _add_layers(run: Run, job: Job) -> None:
    """It is terminal: whoever comes after it needs its layer, if it left one, and those above it."""
    todo = [job]
    while todo:
        job = todo.pop()
        layers = job.layers | layers_above(run, job) | (1 << job.layer >> 1)
        if layers != job.layers:
            job.layers = layers
            # Of a run that repeats another, what comes after it may have been taken over; and what was
            # skipped for another's sake did not wait for it.
            below = [run.order[index] for index in run.children.get(job.index, ())]
            todo += (child for child in below if child.is_terminal)


# -- attempts -------------------------------------------------------------------------------------
def _attempt_placed(state: State, event: AttemptPlaced) -> None:
    key = (event.run_id, event.job_id)
    instance = state.instances.get(key)
    job = _run_of(state, event.run_id).jobs[event.job_id] if instance is None else instance
    worker = state.workers[event.worker_id]
    if event.number != job.number + 1 or key in worker.held:
        raise InvariantViolation(f"{event.run_id}/{event.job_id}: attempt {event.number} again")
    attempt = Attempt(
        number=event.number,
        worker_id=event.worker_id,
        worker=worker.name,
        incarnation=event.incarnation,
        fence=event.fence,
        placed_at_ms=event.at_ms,
        workspace=worker.workspace,
    )
    if instance is None:
        _move_job(state, _run_of(state, event.run_id), job, JobState.PLACED)
    else:
        _move_instance(state, job, JobState.PLACED)
        state.services[key].attempt = attempt
        # While its run is live the job that it came from shows the newest attempt, too.
        if (settled := _job_of(state, *key)) is not None:
            settled.attempt = attempt
    job.attempt = attempt
    job.first_placed_at_ms = job.first_placed_at_ms or event.at_ms
    state.fence = event.fence
    worker.held[key] = event.number
    _take(state, worker, job)


def _take(state: State, worker: WorkerInfo, job: Job) -> None:
    """What a placement takes: of its worker, and of its groups."""
    needs = job.spec.needs
    worker.used += needs.slots
    terms = needs.terms
    if terms is None:
        return
    for one in terms.counted:
        worker.taken[one.name] = worker.taken.get(one.name, 0) + one.amount
    if terms.group:
        state.groups[terms.group] = state.groups.get(terms.group, 0) + 1
    if terms.run_group and job.run_id in state.runs:
        state.seats.setdefault(terms.run_group, {})[job.run_id] = None


def _give_back(state: State, worker: WorkerInfo, job: Job) -> None:
    """Its attempt has ended. Its run's seat is that run's until it ends, too."""
    needs = job.spec.needs
    worker.used -= needs.slots
    terms = needs.terms
    if terms is None:
        return
    for one in terms.counted:
        _less(worker.taken, one.name, one.amount)
    if terms.group:
        _less(state.groups, terms.group, 1)


def _less(counts: dict[str, int], name: str, amount: int) -> None:
    left = counts[name] - amount
    if left:
        counts[name] = left
    else:
        del counts[name]


def _job_of(state: State, run_id: str, job_id: str) -> Job | None:
    run = state.runs.get(run_id)
    return None if run is None else run.jobs.get(job_id)


def _attempt_started(state: State, event: AttemptStarted) -> None:
    instance = state.instances.get((event.run_id, event.job_id))
    job = _run_of(state, event.run_id).jobs[event.job_id] if instance is None else instance
    attempt = _attempt_of(job, event.number)
    _move_attempt(state, attempt, AttemptState.RUNNING, f"{event.run_id}/{event.job_id}")
    attempt.started_at_ms = event.at_ms
    attempt.port = event.port
    if instance is None:
        _move_job(state, _run_of(state, event.run_id), job, JobState.RUNNING)
    else:
        _move_instance(state, job, JobState.RUNNING)


def _attempt_ended(state: State, event: AttemptEnded) -> None:
    attempt = state.find_attempt(event.run_id, event.job_id)
    if attempt is None or attempt.number != event.number:
        raise InvariantViolation(f"{event.run_id}/{event.job_id}: no attempt {event.number}")
    _move_attempt(state, attempt, AttemptState.ENDED, f"{event.run_id}/{event.job_id}")
    attempt.started_at_ms = event.started_at_ms
    attempt.ended_at_ms = event.at_ms
    attempt.reason = event.reason
    attempt.exit_code = event.exit_code
    attempt.signal = event.signal
    attempt.message = event.message
    attempt.stdout_bytes = event.stdout_bytes
    attempt.stderr_bytes = event.stderr_bytes
    job = state.find_job(event.run_id, event.job_id)
    if job is None:
        raise InvariantViolation(f"{event.run_id}/{event.job_id}: an attempt of no job")
    worker = state.workers[event.worker_id]
    del worker.held[event.run_id, event.job_id]
    _give_back(state, worker, job)
    if event.reason is ExitReason.LOST:
        job.lost += 1


# -- services -------------------------------------------------------------------------------------
def _service_up(state: State, event: ServiceUp) -> None:
    run = _run_of(state, event.run_id)
    job = run.jobs[event.job_id]
    attempt = _attempt_of(job, event.number)
    attempt.port = event.port
    spec = filling.on_its_own(run, job)
    service = state.services[event.run_id, event.job_id] = Service(
        name=event.name,
        run_id=event.run_id,
        run_alias=run.alias,
        job_id=event.job_id,
        state=ServiceState.HEALTHY,
        attempt=attempt,
        healthy_at_ms=event.at_ms,
        restarts=event.restarts,
        spec=spec,
        run_name=run.name,
        workspace=run.workspace,
        layers=sharing.all_layers_for(run, job),
        intake=sharing.intake_for(run, job),
        base=event.job_id,
    )
    _add_instance(state, service)


def _service_added(state: State, event: ServiceAdded) -> None:
    like = state.services[event.run_id, event.of]
    state.queued_seq += 1
    spec = None if like.spec is None else replace(like.spec, id=event.job_id)
    service = state.services[event.run_id, event.job_id] = Service(
        name=like.name,
        run_id=like.run_id,
        run_alias=like.run_alias,
        job_id=event.job_id,
        state=ServiceState.STARTING,
        attempt=Attempt(
            number=0,
            worker_id="",
            worker="",
            incarnation=0,
            fence=0,
            placed_at_ms=0,
            state=AttemptState.ENDED,
        ),
        healthy_at_ms=0,
        spec=spec,
        run_name=like.run_name,
        workspace=like.workspace,
        layers=like.layers,
        intake=like.intake,
        base=like.base,
        replaces=event.replaces,
        avoid=event.avoid,
        queued_seq=state.queued_seq,
        queued_at_ms=event.at_ms,
    )
    for one in state.services.values():
        if (one.run_id, one.base) == (service.run_id, service.base):
            one.made = event.number
    _add_instance(state, service)
    state.queue.push(state.instances[event.run_id, event.job_id])


def _add_instance(state: State, service: Service) -> None:
    """What placement sees of a service, from what is durable of it."""
    attempt = service.attempt
    if attempt.is_live:
        is_new = attempt.state is AttemptState.PREPARING
        job_state = JobState.PLACED if is_new else JobState.RUNNING
    else:
        job_state = JobState.BACKOFF if service.not_before_ms else JobState.QUEUED
    spec = service.spec or JobSpec(id=service.job_id, launch=Launch(), kind=JobKind.SERVICE)
    job = Job(spec, service.run_id, 0, job_state, 0)
    job.attempt = attempt if attempt.number else None
    job.queued_seq = service.queued_seq
    job.ready_at_ms = service.queued_at_ms
    state.instances[service.run_id, service.job_id] = job


def _service_changed(state: State, event: ServiceChanged) -> None:
    service = state.services[event.run_id, event.job_id]
    to = ServiceState.HEALTHY if event.healthy else ServiceState.UNHEALTHY
    if service.state is not to:
        _move_service(state, service, to)
    if event.healthy:
        service.healthy_at_ms = event.at_ms
    service.restarts = event.restarts


def _service_queued(state: State, event: ServiceQueued) -> None:
    key = (event.run_id, event.job_id)
    service, job = state.services[key], state.instances[key]
    if service.attempt.is_live:
        raise InvariantViolation(f"service {service.name}: queued while an attempt is live")
    if service.state is not ServiceState.STARTING:
        _move_service(state, service, ServiceState.STARTING)
    service.restarts = 0
    service.moves = event.moves
    service.avoid = event.avoid
    service.not_before_ms = event.until_ms
    if event.until_ms:
        _move_instance(state, job, JobState.BACKOFF)
        return
    _move_instance(state, job, JobState.QUEUED)
    _enqueue(state, job, event.at_ms)
    service.queued_seq = job.queued_seq
    service.queued_at_ms = event.at_ms


def _service_stopping(state: State, event: ServiceStopping) -> None:
    service = state.services[event.run_id, event.job_id]
    _move_service(state, service, ServiceState.STOPPING)
    _move_attempt(state, service.attempt, AttemptState.STOPPING, service.name)


def _service_ended(state: State, event: ServiceEnded) -> None:
    key = (event.run_id, event.job_id)
    service, job = state.services.pop(key), state.instances.pop(key)
    _move_service(state, service, ServiceState.STOPPED if event.stopped else ServiceState.FAILED)
    if job.state in (JobState.QUEUED, JobState.BACKOFF):
        _move_instance(state, job, JobState.CANCELLED)


# -- schedules ------------------------------------------------------------------------------------
def _schedule_of(state: State, name: str) -> Schedule:
    schedule = state.schedules.get(name)
    if schedule is None:
        raise InvariantViolation(f"no schedule {name!r}")
    return schedule


def _schedule_put(state: State, event: SchedulePut) -> None:
    old = state.schedules.get(event.schedule)
    if old is None:
        state.schedules[event.schedule] = Schedule(
            name=event.schedule,
            schedule_id=event.schedule_id,
            version=event.version,
            spec=event.spec,
            run=event.run,
            digest=event.digest,
            owner=event.owner,
            jobs=event.jobs,
            created_at_ms=event.at_ms,
            put_at_ms=event.at_ms,
            cursor_ms=event.at_ms,
        )
        return
    if (event.schedule_id, event.version) != (old.schedule_id, old.version + 1):
        raise InvariantViolation(f"schedule {old.name!r}: {event.version} follows {old.version}")
    old.version, old.spec, old.run = event.version, event.spec, event.run
    old.digest, old.owner, old.jobs = event.digest, event.owner, event.jobs
    old.put_at_ms = event.at_ms
    old.cursor_ms = max(old.cursor_ms, event.at_ms)


def _schedule_paused(state: State, event: SchedulePaused) -> None:
    schedule = _schedule_of(state, event.schedule)
    schedule.paused_at_ms = event.at_ms
    schedule.paused_by, schedule.paused_why = event.by, event.why
    schedule.skipped += len(schedule.waiting)
    schedule.waiting = []
    schedule.failed = ""


def _schedule_resumed(state: State, event: ScheduleResumed) -> None:
    schedule = _schedule_of(state, event.schedule)
    schedule.paused_at_ms = 0
    schedule.paused_by = schedule.paused_why = schedule.failed = ""
    schedule.cursor_ms = max(schedule.cursor_ms, event.at_ms)


def _schedule_removed(state: State, event: ScheduleRemoved) -> None:
    _schedule_of(state, event.schedule)
    del state.schedules[event.schedule]


def _move_cursor(schedule: Schedule, to_ms: int) -> None:
    """Whatever is decided is decided once: no slot before the cursor is looked at again."""
    if to_ms <= schedule.cursor_ms:
        raise InvariantViolation(
            f"schedule {schedule.name!r}: slot {to_ms} was decided, up to {schedule.cursor_ms}"
        )
    schedule.cursor_ms = to_ms


def _slots_passed(state: State, event: SlotsPassed) -> None:
    schedule = _schedule_of(state, event.schedule)
    _move_cursor(schedule, event.until_ms)
    if event.missed:
        schedule.missed += event.count
    else:
        schedule.skipped += event.count


def _slot_queued(state: State, event: SlotQueued) -> None:
    schedule = _schedule_of(state, event.schedule)
    _move_cursor(schedule, event.slot_at_ms)
    if event.instead:
        schedule.skipped += len(schedule.waiting)
        schedule.waiting = []
    schedule.waiting.append(event.slot_at_ms)


def _slot_fired(state: State, run: Run, fired: Fired) -> None:
    schedule = state.schedules.get(fired.schedule)
    if schedule is None or schedule.schedule_id != fired.schedule_id:
        return  # a run of it is repeated, and it is gone
    if not fired.triggered:
        if fired.slot_at_ms in schedule.waiting:
            schedule.waiting.remove(fired.slot_at_ms)
        else:
            _move_cursor(schedule, fired.slot_at_ms)
        schedule.fired += 1
    schedule.live[run.run_id] = run.alias
    schedule.last = LastFired(
        run_id=run.run_id,
        alias=run.alias,
        slot_at_ms=fired.slot_at_ms,
        at_ms=run.submitted_at_ms,
        triggered=fired.triggered,
    )


def _slot_ended(state: State, run: Run, fired: Fired, how: RunState) -> None:
    schedule = state.schedules.get(fired.schedule)
    if schedule is None or schedule.live.pop(run.run_id, None) is None:
        return
    if schedule.last is not None and schedule.last.run_id == run.run_id:
        schedule.last = replace(schedule.last, state=how)
    if how is RunState.FAILED and schedule.spec.pause_on_failure:
        schedule.failed = run.alias


# -- workers --------------------------------------------------------------------------------------
def _worker_joined(state: State, event: WorkerJoined) -> None:
    worker = state.workers.get(event.worker_id)
    if worker is None:
        worker = state.workers[event.worker_id] = WorkerInfo(
            worker_id=event.worker_id,
            host=event.host,
            port=event.port,
            incarnation=event.incarnation,
            boot_id=event.boot_id,
            slots=event.slots,
            skills=event.skills,
            software=event.software,
            state=WorkerState.ONLINE,
            since_ms=event.at_ms,
        )
        _count_workspace(state, event.workspace, 1)
    else:
        if worker.state is not WorkerState.ONLINE:
            _move_worker(state, worker, WorkerState.ONLINE, event.at_ms)
        if worker.workspace != event.workspace:
            _count_workspace(state, worker.workspace, -1)
            _count_workspace(state, event.workspace, 1)
    worker.workspace = event.workspace
    _release_name(state, worker)
    _release_ports(state, worker)
    worker.host = event.host
    worker.port = event.port
    worker.incarnation = event.incarnation
    worker.boot_id = event.boot_id
    worker.slots = event.slots
    worker.skills = event.skills
    worker.resources = dict(event.resources)
    worker.software = event.software
    worker.network = event.network
    state.names[worker.name] = worker.worker_id
    state.neighbours.setdefault(worker.ports, {})[worker.worker_id] = None
    worker.kinship = _kinship(state, worker.kinship, event.spawn)
    if worker.kinship is None:
        state.siblings.pop(worker.worker_id, None)
    else:
        state.siblings[worker.worker_id] = None


def _kinship(state: State, known: Kinship | None, number: int) -> Kinship | None:
    """Whose sibling the process that joins under this number is."""
    spawn = state.spawns.get(number)
    if spawn is not None:
        return Kinship(
            number=number,
            parent_id=spawn.parent_id,
            parent=spawn.parent,
            by_hand=spawn.by_hand,
            cause=spawn.cause,
        )
    return known if known is not None and known.number == number else None


def _count_workspace(state: State, workspace: str, more: int) -> None:
    number = state.workspaces.get(workspace, 0) + more
    if number:
        state.workspaces[workspace] = number
    else:
        del state.workspaces[workspace]


def _release_name(state: State, worker: WorkerInfo) -> None:
    if state.names.get(worker.name) == worker.worker_id:
        del state.names[worker.name]


def _release_ports(state: State, worker: WorkerInfo) -> None:
    neighbours = state.neighbours.get(worker.ports, {})
    neighbours.pop(worker.worker_id, None)
    if not neighbours:
        state.neighbours.pop(worker.ports, None)


def _worker_silent(state: State, event: WorkerSilent) -> None:
    _move_worker(state, state.workers[event.worker_id], WorkerState.SILENT, event.at_ms)


def _worker_draining(state: State, event: WorkerDraining) -> None:
    _move_worker(state, state.workers[event.worker_id], WorkerState.DRAINING, event.at_ms)


def _worker_cordoned(state: State, event: WorkerCordoned) -> None:
    state.workers[event.worker_id].cordoned = event.cordoned


def _worker_returned(state: State, event: WorkerReturned) -> None:
    _move_worker(state, state.workers[event.worker_id], WorkerState.ONLINE, event.at_ms)


def _worker_lost(state: State, event: WorkerLost) -> None:
    worker = state.workers[event.worker_id]
    _move_worker(state, worker, WorkerState.LOST, event.at_ms)
    _note_end(state, worker, ScalingKind.LOST, event.at_ms)


def _worker_retired(state: State, event: WorkerRetired) -> None:
    worker = state.workers[event.worker_id]
    if worker.held:
        raise InvariantViolation(f"worker {worker.worker_id} cannot retire: it holds attempts")
    if worker.state is not WorkerState.LOST:
        _note_end(state, worker, ScalingKind.LEFT, event.at_ms)
    _move_worker(state, worker, WorkerState.RETIRED, event.at_ms)
    state.siblings.pop(worker.worker_id, None)
    _release_name(state, worker)
    _release_ports(state, worker)
    _count_workspace(state, worker.workspace, -1)
    del state.workers[event.worker_id]


# -- workers that workers spawn -------------------------------------------------------------------
def _spawn_asked(state: State, event: SpawnAsked) -> None:
    if event.number <= state.fence:
        raise InvariantViolation(f"spawn {event.number} is not above fence {state.fence}")
    state.fence = event.number
    state.spawns[event.number] = Spawn(
        number=event.number,
        parent_id=event.worker_id,
        parent=event.parent,
        host=event.host,
        port=event.port,
        slots=event.slots,
        skills=event.skills,
        asked_at_ms=event.at_ms,
        exact=event.exact,
        by_hand=event.by_hand,
        cause=event.cause,
    )
    _note(
        state,
        ScalingChange(
            at_ms=event.at_ms,
            number=event.number,
            kind=ScalingKind.ASKED,
            parent=event.parent,
            worker=f"{event.host}:{event.port}",
            cause=event.cause,
        ),
    )


def _spawn_settled(state: State, event: SpawnSettled) -> None:
    spawn = state.spawns.pop(event.number, None)
    if spawn is None:
        raise InvariantViolation(f"spawn {event.number} is settled, and nobody asked for it")
    parent, has_joined = state.workers.get(event.worker_id), event.kind is ScalingKind.JOINED
    if parent is not None:
        parent.spawns_failed = 0 if has_joined else parent.spawns_failed + 1
        parent.spawn_failed_at_ms = 0 if has_joined else event.at_ms
    sibling = state.workers.get(event.sibling_id)
    _note(
        state,
        ScalingChange(
            at_ms=event.at_ms,
            number=event.number,
            kind=event.kind,
            parent=spawn.parent,
            worker=f"{spawn.host}:{spawn.port}" if sibling is None else sibling.name,
            cause=spawn.cause if has_joined else event.message,
        ),
    )


def _sibling_dismissed(state: State, event: SiblingDismissed) -> None:
    worker = state.workers[event.worker_id]
    if worker.kinship is None:
        raise InvariantViolation(f"{worker.worker_id} is dismissed, and nobody spawned it")
    worker.kinship = replace(worker.kinship, dismissed=True)
    _note_end(state, worker, ScalingKind.DISMISSED, event.at_ms, event.why)


def _note_end(
    state: State, worker: WorkerInfo, kind: ScalingKind, at_ms: int, cause: str = ""
) -> None:
    kinship = worker.kinship
    if kinship is not None:
        change = ScalingChange(
            at_ms=at_ms,
            number=kinship.number,
            kind=kind,
            parent=kinship.parent,
            worker=worker.name,
            cause=cause,
        )
        _note(state, change)


def _note(state: State, change: ScalingChange) -> None:
    state.scalings = (*state.scalings[1 - SCALINGS_KEPT :], change)


_APPLY: Final[dict[type[Event], Callable[[State, Any], None]]] = {
    ClusterFounded: _cluster_founded,
    MasterStarted: _master_started,
    PoisonRemembered: _poison_remembered,
    RunCancelRequested: _run_cancel_requested,
    RunEnded: _run_ended,
    JobsScheduled: _jobs_scheduled,
    JobsQueued: _jobs_queued,
    JobBackoff: _job_backoff,
    GatesOpened: _gates_opened,
    GateDecided: _gate_decided,
    JobCancelling: _job_cancelling,
    JobsDropped: _jobs_dropped,
    JobEnded: _job_ended,
    AttemptPlaced: _attempt_placed,
    AttemptStarted: _attempt_started,
    AttemptEnded: _attempt_ended,
    ServiceUp: _service_up,
    ServiceAdded: _service_added,
    ServiceChanged: _service_changed,
    ServiceQueued: _service_queued,
    ServiceStopping: _service_stopping,
    ServiceEnded: _service_ended,
    SchedulePut: _schedule_put,
    SchedulePaused: _schedule_paused,
    ScheduleResumed: _schedule_resumed,
    ScheduleRemoved: _schedule_removed,
    SlotsPassed: _slots_passed,
    SlotQueued: _slot_queued,
    WorkerJoined: _worker_joined,
    WorkerSilent: _worker_silent,
    WorkerDraining: _worker_draining,
    WorkerCordoned: _worker_cordoned,
    WorkerReturned: _worker_returned,
    WorkerLost: _worker_lost,
    WorkerRetired: _worker_retired,
    SpawnAsked: _spawn_asked,
    SpawnSettled: _spawn_settled,
    SiblingDismissed: _sibling_dismissed,
}


# -- a state that was put together from its parts ---------------------------------------------------
def twin(state: State) -> State:
    """A second state equal to `state`, which shares with it nothing that changes."""
    made = replace(state, observer=None)
    made.runs = {run_id: _twin_run(run) for run_id, run in state.runs.items()}
    made.workers = {
        worker_id: replace(
            worker,
            held=dict(worker.held),
            resources=dict(worker.resources),
            taken=dict(worker.taken),
        )
        for worker_id, worker in state.workers.items()
    }
    made.services = {key: _twin_service(made, one) for key, one in state.services.items()}
    made.spawns = dict(state.spawns)
    made.keys = dict(state.keys)
    made.slugs = dict(state.slugs)
    made.poison = dict(state.poison)
    made.schedules = {
        name: replace(one, live=dict(one.live), waiting=list(one.waiting))
        for name, one in state.schedules.items()
    }
    derive(made)
    return made


def _twin_run(run: Run) -> Run:
    jobs = {}
    for job_id, job in run.jobs.items():
        jobs[job_id] = copy = replace(job)
        if job.attempt is not None:
            copy.attempt = replace(job.attempt)
        if job.gate is not None:
            copy.gate = replace(job.gate)
    children = {index: list(found) for index, found in run.children.items()}
    return replace(
        run,
        jobs=jobs,
        order=list(jobs.values()),
        children=children,
        params=dict(run.params),
    )


def _twin_service(state: State, service: Service) -> Service:
    """Of a live run's service the attempt is its job's."""
    job = _job_of(state, service.run_id, service.job_id)
    attempt = None if job is None else job.attempt
    attempt = attempt or replace(service.attempt)
    return replace(service, attempt=attempt, intake=dict(service.intake))


def derive(state: State) -> None:
    """Fill the derived parts of a state whose durable parts came from elsewhere than events.

    A checkpoint holds what is durable, per aggregate; what `apply` keeps beside it is made anew.
    Never called with a state in use.
    """
    state.aliases = {run.alias: run.run_id for run in state.runs.values()}
    state.names = {worker.name: worker.worker_id for worker in state.workers.values()}
    state.siblings = {one.worker_id: None for one in state.workers.values() if one.kinship}
    state.workspaces = {}
    state.neighbours = {}
    for worker in state.workers.values():
        _count_workspace(state, worker.workspace, 1)
        state.neighbours.setdefault(worker.ports, {})[worker.worker_id] = None
    state.counts = {}
    queued: list[Job] = []
    waiting: list[tuple[int, Job]] = []
    for run in state.runs.values():
        _derive_run(run)
        queued += (job for job in run.order if job.state is JobState.QUEUED)
        if run.counts.get(JobState.WAITING):
            waiting += (
                (job.gate.number, job)
                for job in run.order
                if job.state is JobState.WAITING and job.gate is not None
            )
        for job_state, number in run.counts.items():
            state.counts[job_state] = state.counts.get(job_state, 0) + number
    state.instances = {}
    for service in state.services.values():
        _add_instance(state, service)
    queued += (job for job in state.instances.values() if job.state is JobState.QUEUED)
    state.groups, state.seats = {}, {}
    for run in state.runs.values():
        _derive_seats(state, run)
    for worker in state.workers.values():
        worker.used, worker.taken = 0, {}
        for key in worker.held:
            job = state.find_job(*key)
            if job is not None:
                _take(state, worker, job)
    state.queue = ReadyQueue()
    queued.sort(key=lambda job: job.queued_seq)
    for job in queued:
        state.queue.push(job)
    # In the order of their opening; no two have one number.
    waiting.sort(key=lambda pair: pair[0])
    state.gates = {(job.run_id, job.spec.id): job for _, job in waiting}


def _derive_seats(state: State, run: Run) -> None:
    for job in run.order:
        terms = job.spec.needs.terms
        if terms is not None and terms.run_group and job.attempt is not None:
            state.seats.setdefault(terms.run_group, {})[run.run_id] = None


def _derive_run(run: Run) -> None:
    counts: dict[JobState, int] = {}
    for job in run.order:
        counts[job.state] = counts.get(job.state, 0) + 1
        job.waiting = len(set(job.spec.dependencies))
    for job in run.order:
        # What comes after others is over when they are, unless it was taken over from an earlier run.
        if job.is_terminal and (not job.spec.dependencies or job.reason is ExitReason.TAKEN_OVER):
            _release_below(run, job)
    run.counts = counts
    run.remaining = sum(number for state, number in counts.items() if state not in JOB_TERMINAL)
    run.outputs_bytes = sum(size_of(job.outputs) for job in run.order if job.outputs)
    layers = sorted((job.layer, job.index) for job in run.order if job.layer)
    run.layers = [index for _, index in layers]
    _derive_layers(run)


def _derive_layers(run: Run) -> None:
    """What each job that has ended knows of the layers above it, from the top down.

    Through jobs that have not, too: of a run that repeats another, one that was taken over may come after
    one that runs again, and one that was skipped after one that still runs.
    """
    if not run.layers:
        return
    above = [0] * len(run.order)
    unseen = [len(set(job.spec.dependencies)) for job in run.order]
    ready = [job for job in run.order if not job.spec.dependencies]
    while ready:
        job = ready.pop()
        known = above[job.index] | (1 << job.layer >> 1)
        if job.is_terminal:
            job.layers = known
        for index in run.children.get(job.index, ()):
            above[index] |= known
            unseen[index] -= 1
            if not unseen[index]:
                ready.append(run.order[index])


def fold(events: Iterable[AnyEvent], state: State | None = None) -> State:
    """The state that `events` make, from nothing or from `state`."""
    state = State() if state is None else state
    for event in events:
        apply(state, event)
    return state
