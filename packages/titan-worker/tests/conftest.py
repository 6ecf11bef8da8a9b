"""A worker's core with everything round it played by hand, for tests and for scenarios."""

import contextlib

import msgspec
import pytest

from titan_proto.ids import AttemptRef
from titan_proto.messages import (
    AttemptOrder,
    AttemptReport,
    HeartbeatAck,
    Joined,
    ReportAcks,
    ShutDown,
    StartAttempts,
    StopAttempts,
)
from titan_proto.specs import JobKind, JobSpec, Launch, Needs, RestartPolicy, ServiceSection
from titan_proto.states import AttemptState, ExitReason
from titan_worker.core.apply import apply
from titan_worker.core.core import WorkerConfig, WorkerCore
from titan_worker.core.inputs import (
    Exited,
    FromMaster,
    LinkUp,
    Spawned,
    SpawnFailed,
    Started,
    WorkspaceReady,
)
from titan_worker.core.records import AnyRecord
from titan_worker.core.state import WorkerState, digest

RUN = "r" * 16
_USUAL = RestartPolicy()
CLUSTER = "c1"
encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(AnyRecord).decode


def pytest_addoption(parser):
    # Another package's tests may be in the same run and have said it before.
    with contextlib.suppress(ValueError):
        parser.addoption("--rewrite", action="store_true", help="accept what scenarios print now")


class World:
    """One worker's core; time, master, host and ledger are the test's.

    After each turn the state folded from the encoded records must equal the live one, and every
    invariant must hold.
    """

    def __init__(self, slots=2, drain_ms=0, cores=0, born_as=None):
        self.slots = slots
        self.drain_ms = drain_ms
        self.cores = cores
        self.born_as = born_as
        self.now_ms = 1_000
        self.ledger = []
        self.moves = set()
        self.is_moving = False
        """Whether the master that it joins moves services."""
        self.incarnation = 0
        self._start_process()

    # -- names and parts --------------------------------------------------------------------------
    @staticmethod
    def ref(name, number=1):
        return AttemptRef(RUN, name, number)

    @classmethod
    def order(
        cls,
        name,
        number=1,
        *,
        service=None,
        restart=_USUAL,
        health=None,
        slots=1,
        grace_ms=10_000,
        fence=1,
        **fields,
    ):
        """`service`: None for a task, else its port (0: none). `fields`: of the job's spec."""
        spec = JobSpec(
            id=name,
            launch=Launch(script=f"{name}.py"),
            kind=JobKind.TASK if service is None else JobKind.SERVICE,
            stop_grace_ms=grace_ms,
            needs=Needs(slots=slots),
            service=None
            if service is None
            else ServiceSection(port=service, restart=restart, health=health),
            **fields,
        )
        return AttemptOrder(ref=cls.ref(name, number), fence=fence, spec=spec, run_name="nightly")

    @classmethod
    def ended(cls, name, reason, **fields):
        return AttemptReport(ref=cls.ref(name), state=AttemptState.ENDED, reason=reason, **fields)

    @classmethod
    def running(cls, name, **fields):
        return AttemptReport(ref=cls.ref(name), state=AttemptState.RUNNING, **fields)

    # -- inputs -----------------------------------------------------------------------------------
    @staticmethod
    def link_up(cluster=CLUSTER, term=1):
        return LinkUp(cluster_id=cluster, term=term)

    @staticmethod
    def joined(
        *, term=1, stop=(), forget=(), heartbeat_ms=5_000, lost_after_ms=30_000, moves=False
    ):
        return FromMaster(
            message=Joined(
                term=term,
                heartbeat_ms=heartbeat_ms,
                lost_after_ms=lost_after_ms,
                stop=tuple(stop),
                forget=tuple(forget),
                moves_services=moves,
            )
        )

    @staticmethod
    def start(*orders, term=1):
        return FromMaster(message=StartAttempts(term=term, orders=orders))

    @classmethod
    def stop(cls, *names, reason=ExitReason.CANCELLED, term=1):
        refs = tuple(cls.ref(name) for name in names)
        return FromMaster(message=StopAttempts(term=term, refs=refs, reason=reason))

    @classmethod
    def acks(cls, *names):
        return FromMaster(message=ReportAcks(refs=tuple(cls.ref(name) for name in names)))

    @staticmethod
    def shut_down(drain_ms=None, term=1):
        return FromMaster(message=ShutDown(term=term, drain_ms=drain_ms))

    @staticmethod
    def heard(beat):
        return FromMaster(message=HeartbeatAck(beat=beat))

    @classmethod
    def ready(cls, name):
        return WorkspaceReady(ref=cls.ref(name))

    @classmethod
    def spawned(cls, name, pid=100, port=0):
        return Spawned(ref=cls.ref(name), pid=pid, start_ticks=7, port=port)

    @classmethod
    def spawn_failed(cls, name, message):
        return SpawnFailed(ref=cls.ref(name), message=message)

    @classmethod
    def exited(cls, name, code=0, signal=0, *, lease_ended=False, oom_killed=False, last_words=""):
        return Exited(
            ref=cls.ref(name),
            exit_code=code,
            signal=signal,
            stdout_bytes=3,
            stderr_bytes=4,
            lease_ended=lease_ended,
            oom_killed=oom_killed,
            last_words=last_words,
        )

    # -- turns ------------------------------------------------------------------------------------
    def turn(self, *items, after_ms=0):
        """One turn, `after_ms` after the last one."""
        self.now_ms += after_ms
        # As in a process, Started is a turn's first input or in no turn at all.
        for item in items:
            before = self._states()
            self.core.handle(item, self.now_ms)
            self._note_moves(before)
        before = self._states()
        self.core.settle(self.now_ms)
        self._note_moves(before)
        turn = self.core.drain()
        for record in turn.records:
            body = encode(record)
            self.ledger.append(body)
            apply(self.shadow, decode(body))
        assert digest(self.shadow) == digest(self.core.state)
        self.core.check()
        return turn

    def begin(self, *inputs):
        """A worker that is started and joined, with these inputs taken in one by one."""
        self.turn(Started(boot_id="boot"))
        self.turn(self.link_up())
        self.turn(self.joined(moves=self.is_moving))
        for item in inputs:
            self.turn(item)
        return self

    def running_jobs(self, *orders):
        """Joined, and these orders have processes."""
        self.begin(self.start(*orders))
        for pid, order in enumerate(orders, 100):
            self.turn(self.ready(order.ref.job_id))
            self.turn(self.spawned(order.ref.job_id, pid=pid))
        return self

    def crash(self):
        """The process dies; the next one folds what the ledger has. Started comes from the test."""
        self._start_process()
        return self

    def _start_process(self):
        self.incarnation += 1
        state, self.shadow = WorkerState(), WorkerState()
        for body in self.ledger:
            apply(state, decode(body))
            apply(self.shadow, decode(body))
        config = WorkerConfig(
            worker_id="w1",
            incarnation=self.incarnation,
            host="host",
            port=8080,
            slots=self.slots,
            skills=("GENERAL",),
            software="test",
            drain_ms=self.drain_ms,
            cores=self.cores,
            born_as=self.born_as,
        )
        self.core = WorkerCore(state, config)

    def _states(self):
        return {ref: held.state for ref, held in self.core.state.held.items()}

    def _note_moves(self, before):
        for ref, state in self._states().items():
            if before.get(ref, state) is not state:
                self.moves.add((before[ref], state))


@pytest.fixture(scope="session")
def new_world():
    """Makes Worlds. For a session, so that hypothesis may use it too."""
    return World


@pytest.fixture
def world():
    return World()
