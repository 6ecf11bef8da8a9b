"""Siblings: workers that others were asked to spawn, from the wish to the day when they have joined.

A wish has a number, which is a fence, and is durable before it leaves. The worker that is asked spawns once
for a number, and the new one is let in only with the proof that the order carried. What a worker says of its
siblings is compared with what is waited for at each of its Joins: an order that never came is sent again under
its number, and what is wanted no more is to be killed. Also here: workers that a person asks for. When the
queue asks for one belongs to ``scaling``. Called by ``workers``, ``scaling`` and ``asking``.
"""

from __future__ import annotations

import hashlib
from typing import Final

from titan_master.core import leaving
from titan_master.core.effects import Tell
from titan_master.core.events import SpawnAsked, SpawnSettled
from titan_master.core.inputs import Origin, WorkerArrived
from titan_master.core.state import Spawn, State, WorkerInfo
from titan_master.core.turn import Draft
from titan_proto.errors import ErrorCode
from titan_proto.limits import WORKER_SLOTS
from titan_proto.messages import (
    GetScaling,
    Kin,
    Scaling,
    ShutDown,
    SiblingView,
    SpawnOrdered,
    SpawnReport,
    SpawnSibling,
    SpawnVerdicts,
    SpawnView,
    SpawnWorker,
)
from titan_proto.states import ScalingKind, WorkerState

PORT_MAX: Final = 65_535
_JOIN_PATIENCE: Final = 2
"""A spawned worker waits so many times as long for its master as the master does for it."""


# -- asking -----------------------------------------------------------------------------------------
def ask(
    draft: Draft,
    parent: WorkerInfo,
    *,
    slots: int,
    skills: tuple[str, ...],
    cause: str,
    port: int = 0,
    by_hand: bool = False,
) -> Spawn:
    """Put down that this worker shall spawn another one, and tell it."""
    number = draft.state.fence + 1
    draft.emit(
        SpawnAsked(
            at_ms=draft.now_ms,
            number=number,
            worker_id=parent.worker_id,
            parent=parent.name,
            host=parent.host,
            port=port or _free_port(draft.state, parent),
            slots=slots,
            skills=skills,
            exact=port > 0,
            by_hand=by_hand,
            cause=cause,
        )
    )
    spawn = draft.state.spawns[number]
    _order(draft, spawn)
    return spawn


def _order(draft: Draft, spawn: Spawn) -> None:
    link_id = draft.roster.link_of(spawn.parent_id)
    if link_id is None:
        return
    order = SpawnSibling(
        term=draft.state.term,
        number=spawn.number,
        proof=_proof(draft, spawn.number),
        port=spawn.port,
        slots=spawn.slots,
        skills=spawn.skills,
        exact=spawn.exact,
        join_within_ms=_JOIN_PATIENCE * draft.config.spawn_timeout_ms,
    )
    draft.require(Tell(link_id=link_id, message=order))


def _proof(draft: Draft, number: int) -> str:
    """What only the order for this number has said: it can be made again, and not guessed."""
    text = f"{draft.state.cluster_id}:{number}".encode()
    return hashlib.blake2b(text, key=draft.config.spawn_key[:64], digest_size=16).hexdigest()


def _free_port(state: State, parent: WorkerInfo) -> int:
    """The next port above the parent's that no worker of its host has, or is to have.

    Nor does one that is lost have it: should it run after all, its folder is locked, and the next is taken.
    """
    asked = {spawn.port for spawn in state.spawns.values() if spawn.host == parent.host}
    port = min(parent.port + 1, PORT_MAX)
    while port < PORT_MAX and (port in asked or _is_here(state, f"{parent.host}:{port}")):
        port += 1
    return port


def _is_here(state: State, name: str) -> bool:
    holder = state.workers.get(state.names.get(name, ""))
    return holder is not None and holder.state is not WorkerState.LOST


def may_spawn(draft: Draft, worker: WorkerInfo) -> bool:
    """Whether it is here, knows how, and stays."""
    presence = draft.roster.of(worker.worker_id)
    is_going = worker.cordoned or (worker.kinship is not None and worker.kinship.dismissed)
    is_here = worker.state is WorkerState.ONLINE and presence.link_id is not None
    is_told = presence.farewell is not None or worker.cordoned
    return is_here and presence.cores > 0 and not is_going and not is_told


