"""Why a job does not run, in words and numbers: one cause after the other, and worker by worker.

The same questions in the same order as ``placement`` asks them, and never an answer of its own: what is
placed is decided there. Looks at every worker, so it is for one job at a time. Reads, never writes. Called
by ``asking``, and by ``queries`` for the one line that a view has room for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import IntEnum
from itertools import islice
from typing import Final, NamedTuple

from titan_master.core import conditions, graph, sharing
from titan_master.core.presence import Roster
from titan_master.core.state import (
    Job,
    Run,
    State,
    WorkerInfo,
    fits,
    has_too_little,
    is_meant,
    short_of,
)
from titan_proto.messages import Cause, CauseKind, Explanation, WorkerReason
from titan_proto.specs import JobKind, JobSpec, Needs
from titan_proto.states import JobState, WorkerState

ITS_TURN: Final = "waits for its turn"
NAMED: Final = 10
"""So many jobs, or services, are named."""
WORKERS_TOLD: Final = 100
"""Of so many workers it is told what keeps the job from them: those nearest to having it first."""
NEEDS_LOOKED_AT: Final = 100
"""Of so many different needs of a run's jobs it is said at once that no worker has them."""
DEPTH: Final = 20
"""So far up it is looked what the job before it, in its turn, waits for."""


class _Stage(IntEnum):
    """How near a worker is to having the job: what is asked first, comes first."""

    MEANT = 0
    SKILLS = 1
    SIZE = 2
    AMOUNT = 3
    BESIDE = 4
    HERE = 5
    CORDONED = 6
    HOME = 7
    AVOIDED = 8
    LEFT = 9
    SLOTS = 10
    PORT = 11
    FREE = 12


_KINDS: Final = {
    _Stage.MEANT: CauseKind.PIN,
    _Stage.SKILLS: CauseKind.SKILLS,
    _Stage.SIZE: CauseKind.SLOTS,
    _Stage.AMOUNT: CauseKind.RESOURCES,
    _Stage.BESIDE: CauseKind.AFFINITY,
    _Stage.HERE: CauseKind.AWAY,
    _Stage.CORDONED: CauseKind.CORDONED,
    _Stage.HOME: CauseKind.AFFINITY,
    _Stage.AVOIDED: CauseKind.AVOIDED,
    _Stage.LEFT: CauseKind.RESOURCES,
    _Stage.SLOTS: CauseKind.SLOTS,
    _Stage.PORT: CauseKind.PORT,
    _Stage.FREE: CauseKind.TURN,
}

_Seen = tuple[_Stage, WorkerInfo, WorkerReason]


# -- the whole ------------------------------------------------------------------------------------
class Sight(NamedTuple):
    """All that is looked at."""

    state: State
    roster: Roster
    now_ms: int
    is_full: bool
    """The master's disk: nothing begins."""


def explain(sight: Sight, run: Run | None, job: Job, alias: str) -> Explanation:
    """Why a job does not run; of one that is on a worker, why there.

    Args:
        sight: what is known at the moment.
        run: the job's; None for a service that is placed on its own.
        job: it.
        alias: its run's.
    """
    causes = tuple(_causes(sight, run, job))
    known = [cause.until_ms for cause in causes]
    begins_ms = known[-1] if len(known) == 1 and job.state in _TIMED else 0
    return Explanation(
        run_id=job.run_id,
        run_alias=alias,
        job_id=job.spec.id,
        state=job.state,
        causes=causes,
        expected_at_ms=begins_ms,
        at_ms=sight.now_ms,
    )


_TIMED: Final = (JobState.SCHEDULED, JobState.BACKOFF)
"""States that end at a time that is known."""


