"""One machine per attempt: preparing → starting → running → stopping → ended.

Decides when a workspace is asked for, a process started, signalled, declared over. It never sends
anything itself: what the master should hear is gathered here and flushed by the core, which knows
the link. Called by the core alone.

What is kept in ``Progress`` dies with the process on purpose: after a restart nothing of it could
still be true, because the processes of earlier incarnations are swept before the first input.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Iterator
from enum import IntEnum
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from titan_proto.ids import AttemptRef
from titan_proto.limits import REPORT_MESSAGE_CHARS
from titan_proto.messages.worker import AttemptOrder, AttemptReport, HeldAttempt, Left
from titan_proto.specs import JobKind
from titan_proto.states import AttemptState, ExitReason
from titan_worker.core.check import violated
from titan_worker.core.effects import (
    AbandonPrepare,
    Forget,
    Prepare,
    Probe,
    RenewLease,
    Spawn,
    Terminate,
)
from titan_worker.core.health import Health
from titan_worker.core.inputs import Exited, ProbeAnswered, Spawned
from titan_worker.core.lease import Lease
from titan_worker.core.records import (
    AttemptClosed,
    AttemptForgotten,
    AttemptHeld,
    AttemptRestarting,
    AttemptSpared,
    AttemptSpawned,
    AttemptStopping,
)
from titan_worker.core.restarts import Restarts, is_wanted
from titan_worker.core.state import Held
from titan_worker.core.turn import Draft

RESTARTED: Final = "the worker's process ended while this attempt was under way"
STOOD_STILL_MS: Final = 1_000
"""A timer that goes off so much too late says that the worker was stopped, or its machine asleep."""
HEAR_FIRST_MS: Final = 200
"""How long after that an overdue attempt has to turn out to have ended by itself."""
LEASE_RETRY_MS: Final = 100
"""So often an exclusive service that is to be started again asks whether the lease allows it."""
SHUT_DOWN: Final = "the worker was shut down"
LEASE_ENDED: Final = (
    "it is exclusive, and the master was not heard in time: it was stopped here before it may be "
    "given to another worker"
)


class Phase(IntEnum):
    """How far this process has come with an attempt; from STARTING on it occupies a slot."""

    PREPARING = 0
    READY = 1
    """Its workspace is there, a slot is not."""
    STARTING = 2
    SPAWNED = 3
    RESTARTING = 4
    """A service between two processes: it keeps its slot, its port and its number."""


_BY_ITSELF: Final = (ExitReason.EXITED, ExitReason.SIGNALLED)
_WITH_PROCESS: Final = (Phase.STARTING, Phase.SPAWNED)


class Progress(Struct):
    """What this process knows beyond the ledger about an attempt that has not ended."""

    phase: Phase = Phase.PREPARING
    healthy: bool = False
    restarts: Restarts | None = None
    """Of a service, from its first start on."""
    health: Health | None = None
    """Of a service with a health check, from the start of its present process on."""
    failing: str = ""
    """Why the process of a service is being ended: what its check said."""
    kill_at_ms: int = 0
    """When SIGKILL follows the SIGTERM that has been sent."""
    stdout_bytes: int = 0
    """What its earlier processes have written: where no further one comes, that is all."""
    stderr_bytes: int = 0
    left: Left | None = None
    """Of a service: the files that it had left for others when it became healthy."""


class Attempts:
    """Every attempt that this worker holds."""

    def __init__(self, draft: Draft, slots: int, lease: Lease) -> None:
        self._draft = draft
        self._lease = lease
        self._held = draft.state.held
        self._slots = slots
        self._progress: dict[AttemptRef, Progress] = {}
        self._occupied = 0
        # Attempts in READY, first come first served. One that was stopped meanwhile stays in the
        # queue and is passed over when its turn comes. Those that take no slot wait for none.
        self._ready: deque[AttemptRef] = deque()
        self._slotless: deque[AttemptRef] = deque()
        # Exclusive ones that were ready while the lease did not allow to start them, in order.
        self._without_lease: list[AttemptRef] = []
        # Exclusive ones that occupy a slot: whose guards wait for renewals.
        self._guarded: dict[AttemptRef, None] = {}
        # (when, attempt) of each SIGKILL, and of each timeout, that may become due. Entries of
        # attempts that have ended stay until they come to the top.
        self._kills: list[tuple[int, AttemptRef]] = []
        self._timeouts: list[tuple[int, AttemptRef]] = []
        # When a service's next process is due; also with entries that mean nothing any more.
        self._restarts: list[tuple[int, AttemptRef]] = []
        self._reports: list[AttemptReport] = []

    @property
    def occupied(self) -> int:
        """Slots taken: processes that are being started or have not ended."""
        return self._occupied

    # -- orders ---------------------------------------------------------------------------------
    def take(self, order: AttemptOrder, now_ms: int) -> None:
        """Begin an attempt; one that is held already is not begun again."""
        held = self._held.get(order.ref)
        if held is not None:
            if held.report is not None and not held.foreign:
                self._reports.append(held.report)
            return
        self._draft.emit(AttemptHeld(order=order, at_ms=now_ms))
        self._progress[order.ref] = Progress()
        self._draft.ask(Prepare(order=order))

    def decline(self, order: AttemptOrder, now_ms: int) -> None:
        """Take an attempt only to say that it will not begin here: the worker is leaving."""
        if order.ref in self._held:
            return
        self._draft.emit(AttemptHeld(order=order, at_ms=now_ms))
        self._progress[order.ref] = Progress()
        self._over(order.ref, ExitReason.WORKER_LEFT, now_ms)

    def stop(self, ref: AttemptRef, reason: ExitReason, now_ms: int) -> None:
        """End an attempt. The first stop's reason stays; one that is over is left alone.

        An unknown one is left alone too: a master that believes it to be here learns the truth
        from the next inventory.
        """
        progress = self._progress.get(ref)
        if progress is None or self._held[ref].state is AttemptState.STOPPING:
            return
        # A newer master may give a reason that this worker cannot read; nobody may send UNKNOWN.
        known = ExitReason.CANCELLED if reason is ExitReason.UNKNOWN else reason
        if progress.phase is Phase.PREPARING:
            self._draft.ask(AbandonPrepare(ref=ref))
        if progress.phase < Phase.STARTING:
            self._over(ref, known, now_ms)
            return
        self._draft.emit(AttemptStopping(ref=ref, reason=known, at_ms=now_ms))
        # While it is being started there is nobody to signal; `spawned` does it then.
        if progress.phase is Phase.SPAWNED:
            self._terminate(ref, now_ms)
        elif progress.phase is Phase.RESTARTING:
            self._over(ref, known, now_ms)

    def spare_begun(self, now_ms: int) -> None:
        """The worker leaves: what has a process, or is about to, may go on; the rest goes back.

        It is written down, because whoever wants the worker gone may kill it before they have ended:
        that is the shutdown's doing then, not theirs.
        """
        for ref, progress in list(self._progress.items()):
            if progress.phase < Phase.STARTING:
                self.stop(ref, ExitReason.WORKER_LEFT, now_ms)
            elif self._held[ref].state is not AttemptState.STOPPING:
                self._draft.emit(AttemptSpared(ref=ref, at_ms=now_ms))

    @property
    def has_tasks(self) -> bool:
        """Whether something goes on that ends by itself: services do not, and what is told to stop
        waits for nobody.
        """
        return any(held.order.spec.kind is not JobKind.SERVICE for held in self._going_on())

    @property
    def has_services(self) -> bool:
        """Whether a service is up, or about to be, and not told to stop."""
        return any(held.order.spec.kind is JobKind.SERVICE for held in self._going_on())

    def _going_on(self) -> Iterator[Held]:
        found = (self._held[ref] for ref in self._progress)
        return (held for held in found if held.state is not AttemptState.STOPPING)

    def stop_all(self, reason: ExitReason, now_ms: int) -> None:
        """End everything that has not ended."""
        for ref in list(self._progress):
            self.stop(ref, reason, now_ms)

    def forget(self, refs: Iterable[AttemptRef]) -> None:
        """The master needs no more of these.

        Unknown ones were forgotten before. One that has not ended stays: what the master
        acknowledged was a report of another incarnation of its knowledge, and this end is still
        to be told.
        """
        for ref in refs:
            held = self._held.get(ref)
            if held is not None and held.state is AttemptState.ENDED:
                self._drop(ref)

    def disown(self, now_ms: int) -> None:
        """The worker went over to another cluster: end all of it, tell nobody."""
        for ref in list(self._held):
            progress = self._progress.get(ref)
            if progress is None:
                self._drop(ref)
            else:
                self.stop(ref, ExitReason.CANCELLED, now_ms)

    def recover(self, now_ms: int) -> None:
        """First thing in a process: what earlier ones left open ends, as LOST unless they were leaving.

        Also where no AttemptSpawned is recorded. Between the commit of the order and the process's
        first instruction lie a workspace, a fork and one more commit, and the crash may have come
        after the fork: nobody can tell whether the job ran, so nobody may say that it did not.
        """
        for ref in list(self._held):
            held = self._held[ref]
            if held.foreign:
                self._drop(ref)
            elif held.state is not AttemptState.ENDED:
                # What was being stopped because the worker was shut down did not take it along.
                # Nor did what went on while the worker was leaving.
                is_spared = held.stop_reason is None and held.spared_at_ms > 0
                left = is_spared or held.stop_reason is ExitReason.WORKER_LEFT
                self._close(
                    AttemptReport(
                        ref=ref,
                        state=AttemptState.ENDED,
                        # One that was being started then may have begun.
                        started_at_ms=held.started_at_ms
                        or held.stopping_at_ms
                        or held.spared_at_ms,
                        ended_at_ms=now_ms,
                        port=held.port,
                        reason=ExitReason.WORKER_LEFT if left else ExitReason.LOST,
                        message=SHUT_DOWN if left else RESTARTED,
                    )
                )

    # -- what became of the effects -------------------------------------------------------------
    def workspace_ready(self, ref: AttemptRef) -> None:
        """The attempt may start as soon as there is a slot."""
        progress = self._progress.get(ref)
        if progress is not None and progress.phase is Phase.PREPARING:
            progress.phase = Phase.READY
            self._line_of(ref).append(ref)

    def _line_of(self, ref: AttemptRef) -> deque[AttemptRef]:
        return self._ready if self._slots_of(ref) else self._slotless

    def _slots_of(self, ref: AttemptRef) -> int:
        return self._held[ref].order.spec.needs.slots

    def workspace_failed(self, ref: AttemptRef, message: str, now_ms: int) -> None:
        """It ends without a process."""
        progress = self._progress.get(ref)
        if progress is not None and progress.phase is Phase.PREPARING:
            self._over(ref, ExitReason.PREPARE_FAILED, now_ms, message)

    def spawned(self, item: Spawned, now_ms: int) -> None:
        """Its process runs. Late words about one that is over already mean nothing."""
        ref = item.ref
        progress = self._progress.get(ref)
        if progress is None or progress.phase is not Phase.STARTING:
            return
        progress.phase = Phase.SPAWNED
        at_ms = item.at_ms or now_ms
        self._draft.emit(
            AttemptSpawned(
                ref=ref,
                pid=item.pid,
                start_ticks=item.start_ticks,
                at_ms=at_ms,
                port=item.port,
            )
        )
        held = self._held[ref]
        if held.order.spec.timeout_ms:
            heapq.heappush(self._timeouts, (at_ms + held.order.spec.timeout_ms, ref))
        if held.state is AttemptState.STOPPING:
            self._terminate(ref, now_ms)
            return
        if held.order.spec.kind is JobKind.SERVICE:
            self._watch_health(held, progress, now_ms)
        self._reports.append(_running(held, progress))

    def spawn_failed(self, ref: AttemptRef, message: str, now_ms: int) -> None:
        """There is no process and will be none."""
        progress = self._progress.get(ref)
        if progress is not None and progress.phase is Phase.STARTING:
            self._over(ref, ExitReason.START_FAILED, now_ms, message)

    def probe_answered(self, item: ProbeAnswered, now_ms: int) -> None:
        """A service is healthy, unless it has been told to stop meanwhile."""
        ref = item.ref
        progress = self._progress.get(ref)
        if progress is None or progress.phase is not Phase.SPAWNED:
            return
        if progress.health is not None:
            progress.health.passed()
        held = self._held[ref]
        is_news = not progress.healthy and not progress.failing
        if is_news and held.state is AttemptState.RUNNING:
            _is_healthy(progress, now_ms)
            progress.left = progress.left or item.left
            self._reports.append(_running(held, progress))

    def probe_failed(self, ref: AttemptRef, message: str, now_ms: int) -> None:
        """A check of a service failed: one too many, and its process goes, as if it had crashed."""
        progress = self._progress.get(ref)
        if progress is None or progress.phase is not Phase.SPAWNED or progress.health is None:
            return
        is_wanted_well = self._held[ref].state is AttemptState.RUNNING and not progress.failing
        if is_wanted_well and progress.health.failed(now_ms):
            progress.failing = message[:REPORT_MESSAGE_CHARS]
            self._terminate(ref, now_ms)

    def exited(self, item: Exited, now_ms: int) -> None:
        """Its process is gone, perhaps before anybody said that it was there."""
        progress = self._progress.get(item.ref)
        if progress is None or progress.phase not in _WITH_PROCESS:
            return
        held = self._held[item.ref]
        own = _own_end(item)
        message = _why_stopped(held, lease_ended=item.lease_ended)
        if own is ExitReason.OOM_KILLED and held.stop_reason is None:
            message = _out_of_memory(held)
        if item.lease_ended:
            # Its worker cannot be heard, but it was leaving anyway: that is not held against it.
            own = ExitReason.WORKER_LEFT if held.spared_at_ms else ExitReason.LOST
        elif _is_to_stay_up(held, progress, item):
            if self._start_again(held, progress, item, now_ms):
                return
            if held.restarts:
                own = ExitReason.CRASH_LOOP
                message = _crash_loop(held, progress, item)
        if progress.failing and own in _BY_ITSELF and held.stop_reason is None:
            own, message = ExitReason.UNHEALTHY, f"its health check failed: {progress.failing}"
        is_task = held.order.spec.kind is JobKind.TASK
        is_done = is_task and held.stop_reason is None and own is ExitReason.EXITED
        is_done = is_done and not item.exit_code
        if is_done and item.output_problem:
            is_done = False
            own, message = ExitReason.BAD_OUTPUT, item.output_problem[:REPORT_MESSAGE_CHARS]
        elif is_done and item.left_problem:
            is_done = False
            own, message = ExitReason.BAD_FILES, item.left_problem[:REPORT_MESSAGE_CHARS]
        self._end(
            AttemptReport(
                ref=item.ref,
                state=AttemptState.ENDED,
                started_at_ms=held.started_at_ms or now_ms,
                ended_at_ms=now_ms,
                port=held.port,
                reason=held.stop_reason or own,
                exit_code=0 if item.signal else item.exit_code,
                signal=item.signal,
                message=message,
                stdout_bytes=item.stdout_bytes,
                stderr_bytes=item.stderr_bytes,
                restarts=held.restarts,
                outputs=item.outputs if is_done else {},
                left=_left(item) if is_done else None,
            )
        )

    def _start_again(self, held: Held, progress: Progress, item: Exited, now_ms: int) -> bool:
        """Begin another process of a service if its budget has one."""
        service, ref = held.order.spec.service, item.ref
        if service is None or progress.restarts is None:
            return False
        progress.restarts.ended(now_ms)
        at_ms = progress.restarts.next_ms(service.restart, ref, now_ms)
        if at_ms is None:
            return False
        progress.stdout_bytes, progress.stderr_bytes = item.stdout_bytes, item.stderr_bytes
        self._draft.emit(AttemptRestarting(ref=ref, at_ms=now_ms))
        progress.phase = Phase.RESTARTING
        progress.healthy = False
        progress.failing = ""
        progress.kill_at_ms = 0
        self._guarded.pop(ref, None)  # its guard has gone with the process
        heapq.heappush(self._restarts, (at_ms, ref))
        self._reports.append(_running(held, progress))
        return True

    # -- time and slots -------------------------------------------------------------------------
    def stop_overdue(self, now_ms: int) -> None:
        """Stop whatever has outlived its timeout."""
        while self._timeouts:
            at_ms, ref = self._timeouts[0]
            held = self._held.get(ref)
            # One that has ended, or is told to stop already, has no timeout any more.
            running = held is not None and held.state is AttemptState.RUNNING
            if running and at_ms > now_ms:
                return
            heapq.heappop(self._timeouts)
            if running and now_ms - at_ms > STOOD_STILL_MS:
                # This process slept, and so could not hear that the attempt had ended in time: what
                # has happened meanwhile is heard first.
                heapq.heappush(self._timeouts, (now_ms + HEAR_FIRST_MS, ref))
            elif running:
                self.stop(ref, ExitReason.TIMED_OUT, now_ms)

    def kill_overdue(self, now_ms: int) -> None:
        """SIGKILL for whatever has outlived its stop grace."""
        while self._kills:
            at_ms, ref = self._kills[0]
            progress = self._progress.get(ref)
            # Whoever has ended needs no signal, and its deadline is no reason to wake up.
            stopping = progress is not None and progress.kill_at_ms == at_ms
            if stopping and at_ms > now_ms:
                return
            heapq.heappop(self._kills)
            if stopping:
                self._draft.ask(Terminate(ref=ref, force=True))

    def kill_all(self) -> None:
        """SIGKILL for whatever is left: nobody will be there to see to its end."""
        for ref, progress in self._progress.items():
            if progress.phase in _WITH_PROCESS:
                self._draft.ask(Terminate(ref=ref, force=True))

    def restart_due(self, now_ms: int) -> None:
        """Start the next process of services whose delay is over."""
        while self._restarts and self._restarts[0][0] <= now_ms:
            _, ref = heapq.heappop(self._restarts)
            progress = self._progress.get(ref)
            if progress is None or progress.phase is not Phase.RESTARTING:
                continue
            if not self._start(ref, progress, now_ms):
                # Exclusive, and the lease does not allow it: as long as that takes.
                heapq.heappush(self._restarts, (now_ms + LEASE_RETRY_MS, ref))

    def next_due_ms(self) -> int | None:
        """When one of the three above may next have something to do."""
        heaps = (self._timeouts, self._kills, self._restarts)
        return min((heap[0][0] for heap in heaps if heap), default=None)

    def renew_leases(self) -> None:
        """Tell the guards of exclusive attempts until when they may go on."""
        for ref in self._guarded:
            held = self._held[ref]
            # Of a cluster that was left: the end of its lease stands, whatever another one says.
            if not held.foreign:
                end = self._lease.end_for(held.order.spec.stop_grace_ms)
                self._draft.ask(RenewLease(ref=ref, lease_end=end))

    def fill_slots(self, now_ms: int) -> None:
        """Start whatever is ready, in order, while there are slots.

        An exclusive attempt waits aside until the lease allows it, and is then the first.
        """
        if self._without_lease and self._lease.may_start(now_ms):
            for ref in reversed(self._without_lease):
                if ref in self._progress:
                    self._line_of(ref).appendleft(ref)
            self._without_lease.clear()
        for line in (self._slotless, self._ready):
            self._fill_from(line, now_ms)

    def _fill_from(self, line: deque[AttemptRef], now_ms: int) -> None:
        while line:
            ref = line[0]
            if not self._is_ready(ref):
                line.popleft()
                continue
            if not self._has_room_for(ref):
                return
            line.popleft()
            if not self._start(ref, self._progress[ref], now_ms):
                self._without_lease.append(ref)

    def _start(self, ref: AttemptRef, progress: Progress, now_ms: int) -> bool:
        """Ask for its process; False if it is exclusive and the lease does not allow it now."""
        order = self._held[ref].order
        end = None
        if order.spec.exclusive:
            if not self._lease.may_start(now_ms):
                return False
            end = self._lease.end_for(order.spec.stop_grace_ms)
            self._guarded[ref] = None
        if progress.phase is Phase.READY:
            self._occupied += self._taken(ref)
        progress.phase = Phase.STARTING
        self._draft.ask(Spawn(order=order, lease_end=end))
        return True

    def _taken(self, ref: AttemptRef) -> int:
        """What it counts here. Placed when the worker had more slots, it may have all there are."""
        return min(self._slots_of(ref), self._slots)

    def _has_room_for(self, ref: AttemptRef) -> bool:
        taken = self._taken(ref)
        return not taken or self._occupied + taken <= self._slots

    def _is_ready(self, ref: AttemptRef) -> bool:
        progress = self._progress.get(ref)
        return progress is not None and progress.phase is Phase.READY

    def stop_grace_ms(self) -> int:
        """The longest time that something held may take to stop."""
        return max((self._held[ref].order.spec.stop_grace_ms for ref in self._progress), default=0)

    # -- what the master is told ----------------------------------------------------------------
    def inventory(self) -> tuple[HeldAttempt, ...]:
        """Everything that this worker answers for to its present cluster."""
        return tuple(
            HeldAttempt(ref=ref, state=self.shown(ref))
            for ref, held in self._held.items()
            if not held.foreign
        )

    def shown(self, ref: AttemptRef) -> AttemptState:
        """An attempt's state as peers see it."""
        state = self._held[ref].state
        progress = self._progress.get(ref)
        if (
            state is AttemptState.PREPARING
            and progress is not None
            and progress.phase is Phase.STARTING
        ):
            return AttemptState.STARTING
        return state

    def report_everything(self) -> None:
        """Say again what a master that has just come may have missed."""
        self._reports = []
        for ref, held in self._held.items():
            if held.foreign:
                continue
            if held.report is not None:
                self._reports.append(held.report)
            elif held.state is AttemptState.RUNNING:
                self._reports.append(_running(held, self._progress[ref]))

    def take_reports(self) -> tuple[AttemptReport, ...]:
        """The reports since the last call, in the order in which things happened."""
        reports = self._reports
        if not reports:
            return ()
        self._reports = []
        ended = {report.ref for report in reports if report.state is AttemptState.ENDED}
        # The end of a short attempt tells its start too. That a service was healthy is news of its
        # own: its job has succeeded by that, whatever came after.
        return tuple(
            report
            for report in reports
            if report.state is AttemptState.ENDED or report.healthy or report.ref not in ended
        )

    # -- invariants -----------------------------------------------------------------------------
    def check(self) -> None:
        """Raise InvariantViolation if what this process remembers contradicts the state."""
        state = self._draft.state
        live = {ref for ref, held in self._held.items() if held.state is not AttemptState.ENDED}
        if live != set(self._progress):
            raise violated(state, "live attempts and those worked on are not the same")
        occupied = sum(
            self._taken(ref)
            for ref, progress in self._progress.items()
            if progress.phase >= Phase.STARTING
        )
        if occupied != self._occupied or occupied > self._slots:
            raise violated(state, f"{occupied} slots taken, {self._occupied} counted")
        aside = set(self._without_lease)
        for line in (self._slotless, self._ready):
            first = next((ref for ref in line if self._is_ready(ref)), None)
            if first is not None and (not self._taken(first) or self._has_room_for(first)):
                raise violated(state, "something waits beside a free slot")
        waiting = {*self._ready, *self._slotless, *aside}
        for ref, progress in self._progress.items():
            held = self._held[ref]
            if (held.pid > 0) != (progress.phase is Phase.SPAWNED):
                raise violated(state, f"attempt {ref} has pid {held.pid} in {progress.phase.name}")
            if progress.phase is Phase.READY and ref not in waiting:
                raise violated(state, f"attempt {ref} is ready and not in the queue")
            guarded = held.order.spec.exclusive and progress.phase in _WITH_PROCESS
            if guarded != (ref in self._guarded):
                raise violated(state, f"attempt {ref} is exclusive and nobody guards it")
            if held.foreign and held.state is not AttemptState.STOPPING:
                raise violated(state, f"attempt {ref} is another cluster's and {held.state}")

    # -- the last steps -------------------------------------------------------------------------
    def _watch_health(self, held: Held, progress: Progress, now_ms: int) -> None:
        if progress.restarts is None:
            progress.restarts = Restarts()
        service = held.order.spec.service
        port = held.port or (service.port if service is not None else 0)
        check = None if service is None else service.health
        progress.health = None if check is None else Health(check, now_ms)
        if port or check is not None:
            self._draft.ask(Probe(ref=held.order.ref, port=port, check=check))
        else:
            _is_healthy(progress, now_ms)

    def _terminate(self, ref: AttemptRef, now_ms: int) -> None:
        """SIGTERM, and after its grace SIGKILL; asked for again, the sooner end stays."""
        self._draft.ask(Terminate(ref=ref, force=False))
        progress = self._progress[ref]
        if not progress.kill_at_ms:
            progress.kill_at_ms = now_ms + self._held[ref].order.spec.stop_grace_ms
            heapq.heappush(self._kills, (progress.kill_at_ms, ref))

    def _over(self, ref: AttemptRef, reason: ExitReason, now_ms: int, message: str = "") -> None:
        """End an attempt that has no process, and perhaps never had one."""
        held, progress = self._held[ref], self._progress[ref]
        reason = held.stop_reason or reason
        self._end(
            AttemptReport(
                ref=ref,
                state=AttemptState.ENDED,
                ended_at_ms=now_ms,
                # The rest is of a service that ends between two of its processes.
                started_at_ms=held.started_at_ms,
                port=held.port,
                stdout_bytes=progress.stdout_bytes,
                stderr_bytes=progress.stderr_bytes,
                restarts=held.restarts,
                reason=reason,
                message=message[:REPORT_MESSAGE_CHARS]
                or (SHUT_DOWN if reason is ExitReason.WORKER_LEFT else ""),
            )
        )

    def _end(self, report: AttemptReport) -> None:
        """One that this process worked on is over; its slot is free."""
        progress = self._progress.pop(report.ref)
        if progress.phase >= Phase.STARTING:
            self._occupied -= self._taken(report.ref)
            self._guarded.pop(report.ref, None)
        if self._held[report.ref].foreign:
            self._drop(report.ref)
        else:
            self._close(report)

    def _close(self, report: AttemptReport) -> None:
        self._draft.emit(AttemptClosed(report=report))
        self._reports.append(report)

    def _drop(self, ref: AttemptRef) -> None:
        self._draft.emit(AttemptForgotten(ref=ref))
        self._draft.ask(Forget(ref=ref))


