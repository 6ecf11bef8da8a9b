"""The master's host: a disk, and one process after another around the real core.

It does what the master's shells do, and nothing more: parse, draw ids, look into the store, send.
Every decision is the core's.
"""

from __future__ import annotations

import hashlib
from functools import partial
from typing import Any, get_args

import msgspec

from tests.sim import wire
from tests.sim.checkers import Auditor
from tests.sim.coverage import Coverage, Fault
from tests.sim.disk import damage
from tests.sim.driver import CrashPoint, Driver
from tests.sim.network import End, Network
from tests.sim.poison import NAME as POISON
from tests.sim.poison import BrittleCore, StandIn, is_poisonous
from tests.sim.wire import Wire
from tests.sim.world import Clock, Life, Violation, World
from titan_master.core.apply import apply
from titan_master.core.check import check
from titan_master.core.core import CoreConfig
from titan_master.core.effects import (
    AskHistory,
    CloseLog,
    HangUp,
    OpenLog,
    Reply,
    ServeLog,
    Tell,
)
from titan_master.core.events import AttemptPlaced, RunAccepted, WorkerLost
from titan_master.core.inputs import (
    Ask,
    Asked,
    ExchangeDropped,
    Heard,
    LinkClosed,
    Origin,
    ReportsArrived,
    RunSubmitted,
    ScheduleSubmitted,
    SpawnsReported,
    StorageChanged,
    WorkerArrived,
    WorkerHeard,
    WorkerLeft,
)
from titan_master.core.state import State, digest
from titan_master.history import Answers
from titan_master.store import codec
from titan_master.store.base import JournalDamaged
from titan_master.store.memory import MemoryStore
from titan_proto.connection import Opened, Received
from titan_proto.errors import ErrorCode
from titan_proto.messages import (
    AttemptReports,
    Cancel,
    Done,
    HeartbeatAck,
    Hello,
    Join,
    Kin,
    Leave,
    PutSchedule,
    Role,
    SpawnReports,
    StopAttempts,
    SubmitRun,
    Welcome,
    WorkerStatus,
)

CLUSTER_ID = "simcluster"
BASE32 = "abcdefghijklmnopqrstuvwxyz234567"
ASKS = frozenset(get_args(Ask))
COMMIT_MS = 12
ROOM_BYTES = 1 << 40
SLOW_COMMIT_MS = (50, 5_000)
HISTORY_MS = 20
DOWN_MS = 4_000
KEPT = object()
"""It belongs to what comes next."""
DAMAGED_MS = 5_000
"""Within so long a person has brought a damaged journal back."""
CHECKPOINT_PERCENT = 15
"""Of all commits."""


