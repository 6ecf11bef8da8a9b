"""The loop: inputs → core → ledger → effects. It decides nothing.

What comes in is gathered and handed to the core in turns; a turn's records are committed before
any of its effects is released, in order. The commit is done here and now, not in a thread: the
ledger does not sync, and handing it over would cost more than it takes (some 0.05 ms). Whatever
goes wrong in it ends the process. Everything runs on the loop's thread. Built by ``app``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable
from typing import Any, Final, NamedTuple, Protocol

from msgspec.structs import replace

from titan_proto.connection import Opened
from titan_proto.errors import ErrorCode
from titan_proto.ids import AttemptRef
from titan_proto.messages import (
    AnyMessage,
    HeartbeatAck,
    Joined,
    Leave,
    LogAck,
    ReportAcks,
    SampleUsage,
    ShutDown,
    SpawnSibling,
    SpawnVerdicts,
    StartAttempts,
    StopAttempts,
    WorkerStatus,
)
from titan_proto.messages.worker import AttemptOrder
from titan_proto.specs import HealthKind, JobKind
from titan_proto.states import AttemptState
from titan_worker import outputs
from titan_worker.artifacts import Artifacts
from titan_worker.carrying import STOPPED, Carrier, Published
from titan_worker.core.core import WorkerCore
from titan_worker.core.effects import (
    AbandonPrepare,
    BearSibling,
    EndSibling,
    Exit,
    FindSibling,
    Forget,
    HangUp,
    LeaseEnd,
    Prepare,
    Probe,
    RenewLease,
    Send,
    Spawn,
    Terminate,
)
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
    UsageSampled,
    WorkspaceFailed,
    WorkspaceReady,
)
from titan_worker.core.records import AnyRecord, AttemptClosed, AttemptForgotten
from titan_worker.endings import Endings
from titan_worker.host import base
from titan_worker.host.identity import ProcessIdentity
from titan_worker.host.orphans import kill_escaped
from titan_worker.host.usage import UsageSampler
from titan_worker.launching import Launcher, Ports
from titan_worker.link import MasterLink
from titan_worker.nursery import Nursery
from titan_worker.output import last_words
from titan_worker.probes import Place, Probes
from titan_worker.sampling import Sampling
from titan_worker.shipping import Shipping
from titan_worker.tasks import Tasks
from titan_worker.workspace import Workspaces

_LOG: Final = logging.getLogger(__name__)
TURN_INPUTS_MAX: Final = 256
HUNT_EVERY_S: Final = 5.0
_REJECTED: Final = frozenset({ErrorCode.PROTOCOL, ErrorCode.PERMISSION_DENIED})
"""How a link ends whose master does not take what it was sent."""
_TURNS_PER_PASS: Final = 8
"""Then the loop gets its turn: links and exits must not wait for a long chain of effects."""


class Commits(Protocol):
    """What the engine needs of a ledger."""

    def commit(self, records: tuple[AnyRecord, ...]) -> None:
        """Make a turn's records durable."""


class Parts(NamedTuple):
    """Everything that carries out effects."""

    link: MasterLink
    host: base.ProcessHost
    workspaces: Workspaces
    carrier: Carrier
    artifacts: Artifacts
    launcher: Launcher
    ports: Ports
    probes: Probes
    shipping: Shipping
    endings: Endings
    usage: UsageSampler
    sampling: Sampling
    nursery: Nursery
    tasks: Tasks
    home: str


