"""Workers that are given nothing new because somebody wants it so, and what all workers have for jobs.

What is on a cordoned worker goes on, and it may be uncordoned as it is: that is the difference to one that
leaves. It lasts through restarts of the master and of the worker. A drain moves its services besides, as
``moving`` does for a worker that leaves. Called by ``asking``.
"""

from __future__ import annotations

from collections.abc import Iterable

from titan_master.core import leaving, moving, queries
from titan_master.core.events import WorkerCordoned
from titan_master.core.inputs import Origin
from titan_master.core.state import State, WorkerInfo
from titan_master.core.turn import Draft
from titan_proto.messages import CordonWorker, ListWorkers, Room, WorkerDetail, WorkerList


def cordon(draft: Draft, origin: Origin, request: CordonWorker, by: str) -> None:
    """Give the worker nothing new, or take that back. Twice is once."""
    worker = leaving.find(draft, origin, request.worker)
    if worker is None:
        return
    if worker.cordoned is not request.cordoned:
        draft.emit(
            WorkerCordoned(
                at_ms=draft.now_ms,
                worker_id=worker.worker_id,
                cordoned=request.cordoned,
                by=by,
            )
        )
    if request.drain and request.cordoned:
        moving.begin(draft, worker, why=f"worker {worker.name} is drained")
    draft.reply(origin, WorkerList(workers=details(draft, [worker])))


def list_workers(draft: Draft, origin: Origin, request: ListWorkers) -> None:
    """What all workers have, or one."""
    if not request.worker:
        draft.reply(origin, WorkerList(workers=details(draft, draft.state.workers.values())))
        return
    worker = leaving.find(draft, origin, request.worker)
    if worker is not None:
        draft.reply(origin, WorkerList(workers=details(draft, [worker])))


def details(draft: Draft, workers: Iterable[WorkerInfo]) -> tuple[WorkerDetail, ...]:
    """These workers as they stand, by host and port."""
    ordered = sorted(workers, key=lambda worker: (worker.host, worker.port))
    state = draft.state
    return tuple(
        WorkerDetail(
            worker=queries.worker_view(
                worker, draft.roster, _services_on(state, worker), state, draft.now_ms
            ),
            resources=rooms(worker),
            cordoned=worker.cordoned,
            attempts=len(worker.held),
        )
        for worker in ordered
    )


def _services_on(state: State, worker: WorkerInfo) -> tuple[str, ...]:
    held = (state.services.get(key) for key in worker.held)
    return tuple(one.instance_name for one in held if one is not None)


def rooms(worker: WorkerInfo) -> dict[str, Room]:
    """What it has of counted resources, and what is taken."""
    names = dict.fromkeys((*worker.resources, *worker.taken))
    return {
        name: Room(total=worker.resources.get(name, 0), taken=worker.taken.get(name, 0))
        for name in names
    }
