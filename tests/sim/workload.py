"""What is asked of the cluster: graphs of jobs, and errands of clients about them.

Everything is drawn from the world's dice. Every feature that exists is drawn sometimes: what is not
in here is not simulated.
"""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from tests.sim import poison
from tests.sim.checkers import Auditor
from tests.sim.clients import Blurt, Call, Errand, HangUp, Pause, Stream, is_error
from tests.sim.processes import KILLS_ITS_WORKER
from tests.sim.world import Violation, World
from titan_proto.errors import ErrorCode
from titan_proto.messages import (
    AttemptList,
    CancelRun,
    CordonWorker,
    DecideGate,
    ExplainJob,
    Explanation,
    GateList,
    GateView,
    GetJob,
    GetRun,
    GetScaling,
    GetSchedule,
    GetStats,
    JobMilestone,
    JobView,
    ListAttempts,
    ListDead,
    ListGates,
    ListJobs,
    ListRuns,
    ListSchedules,
    ListServices,
    ListWorkers,
    PauseSchedule,
    PutSchedule,
    ReadLog,
    RemoveSchedule,
    RerunRun,
    RestartService,
    RunReceipt,
    RunView,
    ScaleService,
    Scaling,
    ScheduleList,
    ScheduleView,
    ServiceList,
    ShutdownOrdered,
    ShutDownWorker,
    SpawnOrdered,
    SpawnWorker,
    Stats,
    StopJob,
    StopService,
    SubmitRun,
    TriggerSchedule,
    WaitJob,
    WaitRun,
    WatchRun,
    WorkerList,
)
from titan_proto.specs import (
    Catchup,
    Counted,
    GateExpiry,
    GateSection,
    HealthCheck,
    HealthKind,
    JobKind,
    JobSpec,
    Launch,
    LaunchKind,
    Needs,
    Overlap,
    RestartPolicy,
    RestartWhen,
    RetryCause,
    RetryPolicy,
    RunSpec,
    ScheduleSpec,
    ServiceSection,
    Shape,
    Share,
    Terms,
    Trigger,
)
from titan_proto.states import (
    JOB_TERMINAL,
    RUN_TERMINAL,
    AttemptState,
    ExitReason,
    JobState,
    RunState,
    ServiceState,
)

SKILLS = ("GENERAL", "GPU")
RESOURCES = {"gpu": 2, "licence": 1, "cpu": 2_000}
"""What a machine has at most of what is counted; the first one has it."""
NAMES = ("nightly", "Nightly!", "etl", "a")
LAUNCH = Launch(kind=LaunchKind.SHELL, shell="true")
KEPT = replace(LAUNCH, share=Share.NODE)
POISON = Launch(kind=LaunchKind.SHELL, shell=KILLS_ITS_WORKER)
TIMEOUTS_MS = (1, 100, 1_000, 15_000)
IMPATIENT_MS = 300
LEFT_MS = 60_000
"""A gate whose time is no longer than this may be left to it."""
FIXED_PORT = 8000
"""Of every service that has one: they are in each other's way."""
FIRST_PORT = 8080
PARAMS = {"p": "1"}
SLOTS_MAX = 4
"""Of one worker."""
NOT_STARTED = frozenset(
    {
        JobState.BLOCKED,
        JobState.SCHEDULED,
        JobState.QUEUED,
        JobState.WAITING,
        JobState.PLACED,
    }
)


# -- graphs ---------------------------------------------------------------------------------------


def draw_run(world: World, jobs: int, skills: tuple[str, ...]) -> RunSpec:
    """A graph of so many jobs, in one of a few shapes."""
    shape = world.random.choice(("alone", "chain", "fan", "random", "random"))
    specs = tuple(_job(world, place, jobs, shape, skills) for place in range(jobs))
    specs = tuple(_placed(world, specs, job) for job in specs)
    if world.chance(12):
        specs = _one_of_few_runs(world, specs)
    named = tuple(_using_outputs(world, specs, job) for job in specs)
    shapes = {
        job.id: _shape(world, specs, job)
        for job in specs
        if job.launch != POISON and world.chance(35)
    }
    return RunSpec(name=world.random.choice(NAMES), jobs=named, shapes=shapes, params=PARAMS)


def _shape(world: World, specs: tuple[JobSpec, ...], job: JobSpec) -> Shape:
    """Which ends of its dependencies a job is to begin after, and on what condition."""
    triggers = [one for one in Trigger if one is not Trigger.UNKNOWN]
    trigger = world.random.choice(triggers) if job.dependencies else Trigger.ALL_SUCCEEDED
    cell = {"n": str(world.between(1, 2))} if world.chance(20) else {}
    when = _when(world, specs, job) if world.chance(50) else ""
    if cell and world.chance(50):
        when = f"matrix.n == {world.between(1, 2)}"
    if world.chance(15):
        when = f"params.p != {world.between(1, 2)}"
    return Shape(trigger=trigger, when=when, cell=cell, cell_of="all" if cell else "")