class Engine:
    """One worker's loop."""

    def __init__(
        self,
        *,
        core: WorkerCore,
        ledger: Commits,
        now_ms: Callable[[], int],
        steady_at_s: Callable[[int], float],
        loop: asyncio.AbstractEventLoop,
        on_joined: Callable[[], None],
    ) -> None:
        self._core = core
        self._ledger = ledger
        self._now_ms = now_ms
        self._steady_at_s = steady_at_s
        self._loop = loop
        self._on_joined = on_joined
        self._parts: Parts | None = None
        self._inbox: deque[Input] = deque()
        self._is_due = False
        self._is_closed = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_ms: int | None = None
        self._is_ahead_due = False
        # Started, and not told yet: (when, service port).
        self._starting: dict[AttemptRef, tuple[int, int]] = {}
        self._begun: set[AttemptRef] = set()
        """Attempts that had a process, and are not over."""
        self._signalled: set[AttemptRef] = set()
        self._storing: dict[AttemptRef, asyncio.Task[Published]] = {}
        """Attempts whose files are on their way to the master."""
        self._looked_at: set[AttemptRef] = set()
        """Services whose files were looked for: once, when they first answered."""
        # Over, and not looked for yet outside their groups.
        self._leavers: set[AttemptRef] = set()
        self._has_left = asyncio.Event()
        self._hunt_now = asyncio.Event()
        self._leave: Leave | None = None
        self.departed = asyncio.Event()
        """The core wants nothing more done: the process may end."""
        self._routes: dict[type, Callable[[Any], None]] = {
            Send: self._send,
            Prepare: self._prepare,
            Spawn: self._spawn,
            RenewLease: lambda effect: self._own.host.renew(
                effect.ref, self._guard_times(effect.lease_end)
            ),
            Terminate: self._terminate,
            AbandonPrepare: lambda effect: self._own.workspaces.abandon(effect.ref),
            Probe: self._probe,
            # Its folder stays for a day, which `endings` has known since its end.
            Forget: lambda _effect: None,
            BearSibling: lambda effect: self._own.nursery.bear(effect.order),
            FindSibling: self._find_sibling,
            EndSibling: lambda effect: self._own.nursery.end(effect.number),
            HangUp: lambda effect: self._own.link.hang_up(effect.reason),
            Exit: lambda _effect: self.departed.set(),
        }

    @property
    def is_leaving(self) -> bool:
        """Whether it has been told to leave, by whomever."""
        return self._core.is_leaving

    def holds(self, run_id: str) -> bool:
        """Whether an attempt of the run is here, or its end is still to be heard."""
        return any(ref.run_id == run_id for ref in self._core.state.held)

    def bind(self, parts: Parts) -> None:
        """Say who carries out effects; before the first input."""
        self._parts = parts

    @property
    def _own(self) -> Parts:
        assert self._parts is not None
        return self._parts

    # -- what comes in --------------------------------------------------------------------------
    def begin(self, boot_id: str) -> None:
        """The first inputs of this process: nothing of its predecessors runs any more."""
        self.post(Started(boot_id=boot_id))
        self._sample_usage()  # the first heartbeat must not say that there is no memory

    def post(self, item: Input) -> None:
        """Something happened."""
        self._inbox.append(item)
        if not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._pass)

    def link_opened(self, opened: Opened) -> None:
        """A master is there."""
        cluster_id = opened.welcome.cluster_id
        kept_bytes = opened.welcome.limits.get("log_bytes_per_attempt")
        if kept_bytes is not None:
            self._own.shipping.keep(kept_bytes)
        known = self._core.state.cluster_id
        if known and known != cluster_id:
            # Another cluster has no use for these logs, and would not take them.
            self._own.shipping.drop_all()
            self._own.link.id_changed()
        self.post(LinkUp(cluster_id=cluster_id, term=opened.welcome.term))

    def link_closed(self, code: ErrorCode) -> None:
        """It is gone."""
        self._own.shipping.link_down(is_rejected=code in _REJECTED)
        self._own.sampling.link_down()
        self.post(LinkDown())

    def received(self, message: AnyMessage) -> None:
        """The master said something."""
        if isinstance(message, LogAck):
            self._own.shipping.acked(message)
        elif isinstance(message, StartAttempts):
            self._own.carrier.told(message.orders)
            self.post(FromMaster(message=message))
        elif isinstance(
            message, ReportAcks | StopAttempts | HeartbeatAck | SpawnSibling | SpawnVerdicts
        ):
            self.post(FromMaster(message=message))
        elif isinstance(message, SampleUsage):
            self._own.sampling.asked(message)
        elif isinstance(message, ShutDown):
            _LOG.warning("shutdown_ordered by=the master drain_ms=%s", message.drain_ms)
            self.post(FromMaster(message=message))
        elif isinstance(message, Joined):
            self.post(FromMaster(message=message))
            # Logs only now: the master has compared what it knows with what is held here.
            self._own.shipping.link_up(self._own.link)
            self._own.link.joined(message.lost_after_ms / 1000)
            self._own.sampling.link_up(self._own.link)
            self._on_joined()
        else:
            _LOG.warning("message_ignored what=%r", message)

    def workspace_ready(self, ref: AttemptRef) -> None:
        """An attempt may be started."""
        self.post(WorkspaceReady(ref=ref))

    def workspace_failed(self, ref: AttemptRef, message: str) -> None:
        """It cannot."""
        self.post(WorkspaceFailed(ref=ref, message=message))

    def probe_answered(self, ref: AttemptRef) -> None:
        """A service is there."""
        held, own = self._core.state.held.get(ref), self._own
        if ref in self._storing:
            return  # it is told when they are stored
        if held is None or ref in self._looked_at or not own.carrier.may_have_left(held.order):
            self.post(ProbeAnswered(ref=ref))
            return
        self._looked_at.add(ref)

        def tell(published: Published) -> None:
            if published.problem == STOPPED:
                return  # that process has ended: the next one is asked anew
            if published.problem:
                # It is up, and not ended for that: what comes after it may miss something.
                _LOG.warning("not_published service=%s why=%s", ref, published.problem)
            self.post(ProbeAnswered(ref=ref, left=published.left))

        self._store(held.order, tell)

    def probe_failed(self, ref: AttemptRef, message: str) -> None:
        """Of a service: a check of it failed."""
        self.post(ProbeFailed(ref=ref, message=message))

    def started(self, ref: AttemptRef, identity: ProcessIdentity) -> None:
        """A first process runs, since a moment or two."""
        at_ms, port = self._starting.pop(ref)
        self.post(
            Spawned(
                ref=ref,
                pid=identity.pid,
                start_ticks=identity.start_ticks,
                port=port,
                at_ms=at_ms,
            )
        )

    def exited(self, ref: AttemptRef, how: base.Exit) -> None:
        """A first process has ended, and its group with it; or it never came to be one."""
        own = self._own
        own.probes.stop(ref)
        stdout_bytes, stderr_bytes = own.shipping.end(ref)
        self._starting.pop(ref, None)  # still there where it never became what it was to be
        if how.problem:
            self.post(SpawnFailed(ref=ref, message=how.problem))
            return
        # A success is not told without what belongs to it; whatever else it left is nobody's.
        is_clean = not how.exit_code and not how.signal
        left = outputs.collect(own.workspaces.folders(ref).attempt) if is_clean else outputs.NOTHING
        item = Exited(
            ref=ref,
            exit_code=how.exit_code,
            signal=how.signal,
            stdout_bytes=stdout_bytes,
            stderr_bytes=stderr_bytes,
            lease_ended=how.lease_ended,
            oom_killed=how.oom_killed,
            outputs=left.outputs,
            output_problem=left.problem,
            keeps=is_clean and self._keeps(ref),
            last_words=self._last_words(ref),
        )
        self._stop_storing(ref)
        order = self._task_that_may_have_left(ref) if is_clean and not left.problem else None
        if order is None:
            self.post(item)
        else:
            self._store(
                order,
                lambda one: self.post(replace(item, left=one.left, left_problem=one.problem)),
            )

    def _keeps(self, ref: AttemptRef) -> bool:
        held = self._core.state.held.get(ref)
        return held is not None and self._own.carrier.keeps(held.order)

    def _task_that_may_have_left(self, ref: AttemptRef) -> AttemptOrder | None:
        """Of an attempt that ended well by itself: its order, if files of it are to be looked for."""
        held = self._core.state.held.get(ref)
        if held is None or held.state is AttemptState.STOPPING:
            return None
        if held.order.spec.kind is not JobKind.TASK or not self._own.carrier.may_have_left(
            held.order
        ):
            return None
        return held.order

    def _store(self, order: AttemptOrder, then: Callable[[Published], None]) -> None:
        """Store the files of an attempt; `then` is called whatever comes of it, also of a stop."""
        own, ref = self._own, order.ref
        work = own.workspaces.folders(ref).work
        task = self._storing[ref] = own.tasks.start(own.carrier.publish(order, work))

        def ended(task: asyncio.Task[Published]) -> None:
            if self._storing.get(ref) is task:
                del self._storing[ref]
            if task.cancelled():
                then(Published(None, STOPPED))
            elif task.exception() is None:
                then(task.result())

        task.add_done_callback(ended)

    def _stop_storing(self, ref: AttemptRef) -> bool:
        """Whether files of it were on their way."""
        task = self._storing.pop(ref, None)
        if task is not None:
            task.cancel()
        return task is not None

    def _last_words(self, ref: AttemptRef) -> str:
        """Of a service: what it said before it ended, where that may be for the last time."""
        held = self._core.state.held.get(ref)
        if held is None or held.order.spec.service is None:
            return ""
        folders = self._own.workspaces.folders(ref)
        return last_words(folders.stderr) or last_words(folders.stdout)

    def sibling_began(self, number: int, who: ProcessIdentity, port: int) -> None:
        """A worker that was asked for has a process."""
        self.post(SiblingBegan(number=number, pid=who.pid, start_ticks=who.start_ticks, port=port))

    def sibling_gone(self, number: int, message: str) -> None:
        """It has none any more, or never had one."""
        self.post(SiblingGone(number=number, message=message))

    # -- turns ----------------------------------------------------------------------------------
    def _pass(self) -> None:
        self._is_due = False
        if self._is_closed:
            return
        for _ in range(_TURNS_PER_PASS):
            self._turn()
            if not self._inbox:
                break
        if self._inbox and not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._pass)
        if not self._is_ahead_due and self._core.has_room and self._own.workspaces.lacks_ahead:
            self._is_ahead_due = True
            self._loop.call_soon(self._make_ahead)
        self._set_timer()

    def _make_ahead(self) -> None:
        """Use the time while processes run: make a folder for an attempt to come.

        Not while all slots are taken: then the worker has enough to do, and a folder made early is
        no gain.
        """
        self._is_ahead_due = False
        if not self._is_closed and not self._inbox and self._core.has_room:
            self._own.workspaces.make_ahead()
            if self._own.workspaces.lacks_ahead:
                # One at a time: what has arrived meanwhile is read first.
                self._is_ahead_due = True
                self._loop.call_later(0, self._make_ahead)

    def _turn(self) -> None:
        core, inbox = self._core, self._inbox
        now_ms = self._now_ms()
        for _ in range(min(len(inbox), TURN_INPUTS_MAX)):
            core.handle(inbox.popleft(), now_ms)
        core.settle(now_ms)
        turn = core.drain()
        if turn.records:
            self._ledger.commit(turn.records)
            self._note_ends(turn.records)
        for effect in turn.effects:
            self._routes[type(effect)](effect)

    def _note_ends(self, records: tuple[AnyRecord, ...]) -> None:
        own = self._own
        for record in records:
            if isinstance(record, AttemptForgotten):
                self._over(record.ref)  # perhaps another cluster's, whose end nobody is told
            elif isinstance(record, AttemptClosed):
                ref = record.report.ref
                self._over(ref)
                own.endings.ended(ref, record.report.ended_at_ms, owes_logs=own.shipping.owes(ref))

    def _over(self, ref: AttemptRef) -> None:
        """No process of it will be started any more: those of a service had the same mark."""
        self._own.ports.give_back(ref)
        self._looked_at.discard(ref)
        if ref not in self._begun:
            return
        self._begun.discard(ref)
        self._leavers.add(ref)
        self._has_left.set()
        if ref in self._signalled:
            self._signalled.discard(ref)
            self._hunt_now.set()

    def _set_timer(self) -> None:
        """Sleep exactly until the core has something to do by itself."""
        due_ms = self._core.next_deadline_ms()
        if due_ms == self._timer_ms:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._timer_ms = due_ms
        if due_ms is not None:
            delay_s = max(0, due_ms - self._now_ms()) / 1000
            self._timer = self._loop.call_later(delay_s, self._timer_due)

    def _timer_due(self) -> None:
        self._timer = self._timer_ms = None
        self._pass()

    # -- effects --------------------------------------------------------------------------------
    def _send(self, effect: Send) -> None:
        message = effect.message
        if isinstance(message, Leave):
            self._leave = message  # the very last word, after the logs: see `part`
            return
        self._own.link.send(message)
        if isinstance(message, WorkerStatus):
            self._sample_usage()

    def _sample_usage(self) -> None:
        usage = self._own.usage.sample()
        self.post(
            UsageSampled(
                cpu_permille=usage.cpu_permille,
                memory_used_bytes=usage.memory_used_bytes,
                memory_total_bytes=usage.memory_total_bytes,
            )
        )

    def _find_sibling(self, effect: FindSibling) -> None:
        known = ProcessIdentity(effect.pid, effect.start_ticks) if effect.pid else None
        self._own.nursery.find(effect.order, known, effect.port)

    def _prepare(self, effect: Prepare) -> None:
        self._own.workspaces.prepare(effect.order)

    def _guard_times(self, end: LeaseEnd) -> base.GuardTimes:
        """The same moments on the clock that guards read."""
        return base.GuardTimes(self._steady_at_s(end.term_at_ms), self._steady_at_s(end.kill_at_ms))

    def _spawn(self, effect: Spawn) -> None:
        own, order, ref = self._own, effect.order, effect.order.ref
        guard = None if effect.lease_end is None else self._guard_times(effect.lease_end)
        try:
            folders = own.workspaces.folders(ref)
            own.carrier.begins(order, folders.attempt)
            port = own.ports.take(order)
            own.host.spawn(ref, own.launcher.plan(order, folders, port), guard)
        except base.SpawnError as error:
            self.post(SpawnFailed(ref=ref, message=str(error)))
            return
        self._starting[ref] = (self._now_ms(), port)
        if ref in self._begun:
            own.shipping.go_on(ref, folders.stdout, folders.stderr)
        else:
            self._begun.add(ref)
            own.shipping.watch(ref, folders.stdout, folders.stderr)

    def _probe(self, effect: Probe) -> None:
        own, ref = self._own, effect.ref
        folders = own.workspaces.folders(ref)
        check, env = effect.check, {}
        if check is not None and check.kind is HealthKind.COMMAND:
            order = self._core.state.held[ref].order
            env = own.launcher.environment(order, folders, effect.port)
        own.probes.start(ref, Place(effect.port, folders.work, env), check)

    def _terminate(self, effect: Terminate) -> None:
        self._stop_storing(effect.ref)
        self._signalled.add(effect.ref)
        self._own.host.terminate(effect.ref, force=effect.force)

    async def hunt(self) -> None:
        """What ended attempts left outside their groups goes too, for ever; reports do not wait.

        That is a look at every process of the machine. Of stopped attempts it comes at once, of
        those that ended by themselves now and then: most of them leave nothing.
        """
        while True:
            # No deadline: as long as nothing ends nothing is left.
            await self._has_left.wait()
            # Not wait_for: before Python 3.12 it loses a cancellation that comes together with what is
            # waited for, and then this would never end.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HUNT_EVERY_S):
                    await self._hunt_now.wait()
            refs, self._leavers = self._leavers, set()
            self._has_left.clear()
            self._hunt_now.clear()
            killed = await asyncio.to_thread(kill_escaped, self._own.home, refs)
            if killed:
                _LOG.warning("escaped_processes_killed count=%d", killed)

    # -- the end --------------------------------------------------------------------------------
    async def part(self, timeout_s: float) -> None:
        """Ship what is left of the logs, then say goodbye."""
        own = self._own
        if self._leave is None:
            return
        try:
            async with asyncio.timeout(timeout_s):
                await own.shipping.wait_shipped()
        except TimeoutError:
            _LOG.warning("logs_left why=the master did not take them in time")
        own.link.send(self._leave)
        await own.link.part(timeout_s)

    def close(self) -> None:
        """Turn no more: what is still to come finds nobody."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
