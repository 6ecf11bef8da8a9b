"""The turn on a real core and a store in memory: what leaves when, and what ends the process."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest

from titan_master.core.core import Core, CoreConfig
from titan_master.core.effects import AskHistory
from titan_master.core.inputs import Asked, Origin, ReportsArrived, RunSubmitted, WorkerArrived
from titan_master.core.state import InvariantViolation, digest
from titan_master.engine import Engine, EngineConfig, poison_digest
from titan_master.history import Answers
from titan_master.store.base import AttemptRow, HistoryDamaged, StoreError
from titan_master.store.memory import MemoryStore
from titan_proto.errors import ErrorCode
from titan_proto.io.entropy import new_id
from titan_proto.messages import (
    Error,
    GetRun,
    GetStats,
    JobView,
    Join,
    ListAttempts,
    ListRuns,
    ReportAcks,
    RunList,
    RunReceipt,
    RunView,
    StartAttempts,
    Stats,
)
from titan_proto.messages.worker import AttemptReport
from titan_proto.specs import JobKind, JobSpec, Launch, LaunchKind, RunSpec
from titan_proto.states import AttemptState, ExitReason, JobState, RunState, WorkerState


class Clock:
    def __init__(self):
        self.ms = 1_000
        self.jumps = 0
        self._ahead_ms = 0

    def now_ms(self):
        if self._ahead_ms:
            self.jumps += 1
            self.ms, self._ahead_ms = self.ms + self._ahead_ms, 0
        return self.ms

    def jump(self, ms):
        """Of the wall: it is noticed when somebody looks."""
        self._ahead_ms = ms

    def not_before(self, floor_ms):
        self.ms = max(self.ms, floor_ms)


class Links:
    """What left, in order; and somebody to wait for it."""

    def __init__(self):
        self.out = []
        self._changed = asyncio.Event()

    def reply(self, origin, message, *, end):
        self._note(("reply", origin, message, end))

    def tell(self, link_id, message):
        self._note(("tell", link_id, message))

    def hang_up(self, link_id, code, reason):
        self._note(("hang up", link_id, code, reason))

    def _note(self, item):
        self.out.append(item)
        self._changed.set()

    async def count(self, number):
        async def wait():
            while len(self.out) < number:
                self._changed.clear()
                await self._changed.wait()

        await asyncio.wait_for(wait(), 10)
        return self.out


class Logs:
    def open(self, ref, worker_id): ...

    def finish(self, ref, stdout_bytes, stderr_bytes): ...

    def serve(self, origin, ref, request, final_bytes): ...


class HeldStore(MemoryStore):
    """A disk that takes its time: commits wait until they are let go."""

    def __init__(self):
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()
        self.commits = []
        self.error = None
        self.began = threading.Event()
        self.tidied = threading.Event()
        self.kept_up = threading.Event()

    def commit(self, events, term):
        self.began.set()
        assert self.gate.wait(10)
        if self.error is not None:
            raise self.error
        self.commits.append(len(events))
        return super().commit(events, term)

    def keep_up(self):
        self.kept_up.set()

    def tidy(self):
        self.tidied.set()


class Rig:
    def __init__(self, store, writer, reader, **config):
        found = store.open()
        self.store = store
        self.clock = Clock()
        self.clock.not_before(found.last_at_ms)
        self.links = Links()
        self.core = Core(found.state, CoreConfig())
        self.term = found.term
        self.engine = Engine(
            core=self.core,
            poison=found.state.poison,
            store=store,
            term=found.term,
            writer=writer,
            answer=Answers(store, new_id, lambda _: 0).answer,
            reader=reader,
            clock=self.clock,
            links=self.links,
            logs=Logs(),
            config=EngineConfig(**{"inbox_max": 100, "turn_inputs_max": 8, **config}),
        )

    async def begin(self):
        self.core.start(
            self.clock.now_ms(), term=self.term, software="t", cluster_id="c", cluster_name="n"
        )
        await self.engine.begin(self.core.drain())
        return self

    def submit(self, number, name="job"):
        self.engine.put(submission(number, name))


def submission(number, name="job"):
    launch = Launch(kind=LaunchKind.SHELL, shell="true")
    spec = RunSpec(name=name, jobs=(JobSpec(id="a", launch=launch),))
    body = msgspec.msgpack.encode(spec)
    return RunSubmitted(
        origin=Origin(1, number),
        run_id=f"{number:016d}",
        key=f"key-{number}",
        digest=hashlib.sha256(body).hexdigest(),
        spec=spec,
        spec_bytes=body,
        owner="me",
    )


def worker():
    return Join(
        worker_id="w", host="h", port=1, incarnation=1, boot_id="b", software="t", slots=1,
        skills=("GENERAL",),
    )  # fmt: skip


def stats(number):
    return Asked(origin=Origin(1, number), request=GetStats())


@pytest.fixture
async def pools():
    with ThreadPoolExecutor(1) as writer, ThreadPoolExecutor(1) as reader:
        yield writer, reader


@pytest.fixture
async def rig(pools):
    made = await Rig(HeldStore(), *pools).begin()
    yield made
    made.store.gate.set()
    await made.engine.stop()


async def off_loop(wait):
    assert await asyncio.get_running_loop().run_in_executor(None, wait, 10)


async def test_nothing_leaves_before_it_is_durable(rig):
    """The receipt of a run waits for the disk."""
    rig.store.began.clear()
    rig.store.gate.clear()
    rig.submit(1)
    await off_loop(rig.store.began.wait)
    assert rig.links.out == []
    rig.store.gate.set()
    ((_, _, receipt, end),) = await rig.links.count(1)
    assert isinstance(receipt, RunReceipt)
    assert end


async def test_an_end_is_acknowledged_when_it_is_durable(rig):
    """A worker forgets what has been acknowledged: the master must not be able to forget it, too."""
    rig.engine.put(WorkerArrived(link_id=9, join=worker()))
    rig.submit(1)
    sent = await rig.links.count(3)
    (order,) = next(m.orders for kind, _, m, *_ in sent if isinstance(m, StartAttempts))
    rig.links.out.clear()
    rig.store.began.clear()
    rig.store.gate.clear()
    report = AttemptReport(
        ref=order.ref, state=AttemptState.ENDED, reason=ExitReason.EXITED, exit_code=0
    )
    rig.engine.put(ReportsArrived(link_id=9, reports=(report,)))
    await off_loop(rig.store.began.wait)
    assert rig.links.out == []
    rig.store.gate.set()
    ((_, link_id, acks),) = await rig.links.count(1)
    assert (link_id, acks) == (9, ReportAcks(refs=(order.ref,)))


async def test_what_comes_during_a_commit_gathers_into_one(rig):
    """One input is one commit; those that came while it was written are the next one, together."""
    rig.store.commits.clear()
    rig.store.began.clear()
    rig.store.gate.clear()
    rig.submit(1)
    await off_loop(rig.store.began.wait)
    for number in range(2, 8):
        rig.submit(number)
    rig.store.gate.set()
    await rig.links.count(7)
    assert rig.store.commits == [1, 6]
    assert [origin.correlation for _, origin, _, _ in rig.links.out] == list(range(1, 8))


async def test_a_turn_takes_only_so_many_inputs(rig):
    """The rest is the next turn's."""
    rig.store.commits.clear()
    for number in range(1, 21):
        rig.submit(number)
    await rig.links.count(20)
    assert rig.store.commits == [8, 8, 4]