def _when(world: World, specs: tuple[JobSpec, ...], job: JobSpec) -> str:
    """A condition in one of a few forms, which the checkers read in their own way."""
    above = _above(specs, job)
    tasks = [one.id for one in above if one.kind is JobKind.TASK and one.launch != POISON]
    parts = [world.random.choice(("true", "true", "false"))]
    if above:
        state = world.random.choice(("SUCCEEDED", "FAILED", "SKIPPED"))
        parts.append(f"jobs.{world.random.choice(above).id}.state != '{state}'")
    if tasks:
        parts.append(f"'.1' in jobs.{world.random.choice(tasks)}.outputs.attempt")
    return f" {world.random.choice(('and', 'or'))} ".join(world.random.sample(parts, len(parts)))


def draw_nightly(world: World) -> RunSpec:
    """A small pipeline that brings a service up: perhaps after a task, perhaps before one."""
    soon_over = RestartPolicy(max=world.between(0, 2), within_ms=60_000)
    service = JobSpec(
        id="service",
        launch=LAUNCH,
        kind=JobKind.SERVICE,
        dependencies=("before",) if world.chance(60) else (),
        needs=Needs(slots=0 if world.chance(30) else 1),
        service=ServiceSection(port=FIXED_PORT, restart=soon_over)
        if world.chance(40)
        else ServiceSection(port_auto=True),
    )
    before = JobSpec(id="before", launch=LAUNCH)
    after = JobSpec(id="after", launch=LAUNCH, dependencies=("service",))
    jobs = (before, service) if service.dependencies else (service,)
    return RunSpec(name="every night", jobs=(*jobs, after) if world.chance(40) else jobs)


def _using_outputs(world: World, specs: tuple[JobSpec, ...], job: JobSpec) -> JobSpec:
    """Some jobs are told what jobs before them left, be they parents or not."""
    tasks = [
        other.id
        for other in _above(specs, job)
        if other.kind is JobKind.TASK and not _is_poison(other)
    ]
    if not tasks or job.kind is JobKind.GATE or _is_poison(job) or not world.chance(40):
        return job
    used = [f"${{{{ jobs.{world.random.choice(tasks)}.outputs.attempt }}}}" for _ in range(3)]
    launch = replace(
        job.launch,
        shell=f'true "{used[0]}"' if world.chance(50) else LAUNCH.shell,
        args=(f"--after={used[1]}",),
        env={"AFTER": used[2]} if world.chance(50) else {},
    )
    return replace(job, launch=launch)


def _is_poison(job: JobSpec) -> bool:
    return job.launch.shell == POISON.shell


def _above(specs: tuple[JobSpec, ...], job: JobSpec) -> list[JobSpec]:
    """All jobs that come before this one, in their order."""
    above = set(job.dependencies)
    for other in reversed(specs):
        if other.id in above:
            above.update(other.dependencies)
    return [other for other in specs if other.id in above]


def _job(world: World, place: int, jobs: int, shape: str, skills: tuple[str, ...]) -> JobSpec:
    if world.chance(8):
        return _gate(world, place, jobs, shape)
    service = world.chance(8)
    once = not service and world.chance(6)
    return JobSpec(
        id=f"j{place}",
        launch=_launch(world),
        kind=JobKind.SERVICE if service else JobKind.TASK,
        dependencies=_parents(world, place, jobs, shape),
        needs=Needs(
            skills=(world.random.choice(skills),) if world.chance(55) else ("GENERAL",),
            slots=0 if world.chance(40 if service else 4) else 1,
            terms=_terms(world),
        ),
        priority=world.random.choice((0, 5, 5, 5, 10)),
        delay_ms=world.between(1, 8_000) if world.chance(12) else 0,
        affinity=world.chance(25),
        stop_grace_ms=world.random.choice((0, 200, 2_000)),
        service=_service(world) if service else None,
        retries=RetryPolicy(after_loss=not once) if service or once else _retries(world),
        job_timeout_ms=world.between(500, 40_000) if not service and world.chance(10) else 0,
        timeout_ms=world.random.choice(TIMEOUTS_MS) if not service and world.chance(15) else 0,
        exclusive=once or world.chance(18),
    )


def draw_resources(world: World, *, all_of_it: bool) -> dict[str, int]:
    """What a machine has of what is counted."""
    if all_of_it:
        return dict(RESOURCES)
    chosen = (name for name in RESOURCES if world.chance(60))
    return {name: world.between(0, RESOURCES[name]) for name in chosen}


def _terms(world: World) -> Terms | None:
    """Some take of what is counted: never more than the first machine has."""
    if not world.chance(15):
        return None
    names = world.random.sample(sorted(RESOURCES), world.between(1, 2))
    return Terms(
        counted=tuple(
            Counted(name=name, amount=world.between(1, RESOURCES[name])) for name in names
        )
    )


def _launch(world: World) -> Launch:
    launch = POISON if world.chance(0.7) else KEPT if world.chance(15) else LAUNCH
    at_ms = _moment(world)
    return replace(launch, at_ms=at_ms) if at_ms else launch


def _moment(world: World) -> int:
    """Mostly none; else one that may have passed when the job is ready."""
    return world.now_ms + world.between(-5_000, 30_000) if world.chance(8) else 0


