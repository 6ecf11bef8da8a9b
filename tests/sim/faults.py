"""What goes wrong, when, and to whom: a plan drawn from the seed, and its execution.

Faults strike while the plan lasts; what they broke heals by itself (a pause ends, a host starts
again, a half-open link is given up), so that afterwards everything accepted must come to its end.
A fault that finds no victim at its moment looks again a little later.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import ClassVar

from tests.sim.coverage import Coverage, Fault
from tests.sim.driver import CrashPoint
from tests.sim.impostor import Impostor
from tests.sim.master import CLUSTER_ID, Master
from tests.sim.network import Network, Pipe
from tests.sim.worker import Machine
from tests.sim.world import Life, World

FIRST_MS = 400
LAST_MS = 28_000
LEASE_MS = 30_000
AGAIN_MS = 250

MASTER_POINTS = {
    Fault.MASTER_CRASH_BEFORE_COMMIT: CrashPoint.BEFORE_COMMIT,
    Fault.MASTER_CRASH_LOST_TAIL: CrashPoint.LOST_TAIL,
    Fault.MASTER_CRASH_KEPT_TAIL: CrashPoint.KEPT_TAIL,
    Fault.MASTER_CRASH_RELEASING: CrashPoint.RELEASING,
}


class Faults:
    """The plan of one seed."""

    def __init__(
        self,
        world: World,
        network: Network,
        master: Master,
        machines: list[Machine],
        coverage: Coverage,
        count: int,
    ) -> None:
        self._world = world
        self._network = network
        self._master = master
        self._machines = machines
        self._coverage = coverage
        self.over = False
        # Leaving twice: a goodbye needs a quiet moment to be the last word.
        kinds = [*Fault, Fault.WORKER_LEAVES]
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

    # -- workers ----------------------------------------------------------------------------------

    def _machine(self) -> Machine | None:
        up = [m for m in self._machines if m.process is not None and not m.process.life.paused]
        return self._world.random.choice(up) if up else None

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
        machine = self._machine()
        if machine is None:
            return False
        # Now and then the goodbye takes longer than the master's patience with a silent worker.
        machine.shut_down(
            goodbye_ms=self._world.between(8_000, 25_000) if self._world.chance(50) else 0
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
        Fault.MASTER_CRASH_BEFORE_COMMIT: _arm_master,
        Fault.MASTER_CRASH_LOST_TAIL: _arm_master,
        Fault.MASTER_CRASH_KEPT_TAIL: _arm_master,
        Fault.MASTER_CRASH_RELEASING: _arm_master,
        Fault.MASTER_CRASH_IDLE: _crash_master,
        Fault.STALE_MASTER: _impostor,
        Fault.FOREIGN_MASTER: _impostor,
        Fault.MASTER_PAUSE_SHORT: _pause_master,
        Fault.MASTER_PAUSE_LONG: _pause_master,
    }
