"""Requests: what clients ask of the core, resolved to a run, a job or a service, and answered.

What the core alone cannot answer (a run that has ended, a prefix that may mean several) goes on to
history by an effect. Called by ``core``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from msgspec.structs import replace

from titan_master.core import (
    admission,
    cordoning,
    explaining,
    gates,
    leaving,
    lifecycle,
    queries,
    rollout,
    schedules,
    services,
    siblings,
)
from titan_master.core.effects import RUNS_NAMED, AskHistory, Reply
from titan_master.core.inputs import Asked, Origin
from titan_master.core.rerun import rerun_digest
from titan_master.core.state import Job, Run, Service
from titan_master.core.turn import Draft
from titan_master.core.waiters import changes, is_reached, serve_log
from titan_proto.errors import ErrorCode
from titan_proto.ids import INSTANCE_MARK, is_run_id
from titan_proto.limits import JOB_ID_CHARS, PAGE_ITEMS, SUBMIT_KEY_CHARS
from titan_proto.messages import (
    CancelRun,
    CordonWorker,
    DecideGate,
    ExplainJob,
    GetJob,
    GetRun,
    GetScaling,
    GetSchedule,
    GetStats,
    ListAttempts,
    ListDead,
    ListGates,
    ListJobs,
    ListRuns,
    ListSchedules,
    ListServices,
    ListWorkers,
    PauseSchedule,
    ReadLog,
    RemoveSchedule,
    RerunRun,
    RestartService,
    RunList,
    RunView,
    ScaleService,
    ServiceList,
    ShutDownWorker,
    SpawnWorker,
    StopJob,
    StopService,
    TriggerSchedule,
    WaitJob,
    WaitRun,
    WatchRun,
)
from titan_proto.specs import JobKind
from titan_proto.states import JobState

LAST: Final = "@last"
LIVE_CURSOR: Final = "live:"
"""Marks a cursor of ListRuns that still stands among the live runs; others are history's own."""

OfOneRun = (
    GetRun
    | CancelRun
    | ListJobs
    | GetJob
    | ListAttempts
    | WaitRun
    | WaitJob
    | WatchRun
    | ReadLog
    | RerunRun
    | StopJob
)


def ask(draft: Draft, item: Asked) -> None:
    """Answer a request, now or by a waiter, or pass it on to history."""
    if isinstance(item.request, RerunRun):
        _rerun_run(draft, item.origin, item.request, item.by)
        return
    if isinstance(item.request, DecideGate):
        _decide_gate(draft, item.origin, item.request, item.by)
        return
    if isinstance(item.request, CordonWorker):
        cordoning.cordon(draft, item.origin, item.request, item.by)
        return
    if isinstance(item.request, PauseSchedule):
        schedules.pause(draft, item.origin, item.request, item.by)
        return
    if isinstance(item.request, TriggerSchedule):
        schedules.trigger(draft, item.origin, item.request, item.by)
        return
    _HANDLERS[type(item.request)](draft, item.origin, item.request)


# -- finding what is meant ------------------------------------------------------------------------
def _find_run(draft: Draft, origin: Origin, request: OfOneRun, by: str = "") -> Run | None:
    """The live run that the request means; None when somebody else answers."""
    state, selector = draft.state, request.run
    if selector == LAST:
        selector = state.last_run_id
        request = replace(request, run=selector)
    if not selector:
        draft.refuse(origin, ErrorCode.NOT_FOUND, "there is no run yet: submit one first")
        return None
    run = state.runs.get(state.aliases.get(selector, selector))
    if run is None:
        live = _may_be(draft, selector)
        ask = AskHistory(
            origin=origin,
            request=request,
            live_ids=tuple(one.run_id for one in live),
            live_aliases=tuple(one.alias for one in live[:RUNS_NAMED]),
            by=by,
        )
        draft.require(ask)
    return run


def _may_be(draft: Draft, selector: str) -> tuple[Run, ...]:
    """Live runs that a name which is none of theirs may mean."""
    return () if is_run_id(selector) else _with_prefix(draft, selector)


