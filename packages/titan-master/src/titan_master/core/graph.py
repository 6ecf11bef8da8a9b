"""The graph of a run: what a job's end opens, closes or cancels further down.

Pure questions about a run, answered without recursion; ``lifecycle`` turns the answers into events.
"""

from __future__ import annotations

from collections.abc import Iterable

from titan_master.core.state import Job, Run
from titan_proto.states import JobState


def opened_by(run: Run, jobs: Iterable[Job]) -> list[Job]:
    """Dependants of `jobs` whose last unmet dependency has just succeeded, in submission order."""
    opened: dict[int, Job] = {}
    for job in jobs:
        for index in run.children.get(job.index, ()):
            child = run.order[index]
            if child.state is JobState.BLOCKED and child.waiting == 0:
                opened[index] = child
    return [opened[index] for index in sorted(opened)]


def blocked_below(run: Run, jobs: Iterable[Job]) -> list[Job]:
    """Every job that still hangs on one of `jobs`, however far down, in submission order."""
    found: dict[int, Job] = {}
    todo = [job.index for job in jobs]
    while todo:
        for index in run.children.get(todo.pop(), ()):
            child = run.order[index]
            if child.state is JobState.BLOCKED and index not in found:
                found[index] = child
                todo.append(index)
    return [found[index] for index in sorted(found)]