def _placed(world: World, specs: tuple[JobSpec, ...], job: JobSpec) -> JobSpec:
    """Some have a wish where they are placed, or a condition."""
    if job.kind is JobKind.GATE or not world.chance(25):
        return job
    above = [other.id for other in _above(specs, job) if other.kind is not JobKind.GATE]
    wishes: list[dict[str, Any]] = [
        {"spread": True},
        {"group": world.random.choice(("db", "disk")), "limit": world.between(1, 3)},
        # The first machine has everything, and is there in the end.
        {"worker": world.random.choice((f"sim0:{FIRST_PORT}", "sim0"))},
    ]
    if above:
        wishes += [{"near": world.random.choice(above), "required": world.chance(50)}] * 3
    wish = world.random.choice(wishes)
    if wish.get("required"):
        # What it takes is there, because the other one was: it asks for no more.
        needs = replace(job.needs, skills=("GENERAL",), terms=Terms(**wish))
        return replace(job, needs=needs)
    return replace(job, needs=replace(job.needs, terms=replace(job.needs.terms or Terms(), **wish)))


def _one_of_few_runs(world: World, specs: tuple[JobSpec, ...]) -> tuple[JobSpec, ...]:
    limit = world.between(1, 2)
    return tuple(
        job
        if job.kind is JobKind.GATE
        else replace(
            job,
            needs=replace(
                job.needs,
                terms=replace(job.needs.terms or Terms(), run_group="etl", run_limit=limit),
            ),
        )
        for job in specs
    )


def _retries(world: World) -> RetryPolicy:
    if world.chance(60):
        return RetryPolicy()
    causes = tuple(cause for cause in RetryCause if cause is not RetryCause.UNKNOWN)
    return RetryPolicy(
        limit=world.between(1, 3),
        delay_ms=world.random.choice((0, 100, 2_000)),
        backoff_percent=world.random.choice((100, 150, 300)),
        max_delay_ms=world.random.choice((3_000, 20_000)),
        jitter=world.chance(70),
        causes=causes if world.chance(70) else (world.random.choice(causes),),
        not_exit_codes=tuple(range(1, 100)) if world.chance(20) else (),
    )


def _gate(world: World, place: int, jobs: int, shape: str) -> JobSpec:
    choose = world.random.choice
    return JobSpec(
        id=f"j{place}",
        launch=Launch(at_ms=_moment(world)),
        kind=JobKind.GATE,
        dependencies=_parents(world, place, jobs, shape),
        delay_ms=world.between(1, 8_000) if world.chance(25) else 0,
        gate=GateSection(
            message=choose(("", "Ship it?")),
            timeout_ms=choose((0, 4_000, 15_000, 60_000)),
            on_timeout=choose((GateExpiry.REJECT, GateExpiry.APPROVE, GateExpiry.FAIL)),
        )
        if world.chance(90)
        else None,
    )


def _service(world: World) -> ServiceSection:
    restart = RestartPolicy(
        when=world.random.choice(
            (RestartWhen.ALWAYS, RestartWhen.ALWAYS, RestartWhen.ON_FAILURE, RestartWhen.NEVER)
        ),
        max=world.between(0, 4),
        within_ms=world.between(60_000, 600_000),
        delay_ms=world.between(0, 3_000),
    )
    health = HealthCheck(
        kind=world.random.choice((HealthKind.TCP, HealthKind.HTTP, HealthKind.COMMAND)),
        interval_ms=world.between(200, 2_000),
        retries=world.between(1, 4),
        start_period_ms=world.random.choice((0, 3_000)),
    )
    checked = health if world.chance(60) else None
    replicas = world.between(2, 3) if world.chance(25) else 1
    return world.random.choice(
        (
            ServiceSection(restart=restart, health=checked, replicas=replicas),
            ServiceSection(port=FIXED_PORT, restart=restart, health=checked),
            ServiceSection(port_auto=True, restart=restart, health=checked, replicas=replicas),
        )
    )


def _parents(world: World, place: int, jobs: int, shape: str) -> tuple[str, ...]:
    if place == 0 or shape == "alone":
        return ()
    if shape == "chain":
        return (f"j{place - 1}",)
    if shape == "fan":
        if place < jobs - 1:
            return ("j0",)
        return tuple(f"j{parent}" for parent in range(max(1, jobs - 4), place)) or ("j0",)
    count = min(place, world.between(0, 3))
    return tuple(f"j{parent}" for parent in sorted(world.random.sample(range(place), count)))


# -- errands --------------------------------------------------------------------------------------


def is_refused_for_now(answer: Any) -> bool:
    """Too much is under way, or the master's disk is full: it is worth asking again."""
    return is_error(answer, ErrorCode.LIMIT_EXCEEDED) or is_error(answer, ErrorCode.STORAGE_FULL)