def _with_prefix(draft: Draft, prefix: str) -> tuple[Run, ...]:
    return tuple(
        run
        for run in draft.state.runs.values()
        if run.run_id.startswith(prefix) or run.alias.startswith(prefix)
    )


def _find_job(
    draft: Draft, origin: Origin, request: GetJob | WaitJob | ReadLog | StopJob | ListAttempts
) -> tuple[Run, Job] | None:
    run = _find_run(draft, origin, request)
    if run is None:
        return None
    job = run.jobs.get(request.job)
    if job is None:
        draft.refuse(
            origin,
            ErrorCode.NOT_FOUND,
            f"run {run.alias} has no job {request.job[:JOB_ID_CHARS]!r}; "
            f"`titan ps {run.alias}` lists its jobs",
        )
        return None
    return run, job


# -- runs -----------------------------------------------------------------------------------------
def _get_run(draft: Draft, origin: Origin, request: GetRun) -> None:
    run = _find_run(draft, origin, request)
    if run is not None:
        draft.reply(origin, queries.run_view(run))


def _list_runs(draft: Draft, origin: Origin, request: ListRuns) -> None:
    """Live runs first, page by page; once they are through, history goes on where asked."""
    limit = max(1, min(request.limit, PAGE_ITEMS))
    if request.cursor and not request.cursor.startswith(LIVE_CURSOR):
        draft.require(AskHistory(origin=origin, request=request))
        return
    views, cursor = _live_page(draft, request.cursor.removeprefix(LIVE_CURSOR), limit)
    if cursor or not request.ended:
        draft.reply(origin, RunList(runs=views, cursor=cursor))
        return
    rest = replace(request, cursor="", limit=limit)
    draft.require(AskHistory(origin=origin, request=rest, live_runs=views))


def _live_page(draft: Draft, before: str, limit: int) -> tuple[tuple[RunView, ...], str]:
    """Live runs accepted before the one with this serial, newest first; and how to go on."""
    views: list[RunView] = []
    last = 0
    serial = queries.position(before)
    for run in queries.runs_newest_first(draft.state):
        if serial is not None and run.serial >= serial:
            continue
        if len(views) == limit:
            return tuple(views), f"{LIVE_CURSOR}{last}"
        views.append(queries.run_view(run))
        last = run.serial
    return tuple(views), ""


def _cancel_run(draft: Draft, origin: Origin, request: CancelRun) -> None:
    run = _find_run(draft, origin, request)
    if run is None:
        return
    lifecycle.cancel_run(draft, run)
    if run.run_id in draft.state.runs:
        draft.reply(origin, queries.run_view(run))
    else:
        draft.reply(origin, queries.run_view(run, lifecycle.verdict(run), draft.now_ms))


def _rerun_run(draft: Draft, origin: Origin, request: RerunRun, by: str) -> None:
    """A key that is known is answered here; history makes a submission of a new one."""
    if not 0 < len(request.key) <= SUBMIT_KEY_CHARS:
        message = f"a submit key has 1 to {SUBMIT_KEY_CHARS} (SUBMIT_KEY_CHARS) characters"
        draft.refuse(origin, ErrorCode.INVALID_SPEC, message)
        return
    if admission.known_before(draft, origin, request.key, rerun_digest(request)):
        return
    run = _find_run(draft, origin, request, by)
    if run is not None:
        draft.refuse(
            origin,
            ErrorCode.CONFLICT,
            f"run {run.alias} has not ended: wait for its end, or `titan cancel {run.alias}` first",
        )


def _list_dead(draft: Draft, origin: Origin, request: ListDead) -> None:
    """Those of live runs stand on the first page; all others are history's."""
    limit = max(1, min(request.limit, PAGE_ITEMS))
    exact = replace(request, limit=limit)
    live = () if request.cursor else queries.dead_jobs(draft.state)
    draft.require(AskHistory(origin=origin, request=exact, live_jobs=live))


