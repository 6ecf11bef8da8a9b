"""What a job's placement depends on beside room: groups, the job beside which it is to be, ports, and what it
takes the place of. Reads the state only. Called by ``placement``, which decides by it, and by
``explaining``, which says so.
"""

from __future__ import annotations

from titan_master.core.state import Job, Run, Service, State, WorkerInfo
from titan_proto.specs import Terms
from titan_proto.states import WorkerState


def is_group_full(state: State, terms: Terms, run_id: str) -> bool:
    """Whether as many of its concurrency group run as may, or as many runs of its run's group."""
    if terms.group and state.groups.get(terms.group, 0) >= terms.limit:
        return True
    if not terms.run_group:
        return False
    seats = state.seats.get(terms.run_group, {})
    return run_id not in seats and run_id in state.runs and len(seats) >= terms.run_limit


def near_to(state: State, run: Run, job: Job) -> tuple[Job, WorkerInfo | None] | None:
    """The job beside which this one is to be, and that one's worker, if it is known still.

    A worker that lost its ledger is another one, under the same name: what lay there may be there yet. In
    place of one that is lost itself, or has left (spawned ones do), another with its folder will do. None where nothing is asked for, or
    it was never executed in this run: then there is no such place.
    """
    terms = job.spec.needs.terms
    if terms is None or not terms.near or state.instances.get((job.run_id, job.spec.id)) is job:
        return None
    target = run.jobs[terms.near]
    attempt = target.attempt
    if attempt is None:
        return None
    worker = state.workers.get(attempt.worker_id)
    if worker is None:
        worker = state.workers.get(state.names.get(attempt.worker, ""))
    if (worker is None or worker.state is WorkerState.LOST) and attempt.workspace:
        others = (one for one in state.workers.values() if one.workspace == attempt.workspace)
        worker = next((one for one in others if one.state is not WorkerState.LOST), worker)
    return target, worker


def holder_of(state: State, worker: WorkerInfo, port: int) -> tuple[str, str] | None:
    """Which (run, job) of the cluster has this fixed port where the worker's jobs listen."""
    for worker_id in state.neighbours[worker.ports]:
        for key in state.workers[worker_id].held:
            job = state.find_job(*key)
            section = None if job is None else job.spec.service
            if section is not None and section.port == port:
                return key
    return None


def replaced_by(state: State, service: Service) -> list[Service]:
    """What it is to take the place of, while that is there."""
    old = state.services.get((service.run_id, service.replaces))
    return [] if old is None else [old]


def has_to_wait(state: State, run: Run | None, job: Job) -> bool:
    """Whether an exclusive service has to wait for what it takes the place of to be gone."""
    if not job.spec.exclusive or job.spec.service is None:
        return False
    service = state.services.get((job.run_id, job.spec.id))
    if service is not None:
        return bool(replaced_by(state, service))
    name = "" if run is None else f"{run.name}/{job.spec.id}"
    return bool(left_by_others(state, name, job.run_id))


def left_by_others(state: State, name: str, run_id: str) -> list[Service]:
    """Services of the same name that another run has brought."""
    return [one for one in state.services.values() if one.name == name and one.run_id != run_id]
