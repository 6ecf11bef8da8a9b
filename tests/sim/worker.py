"""A worker's machine: a ledger, processes, and one worker process after another round the real core.

It does what the worker's shells do, and nothing more. Every decision is the core's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from tests.sim import wire
from tests.sim.checkers import Auditor, left_by
from tests.sim.coverage import Coverage, Rearing
from tests.sim.disk import Ledger, decode, encode
from tests.sim.driver import Driver
from tests.sim.network import End, Network
from tests.sim.processes import KILLS_ITS_WORKER, SIGKILL, Guard, Host, Outcome, Processes
from tests.sim.wire import Wire
from tests.sim.workload import FIRST_PORT, SLOTS_MAX
from tests.sim.world import Clock, Life, Violation, World
from titan_proto.connection import Opened, Received
from titan_proto.errors import ErrorCode
from titan_proto.ids import AttemptRef
from titan_proto.messages import (
    HeartbeatAck,
    Joined,
    Leave,
    ReportAcks,
    Role,
    ShutDown,
    SpawnSibling,
    SpawnVerdicts,
    StartAttempts,
    StopAttempts,
    WorkerStatus,
)
from titan_proto.messages.worker import AttemptOrder, Left
from titan_proto.specs import HealthCheck
from titan_proto.states import ExitReason
from titan_worker.core.apply import apply
from titan_worker.core.check import check
from titan_worker.core.core import BornAs, WorkerConfig, WorkerCore
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
from titan_worker.core.records import AttemptForgotten
from titan_worker.core.state import digest

CRASHED_MS = 6_000
"""A process that crashed is started again within so long, one that left within so long:"""
LEFT_MS = 45_000
DRAINS_MS = (0, 500, 5_000, 20_000)
"""How long workers let their tasks go on once they are told to leave."""
CORES = (0, 2, 8, 16, 16)
"""Of a worker's host; without any it spawns nobody."""
KILLED_MS = 10_000
"""Within so long a sibling that is given up is gone, whatever its parent's disk is like."""
SLOW_STARTS_MS = (3_000, 12_000, 200_000)
COMMIT_MS = 5
SLOW_COMMIT_MS = (50, 2_000)
BACKOFF_MS = 100
BACKOFF_MAX_MS = 4_000
USAGE_EVERY_MS = 7_000


_STOPS_OF_THEIR_OWN = {ExitReason.TIMED_OUT, ExitReason.CANCELLED, ExitReason.STOPPED}