def _wait_run(draft: Draft, origin: Origin, request: WaitRun) -> None:
    run = _find_run(draft, origin, request)
    if run is not None:
        draft.waiters.wait(origin, run.run_id, request)


def _watch_run(draft: Draft, origin: Origin, request: WatchRun) -> None:
    run = _find_run(draft, origin, request)
    if run is None:
        return
    moved = [job for job in run.order if queries.has_moved(job)]
    for change in changes(run, moved, draft.now_ms):
        draft.require(Reply(origin=origin, message=change, end=False))
    draft.waiters.wait(origin, run.run_id, request)


# -- jobs -----------------------------------------------------------------------------------------
def _list_jobs(draft: Draft, origin: Origin, request: ListJobs) -> None:
    run = _find_run(draft, origin, request)
    if run is not None:
        limit = max(1, min(request.limit, PAGE_ITEMS))
        draft.reply(origin, queries.job_page(run, request.cursor, limit))


def _get_job(draft: Draft, origin: Origin, request: GetJob) -> None:
    instance = _find_instance(draft, request.run, request.job)
    if instance is not None:
        draft.reply(origin, queries.instance_view(draft.state, draft.roster, instance))
        return
    if not request.run:
        _get_newest_job(draft, origin, request)
        return
    found = _find_job(draft, origin, request)
    if found is not None:
        _reply_job(draft, origin, *found)


def _get_newest_job(draft: Draft, origin: Origin, request: GetJob) -> None:
    """That job of the newest run that has it: a live one, unless an ended one is newer still."""
    newest = _newest_with(draft, request.job)
    if newest is not None and newest.run_id == draft.state.last_run_id:
        _reply_job(draft, origin, newest, newest.jobs[request.job])
        return
    live_ids = () if newest is None else (newest.run_id,)
    draft.require(AskHistory(origin=origin, request=request, live_ids=live_ids))


def _newest_with(draft: Draft, job_id: str) -> Run | None:
    runs = queries.runs_newest_first(draft.state)
    return next((run for run in runs if job_id in run.jobs), None)


def _newest_with_gate(draft: Draft, job_id: str) -> Run | None:
    for run in queries.runs_newest_first(draft.state):
        job = run.jobs.get(job_id)
        if job is not None and job.spec.kind is JobKind.GATE:
            return run
    return None


def _reply_job(draft: Draft, origin: Origin, run: Run, job: Job) -> None:
    why = ""
    if job.state is JobState.QUEUED:
        why = explaining.why_queued(draft.state, draft.roster, job)
    draft.reply(origin, queries.job_view(run, job, why))


def _sight(draft: Draft) -> explaining.Sight:
    return explaining.Sight(draft.state, draft.roster, draft.now_ms, draft.storage.is_full)


def _explain_job(draft: Draft, origin: Origin, request: ExplainJob) -> None:
    """Of what is live only: how something ended is told by its view."""
    instance = _find_instance(draft, request.run, request.job)
    if instance is not None:
        job = draft.state.instances[instance.run_id, instance.job_id]
        draft.reply(origin, explaining.explain(_sight(draft), None, job, instance.run_alias))
        return
    state = draft.state
    run = state.runs.get(state.aliases.get(request.run, request.run))
    job_ = None if run is None else run.jobs.get(request.job)
    service = None if run is not None else state.instances.get((request.run, request.job))
    if service is not None:
        alias = state.services[request.run, request.job].run_alias
        draft.reply(origin, explaining.explain(_sight(draft), None, service, alias))
    elif run is None or job_ is None:
        name = f"{request.run[:JOB_ID_CHARS]}/{request.job[:JOB_ID_CHARS]}"
        text = f"nothing that is live is called {name}; `titan show` tells how it ended"
        draft.refuse(origin, ErrorCode.NOT_FOUND, text)
    else:
        draft.reply(origin, explaining.explain(_sight(draft), run, job_, run.alias))


