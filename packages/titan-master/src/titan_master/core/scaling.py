"""Scaling: when a worker is asked to spawn a sibling on its host, when one is given up, when one goes.

Now and then the queue, class by class, is compared with what can serve it. What is missing is asked for
under a number that is a fence: the worker spawns once for each, and the new one is let in only with the
proof that the order carried. One that does not come is given up, killed by the worker that spawned it, and
its worker is asked again only after a pause. One that is idle for long is told to leave as any worker is.
Also here: workers that a person asks for. Called by ``core``, ``workers`` and ``asking``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import islice
from typing import Final

from titan_master.core import leaving, rollout, services, sharing
from titan_master.core.effects import Tell
from titan_master.core.events import SiblingDismissed, SpawnAsked, SpawnSettled
from titan_master.core.inputs import Origin
from titan_master.core.state import ClassKey, Job, ReadyClass, Spawn, State, WorkerInfo, fits
from titan_master.core.turn import Draft
from titan_proto.errors import ErrorCode
from titan_proto.limits import WORKER_SLOTS
from titan_proto.messages import (
    GetScaling,
    Join,
    Scaling,
    ShutDown,
    SiblingView,
    SpawnOrdered,
    SpawnReport,
    SpawnSibling,
    SpawnVerdicts,
    SpawnView,
    SpawnWorker,
    WorkerStatus,
)
from titan_proto.states import JobState, ScalingKind, WorkerState

JOBS_LOOKED_AT: Final = 1_000
"""So many jobs of a class are asked whether a sibling could have them: it is no matter of exactness."""
MEMORY_PERCENT: Final = 90
"""On a host with so much of its memory in use nothing is spawned because of the queue."""
PAUSES_DOUBLED: Final = 6
"""The pause after a spawn that failed doubles with each one that follows it, so often."""
PORT_MAX: Final = 65_535
_JOIN_PATIENCE: Final = 2
"""A spawned worker waits so many times as long for its master as the master does for it."""


# -- the look -------------------------------------------------------------------------------------
def look(draft: Draft) -> None:
    """Compare, ask, give up and dismiss, if it is time for that. Costs nothing while there is nothing."""
    scaler, now_ms = draft.scaler, draft.now_ms
    if not _is_of_interest(draft):
        scaler.next_ms = None
        return
    if scaler.next_ms is None:
        first_ms = now_ms + draft.config.scale_patience_ms
        scaler.next_ms = max(first_ms, scaler.last_ms + draft.config.scale_every_ms)
    if now_ms < scaler.next_ms:
        scaler.next_ms = min((scaler.next_ms, *_deadlines(draft, now_ms)))
        return
    scaler.last_ms = now_ms
    _give_up_late(draft)
    _dismiss_idle(draft)
    if draft.config.autoscale and not draft.storage.is_full:
        _ask_for_what_is_missing(draft)
    scaler.next_ms = min((now_ms + draft.config.scale_every_ms, *_deadlines(draft, now_ms)))


def _is_of_interest(draft: Draft) -> bool:
    state = draft.state
    waits = draft.config.autoscale and state.queue.size > 0
    return bool(waits or state.spawns or state.siblings)


def _deadlines(draft: Draft, now_ms: int) -> Iterator[int]:
    """What comes due by itself, none of it in the past: that was looked at, and waits for something."""
    moments = [_late_at_ms(draft, spawn) for spawn in draft.state.spawns.values()]
    moments += [at_ms + draft.config.sibling_idle_ms for at_ms in draft.scaler.idle.values()]
    return (at_ms for at_ms in moments if at_ms > now_ms)


def _late_at_ms(draft: Draft, spawn: Spawn) -> int:
    since_ms = max(spawn.asked_at_ms, draft.state.started_at_ms, draft.scaler.awake_ms)
    return since_ms + draft.config.spawn_timeout_ms


def _give_up_late(draft: Draft) -> None:
    for spawn in list(draft.state.spawns.values()):
        if draft.now_ms >= _late_at_ms(draft, spawn):
            seconds = draft.config.spawn_timeout_ms / 1000
            why = f"it had not joined after {seconds:g} s (SPAWN_TIMEOUT_MS)"
            _settle(draft, spawn, ScalingKind.TIMED_OUT, why)
            _tell_verdict(draft, spawn.parent_id, given_up=(spawn.number,))


def _settle(
    draft: Draft, spawn: Spawn, kind: ScalingKind, message: str = "", *, sibling_id: str = ""
) -> None:
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


def _tell_verdict(
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


# -- those that are idle ----------------------------------------------------------------------------
def _dismiss_idle(draft: Draft) -> None:
    state, idle = draft.state, draft.scaler.idle
    for worker_id in state.siblings:
        worker = state.workers[worker_id]
        if worker.held:
            idle.pop(worker_id, None)
        else:
            idle.setdefault(worker_id, draft.now_ms)
    for worker_id, since_ms in list(idle.items()):
        idle_ms = draft.now_ms - since_ms
        if idle_ms >= draft.config.sibling_idle_ms and _may_be_dismissed(draft, worker_id):
            why = f"it was idle for {idle_ms / 1000:.3g} s"
            draft.emit(SiblingDismissed(at_ms=draft.now_ms, worker_id=worker_id, why=why))
            _tell_to_leave(draft, worker_id)


def _may_be_dismissed(draft: Draft, worker_id: str) -> bool:
    worker, presence = draft.state.workers[worker_id], draft.roster.of(worker_id)
    kinship = worker.kinship
    is_its = kinship is not None and not kinship.by_hand and not kinship.dismissed
    is_here = worker.state is WorkerState.ONLINE and presence.link_id is not None
    return is_its and is_here and presence.takes_shutdown


def _tell_to_leave(draft: Draft, worker_id: str) -> None:
    draft.roster.of(worker_id).farewell = ShutDown(term=draft.state.term)
    leaving.tell_again(draft, worker_id)


# -- those that are missing -------------------------------------------------------------------------
class _Room:
    """What may be spawned on each host, as it is used up by what is asked for."""

    def __init__(self, draft: Draft) -> None:
        self._config = draft.config
        self._spawned: dict[str, int] = {}
        self._slots: dict[str, int] = {}
        state = draft.state
        self._left = draft.config.siblings_max - len(state.siblings) - len(state.spawns)
        for worker in state.workers.values():
            if worker.state is not WorkerState.LOST:
                self._add(worker.host, worker.slots, is_spawned=worker.kinship is not None)
        for spawn in state.spawns.values():
            self._add(spawn.host, spawn.slots, is_spawned=True)

    def _add(self, host: str, slots: int, *, is_spawned: bool) -> None:
        self._slots[host] = self._slots.get(host, 0) + slots
        self._spawned[host] = self._spawned.get(host, 0) + is_spawned

    def slots(self, parent: WorkerInfo, cores: int) -> int:
        """How many slots the next sibling of this one may have; 0: there may be none."""
        host = parent.host
        is_full = self._spawned.get(host, 0) >= self._config.siblings_per_host
        if is_full or self._left <= 0:
            return 0
        left = cores * self._config.slots_per_core - self._slots.get(host, 0)
        return max(0, min(parent.slots, left))

    def take(self, parent: WorkerInfo, slots: int) -> None:
        """One more has been asked for."""
        self._add(parent.host, slots, is_spawned=True)
        self._left -= 1

    def spawned(self, host: str) -> int:
        """How many spawned workers there are, or will be, on a host."""
        return self._spawned.get(host, 0)


def _ask_for_what_is_missing(draft: Draft) -> None:
    room = _Room(draft)
    for key, ready in list(draft.state.queue.classes.items()):
        if key.slots and _has_waited(draft, ready):
            _serve(draft, room, key, ready)


def _has_waited(draft: Draft, ready: ReadyClass) -> bool:
    """Whether its oldest job waits for longer than the next free slot is away, as a rule."""
    since_ms = min((job.ready_at_ms for job in ready.heads()), default=draft.now_ms)
    return draft.now_ms - since_ms >= draft.config.scale_patience_ms


def _serve(draft: Draft, room: _Room, key: ClassKey, ready: ReadyClass) -> None:
    """Ask for siblings until what waits in this class has slots to come, or there is no room."""
    state = draft.state
    to_come = [one.slots for one in state.spawns.values() if fits(key.skills, one.skills)]
    capacity = _free_slots(draft, key) + sum(to_come)
    for parent in _parents(draft, room, key.skills):
        cores = draft.roster.of(parent.worker_id).cores
        fit = sum(
            1 for _ in islice(_that_a_sibling_could_have(draft, ready, parent), JOBS_LOOKED_AT)
        )
        missing = fit * key.slots - capacity
        while missing > 0:
            slots = room.slots(parent, cores)
            if slots < key.slots:
                break
            cause = (
                f"{ready.size} {'job waits' if ready.size == 1 else 'jobs wait'} for "
                f"{'+'.join(key.skills) or 'any worker'}, {capacity} slots are free or to come"
            )
            _ask(draft, parent, slots=slots, skills=parent.skills, cause=cause)
            room.take(parent, slots)
            capacity += slots
            missing -= slots


def _free_slots(draft: Draft, key: ClassKey) -> int:
    workers = draft.state.workers
    return sum(
        workers[worker_id].slots - workers[worker_id].used
        for offered, entries in draft.roster.free.items()
        if fits(key.skills, offered)
        for _, _, worker_id in entries
    )


def _parents(draft: Draft, room: _Room, skills: tuple[str, ...]) -> list[WorkerInfo]:
    """Who may be asked: those that nobody spawned first, on hosts with few spawned workers."""
    found = [
        worker
        for worker in draft.state.workers.values()
        if fits(skills, worker.skills) and _may_spawn(draft, worker) and _is_calm(draft, worker)
    ]
    found.sort(key=lambda one: (one.kinship is not None, room.spawned(one.host), one.name))
    return found


def _may_spawn(draft: Draft, worker: WorkerInfo) -> bool:
    presence = draft.roster.of(worker.worker_id)
    is_going = worker.kinship is not None and worker.kinship.dismissed
    is_here = worker.state is WorkerState.ONLINE and presence.link_id is not None
    return is_here and presence.cores > 0 and not is_going and presence.farewell is None


def _is_calm(draft: Draft, worker: WorkerInfo) -> bool:
    """Whether its host can bear it, and nothing that it spawned has failed just now."""
    status = draft.roster.of(worker.worker_id).status
    if status is not None and _is_short_of_memory(status):
        return False
    if not worker.spawns_failed:
        return True
    doubled = min(worker.spawns_failed - 1, PAUSES_DOUBLED)
    pause_ms = draft.config.scale_every_ms << doubled
    return draft.now_ms >= worker.spawn_failed_at_ms + pause_ms


def _is_short_of_memory(status: WorkerStatus) -> bool:
    total = status.memory_total_bytes
    return total > 0 and status.memory_used_bytes * 100 > total * MEMORY_PERCENT


def _that_a_sibling_could_have(
    draft: Draft, ready: ReadyClass, parent: WorkerInfo
) -> Iterator[Job]:
    """Jobs of the class that a worker on the parent's host and in its folder could be given."""
    state = draft.state
    for line in ready.lines:
        for job in () if line is None else line.jobs:
            if job.state is not JobState.QUEUED:
                continue
            is_own = state.instances.get((job.run_id, job.spec.id)) is job
            run = None if is_own else state.runs.get(job.run_id)
            if rollout.has_to_wait(state, state.runs.get(job.run_id), job):
                continue
            section = job.spec.service
            if section is not None and section.port and _is_held(state, parent, section.port):
                continue
            if sharing.is_at_home(run, job, parent):
                yield job