async def test_a_question_needs_no_disk(rig):
    """A turn without events is answered at once."""
    rig.store.commits.clear()
    rig.engine.put(stats(1))
    ((_, _, answer, _),) = await rig.links.count(1)
    assert isinstance(answer, Stats)
    assert rig.store.commits == []


async def test_no_question_sees_what_is_not_durable(rig):
    """Asked while a run is being written, it is answered after, or not at all."""
    rig.store.began.clear()
    rig.store.gate.clear()
    rig.submit(1)
    await off_loop(rig.store.began.wait)
    rig.engine.put(stats(2))
    for _ in range(5):
        await asyncio.sleep(0)
    assert rig.links.out == []
    rig.store.error = StoreError("no disk")
    rig.store.gate.set()
    assert await asyncio.wait_for(rig.engine.failure, 10) == os.EX_IOERR
    assert rig.links.out == []


async def test_a_full_inbox_says_so_until_there_is_room(rig):
    """Who waits is called once."""
    calls = []
    rig.store.gate.clear()
    for number in range(1, 102):
        rig.submit(number)
    assert rig.engine.is_full
    rig.engine.when_room(lambda: calls.append(rig.engine.is_full))
    rig.store.gate.set()
    await rig.links.count(101)
    assert calls == [False]


async def test_history_answers_what_the_core_cannot(rig):
    """A name nobody has; and a prefix of a live run goes back to the core."""
    rig.submit(1, "Nightly Load")
    await rig.links.count(1)
    rig.engine.put(Asked(origin=Origin(1, 2), request=GetRun(run="nobody")))
    refused = (await rig.links.count(2))[-1][2]
    assert isinstance(refused, Error)
    assert refused.code is ErrorCode.NOT_FOUND
    rig.engine.put(Asked(origin=Origin(1, 3), request=GetRun(run="nightly")))
    found = (await rig.links.count(3))[-1][2]
    assert isinstance(found, RunView)
    assert found.alias == "nightly-load-1"


