"""`titan explain`: why a job does not run, cause by cause and worker by worker."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import click

from titan_proto.errors import NotFound
from titan_proto.states import JOB_TERMINAL, JobState
from titan_sdk.cli import render
from titan_sdk.cli.context import Settings, emit, output_option, say, write
from titan_sdk.cli.look import find_job, look_of
from titan_sdk.cli.sanitize import clean

if TYPE_CHECKING:
    from collections.abc import Iterator

    from titan_proto.messages import Cause, Explanation, WorkerReason
    from titan_sdk.client import TitanClient

JOBS_SHOWN: Final = 20
"""Of a run, so many jobs that wait are explained."""
WORKERS_SHOWN: Final = 10
_MOVING: Final = (JobState.PLACED, JobState.RUNNING, JobState.CANCELLING)


@click.command()
@click.argument("id")
@output_option
@click.pass_obj
def explain(settings: Settings, id: str, *, output: str) -> None:  # noqa: A002 - what the user types
    """Say why a job does not run: what it waits for, in order, and what keeps it from each worker.

    ID is JOB (of the newest run that has it), RUN/JOB, or RUN: then all of its jobs that wait. Of a job
    that runs it says where, and why there.

    \b
    Examples:
      titan explain TRAIN
      titan explain nightly-1/TRAIN
      titan explain @last -o json
    """  # noqa: D301 - click reads the backspace
    with settings.client() as client:
        found, left = _found(client, id)
    if output == "json":
        emit("Explanations", {"items": [explanation_json(one) for one in found]})
        return
    if not found:
        say(f"Nothing of {clean(id)} waits.")
        return
    look = look_of(settings)
    write("\n\n".join("\n".join(_lines(one, look)) for one in found))
    if left:
        say(f"({left} more jobs wait; titan ps {clean(id)} lists them)")


def _found(client: TitanClient, name: str) -> tuple[list[Explanation], int]:
    if "/" not in name:
        try:
            view = client.view(name)
        except NotFound:
            view = None
        if view is not None:
            waiting = [
                job.job_id
                for job in client.jobs(view.run_id)
                if job.state not in JOB_TERMINAL and job.state not in _MOVING
            ]
            shown = [client.explain(job, run=view.run_id) for job in waiting[:JOBS_SHOWN]]
            return shown, len(waiting) - len(shown)
    job = find_job(client, name)
    return [client.explain(job.job_id, run=job.run_id)], 0


def _lines(found: Explanation, look: render.Look) -> Iterator[str]:
    yield f"{clean(f'{found.run_alias}/{found.job_id}')}  {look.state(found.state)}"
    many = len(found.causes) > 1
    for number, cause in enumerate(found.causes, 1):
        mark = f"{number}. " if many else ""
        yield f"  {mark}{clean(cause.message)}{_times(cause)}"
        if cause.position:
            yield f"     place {cause.position} of {cause.queued} that need the same"
        width = max((len(one.worker) for one in cause.workers[:WORKERS_SHOWN]), default=0)
        for one in cause.workers[:WORKERS_SHOWN]:
            yield f"     {clean(one.worker):<{width}}  {clean(one.message)}"
        left = len(cause.workers) - WORKERS_SHOWN
        if left > 0:
            yield f"     and {left} more workers; -o json has them"
    if found.expected_at_ms:
        yield f"  begins at {render.local_time(found.expected_at_ms)}"


def _times(cause: Cause) -> str:
    now_ms = time.time() * 1000
    since = f", for {render.duration(max(0.0, now_ms - cause.since_ms) / 1000)}"
    until = f", until {render.local_time(cause.until_ms)}"
    return (since if cause.since_ms else "") + (until if cause.until_ms else "")


def explanation_json(found: Explanation) -> dict[str, Any]:
    """An explanation as an object."""
    return {
        "run": found.run_id,
        "runAlias": found.run_alias,
        "job": found.job_id,
        "state": found.state.value,
        "causes": [_cause_json(cause) for cause in found.causes],
        "expectedAt": render.rfc3339(found.expected_at_ms),
    }


def _cause_json(cause: Cause) -> dict[str, Any]:
    return {
        "kind": cause.kind.value,
        "message": cause.message,
        "since": render.rfc3339(cause.since_ms),
        "until": render.rfc3339(cause.until_ms),
        "jobs": list(cause.jobs),
        "position": cause.position or None,
        "queued": cause.queued or None,
        "group": cause.group or None,
        "limit": cause.limit or None,
        "taken": cause.taken if cause.group else None,
        "workers": [_worker_json(one) for one in cause.workers],
    }


def _worker_json(one: WorkerReason) -> dict[str, Any]:
    unit = one.resource
    return {
        "worker": one.worker,
        "kind": one.kind.value,
        "message": one.message,
        "resource": unit or None,
        "wanted": render.amount(unit, one.wanted),
        "free": render.amount(unit, one.free),
        "total": render.amount(unit, one.total),
    }