def _is_held(state: State, parent: WorkerInfo, port: int) -> bool:
    """Whether a service has this fixed port on the host: a sibling could not have it as well."""
    return any(
        one.host == parent.host and services.holder_of(state, one, port) is not None
        for one in state.workers.values()
    )


# -- asking -----------------------------------------------------------------------------------------
def _ask(
    draft: Draft,
    parent: WorkerInfo,
    *,
    slots: int,
    skills: tuple[str, ...],
    cause: str,
    port: int = 0,
    by_hand: bool = False,
) -> Spawn:
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
    """The next port above the parent's that no worker of its host has, or is to have."""
    asked = {spawn.port for spawn in state.spawns.values() if spawn.host == parent.host}
    port = min(parent.port + 1, PORT_MAX)
    while (port in asked or f"{parent.host}:{port}" in state.names) and port < PORT_MAX:
        port += 1
    return port


# -- those that come --------------------------------------------------------------------------------
def why_not_let_in(draft: Draft, join: Join, known: WorkerInfo | None) -> str:
    """Why a worker that says to be a sibling is none that is wanted; empty if it is, or says no such thing."""
    number = 0 if join.kin is None else join.kin.number
    if join.kin is None or not number:
        return ""
    if number not in draft.state.spawns:
        kinship = None if known is None else known.kinship
        if kinship is not None and kinship.number == number:
            return ""
        return f"the worker that was asked for under number {number} is not waited for any more"
    is_proven = join.kin.proof == _proof(draft, number)
    return "" if is_proven else f"it does not show that it was asked for under number {number}"


