"""Scaling: when a worker is asked to spawn a sibling on its host, when one is given up, when one goes.

Now and then the queue, class by class, is compared with what can serve it. What is missing is asked for
under a number that is a fence: the worker spawns once for each, and the new one is let in only with the
proof that the order carried. One that does not come is given up, killed by the worker that spawned it, and
its worker is asked again only after a pause. One that is idle for long is told to leave as any worker is.
Also here: workers that a person asks for. Called by ``core``, ``workers`` and ``asking``.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Final

from msgspec.structs import replace

from titan_master.core import conditions, leaving, placement, siblings
from titan_master.core.events import SiblingDismissed
from titan_master.core.state import ClassKey, Job, ReadyClass, Spawn, WorkerInfo, fits
from titan_master.core.turn import Draft
from titan_proto.messages import ShutDown, WorkerStatus
from titan_proto.states import JobState, ScalingKind, WorkerState

JOBS_LOOKED_AT: Final = 1_000
"""So many jobs of a class are asked whether a sibling could have them: it is no matter of exactness."""
MEMORY_PERCENT: Final = 90
"""On a host with so much of its memory in use nothing is spawned because of the queue."""
NOTHING_COUNTED: Final = {"cpu": 0, "memory": 0}
"""What a sibling has of what jobs count out: on its host the one that was there first gives it."""
PAUSES_DOUBLED: Final = 6
"""The pause after a spawn that failed doubles with each one that follows it, so often."""


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
            siblings.settle(draft, spawn, ScalingKind.TIMED_OUT, why)
            siblings.tell_verdict(draft, spawn.parent_id, given_up=(spawn.number,))


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
        self._left = draft.config.siblings_max - siblings.count(state)
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
        # What waits for its concurrency group would wait beside any number of workers.
        is_one_too_many = key.terms is not None and conditions.is_group_full(
            draft.state, key.terms, key.run_id
        )
        if key.slots and not is_one_too_many and _has_waited(draft, ready):
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
        if room.slots(parent, cores) < key.slots:
            continue  # before any job is looked at: this is the rule on a cluster that is full
        fit = sum(1 for _ in _that_a_sibling_could_have(draft, ready, parent))
        missing = fit * key.slots - capacity
        while missing > 0:
            slots = room.slots(parent, cores)
            if slots < key.slots:
                break
            cause = (
                f"{ready.size} {'job waits' if ready.size == 1 else 'jobs wait'} for "
                f"{'+'.join(key.skills) or 'any worker'}, {capacity} slots are free or to come"
            )
            siblings.ask(draft, parent, slots=slots, skills=parent.skills, cause=cause)
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
        if fits(skills, worker.skills)
        and siblings.may_spawn(draft, worker)
        and _is_calm(draft, worker)
    ]
    found.sort(key=lambda one: (one.kinship is not None, room.spawned(one.host), one.name))
    return found


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
    """Of the class's first jobs those that a worker on the parent's host and in its folder could be given."""
    state = draft.state
    sibling = replace(parent, worker_id="", port=0, resources=NOTHING_COUNTED, held={}, taken={})
    waiting = (job for line in ready.lines if line is not None for job in line.jobs)
    for job in islice(waiting, JOBS_LOOKED_AT):
        if (
            job.state is JobState.QUEUED
            and not conditions.has_to_wait(state, state.runs.get(job.run_id), job)
            and placement.could_have(state, sibling, job)
            and not _is_held_up(draft, parent, job)
        ):
            yield job


def _is_held_up(draft: Draft, parent: WorkerInfo, job: Job) -> bool:
    """Whether a service has the fixed port that it wants, where a sibling would listen as well."""
    section, state = job.spec.service, draft.state
    return (
        section is not None
        and section.port > 0
        and conditions.holder_of(state, parent, section.port) is not None
    )
