"""Files between jobs: what of it an order names, so that it is there before the job starts.

What a job left in its run's shared folder is a *layer*, numbered in the order of acceptance. A job needs
the layers of all jobs above it; an order names those that were not named on this worker's link before,
because a worker keeps what it was told of a run. Only names pass here: the bytes went past the core.
Called by ``workers`` for the order, and by ``lifecycle`` before a success is recorded.
"""

from __future__ import annotations

from collections.abc import Iterator

from titan_master.core.presence import Presence
from titan_master.core.state import InvariantViolation, Job, Run, State, layers_above
from titan_proto.limits import LAYERS_PER_RUN
from titan_proto.messages.worker import Layer, Left
from titan_proto.specs import Share


def is_published(state: State, run: Run, job: Job) -> bool:
    """Whether what it leaves in the shared folder may be wanted in another folder than its own.

    Not where nothing comes after it, nor while all workers have one folder: then it is there already.
    """
    return (
        len(state.workspaces) > 1
        and job.index in run.children
        and job.spec.launch.share is Share.RUN
    )


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