async def test_the_store_tidies_up_once_it_is_quiet(rig, monkeypatch):
    """A while after the last commit, and not again without one."""
    monkeypatch.setattr("titan_master.engine.QUIET_S", 0.01)
    rig.submit(1)
    await off_loop(rig.store.tidied.wait)
    rig.store.tidied.clear()
    rig.engine.put(stats(2))
    await rig.links.count(2)
    assert not rig.store.tidied.is_set()


async def test_a_store_that_is_never_quiet_keeps_up_all_the_same(rig, monkeypatch):
    """After so many events, behind the commit that brought them."""
    monkeypatch.setattr("titan_master.engine.KEEP_UP_EVENTS", 3)
    for number in range(1, 3):
        rig.submit(number)
        await rig.links.count(number)
    assert not rig.store.kept_up.is_set()
    rig.submit(3)
    await off_loop(rig.store.kept_up.wait)


async def test_damaged_history_is_said_rather_than_to_try_again(rig, monkeypatch):
    """UNAVAILABLE would have the client ask for ever."""

    def damaged(_ask):
        raise HistoryDamaged("a row fails its checksum")

    monkeypatch.setattr(rig.engine, "_answer", damaged)
    rig.engine.put(Asked(origin=Origin(1, 1), request=GetRun(run="nobody")))
    ((_, _, refusal, _),) = await rig.links.count(1)
    assert refusal.code is ErrorCode.INTERNAL
    assert "history is damaged" in refusal.message


async def test_deadlines_are_kept_without_any_input(rig):
    """A worker that says nothing becomes SILENT when its time has come."""
    rig.engine.put(WorkerArrived(link_id=9, join=worker()))
    await rig.links.count(1)
    deadline = rig.core.next_deadline_ms()
    assert deadline is not None
    rig.clock.ms = deadline
    rig.store.began.clear()
    rig.engine._timer_fired()
    await off_loop(rig.store.began.wait)
    assert str(rig.core.state.workers["w"].state) == "SILENT"


async def test_stopping_finishes_the_commit_under_way(rig):
    """Its effects are still released; what came later is not begun."""
    rig.store.began.clear()
    rig.store.gate.clear()
    rig.submit(1)
    await off_loop(rig.store.began.wait)
    rig.submit(2)
    stopping = asyncio.ensure_future(rig.engine.stop())
    await asyncio.sleep(0)
    rig.store.gate.set()
    await asyncio.wait_for(stopping, 10)
    assert [origin.correlation for _, origin, _, _ in rig.links.out] == [1]
    assert list(rig.core.state.runs) == [f"{1:016d}"]


class Broken(Core):
    """A core with a bug: one request breaks it."""

    def handle(self, item, now_ms):
        super().handle(item, now_ms)
        if isinstance(item, RunSubmitted) and item.spec.name == "poison":
            raise InvariantViolation("broken by this input")


async def test_poison_ends_the_process_and_is_refused_after_the_restart(pools):
    """Nothing of that turn is true; the same content under another key is refused, too."""
    store = HeldStore()
    loop = asyncio.get_running_loop()
    rig = Rig(store, *pools)
    rig.core = Broken(rig.core.state, CoreConfig())
    rig.engine._core = rig.core
    await rig.begin()
    before = len(store.records())
    caught = []
    loop.set_exception_handler(lambda _loop, context: caught.append(context))
    try:
        rig.submit(1, "fine")
        rig.submit(2, "poison")
        assert await asyncio.wait_for(rig.engine.failure, 10) == os.EX_SOFTWARE
        await asyncio.sleep(0)
    finally:
        loop.set_exception_handler(None)
    assert isinstance(caught[0]["exception"], InvariantViolation)
    assert rig.links.out == []
    assert len(store.records()) == before + 1, "only that it was poison is remembered"

    again = Rig(store, *pools)
    again.core = Broken(again.core.state, CoreConfig())
    again.engine._core = again.core
    await again.begin()
    again.submit(7, "poison")
    again.submit(8, "fine")
    out = await again.links.count(2)
    refused, accepted = out[0][2], out[1][2]
    assert refused.code is ErrorCode.INTERNAL
    assert isinstance(accepted, RunReceipt)
    await again.engine.stop()