def never_yet(state: State, jobs: Iterable[JobSpec]) -> Iterator[str]:
    """Of jobs that no worker that is known could ever have: which, and why; of each kind of needs once."""
    workers = list(state.workers.values())
    seen: set[Needs] = set()
    for job in jobs:
        needs = job.needs
        if needs in seen or job.kind is JobKind.GATE:
            continue
        if not workers or len(seen) >= NEEDS_LOOKED_AT:
            return
        seen.add(needs)
        lacking = _lacking(workers, needs)
        if lacking:
            yield f"nothing can run {job.id} yet: {lacking}. It waits until such a worker joins"


def _lacking(workers: list[WorkerInfo], needs: Needs) -> str:
    """What none of these workers has, in words; empty where one could have it when idle."""
    left = [worker for worker in workers if is_meant(worker, needs.terms)]
    if not left and needs.terms is not None:
        return f"it is for worker {needs.terms.worker}, which is none of the {len(workers)} known"
    left = [worker for worker in left if fits(needs.skills, worker.skills)]
    if not left:
        skills = " and ".join(needs.skills)
        return f"it needs {skills}, and none of the {len(workers)} known workers has that"
    left = [worker for worker in left if needs.slots <= worker.slots]
    if not left:
        return f"it needs {needs.slots} slots on one worker, and none has so many"
    short = [has_too_little(worker, needs.terms) for worker in left]
    if not all(short) or needs.terms is None:
        return ""
    name = short[0]
    needed = next((one.amount for one in needs.terms.counted if one.name == name), 0)
    most = max(worker.resources.get(name, 0) for worker in left)
    return f"it takes {_amount(name, needed)} {name}, and the most that a worker has is {_amount(name, most)}"


def why_queued(state: State, roster: Roster, job: Job) -> str:
    """Why a queued job is not placed, in one line."""
    return next(_queued(state, roster, job, is_full=False)).message


def _causes(sight: Sight, run: Run | None, job: Job) -> Iterator[Cause]:
    state = sight.state
    if job.state is JobState.QUEUED:
        yield from _queued(state, sight.roster, job, is_full=sight.is_full)
    elif job.state is JobState.BLOCKED and run is not None:
        yield _blocked(run, job)
        yield from _above(sight, run, job)
    elif job.state is JobState.SCHEDULED:
        yield Cause(
            kind=CauseKind.DELAY,
            message="waits for its time",
            until_ms=job.ready_at_ms,
        )
    elif job.state is JobState.BACKOFF:
        yield _backoff(job)
    elif job.state is JobState.WAITING and job.gate is not None:
        question = f": {job.question.message}" if job.question.message else ""
        yield Cause(
            kind=CauseKind.APPROVAL,
            message=f"waits for an approval{question}",
            since_ms=job.gate.opened_at_ms,
            until_ms=job.gate.expires_at_ms,
        )
    elif job.state in (JobState.PLACED, JobState.RUNNING):
        yield _placed(state, run, job)
    elif job.state is JobState.CANCELLING:
        on = f" on {job.attempt.worker}" if job.attempt is not None else ""
        yield Cause(kind=CauseKind.STOPPING, message=f"is being stopped{on}")
    else:
        yield Cause(
            kind=CauseKind.ENDED,
            message=f"has ended: {job.state}" + (f" ({job.message})" if job.message else ""),
            since_ms=job.ended_at_ms,
        )


# -- before it is queued ---------------------------------------------------------------------------
def _blocked(run: Run, job: Job) -> Cause:
    unmet = list(graph.unmet(run, job))
    if not unmet:
        text = "waits for the decision whether it runs, which comes with one of the next turns"
        return Cause(kind=CauseKind.DEPENDENCIES, message=text)
    names = [f"{parent.spec.id} ({parent.state})" for parent in unmet[:NAMED]]
    more = f" and {len(unmet) - NAMED} more" if len(unmet) > NAMED else ""
    return Cause(
        kind=CauseKind.DEPENDENCIES,
        message=f"waits for {', '.join(names)}{more}",
        jobs=tuple(parent.spec.id for parent in unmet[:NAMED]),
    )


