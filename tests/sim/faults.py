"""What goes wrong, when, and to whom: a plan drawn from the seed, and its execution.

Faults strike while the plan lasts; what they broke heals by itself (a pause ends, a host starts
again, a half-open link is given up), so that afterwards everything accepted must come to its end.
A fault that finds no victim at its moment looks again a little later.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import ClassVar

from tests.sim import workload
from tests.sim.clients import Client
from tests.sim.coverage import Coverage, Fault
from tests.sim.driver import CrashPoint
from tests.sim.impostor import Impostor
from tests.sim.master import CLUSTER_ID, Master
from tests.sim.network import Network, Partition, Pipe
from tests.sim.worker import Machine
from tests.sim.world import Clock, Life, Violation, World

FIRST_MS = 400
LAST_MS = 28_000
LEASE_MS = 30_000
GUARDED_FOR_MS = 35_000
"""More than the lease and what the master waits beyond it."""
AGAIN_MS = 250

MASTER_POINTS = {
    Fault.MASTER_CRASH_BEFORE_COMMIT: CrashPoint.BEFORE_COMMIT,
    Fault.MASTER_CRASH_LOST_TAIL: CrashPoint.LOST_TAIL,
    Fault.MASTER_CRASH_KEPT_TAIL: CrashPoint.KEPT_TAIL,
    Fault.MASTER_CRASH_RELEASING: CrashPoint.RELEASING,
    Fault.FSYNC_ERROR: CrashPoint.COMMIT_FAILED,
}
COPIES_FROM = 90
"""Machines with copied folders are numbered from here."""


class Faults:
    """The plan of one seed."""

    def __init__(
        self,
        world: World,
        network: Network,
        master: Master,
        machines: list[Machine],
        clients: list[Client],
        coverage: Coverage,
        count: int,
    ) -> None:
        self._world = world
        self._network = network
        self._master = master
        self._machines = machines
        self._clients = clients
        self._coverage = coverage
        self._copies: list[Machine] = []
        self._poisons = 0
        self.over = False
        # These twice: a goodbye needs a quiet moment to be the last word, and a frame that is late
        # does harm only where something has happened since.
        kinds = [*Fault, Fault.WORKER_LEAVES, Fault.LATE_FRAMES, Fault.REPEATED_FRAMES]
        self.plan = sorted(
            (world.between(FIRST_MS, LAST_MS), place, world.random.choice(kinds))
            for place in range(count)
        )
        for at_ms, _place, kind in self.plan:
            world.after(at_ms, partial(self._strike, kind))
        world.after(LAST_MS + 1_000, self._stop)

    def _stop(self) -> None:
        """From here on everything heals."""
        self.over = True
        if self._master.process is not None:
            self._master.process.driver.armed = None
        for machine in self._machines:
            machine.on_start = None
            if machine.process is not None:
                machine.process.driver.armed = None
        for machine in self._copies:
            machine.switch_off()
        self._network.on_pipe = None
        for clock in self._clocks():
            clock.run_at(1_000)

    def _strike(self, kind: Fault) -> None:
        if self.over:
            return
        if not self._STRIKES[kind](self, kind):
            self._world.after(AGAIN_MS, lambda: self._strike(kind))

    def _struck(self, kind: Fault, whom: str) -> bool:
        self._coverage.fault(kind)
        self._world.trace("FAULT", f"{kind.value}: {whom}")
        return True

    # -- links ------------------------------------------------------------------------------------

    def _pipe(self) -> Pipe | None:
        pipes = [p for p in self._network.pipes if p.near.open and p.far.open and not p.muted]
        return self._world.random.choice(pipes) if pipes else None

    def _delay(self, kind: Fault) -> bool:
        pipe = self._pipe()
        if pipe is None:
            return False
        pipe.slow(self._world.between(50, 3_000), self._world.between(500, 8_000))
        return self._struck(kind, pipe.name)

    def _cut(self, kind: Fault) -> bool:
        pipe = self._pipe()
        if pipe is None:
            return False
        pipe.cut()
        return self._struck(kind, pipe.name)

    def _half_open(self, kind: Fault) -> bool:
        pipe = self._pipe()
        if pipe is None:
            return False
        pipe.mute(self._world.random.choice((1_000, 15_000, 40_000)))
        return self._struck(kind, pipe.name)

    def _part(self, kind: Fault) -> bool:
        """One host, several or all of them, from the master."""
        world = self._world
        names = [m.name for m in self._machines] + [c.life.name for c in self._clients]
        count = world.random.choice((1, 1, 2, len(names)))
        chosen = world.random.sample(names, min(count, len(names)))
        partition = Partition(
            frozenset(chosen),
            inward=kind is not Fault.PARTITION_OUTWARD,
            outward=kind is not Fault.PARTITION_INWARD,
        )
        # Most pass before anybody is given up, some do not.
        for_ms = world.between(500, LEASE_MS // 2 if world.chance(70) else LEASE_MS + 15_000)
        self._network.part(partition, for_ms)
        return self._struck(kind, f"{', '.join(chosen)} for {for_ms} ms")

    def _keep(self, kind: Fault) -> bool:
        """What is said on a link is heard when its sender has long been back on another one."""

        def keep(pipe: Pipe) -> bool:
            world = self._world
            # Most often while what was placed meanwhile still runs.
            for_ms = world.between(200, 2_000) if world.chance(60) else world.between(2_000, 20_000)
            pipe.keep(world.between(200, 4_000), for_ms)
            return self._struck(kind, pipe.name)

        return self._to_a_worker(keep)

    def _repeat(self, kind: Fault) -> bool:
        def repeat(pipe: Pipe) -> bool:
            pipe.repeat(self._world.between(2_000, 15_000))
            return self._struck(kind, pipe.name)

        if self._world.chance(70):
            return self._to_a_worker(repeat)
        pipe = self._pipe()
        return pipe is not None and repeat(pipe)

    def _to_a_worker(self, strike: Callable[[Pipe], bool]) -> bool:
        """Strike a worker's link, or its next one: from the first message on, its inventory."""
        workers = {machine.name for machine in self._machines}
        pipes = [
            p
            for p in self._network.pipes
            if p.near.open and p.far.open and not p.muted and p.near.life.name in workers
        ]
        if not pipes:
            return False
        pipe = self._world.random.choice(pipes)
        if self._world.chance(50):
            return strike(pipe)
        name = pipe.near.life.name
        self._network.on_pipe = lambda new: new.near.life.name == name and strike(new)
        pipe.cut()
        return True

    # -- machines -------------------------------------------------------------------------------------

    def _fill_disk(self, kind: Fault) -> bool:
        """Only what has begun may go on; the master's shell says so when it looks."""
        if self._master.is_disk_full:
            return False
        self._master.fill_disk(full=True)
        self._world.after(
            self._world.between(1_000, 15_000), lambda: self._master.fill_disk(full=False)
        )
        return self._struck(kind, "master")

    def _slow_disk(self, kind: Fault) -> bool:
        world = self._world
        host: Master | Machine = self._master
        if world.chance(40):
            host = world.random.choice(self._machines)
        if host.is_disk_slow:
            return False
        host.is_disk_slow = True

        def recover() -> None:
            host.is_disk_slow = False

        world.after(world.between(1_000, 15_000), recover)
        return self._struck(kind, "master" if host is self._master else "a worker")

    def _clocks(self) -> list[Clock]:
        return [self._master.clock, *(machine.clock for machine in self._machines)]

    def _skew(self, kind: Fault) -> bool:
        permille = self._world.random.choice((900, 950, 1_050, 1_100))
        self._world.random.choice(self._clocks()).run_at(permille)
        return self._struck(kind, f"{permille} permille")

    def _jump(self, kind: Fault) -> bool:
        if self._master.process is None:
            return False
        ms = self._world.random.choice((1_100, 9_000, 20_000, 29_000, 60_000))
        self._master.process.jump(ms)
        return self._struck(kind, f"{ms} ms")

    def _copy(self, kind: Fault) -> bool:
        """Somebody copies a worker's folder to another machine and starts it there as well."""
        world = self._world
        original = self._machine()
        if original is None or self._copies:
            return False
        copy = original.copied_to(COPIES_FROM + len(self._copies))
        self._copies.append(copy)
        copy.start()
        if world.chance(50):
            # While the original is looking elsewhere.
            original.crash()
        world.after(world.between(2_000, 20_000), copy.switch_off)
        return self._struck(kind, original.name)

    def _start_again(self, kind: Fault) -> bool:
        """The folder's lock sends the second one away (75): nothing of it is ever seen."""
        machine = self._machine()
        if machine is None:
            return False
        before = machine.process
        machine.start()
        if machine.process is not before:
            raise Violation(f"two processes have the folder of {machine.name}")
        return self._struck(kind, machine.name)

    # -- workers ----------------------------------------------------------------------------------

    def _machine(self) -> Machine | None:
        up = [m for m in self._machines if m.process is not None and not m.process.life.paused]
        return self._world.random.choice(up) if up else None

    def _serving(self) -> Machine | None:
        """One on which a service runs, if there is any."""
        found = [
            machine
            for machine in self._machines
            if machine.process is not None
            and not machine.process.life.paused
            and any(one.order.spec.service for one in machine.processes.live.values())
        ]
        return self._world.random.choice(found) if found else None

    def _crash_worker(self, kind: Fault) -> bool:
        machine = self._machine()
        if machine is None:
            return False
        machine.crash()
        return self._struck(kind, machine.name)

    def _arm_worker(self, kind: Fault) -> bool:
        machine = self._machine()
        if machine is None or machine.process is None:
            return False
        self._world.trace("FAULT", f"{kind.value}: {machine.name} is armed")
        machine.process.driver.armed = self._world.random.choice(list(CrashPoint))
        return True

    def _reboot(self, kind: Fault) -> bool:
        machine = self._world.random.choice(self._machines)
        keep_ledger = kind is Fault.MACHINE_REBOOT_TAIL
        if keep_ledger and self._world.chance(60):
            # The worst moment: a process has begun, and the ledger says so only in its last lines.
            machine.on_start = partial(machine.reboot, keep_ledger=True)
        else:
            machine.reboot(keep_ledger=keep_ledger)
        return self._struck(kind, machine.name)

    def _shut_down(self, kind: Fault) -> bool:
        # Half of the times where there is something to be moved away.
        machine = (self._serving() if self._world.chance(50) else None) or self._machine()
        if machine is None:
            return False
        # Now and then the goodbye takes longer than the master's patience with a silent worker.
        machine.shut_down(
            goodbye_ms=self._world.between(8_000, 25_000) if self._world.chance(50) else 0,
            again_ms=self._world.between(1, 3_000) if self._world.chance(30) else 0,
            killed_ms=self._world.between(1, 8_000) if self._world.chance(30) else 0,
        )
        return self._struck(kind, machine.name)

    def _pause_worker(self, kind: Fault) -> bool:
        machine = self._machine()
        if machine is None or machine.life is None:
            return False
        for_ms = self._pause(machine.life, long=kind is Fault.WORKER_PAUSE_LONG)
        if self._world.chance(60):
            # Not the worker's process alone but its machine, and so its jobs with it.
            machine.processes.freeze(for_ms)
        return self._struck(kind, machine.name)

    def _pause_guarding(self, kind: Fault) -> bool:
        """The worst moment: a job that would outlive the lease, if its guard let it."""
        machines = [
            m
            for m in self._machines
            if m.process is not None
            and not m.process.life.paused
            and m.processes.is_guarding_for(GUARDED_FOR_MS)
        ]
        if not machines:
            return False
        machine = self._world.random.choice(machines)
        assert machine.life is not None
        self._pause(machine.life, long=True)
        return self._struck(kind, machine.name)

    def _pause(self, life: Life, *, long: bool) -> int:
        low, high = (LEASE_MS + 1_000, LEASE_MS + 15_000) if long else (100, LEASE_MS - 5_000)
        for_ms = self._world.between(low, high)
        life.pause()
        self._world.after(for_ms, life.resume)
        return for_ms

    # -- the master -------------------------------------------------------------------------------

    def _arm_master(self, kind: Fault) -> bool:
        process = self._master.process
        if process is None or process.driver.armed is not None:
            return False
        self._world.trace("FAULT", f"{kind.value}: armed")
        process.driver.armed = MASTER_POINTS[kind]
        return True

    def _crash_master(self, kind: Fault) -> bool:
        if self._master.process is None:
            return False
        self._master.process.die()
        return self._struck(kind, "master")

    def _impostor(self, kind: Fault) -> bool:
        """The master is down, and something else answers at its address for a while."""
        if self._master.process is None:
            return False
        machine = self._machine()
        if machine is not None and self._world.chance(60):
            # The worst moment: the worker has begun an attempt, and nobody has heard of it.
            machine.on_start = partial(self._usurp, kind)
            return True
        self._usurp(kind)
        return True

    def _usurp(self, kind: Fault) -> None:
        process = self._master.process
        if process is None:
            return
        stale = kind is Fault.STALE_MASTER
        Impostor(
            self._world,
            self._network,
            cluster_id=CLUSTER_ID if stale else "another",
            term=0 if stale else 1_000,
            for_ms=self._world.between(500, 3_000),
        )
        process.die()
        self._struck(kind, "master")

    def _tear(self, kind: Fault) -> bool:
        del kind
        if self._master.process is None or self._master.process.driver.is_busy:
            return False
        if not self._master.store.is_past_checkpoint:
            return False  # what a checkpoint stands for is not read again
        self._master.tear()
        return True

    def _poison(self, kind: Fault) -> bool:
        del kind
        self._poisons += 1
        client = self._world.random.choice(self._clients)
        errand = workload.poisoned(self._world, self._poisons)
        if self._world.chance(50):
            errand = workload.poisoned_schedule(self._world, self._poisons)
        client.add(f"poison {self._poisons}", errand, 0)
        return True

    def _pause_master(self, kind: Fault) -> bool:
        life = self._master.life
        if life is None or life.paused:
            return False
        self._pause(life, long=kind is Fault.MASTER_PAUSE_LONG)
        return self._struck(kind, "master")

    _STRIKES: ClassVar[dict[Fault, Callable[[Faults, Fault], bool]]] = {
        Fault.DELAY: _delay,
        Fault.CUT: _cut,
        Fault.HALF_OPEN: _half_open,
        Fault.WORKER_CRASH: _crash_worker,
        Fault.WORKER_CRASH_IN_TURN: _arm_worker,
        Fault.MACHINE_REBOOT: _reboot,
        Fault.MACHINE_REBOOT_TAIL: _reboot,
        Fault.WORKER_LEAVES: _shut_down,
        Fault.WORKER_PAUSE_SHORT: _pause_worker,
        Fault.WORKER_PAUSE_LONG: _pause_worker,
        Fault.WORKER_PAUSE_GUARDING: _pause_guarding,
        Fault.MASTER_CRASH_BEFORE_COMMIT: _arm_master,
        Fault.MASTER_CRASH_LOST_TAIL: _arm_master,
        Fault.MASTER_CRASH_KEPT_TAIL: _arm_master,
        Fault.MASTER_CRASH_RELEASING: _arm_master,
        Fault.MASTER_CRASH_IDLE: _crash_master,
        Fault.STALE_MASTER: _impostor,
        Fault.FOREIGN_MASTER: _impostor,
        Fault.MASTER_PAUSE_SHORT: _pause_master,
        Fault.MASTER_PAUSE_LONG: _pause_master,
        Fault.PARTITION: _part,
        Fault.PARTITION_INWARD: _part,
        Fault.PARTITION_OUTWARD: _part,
        Fault.LATE_FRAMES: _keep,
        Fault.REPEATED_FRAMES: _repeat,
        Fault.SLOW_DISK: _slow_disk,
        Fault.DISK_FULL: _fill_disk,
        Fault.FSYNC_ERROR: _arm_master,
        Fault.TORN_TAIL: _tear,
        Fault.CLOCK_RATE: _skew,
        Fault.CLOCK_JUMP: _jump,
        Fault.COPIED_FOLDER: _copy,
        Fault.SAME_FOLDER: _start_again,
        Fault.POISON: _poison,
    }
