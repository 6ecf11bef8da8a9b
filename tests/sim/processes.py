"""Virtual processes of one machine: they take time, end somehow, and may not care for SIGTERM.

They belong to the machine, not to the worker: a crash of the worker leaves them running until the
next start sweeps them. Exclusive ones have a guard, which stops them when their lease ends and when
their worker dies, whether that one stands still or not. What each attempt really did is told to the auditor, who compares it with
what the cluster believes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import msgspec
from msgspec import Struct

from tests.sim.checkers import Auditor, left_by
from tests.sim.world import Life, Timer, World
from titan_proto.ids import AttemptRef
from titan_proto.messages.worker import AttemptOrder, Left
from titan_proto.specs import JobKind

KILLS_ITS_WORKER = "kill -9 $PPID"
"""What a job runs that takes its worker with it."""
SIGKILL = 9
SIGTERM = 15


class Outcome(Struct, frozen=True):
    """How a process ended."""

    exit_code: int
    signal: int
    lease_ended: bool = False
    """By its guard."""
    outputs: dict[str, str] = msgspec.field(default_factory=dict)
    """What it left for others ..."""
    output_problem: str = ""
    """... or what is wrong with that."""
    keeps: bool = False
    """Or it left some that are nowhere else."""
    left: Left | None = None
    """The files that it left for others ..."""
    left_problem: str = ""
    """... or what is wrong with them."""


class Guard(Struct, frozen=True):
    """When a guard acts if it does not hear otherwise, in the world's time."""

    term_at_ms: int
    kill_at_ms: int


class Process:
    """One attempt's process."""

    def __init__(self, order: AttemptOrder, pid: int, start_ticks: int) -> None:
        self.order = order
        self.pid = pid
        self.start_ticks = start_ticks
        self.ignores_term = False
        self.is_killed = False
        """SIGKILL is on its way to it."""
        self.end: Timer | None = None
        self.ends_at_ms = 0
        self.guard: Guard | None = None
        self.lease_ended = False
        """Its guard has begun to stop it."""
        self.alarms: list[Timer] = []
        self.frozen_until_ms = 0
        self.watcher: Life
        """The worker's process that started it, and how often that one had been paused then."""
        self.pauses = 0
        self.report: Callable[[Outcome], None] = lambda _outcome: None
        """Whom the kernel tells; nobody, once its worker has died."""

    @property
    def is_watched(self) -> bool:
        """Whether its worker has been able to act ever since, and its machine too."""
        watcher = self.watcher
        return watcher.alive and watcher.pauses == self.pauses and not self.frozen_until_ms


class Host:
    """What machines share that are containers of one host without networks of their own."""

    def __init__(self, world: World, name: str) -> None:
        self.name = name
        self.ports: dict[int, AttemptRef] = {}
        """Fixed ports that are taken, and whose process listens there."""
        self.is_used_by_others = world.chance(15)
        """A program that is none of the cluster's has every fixed port."""
        self.lacks_something = world.chance(30)
        """Services that need a fixed port crash here as soon as they are started."""


