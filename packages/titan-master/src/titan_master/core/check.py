"""check(state): every promise that state keeps at all times, in words and code.

On in production after each start, in simulation after each step. It reads everything, changes
nothing, and raises InvariantViolation with the first promise that is broken.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from titan_master.core.state import (
    UNCOUNTED,
    InvariantViolation,
    Job,
    Run,
    State,
    digest,
    fits,
    layers_above,
)
from titan_proto.outputs import size_of
from titan_proto.specs import JobKind, Trigger
from titan_proto.states import (
    JOB_TERMINAL,
    AttemptState,
    ExitReason,
    JobState,
    ServiceState,
    WorkerState,
)

HOLDS_ATTEMPT = (JobState.PLACED, JobState.RUNNING, JobState.CANCELLING)
AFTER_PARENTS = (JobState.SCHEDULED, JobState.QUEUED, JobState.WAITING, JobState.BACKOFF)


_UP: Final = (
    ServiceState.STARTING,
    ServiceState.HEALTHY,
    ServiceState.UNHEALTHY,
    ServiceState.STOPPING,
)


def check(state: State) -> None:
    """Raise on the first broken promise; the message carries the state's digest."""
    for complaint in problems(state):
        raise InvariantViolation(f"{complaint} [state {digest(state)}]")


def problems(state: State) -> Iterator[str]:
    """Every broken promise, in words."""
    for run in state.runs.values():
        yield from _run_problems(state, run)
        for job in run.order:
            yield from _job_problems(state, run, job)
    yield from _held_problems(state)
    yield from _service_problems(state)
    yield from _schedule_problems(state)
    yield from _index_problems(state)
    yield from _group_problems(state)
    yield from _queue_problems(state)


def _run_problems(state: State, run: Run) -> Iterator[str]:
    if list(run.jobs.values()) != run.order:
        yield f"run {run.run_id}: its jobs and their order differ"
    counts: dict[JobState, int] = {}
    for job in run.order:
        counts[job.state] = counts.get(job.state, 0) + 1
    if counts != {job_state: number for job_state, number in run.counts.items() if number}:
        yield f"run {run.run_id}: counts {run.counts}, has {counts}"
    remaining = sum(job.state not in JOB_TERMINAL for job in run.order)
    if run.remaining != remaining:
        yield f"run {run.run_id}: counts {run.remaining} jobs left, has {remaining}"
    outputs_bytes = sum(size_of(job.outputs) for job in run.order if job.outputs)
    if run.outputs_bytes != outputs_bytes:
        yield f"run {run.run_id}: counts {run.outputs_bytes} bytes of outputs, has {outputs_bytes}"
    layers = [job.index for job in sorted(run.order, key=lambda job: job.layer) if job.layer]
    if run.layers != layers:
        yield f"run {run.run_id}: lists the layers {run.layers}, has {layers}"
    if not remaining:
        yield f"run {run.run_id}: nothing is left to do, and it has not ended"
    if state.aliases.get(run.alias) != run.run_id:
        yield f"run {run.run_id}: its alias {run.alias} means something else"
    if run.number > state.slugs.get(run.slug, 0):
        yield f"run {run.run_id}: its number may be given again"
    if run.serial > state.runs_accepted:
        yield f"run {run.run_id}: its serial was never given"
    if run.cancelled:
        started = (*HOLDS_ATTEMPT, *JOB_TERMINAL)
        yield from (
            f"{run.run_id}/{job.spec.id}: {job.state} in a cancelled run"
            for job in run.order
            if job.state not in started or job.state in (JobState.PLACED, JobState.RUNNING)
        )


def _job_problems(state: State, run: Run, job: Job) -> Iterator[str]:
    name = f"{run.run_id}/{job.spec.id}"
    parents = [run.jobs[parent] for parent in dict.fromkeys(job.spec.dependencies)]
    unmet = sum(not parent.is_over for parent in parents)
    if job.waiting != unmet:
        yield f"{name}: counts {job.waiting} unmet dependencies, has {unmet}"
    is_usual = job.trigger is Trigger.ALL_SUCCEEDED
    if unmet and (job.attempt is not None or job.state in AFTER_PARENTS):
        yield f"{name}: {job.state} before its dependencies"
    if job.state is JobState.BLOCKED:
        # Of many conditions that can be decided, each turn decides some.
        if not unmet and (job.shape is None or not job.shape.when):
            yield f"{name}: blocked by nothing"
        if is_usual and any(_is_in_the_way(parent) for parent in parents):
            yield f"{name}: blocked by a dependency that can never succeed"
    begun = job.attempt is not None or job.state in AFTER_PARENTS
    if (
        begun
        and not unmet
        and (not all(map(_is_well, parents)) if is_usual else _is_unmet(run, job))
    ):
        yield f"{name}: {job.state} after dependencies that ended otherwise"
    if job.spec.kind is JobKind.GATE or job.gate is not None:
        yield from _gate_problems(state, job, name)
    if job.left is not None and job.state is not JobState.SUCCEEDED:
        yield f"{name}: {job.state}, and it left files"
    if (job.layer > 0) != (job.left is not None and job.left.shared > 0):
        yield f"{name}: has layer {job.layer}, and left {job.left}"
    if job.is_terminal and run.layers:
        known = layers_above(run, job) | (1 << job.layer >> 1)
        # One that was taken over, or skipped early, may come after one that runs, and know what is above that.
        is_exact = job.reason is not ExitReason.TAKEN_OVER and not unmet
        if known & ~job.layers or (is_exact and known != job.layers):
            yield f"{name}: does not know the layers above it"
    yield from _attempt_problems(state, job, name)