def settle(
    draft: Draft, spawn: Spawn, kind: ScalingKind, message: str = "", *, sibling_id: str = ""
) -> None:
    """Nobody waits for it any more."""
    draft.emit(
        SpawnSettled(
            at_ms=draft.now_ms,
            number=spawn.number,
            worker_id=spawn.parent_id,
            kind=kind,
            sibling_id=sibling_id,
            message=message,
        )
    )


def tell_verdict(
    draft: Draft,
    worker_id: str,
    *,
    settled: tuple[int, ...] = (),
    given_up: tuple[int, ...] = (),
) -> None:
    """One without a link shows in its next Join what it needs to be told."""
    link_id = draft.roster.link_of(worker_id)
    if link_id is not None and (settled or given_up):
        term = draft.state.term
        message = SpawnVerdicts(term=term, settled=settled, given_up=given_up)
        draft.require(Tell(link_id=link_id, message=message))


def count(state: State) -> int:
    """Spawned workers that are here, or are to come. One that is lost is not, though it is remembered."""
    workers = state.workers
    here = (one for one in state.siblings if workers[one].state is not WorkerState.LOST)
    return len(state.spawns) + sum(1 for _ in here)


# -- those that come --------------------------------------------------------------------------------
def why_not_let_in(draft: Draft, kin: Kin | None, known: WorkerInfo | None) -> str:
    """Why a worker that says to be a sibling is none that is wanted; empty if it is, or says no such thing."""
    number = 0 if kin is None else kin.number
    if kin is None or not number:
        return ""
    if number not in draft.state.spawns:
        kinship = None if known is None else known.kinship
        if kinship is not None and kinship.number == number:
            return ""
        return f"the worker that was asked for under number {number} is not waited for any more"
    is_proven = kin.proof == _proof(draft, number)
    return "" if is_proven else f"it does not show that it was asked for under number {number}"


def registered(draft: Draft, item: WorkerArrived) -> None:
    """A process has just been let in; perhaps it is one that was asked for."""
    spawn = None if item.kin is None else draft.state.spawns.get(item.kin.number)
    if spawn is not None:
        settle(draft, spawn, ScalingKind.JOINED, sibling_id=item.join.worker_id)
        tell_verdict(draft, spawn.parent_id, settled=(spawn.number,))


def arrived(draft: Draft, item: WorkerArrived) -> None:
    """What a worker that has joined can do; and one that was told to leave may not have heard."""
    join = item.join
    draft.roster.of(join.worker_id).cores = 0 if item.kin is None else item.kin.cores
    kinship = draft.state.workers[join.worker_id].kinship
    if kinship is not None:
        draft.scaler.idle.setdefault(join.worker_id, draft.now_ms)
        if kinship.dismissed and not join.leaving and join.takes_shutdown:
            draft.roster.of(join.worker_id).farewell = ShutDown(term=draft.state.term)


def reconcile(draft: Draft, item: WorkerArrived) -> None:
    """Compare what it was told to spawn with what it says: an order that never came is sent again."""
    kin, worker_id = item.kin, item.join.worker_id
    if kin is None or not kin.cores:
        return
    heard_of(draft, worker_id, kin.spawned)
    told = {report.number for report in kin.spawned}
    for spawn in list(draft.state.spawns.values()):
        if spawn.parent_id == worker_id and spawn.number not in told:
            _order(draft, spawn)


def heard_of(draft: Draft, worker_id: str, reports: tuple[SpawnReport, ...]) -> None:
    """What a worker says of its siblings; of those that are wanted no more it is told so."""
    settled: list[int] = []
    given_up: list[int] = []
    joined = {
        kinship.number
        for one in draft.state.siblings
        if (kinship := draft.state.workers[one].kinship) is not None
    }
    for report in reports:
        spawn = draft.state.spawns.get(report.number)
        if spawn is not None and spawn.parent_id == worker_id:
            if report.ended:
                settle(draft, spawn, ScalingKind.FAILED, report.message)
                settled.append(report.number)
        elif report.ended or report.number in joined:
            settled.append(report.number)
        else:
            given_up.append(report.number)
    tell_verdict(draft, worker_id, settled=tuple(settled), given_up=tuple(given_up))