async def test_a_restart_knows_what_was_acknowledged(pools):
    """The state after opening is the state before the end."""
    store = HeldStore()
    rig = await Rig(store, *pools).begin()
    rig.submit(1)
    rig.submit(2)
    await rig.links.count(2)
    await rig.engine.stop()
    assert digest(store.open().state) == digest(rig.core.state)


def test_the_digest_of_poison_is_of_the_request_not_of_where_it_came_from():
    """Another link, another drawn id: the same poison; another request: another one."""
    assert poison_digest(submission(1)) == poison_digest(submission(2))
    assert poison_digest(submission(1)) != poison_digest(submission(1, "other"))
    one = Asked(origin=Origin(1, 1), request=GetRun(run="x"))
    other = Asked(origin=Origin(2, 5), request=GetRun(run="x"))
    assert poison_digest(one) == poison_digest(other) != ""


async def test_an_exception_nobody_caught_ends_the_process(rig):
    """But one on a transport has ended that transport, and that is enough."""
    loop = asyncio.get_running_loop()
    quiet = {"message": "x", "exception": ValueError("x")}
    rig.engine.broken(loop, {**quiet, "transport": object()})
    assert not rig.engine.failure.done()
    rig.engine.broken(loop, quiet)
    assert rig.engine.failure.result() == os.EX_SOFTWARE


@pytest.fixture
def ended():
    """History with one ended run, whose alias is `nightly-load-1`."""
    view = RunView(
        run_id="0" * 16, alias="nightly-load-1", name="n", state=RunState.SUCCEEDED,
        submitted_at_ms=1, ended_at_ms=2,
    )  # fmt: skip

    class History(MemoryStore):
        def resolve(self, selector):
            return (view.run_id,) if view.alias.startswith(selector) else ()

        def run(self, _run_id):
            return view

        def runs(self, _cursor, _limit):
            return RunList(runs=(view,))

    return view, Answers(History(), new_id, lambda _: 0)


def test_a_run_that_ends_while_history_is_asked_is_one_run(ended):
    """The core saw it live, history has it already: its prefix is still unique."""
    view, answers = ended
    ask = AskHistory(origin=Origin(1, 1), request=GetRun(run="nightly"), live_ids=(view.run_id,))
    assert answers.answer(ask) == Asked(origin=Origin(1, 1), request=GetRun(run=view.run_id))


def test_the_attempts_of_a_job_are_told_with_the_newest_and_without_its_secrets():
    """History has what ended, the core what goes on; the values of variables are nobody's."""
    job = JobSpec(id="PULL", launch=Launch(shell="pull", env={"KEY": "secret"}))
    lost = AttemptRow(
        run_id="0" * 16, job_id="PULL", number=1, worker="h:1", ended=True, reason=ExitReason.LOST,
        placed_at_ms=5, started_at_ms=6, ended_at_ms=9,
    )  # fmt: skip
    view = JobView(
        run_id="0" * 16, run_alias="n-1", job_id="PULL", kind=JobKind.TASK, state=JobState.RUNNING,
        attempt=2, attempt_state=AttemptState.RUNNING, worker="h:2", started_at_ms=12,
    )  # fmt: skip

    class History(MemoryStore):
        def attempts(self, _run_id, _job_id):
            return (lost,)

    ask = AskHistory(
        origin=Origin(1, 1),
        request=ListAttempts(run=view.run_id, job="PULL"),
        live_jobs=(view,),
        live_spec=job,
    )
    (reply,) = Answers(History(), new_id, lambda _: 0).answer(ask)
    first, second = reply.message.attempts
    assert (first.number, first.state, first.reason) == (1, AttemptState.ENDED, ExitReason.LOST)
    assert (first.worker, first.placed_at_ms, first.ended_at_ms) == ("h:1", 5, 9)
    assert (second.number, second.state, second.worker) == (2, AttemptState.RUNNING, "h:2")
    assert reply.message.spec.launch.env == {"KEY": ""}