class Master:
    """The master's machine."""

    def __init__(
        self, world: World, network: Network, auditor: Auditor, coverage: Coverage
    ) -> None:
        self.world = world
        self.network = network
        self.auditor = auditor
        self.coverage = coverage
        self.store = MemoryStore()
        self.clock = Clock(world)
        self.is_disk_slow = False
        self.is_disk_full = False
        self._is_damaged = False
        self.process: MasterProcess | None = None
        draw = world.random.choice
        # Small bounds, so that work is left over for the next turn.
        self.config = CoreConfig(
            placements_max=draw((1, 2, 500)),
            deadlines_max=draw((1, 2, 1_000)),
            condition_chars_max=draw((1, 1, 200, 200_000)),
            live_runs_max=draw((2, 10_000, 10_000)),
            slot_jobs_max=draw((1, 4, 20_000)),
            autoscale=world.chance(50),
            scale_every_ms=draw((1_000, 4_000, 15_000)),
            sibling_idle_ms=draw((2_000, 10_000, 45_000)),
            spawn_timeout_ms=draw((6_000, 30_000)),
            siblings_per_host=draw((1, 2, 4)),
            siblings_max=draw((2, 64)),
            spawn_key=b"sim",
        )
        auditor.scaling = self.config
        self._ids_drawn = 0

    @property
    def life(self) -> Life | None:
        """Of the present process."""
        return self.process.life if self.process is not None else None

    def start(self) -> None:
        """Start a process; it recovers from the store."""
        if self.process is not None:
            return
        try:
            self.process = MasterProcess(self)
        except JournalDamaged as error:
            # Exit 65, and whoever starts it again at once gets the same.
            self.auditor.check(self._is_damaged, f"a sound journal is called damaged: {error}")
            last = len(self.store.records())
            self.auditor.check(
                error.last_good_seq == last - 1, f"record {last} is damaged: {error}"
            )
            self.coverage.fault(Fault.TORN_TAIL)
            self.world.after(self.world.between(100, 1_000), self.start)
        else:
            self.auditor.check(not self._is_damaged, "a master leads with a damaged journal")

    def tear(self) -> None:
        """The process dies, and the last thing it wrote is not what it wrote any more."""
        assert self.process is not None
        self.process.die()
        repair = damage(self.world, self.store)
        self._is_damaged = True

        def repaired() -> None:
            repair()
            self._is_damaged = False

        self.world.after(self.world.between(500, DAMAGED_MS), repaired)

    def fill_disk(self, *, full: bool) -> None:
        """Somebody else takes all the room, or gives it back."""
        self.is_disk_full = full
        if self.process is not None:
            self.process.look_at_disk()

    def commit_ms(self) -> int:
        """How long the disk takes this time."""
        return self.world.between(*SLOW_COMMIT_MS) if self.is_disk_slow else self._fast_ms()

    def _fast_ms(self) -> int:
        return self.world.between(0, COMMIT_MS)

    def crashed(self) -> None:
        """Its process is gone; somebody starts it again a little later."""
        self.process = None
        self.world.after(self.world.between(20, DOWN_MS), self.start)

    def draw_run_id(self) -> str:
        """16 characters, ordered by time, never twice."""
        self._ids_drawn += 1
        number = (self.world.now_ms << 24) | self._ids_drawn
        return "".join(BASE32[(number >> shift) & 31] for shift in range(75, -5, -5))