def submit(world: World, auditor: Auditor, spec: RunSpec, key: str) -> Errand:
    """Submit until there is a receipt, then stay until the run's end is known."""
    living = auditor.living()
    parent = world.random.choice(living) if living and world.chance(50) else None
    request = SubmitRun(key=key, spec=spec, parent=parent)
    receipt: Any = None
    if world.chance(20):
        # The master may get it; nobody will ever get the answer.
        yield Blurt(request)
    while not isinstance(receipt, RunReceipt):
        impatient = world.chance(25)
        receipt = yield Call(request, give_up_ms=IMPATIENT_MS if impatient else 0)
        if receipt is None and world.chance(50):
            # A client that is killed and started again knows its key and nothing else.
            yield HangUp()
        elif is_refused_for_now(receipt):
            yield Pause(world.between(1_000, 5_000))
        elif is_error(receipt):
            raise Violation(f"a valid submission was refused: {receipt}")
    auditor.received(key, receipt)
    if world.chance(20):
        again = yield Call(request)
        auditor.received(key, again)
        if not again.known:
            raise Violation(f"key {key} was accepted as news for the second time")
    if world.chance(10):
        other = RunSpec(name=f"{spec.name}-other", jobs=spec.jobs)
        refusal = yield Call(SubmitRun(key=key, spec=other))
        if not is_error(refusal, ErrorCode.CONFLICT):
            raise Violation(f"key {key} was taken for two runs: {refusal}")
    if world.chance(35):
        yield from _watch(auditor, receipt)
    yield from _await_end(world, auditor, receipt, spec)
    if world.chance(30):
        again = yield Call(request)
        auditor.received(key, again)
    if world.chance(25):
        yield from _run_again(world, auditor, receipt, spec, key)


def _run_again(
    world: World, auditor: Auditor, receipt: RunReceipt, spec: RunSpec, key: str
) -> Errand:
    """An ended run once more: whole, only what failed, or from one job on."""
    request = RerunRun(
        key=f"{key}-again",
        run=receipt.run_id if world.chance(70) else receipt.alias,
        failed=world.chance(50),
        from_job=world.random.choice(spec.jobs).id if world.chance(40) else "",
    )
    answer: Any = None
    while not isinstance(answer, RunReceipt):
        answer = yield Call(request, give_up_ms=IMPATIENT_MS if world.chance(25) else 0)
        if is_refused_for_now(answer):
            yield Pause(world.between(1_000, 5_000))
        elif is_error(answer, ErrorCode.CONFLICT) and request.failed and not request.from_job:
            ends = [job.end for job in auditor.runs[receipt.run_id].jobs.values()]
            if set(ends) & {JobState.FAILED, JobState.CANCELLED}:
                raise Violation(f"{receipt.alias} cannot run again though it failed: {answer}")
            return
        elif is_error(answer):
            raise Violation(f"{receipt.alias} cannot run again: {answer}")
    auditor.received(request.key, answer)
    if auditor.runs[answer.run_id].rerun_of != receipt.run_id:
        raise Violation(f"{answer} repeats {auditor.runs[answer.run_id].rerun_of}, not {receipt}")
    yield from _await_end(world, auditor, answer, spec)
    # Once, or the seed would not come to rest in the time that it has for that.
    if answer.alias.endswith("-2") and world.chance(40):
        yield from _run_again(world, auditor, answer, spec, request.key)


def rival(world: World, auditor: Auditor, spec: RunSpec, key: str) -> Errand:
    """A second try of the same submission, while the first may still be under way."""
    receipt: Any = None
    while not isinstance(receipt, RunReceipt):
        receipt = yield Call(SubmitRun(key=key, spec=spec))
        if is_refused_for_now(receipt):
            yield Pause(world.between(1_000, 5_000))
        elif is_error(receipt):
            raise Violation(f"a valid submission was refused: {receipt}")
    auditor.received(key, receipt)


def _watch(auditor: Auditor, receipt: RunReceipt) -> Errand:
    changes = yield Stream(WatchRun(run=receipt.run_id))
    if not isinstance(changes, list):
        raise Violation(f"watching {receipt.run_id} came to {changes}")
    for change in changes:
        auditor.watched(change)
    ended = {change.job_id for change in changes if change.state in JOB_TERMINAL}
    if ended != set(auditor.runs[receipt.run_id].jobs):
        raise Violation(f"the stream of {receipt.run_id} told the ends of {sorted(ended)} only")
    if not changes or changes[-1].run_state not in RUN_TERMINAL:
        raise Violation(f"the stream of {receipt.run_id} ended before its run: {changes[-1:]}")


def _await_end(world: World, auditor: Auditor, receipt: RunReceipt, spec: RunSpec) -> Errand:
    view: Any = None
    while not isinstance(view, RunView):
        name = receipt.run_id if world.chance(70) else receipt.alias
        patience_ms = world.between(200, 5_000) if world.chance(30) else 0
        view = yield Call(WaitRun(run=name), give_up_ms=patience_ms)
        if is_error(view):
            raise Violation(f"waiting for {name}, which was acknowledged, came to {view}")
    if view.state not in RUN_TERMINAL:
        raise Violation(f"waiting for {receipt.run_id} ended with {view}")
    auditor.told(view)
    job = yield Call(GetJob(run=receipt.run_id, job=world.random.choice(spec.jobs).id))
    if not isinstance(job, JobView) or job.state not in JOB_TERMINAL:
        raise Violation(f"a job of ended run {receipt.run_id} is {job}")
    auditor.told_job(job)


