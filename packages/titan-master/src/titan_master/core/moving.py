"""Services of a worker that leaves: each is replaced elsewhere while it still answers.

A worker that is told to leave keeps its services up until they are stopped from here, or its time for
leaving is over. One that another worker can have gets a replacement there, and goes once that is healthy:
``rollout`` sees to both. One that none can have is told to stop as soon as its worker waits for nothing
else; it comes up when there is a worker for it, and its event says why it was not moved. Also here: what a
rolling replacement must look at again because workers have gone. Called by ``core``, ``workers`` and
``lifecycle``.
"""

from __future__ import annotations

from typing import Final

from titan_master.core import conditions, rollout, services
from titan_master.core.state import Job, Service, State, WorkerInfo
from titan_master.core.turn import Draft
from titan_proto.ids import AttemptRef
from titan_proto.specs import JobKind
from titan_proto.states import AttemptState, ExitReason, JobState, ServiceState, WorkerState

_WAS_WELL: Final = (ServiceState.HEALTHY, ServiceState.UNHEALTHY)


def begin(draft: Draft, worker: WorkerInfo, *, why: str = "") -> None:
    """It has just said that it leaves, or is to be empty: `why`."""
    for key in list(worker.held):
        service = draft.state.services.get(key)
        if service is not None and service.state in _WAS_WELL:
            _move(draft, service, why or f"worker {worker.name} is leaving")


def came_up(draft: Draft, service: Service) -> None:
    """It is healthy; where its worker is leaving by now, it goes on from there."""
    worker = draft.state.workers.get(service.attempt.worker_id)
    if worker is not None and worker.state is WorkerState.DRAINING:
        _move(draft, service, f"worker {worker.name} is leaving")


def _move(draft: Draft, service: Service, why: str) -> None:
    if service.state is ServiceState.STOPPING or services.replacement_of(draft.state, service):
        return
    if not services.why_it_stays(draft.state, service):
        rollout.replace_one(draft, service, why=why)


# -- later on --------------------------------------------------------------------------------------
def look_again(draft: Draft) -> None:
    """Workers have gone, or something that a leaving worker waits for has changed."""
    if draft.places_due:
        draft.places_due = False
        _make_way_again(draft)
        leaving = (w for w in draft.state.workers.values() if w.state is WorkerState.DRAINING)
        draft.leaving_due.update((worker.worker_id, None) for worker in leaving)
    due, draft.leaving_due = draft.leaving_due, {}
    for worker_id in due:
        worker = draft.state.workers.get(worker_id)
        if worker is not None and worker.state is WorkerState.DRAINING:
            _let_go(draft, worker)


def _make_way_again(draft: Draft) -> None:
    """What waits to take another's place may have no worker any more that could have both."""
    state = draft.state
    ports: dict[str, dict[str, list[Service]]] = {}
    for service in list(state.services.values()):
        section = None if service.spec is None else service.spec.service
        if service.spec is None or section is None or not section.port:
            continue
        ports.setdefault(service.run_name, {}).setdefault(service.base, []).append(service)
        if service.replaces and not service.attempt.is_live:
            replaced = conditions.replaced_by(state, service)
            rollout.make_way(draft, service.spec, replaced, avoid=service.avoid)
    if not ports:
        return
    for run in state.runs.values():
        for base, left in ports.get(run.name, {}).items():
            job = run.jobs.get(base)
            others = [one for one in left if one.run_id != run.run_id]
            if job is not None and job.state is JobState.QUEUED and others:
                rollout.make_way(draft, job.spec, others)


def _let_go(draft: Draft, worker: WorkerInfo) -> None:
    """Where it waits for nothing but services that stay, these are told to stop."""
    held = [AttemptRef(run_id, job_id, number) for (run_id, job_id), number in worker.held.items()]
    if not any(_is_waited_for(draft.state, ref) for ref in held):
        for ref in held:
            if _is_to_stop(draft.state, ref):
                draft.stop(worker.worker_id, ref, ExitReason.WORKER_LEFT)


def _is_to_stop(state: State, ref: AttemptRef) -> bool:
    attempt = state.find_attempt(ref.run_id, ref.job_id)
    return attempt is not None and attempt.state is not AttemptState.STOPPING


def _is_waited_for(state: State, ref: AttemptRef) -> bool:
    """A task that may end by itself, or a service whose replacement may still come up."""
    if not _is_to_stop(state, ref):
        return False
    service = state.services.get((ref.run_id, ref.job_id))
    if service is None:
        job: Job | None = state.find_job(ref.run_id, ref.job_id)
        return job is not None and job.spec.kind is JobKind.TASK
    replacement = services.replacement_of(state, service)
    if replacement is None:
        return False
    return replacement.attempt.is_live or not services.why_it_stays(state, service)
