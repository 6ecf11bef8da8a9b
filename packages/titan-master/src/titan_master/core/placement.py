"""Placement: which queued job goes to which worker, now.

Jobs of equal needs form a class. The most urgent head of all classes is placed first; a class that
finds no worker is set aside, so it never delays another. Called by ``core`` once a turn.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator
from itertools import islice
from typing import Final

from titan_master.core import conditions, filling, lifecycle, rollout, sharing
from titan_master.core.events import AttemptPlaced
from titan_master.core.presence import Entry
from titan_master.core.state import (
    ClassKey,
    InvariantViolation,
    Job,
    ReadyClass,
    Run,
    State,
    WorkerInfo,
    fits,
    has_too_little,
    is_meant,
    short_of,
)
from titan_master.core.turn import CoreConfig, Draft
from titan_master.core.workers import send_order
from titan_proto.specs import JobKind
from titan_proto.states import ExitReason, JobState

PASSED_OVER: Final = 64
"""Of one class so many jobs are passed over in a turn that wait for something of their own."""
PARENTS_LOOKED_AT: Final = 64
"""Affinity looks at so many parents: a job that gathers 100,000 is at home everywhere."""

Candidate = tuple[int, int, Job, ReadyClass]
"""Urgency (smaller is sooner), place in the order of queueings (unique), the job, its class."""


def place(draft: Draft) -> None:
    """Place what can be placed, at most `placements_max`; what is left waits for the next turn."""
    if not draft.placement_due:
        return
    draft.placement_due = False
    if draft.storage.is_full:
        return  # what is running needs the rest of the disk for its end; the next look comes soon
    free, queue = draft.roster.free, draft.state.queue
    if not queue.size or not (free or queue.slotless):
        return
    classes = {key: ready for offered in free for key, ready in queue.fitting(offered).items()}
    if queue.slotless:
        for offered in draft.roster.full:
            fitting = queue.fitting(offered).items()
            classes.update((key, ready) for key, ready in fitting if not key.slots)
    candidates: list[Candidate] = []
    for key, ready in classes.items():
        if key.terms is None or not conditions.is_group_full(draft.state, key.terms, key.run_id):
            _push_next(draft, candidates, ready, ())
    passed: dict[ClassKey, set[int]] = {}
    left = draft.config.placements_max
    while candidates and (free or queue.slotless):
        if not left:
            draft.placement_due = True
            return
        _, _, job, ready = heapq.heappop(candidates)
        worker_id = _choose(draft, job, ready.key)
        if worker_id is None and not _is_refused(draft, job):
            if _waits_alone(draft, job):
                over = passed.setdefault(ready.key, set())
                over.add(job.queued_seq)
                if len(over) <= PASSED_OVER:
                    _push_next(draft, candidates, ready, over)
            continue
        if worker_id is not None and _can_be_made(draft, job):
            _place(draft, job, worker_id)
        left -= 1
        if ready.size:
            _push_next(draft, candidates, ready, passed.get(ready.key, ()))


def _waits_alone(draft: Draft, job: Job) -> bool:
    """Whether what it waits for need not be what others of its class wait for: a port, another worker than
    those where it failed, the end of what it replaces, the files that jobs before it have left.
    """
    if job.spec.service is not None:
        return True
    run = draft.state.runs.get(job.run_id)
    return run is not None and bool(run.homes) and bool(job.spec.dependencies)


def _push_next(
    draft: Draft, candidates: list[Candidate], ready: ReadyClass, passed: Collection[int]
) -> None:
    following = _most_urgent(ready, draft.now_ms, draft.config, passed)
    if following is not None:
        heapq.heappush(candidates, following)


def urgency(job: Job, now_ms: int, config: CoreConfig) -> int:
    """Its priority after ageing: a step for each `ageing_step_ms` waited, up to a ceiling."""
    priority = job.spec.priority
    ceiling = config.ageing_priority_max
    if priority >= ceiling:
        return priority
    return min(ceiling, priority + (now_ms - job.ready_at_ms) // config.ageing_step_ms)


def _most_urgent(
    ready: ReadyClass, now_ms: int, config: CoreConfig, passed: Collection[int] = ()
) -> Candidate | None:
    """The class's next job, of those not passed over. In a line the first has waited longest, so heads
    are enough.
    """
    best: Candidate | None = None
    for job in ready.heads(passed):
        candidate = (-urgency(job, now_ms, config), job.queued_seq, job, ready)
        if best is None or candidate < best:
            best = candidate
    if best is None and not passed:
        raise InvariantViolation(f"class {ready.key} counts {ready.size} jobs and has none")
    return best


def _choose(draft: Draft, job: Job, key: ClassKey) -> str | None:
    """Where a parent ran, if the job wants that; else the least loaded, ties by name."""
    run = draft.state.runs.get(job.run_id)
    if conditions.has_to_wait(draft.state, run, job):
        return None
    terms = job.spec.needs.terms
    if terms is not None:
        if conditions.is_group_full(draft.state, terms, job.run_id):
            return None
        if terms.worker:
            return _pinned(draft, job, key, terms.worker)
    is_usual = (
        key.slots == 1
        and key.terms is None
        and job.spec.service is None
        and (run is None or not run.homes)
    )
    if run is not None and (job.spec.affinity or run.near or terms is not None):
        near, is_all = _wanted(draft, run, job, key)
        if near is not None or is_all:
            return near
    if terms is not None and terms.spread:
        return _farthest(draft, job, key)
    best: Entry | None = None
    # What takes no slot goes to the least loaded, full or not: the one index begins where the other ends.
    for index in (draft.roster.free,) if key.slots else (draft.roster.free, draft.roster.full):
        for offered, entries in index.items():
            if not fits(key.skills, offered):
                continue
            # Of usual jobs every entry can have one, so the first is the best: nothing is searched.
            for entry in entries:
                if best is not None and best <= entry:
                    break
                if is_usual or _can_have(draft, job, key, entry[2]):
                    best = entry
                    break
    return None if best is None else best[2]


def _wanted(draft: Draft, run: Run, job: Job, key: ClassKey) -> tuple[str | None, bool]:
    """A worker that is better for the job than the least loaded, and whether no other will do."""
    found = conditions.near_to(draft.state, run, job)
    if found is not None:
        worker = found[1]
        terms = job.spec.needs.terms
        is_required = terms is not None and terms.required
        has_room = worker is not None and _has_room(draft, job, key, worker)
        return (worker.worker_id if worker is not None and has_room else None), is_required
    if job.spec.affinity and not _is_instance(draft, job):
        at_home = _parents_worker(draft, job, key)
        if at_home is not None:
            return at_home, False
    if run.near:
        worker = draft.state.workers.get(run.near)
        if worker is not None and _has_room(draft, job, key, worker):
            return worker.worker_id, False
    return None, False


def _pinned(draft: Draft, job: Job, key: ClassKey, name: str) -> str | None:
    """The worker of that name or id; of a host, the least loaded of its workers."""
    state = draft.state
    meant = state.workers.get(state.names.get(name, name))
    found = [meant] if meant is not None else state.workers.values()
    terms = job.spec.needs.terms
    entries = (
        draft.roster.of(worker.worker_id).entry
        for worker in found
        if is_meant(worker, terms) and _has_room(draft, job, key, worker)
    )
    best = min((entry for entry in entries if entry is not None), default=None)
    return None if best is None else best[2]


def _farthest(draft: Draft, job: Job, key: ClassKey) -> str | None:
    """Where the fewest jobs of its run are, of those with room; then the least loaded."""
    best: tuple[int, Entry] | None = None
    for index in (draft.roster.free,) if key.slots else (draft.roster.free, draft.roster.full):
        for offered, entries in index.items():
            if not fits(key.skills, offered):
                continue
            for entry in entries:
                if not _can_have(draft, job, key, entry[2]):
                    continue
                held = draft.state.workers[entry[2]].held
                found = (sum(run_id == job.run_id for run_id, _ in held), entry)
                if best is None or found < best:
                    best = found
    return None if best is None else best[1][2]


def _has_room(draft: Draft, job: Job, key: ClassKey, worker: WorkerInfo) -> bool:
    """Whether this very worker can be given the job now."""
    presence = draft.roster.of(worker.worker_id)
    return (
        presence.entry is not None
        and (not presence.is_full or not key.slots)
        and fits(key.skills, worker.skills)
        and _can_have(draft, job, key, worker.worker_id)
    )


def could_have(state: State, worker: WorkerInfo, job: Job) -> bool:
    """Whether this worker, if it were idle, could ever be given this job: its skills, its size, what is
    counted, and what ties the job to certain workers. Whether it is here, and well, is another question.
    """
    needs = job.spec.needs
    is_own = state.instances.get((job.run_id, job.spec.id)) is job
    run = None if is_own else state.runs.get(job.run_id)
    return (
        fits(needs.skills, worker.skills)
        and needs.slots <= worker.slots
        and not has_too_little(worker, needs.terms)
        and is_meant(worker, needs.terms)
        and (run is None or _is_near(state, run, job, worker))
        and sharing.is_at_home(run, job, worker)
    )


def _can_have(draft: Draft, job: Job, key: ClassKey, worker_id: str) -> bool:
    """Whether a worker of the right skills has room for this very job, and it was not bad for it before."""
    worker = draft.state.workers[worker_id]
    if key.slots > worker.slots - worker.used and key.slots:
        return False
    if key.terms is not None and short_of(worker, key.terms):
        return False
    run = None if _is_instance(draft, job) else draft.state.runs.get(job.run_id)
    if not sharing.is_at_home(run, job, worker):
        return False
    section = job.spec.service
    if section is None:
        return True
    service = draft.state.services.get((job.run_id, job.spec.id))
    if service is not None and worker_id in service.avoid:
        return False
    return not section.port or conditions.holder_of(draft.state, worker, section.port) is None


def _is_near(state: State, run: Run, job: Job, worker: WorkerInfo) -> bool:
    """Whether a job that has to be beside another one would be that there."""
    terms = job.spec.needs.terms
    found = None if terms is None or not terms.required else conditions.near_to(state, run, job)
    return found is None or found[1] is worker


def _is_instance(draft: Draft, job: Job) -> bool:
    return draft.state.instances.get((job.run_id, job.spec.id)) is job


def _parents_worker(draft: Draft, job: Job, key: ClassKey) -> str | None:
    for parent in islice(_executed(draft.state.runs[job.run_id], job), PARENTS_LOOKED_AT):
        attempt = parent.attempt
        if attempt is None:
            continue
        worker = draft.state.workers.get(attempt.worker_id)
        if worker is not None and _has_room(draft, job, key, worker):
            return worker.worker_id
    return None


def _executed(run: Run, job: Job) -> Iterator[Job]:
    """Its parents; in place of a gate, which was nowhere, what the gate stands after."""
    for parent in dict.fromkeys(job.spec.dependencies):
        if run.jobs[parent].spec.kind is JobKind.GATE:
            yield from (run.jobs[name] for name in run.jobs[parent].spec.dependencies)
        else:
            yield run.jobs[parent]


def _is_refused(draft: Draft, job: Job) -> bool:
    """Whether a service must not wait for its fixed port: others have it wherever it could be."""
    section = job.spec.service
    if section is None or not section.port or _is_instance(draft, job):
        return False
    run = draft.state.runs[job.run_id]
    why = rollout.port_taken(draft.state, run, job)
    if why:
        failed, reason = JobState.FAILED, ExitReason.START_FAILED
        lifecycle.settle_job(draft, run, job, failed, reason, why)
    return bool(why)


def _can_be_made(draft: Draft, job: Job) -> bool:
    """Whether its parents left what its launch needs; if not it ends here, for another try would too."""
    if _is_instance(draft, job):
        return True  # it has them already
    run = draft.state.runs[job.run_id]
    try:
        filling.filled_in(run, job)
    except filling.Missing as missing:
        failed, reason = JobState.FAILED, ExitReason.MISSING_OUTPUT
        lifecycle.settle_job(draft, run, job, failed, reason, str(missing))
        return False
    return True


def _place(draft: Draft, job: Job, worker_id: str) -> None:
    state = draft.state
    draft.emit(
        AttemptPlaced(
            at_ms=draft.now_ms,
            run_id=job.run_id,
            job_id=job.spec.id,
            number=job.number + 1,
            worker_id=worker_id,
            incarnation=state.workers[worker_id].incarnation,
            fence=state.fence + 1,
        )
    )
    if job.attempt is None:
        raise InvariantViolation(f"{job.run_id}/{job.spec.id} was placed and has no attempt")
    send_order(draft, job, job.attempt)