def cancel(world: World, auditor: Auditor, key: str) -> Errand:
    """Cancel a run once somebody knows it; twice is once."""
    while key not in auditor.receipts:
        yield Pause(500)
    yield Pause(world.between(0, 12_000))
    run_id = auditor.receipts[key]
    if world.chance(40):
        yield from _stop_a_job(world, auditor, run_id)
    for _ in range(world.between(0, 2)):
        view = yield Call(CancelRun(run=run_id))
        if isinstance(view, RunView):
            auditor.told(view)
        elif not is_error(view, ErrorCode.ALREADY_DONE):
            raise Violation(f"cancelling {run_id} came to {view}")


def _stop_a_job(world: World, auditor: Auditor, run_id: str) -> Errand:
    job_id = world.random.choice(list(auditor.runs[run_id].jobs))
    auditor.stop_asked(run_id, job_id)
    view = yield Call(StopJob(run=run_id, job=job_id))
    if isinstance(view, JobView):
        auditor.told_job(view)
    elif not is_error(view, ErrorCode.ALREADY_DONE):
        raise Violation(f"stopping {run_id}/{job_id} came to {view}")


def _shut_down_a_worker(world: World, worker: str = "") -> Errand:
    """Somebody needs the machine; now and then in a hurry, and not always one that is there."""
    drain_ms = world.random.choice((None, None, 0, 3_000))
    request = ShutDownWorker(
        worker=worker or str(FIRST_PORT + world.between(0, 4)), drain_ms=drain_ms
    )
    answer = yield Call(request)
    refusals = (ErrorCode.NOT_FOUND, ErrorCode.CONFLICT)
    refused = any(is_error(answer, code) for code in refusals)
    if not refused and not isinstance(answer, ShutdownOrdered):
        raise Violation(f"telling a worker to leave came to {answer}")


def _cordon_a_worker(world: World) -> Errand:
    """Somebody wants to look at the machine; `_uncordon_all` is when that is done."""
    request = CordonWorker(worker=str(FIRST_PORT + world.between(0, 4)), drain=world.chance(40))
    answer = yield Call(request)
    refusals = (ErrorCode.NOT_FOUND, ErrorCode.CONFLICT)
    if any(is_error(answer, code) for code in refusals):
        return
    if not isinstance(answer, WorkerList) or not answer.workers[0].cordoned:
        raise Violation(f"{request} came to {answer}")


def _uncordon_all() -> Errand:
    """In the end nobody may be left out."""
    listed = yield Call(ListWorkers())
    if not isinstance(listed, WorkerList):
        raise Violation(f"a list of workers came to {listed}")
    for one in listed.workers:
        if one.cordoned:
            yield Call(CordonWorker(worker=one.worker.worker_id, cordoned=False))


def _spawn_a_worker(world: World) -> Errand:
    """A person wants one more, under a port that may be taken."""
    parent = "" if world.chance(60) else str(FIRST_PORT + world.between(0, 4))
    answer = yield Call(
        SpawnWorker(
            port=FIRST_PORT + world.between(8, 14), parent=parent, slots=world.between(0, 2)
        )
    )
    refusals = (ErrorCode.NOT_FOUND, ErrorCode.CONFLICT, ErrorCode.LIMIT_EXCEEDED)
    refused = any(is_error(answer, code) for code in refusals)
    if not refused and not isinstance(answer, SpawnOrdered):
        raise Violation(f"asking for a worker came to {answer}")


def _check_scaling(scaling: Any) -> None:
    if not isinstance(scaling, Scaling):
        raise Violation(f"what was spawned came to {scaling}")
    if len(scaling.asked) > scaling.total:
        raise Violation(f"more than {scaling.total} workers are asked for: {scaling}")


def look(world: World, auditor: Auditor, rounds: int) -> Errand:
    """Ask about this and that, as a dashboard or a curious person would."""
    for _ in range(rounds):
        yield Pause(world.between(100, 4_000))
        run_ids = list(auditor.runs)
        run = world.random.choice(run_ids) if run_ids else "none"
        job = f"j{world.between(0, 6)}"
        question = world.between(0, 10)
        if question == 0:
            _check_stats((yield Call(GetStats())))
        elif question == 1:
            yield from _list_runs(world, auditor)
        elif question == 2:
            yield from _list_jobs(world, auditor, run)
        elif question == 3:
            view = yield Call(GetJob(run=run if world.chance(50) else "", job=job))
            if isinstance(view, JobView):
                auditor.told_job(view)
            _check_attempts((yield Call(ListAttempts(run=run, job=job))), auditor)
        elif question == 4:
            answer = yield Call(GetRun(run=_selector(world, auditor, run)))
            if isinstance(answer, RunView):
                auditor.told(answer)
        elif question == 5:
            until = world.random.choice((JobMilestone.STARTED, JobMilestone.ENDED))
            view = yield Call(WaitJob(run=run, job=job, until=until), give_up_ms=3_000)
            if isinstance(view, JobView):
                auditor.told_job(view)
                if view.state in NOT_STARTED or (until is JobMilestone.ENDED) > (
                    view.state in JOB_TERMINAL
                ):
                    raise Violation(f"waiting until {until} ended with {view}")
        elif question == 6:
            yield Stream(ReadLog(run=run, job=job, follow=world.chance(50)))
        elif question == 7:
            yield Call(WatchRun(run=run), give_up_ms=1_000)
        elif question == 8:
            yield from _list_dead(world, auditor)
        elif question == 10 and world.chance(25):
            yield from _shut_down_a_worker(world)
        elif question == 10 and world.chance(50):
            yield from _cordon_a_worker(world)
        elif question == 10 and world.chance(30):
            yield from _spawn_a_worker(world)
        elif question == 10:
            _check_scaling((yield Call(GetScaling())))
        elif question == 9:
            yield Call(StopService(service=f"nobody/{job}"))
            refusal = yield Call(DecideGate(gate=f"nobody/{job}", approve=True))
            if not is_error(refusal, ErrorCode.NOT_FOUND):
                raise Violation(f"a gate of no run was decided: {refusal}")
        else:
            yield Call(ListServices())
        yield from _explain(auditor, run, job)


