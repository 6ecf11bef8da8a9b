"""`titan plan`: what a pipeline would come to now, in which order, where, and when; changes nothing."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

from titan_proto.errors import LinkError, Unsupported
from titan_proto.schedules import times_of
from titan_proto.specs import JobKind
from titan_proto.states import WorkerState
from titan_sdk.cli import render
from titan_sdk.cli.author import what_is_packed
from titan_sdk.cli.context import Settings, emit, output_option, write
from titan_sdk.cli.sanitize import clean
from titan_sdk.pipeline import load
from titan_sdk.staging import read_env_files

if TYPE_CHECKING:
    from collections.abc import Sequence

    from titan_proto.messages import WorkerDetail
    from titan_proto.specs import JobSpec, ScheduleSpec

TIMES: Final = 5
JOBS_SHOWN: Final = 200
"""Of one wave; -o json has them all."""


class Planned(NamedTuple):
    """Where a job would go, as things stand."""

    job: JobSpec
    worker: str
    why: str


@click.command()
@click.argument("file")
@output_option
@click.pass_obj
def plan(settings: Settings, file: str, *, output: str) -> None:
    """Say what FILE, a pipeline, would come to: waves of jobs, where each would go now and why.

    Also what would be packed, and the next times of its schedule. Asks the master which workers there
    are, and changes nothing; without one it says the rest. Where a job really goes is decided when it
    is its turn. Exit 2 if the file has an error: titan validate lists them.

    \b
    Examples:
      titan plan daily_etl.yaml
      titan plan daily_etl.yaml -o json
    """  # noqa: D301 - click reads the backspace
    pipeline = load(file)
    _, wrong = read_env_files(pipeline)
    packed, more = what_is_packed(pipeline)
    pipeline.check([*wrong, *more])
    workers = _workers(settings)
    waves = [_placed(wave, workers) for wave in waves_of(pipeline.all_jobs())]
    times = _next_times(pipeline.schedule)
    if output == "json":
        emit(
            "Plan",
            {
                "file": file,
                "name": pipeline.name,
                "workersKnown": workers is not None,
                "packs": packed.removeprefix("; ") or None,
                "nextTimes": [render.rfc3339(at_ms) for at_ms in times],
                "waves": [[_json(one) for one in wave] for wave in waves],
            },
        )
        return
    write(clean(f"{pipeline.name}{packed}"))
    for number, wave in enumerate(waves, 1):
        write(f"\nWave {number}")
        width = max(len(one.job.id) for one in wave[:JOBS_SHOWN])
        for one in wave[:JOBS_SHOWN]:
            where = f"→ {one.worker}  " if one.worker else ""
            write(clean(f"  {one.job.id:<{width}}  {where}{one.why}"))
        if len(wave) > JOBS_SHOWN:
            write(f"  and {len(wave) - JOBS_SHOWN} more; -o json has them")
    if workers is None:
        write("\nNo master answered: where jobs would go is not known.")
    if times and pipeline.schedule is not None:
        write(f"\nNext times ({pipeline.schedule.zone}), once titan schedule add has put it there:")
        for at_ms in times:
            write(f"  {render.rfc3339(at_ms)}  here {render.local_time(at_ms)}")


def waves_of(jobs: Sequence[JobSpec]) -> list[list[JobSpec]]:
    """The jobs by how many others must have ended before: each wave needs only those before it."""
    index = {job.id: job for job in jobs}
    left = {job.id: len(set(job.dependencies)) for job in jobs}
    children: dict[str, list[str]] = {}
    for job in jobs:
        for parent in dict.fromkeys(job.dependencies):
            children.setdefault(parent, []).append(job.id)
    wave = [job.id for job in jobs if not left[job.id]]
    found = []
    while wave:
        found.append([index[name] for name in wave])
        ready: list[str] = []
        for name in wave:
            for child in children.get(name, ()):
                left[child] -= 1
                if not left[child]:
                    ready.append(child)
        wave = ready
    return found


def _workers(settings: Settings) -> list[WorkerDetail] | None:
    try:
        with settings.client() as client:
            return client.workers()
    except (LinkError, Unsupported):
        return None


def _next_times(schedule: ScheduleSpec | None) -> list[int]:
    if schedule is None:
        return []
    now_ms = int(time.time() * 1000)
    times = times_of(schedule, now_ms)
    found: list[int] = []
    after_ms = max(now_ms, schedule.start_ms - 1)
    while len(found) < TIMES:
        at_ms = times.next_ms(found[-1] if found else after_ms)
        if at_ms is None or (schedule.end_ms and at_ms > schedule.end_ms):
            break
        found.append(at_ms)
    return found


def _placed(wave: list[JobSpec], workers: list[WorkerDetail] | None) -> list[Planned]:
    """Where the jobs of one wave would go, given what is on the workers now."""
    taken: dict[str, int] = {}
    found = []
    for job in wave:
        one = _place(job, workers, taken)
        found.append(one)
        taken[one.worker] = taken.get(one.worker, 0) + job.needs.slots
    return found


def _place(job: JobSpec, workers: list[WorkerDetail] | None, taken: dict[str, int]) -> Planned:
    if job.kind is JobKind.GATE:
        return Planned(job, "", "a person decides")
    if workers is None:
        return Planned(job, "", "")
    able = [one for one in workers if not _obstacle(job, one)]
    if not able:
        reasons = dict.fromkeys(f"{_name(one)} {_obstacle(job, one)}" for one in workers)
        why = "; ".join(list(reasons)[:5]) or "none has joined"
        return Planned(job, "", f"waits for a worker: {why}")
    terms = job.needs.terms
    if terms is not None and terms.near:
        wish = "requires" if terms.required else "prefers"
        return Planned(job, "", f"beside {terms.near}, as its affinity {wish}")
    if job.affinity and job.dependencies:
        return Planned(job, "", f"where {job.dependencies[0]} ran, as its affinity prefers")
    used = {_name(one): one.worker.used + taken.get(_name(one), 0) for one in able}
    free = [
        one for one in able if one.worker.slots - used[_name(one)] >= job.needs.slots
    ]  # fmt: skip
    if not free:
        return Planned(job, "", f"waits for a slot: {len(able)} worker(s) could have it")
    best = min(free, key=lambda one: (used[_name(one)] / one.worker.slots, _name(one)))
    why = f"the least loaded of {len(able)} that could have it"
    if terms is not None and terms.worker:
        why = "the worker that it is for"
    elif len(able) == 1:
        why = "the only one that could have it"
    return Planned(job, _name(best), why)


def _obstacle(job: JobSpec, one: WorkerDetail) -> str:
    """What keeps the job from a worker, however little is on it; empty if nothing does."""
    worker, terms = one.worker, job.needs.terms
    lacking = [skill for skill in job.needs.skills if skill not in worker.skills]
    if lacking:
        return f"lacks {', '.join(lacking)}"
    if worker.state is not WorkerState.ONLINE or worker.link_down_ms:
        return "is not connected"
    if one.cordoned:
        return "is cordoned"
    if job.needs.slots > worker.slots:
        return f"has {worker.slots} slots"
    if terms is None:
        return ""
    if terms.worker and terms.worker not in (_name(one), worker.host, worker.worker_id):
        return "is not the one that it is for"
    for asked in terms.counted:
        room = one.resources.get(asked.name)
        if room is None and asked.name in ("cpu", "memory"):
            continue
        if asked.amount > (0 if room is None else room.total):
            return f"has not enough {asked.name}"
    return ""


def _name(one: WorkerDetail) -> str:
    return f"{one.worker.host}:{one.worker.port}"


def _json(one: Planned) -> dict[str, Any]:
    return {
        "job": one.job.id,
        "kind": one.job.kind.value,
        "dependencies": list(one.job.dependencies),
        "worker": one.worker or None,
        "why": one.why or None,
    }