def _above(sight: Sight, run: Run, job: Job) -> Iterator[Cause]:
    """What the first job that it waits for waits for itself, up to one that is on its way."""
    for _ in range(DEPTH):
        above = next(graph.unmet(run, job), None)
        if above is None:
            return
        if above.state is not JobState.BLOCKED:
            for cause in _causes(sight, run, above):
                told = f"{above.spec.id} {cause.message}"
                yield Cause(
                    kind=cause.kind,
                    message=told,
                    since_ms=cause.since_ms,
                    until_ms=cause.until_ms,
                    jobs=(above.spec.id,),
                    workers=cause.workers,
                )
            return
        job = above


def _backoff(job: Job) -> Cause:
    number, retries = job.number, job.spec.retries.limit
    left = f"try {job.failures + 1} of {retries + 1}" if retries else "its next try"
    what = "it is held back until what may still run of it is over"
    if job.failures:
        what = f"attempt {number} failed; {left} comes after a pause"
    return Cause(kind=CauseKind.BACKOFF, message=what, until_ms=job.ready_at_ms)


# -- queued ---------------------------------------------------------------------------------------
def _queued(state: State, roster: Roster, job: Job, *, is_full: bool) -> Iterator[Cause]:
    """What keeps it from being placed: all that would have to change, in the order of asking."""
    run = state.runs.get(job.run_id)
    told = False
    if is_full:
        text = "waits for room on the master's disk: nothing begins until there is some"
        yield Cause(kind=CauseKind.STORAGE, message=text)
        told = True
    if conditions.has_to_wait(state, run, job):
        text = "is exclusive, and waits for the end of what it takes the place of"
        yield Cause(kind=CauseKind.REPLACES, message=text)
        told = True
    for cause in _groups(state, job):
        yield cause
        told = True
    seen = sorted(
        (_look(state, roster, run, job, worker) for worker in state.workers.values()),
        key=lambda one: (-one[0], one[1].name),
    )
    if not told or not seen or seen[0][0] is not _Stage.FREE:
        yield _workers_cause(state, run, job, seen)


def _groups(state: State, job: Job) -> Iterator[Cause]:
    asked = job.spec.needs.terms
    if asked is None:
        return
    taken = state.groups.get(asked.group, 0)
    if asked.group and taken >= asked.limit:
        names = tuple(islice(_members(state, asked.group), NAMED))
        yield Cause(
            kind=CauseKind.GROUP,
            message=f"waits for its concurrency group {asked.group}: {taken} of {asked.limit} run: "
            f"{', '.join(names)}",
            jobs=names,
            group=asked.group,
            limit=asked.limit,
            taken=taken,
        )
    seats = state.seats.get(asked.run_group, {})
    is_in = job.run_id in seats or job.run_id not in state.runs
    if asked.run_group and not is_in and len(seats) >= asked.run_limit:
        names = tuple(state.runs[run_id].alias for run_id in islice(seats, NAMED))
        yield Cause(
            kind=CauseKind.GROUP,
            message=f"its run waits for its concurrency group {asked.run_group}: {len(seats)} of "
            f"{asked.run_limit} are under way: {', '.join(names)}",
            jobs=names,
            group=asked.run_group,
            limit=asked.run_limit,
            taken=len(seats),
        )


def _members(state: State, group: str) -> Iterator[str]:
    for worker in state.workers.values():
        for key in worker.held:
            job = state.find_job(*key)
            asked = None if job is None else job.spec.needs.terms
            if asked is not None and asked.group == group:
                yield _name(state, *key)


def _name(state: State, run_id: str, job_id: str) -> str:
    run = state.runs.get(run_id)
    service = state.services.get((run_id, job_id))
    alias = run.alias if run is not None else service.run_alias if service is not None else run_id
    return f"{alias}/{job_id}"


