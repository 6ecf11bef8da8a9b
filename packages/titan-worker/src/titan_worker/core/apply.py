"""The only writer of the worker's state: one record in, the fact is part of the state.

It never decides: no policy, no time, no configuration. It refuses only what cannot be, because a
ledger that says it is damaged and a core that says it is wrong. Called by the core for every new
record, and by the ledger to fold the old ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from titan_proto.ids import AttemptRef
from titan_proto.states import AttemptState
from titan_worker.core.check import violated
from titan_worker.core.records import (
    AnyRecord,
    AttemptClosed,
    AttemptForgotten,
    AttemptHeld,
    AttemptRestarting,
    AttemptSpared,
    AttemptSpawned,
    AttemptStopping,
    ClusterBound,
    SiblingEnded,
    SiblingForgotten,
    SiblingSettled,
    SiblingSpawned,
    SiblingTaken,
)
from titan_worker.core.state import Held, Sibling, WorkerState
from titan_worker.core.transitions import ATTEMPT


def apply(state: WorkerState, record: AnyRecord) -> None:
    """Make `record` true in `state`.

    Raises:
        InvariantViolation: the record cannot follow what is already true.
    """
    _WRITERS[type(record)](state, record)


def _bind(state: WorkerState, record: ClusterBound) -> None:
    if state.cluster_id == record.cluster_id and record.term < state.term:
        raise violated(state, f"term {record.term} is older than the known {state.term}")
    if state.cluster_id and state.cluster_id != record.cluster_id:
        state.clusters_left += 1
        for held in state.held.values():
            held.foreign = True
    state.cluster_id = record.cluster_id
    state.term = record.term


def _hold(state: WorkerState, record: AttemptHeld) -> None:
    ref = record.order.ref
    if ref in state.held:
        raise violated(state, f"attempt {ref} was taken twice")
    state.held[ref] = Held(order=record.order, held_at_ms=record.at_ms)


def _spawn(state: WorkerState, record: AttemptSpawned) -> None:
    held = _held(state, record.ref)
    if held.pid:
        raise violated(state, f"attempt {record.ref} was started twice")
    held.pid = record.pid
    held.start_ticks = record.start_ticks
    held.port = record.port
    held.started_at_ms = held.started_at_ms or record.at_ms
    # One that was told to stop while it was being started stays STOPPING; now it has a process.
    # A service that is started again was RUNNING all the time.
    is_next = held.state is AttemptState.RUNNING and held.restarts > 0
    if held.state is not AttemptState.STOPPING and not is_next:
        _move(state, held, AttemptState.RUNNING)


def _restart(state: WorkerState, record: AttemptRestarting) -> None:
    held = _held(state, record.ref)
    if held.state is not AttemptState.RUNNING:
        raise violated(state, f"attempt {record.ref} is started again and {held.state}")
    held.pid = held.start_ticks = 0
    held.restarts += 1


def _spare(state: WorkerState, record: AttemptSpared) -> None:
    held = _held(state, record.ref)
    if held.state is AttemptState.ENDED:
        raise violated(state, f"attempt {record.ref} is spared and has ended")
    held.spared_at_ms = record.at_ms


def _stop(state: WorkerState, record: AttemptStopping) -> None:
    held = _held(state, record.ref)
    _move(state, held, AttemptState.STOPPING)
    held.stop_reason = record.reason
    held.stopping_at_ms = record.at_ms


def _close(state: WorkerState, record: AttemptClosed) -> None:
    held = _held(state, record.report.ref)
    _move(state, held, AttemptState.ENDED)
    held.report = record.report


def _forget(state: WorkerState, record: AttemptForgotten) -> None:
    held = _held(state, record.ref)
    if held.state is not AttemptState.ENDED and not held.foreign:
        raise violated(state, f"attempt {record.ref} is forgotten while it is {held.state}")
    del state.held[record.ref]


def _held(state: WorkerState, ref: AttemptRef) -> Held:
    held = state.held.get(ref)
    if held is None:
        raise violated(state, f"attempt {ref} is not held")
    return held


def _move(state: WorkerState, held: Held, to: AttemptState) -> None:
    if (held.state, to) not in ATTEMPT:
        raise violated(state, f"attempt {held.order.ref} cannot go from {held.state} to {to}")
    held.state = to


def _take_sibling(state: WorkerState, record: SiblingTaken) -> None:
    number = record.order.number
    if number in state.siblings:
        raise violated(state, f"sibling {number} was taken twice")
    state.siblings[number] = Sibling(order=record.order, boot_id=record.boot_id)


def _spawn_sibling(state: WorkerState, record: SiblingSpawned) -> None:
    sibling = _sibling(state, record.number)
    if sibling.pid or sibling.ended:
        raise violated(state, f"sibling {record.number} was spawned twice, or after its end")
    sibling.pid = record.pid
    sibling.start_ticks = record.start_ticks
    sibling.port = record.port


def _settle_sibling(state: WorkerState, record: SiblingSettled) -> None:
    sibling = _sibling(state, record.number)
    sibling.settled = True
    sibling.given_up = sibling.given_up or record.given_up


def _end_sibling(state: WorkerState, record: SiblingEnded) -> None:
    sibling = _sibling(state, record.number)
    if sibling.ended:
        raise violated(state, f"sibling {record.number} ended twice")
    sibling.ended = True
    sibling.message = record.message


def _forget_sibling(state: WorkerState, record: SiblingForgotten) -> None:
    if not _sibling(state, record.number).ended:
        raise violated(state, f"sibling {record.number} is forgotten and has not ended")
    del state.siblings[record.number]


def _sibling(state: WorkerState, number: int) -> Sibling:
    sibling = state.siblings.get(number)
    if sibling is None:
        raise violated(state, f"sibling {number} was never asked for")
    return sibling


_WRITERS: Final[dict[type, Callable[[WorkerState, Any], None]]] = {
    ClusterBound: _bind,
    AttemptHeld: _hold,
    AttemptSpawned: _spawn,
    AttemptRestarting: _restart,
    AttemptSpared: _spare,
    AttemptStopping: _stop,
    AttemptClosed: _close,
    AttemptForgotten: _forget,
    SiblingTaken: _take_sibling,
    SiblingSpawned: _spawn_sibling,
    SiblingSettled: _settle_sibling,
    SiblingEnded: _end_sibling,
    SiblingForgotten: _forget_sibling,
}