def _list_attempts(draft: Draft, origin: Origin, request: ListAttempts) -> None:
    """The newest attempt is in memory; history has the others, and joins them."""
    instance = _find_instance(draft, request.run, request.job)
    if instance is not None:
        view = queries.instance_view(draft.state, draft.roster, instance)
        spec = draft.state.instances[instance.run_id, instance.job_id].spec
    else:
        found = _find_job(draft, origin, request)
        if found is None:
            return
        run, job = found
        why = ""
        if job.state is JobState.QUEUED:
            why = explaining.why_queued(draft.state, draft.roster, job)
        view, spec = queries.job_view(run, job, why), job.spec
    exact = replace(request, run=view.run_id)
    draft.require(AskHistory(origin=origin, request=exact, live_jobs=(view,), live_spec=spec))


def _wait_job(draft: Draft, origin: Origin, request: WaitJob) -> None:
    found = _find_job(draft, origin, request)
    if found is None:
        return
    run, job = found
    if is_reached(job, request.until):
        draft.reply(origin, queries.job_view(run, job))
    else:
        draft.waiters.wait_job(origin, run.run_id, job.spec.id, request)


def _read_log(draft: Draft, origin: Origin, request: ReadLog) -> None:
    instance = _find_instance(draft, request.run, request.job)
    if instance is not None:
        _read_log_of_instance(draft, origin, request, instance)
        return
    found = _find_job(draft, origin, request)
    if found is None:
        return
    run, job = found
    if job.spec.kind is JobKind.GATE:
        text = f"{run.alias}/{job.spec.id} is a gate: a person decides, and nothing is printed"
        draft.refuse(origin, ErrorCode.NOT_FOUND, text, details={"state": str(job.state)})
        return
    if 0 < request.attempt < job.number:
        # Only the newest attempt is in memory; history has the others.
        exact = replace(request, run=run.run_id)
        draft.require(AskHistory(origin=origin, request=exact))
    elif request.attempt > job.number and job.number:
        draft.refuse(
            origin,
            ErrorCode.NOT_FOUND,
            f"job {job.spec.id} has no attempt {request.attempt}; its newest is {job.number}",
        )
    elif not job.number and request.follow and not job.is_terminal:
        draft.waiters.wait_job(origin, run.run_id, job.spec.id, request)
    else:
        draft.require(serve_log(origin, request, job))


def _find_instance(draft: Draft, run: str, job_id: str) -> Service | None:
    """The instance of a service that is called so, beside the first: no run has such a job."""
    if INSTANCE_MARK not in job_id:
        return None
    fits = [
        one
        for one in draft.state.services.values()
        if one.job_id == job_id and run in {"", one.run_id, one.run_alias}
    ]
    return fits[-1] if fits else None


def _read_log_of_instance(draft: Draft, origin: Origin, request: ReadLog, service: Service) -> None:
    number = service.attempt.number
    if request.attempt and request.attempt != number:
        exact = replace(request, run=service.run_id)
        draft.require(AskHistory(origin=origin, request=exact))
        return
    draft.require(serve_log(origin, request, draft.state.instances[service.run_id, service.job_id]))


def _stop_job(draft: Draft, origin: Origin, request: StopJob) -> None:
    """One job of a live run, and with it what depends on it."""
    found = _find_job(draft, origin, request)
    if found is None:
        return
    run, job = found
    if job.is_terminal:
        text = f"{run.alias}/{job.spec.id} has ended already: {job.state}"
        draft.refuse(origin, ErrorCode.ALREADY_DONE, text, details={"state": str(job.state)})
        return
    lifecycle.cancel_job(draft, run, job)
    draft.reply(origin, queries.job_view(run, job))


# -- gates ----------------------------------------------------------------------------------------
def _list_gates(draft: Draft, origin: Origin, request: ListGates) -> None:
    limit = max(1, min(request.limit, PAGE_ITEMS))
    draft.reply(origin, queries.gate_page(draft.state, request.cursor, limit))