def _is_in_the_way(job: Job) -> bool:
    """Whether nothing that needs its success can still begin, whatever becomes of other jobs."""
    failed = job.state is JobState.FAILED or job.reason is ExitReason.PARENT_FAILED
    return failed or job.state is JobState.CANCELLED


def _is_well(job: Job) -> bool:
    """Whether it has succeeded."""
    return job.state is JobState.SUCCEEDED


def _is_unmet(run: Run, job: Job) -> bool:
    """Whether the ends of its dependencies, all there, do not let a job of some other trigger begin."""
    parents = [run.jobs[name] for name in job.spec.dependencies]
    failed = [
        one.state is JobState.FAILED or one.reason is ExitReason.PARENT_FAILED for one in parents
    ]
    if job.trigger is Trigger.ANY_FAILED:
        return not any(failed)
    if job.trigger is Trigger.ANY_SUCCEEDED:
        return not any(map(_is_well, parents))
    if job.trigger is Trigger.NONE_FAILED:
        return any(failed) or any(one.state is JobState.CANCELLED for one in parents)
    return False


def _gate_problems(state: State, job: Job, name: str) -> Iterator[str]:
    """A gate is decided about once, by somebody, and is never executed."""
    gate = job.gate
    if job.spec.kind is not JobKind.GATE:
        yield f"{name}: a {job.spec.kind} was opened like a gate"
    if job.attempt is not None or job.state is JobState.QUEUED:
        yield f"{name}: {job.state}, and a gate is never executed"
    if (state.gates.get((job.run_id, job.spec.id)) is job) != (job.state is JobState.WAITING):
        yield f"{name}: {job.state}, and the list of open gates says otherwise"
    if gate is None:
        passed = job.state in (JobState.WAITING, JobState.SUCCEEDED, JobState.FAILED)
        if passed and job.reason not in (ExitReason.TAKEN_OVER, ExitReason.BAD_WHEN):
            yield f"{name}: {job.state} without having been opened"
        return
    if gate.number > state.gates_opened:
        yield f"{name}: its number among the gates was never given"
    if gate.decided_by and job.reason not in (ExitReason.APPROVED, ExitReason.REJECTED):
        yield f"{name}: {job.state} ({job.reason}), decided by {gate.decided_by}"


def _attempt_problems(state: State, job: Job, name: str) -> Iterator[str]:
    attempt = job.attempt
    if job.state is JobState.BACKOFF and attempt is None:
        yield f"{name}: backs off from nothing"
    if job.failures and job.failures > job.spec.retries.limit and not job.is_terminal:
        yield f"{name}: {job.failures} failures, and it goes on"
    is_up = (job.run_id, job.spec.id) in state.services
    if job.state in HOLDS_ATTEMPT and (attempt is None or not attempt.is_live):
        yield f"{name}: {job.state} without a live attempt"
    if attempt is None:
        return
    if attempt.is_live and job.state not in HOLDS_ATTEMPT and not is_up:
        yield f"{name}: {job.state} with a live attempt"
    expected = {
        JobState.PLACED: AttemptState.PREPARING,
        JobState.RUNNING: AttemptState.RUNNING,
        JobState.CANCELLING: AttemptState.STOPPING,
    }.get(job.state, attempt.state)
    if attempt.state is not expected:
        yield f"{name}: {job.state} with an attempt {attempt.state}"
    if job.lost + job.failures > attempt.number:
        yield f"{name}: {job.lost} lost and {job.failures} failed of {attempt.number} attempts"
    if not job.first_placed_at_ms:
        yield f"{name}: it has an attempt and was never placed"
    if attempt.fence > state.fence:
        yield f"{name}: its fence was never given"


