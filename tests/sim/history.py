"""How the engine answers what the core cannot: from the store, or by asking the core again.

The simulator's copy of a shell's job, over the real `MemoryStore`. A name that only one run fits
is that run's; a live run is given back to the core under its exact id.
"""

from __future__ import annotations

import msgspec

from titan_master.core.effects import AskHistory
from titan_master.core.inputs import Asked
from titan_master.store.base import Store
from titan_proto.errors import ErrorCode
from titan_proto.messages import (
    AnyMessage,
    CancelRun,
    Done,
    Error,
    GetJob,
    GetRun,
    JobChange,
    ListJobs,
    ListRuns,
    ReadLog,
    RunList,
    WaitJob,
    WaitRun,
    WatchRun,
)

Answer = list[AnyMessage]


def answer(store: Store, effect: AskHistory) -> Answer | Asked:
    """The messages that answer an exchange, or the request for the core once more."""
    request = effect.request
    if isinstance(request, ListRuns):
        page = store.runs(request.cursor, request.limit)
        return [RunList(runs=effect.live_runs + page.runs, cursor=page.cursor)]
    run_id = _find(store, effect)
    if isinstance(run_id, Error):
        return [run_id]
    if run_id in effect.live_ids:
        return Asked(origin=effect.origin, request=msgspec.structs.replace(request, run=run_id))
    return _ended(store, effect, run_id)


def _find(store: Store, effect: AskHistory) -> str | Error:
    request = effect.request
    assert not isinstance(request, ListRuns)
    if isinstance(request, GetJob) and not request.run:
        ended = store.newest_with_job(request.job)
        newest = max([*effect.live_ids, *([ended] if ended else [])], default=None)
        return newest or _not_found(f"no run has a job {request.job}")
    ended_ids = store.resolve(request.run)
    exact = [i for i in ended_ids if request.run in {i, _alias(store, i)} or request.run == "@last"]
    found = exact or [*dict.fromkeys([*effect.live_ids, *ended_ids])]
    if not found:
        return _not_found(f"no run is called {request.run}")
    if len(found) > 1:
        return Error(code=ErrorCode.CONFLICT, message=f"{request.run} fits {', '.join(found)}")
    return found[0]


def _ended(store: Store, effect: AskHistory, run_id: str) -> Answer:
    request = effect.request
    run = store.run(run_id)
    assert run is not None
    if isinstance(request, (GetRun, WaitRun)):
        return [run]
    if isinstance(request, CancelRun):
        return [Error(code=ErrorCode.ALREADY_DONE, message=f"{run.alias} has ended")]
    if isinstance(request, ListJobs):
        jobs = store.jobs(run_id, request.cursor, request.limit)
        assert jobs is not None
        return [jobs]
    if isinstance(request, WatchRun):
        return [JobChange(run_id=run_id, at_ms=run.ended_at_ms, run_state=run.state)]
    assert isinstance(request, (GetJob, WaitJob, ReadLog))
    job = store.job(run_id, request.job)
    if job is None:
        return [_not_found(f"{run.alias} has no job {request.job}")]
    return [Done() if isinstance(request, ReadLog) else job]


def _alias(store: Store, run_id: str) -> str:
    run = store.run(run_id)
    return run.alias if run else ""


def _not_found(message: str) -> Error:
    return Error(code=ErrorCode.NOT_FOUND, message=message)