def _explain(auditor: Auditor, run: str, job: str) -> Errand:
    """Whatever is live has a reason for what it does."""
    book = auditor.runs.get(run)
    was_live = book is not None and job in book.jobs and book.state is RunState.ACTIVE
    answer = yield Call(ExplainJob(run=run, job=job))
    if isinstance(answer, Explanation):
        if not answer.causes or not all(cause.message for cause in answer.causes):
            raise Violation(f"{run}/{job} is explained by {answer}")
        return
    is_live = was_live and book is not None and book.state is RunState.ACTIVE
    if answer is not None and (is_live or not is_error(answer, ErrorCode.NOT_FOUND)):
        raise Violation(f"asking why {run}/{job} does not run came to {answer}")


def _check_attempts(answer: Any, auditor: Auditor) -> None:
    """Every try that there was is told, once, in their order; all but the last have ended."""
    if not isinstance(answer, AttemptList):
        if not is_error(answer, ErrorCode.NOT_FOUND):
            raise Violation(f"the attempts of a job came to {answer}")
        return
    auditor.told_job(answer.job)
    numbers = [one.number for one in answer.attempts]
    if numbers != list(range(1, answer.job.attempt + 1)):
        raise Violation(f"attempts {numbers} are told of {answer.job}")
    if any(one.state is not AttemptState.ENDED for one in answer.attempts[:-1]):
        raise Violation(f"an attempt before the newest is told as going on: {answer}")


def _selector(world: World, auditor: Auditor, run: str) -> str:
    book = auditor.runs.get(run)
    if book is None or world.chance(20):
        return "@last"
    name = world.random.choice((run, book.alias))
    return name if world.chance(60) else name[: world.between(1, len(name))]


def _check_stats(stats: Any) -> None:
    if not isinstance(stats, Stats):
        raise Violation(f"stats came to {stats}")
    for worker in stats.workers:
        # One that came back with fewer slots than before still has what its last process held.
        if not 0 <= worker.used <= SLOTS_MAX:
            raise Violation(f"{worker.used} of {worker.slots} slots are used: {worker}")


def _list_runs(world: World, auditor: Auditor) -> Errand:
    """Page through all runs: none that stays what it is may be missing."""
    cursor = ""
    ended = world.chance(60)
    before = {run_id: book.state for run_id, book in auditor.runs.items()}
    listed: dict[str, None] = {}
    while True:
        page = yield Call(ListRuns(ended=ended, cursor=cursor, limit=world.between(1, 5)))
        if is_error(page):
            raise Violation(f"a list of runs came to {page}")
        for view in page.runs:
            auditor.told(view)
            listed[view.run_id] = None
        cursor = page.cursor
        if not cursor:
            break
    for run_id, state in before.items():
        same = auditor.runs[run_id].state is state
        if same and (ended or state is RunState.ACTIVE) and run_id not in listed:
            raise Violation(f"run {run_id}, {state}, is in no page of the list")


def _list_dead(world: World, auditor: Auditor) -> Errand:
    """Page through what failed for good: all that had failed before is there."""
    before = [
        (run_id, job_id)
        for run_id, book in auditor.runs.items()
        for job_id, job in book.jobs.items()
        if job.end is JobState.FAILED and not job.is_gate
    ]
    cursor = ""
    listed: dict[tuple[str, str], None] = {}
    while True:
        page = yield Call(ListDead(cursor=cursor, limit=world.between(1, 12)))
        if is_error(page):
            raise Violation(f"the list of dead jobs came to {page}")
        for view in page.jobs:
            auditor.told_job(view)
            # Of a gate, only that its condition cannot be decided is nobody's decision.
            is_decided = view.kind is JobKind.GATE and view.reason is not ExitReason.BAD_WHEN
            if view.state is not JobState.FAILED or is_decided:
                raise Violation(f"{view} is listed as dead")
            listed[view.run_id, view.job_id] = None
        cursor = page.cursor
        if not cursor:
            break
    missing = [name for name in before if name not in listed]
    if missing:
        raise Violation(f"{missing[:3]} failed and are in no page of the list")