def _own_end(item: Exited) -> ExitReason:
    """How a process ended that nobody had told to."""
    if item.oom_killed and (item.signal or item.exit_code):
        return ExitReason.OOM_KILLED
    return ExitReason.SIGNALLED if item.signal else ExitReason.EXITED


def _out_of_memory(held: Held) -> str:
    asked = held.order.spec.launch.resources
    if asked is None or not asked.memory_bytes:
        return ""
    return f"its limit is {asked.memory_bytes / 1024**2:.5g} MiB (resources.memory)"


def _why_stopped(held: Held, *, lease_ended: bool) -> str:
    """What a person reads of an end that the process did not choose; empty where it did."""
    if held.stop_reason is ExitReason.WORKER_LEFT:
        return SHUT_DOWN
    if held.stop_reason is ExitReason.TIMED_OUT:
        limit_ms = held.order.spec.timeout_ms
        if limit_ms and held.stopping_at_ms - held.started_at_ms >= limit_ms:
            return f"it was still running after its timeout of {limit_ms} ms"
        return "the time for its job was over"
    return LEASE_ENDED if lease_ended and held.stop_reason is None else ""


def _left(item: Exited) -> Left | None:
    """What it left, and whether there is something that nobody has stored."""
    if not item.keeps:
        return item.left
    return (
        Left(digest="", size_bytes=0, kept=True)
        if item.left is None
        else replace(item.left, kept=True)
    )