class MasterProcess:
    """One start of the master, until it dies."""

    def __init__(self, machine: Master) -> None:
        self.machine = machine
        self.world = machine.world
        self.life = Life(machine.world, "master")
        self.clock = machine.clock
        self._auditor = machine.auditor
        self._coverage = machine.coverage
        self._store = machine.store
        self._links: dict[int, MasterLink] = {}
        self._link_ids = 0
        self.newest_links: dict[str, int] = {}
        """The link on which each worker has joined last."""
        self._signs_ms: dict[str, int] = {}
        """When each worker was heard last, in the world's time."""
        self._began_ms = self.world.now_ms
        self._dirty: dict[int, None] = {}
        found = self._store.open()
        # The wall clock may have been set back while no master ran, or forward.
        jump_ms = self.world.between(-20_000, 20_000) if self.world.chance(20) else 0
        self._ahead_ms = max(jump_ms, found.last_at_ms - self.clock.now_ms())
        self._term = found.term
        self._auditor.recovered(found.state)
        self.core = BrittleCore(found.state, machine.config)
        self.shadow = State()
        self._fold_shadow()
        if digest(self.shadow) != digest(found.state):
            raise Violation("a checkpoint and what follows come to something else than the journal")
        self.shadow.observer = self._coverage.transition
        self.driver = Driver(self.world, self, self.core, commit_ms=machine.commit_ms)
        self.driver.on_crash = self._crashed_at
        self._engine = StandIn(
            core=self.core,
            poison=self.shadow.poison,
            now_ms=self.clock_ms,
            commit=self._commit_beside_the_core,
            reply=lambda origin, message: self._send(
                origin.link_id, message, origin.correlation, True
            ),
            fail=lambda _code: self.die(),
        )
        self.core.start(
            self.clock_ms(),
            term=found.term,
            software=wire.SOFTWARE,
            cluster_id=CLUSTER_ID,
            cluster_name="sim",
        )
        self._is_full_all_turn = False
        self.driver.finish()
        self.look_at_disk()
        machine.network.listening = self.life
        machine.network.accept = self._accept

    def look_at_disk(self) -> None:
        """What the master's shell does every second."""
        room_bytes = 0 if self.machine.is_disk_full else ROOM_BYTES
        self.life.do(
            lambda: self.forward(
                StorageChanged(
                    room_bytes=room_bytes, free_bytes=room_bytes, wanted_bytes=ROOM_BYTES
                )
            )
        )

    def heard(self, link_id: int) -> None:
        """A sign of life."""
        for worker_id, newest in self.newest_links.items():
            if newest == link_id:
                self._signs_ms[worker_id] = self.world.now_ms

    def _lost(self, event: WorkerLost) -> None:
        """Leases are counted in time that has passed, whatever clocks say."""
        silent_ms = self.world.now_ms - self._signs_ms.get(event.worker_id, self._began_ms)
        if silent_ms < self.machine.config.lost_after_ms * 8 // 10:
            raise Violation(f"{event.worker_id} is lost after {silent_ms} ms")

    def jump(self, ms: int) -> None:
        """Its machine's clock is set forward; the engine notices soon, or before its next turn."""

        def notice() -> None:
            self._ahead_ms += ms
            self.core.time_jumped(self.clock_ms())
            self.driver.kick()

        self.life.do(notice)

    # -- the shell of the driver ------------------------------------------------------------------

    def clock_ms(self) -> int:
        """Ticks with its machine's, and never stands before what the journal knows."""
        return self.clock.now_ms() + self._ahead_ms

    def drain(self) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """One turn of the core, with every invariant checked and the shadow beside it."""
        turn = self.core.drain()
        check(self.core.state)
        present = digest(self.core.state)
        if self.core.is_storage_full:
            # Runs are accepted as they come in, attempts are placed once everything is in.
            kinds = (RunAccepted, AttemptPlaced) if self._is_full_all_turn else AttemptPlaced
            begun = [event for event in turn.events if isinstance(event, kinds)]
            if begun:
                raise Violation(f"on a full disk this begins: {begun[0]}")
        self._is_full_all_turn = self.core.is_storage_full
        if turn.events:
            for event in turn.events:
                if isinstance(event, WorkerLost):
                    self._lost(event)
                apply(self.shadow, codec.decode(codec.encode(event)))
            if digest(self.shadow) != present:
                raise Violation("the master's state is not the fold of its events")
        elif present != self._auditor.master_digest:
            raise Violation("a turn without events changed the master's state")
        self._auditor.master_digest = present
        return turn.events, turn.effects

    def write(self, facts: tuple[Any, ...]) -> None:
        """Begin the transaction."""
        self._store.write(facts, self._term)

    def sync(self, facts: tuple[Any, ...]) -> None:
        """It is durable: from here on it happened."""
        self._store.sync()
        for fact in facts:
            body = codec.encode(fact)
            self.world.remember(body)
            self._coverage.fact("master", fact)
            self._auditor.journalled(codec.decode(body))
        if self.world.chance(CHECKPOINT_PERCENT):
            self._store.checkpoint()

    def lose_unsynced(self) -> None:
        """It never happened."""
        self._store.lose_unsynced()

    def is_refused(self, item: Any) -> bool:
        """What broke the core once is answered without it."""
        if isinstance(item, StorageChanged) and item.room_bytes > 0:
            # Room for a moment: another look in the same turn may find it gone again.
            self._is_full_all_turn = False
        if not self._engine.refuses(item):
            return False
        self._flush()
        return True

    def broke(self, item: Any) -> bool:
        """Remember what broke the core, durably, and end: nothing of this turn was ever true."""
        culprit = next(
            (
                schedule
                for schedule in self.core.state.schedules.values()
                if schedule.digest == self.core.culprit and schedule.name.startswith(POISON)
            ),
            None,
        )
        if culprit is None and not is_poisonous(item):
            return False
        self._auditor.broken_by(item.digest if culprit is None else culprit.digest)
        self._coverage.fault(Fault.POISON)
        self._engine.remember(item)
        return True

    def _commit_beside_the_core(self, events: tuple[Any, ...]) -> None:
        """It is broken and knows what never was: only what the disk holds counts now."""
        for event in events:
            apply(self.shadow, event)
        self._auditor.master_digest = digest(self.shadow)
        self.write(events)
        self.sync(events)

    def release(self, effect: Any) -> None:
        """Do what the core asked for."""
        self._coverage.effect("master", effect)
        if isinstance(effect, Reply):
            self._send(effect.origin.link_id, effect.message, effect.origin.correlation, effect.end)
        elif isinstance(effect, Tell):
            if isinstance(effect.message, StopAttempts):
                self._auditor.told_to_stop(effect.message)
            self._send(effect.link_id, effect.message, 0, False)
        elif isinstance(effect, HangUp):
            link = self._links.get(effect.link_id)
            self._coverage.closed(effect.code)
            if link is not None:
                self._dirty.pop(effect.link_id, None)
                link.wire.hang_up(effect.code, effect.reason)
        elif isinstance(effect, AskHistory):
            self.life.after(self.world.between(0, HISTORY_MS), partial(self._answer, effect))
        elif isinstance(effect, ServeLog):
            self._send(effect.origin.link_id, Done(), effect.origin.correlation, True)
        elif isinstance(effect, (OpenLog, CloseLog)):
            # The data plane's own: nothing of it passes a core.
            pass
        else:
            raise Violation(f"an effect that no engine knows: {effect}")

    def released(self) -> None:
        """One write per link and turn."""
        self._flush()

    def _flush(self) -> None:
        dirty, self._dirty = self._dirty, {}
        for link_id in dirty:
            link = self._links.get(link_id)
            if link is not None:
                link.wire.flush()

    def die(self) -> None:
        """Killed: the kernel closes its sockets."""
        self.life.end()
        self.machine.network.listening = None
        self.machine.network.drop_process(self.life)
        self._store.lose_unsynced()
        self.machine.crashed()

    # -- links ------------------------------------------------------------------------------------

    def forward(self, item: Any) -> None:
        """Into the inbox."""
        self._coverage.input("master", item)
        self.driver.put(item)

    def closed(self, link_id: int) -> None:
        """A link is gone."""
        del self._links[link_id]
        self.forward(LinkClosed(link_id=link_id))

    def _accept(self, end: End) -> None:
        self._link_ids += 1
        self._links[self._link_ids] = MasterLink(self, self._link_ids, end)

    def welcome(self, link_id: int, hello: Hello) -> Welcome:
        """What a dialler hears at last."""
        del hello
        return Welcome(
            version=1,
            cluster_id=self.core.state.cluster_id,
            software=wire.SOFTWARE,
            term=self._term,
            link_id=link_id,
        )

    def _send(self, link_id: int, message: Any, correlation: int, end: bool) -> None:
        link = self._links.get(link_id)
        if link is not None:
            link.wire.send(message, correlation, end=end)
            self._dirty[link_id] = None

    def _answer(self, effect: AskHistory) -> None:
        answer = Answers(self._store, self.machine.draw_run_id, lambda _: 0).answer(effect)
        if isinstance(answer, (Asked, RunSubmitted)):
            self.forward(answer)
            return
        for asked in answer:
            self.release(asked)
        self.released()

    def _fold_shadow(self) -> None:
        for record in self._store.records():
            apply(self.shadow, codec.decode(record.body))

    def _crashed_at(self, point: CrashPoint) -> None:
        self.machine.auditor.master_crashed(point)