def _decide_gate(draft: Draft, origin: Origin, request: DecideGate, by: str) -> None:
    if gates.is_too_long(draft, origin, request):
        return
    run_name, _, job_id = request.gate.rpartition("/")
    if run_name == LAST and draft.state.last_run_id:
        run_name = draft.state.last_run_id
        request = replace(request, gate=f"{run_name}/{job_id}")
    if not run_name:
        _decide_by_job(draft, origin, request, by)
        return
    state = draft.state
    run = state.runs.get(state.aliases.get(run_name, run_name))
    if run is None:
        _ask_history_of_gate(draft, origin, request, by, _may_be(draft, run_name))
    elif job_id not in run.jobs:
        text = f"run {run.alias} has no gate {job_id[:JOB_ID_CHARS]!r}; {gates.listing(state)}"
        draft.refuse(origin, ErrorCode.NOT_FOUND, text)
    else:
        gates.decide(draft, origin, request, by, (run, run.jobs[job_id]))


def _decide_by_job(draft: Draft, origin: Origin, request: DecideGate, by: str) -> None:
    """A bare job id: the open gate of that name, or the newest one, which may be closed already."""
    state, job_id = draft.state, request.gate
    fits = gates.called(state, job_id)
    if len(fits) > 1:
        names = gates.names(state, fits)
        draft.refuse(
            origin,
            ErrorCode.CONFLICT,
            f"{job_id[:JOB_ID_CHARS]!r} may be any of {names}: name one of them",
            details={"candidates": names},
        )
        return
    run = state.runs[fits[0].run_id] if fits else _newest_with_gate(draft, job_id)
    if run is not None and (fits or run.run_id == state.last_run_id):
        gates.decide(draft, origin, request, by, (run, run.jobs[job_id]))
        return
    _ask_history_of_gate(draft, origin, request, by, () if run is None else (run,))


def _ask_history_of_gate(
    draft: Draft, origin: Origin, request: DecideGate, by: str, live: tuple[Run, ...]
) -> None:
    draft.require(
        AskHistory(
            origin=origin,
            request=request,
            live_ids=tuple(one.run_id for one in live),
            live_aliases=tuple(one.alias for one in live[:RUNS_NAMED]),
            by=by,
            open_gates=gates.listing(draft.state),
        )
    )


# -- the rest -------------------------------------------------------------------------------------
def _list_services(draft: Draft, origin: Origin, request: ListServices) -> None:
    """What is up is the core's to tell; of what has ended it keeps nothing."""
    up = (one for one in draft.state.services.values() if request.run in {"", one.run_id})
    live = queries.service_views(draft.state, draft.roster, up)
    if not request.ended:
        draft.reply(origin, ServiceList(services=live))
        return
    limit = max(1, min(request.limit, queries.SERVICES_LISTED))
    exact = replace(request, limit=limit)
    draft.require(AskHistory(origin=origin, request=exact, live_services=live))


def _get_stats(draft: Draft, origin: Origin, _: GetStats) -> None:
    draft.reply(origin, queries.stats(draft.state, draft.roster, draft.now_ms))


_HANDLERS: Final[dict[type[Any], Callable[[Draft, Origin, Any], None]]] = {
    GetRun: _get_run,
    ListRuns: _list_runs,
    CancelRun: _cancel_run,
    WaitRun: _wait_run,
    WatchRun: _watch_run,
    ListJobs: _list_jobs,
    GetJob: _get_job,
    ListAttempts: _list_attempts,
    WaitJob: _wait_job,
    ReadLog: _read_log,
    ListDead: _list_dead,
    ListServices: _list_services,
    StopService: services.stop_service,
    ScaleService: rollout.scale,
    RestartService: rollout.restart,
    StopJob: _stop_job,
    ListGates: _list_gates,
    ListSchedules: schedules.list_all,
    GetSchedule: schedules.get,
    RemoveSchedule: schedules.remove,
    GetStats: _get_stats,
    ShutDownWorker: leaving.shut_down,
    ListWorkers: cordoning.list_workers,
    ExplainJob: _explain_job,
    SpawnWorker: siblings.spawn_worker,
    GetScaling: siblings.get_scaling,
}