class Machine:
    """What a worker lives on. What is on it survives the worker's process, or not even a reboot.

    Several may be containers of one host, and share its ports.
    """

    def __init__(
        self,
        world: World,
        network: Network,
        auditor: Auditor,
        coverage: Coverage,
        *,
        number: int,
        slots: int,
        skills: tuple[str, ...],
        host: Host,
        resources: dict[str, int],
        folder: str = "",
        copy_of: Machine | None = None,
        child_of: Machine | None = None,
    ) -> None:
        self.world = world
        self.network = network
        self.auditor = auditor
        self.coverage = coverage
        self.name = f"worker{number}" if copy_of is None else f"copy{number}"
        if child_of is not None:
            self.name = f"{child_of.name}.{number}"
        own = folder or self.name
        self.workspace: str = own if copy_of is None else copy_of.workspace
        """Its name lies in the folder, with the files: a copy has both, and so have workers of one folder."""
        self.host = host
        self.port = FIRST_PORT + number if copy_of is None else copy_of.port
        self.slots = slots
        self.skills = skills
        self.resources = resources
        # Clocks of machines differ; only durations may be compared between them.
        self.clock = Clock(world, ahead_ms=world.between(-5_000, 5_000))
        self.is_disk_slow = False
        self.is_gone = False
        """Switched off for good."""
        self.boots = 1
        self.processes = Processes(world, auditor, self.name, host)
        self.processes.started = self._process_started
        self.on_start: Callable[[], None] | None = None
        """An armed fault: strikes as soon as the next process has begun."""
        self.parent = child_of
        """Of a worker that was spawned: on whose machine it is."""
        self.ledger = self._fresh_ledger() if copy_of is None else copy_of.ledger.copied()
        self.process: WorkerProcess | None = None
        self.cores = world.random.choice(CORES) if copy_of is None else copy_of.cores
        self.nursery = Nursery(self)
        self.order: SpawnSibling | None = None
        """... and what it was asked for as."""

    @property
    def life(self) -> Life | None:
        """Of the present process."""
        return self.process.life if self.process is not None else None

    def start(self) -> None:
        """Start the worker; it sweeps first."""
        if self.process is None and not self.is_gone:
            self.processes.sweep()
            if self.parent is None and self.world.chance(10):
                # Started again by somebody with other ideas of what the machine can bear.
                self.slots = self.world.between(1, SLOTS_MAX)
                self.auditor.machine(self.name, self.slots)
            self.process = WorkerProcess(self)

    def process_gone(self, down_ms: int) -> None:
        """Crashed, or ended in good order; somebody starts it again after a while."""
        self.process = None
        self.processes.orphan()
        if self.parent is None:
            self.world.after(self.world.between(20, down_ms), self.start)
        else:
            self.parent.nursery.died(self)

    def crash(self) -> None:
        """kill -9 of the worker's process, between two turns."""
        if self.process is not None:
            self.process.die()

    def copied_to(self, number: int) -> Machine:
        """Another machine, with a copy of this one's folder."""
        copy = Machine(
            self.world,
            self.network,
            self.auditor,
            self.coverage,
            number=number,
            slots=self.slots,
            skills=self.skills,
            host=Host(self.world, f"copy-host{number}"),
            resources=self.resources,
            copy_of=self,
        )
        self.auditor.machine(copy.name, copy.slots)
        return copy

    def switch_off(self) -> None:
        """Somebody has understood that this machine is one too many."""
        self.is_gone = True
        self.crash()
        self.processes.sweep()

    def commit_ms(self) -> int:
        """How long the disk takes this time."""
        low, high = SLOW_COMMIT_MS if self.is_disk_slow else (0, COMMIT_MS)
        return self.world.between(low, high)

    def reboot(self, *, keep_ledger: bool) -> None:
        """The machine goes down: its processes with it, and what was not on the disk."""
        if self.parent is not None:
            self.parent.reboot(keep_ledger=keep_ledger)
            return
        self.boots += 1
        self.nursery.power_off()
        self.processes.sweep()
        if self.process is not None:
            self.network.drop_machine(self.process.life)
            self.process.life.end()
            self.process_gone(CRASHED_MS)
        if keep_ledger:
            self.ledger.lose_tail(self.world.between(0, min(4, len(self.ledger))))
        else:
            self.ledger = self._fresh_ledger()

    def _process_started(self, order: AttemptOrder) -> None:
        world = self.world
        if order.spec.launch.shell == KILLS_ITS_WORKER and world.chance(95):
            world.after(world.between(0, 50), self.crash)
        if self.on_start is not None:
            world.after(world.between(0, 3), self.on_start)
            self.on_start = None

    def shut_down(self, *, goodbye_ms: int, again_ms: int = 0, killed_ms: int = 0) -> None:
        """SIGTERM to the worker: stop everything, report, leave; its last word may take long.

        `again_ms`: somebody has no patience, and says it again after so long. `killed_ms`: or kills it.
        """
        if self.process is not None:
            self.process.goodbye_ms = goodbye_ms
            self.auditor.shut_down(self.ledger.worker_id)
            self.process.put(StopRequested(at_once=self.world.chance(20)))
            if again_ms:
                process = self.process
                process.life.after(again_ms, lambda: process.put(StopRequested()))
            if killed_ms:
                self.process.life.after(killed_ms, self.crash)

    def _fresh_ledger(self) -> Ledger:
        own = f"w{self.port}" if self.parent is None else self.name
        return Ledger(f"{own}x{self.boots}")