class MasterLink:
    """One link, as the master's net sees it."""

    def __init__(self, process: MasterProcess, link_id: int, end: End) -> None:
        self._process = process
        self._link_id = link_id
        self._role = Role.UNKNOWN
        self._worker_id = ""
        self._kin: Kin | None = None
        connection = wire.listener(process.world, partial(process.welcome, link_id))
        self.wire = Wire(process.world, end, connection, process.machine.coverage)
        self.wire.on_open = self._opened
        self.wire.on_message = self._message
        self.wire.on_close = lambda _code: process.closed(link_id)

    def _opened(self, opened: Opened) -> None:
        self._role = opened.hello.role

    def _message(self, received: Received) -> None:
        if self._role is Role.WORKER and isinstance(received.message, WorkerStatus):
            self._heard(received.message)
            return
        item = self._input(received)
        if item is KEPT:
            return
        if item is None:
            self.wire.hang_up(ErrorCode.PROTOCOL, "that is not for this role to say")
            raise Violation(f"a {self._role} sent {received.message}")
        self._process.forward(item)

    def _heard(self, status: WorkerStatus) -> None:
        """Past the inbox, as in the master's net."""
        process = self._process
        heard = process.core.hear(self._link_id, status, process.clock_ms())
        if heard is Heard.STRANGER:
            return
        process.heard(self._link_id)
        if heard is Heard.CHANGING:
            process.forward(WorkerHeard(link_id=self._link_id, status=status))
        if status.beat:
            self.wire.send(HeartbeatAck(beat=status.beat))
            self.wire.flush()

    def _check_logs(self, message: AttemptReports) -> None:
        """Whoever runs the live attempt may ship its log, on the link that it joined on."""
        process = self._process
        worker_id = self._worker_id
        if process.newest_links.get(worker_id) != self._link_id:
            return
        if process.driver.is_busy or process.driver.has_input:
            return  # perhaps that very Join: a report sent before it may arrive behind it
        for report in message.reports:
            is_its = process.machine.auditor.is_live_on(report.ref, worker_id)
            if is_its and not process.core.may_log(self._link_id, report.ref):
                raise Violation(f"{worker_id} may not log {report.ref}, which it runs")

    def _input(self, received: Received) -> Any:
        message = received.message
        link_id = self._link_id
        if self._role is Role.WORKER:
            if isinstance(message, Join):
                self._worker_id = message.worker_id
                self._process.newest_links[message.worker_id] = link_id
                return WorkerArrived(link_id=link_id, join=message, kin=self._kin)
            if isinstance(message, Kin):
                self._kin = message
                return KEPT
            if isinstance(message, AttemptReports):
                self._check_logs(message)
                return ReportsArrived(link_id=link_id, reports=message.reports)
            if isinstance(message, SpawnReports):
                return SpawnsReported(link_id=link_id, reports=message.reports)
            if isinstance(message, Leave):
                return WorkerLeft(link_id=link_id)
            return None
        origin = Origin(link_id, received.correlation)
        if isinstance(message, SubmitRun) and message.spec is not None:
            body = msgspec.msgpack.encode(message.spec)
            return RunSubmitted(
                origin=origin,
                run_id=self._process.machine.draw_run_id(),
                key=message.key,
                digest=hashlib.sha256(body).hexdigest(),
                spec=message.spec,
                spec_bytes=body,
                owner="sim",
                parent=message.parent,
            )
        if isinstance(message, PutSchedule):
            body = msgspec.msgpack.encode(message.run)
            sent = msgspec.msgpack.encode((message.spec, message.run))
            return ScheduleSubmitted(
                origin=origin,
                name=message.name,
                schedule_id=self._process.machine.draw_run_id(),
                spec=message.spec,
                run=message.run,
                run_bytes=body,
                digest=hashlib.sha256(sent).hexdigest(),
                owner="sim",
            )
        if isinstance(message, Cancel):
            return ExchangeDropped(origin=origin)
        if type(message) in ASKS:
            request: Any = message
            return Asked(origin=origin, request=request, by="sim")
        return None