def test_an_attempt_placed_since_the_job_was_looked_at_is_not_told_of_yet():
    """The core's view is of before; history's row may be of a later step of the same turn."""
    view = JobView(
        run_id="0" * 16, run_alias="n-1", job_id="PULL", kind=JobKind.TASK, state=JobState.QUEUED,
    )  # fmt: skip
    placed = AttemptRow(run_id=view.run_id, job_id="PULL", number=1, worker="h:1", placed_at_ms=5)

    class History(MemoryStore):
        def attempts(self, _run_id, _job_id):
            return (placed,)

    ask = AskHistory(
        origin=Origin(1, 1),
        request=ListAttempts(run=view.run_id, job="PULL"),
        live_jobs=(view,),
    )
    (reply,) = Answers(History(), new_id, lambda _: 0).answer(ask)
    assert (reply.message.job, reply.message.attempts) == (view, ())


def test_a_name_that_fits_several_runs_is_refused_with_their_aliases(ended):
    """Live and ended ones: what people type is shown, not ids."""
    _view, answers = ended
    ask = AskHistory(
        origin=Origin(1, 1),
        request=GetRun(run="nightly"),
        live_ids=("1" * 16, "2" * 16),
        live_aliases=("nightly-2", "nightly-etl-1"),
    )
    (reply,) = answers.answer(ask)
    assert reply.message.code is ErrorCode.CONFLICT
    assert reply.message.message == (
        "'nightly' fits several runs: nightly-2, nightly-etl-1, nightly-load-1; "
        "give more of the name"
    )


def test_a_run_that_ends_while_runs_are_listed_is_listed_once(ended):
    """As the core saw it."""
    view, answers = ended
    live = msgspec.structs.replace(view, state=RunState.ACTIVE)
    ask = AskHistory(origin=Origin(1, 1), request=ListRuns(ended=True), live_runs=(live,))
    (reply,) = answers.answer(ask)
    assert reply.message.runs == (live,)


class BrokenByTime(Core):
    """A core that breaks over a schedule that is due."""

    def settle(self, now_ms):
        digest = "d" * 64
        if digest not in self.state.poison:
            self._draft.culprit = digest
            raise InvariantViolation("broken by a slot")
        super().settle(now_ms)


async def test_a_schedule_that_breaks_the_core_is_remembered_though_nobody_asked(pools):
    store = HeldStore()
    loop = asyncio.get_running_loop()
    rig = Rig(store, *pools)
    rig.core = rig.engine._core = BrokenByTime(rig.core.state, CoreConfig())
    loop.set_exception_handler(lambda _loop, _context: None)
    try:
        await rig.begin()
        assert await asyncio.wait_for(rig.engine.failure, 10) == os.EX_SOFTWARE
    finally:
        loop.set_exception_handler(None)
    again = Rig(store, *pools)
    assert again.core.state.poison == {"d" * 64: "Schedule"}
    again.core = again.engine._core = BrokenByTime(again.core.state, CoreConfig())
    await again.begin()
    again.submit(1)
    ((_, _, receipt, _),) = await again.links.count(1)
    assert isinstance(receipt, RunReceipt)
    await again.engine.stop()


async def test_a_jump_of_the_wall_wakes_an_idle_loop(pools):
    """What was due at a time of day is due now, and no worker was silent meanwhile."""
    store = HeldStore()
    rig = await Rig(store, *pools).begin()
    rig.engine.put(WorkerArrived(link_id=1, join=worker()))
    await rig.links.count(1)
    launch = Launch(kind=LaunchKind.SHELL, shell="true", at_ms=3_600_000)
    spec = RunSpec(name="later", jobs=(JobSpec(id="a", launch=launch),))
    item = submission(1)
    body = msgspec.msgpack.encode(spec)
    rig.engine.put(msgspec.structs.replace(item, spec=spec, spec_bytes=body))
    await rig.links.count(2)
    rig.clock.jump(3_600_000)
    out = await rig.links.count(3)
    assert isinstance(out[2][2], StartAttempts)
    assert rig.core.state.workers["w"].state is WorkerState.ONLINE
    await rig.engine.stop()
