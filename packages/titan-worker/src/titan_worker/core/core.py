"""WorkerCore: routes inputs, keeps the link's and the heartbeat's time, and nothing else.

What happens to attempts is decided in ``attempts``, whom to believe in ``reconcile``. Between
LinkUp and Joined only Join is sent. Called by the engine (and by the simulator): ``handle`` for
each input, ``settle`` once, ``drain``; commit the records, then release the effects in order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any, Final

from msgspec import Struct, field

from titan_proto.limits import (
    DRAIN_TIMEOUT_MS,
    DRAIN_TIMEOUT_MS_DEFAULT,
    REPORT_BYTES_PER_FRAME,
    REPORTS_PER_FRAME,
)
from titan_proto.messages import (
    AttemptOrder,
    AttemptReports,
    HeartbeatAck,
    Join,
    Joined,
    Kin,
    Leave,
    ReportAcks,
    ShutDown,
    SpawnReports,
    SpawnSibling,
    SpawnVerdicts,
    StartAttempts,
    StopAttempts,
    WorkerStatus,
)
from titan_proto.messages.worker import AttemptReport
from titan_proto.outputs import size_of
from titan_proto.states import ExitReason
from titan_worker.core.attempts import Attempts
from titan_worker.core.check import check
from titan_worker.core.effects import Exit, HangUp, Send
from titan_worker.core.inputs import (
    Exited,
    FromMaster,
    Input,
    LinkDown,
    LinkUp,
    ProbeAnswered,
    ProbeFailed,
    SiblingBegan,
    SiblingGone,
    Spawned,
    SpawnFailed,
    Started,
    StopRequested,
    UsageSampled,
    WorkspaceFailed,
    WorkspaceReady,
)
from titan_worker.core.lease import Lease
from titan_worker.core.reconcile import Standing, standing
from titan_worker.core.records import ClusterBound
from titan_worker.core.siblings import Siblings
from titan_worker.core.state import WorkerState
from titan_worker.core.turn import Draft, Turn

__all__ = ["BornAs", "Turn", "WorkerConfig", "WorkerCore"]

MOVE_UNHEARD_MS: Final = 5_000
"""So long after its link has gone a worker that leaves keeps its services up for a master to move."""
SIBLING_ALONE_MS: Final = 10 * 60_000
"""A worker that another one has spawned leaves when it has been without a master for so long."""
HEARTBEAT_MIN_MS: Final = 100
"""However impatient a master is: with 0 the worker would never sleep."""


class BornAs(Struct, frozen=True, kw_only=True):
    """Of a worker that another one has spawned: what it must show, and how long it may be alone."""

    number: int
    proof: str
    join_within_ms: int
    """It ends if no master has taken it in so long after its start ..."""
    alone_ms: int = SIBLING_ALONE_MS
    """... and leaves when it has been without one for so long later on."""


class WorkerConfig(Struct, frozen=True, kw_only=True):
    """Who this worker is and what it offers. The boot id comes with ``Started``."""

    worker_id: str
    incarnation: int
    host: str
    port: int
    slots: int
    skills: tuple[str, ...]
    software: str = ""
    pid: int = 0
    drain_ms: int = DRAIN_TIMEOUT_MS_DEFAULT
    """How long running tasks may go on once the worker is told to leave; 0: not at all."""
    leave_after_ms: int = 15_000
    """How long, beyond the longest stop grace, an ending worker waits for its ends to be heard."""
    workspace: str = ""
    """Id of the folder that its jobs run in."""
    cores: int = 0
    """Of its host; 0: it does not spawn others."""
    born_as: BornAs | None = None
    """Of one that another worker has spawned."""
    resources: dict[str, int] = field(default_factory=dict)
    """What jobs can take of it."""
    network: str = ""
    """Id of the network that its jobs listen in."""


class Link(Enum):
    """The one link to a master."""

    DOWN = "DOWN"
    JOINING = "JOINING"
    UP = "UP"


class WorkerCore:
    """The worker's mind. One per process, fed by one engine."""

    def __init__(self, state: WorkerState, config: WorkerConfig) -> None:
        self.state = state
        self._config = config
        self._draft = Draft(state)
        self._lease = Lease()
        self._attempts = Attempts(self._draft, config.slots, self._lease)
        self._siblings = Siblings(self._draft)
        # Of one that was spawned: since when it is without a master, and whether it ever had one.
        self._alone_ms: int | None = None
        self._was_taken_in = False
        self._boot_id = ""
        self._link = Link.DOWN
        # Whether a master is there that moves services, and tells what of them has to stop ...
        self._moves_services = False
        # ... and since when it cannot be told that this worker leaves.
        self._unlinked_ms = 0
        self._heartbeat_ms = 0
        self._next_beat_ms = 0
        self._newest: AttemptOrder | None = None
        """Of the orders that came on this link."""
        self._usage = UsageSampled(cpu_permille=0, memory_used_bytes=0, memory_total_bytes=0)
        # Told to leave: running tasks may go on until then, ...
        self._drain_until_ms: int | None = None
        # ... and that is over: everything is told to stop, and its end must be heard by then.
        self._leave_by_ms: int | None = None
        self._at_once = False
        self._gone = False
        self._routes: dict[type, Callable[[Any, int], None]] = {
            Started: self._started,
            LinkUp: self._link_up,
            LinkDown: self._link_down,
            FromMaster: self._from_master,
            WorkspaceReady: lambda item, _: self._attempts.workspace_ready(item.ref),
            WorkspaceFailed: lambda item, now_ms: self._attempts.workspace_failed(
                item.ref, item.message, now_ms
            ),
            Spawned: self._attempts.spawned,
            SpawnFailed: lambda item, now_ms: self._attempts.spawn_failed(
                item.ref, item.message, now_ms
            ),
            Exited: self._attempts.exited,
            ProbeAnswered: self._attempts.probe_answered,
            ProbeFailed: lambda item, now_ms: self._attempts.probe_failed(
                item.ref, item.message, now_ms
            ),
            UsageSampled: self._sampled,
            SiblingBegan: lambda item, _: self._siblings.began(item),
            SiblingGone: lambda item, _: self._siblings.gone(item),
            StopRequested: self._stop_requested,
            # the master's messages
            Joined: self._joined,
            StartAttempts: self._start,
            StopAttempts: self._stop,
            ReportAcks: self._acked,
            HeartbeatAck: self._heartbeat_acked,
            ShutDown: self._shut_down,
            SpawnSibling: self._spawn_sibling,
            SpawnVerdicts: self._hear_verdicts,
        }

    # -- the turn -------------------------------------------------------------------------------
    def handle(self, item: Input, now_ms: int) -> None:
        """Take in one input."""
        self._routes[type(item)](item, now_ms)

    def settle(self, now_ms: int) -> None:
        """Once per turn, after its inputs: due timers, free slots, then everything to be said."""
        if self._gone:
            return
        self._leave_if_alone(now_ms)
        self._end_drain_if_due(now_ms)
        self._attempts.stop_overdue(now_ms)
        self._attempts.kill_overdue(now_ms)
        self._attempts.restart_due(now_ms)
        self._attempts.fill_slots(now_ms)
        self._give_up_silent(now_ms)
        if self._link is Link.UP:
            reports = self._attempts.take_reports()
            for part in _frames(reports):
                self._send(AttemptReports(reports=part))
            spawned = self._siblings.take_reports()
            if spawned:
                self._send(SpawnReports(reports=spawned))
            if now_ms >= self._next_beat_ms:
                self._beat(now_ms)
        if self._leave_by_ms is not None:
            self._leave_if_done(self._leave_by_ms, now_ms)

    def drain(self) -> Turn:
        """What the inputs since the last drain came to."""
        return self._draft.finish()

    def next_deadline_ms(self) -> int | None:
        """When `settle` must be called even if nothing comes in."""
        if self._gone:
            return None
        # Its drain's end is no reason to wake up once it is over.
        drain_until_ms = self._drain_until_ms if self._leave_by_ms is None else None
        due = [self._attempts.next_due_ms(), drain_until_ms, self._leave_by_ms]
        due.append(self._alone_until_ms())
        if drain_until_ms is not None and self._moves_services and self._link is not Link.UP:
            due.append(self._unlinked_ms + MOVE_UNHEARD_MS)
        if self._link is not Link.DOWN:
            due.append(self._lease.silent_at_ms())
        if self._link is Link.UP:
            due.append(self._next_beat_ms)
        return min((at_ms for at_ms in due if at_ms is not None), default=None)

    @property
    def is_leaving(self) -> bool:
        """Whether it has been told to leave."""
        return self._drain_until_ms is not None

    @property
    def has_room(self) -> bool:
        """Whether a slot is free."""
        return self._attempts.occupied < self._config.slots

    def check(self) -> None:
        """Raise InvariantViolation if anything here contradicts itself. Between turns only."""
        check(self.state)
        self._attempts.check()

    # -- the process and its link ---------------------------------------------------------------
    def _started(self, item: Started, now_ms: int) -> None:
        self._boot_id = item.boot_id
        self._alone_ms = now_ms
        self._attempts.recover(now_ms)
        self._siblings.recover(item.boot_id)

    def _link_up(self, item: LinkUp, now_ms: int) -> None:
        self._link = Link.JOINING
        self._newest = None
        if not self._accept(item.cluster_id, item.term, now_ms):
            return
        config = self._config
        self._lease.join(now_ms)
        kin = self._kin()
        if kin is not None:
            self._send(kin)
        self._send(
            Join(
                worker_id=self._worker_id(),
                host=config.host,
                port=config.port,
                incarnation=config.incarnation,
                boot_id=self._boot_id,
                software=config.software,
                slots=config.slots,
                skills=config.skills,
                held=self._attempts.inventory(),
                pid=config.pid,
                leaving=self.is_leaving,
                takes_shutdown=True,
                workspace=config.workspace,
                resources=config.resources,
                network=config.network,
            )
        )

    def _kin(self) -> Kin | None:
        config, spawned = self._config, self._siblings.link_up()
        born_as = config.born_as
        if not config.cores and born_as is None:
            return None
        return Kin(
            cores=config.cores,
            number=0 if born_as is None else born_as.number,
            proof="" if born_as is None else born_as.proof,
            spawned=spawned,
        )

    def _worker_id(self) -> str:
        """Another one in each cluster that it goes over to, and in one that it comes back to.

        What was held for a cluster is dropped, reported or not, when the worker leaves it. Under
        its old id the worker would seem never to have taken it, and be told to run it again under
        the same number.
        """
        left = self.state.clusters_left
        return f"{self._config.worker_id}-{left}" if left else self._config.worker_id

    def _link_down(self, item: LinkDown, now_ms: int) -> None:
        del item
        self._link_lost(now_ms)

    def _link_lost(self, now_ms: int) -> None:
        if self._link is Link.UP:
            self._unlinked_ms = self._alone_ms = now_ms
        self._link = Link.DOWN

    def _sampled(self, item: UsageSampled, now_ms: int) -> None:
        del now_ms
        self._usage = item

    def _stop_requested(self, item: StopRequested, now_ms: int) -> None:
        is_urgent = item.at_once or self.is_leaving
        self._at_once = self._at_once or item.at_once
        self._drain(0 if is_urgent else self._config.drain_ms, now_ms)

    def _shut_down(self, message: ShutDown, now_ms: int) -> None:
        if self._accept(self.state.cluster_id, message.term, now_ms):
            asked_ms = self._config.drain_ms if message.drain_ms is None else message.drain_ms
            self._drain(max(0, min(asked_ms, DRAIN_TIMEOUT_MS)), now_ms)

    def _drain(self, drain_ms: int, now_ms: int) -> None:
        """Leave: nothing new, and what runs gets that much time. Told again, the sooner end counts."""
        until_ms = now_ms + drain_ms
        if self._drain_until_ms is not None:
            self._drain_until_ms = min(self._drain_until_ms, until_ms)
            return
        self._drain_until_ms = until_ms
        # Said before anything ends: what the master queues again by that must not come back here.
        if self._link is Link.UP:
            self._beat(now_ms)
        if drain_ms:
            self._attempts.spare_begun(now_ms)

    def _alone_until_ms(self) -> int | None:
        """Until when a worker that was spawned waits for a master; None: it need not, or has one."""
        born_as = self._config.born_as
        if born_as is None or self._alone_ms is None or self.is_leaving:
            return None
        return self._alone_ms + (born_as.alone_ms if self._was_taken_in else born_as.join_within_ms)

    def _leave_if_alone(self, now_ms: int) -> None:
        """Nobody starts a spawned worker again, and nobody else ends it: it must not stay for ever."""
        until_ms = self._alone_until_ms()
        if until_ms is None or now_ms < until_ms:
            return
        if self._was_taken_in:
            self._drain(self._config.drain_ms, now_ms)
        else:
            self._draft.ask(Exit())
            self._gone = True

    def _end_drain_if_due(self, now_ms: int) -> None:
        """Stop what is left once nothing goes on that is waited for, or the time for that is over.

        Services are not waited for by a master of before, or by one that cannot be heard: until here
        each of them answers, and from here on all of them may come up elsewhere.
        """
        until_ms = self._drain_until_ms
        if until_ms is None or self._leave_by_ms is not None:
            return
        if self._link is not Link.UP and now_ms >= self._unlinked_ms + MOVE_UNHEARD_MS:
            self._moves_services = False
        is_waited_for = self._attempts.has_tasks
        if self._moves_services:
            is_waited_for = is_waited_for or self._attempts.has_services
        if now_ms >= until_ms or not is_waited_for:
            grace_ms = self._attempts.stop_grace_ms()
            self._leave_by_ms = now_ms + grace_ms + self._config.leave_after_ms
            self._attempts.stop_all(ExitReason.WORKER_LEFT, now_ms)

    # -- what the master says -------------------------------------------------------------------
    def _from_master(self, item: FromMaster, now_ms: int) -> None:
        # After a hang-up a link may still deliver what it had received before.
        if self._link is not Link.DOWN:
            self._lease.heard(now_ms)
            self._routes[type(item.message)](item.message, now_ms)

    def _joined(self, message: Joined, now_ms: int) -> None:
        if not self._accept(self.state.cluster_id, message.term, now_ms):
            return
        self._link = Link.UP
        self._alone_ms, self._was_taken_in = None, True
        self._moves_services = message.moves_services
        self._heartbeat_ms = max(message.heartbeat_ms, HEARTBEAT_MIN_MS)
        self._next_beat_ms = now_ms + self._heartbeat_ms
        if self.is_leaving:
            # Perhaps it was not so yet when Join was sent.
            self._beat(now_ms)
        for ref in message.stop:
            self._attempts.stop(ref, ExitReason.CANCELLED, now_ms)
        self._attempts.forget(message.forget)
        self._attempts.report_everything()
        self._lease.joined(message)
        self._attempts.renew_leases()

    def _start(self, message: StartAttempts, now_ms: int) -> None:
        if not self._accept(self.state.cluster_id, message.term, now_ms):
            return
        for order in message.orders:
            if self._is_repeated(order):
                continue
            if not self.is_leaving:
                self._attempts.take(order, now_ms)
            elif not self._gone:
                # It was sent before the master could know. After the goodbye there is no need to
                # say so: what has not ended by then is given away.
                self._attempts.decline(order, now_ms)

    def _is_repeated(self, order: AttemptOrder) -> bool:
        """Whether this is an order of this link once more, of which nothing is remembered.

        A master sends the orders of one link by their fences. One that comes behind a newer one has
        been here before, and what is not held any more is over and acknowledged: it must not run
        for a second time.
        """
        newest = self._newest
        if newest is None or order.fence > newest.fence:
            self._newest = order
            return False
        is_behind = order.fence < newest.fence or order.ref == newest.ref
        return is_behind and order.ref not in self.state.held

    def _stop(self, message: StopAttempts, now_ms: int) -> None:
        if not self._accept(self.state.cluster_id, message.term, now_ms):
            return
        for ref in message.refs:
            self._attempts.stop(ref, message.reason, now_ms)

    def _spawn_sibling(self, message: SpawnSibling, now_ms: int) -> None:
        if self._accept(self.state.cluster_id, message.term, now_ms):
            self._siblings.take(message, is_leaving=self.is_leaving)

    def _hear_verdicts(self, message: SpawnVerdicts, now_ms: int) -> None:
        if self._accept(self.state.cluster_id, message.term, now_ms):
            self._siblings.hear(message)

    def _acked(self, message: ReportAcks, now_ms: int) -> None:
        del now_ms
        self._attempts.forget(message.refs)

    def _heartbeat_acked(self, message: HeartbeatAck, now_ms: int) -> None:
        del now_ms
        if self._link is Link.UP and self._lease.acked(message):
            self._attempts.renew_leases()

    def _accept(self, cluster_id: str, term: int, now_ms: int) -> bool:
        """Whether this master may be obeyed; remembers it if it is news, hangs up if it is old."""
        known = standing(self.state, cluster_id, term)
        if known is Standing.KNOWN:
            return True
        if known is Standing.OLDER:
            self._hang_up(
                f"this master leads under term {term}, but term {self.state.term} has begun", now_ms
            )
            return False
        self._draft.emit(ClusterBound(cluster_id=cluster_id, term=term))
        if known is Standing.STRANGER:
            self._attempts.disown(now_ms)
            self._siblings.disown()
        return True

    # -- what the master is told ----------------------------------------------------------------
    def _send(
        self, message: AttemptReports | Join | Kin | Leave | SpawnReports | WorkerStatus
    ) -> None:
        self._draft.ask(Send(message=message))

    def _hang_up(self, reason: str, now_ms: int) -> None:
        # At once, not only when the shell says LinkDown: nothing more may go out or be believed.
        self._link_lost(now_ms)
        self._draft.ask(HangUp(reason=reason))

    def _give_up_silent(self, now_ms: int) -> None:
        """A link on which nothing is heard may be open at one end only: dial again."""
        at_ms = None if self._link is Link.DOWN else self._lease.silent_at_ms()
        if at_ms is not None and now_ms >= at_ms:
            self._hang_up(f"nothing was heard for {now_ms - self._lease.heard_ms} ms", now_ms)

    def _beat(self, now_ms: int) -> None:
        # From now, not from when it was due: after a pause one heartbeat says it all.
        self._next_beat_ms = now_ms + self._heartbeat_ms
        self._send(
            WorkerStatus(
                running=self._attempts.occupied,
                beat=self._lease.beat(now_ms),
                cpu_permille=self._usage.cpu_permille,
                memory_used_bytes=self._usage.memory_used_bytes,
                memory_total_bytes=self._usage.memory_total_bytes,
                leaving=self.is_leaving,
                at_once=self._at_once,
            )
        )

    def _leave_if_done(self, leave_by_ms: int, now_ms: int) -> None:
        """End once everything has ended and been heard, or the time for that is over."""
        done = not self.state.held and self._link is not Link.JOINING
        if not done and now_ms < leave_by_ms:
            return
        self._attempts.kill_all()  # it may just have heard of its start, after a long sleep
        if self._link is Link.UP:
            self._send(Leave())
        self._draft.ask(Exit())
        self._gone = True


def _frames(reports: tuple[AttemptReport, ...]) -> Iterator[tuple[AttemptReport, ...]]:
    """The reports in as many messages as fit into frames; nearly always one, or none."""
    start = weight = 0
    for place, report in enumerate(reports):
        # A character may take four bytes; the rest of a report is short.
        one = 512 + 4 * len(report.message)
        if report.outputs:
            one += size_of(report.outputs) + 8 * len(report.outputs)
        weight += one
        is_full = weight > REPORT_BYTES_PER_FRAME or place - start >= REPORTS_PER_FRAME
        if is_full and place > start:
            yield reports[start:place]
            start, weight = place, one
    if reports:
        yield reports[start:]