# -- worker by worker ------------------------------------------------------------------------------
def _look(state: State, roster: Roster, run: Run | None, job: Job, worker: WorkerInfo) -> _Seen:
    """The first thing that keeps this job from this worker."""
    needs, asked = job.spec.needs, job.spec.needs.terms

    def found(stage: _Stage, message: str, **numbers: int | str) -> _Seen:
        reason = WorkerReason(
            worker=worker.name,
            kind=_KINDS[stage],
            message=message,
            **numbers,  # type: ignore[arg-type]
        )
        return stage, worker, reason

    if not is_meant(worker, asked):
        return found(_Stage.MEANT, "is not the one that the job is for")
    lacking = [skill for skill in needs.skills if skill not in worker.skills]
    if lacking:
        return found(_Stage.SKILLS, f"lacks {', '.join(lacking)}")
    if needs.slots > worker.slots:
        return found(
            _Stage.SIZE,
            f"has {worker.slots} slots, and {needs.slots} are needed",
            wanted=needs.slots, free=worker.slots - worker.used, total=worker.slots,
        )  # fmt: skip
    short = has_too_little(worker, asked)
    if short:
        return found(_Stage.AMOUNT, _amounts(worker, job, short), **_numbers(worker, job, short))
    if asked is not None and asked.required and run is not None:
        near = conditions.near_to(state, run, job)
        if near is not None and near[1] is not worker:
            return found(_Stage.BESIDE, f"is not where {near[0].spec.id} was")
    away = _away(roster, worker)
    if away:
        return found(_Stage.HERE, away)
    if worker.cordoned:
        return found(_Stage.CORDONED, "is cordoned: it is given nothing new")
    is_own = state.instances.get((job.run_id, job.spec.id)) is job
    if not sharing.is_at_home(None if is_own else run, job, worker):
        return found(_Stage.HOME, "has not the files that jobs before it left ($TITAN_SHARED)")
    service = state.services.get((job.run_id, job.spec.id))
    if service is not None and worker.worker_id in service.avoid:
        return found(_Stage.AVOIDED, "is where it has failed")
    short = short_of(worker, asked)
    if short:
        return found(_Stage.LEFT, _amounts(worker, job, short), **_numbers(worker, job, short))
    free = worker.slots - worker.used
    if needs.slots and needs.slots > free:
        holders = ", ".join(_name(state, *key) for key in islice(worker.held, NAMED))
        return found(
            _Stage.SLOTS,
            f"{max(0, free)} of {worker.slots} slots are free, {needs.slots} needed; on it: {holders}",
            wanted=needs.slots, free=max(0, free), total=worker.slots,
        )  # fmt: skip
    section = job.spec.service
    holder = None if section is None or not section.port else conditions.holder_of(
        state, worker, section.port
    )  # fmt: skip
    if section is not None and holder is not None:
        return found(_Stage.PORT, f"port {section.port} is that of {_name(state, *holder)}")
    return found(_Stage.FREE, "can have it")


def _away(roster: Roster, worker: WorkerInfo) -> str:
    if worker.state is not WorkerState.ONLINE:
        return f"is {worker.state}"
    if roster.link_of(worker.worker_id) is None:
        return "has no link to this master at the moment"
    if roster.of(worker.worker_id).entry is None and not worker.cordoned:
        return "takes nothing new"
    return ""


def _wanted(job: Job, name: str) -> int:
    asked = job.spec.needs.terms
    every = () if asked is None else asked.counted
    return next((one.amount for one in every if one.name == name), 0)


def _numbers(worker: WorkerInfo, job: Job, name: str) -> dict[str, int | str]:
    total = worker.resources.get(name, 0)
    return {
        "resource": name,
        "wanted": _wanted(job, name),
        "free": max(0, total - worker.taken.get(name, 0)),
        "total": total,
    }


def _amounts(worker: WorkerInfo, job: Job, name: str) -> str:
    total = worker.resources.get(name, 0)
    free = max(0, total - worker.taken.get(name, 0))
    return f"{_amount(name, free)} of {_amount(name, total)} {name} are free, {_amount(name, _wanted(job, name))} needed"