def _held_problems(state: State) -> Iterator[str]:
    """Worker by worker: what it holds is live, and it never holds more than it has slots."""
    live = 0
    for worker in state.workers.values():
        mine = used = 0
        taken: dict[str, int] = {}
        by_this: dict[str, int] = {}
        """Likewise, by attempts of its present process."""
        for (run_id, job_id), number in worker.held.items():
            attempt = state.find_attempt(run_id, job_id)
            if attempt is None or attempt.number != number or not attempt.is_live:
                yield f"{worker.worker_id} holds {run_id}/{job_id}.{number}, which is not live"
                continue
            live += 1
            job = state.find_job(run_id, job_id)
            slots = 0 if job is None else job.spec.needs.slots
            used += slots
            terms = None if job is None else job.spec.needs.terms
            counted = () if terms is None else terms.counted
            is_own = attempt.incarnation == worker.incarnation
            for one in counted:
                taken[one.name] = taken.get(one.name, 0) + one.amount
                if is_own:
                    by_this[one.name] = by_this.get(one.name, 0) + one.amount
            if attempt.worker_id != worker.worker_id:
                yield f"{worker.worker_id} holds {run_id}/{job_id}, placed on {attempt.worker_id}"
            if is_own:
                # Those of an earlier process do not count: it may have had more slots.
                mine += slots
            elif attempt.incarnation > worker.incarnation:
                yield f"{run_id}/{job_id}: placed on a process that has not been"
        if used != worker.used:
            yield f"{worker.worker_id}: counts {worker.used} slots taken, has {used}"
        if mine > worker.slots:
            yield f"{worker.worker_id}: {mine} attempts on {worker.slots} slots"
        if taken != worker.taken:
            yield f"{worker.worker_id}: counts {worker.taken} of its resources taken, has {taken}"
        for name, amount in by_this.items():
            total = worker.resources.get(name, amount if name in UNCOUNTED else 0)
            if amount > total:
                yield f"{worker.worker_id}: {amount} of {total} {name} are taken"
        if worker.state is WorkerState.LOST and worker.held:
            yield f"{worker.worker_id}: lost, and holds attempts"
    attempts = {
        (job.run_id, job.spec.id): job.attempt
        for run in state.runs.values()
        for job in run.order
        if job.attempt is not None and job.attempt.is_live
    }
    attempts.update(
        (key, service.attempt) for key, service in state.services.items() if service.attempt.is_live
    )
    if len(attempts) != live:
        yield f"{len(attempts)} live attempts, of which workers hold {live}"


def _service_problems(state: State) -> Iterator[str]:
    for key, service in state.services.items():
        if key != (service.run_id, service.job_id):
            yield f"service {service.name} is filed under {key}"
        if service.state not in _UP:
            yield f"service {service.name} is {service.state} and still there"
        instance = state.instances.get(key)
        if instance is None or (instance.attempt or service.attempt) is not service.attempt:
            yield f"service {service.name} is not placed as what it is"
            continue
        is_waiting = instance.state in (JobState.QUEUED, JobState.BACKOFF)
        if service.attempt.is_live == is_waiting:
            yield f"service {service.name}: {instance.state} with an attempt {service.attempt.state}"
        if is_waiting and service.state is not ServiceState.STARTING:
            yield f"service {service.name} is {service.state} without a live attempt"
        if (instance.state is JobState.BACKOFF) != bool(service.not_before_ms):
            yield f"service {service.name} is held back until {service.not_before_ms}"
        run = state.runs.get(service.run_id)
        if run is not None and service.job_id in run.jobs:
            job = run.jobs[service.job_id]
            if job.attempt is not service.attempt or job.state is not JobState.SUCCEEDED:
                yield f"service {service.name}: its job is {job.state}"
    if len(state.instances) != len(state.services):
        yield f"{len(state.services)} services are placed as {len(state.instances)}"


def _schedule_problems(state: State) -> Iterator[str]:
    """What a schedule says of its runs is what they say of it."""
    live = {
        (run.fired.schedule, run.run_id): run.alias
        for run in state.runs.values()
        if run.fired is not None
        and run.fired.schedule in state.schedules
        and state.schedules[run.fired.schedule].schedule_id == run.fired.schedule_id
    }
    known = {
        (name, run_id): alias
        for name, schedule in state.schedules.items()
        for run_id, alias in schedule.live.items()
    }
    if live != known:
        yield f"schedules know the live runs {known}, there are {live}"
    for name, schedule in state.schedules.items():
        if name != schedule.name:
            yield f"schedule {schedule.name!r} is filed under {name!r}"
        if schedule.waiting != sorted(set(schedule.waiting)) or any(
            slot > schedule.cursor_ms for slot in schedule.waiting
        ):
            yield f"schedule {name!r}: {schedule.waiting} wait, at {schedule.cursor_ms}"
        if schedule.paused_at_ms and schedule.waiting:
            yield f"schedule {name!r} is paused, and slots wait"