def _list_jobs(world: World, auditor: Auditor, run: str) -> Errand:
    """Page through a run's jobs: all of them, in order, each as the journal has it."""
    cursor = ""
    listed: list[str] = []
    while True:
        page = yield Call(ListJobs(run=run, cursor=cursor, limit=world.between(1, 12)))
        if is_error(page, ErrorCode.NOT_FOUND) and run not in auditor.runs:
            return
        if is_error(page):
            raise Violation(f"the jobs of {run} came to {page}")
        for view in page.jobs:
            auditor.told_job(view)
            listed.append(view.job_id)
        cursor = page.cursor
        if not cursor:
            break
    if listed != list(auditor.runs[run].jobs):
        raise Violation(f"the jobs of {run} are listed as {listed}")


def keep_house(world: World, is_over: Any) -> Errand:
    """Stop services after a while, or they would hold their slots for ever."""
    changes = 12
    while not is_over():
        yield Pause(world.between(4_000, 12_000))
        yield from _uncordon_all()
        answer = yield Call(ListServices())
        if not isinstance(answer, ServiceList):
            raise Violation(f"a list of services came to {answer}")
        for service in answer.services:
            if service.state is ServiceState.STOPPING:
                continue
            names = (
                service.name,
                f"{service.run_alias}/{service.job_id}",
                f"{service.run_id}/{service.job_id}",
                service.job_id,
            )
            name = world.random.choice(names)
            changes -= 1
            if service.state is ServiceState.UNHEALTHY and world.chance(80):
                yield Call(RestartService(service=name))
                if service.worker and world.chance(30):
                    yield from _shut_down_a_worker(world, service.worker)  # perhaps it is that
            elif changes > 0 and world.chance(30):
                yield Call(ScaleService(service=name, replicas=world.between(0, 3)))
            elif changes > 0 and world.chance(60 if service.port == FIXED_PORT else 30):
                yield Call(RestartService(service=name))
            else:
                yield Call(StopService(service=name))


def poisoned(world: World, jobs: int) -> Errand:
    """Submit what breaks the master, until it is refused; and again, to hear the same."""
    spec = RunSpec(
        name=poison.NAME, jobs=tuple(JobSpec(id=f"j{n}", launch=LAUNCH) for n in range(jobs))
    )
    for _ in range(2):
        answer = yield Call(SubmitRun(key=poison.NAME, spec=spec))
        if not is_error(answer, ErrorCode.INTERNAL):
            raise Violation(f"what broke the master came to {answer}")
        yield Pause(world.between(0, 3_000))


def poisoned_schedule(world: World, jobs: int) -> Errand:
    """Put a schedule whose run breaks the master: it does so once, and is found paused then."""
    name = f"{poison.NAME}-{jobs}"
    spec = ScheduleSpec(crons=("@every 2s",), catchup=Catchup.ALL, end_ms=world.now_ms + 120_000)
    run = RunSpec(
        name=poison.NAME, jobs=tuple(JobSpec(id=f"j{n}", launch=LAUNCH) for n in range(jobs))
    )
    put = PutSchedule(name=name, spec=spec, run=run)
    answer = yield Call(put)
    while is_refused_for_now(answer):
        yield Pause(world.between(1_000, 5_000))
        answer = yield Call(put)
    # It may have done its work already by the time at which this is asked for again.
    if not isinstance(answer, ScheduleView) and not is_error(answer, ErrorCode.INTERNAL):
        raise Violation(f"a schedule came to {answer}")
    if world.chance(30):
        yield Call(TriggerSchedule(key=name, schedule=name))
    for _ in range(30):
        view = yield Call(GetSchedule(schedule=name))
        if isinstance(view, ScheduleView) and view.paused_at_ms:
            again: tuple[Any, ...] = (
                put,
                TriggerSchedule(key=name, schedule=name),
                PauseSchedule(schedule=name, resume=True),
            )
            for request in again:
                answer = yield Call(request)
                if not is_error(answer, ErrorCode.INTERNAL):
                    raise Violation(f"{request} of what broke the master came to {answer}")
            break
        yield Pause(world.between(1_000, 3_000))
    yield Call(RemoveSchedule(schedule=name))


def keep_gates(world: World, auditor: Auditor, is_over: Any) -> Errand:
    """Decide about gates, most of them well; some are left to their time, where they have one."""
    left: set[tuple[str, str]] = set()
    while not is_over():
        yield Pause(world.between(1_000, 6_000))
        cursor = ""
        views: list[GateView] = []
        while True:
            page = yield Call(ListGates(cursor=cursor, limit=world.between(1, 4)))
            if not isinstance(page, GateList):
                raise Violation(f"a list of gates came to {page}")
            views += page.gates
            cursor = page.cursor
            if not cursor:
                break
        for view in views:
            auditor.told_gate(view)
            if 0 < view.expires_at_ms - view.opened_at_ms <= LEFT_MS and world.chance(40):
                left.add((view.run_id, view.job_id))
            if (view.run_id, view.job_id) not in left:
                yield from _decide(world, auditor, view)