def registered(draft: Draft, join: Join) -> None:
    """A process has just been let in; perhaps it is one that was asked for."""
    spawn = None if join.kin is None else draft.state.spawns.get(join.kin.number)
    if spawn is not None:
        _settle(draft, spawn, ScalingKind.JOINED, sibling_id=join.worker_id)
        _tell_verdict(draft, spawn.parent_id, settled=(spawn.number,))


def arrived(draft: Draft, join: Join) -> None:
    """What a worker that has joined can do; and one that was told to leave may not have heard."""
    draft.roster.of(join.worker_id).cores = 0 if join.kin is None else join.kin.cores
    kinship = draft.state.workers[join.worker_id].kinship
    if kinship is not None:
        draft.scaler.idle.setdefault(join.worker_id, draft.now_ms)
        if kinship.dismissed and not join.leaving and join.takes_shutdown:
            draft.roster.of(join.worker_id).farewell = ShutDown(term=draft.state.term)


def reconcile(draft: Draft, link_id: int, join: Join) -> None:
    """Compare what it was told to spawn with what it says: an order that never came is sent again."""
    if join.kin is None or not join.kin.cores:
        return
    heard_of(draft, link_id, join.worker_id, join.kin.spawned)
    told = {report.number for report in join.kin.spawned}
    for spawn in list(draft.state.spawns.values()):
        if spawn.parent_id == join.worker_id and spawn.number not in told:
            _order(draft, spawn)