class Nursery:
    """The workers that one machine's worker has spawned: each in a folder of its own port beside it."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self.children: dict[int, Machine] = {}
        """By port: a folder is used again."""
        self.made: Callable[[Machine], None] = lambda _machine: None
        """Told of every new folder, for the faults and for the end."""

    def bear(self, order: SpawnSibling) -> Machine | str:
        """Start it under the port that was asked for, or the next one; or why that cannot be."""
        world, parent = self._machine.world, self._machine
        if world.chance(8):
            return "exec format error"
        port = order.port
        while (child := self.children.get(port)) is not None and child.process is not None:
            if order.exact:
                return f"another worker has port {port}"
            port += 1
        if child is None:
            child = self._folder(port)
        child.slots, child.skills, child.order = order.slots, order.skills, order
        parent.auditor.machine(child.name, child.slots)
        parent.auditor.born(order.number, child.name, parent.boots)
        child.start()
        return child

    def _folder(self, port: int) -> Machine:
        parent = self._machine
        child = Machine(
            parent.world,
            parent.network,
            parent.auditor,
            parent.coverage,
            number=port - FIRST_PORT,
            slots=1,
            skills=parent.skills,
            host=parent.host,
            # What can be counted out of the host is the parent's to give.
            resources={"cpu": 0, "memory": 0},
            folder=parent.workspace,
            child_of=parent,
        )
        child.clock, child.cores = parent.clock, parent.cores
        self.children[port] = child
        self.made(child)
        return child

    def find(self, number: int) -> Machine | None:
        """The living one that was asked for under this number."""
        for child in self.children.values():
            order = None if child.process is None else child.order
            if order is not None and order.number == number:
                return child
        return None

    def end(self, number: int) -> None:
        """Kill it, and what it has started."""
        child = self.find(number)
        if child is not None:
            child.coverage.rearing(Rearing.KILLED)
            child.crash()

    def died(self, child: Machine) -> None:
        """The kernel tells the process that watches it, if there is one; that one clears up behind it."""
        process = self._machine.process
        if process is not None and child.order is not None:
            process.sibling_died(child, child.order.number)

    def power_off(self) -> None:
        """The machine that they are all on goes down."""
        for child in self.children.values():
            child.boots += 1
            child.processes.sweep()
            if child.process is not None:
                child.network.drop_machine(child.process.life)
                child.process.life.end()
                child.process = None


class WorkerProcess:
    """One start of the worker, until it dies or exits."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.world = machine.world
        self.life = Life(machine.world, machine.name)
        self.clock = machine.clock
        self._auditor = machine.auditor
        self._coverage = machine.coverage
        self._wire: Wire | None = None
        self._backoff_ms = BACKOFF_MS
        self._last_ms = 0
        self._exit_wanted = False
        self.goodbye_ms = 0
        self.joined = False
        self._abandoned: dict[AttemptRef, None] = {}
        self._foreign: dict[AttemptRef, None] = {}
        self._named: dict[str, dict[int, Left]] = {}
        """By run: the layers that this process was told of, on whatever link."""
        ledger = machine.ledger
        state = ledger.open()
        self.shadow = ledger.fold()
        self.core = WorkerCore(
            state,
            WorkerConfig(
                worker_id=ledger.worker_id,
                incarnation=ledger.incarnation,
                host=machine.host.name,
                port=machine.port,
                slots=machine.slots,
                skills=machine.skills,
                resources=machine.resources,
                software=wire.SOFTWARE,
                pid=self.world.between(2, 30_000),
                workspace=machine.workspace,
                network=machine.host.name,
                drain_ms=self.world.random.choice(DRAINS_MS),
                cores=machine.cores,
                born_as=self._born_as(),
            ),
        )
        self._watched: set[int] = set()
        """Siblings whose end the kernel tells this process."""
        # Of a copied folder each copy counts on by itself; that is what is wrong with copies.
        self._auditor.worker_started(f"{ledger.worker_id} on {machine.name}", ledger.incarnation)
        self.driver = Driver(self.world, self, self.core, commit_ms=machine.commit_ms)
        self.driver.on_crash = self._auditor.worker_crashed
        self.put(Started(boot_id=f"{machine.name}-boot{machine.boots}"))
        if machine.parent is None or self.world.chance(80):
            self._dial()
        else:
            # A slow one, or one that hangs until it is killed or tired of it.
            self.life.after(self.world.random.choice(SLOW_STARTS_MS), self._dial)
        self._sample_usage()

    def _born_as(self) -> BornAs | None:
        order = self.machine.order
        if order is None:
            return None
        return BornAs(number=order.number, proof=order.proof, join_within_ms=order.join_within_ms)

    # -- the shell of the driver ------------------------------------------------------------------

    def clock_ms(self) -> int:
        """This machine's own idea of the time."""
        self._last_ms = max(self._last_ms, self.clock.now_ms())
        return self._last_ms

    def drain(self) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """One turn, with every invariant checked and the shadow beside it."""
        turn = self.core.drain()
        check(self.core.state)
        self.core.check()
        for record in turn.records:
            copy = decode(encode(record))
            self._move(copy)
        if digest(self.shadow) != digest(self.core.state):
            raise Violation(f"the state of {self.machine.name} is not the fold of its ledger")
        return turn.records, turn.effects

    def write(self, facts: tuple[Any, ...]) -> None:
        """Nothing to see of it before `sync`: the process survives or the transaction is whole."""

    def sync(self, facts: tuple[Any, ...]) -> None:
        """One transaction into the ledger."""
        for body in self.machine.ledger.commit(facts):
            self.world.remember(body)
        for fact in facts:
            self._coverage.fact("worker", fact)
            if isinstance(fact, AttemptForgotten) and fact.ref not in self._foreign:
                self._auditor.forgotten(self.machine.ledger.worker_id, fact.ref)

    def lose_unsynced(self) -> None:
        """Nothing was written."""

    def is_refused(self, item: Any) -> bool:
        """A worker takes what comes."""
        del item
        return False

    def broke(self, item: Any) -> bool:
        """No bug is planted here."""
        del item
        return False

    def _is_stopped_by_leave(self, ref: AttemptRef) -> bool:
        """Not if it was being stopped for something else: should the worker die, that was its death."""
        held = self.shadow.held.get(ref)
        return held is not None and held.stop_reason not in _STOPS_OF_THEIR_OWN

    def release(self, effect: Any) -> None:
        """Do what the core asked for."""
        self._coverage.effect("worker", effect)
        if isinstance(effect, Send):
            if self._wire is not None and self._wire.is_open:
                if isinstance(effect.message, WorkerStatus) and effect.message.leaving:
                    self._auditor.says_that_it_leaves(
                        ref for ref in self.machine.processes.live if self._is_stopped_by_leave(ref)
                    )
                if isinstance(effect.message, Leave):
                    self._wire.flush()
                    self._wire.hold(self.goodbye_ms)
                self._wire.send(effect.message)
        elif isinstance(effect, Prepare):
            self._prepare(effect.order)
        elif isinstance(effect, AbandonPrepare):
            self._abandoned[effect.ref] = None
        elif isinstance(effect, Spawn):
            self._spawn(effect)
        elif isinstance(effect, RenewLease):
            self.machine.processes.renew(effect.ref, self._guard(effect.lease_end))
        elif isinstance(effect, Terminate):
            self.machine.processes.signal(effect.ref, force=effect.force)
        elif isinstance(effect, Probe):
            self.life.after(
                self.world.between(5, 3_000), partial(self._probe, effect.ref, effect.check)
            )
        elif isinstance(effect, HangUp):
            if self._wire is not None:
                self._wire.hang_up(ErrorCode.PROTOCOL, effect.reason)
        elif isinstance(effect, Exit):
            self._exit_wanted = True
        elif isinstance(effect, BearSibling):
            self.life.after(self.world.between(0, 200), partial(self._bear, effect.order))
        elif isinstance(effect, FindSibling):
            self._find_sibling(effect)
        elif isinstance(effect, EndSibling):
            nursery, number = self.machine.nursery, effect.number
            self.life.after(self.world.between(0, 20), lambda: nursery.end(number))
        elif not isinstance(effect, Forget):
            raise Violation(f"an effect that no engine knows: {effect}")

    def released(self) -> None:
        """One write per turn; then perhaps the end."""
        if self.machine.parent is not None and self.core.is_leaving:
            # Told so, or without a master for too long.
            self._auditor.shut_down(self.machine.ledger.worker_id)
        if self._wire is not None:
            self._wire.flush()
        if self._exit_wanted:
            if not all(process.is_killed for process in self.machine.processes.live.values()):
                raise Violation(f"{self.machine.name} exits and leaves processes behind")
            self._go(LEFT_MS)

    def die(self) -> None:
        """Killed."""
        self._go(CRASHED_MS)

    def _go(self, down_ms: int) -> None:
        """The process is gone; the kernel closes its socket."""
        self.life.end()
        self.machine.network.drop_process(self.life)
        self.machine.process_gone(down_ms)

    def put(self, item: Any) -> None:
        """Into the inbox."""
        self._coverage.input("worker", item)
        self.driver.put(item)

    # -- the link ---------------------------------------------------------------------------------

    def _dial(self) -> None:
        self.machine.network.dial(self.life, connected=self._connected, refused=self._again)

    def _connected(self, end: End) -> None:
        connection = wire.dialler(self.world, Role.WORKER, last_term=self.core.state.term)
        link = Wire(self.world, end, connection, self._coverage)
        link.on_open = self._opened
        link.on_message = self._message
        link.on_close = self._closed
        self._wire = link
        link.flush()

    def _opened(self, opened: Opened) -> None:
        welcome = opened.welcome
        self.put(LinkUp(cluster_id=welcome.cluster_id, term=welcome.term))

    def _message(self, received: Received) -> None:
        message = received.message
        if isinstance(message, StartAttempts):
            self._auditor.ordered(self.machine.ledger.worker_id, message)
            for order in message.orders:
                named = self._named.setdefault(order.ref.run_id, {})
                named.update((layer.index, layer.left) for layer in order.layers)
        elif isinstance(message, ReportAcks):
            self._auditor.acked(message)
        elif isinstance(message, ShutDown):
            self._auditor.shut_down(self.machine.ledger.worker_id)
        elif isinstance(message, SpawnSibling):
            self._auditor.told_to_spawn(message)
        elif isinstance(message, SpawnVerdicts):
            self._auditor.told_verdicts(message)
            for number in message.given_up:
                gone = partial(self._check_gone, number, self.life.pauses)
                self.life.after(KILLED_MS, gone)
        elif not isinstance(message, (HeartbeatAck, Joined, StopAttempts)):
            raise Violation(f"the master told a worker {message}")
        if isinstance(message, Joined):
            self.joined = True
            self._backoff_ms = BACKOFF_MS
        self.put(FromMaster(message=message))

    def _closed(self, code: ErrorCode | None) -> None:
        if code is ErrorCode.SUPERSEDED or (
            code is ErrorCode.DUPLICATE_WORKER and self.world.chance(50)
        ):
            # Somebody else is this worker now, or may be: it ends, and is started again.
            self.die()
            return
        self._wire = None
        self.joined = False
        self.put(LinkDown())
        self._again()

    def _again(self) -> None:
        delay_ms = self.world.between(self._backoff_ms // 2, self._backoff_ms)
        self._backoff_ms = min(BACKOFF_MAX_MS, self._backoff_ms * 2)
        self.life.after(delay_ms, self._dial)

    # -- siblings ---------------------------------------------------------------------------------

    def _bear(self, order: SpawnSibling) -> None:
        child = self.machine.nursery.bear(order)
        number = order.number
        if isinstance(child, str):
            self.put(SiblingGone(number=number, message=child))
            return
        self._watched.add(number)
        began = SiblingBegan(number=number, pid=self.world.between(2, 30_000), start_ticks=1)
        self.life.after(self.world.between(0, 50), lambda: self.put(began))

    def _check_gone(self, number: int, pauses: int) -> None:
        """A worker that stands still at no time has killed by now whom it was told to give up."""
        child = self.machine.nursery.find(number)
        if child is not None and self.life.pauses == pauses:
            raise Violation(f"{child.name} was given up as {number}, and is there still")

    def _find_sibling(self, effect: FindSibling) -> None:
        number = effect.order.number
        child = self.machine.nursery.find(number)
        if child is None:
            self._clear_up_behind(number)
            self.put(SiblingGone(number=number, message="it ended while nobody watched"))
            return
        self._watched.add(number)
        self.put(SiblingBegan(number=number, pid=effect.pid or 7, start_ticks=1))

    def sibling_died(self, child: Machine, number: int) -> None:
        """The kernel says so."""
        if number in self._watched:
            self._watched.discard(number)
            self.life.do(lambda: self._sibling_gone(child, number))

    def _sibling_gone(self, child: Machine, number: int) -> None:
        if child.process is None:
            child.processes.sweep()
        self.put(SiblingGone(number=number, message="it ended"))

    def _clear_up_behind(self, number: int) -> None:
        for child in self.machine.nursery.children.values():
            if child.process is None and child.order is not None and child.order.number == number:
                child.processes.sweep()

    # -- the process host -------------------------------------------------------------------------

    def _prepare(self, order: AttemptOrder) -> None:
        self.life.after(self.world.between(0, 150), partial(self._prepared, order.ref))

    def _prepared(self, ref: AttemptRef) -> None:
        if ref in self._abandoned and self.world.chance(50):
            return
        if self.world.chance(3):
            self.put(WorkspaceFailed(ref=ref, message="no space left on device"))
        else:
            self.put(WorkspaceReady(ref=ref))

    def _guard(self, end: LeaseEnd) -> Guard:
        """The guard's times in the world's time: it reads the same clock as its worker."""
        ahead_ms = self.clock_ms() - self.world.now_ms
        return Guard(end.term_at_ms - ahead_ms, end.kill_at_ms - ahead_ms)

    def _spawn(self, effect: Spawn) -> None:
        order, ref = effect.order, effect.order.ref
        if self.core.is_leaving and order.spec.service is None:
            raise Violation(f"{self.machine.name} leaves, and starts {ref}")
        if self.world.chance(3):
            self.life.after(
                self.world.between(0, 5),
                lambda: self.put(SpawnFailed(ref=ref, message="exec format error")),
            )
            return
        port = 0 if order.spec.service is None else order.spec.service.port
        holder = self.machine.host.ports.get(port)
        if holder is not None or (port and self.machine.host.is_used_by_others):
            if holder is not None:
                self._auditor.port_refused(ref, holder)
            message = f"port {port} is taken"
            self.life.after(
                self.world.between(0, 5), lambda: self.put(SpawnFailed(ref=ref, message=message))
            )
            return
        self._auditor.named_files(order, self._named.get(ref.run_id, {}))
        guard = None if effect.lease_end is None else self._guard(effect.lease_end)
        if guard is not None and self.world.now_ms >= guard.term_at_ms:
            # Decided in time, and done too late: the guard looks before it starts anything.
            self._exited(ref, Outcome(0, 0, lease_ended=True))
            return
        process = self.machine.processes.start(
            order, partial(self._exited, ref), watcher=self.life, guard=guard
        )
        service = order.spec.service
        port = 0
        if service is not None:
            port = service.port or (self.world.between(20_000, 60_000) if service.port_auto else 0)
        spawned = Spawned(ref=ref, pid=process.pid, start_ticks=process.start_ticks, port=port)
        if self.world.chance(70):
            self.put(spawned)
        else:
            # Forking takes its time on a busy host; the process may even be over before.
            self.life.after(self.world.between(0, 250), lambda: self.put(spawned))

    def _exited(self, ref: AttemptRef, outcome: Outcome) -> None:
        if self.driver.is_busy or self.driver.has_input:
            self._auditor.exit_waits(ref)
        # Of those that nobody's SIGKILL has ended the kernel may have ended some for their memory.
        is_shot = outcome.signal == SIGKILL and not outcome.lease_ended
        item = Exited(
            ref=ref,
            exit_code=outcome.exit_code,
            signal=outcome.signal,
            stdout_bytes=self.world.between(0, 5_000),
            stderr_bytes=self.world.between(0, 50),
            lease_ended=outcome.lease_ended,
            oom_killed=is_shot and self.world.chance(30),
            outputs=outcome.outputs,
            output_problem=outcome.output_problem,
            keeps=outcome.keeps,
            left=outcome.left,
            left_problem=outcome.left_problem,
        )
        self.life.do(lambda: self.put(item))

    def _probe(self, ref: AttemptRef, check: HealthCheck | None) -> None:
        process = self.machine.processes.live.get(ref)
        if process is None:
            return
        # Half of those that are asked again and again fall ill at some time, and stay so.
        failures = self.world.between(3, 40) if check is not None and self.world.chance(50) else 0

        def ask() -> None:
            nonlocal failures
            if self.machine.processes.live.get(ref) is not process:
                return
            if failures and self.world.chance(60):
                failures -= 1
                self.put(ProbeFailed(ref=ref, message="status 500"))
                self.life.after(check.interval_ms, ask)
                return
            publishes = process.order.publishes and self.world.chance(60)
            self.put(ProbeAnswered(ref=ref, left=left_by(ref) if publishes else None))
            if failures:
                self.life.after(check.interval_ms, ask)

        if self.world.chance(50):
            ask()
        else:
            self.life.after(self.world.between(10, 3_000), ask)

    def _sample_usage(self) -> None:
        self.put(
            UsageSampled(
                cpu_permille=self.world.between(0, 1000),
                memory_used_bytes=self.world.between(1, 1 << 33),
                memory_total_bytes=1 << 34,
            )
        )
        self.life.after(USAGE_EVERY_MS, self._sample_usage)

    def _move(self, record: Any) -> None:
        """Fold a record into the shadow, and count the transition it is."""
        report = getattr(record, "report", None)
        ref: AttemptRef | None = report.ref if report is not None else getattr(record, "ref", None)
        held = self.shadow.held.get(ref) if ref is not None else None
        if ref is None or held is None:
            apply(self.shadow, record)
            return
        before = held.state
        if held.foreign:
            self._foreign[ref] = None
        apply(self.shadow, record)
        after = self.shadow.held.get(ref)
        if after is not None and before is not after.state:
            self._coverage.transition("WORKER'S", before, after.state)
