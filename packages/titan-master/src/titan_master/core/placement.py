"""Placement: which queued job goes to which worker, now.

Jobs of equal needs form a class. The most urgent head of all classes is placed first; a class that
finds no worker is set aside, so it never delays another. Called by ``core`` once a turn.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from itertools import islice
from typing import Final

from titan_master.core import filling, lifecycle
from titan_master.core.events import AttemptPlaced
from titan_master.core.presence import Entry
from titan_master.core.state import InvariantViolation, Job, ReadyClass, Run, fits
from titan_master.core.turn import CoreConfig, Draft
from titan_master.core.workers import send_order
from titan_proto.specs import JobKind
from titan_proto.states import ExitReason, JobState

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
    free = draft.roster.free
    if not draft.state.queue.size or not free:
        return
    queue = draft.state.queue
    classes = {key: ready for offered in free for key, ready in queue.fitting(offered).items()}
    candidates = [_most_urgent(ready, draft.now_ms, draft.config) for ready in classes.values()]
    heapq.heapify(candidates)
    left = draft.config.placements_max
    while candidates and free:
        if not left:
            draft.placement_due = True
            return
        _, _, job, ready = heapq.heappop(candidates)
        worker_id = _choose(draft, job, ready.skills)
        if worker_id is None:
            continue
        if _can_be_made(draft, job):
            _place(draft, job, worker_id)
        left -= 1
        if ready.size:
            heapq.heappush(candidates, _most_urgent(ready, draft.now_ms, draft.config))


def urgency(job: Job, now_ms: int, config: CoreConfig) -> int:
    """Its priority after ageing: a step for each `ageing_step_ms` waited, up to a ceiling."""
    priority = job.spec.priority
    ceiling = config.ageing_priority_max
    if priority >= ceiling:
        return priority
    return min(ceiling, priority + (now_ms - job.ready_at_ms) // config.ageing_step_ms)


def _most_urgent(ready: ReadyClass, now_ms: int, config: CoreConfig) -> Candidate:
    """The class's next job. Within a line the first has waited longest, so heads are enough."""
    best: Candidate | None = None
    for job in ready.heads():
        candidate = (-urgency(job, now_ms, config), job.queued_seq, job, ready)
        if best is None or candidate < best:
            best = candidate
    if best is None:
        raise InvariantViolation(f"class {ready.skills} counts {ready.size} jobs and has none")
    return best


def _choose(draft: Draft, job: Job, skills: tuple[str, ...]) -> str | None:
    """Where a parent ran, if the job wants that; else the least loaded, ties by name."""
    if job.spec.affinity:
        at_home = _parents_worker(draft, job, skills)
        if at_home is not None:
            return at_home
    best: Entry | None = None
    for offered, entries in draft.roster.free.items():
        if fits(skills, offered) and (best is None or entries[0] < best):
            best = entries[0]
    return None if best is None else best[2]


def _parents_worker(draft: Draft, job: Job, skills: tuple[str, ...]) -> str | None:
    for parent in islice(_executed(draft.state.runs[job.run_id], job), PARENTS_LOOKED_AT):
        attempt = parent.attempt
        if attempt is None:
            continue
        worker = draft.state.workers.get(attempt.worker_id)
        if (
            worker is not None
            and draft.roster.of(worker.worker_id).entry is not None
            and fits(skills, worker.skills)
        ):
            return worker.worker_id
    return None


def _executed(run: Run, job: Job) -> Iterator[Job]:
    """Its parents; in place of a gate, which was nowhere, what the gate stands after."""
    for parent in dict.fromkeys(job.spec.dependencies):
        if run.jobs[parent].spec.kind is JobKind.GATE:
            yield from (run.jobs[name] for name in run.jobs[parent].spec.dependencies)
        else:
            yield run.jobs[parent]


def _can_be_made(draft: Draft, job: Job) -> bool:
    """Whether its parents left what its launch needs; if not it ends here, for another try would too."""
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
    send_order(draft, state.runs[job.run_id], job, job.attempt)