def _index_problems(state: State) -> Iterator[str]:
    if len(state.aliases) != len(state.runs):
        yield f"{len(state.runs)} live runs have {len(state.aliases)} aliases"
    if len(state.names) != len(state.workers):
        yield f"{len(state.workers)} workers have {len(state.names)} names"
    for name, worker_id in state.names.items():
        worker = state.workers.get(worker_id)
        if worker is None or worker.name != name:
            yield f"name {name} means {worker_id}, which is not called so"
    siblings = {one.worker_id for one in state.workers.values() if one.kinship is not None}
    if set(state.siblings) != siblings:
        yield f"the spawned workers are {sorted(siblings)}, listed are {list(state.siblings)}"
    numbers = [one.kinship.number for one in state.workers.values() if one.kinship is not None]
    if len({*numbers, *state.spawns}) != len(numbers) + len(state.spawns):
        yield f"{numbers} have joined as what was asked for once, {list(state.spawns)} are asked for"
    beside = {w: ports for ports, workers in state.neighbours.items() for w in workers}
    if beside != {worker.worker_id: worker.ports for worker in state.workers.values()}:
        yield f"whose ports workers have is listed as {state.neighbours}"
    order = [job.gate.number for job in state.gates.values() if job.gate is not None]
    if len(order) != state.counts.get(JobState.WAITING, 0) or order != sorted(order):
        yield f"the open gates are listed as {order}"
    counts: dict[JobState, int] = {}
    for run in state.runs.values():
        for job_state, number in run.counts.items():
            if number:
                counts[job_state] = counts.get(job_state, 0) + number
    if counts != {job_state: number for job_state, number in state.counts.items() if number}:
        yield f"jobs are counted as {state.counts}, there are {counts}"


def _group_problems(state: State) -> Iterator[str]:
    """Of no concurrency group are more live than the latest of them let in."""
    limits: dict[str, list[int]] = {}
    run_limits: dict[str, int] = {}
    for worker in state.workers.values():
        for key in worker.held:
            job = state.find_job(*key)
            terms = None if job is None else job.spec.needs.terms
            if terms is not None and terms.group:
                limits.setdefault(terms.group, []).append(terms.limit)
    counts = {group: len(found) for group, found in limits.items()}
    if counts != state.groups:
        yield f"groups are counted as {state.groups}, there are {counts}"
    for group, found in limits.items():
        if len(found) > max(found):
            yield f"group {group}: {len(found)} are live, and {max(found)} may be"
    begun: dict[str, list[str]] = {}
    for run in state.runs.values():
        for job in run.order:
            terms = job.spec.needs.terms
            if terms is not None and terms.run_group and job.attempt is not None:
                begun.setdefault(terms.run_group, []).append(run.run_id)
                most = max(run_limits.get(terms.run_group, 0), terms.run_limit)
                run_limits[terms.run_group] = most
                break
    seats = {group: sorted(runs) for group, runs in state.seats.items()}
    if seats != {group: sorted(runs) for group, runs in begun.items()}:
        yield f"runs have begun in their groups as {begun}, and have seats as {seats}"
    for group, runs in begun.items():
        if len(runs) > run_limits[group]:
            yield f"group {group}: {len(runs)} runs have begun, and {run_limits[group]} may"


def _queue_problems(state: State) -> Iterator[str]:
    """The ready queue holds exactly the queued jobs, each once, each line in order."""
    total = 0
    for key, ready in state.queue.classes.items():
        size = 0
        for priority, line in enumerate(ready.lines):
            jobs = [] if line is None else list(line.jobs)
            queued = [job for job in jobs if job.state is JobState.QUEUED]
            dead = 0 if line is None else line.dead
            if dead != len(jobs) - len(queued):
                yield f"class {key}: counts {dead} dead entries of {len(jobs)}"
            order = [job.queued_seq for job in queued]
            if order != sorted(dict.fromkeys(order)):
                yield f"class {key}: a line is out of order"
            for job in queued:
                if job.spec.priority != priority or state.queue.key(job) != key:
                    yield f"{job.run_id}/{job.spec.id} stands in the wrong line"
            size += len(queued)
        if size != ready.size or not size:
            yield f"class {key}: counts {ready.size} jobs, has {size}"
        total += size
    for offered, fitting in state.queue.remembered():
        wanted = {key for key in state.queue.classes if fits(key.skills, offered)}
        if set(fitting) != wanted:
            yield f"workers with {offered} are thought to fit {sorted(fitting)}"
    services = sum(job.state is JobState.QUEUED for job in state.instances.values())
    wanted_size = state.counts.get(JobState.QUEUED, 0) + services
    slotless = sum(ready.size for key, ready in state.queue.classes.items() if not key.slots)
    if state.queue.slotless != slotless:
        yield f"the queue counts {state.queue.slotless} jobs without slots, has {slotless}"
    if total != state.queue.size or total != wanted_size:
        yield f"{wanted_size} jobs are queued, {total} in the queue"