class Processes:
    """The process table of a machine."""

    def __init__(self, world: World, auditor: Auditor, machine: str, host: Host) -> None:
        self._world = world
        self._auditor = auditor
        self._machine = machine
        self._host = host
        self._pid = 1000
        self.started: Callable[[AttemptOrder], None]
        """Told of every process, for the faults that wait for one."""
        self.live: dict[AttemptRef, Process] = {}
        self._begun: dict[AttemptRef, None] = {}
        """Services that were started here."""

    def start(
        self,
        order: AttemptOrder,
        report: Callable[[Outcome], None],
        *,
        watcher: Life,
        guard: Guard | None,
    ) -> Process:
        """Fork; how long it will take is drawn here."""
        world = self._world
        self._pid += world.between(1, 5)
        process = Process(order, self._pid, world.now_ms // 10)
        process.report = report
        process.watcher, process.pauses = watcher, watcher.pauses
        process.guard = guard
        process.ignores_term = world.chance(15)
        self.live[order.ref] = process
        taken = sum(process.order.spec.needs.slots for process in self.live.values())
        self._auditor.spawned(self._machine, order, taken)
        service = order.spec.service
        if service is not None and service.port:
            self._host.ports[service.port] = order.ref
        lasts_ms = self._lifetime_ms(order)
        if lasts_ms is not None:
            self._end_after(process, lasts_ms)
        self._set_alarms(process)
        self.started(order)
        return process

    def renew(self, ref: AttemptRef, guard: Guard) -> None:
        """The guard may wait longer, unless it has begun already."""
        process = self.live.get(ref)
        if process is not None and not process.lease_ended:
            process.guard = guard
            self._set_alarms(process)

    def signal(self, ref: AttemptRef, *, force: bool) -> None:
        """SIGTERM or SIGKILL to its group; nothing where there is none."""
        process = self.live.get(ref)
        if process is None or (process.ignores_term and not force):
            return
        process.is_killed = process.is_killed or force
        outcome = Outcome(0, SIGKILL if force else SIGTERM)
        if not force and self._world.chance(30):
            # It cleans up and exits by itself.
            outcome = Outcome(self._world.random.choice((0, 1, 143)), 0)
        delay_ms = self._world.between(0, 20 if force else 800)
        self._world.after(delay_ms, lambda: self._end(process, outcome))

    def sweep(self) -> None:
        """Kill everything that earlier processes of the worker left behind."""
        for process in list(self.live.values()):
            process.report = lambda _outcome: None
            self._end(process, Outcome(0, SIGKILL))

    def orphan(self) -> None:
        """The worker died: nobody waits for its children any more, and guards end theirs."""
        for process in self.live.values():
            process.report = lambda _outcome: None
            if process.guard is not None:
                self._world.after(
                    self._world.between(0, 20), partial(self._end, process, Outcome(0, SIGKILL))
                )

    def freeze(self, for_ms: int) -> None:
        """The whole machine sleeps: what runs on it ends so much later, and guards act later."""
        for process in self.live.values():
            process.frozen_until_ms = self._world.now_ms + for_ms
            self._auditor.frozen(process.order.ref, process.frozen_until_ms)
            self._set_alarms(process)
            if process.end is not None:
                process.end.cancel()
                self._end_after(process, process.ends_at_ms - self._world.now_ms + for_ms)

    def _end_after(self, process: Process, lasts_ms: int) -> None:
        process.ends_at_ms = self._world.now_ms + lasts_ms
        process.end = self._world.after(lasts_ms, partial(self._end_by_itself, process))

    def _end_by_itself(self, process: Process) -> None:
        self._end(process, self._own_outcome(process.order))

    def is_guarding_for(self, longer_than_ms: int) -> bool:
        """Whether an exclusive process is here that would live so much longer."""
        return any(
            process.guard is not None
            and not process.lease_ended
            and (process.end is None or process.ends_at_ms - self._world.now_ms > longer_than_ms)
            for process in self.live.values()
        )

    def _set_alarms(self, process: Process) -> None:
        """What the guard does at its times, or as soon as its machine is awake again."""
        for alarm in process.alarms:
            alarm.cancel()
        guard = process.guard
        if guard is None:
            return
        process.alarms = [
            self._world.after(
                max(0, at_ms - self._world.now_ms, process.frozen_until_ms - self._world.now_ms),
                partial(self._alarm, process, force=force),
            )
            for at_ms, force in ((guard.term_at_ms, False), (guard.kill_at_ms, True))
        ]

    def _alarm(self, process: Process, *, force: bool) -> None:
        if self.live.get(process.order.ref) is process:
            process.lease_ended = True
            self.signal(process.order.ref, force=force)

    def _end(self, process: Process, outcome: Outcome) -> None:
        ref = process.order.ref
        if self.live.get(ref) is not process:
            return
        del self.live[ref]
        service = process.order.spec.service
        if service is not None and service.port:
            del self._host.ports[service.port]
        if process.end is not None:
            process.end.cancel()
        for alarm in process.alarms:
            alarm.cancel()
        self._auditor.left(
            ref,
            (outcome.outputs, outcome.output_problem),
            (outcome.left, outcome.left_problem),
        )
        self._auditor.exited(ref, outcome.exit_code, outcome.signal, was_watched=process.is_watched)
        process.report(msgspec.structs.replace(outcome, lease_ended=process.lease_ended))

    def _lifetime_ms(self, order: AttemptOrder) -> int | None:
        world = self._world
        section = order.spec.service
        if section is not None and section.port and self._host.lacks_something:
            return world.between(0, 200)
        if order.spec.kind is JobKind.SERVICE:
            # One that has ended before will soon end again.
            is_again, self._begun[order.ref] = order.ref in self._begun, None
            if world.chance(40 if is_again else 75):
                return None
        if order.spec.exclusive and world.chance(30):
            # It would outlive the lease of a worker that stands still, if nobody ended it.
            return world.between(25_000, 70_000)
        if world.chance(50):
            return world.between(0, 200)
        if world.chance(76):
            return world.between(200, 4_000)
        # Long enough to outlive the lease of a worker that is paused.
        return world.between(4_000, 60_000)

    def _own_outcome(self, order: AttemptOrder) -> Outcome:
        world = self._world
        if world.chance(3):
            return Outcome(0, 0, output_problem="line 1 is not of the form key=value")
        if world.chance(90):
            if order.publishes and world.chance(3):
                return Outcome(0, 0, left_problem="more than FILES_LEFT_PER_JOB files")
            left = left_by(order.ref) if order.publishes and world.chance(60) else None
            keeps = not order.publishes and world.chance(20)
            return Outcome(0, 0, outputs=self._outputs(order), left=left, keeps=keeps)
        if world.chance(70):
            return Outcome(world.between(1, 255), 0)
        return Outcome(0, world.random.choice((6, 9, 11, 15)))

    def _outputs(self, order: AttemptOrder) -> dict[str, str]:
        """Nearly always who it is: no other attempt says the same."""
        outputs = {"attempt": str(order.ref)} if self._world.chance(85) else {}
        return {**outputs, "more": "$(false)"} if self._world.chance(30) else outputs