def _amount(name: str, amount: int) -> str:
    """In the unit that people use: cores, MiB, pieces."""
    if name == "cpu":
        return f"{amount / 1000:g}"
    return f"{amount / 2**20:.0f} MiB" if name == "memory" else str(amount)


# -- what that comes to -----------------------------------------------------------------------------
def _workers_cause(state: State, run: Run | None, job: Job, seen: list[_Seen]) -> Cause:
    """The nearest that any worker comes to having the job, and what is missing there."""
    stage = seen[0][0] if seen else _Stage.SKILLS
    kind = _KINDS[stage]
    asked = job.spec.needs.terms
    pin = "" if asked is None else asked.worker
    if pin and stage in (_Stage.MEANT, _Stage.HERE):
        kind = CauseKind.PIN
    near = (
        None
        if run is None or asked is None or not asked.required
        else conditions.near_to(state, run, job)
    )
    if near is not None and stage is _Stage.HERE:
        kind = CauseKind.AFFINITY
    position, queued = _position(state, job)
    holders: tuple[str, ...] = ()
    if stage is _Stage.SLOTS:
        held = (key for at, worker, _ in seen if at is stage for key in worker.held)
        holders = tuple(_name(state, *key) for key in islice(held, NAMED))
    return Cause(
        kind=kind,
        message=_words(state, job, seen, stage, near),
        jobs=holders,
        workers=tuple(reason for _, _, reason in seen[:WORKERS_TOLD]),
        position=position,
        queued=queued,
    )


def _words(
    state: State,
    job: Job,
    seen: list[_Seen],
    stage: _Stage,
    near: tuple[Job, WorkerInfo | None] | None,
) -> str:
    needs, asked = job.spec.needs, job.spec.needs.terms
    wanted = ", ".join(state.queue.key(job).skills)
    at = [worker for one, worker, _ in seen if one is stage]
    reason = seen[0][2].message if seen else ""
    pin = "" if asked is None else asked.worker
    if not seen:
        return f"waits for worker {pin}: none has joined" if pin else (
            "waits for a worker: none has joined"
        )  # fmt: skip
    if stage is _Stage.MEANT:
        names = ", ".join(sorted(worker.name for worker in at)[:NAMED])
        return f"waits for worker {pin}: it is not here, and not known; there are {names}"
    if stage is _Stage.SKILLS:
        if pin:
            return f"waits for worker {pin} to have {wanted}: it {reason}"
        return f"waits for a worker with {wanted}: none of the {len(seen)} known has that"
    if stage is _Stage.SIZE:
        most = max(worker.slots for worker in at)
        return (
            f"waits for {needs.slots} free slots on one worker: {len(at)} with {wanted}, "
            f"the largest has {most}"
        )
    if stage is _Stage.BESIDE and near is not None:
        was = near[0].attempt
        place = was.worker if was is not None else "nowhere"
        if near[1] is None:
            return (
                f"has to be beside {near[0].spec.id}, which was on {place}: that worker is not known "
                "any more"
            )
        there = next((told for _, worker, told in seen if worker is near[1]), None)
        why = there.message if there is not None else "cannot have it"
        return f"has to be beside {near[0].spec.id}, on {place}, which {why}"
    if stage is _Stage.HERE:
        if near is not None:
            return f"has to be beside {near[0].spec.id}, on {at[0].name}, which {reason}"
        if pin:
            return f"waits for worker {pin}: {at[0].name} {reason}"
        return f"waits for a worker with {wanted}: {len(at)} known, none connected"
    if stage is _Stage.CORDONED:
        names = ", ".join(sorted(worker.name for worker in at)[:NAMED])
        return f"waits for a worker that is not cordoned: {names} could have it"
    if stage is _Stage.HOME:
        return (
            "waits for a worker in whose folder jobs before it have left files "
            f"($TITAN_SHARED): none of the {len(at)} connected with {wanted} has them"
        )
    if stage is _Stage.AVOIDED:
        return f"waits for another worker with {wanted}: it has failed on the {len(at)} connected"
    if stage in (_Stage.AMOUNT, _Stage.LEFT):
        resource = seen[0][2].resource
        needed = _amount(resource, seen[0][2].wanted)
        best = max(at, key=lambda one: one.resources.get(resource, 0))
        if stage is _Stage.AMOUNT:
            has = _amount(resource, best.resources.get(resource, 0))
            return f"waits for a worker with {needed} {resource}: the most that any of {len(at)} has is {has}"
        free = max(one.resources.get(resource, 0) - one.taken.get(resource, 0) for one in at)
        return (
            f"waits for {needed} {resource}: at most {_amount(resource, max(0, free))} are left on any "
            f"of {len(at)} worker(s)"
        )
    if stage is _Stage.SLOTS:
        if near is not None:
            return f"waits for a slot beside {near[0].spec.id}, on {at[0].name}: {reason}"
        if needs.slots > 1:
            most = max(worker.slots for worker in at)
            return (
                f"waits for {needs.slots} free slots on one worker: {len(at)} with {wanted}, "
                f"the largest has {most}"
            )
        total = sum(worker.slots for worker in at)
        return f"waits for a slot: all {total} of the {len(at)} worker(s) with {wanted} are taken"
    if stage is _Stage.PORT and job.spec.service is not None:
        return (
            f"waits for a worker with {wanted} where no other service has port "
            f"{job.spec.service.port}: {len(at)} connected"
        )
    return ITS_TURN