def _running(held: Held, progress: Progress) -> AttemptReport:
    return AttemptReport(
        ref=held.order.ref,
        state=AttemptState.RUNNING,
        started_at_ms=held.started_at_ms,
        healthy=progress.healthy,
        port=held.port,
        restarts=held.restarts,
        left=progress.left if progress.healthy else None,
    )


def _is_healthy(progress: Progress, now_ms: int) -> None:
    progress.healthy = True
    if progress.restarts is not None:
        progress.restarts.healthy(now_ms)


def _is_to_stay_up(held: Held, progress: Progress, item: Exited) -> bool:
    """Whether it is a service that nobody stops, and that wants to be started again after this."""
    service = held.order.spec.service
    if service is None or held.state is not AttemptState.RUNNING:
        return False
    failed = bool(item.signal or item.exit_code or progress.failing)
    return is_wanted(service.restart, failed=failed)


def _crash_loop(held: Held, progress: Progress, item: Exited) -> str:
    service = held.order.spec.service
    assert service is not None
    how = f"signal {item.signal}" if item.signal else f"exit code {item.exit_code}"
    if item.oom_killed:
        how += f", out of memory: {_out_of_memory(held)}"
    if progress.failing:
        how = f"its health check failed: {progress.failing}"
    text = (
        f"it ended again ({how}) after {held.restarts} restarts; its budget is "
        f"{service.restart.max} in {service.restart.within_ms / 1000:g} s (restart)"
    )
    return f"{text}\n{item.last_words}" if item.last_words else text
