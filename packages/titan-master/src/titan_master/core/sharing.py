"""Files between jobs: what of it an order names, so that it is there before the job starts.

What a job left in its run's shared folder is a *layer*, numbered in the order of acceptance. A job needs
the layers of all jobs above it; an order names those that were not named on this worker's link before,
because a worker keeps what it was told of a run. Only names pass here: the bytes went past the core.
Called by ``workers`` for the order, and by ``lifecycle`` before a success is recorded.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from titan_master.core.presence import Presence
from titan_master.core.state import (
    InvariantViolation,
    Job,
    Run,
    State,
    WorkerInfo,
    fits,
    layers_above,
)
from titan_proto.limits import LAYERS_PER_RUN
from titan_proto.messages.worker import Layer, Left
from titan_proto.specs import Share


def is_published(state: State, run: Run, job: Job) -> bool:
    """Whether what it leaves in the shared folder may be wanted in another folder than its own.

    Not where nothing comes after it, nor while all workers have one folder and can execute all of the
    run: then it is there already, and whoever comes later is not needed.
    """
    if job.index not in run.children or job.spec.launch.share is not Share.RUN:
        return False
    return len(state.workspaces) > 1 or run.is_tied or not _can_all_be_done(state, run)


def _can_all_be_done(state: State, run: Run) -> bool:
    """Whether the workers that are known have the skills of every job of the run."""
    offers = {worker.skills for worker in state.workers.values()}
    return all(any(fits(skills, offered) for offered in offers) for skills in run.skills)


def stored(left: Left | None) -> Left | None:
    """Of what was left, what has been stored."""
    if left is None or not left.kept:
        return left
    return replace(left, kept=False) if left.digest else None


def home_of(state: State, run: Run, job: Job) -> str:
    """Where jobs after this one have to be, since it left files for them that were not stored."""
    if job.index not in run.children or job.spec.launch.share is not Share.RUN:
        return ""
    attempt = job.attempt
    worker = None if attempt is None else state.workers.get(attempt.worker_id)
    return "" if worker is None else worker.workspace


def is_at_home(run: Run | None, job: Job, worker: WorkerInfo) -> bool:
    """Whether a worker has what jobs before this one may have left and nobody has stored.

    That happens where a worker with a folder of its own joins while a run is under way: what was left
    before stays where it is, and so do the jobs after it.
    """
    if run is None or not run.homes or not job.spec.dependencies:
        return True
    return worker.workspace in run.homes


def layers_for(run: Run, job: Job, told: Presence) -> tuple[Layer, ...]:
    """The layers that the job needs and that were not named on the link; from now on they were."""
    if not run.layers:
        return ()
    needed = layers_above(run, job)
    known = told.layers.get(run.run_id, 0)
    if not needed & ~known:
        return ()
    told.layers[run.run_id] = known | needed
    return tuple(_layers(run, needed & ~known))


def all_layers_for(run: Run, job: Job) -> tuple[Layer, ...]:
    """The layers that the job needs, whoever knows of them."""
    return tuple(_layers(run, layers_above(run, job))) if run.layers else ()


def _layers(run: Run, bits: int) -> Iterator[Layer]:
    while bits:
        lowest = bits & -bits
        index = lowest.bit_length()
        yield Layer(index=index, left=_left(run.order[run.layers[index - 1]]))
        bits ^= lowest


def intake_for(run: Run, job: Job) -> dict[str, Left]:
    """Where the files are listed that the job takes in; by the job that handed them out."""
    artifacts = job.spec.launch.artifacts
    if artifacts is None or not artifacts.take:
        return {}
    return {
        name: left
        for name in dict.fromkeys(take.job for take in artifacts.take)
        if (left := run.jobs[name].left) is not None
    }


def complaint(run: Run, left: Left) -> str:
    """Why the run has no room for what an attempt left; empty where it has."""
    if left.shared and len(run.layers) >= LAYERS_PER_RUN:
        return (
            f"{len(run.layers)} jobs of its run have left files in the shared folder already, as many "
            f"as LAYERS_PER_RUN ({LAYERS_PER_RUN}) allows; `share: node` keeps them where they are"
        )
    return ""


def _left(job: Job) -> Left:
    if job.left is None:
        raise InvariantViolation(f"{job.run_id}/{job.spec.id} has a layer and left nothing")
    return job.left