def _position(state: State, job: Job) -> tuple[int, int]:
    """Which of those it is that need the same: by priority, then by age; ageing is left out."""
    ready = state.queue.classes.get(state.queue.key(job))
    if ready is None:
        return 0, 0
    before = 0
    for priority in range(len(ready.lines) - 1, -1, -1):
        line = ready.lines[priority]
        if line is None:
            continue
        if priority > job.spec.priority:
            before += len(line.jobs) - line.dead
        elif priority == job.spec.priority:
            before += sum(
                one.state is JobState.QUEUED and one.queued_seq < job.queued_seq
                for one in line.jobs
            )
    return before + 1, ready.size


# -- on a worker ------------------------------------------------------------------------------------
def _placed(state: State, run: Run | None, job: Job) -> Cause:
    """Where it is, and what of its wishes that is."""
    attempt = job.attempt
    if attempt is None:
        return Cause(kind=CauseKind.PLACED, message="is placed")
    verb = "runs on" if job.state is JobState.RUNNING else "is being made ready on"
    why = _why_there(state, run, job, attempt.worker_id)
    return Cause(
        kind=CauseKind.PLACED,
        message=f"{verb} {attempt.worker}{why}",
        since_ms=attempt.started_at_ms or attempt.placed_at_ms,
    )


def _why_there(state: State, run: Run | None, job: Job, worker_id: str) -> str:
    asked = job.spec.needs.terms
    if asked is not None and asked.worker:
        return ", the worker that it is for"
    if run is None:
        return ""
    near = conditions.near_to(state, run, job)
    if near is not None and asked is not None:
        is_there = near[1] is not None and near[1].worker_id == worker_id
        wish = "requires" if asked.required else "prefers"
        if is_there:
            return f", beside {near[0].spec.id}, as its affinity {wish}"
        return f", not beside {near[0].spec.id}: there was no room for it there"
    if job.spec.affinity:
        for name in islice(dict.fromkeys(job.spec.dependencies), NAMED):
            was = run.jobs[name].attempt
            if was is not None and was.worker_id == worker_id:
                return f", where {name} ran, as its affinity prefers"
    if run.near and run.near == worker_id:
        return ", where the job runs that asked for it"
    return ", where the fewest of its run were" if asked is not None and asked.spread else ""