def heard_of(draft: Draft, link_id: int, worker_id: str, reports: tuple[SpawnReport, ...]) -> None:
    """What a worker says of its siblings; of those that are wanted no more it is told so."""
    del link_id
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
                _settle(draft, spawn, ScalingKind.FAILED, report.message)
                settled.append(report.number)
        elif report.ended or report.number in joined:
            settled.append(report.number)
        else:
            given_up.append(report.number)
    _tell_verdict(draft, worker_id, settled=tuple(settled), given_up=tuple(given_up))


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
    spawn = _ask(
        draft, parent, slots=slots, skills=skills, cause=cause, port=request.port, by_hand=True
    )
    draft.reply(origin, SpawnOrdered(number=spawn.number, parent=spawn.parent, port=spawn.port))


def _parent_for(draft: Draft, origin: Origin, request: SpawnWorker) -> WorkerInfo | None:
    """The worker that shall do it; None when that has been refused."""
    if request.parent:
        named = leaving.find(draft, origin, request.parent)
        if named is not None and not _may_spawn(draft, named):
            text = (
                f"worker {named.name} cannot spawn another one now: it is {named.state}, has no link, "
                "is leaving, or is of a version that does not know how"
            )
            draft.refuse(origin, ErrorCode.CONFLICT, text, details={"worker": named.name})
            return None
        return named
    able = [worker for worker in draft.state.workers.values() if _may_spawn(draft, worker)]
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
    if len(state.siblings) + len(state.spawns) >= most:
        return (
            ErrorCode.LIMIT_EXCEEDED,
            f"{most} workers (SIBLINGS) have been spawned, or are about to be; shut one down first",
        )
    asked = any(one.port == port and one.host == parent.host for one in state.spawns.values())
    holder = state.workers.get(state.names.get(f"{parent.host}:{port}", ""))
    if asked or (holder is not None and holder.state is not WorkerState.LOST):
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
