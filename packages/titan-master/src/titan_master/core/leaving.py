"""Telling a worker to leave: who is meant, whether it can be told, and the order.

The order is for the process that is there now, and is not durable: what becomes of it shows in the
worker's state (DRAINING, then gone), and whoever waits for that asks again. It is kept in memory until
the worker says that it leaves, so that a cut link swallows none. What leaving means is the worker's to
decide; that services of a worker that is DRAINING come up elsewhere belongs to ``moving``. Called by
``asking`` and ``workers``.
"""

from __future__ import annotations

from typing import Final

from titan_master.core import queries
from titan_master.core.effects import Tell
from titan_master.core.inputs import Origin
from titan_master.core.state import State, WorkerInfo
from titan_master.core.turn import Draft
from titan_proto.errors import ErrorCode
from titan_proto.limits import DRAIN_TIMEOUT_MS
from titan_proto.messages import Join, ShutDown, ShutdownOrdered, ShutDownWorker
from titan_proto.states import WorkerState

WORKERS_NAMED: Final = 20
"""So many workers are named in a refusal."""
_QUOTED_CHARS: Final = 128


def shut_down(draft: Draft, origin: Origin, request: ShutDownWorker) -> None:
    """Tell the worker that is meant to leave, or say why it cannot be told."""
    refusal = _bad_time(request)
    if refusal:
        draft.refuse(origin, ErrorCode.LIMIT_EXCEEDED, refusal)
        return
    worker = find(draft, origin, request.worker)
    if worker is None:
        return
    refusal = _unreachable(draft, worker)
    if refusal:
        draft.refuse(origin, ErrorCode.CONFLICT, refusal, details={"worker": worker.name})
        return
    order = ShutDown(term=draft.state.term, drain_ms=request.drain_ms)
    if worker.state is not WorkerState.DRAINING:
        draft.roster.of(worker.worker_id).farewell = order
    _tell(draft, worker.worker_id, order)
    services = tuple(
        service.instance_name
        for service in draft.state.services.values()
        if service.attempt.worker_id == worker.worker_id and service.attempt.is_live
    )
    view = queries.worker_view(worker, draft.roster, services, draft.state, draft.now_ms)
    draft.reply(origin, ShutdownOrdered(worker=view))


def arrived(draft: Draft, join: Join, *, is_new: bool) -> None:
    """It has joined: what it understands; and what was for its last process is not for this one."""
    presence = draft.roster.of(join.worker_id)
    presence.takes_shutdown = join.takes_shutdown
    if is_new:
        presence.farewell = None


def tell_again(draft: Draft, worker_id: str) -> None:
    """It is back on another link and does not leave: it may not have heard."""
    order = draft.roster.of(worker_id).farewell
    if order is not None:
        _tell(draft, worker_id, order)


def _tell(draft: Draft, worker_id: str, order: ShutDown) -> None:
    link_id = draft.roster.link_of(worker_id)
    if link_id is not None:
        draft.require(Tell(link_id=link_id, message=order))


def _bad_time(request: ShutDownWorker) -> str:
    drain_ms = request.drain_ms
    if drain_ms is None or 0 <= drain_ms <= DRAIN_TIMEOUT_MS:
        return ""
    return f"a drain takes 0 to {DRAIN_TIMEOUT_MS} ms (DRAIN_TIMEOUT_MS), not {drain_ms}"


def find(draft: Draft, origin: Origin, selector: str) -> WorkerInfo | None:
    """The worker that a port, a name or an id means; None when that has been refused."""
    meant = _called(draft.state, selector)
    if len(meant) == 1:
        return meant[0]
    quoted = repr(selector[:_QUOTED_CHARS])
    if meant:
        names = _names(meant)
        text = f"{quoted} may be any of {names}: name one of them"
        draft.refuse(origin, ErrorCode.CONFLICT, text, details={"candidates": names})
        return None
    known = sorted(draft.state.workers.values(), key=lambda worker: (worker.host, worker.port))
    names = _names(known)
    there = f"there are {names}" if known else "none has joined"
    draft.refuse(
        origin,
        ErrorCode.NOT_FOUND,
        f"no worker is called {quoted}; {there}",
        details={"candidates": names},
    )
    return None


def _called(state: State, selector: str) -> list[WorkerInfo]:
    """Workers of that id, name or port. A lost one gives way to one that is there in its place."""
    found = [
        worker
        for worker in state.workers.values()
        if selector in (worker.worker_id, worker.name, str(worker.port))
    ]
    here = [worker for worker in found if worker.state is not WorkerState.LOST]
    return sorted(here or found, key=lambda worker: (worker.host, worker.port))


def _names(workers: list[WorkerInfo]) -> str:
    more = len(workers) - WORKERS_NAMED
    names = ", ".join(dict.fromkeys(worker.name for worker in workers[:WORKERS_NAMED]))
    return f"{names} and {more} more" if more > 0 else names


def _unreachable(draft: Draft, worker: WorkerInfo) -> str:
    """Why this worker cannot be told now, and what to do instead; empty if it can."""
    presence = draft.roster.of(worker.worker_id)
    by_hand = f"stop its process on {worker.host} with SIGTERM"
    if presence.link_id is None:
        if worker.state is WorkerState.LOST:
            return (
                f"worker {worker.name} is lost and cannot be told; its jobs have been given away. "
                f"If it still runs, {by_hand}"
            )
        return (
            f"worker {worker.name} has no link to this master and cannot be told; try again when it "
            f"is back, or {by_hand}. Silent for the whole lease it is lost, and its jobs run elsewhere"
        )
    if not presence.takes_shutdown:
        software = worker.software or "an older version"
        return f"worker {worker.name} ({software}) cannot be told to leave: {by_hand}"
    return ""
