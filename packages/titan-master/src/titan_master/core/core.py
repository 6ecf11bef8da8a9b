"""Core: the face of the master's mind. It routes inputs to who decides, and nothing else.

The engine calls it: ``start`` once, then ``handle`` for each input of a batch, ``settle``,
``drain``; it sleeps until ``next_deadline_ms``. Nothing here fails for what came from outside.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from titan_master.core import (
    admission,
    asking,
    gates,
    lifecycle,
    moving,
    placement,
    scaling,
    schedules,
    services,
    workers,
)
from titan_master.core.effects import OpenLog
from titan_master.core.events import ClusterFounded, MasterStarted
from titan_master.core.inputs import (
    Asked,
    ExchangeDropped,
    Heard,
    Input,
    LinkClosed,
    ReportsArrived,
    RunSubmitted,
    ScheduleSubmitted,
    SpawnsReported,
    StorageChanged,
    WorkerArrived,
    WorkerHeard,
    WorkerLeft,
)
from titan_master.core.state import State
from titan_master.core.timers import JobsDue, OvertimeDue, ScheduleDue, ServiceDue
from titan_master.core.turn import CoreConfig, Draft, Turn
from titan_proto.ids import AttemptRef
from titan_proto.messages import WorkerStatus
from titan_proto.states import WorkerState

__all__ = ["Core", "CoreConfig", "Turn"]


class Core:
    """One leadership's mind over one state. Deterministic: equal inputs, equal turns."""

    def __init__(self, state: State, config: CoreConfig) -> None:
        self.state: Final = state
        self._draft: Final = Draft(state, config)

    def start(
        self,
        now_ms: int,
        *,
        term: int,
        software: str,
        cluster_id: str,
        cluster_name: str,
        fence: int = 0,
    ) -> None:
        """The first turn of a process: take the lead, and derive again what is not durable.

        Args:
            now_ms: the time.
            term: of this leadership; greater than every one before.
            software: this master's name and version.
            cluster_id: for the first start of all; a founded cluster keeps its own.
            cluster_name: likewise.
            fence: every fence from now on is above this; for a state that may have forgotten some.
        """
        draft = self._at(now_ms)
        if not self.state.cluster_id:
            draft.emit(ClusterFounded(at_ms=now_ms, cluster_id=cluster_id, name=cluster_name))
        told_ms = self.state.lost_after_ms
        lost_after_ms = draft.config.lost_after_ms
        draft.emit(
            MasterStarted(
                at_ms=now_ms,
                term=term,
                software=software,
                lost_after_ms=lost_after_ms,
                fence=fence,
            )
        )
        for run in self.state.runs.values():
            draft.timers.delay_run(run)
            lifecycle.watch_overtime(draft, run)
            lifecycle.find_undecided(draft, run)
        services.watch_holds(draft)
        for name in self.state.schedules:
            draft.timers.watch_schedule(name, draft.now_ms)
        # Workers go by the lease that they were told last until they have joined again: a shorter
        # one must not let this master give away what is theirs still.
        workers.fresh_leases(draft, longer_ms=max(0, told_ms - lost_after_ms))
        for worker in self.state.workers.values():
            for (run_id, job_id), number in worker.held.items():
                ref = AttemptRef(run_id, job_id, number)
                draft.require(OpenLog(ref=ref, worker_id=worker.worker_id))

    def time_jumped(self, now_ms: int) -> None:
        """Time has passed for the wall and not for this process: nobody was silent meanwhile.

        Nor has what was held back, lest it run twice, been held for as long as it seems.
        """
        draft = self._at(now_ms)
        workers.fresh_leases(draft)
        draft.scaler.awake_ms = draft.now_ms
        draft.held_until_ms = draft.now_ms + draft.config.old_lease_ms

    def handle(self, item: Input, now_ms: int) -> None:
        """Take in one fact from outside."""
        _HANDLERS[type(item)](self._at(now_ms), item)

    def hear(self, link_id: int, status: WorkerStatus, now_ms: int) -> Heard:
        """A heartbeat, the moment it is received: it must not wait for a commit that is under way.

        Changes nothing durable. What the answer depends on is in memory ahead of the disk: a worker
        that is being declared lost is not acknowledged, though nobody has heard of it yet.
        """
        worker_id = self._draft.roster.hear(link_id, status, now_ms)
        if worker_id is None:
            return Heard.STRANGER
        worker = self.state.workers[worker_id]
        settled = WorkerState.DRAINING if status.leaving else WorkerState.ONLINE
        return Heard.KNOWN if worker.state is settled else Heard.CHANGING

    def settle(self, now_ms: int) -> None:
        """Do what time and free slots allow: due deadlines, conditions, placement; bounded work."""
        draft = self._at(now_ms)
        due_ms = draft.timers.next_ms()
        if due_ms is not None and now_ms - due_ms > draft.config.silent_after_ms:
            # It should have been called then: this process stood still, and so could hear nobody.
            workers.fresh_leases(draft)
            draft.scaler.awake_ms = draft.now_ms
        put_off = []
        for _ in range(draft.config.deadlines_max):
            due = draft.timers.pop_due(draft.now_ms)
            if due is None:
                break
            if isinstance(due, JobsDue):
                lifecycle.delays_over(draft, due)
                gates.expire(draft, due)
            elif isinstance(due, OvertimeDue):
                lifecycle.time_over(draft, due)
            elif isinstance(due, ScheduleDue):
                if not schedules.look_at(draft, due.name):
                    put_off.append(due.name)
            elif isinstance(due, ServiceDue):
                services.hold_over(draft, due)
            else:
                workers.look_at(draft, due.worker_id)
        for name in put_off:
            # Not before: this turn would look at it again.
            draft.timers.watch_schedule(name, draft.now_ms)
        lifecycle.decide(draft)
        moving.look_again(draft)
        placement.place(draft)
        scaling.look(draft)

    def drain(self) -> Turn:
        """What has come of it; the next turn starts empty."""
        return self._draft.take()

    def next_deadline_ms(self) -> int | None:
        """When to call `settle` next if nothing comes in; in the past when work was left over."""
        if self._draft.placement_due or self._draft.undecided:
            return self._draft.now_ms
        due = (self._draft.timers.next_ms(), self._draft.scaler.next_ms)
        return min((at_ms for at_ms in due if at_ms is not None), default=None)

    @property
    def culprit(self) -> str:
        """The digest of the schedule that was being dealt with when an invariant broke, if one was."""
        return self._draft.culprit

    @property
    def is_storage_full(self) -> bool:
        """Whether nothing new may begin for want of room on the disk."""
        return self._draft.storage.is_full

    def knows_key(self, key: str, now_ms: int) -> bool:
        """Whether a submission with this key would be recognised, or refused. Reads only."""
        return admission.remembered(self.state, key, now_ms) is not None

    def may_log(self, link_id: int, ref: AttemptRef) -> bool:
        """Whether the worker on this link holds, or has held, that newest attempt. Reads only."""
        attempt = self.state.find_attempt(ref.run_id, ref.job_id)
        return (
            attempt is not None
            and attempt.number == ref.number
            and attempt.worker_id == self._draft.roster.worker_on(link_id)
        )

    def _at(self, now_ms: int) -> Draft:
        self._draft.now_ms = max(self._draft.now_ms, now_ms)
        return self._draft


def _exchange_dropped(draft: Draft, item: ExchangeDropped) -> None:
    draft.waiters.drop(item.origin)


def _link_closed(draft: Draft, item: LinkClosed) -> None:
    draft.waiters.drop_link(item.link_id)
    workers.link_closed(draft, item.link_id)


def _storage_changed(draft: Draft, item: StorageChanged) -> None:
    draft.storage.looked(item)
    draft.placement_due = True


_HANDLERS: Final[dict[type[Any], Callable[[Draft, Any], None]]] = {
    RunSubmitted: admission.submit,
    ScheduleSubmitted: schedules.put,
    Asked: asking.ask,
    ExchangeDropped: _exchange_dropped,
    WorkerArrived: workers.arrive,
    WorkerHeard: workers.heard,
    ReportsArrived: workers.reports_arrive,
    SpawnsReported: workers.spawns_reported,
    WorkerLeft: workers.leave,
    LinkClosed: _link_closed,
    StorageChanged: _storage_changed,
}