# -- by hand ----------------------------------------------------------------------------------------
def spawn_worker(draft: Draft, origin: Origin, request: SpawnWorker) -> None:
    """Have a worker spawned because a person wants it, or say why that cannot be."""
    parent = _parent_for(draft, origin, request)
    if parent is None:
        return
    slots = request.slots or parent.slots
    refusal = _refusal(draft, parent, request.port, slots)
    if refusal is not None:
        code, text = refusal
        draft.refuse(origin, code, text, details={"worker": parent.name})
        return
    skills = request.skills or parent.skills
    cause = "asked for by hand"
    spawn = ask(
        draft, parent, slots=slots, skills=skills, cause=cause, port=request.port, by_hand=True
    )
    draft.reply(origin, SpawnOrdered(number=spawn.number, parent=spawn.parent, port=spawn.port))


def _parent_for(draft: Draft, origin: Origin, request: SpawnWorker) -> WorkerInfo | None:
    """The worker that shall do it; None when that has been refused."""
    if request.parent:
        named = leaving.find(draft, origin, request.parent)
        if named is not None and not may_spawn(draft, named):
            text = (
                f"worker {named.name} cannot spawn another one now: it is {named.state}, has no link, "
                "is leaving, or is of a version that does not know how"
            )
            draft.refuse(origin, ErrorCode.CONFLICT, text, details={"worker": named.name})
            return None
        return named
    able = [worker for worker in draft.state.workers.values() if may_spawn(draft, worker)]
    if not able:
        text = (
            "no worker is here that could spawn another one; start the first one where it shall run: "
            "titan-worker PORT MASTER_HOST MASTER_PORT"
        )
        draft.refuse(origin, ErrorCode.CONFLICT, text)
        return None
    return min(able, key=lambda one: (one.kinship is not None, one.name))


def _refusal(
    draft: Draft, parent: WorkerInfo, port: int, slots: int
) -> tuple[ErrorCode, str] | None:
    state, most = draft.state, draft.config.siblings_max
    if not 1 <= port <= PORT_MAX:
        return ErrorCode.LIMIT_EXCEEDED, f"a worker's port is 1 to {PORT_MAX}, not {port}"
    if not 1 <= slots <= WORKER_SLOTS:
        return (
            ErrorCode.LIMIT_EXCEEDED,
            f"a worker has 1 to {WORKER_SLOTS} slots (WORKER_SLOTS), not {slots}",
        )
    if count(state) >= most:
        return (
            ErrorCode.LIMIT_EXCEEDED,
            f"{most} workers (SIBLINGS) have been spawned, or are about to be; shut one down first",
        )
    asked = any(one.port == port and one.host == parent.host for one in state.spawns.values())
    if asked or _is_here(state, f"{parent.host}:{port}"):
        free = _free_port(state, parent)
        return (
            ErrorCode.CONFLICT,
            (
                f"worker {parent.host}:{port} is {'on its way' if asked else 'here already'}; "
                f"{free} is free"
            ),
        )
    return None


# -- looking ----------------------------------------------------------------------------------------
def get_scaling(draft: Draft, origin: Origin, _: GetScaling) -> None:
    """Which workers were spawned, and why."""
    state, config = draft.state, draft.config
    siblings = tuple(
        SiblingView(
            worker_id=worker.worker_id,
            worker=worker.name,
            number=kinship.number,
            parent_id=kinship.parent_id,
            parent=kinship.parent,
            by_hand=kinship.by_hand,
            cause=kinship.cause,
            dismissed=kinship.dismissed,
        )
        for worker_id in state.siblings
        if (kinship := (worker := state.workers[worker_id]).kinship) is not None
    )
    asked = tuple(
        SpawnView(
            number=spawn.number,
            parent=spawn.parent,
            port=spawn.port,
            asked_at_ms=spawn.asked_at_ms,
            by_hand=spawn.by_hand,
            cause=spawn.cause,
        )
        for spawn in state.spawns.values()
    )
    draft.reply(
        origin,
        Scaling(
            on=config.autoscale,
            every_ms=config.scale_every_ms,
            idle_ms=config.sibling_idle_ms,
            per_host=config.siblings_per_host,
            total=config.siblings_max,
            slots_per_core=config.slots_per_core,
            siblings=siblings,
            asked=asked,
            recent=state.scalings,
        ),
    )