def _decide(world: World, auditor: Auditor, view: GateView) -> Errand:
    approve = world.chance(75)
    name = world.random.choice(
        (
            f"{view.run_id}/{view.job_id}",
            f"{view.run_alias}/{view.job_id}",
            view.job_id,
        )
    )
    exact = f"{view.run_id}/{view.job_id}"
    for gate in (name, exact, exact)[: world.between(1, 3)]:
        auditor.wished(gate.rpartition("/")[2], approve)
        answer = yield Call(DecideGate(gate=gate, approve=approve, comment="so be it"))
        if isinstance(answer, GateView):
            auditor.told_gate(answer)
            auditor.check(
                (answer.state is JobState.SUCCEEDED) == approve,
                f"approve={approve} was answered with {answer}",
            )
        elif not is_error(answer, ErrorCode.CONFLICT) and not (
            # By its bare id a gate that was cancelled is not found any more.
            gate == view.job_id and is_error(answer, ErrorCode.NOT_FOUND)
        ):
            raise Violation(f"deciding about {gate} came to {answer}")
    if world.chance(30):
        # What is decided stays; and of a gate that was not, this is the first decision.
        auditor.wished(view.job_id, not approve)
        answer = yield Call(DecideGate(gate=exact, approve=not approve))
        if isinstance(answer, GateView):
            auditor.told_gate(answer)
        elif not is_error(answer, ErrorCode.CONFLICT):
            raise Violation(f"deciding otherwise about {exact} came to {answer}")


def draw_schedule(world: World) -> ScheduleSpec:
    """Often enough to come a few times in a seed, and never to the end of days."""
    choose = world.random.choice
    crons = (choose(("@every 3s", "@every 7s", "@every 20s", "* * * * *", "*/2 * * * *")),)
    return ScheduleSpec(
        crons=(*crons, "@every 11s") if world.chance(20) else crons,
        overlap=choose((Overlap.SKIP, Overlap.QUEUE, Overlap.ALLOW, Overlap.REPLACE)),
        catchup=choose((Catchup.NONE, Catchup.LATEST, Catchup.ALL)),
        catchup_window_ms=choose((15_000, 60_000, 3_600_000)),
        jitter_ms=world.between(1, 9_000) if world.chance(25) else 0,
        start_ms=world.now_ms + world.between(-9_000, 9_000) if world.chance(25) else 0,
        # A put that arrives after its schedule was removed brings it back: it must not stay for ever.
        end_ms=world.now_ms + world.between(20_000, 70_000),
        pause_on_failure=world.chance(40),
    )


def keep_schedule(world: World, auditor: Auditor, name: str) -> Errand:
    """Put a schedule, change one's mind about it a few times, take it away."""
    yield from _put_schedule(world, name)
    for _ in range(world.between(2, 7)):
        yield Pause(world.between(500, 12_000))
        what = world.random.choice(("put", "pause", "resume", "resume", "trigger", "look", "look"))
        if what == "put":
            yield from _put_schedule(world, name)
        elif what == "trigger":
            key = f"{name} {world.step}"
            auditor.triggered.add(key)
            yield Call(TriggerSchedule(key=key, schedule=name))
        elif what == "look":
            yield from _look_at_schedules(name)
        else:
            resume = what == "resume"
            yield Call(PauseSchedule(schedule=name, resume=resume, why="because"))
    yield Call(RemoveSchedule(schedule=name))


def _put_schedule(world: World, name: str) -> Errand:
    jobs = tuple(
        JobSpec(id=f"j{place}", launch=LAUNCH, dependencies=(f"j{place - 1}",) if place else ())
        for place in range(world.between(1, 2))
    )
    spec = draw_schedule(world)
    run = RunSpec(name=world.random.choice(NAMES), jobs=jobs)
    answer: Any = None
    while not isinstance(answer, ScheduleView):
        answer = yield Call(PutSchedule(name=name, spec=spec, run=run))
        if is_refused_for_now(answer):
            yield Pause(world.between(1_000, 5_000))
        elif is_error(answer):
            raise Violation(f"a valid schedule was refused: {answer}")
    if answer.spec != spec:
        raise Violation(f"schedule {name} was put as {spec}, and is {answer}")
    if world.chance(30):
        again = yield Call(PutSchedule(name=name, spec=spec, run=run))
        if isinstance(again, ScheduleView) and not again.known:
            raise Violation(f"schedule {name} was put anew, and is another: {again}")


def _look_at_schedules(name: str) -> Errand:
    one = yield Call(GetSchedule(schedule=name))
    if isinstance(one, ScheduleView) and one.paused_at_ms and one.next_at_ms:
        raise Violation(f"a paused schedule has times to come: {one}")
    cursor = ""
    while True:
        page = yield Call(ListSchedules(cursor=cursor, limit=1))
        if not isinstance(page, ScheduleList):
            raise Violation(f"a list of schedules came to {page}")
        cursor = page.cursor
        if not cursor:
            break


def knock() -> Errand:
    """A stranger: asks until it is refused, and never gets further."""
    answer = yield Call(GetStats())
    raise Violation(f"a stranger was answered: {answer}")
