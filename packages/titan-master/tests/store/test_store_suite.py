"""What every store promises, asked of each of them."""

from __future__ import annotations

import msgspec
import pytest
import stories
from core_world import START_MS, World, gate, job, run
from repeating import Cluster

from titan_master.core.state import digest
from titan_master.store.base import TermLost
from titan_master.store.memory import MemoryStore
from titan_master.store.sqlite import SqliteStore, connect
from titan_proto.limits import (
    DECISION_CHARS,
    FRAME_PAYLOAD_BYTES,
    GATE_MESSAGE_CHARS,
    GATE_TIMEOUT_MS_DEFAULT,
    OUTPUT_VALUE_BYTES,
)
from titan_proto.messages import DecideGate, GateView, ListJobs, ServiceView, StopService
from titan_proto.specs import RetryPolicy, RunSpec
from titan_proto.states import AttemptState, ExitReason, JobState, RunState, ServiceState


@pytest.fixture(params=["memory", "sqlite"])
def store(request, tmp_path):
    made = (
        MemoryStore()
        if request.param == "memory"
        else SqliteStore(tmp_path / "t.sqlite", connect=connect)
    )
    yield made
    made.close()


@pytest.fixture
def day(store):
    """A store that has seen `stories.a_day`, one event a commit."""
    term = store.open().term
    world = stories.a_day()
    for event in stories.events(world):
        store.commit((event,), term)
    return store


def test_a_fresh_store_is_empty(store):
    """Nothing is known, and the first term is 1."""
    found = store.open()
    assert (found.term, found.last_seq, found.last_at_ms) == (1, 0, 0)
    assert found.state.runs == {}
    assert store.runs("", 10).runs == ()
    assert store.resolve("@last") == ()


def test_what_was_committed_is_there_after_opening_again(day):
    """The fold of the journal is the state that the events made."""
    world = stories.a_day()
    day.close()
    found = day.open()
    assert digest(found.state) == digest(world.state)
    assert found.last_seq == len(world.journal)
    assert found.last_at_ms == world.now_ms
    assert list(found.state.runs) == ["run4"], "runs that have ended do not come back to memory"


def test_a_commit_is_all_or_nothing_and_counts_on(store):
    """Many events are one commit; its answer is the last one's place."""
    term = store.open().term
    events = stories.events(stories.a_day())
    assert store.commit(events[:3], term) == 3
    assert store.commit(events[3:], term) == len(events)


def test_each_opening_takes_a_new_term_and_ends_the_one_before(store):
    """A master that was superseded can commit nothing more."""
    old = store.open().term
    events = stories.events(stories.a_day())
    store.commit(events[:2], old)
    store.close()
    new = store.open().term
    assert new == old + 1
    with pytest.raises(TermLost):
        store.commit(events[2:4], old)
    store.commit(events[2:4], new)
    store.close()
    assert store.open().last_seq == 4


def test_history_shows_runs_that_ended_newest_first(day):
    """State, times and the count of jobs by state; live runs are the core's to show."""
    shown = day.runs("", 10)
    assert [view.alias for view in shown.runs] == ["nightly-1", "etl-2", "etl-1"]
    assert shown.cursor == ""
    view = day.run("run2")
    assert view is not None
    assert (view.name, view.state, view.jobs) == ("ETL", RunState.FAILED, 2)
    assert view.counts == {"FAILED": 1, "SKIPPED": 1}
    assert 0 < view.submitted_at_ms <= view.ended_at_ms
    assert day.run("run4") is None


def test_runs_come_in_pages(day):
    """A cursor goes on where the page ended."""
    first = day.runs("", 2)
    rest = day.runs(first.cursor, 2)
    assert [view.run_id for view in (*first.runs, *rest.runs)] == ["run3", "run2", "run1"]
    assert rest.cursor == ""


@pytest.mark.parametrize(
    ("selector", "fits"),
    [
        ("run1", ("run1",)),
        ("etl-2", ("run2",)),
        ("etl", ("run2", "run1")),
        ("ru", ("run3", "run2", "run1")),
        ("night", ("run3",)),
        ("@last", ("run3",)),
        ("run4", ()),
        ("open", ()),
        ("nobody", ()),
        ("", ()),
    ],
)
def test_a_selector_is_an_id_an_alias_or_the_beginning_of_either(day, selector, fits):
    """An exact name comes alone; else all that begin so, newest first."""
    assert day.resolve(selector) == fits


def test_a_job_is_shown_as_it_ended(day):
    """With its newest attempt, how often it was lost, and when it became ready."""
    pull = day.job("run1", "PULL")
    assert pull is not None
    assert (pull.state, pull.attempt, pull.lost) == (JobState.SUCCEEDED, 2, 1)
    assert (pull.attempt_state, pull.reason) == (AttemptState.ENDED, ExitReason.EXITED)
    assert (pull.stdout_bytes, pull.stderr_bytes) == (7, 3)
    assert pull.worker in {"host:8080", "host:8081"}
    assert 0 < pull.ready_at_ms <= pull.placed_at_ms <= pull.started_at_ms <= pull.ended_at_ms
    api = day.job("run1", "API")
    assert api is not None
    assert (api.dependencies, api.port) == (("PULL",), 8123)
    assert api.ready_at_ms == pull.ended_at_ms
    skipped = day.job("run2", "CLEAN")
    assert skipped is not None
    assert (skipped.state, skipped.reason) == (JobState.SKIPPED, ExitReason.PARENT_FAILED)
    assert skipped.attempt == 0
    failed = day.job("run2", "PULL")
    assert failed is not None
    assert (failed.exit_code, failed.message) == (3, "no such file")


@pytest.mark.parametrize(("run_id", "job_id"), [("run1", "NO"), ("no", "PULL"), ("run4", "PULL")])
def test_a_job_that_is_not_in_history_is_none(day, run_id, job_id):
    """Live ones included."""
    assert day.job(run_id, job_id) is None


def test_jobs_come_in_the_order_of_the_submission_page_by_page(day):
    """However they ended."""
    first = day.jobs("run1", "", 1)
    assert first is not None
    rest = day.jobs("run1", first.cursor, 1)
    assert rest is not None
    assert [view.job_id for view in (*first.jobs, *rest.jobs)] == ["PULL", "API"]
    assert rest.cursor == ""
    assert day.jobs("run4", "", 10) is None


def test_the_newest_run_with_a_job(day):
    """Among those that have ended."""
    assert day.newest_with_job("PULL") == "run2"
    assert day.newest_with_job("ONE") == "run3"
    assert day.newest_with_job("NO") is None


def test_every_attempt_is_kept(day):
    """Lost ones too, each with the worker that had it."""
    lost, good = day.attempts("run1", "PULL")
    assert (lost.number, lost.ended, lost.reason) == (1, True, ExitReason.LOST)
    assert (good.number, good.ended, good.reason) == (2, True, ExitReason.EXITED)
    assert {lost.worker_id, good.worker_id} <= {"w1", "w2"}
    assert (good.stdout_bytes, good.stderr_bytes) == (7, 3)


def test_a_service_outlives_its_run(store):
    """Its attempt is in history before it has ended, and is completed when it ends."""
    term = store.open().term
    world = stories.a_day()
    store.commit(stories.events(world), term)
    (up,) = store.attempts("run1", "API")
    assert (up.ended, up.worker_id) == (False, world.worker_of("run1/API"))
    view = store.job("run1", "API")
    assert view is not None
    assert (view.state, view.attempt_state) == (JobState.SUCCEEDED, AttemptState.RUNNING)
    seen = len(world.journal)
    world.ended("run1/API", 1)
    store.commit(stories.events(world)[seen:], term)
    (down,) = store.attempts("run1", "API")
    assert (down.ended, down.exit_code) == (True, 1)


def test_history_after_a_restart_goes_on(store):
    """A run that was live when the store was closed has its place in history when it ends."""
    term = store.open().term
    world = World({"w1": 1})
    world.submit(run("long", job("a"), job("b", "a")), run_id="long")
    world.running("long/a")
    seen = len(world.journal)
    store.commit(stories.events(world), term)
    store.close()
    term = store.open().term
    world.ended("long/a")
    world.running("long/b")
    world.ended("long/b", 1)
    store.commit(stories.events(world)[seen:], term)
    view = store.run("long")
    assert view is not None
    assert view.counts == {"SUCCEEDED": 1, "FAILED": 1}
    (attempt,) = store.attempts("long", "a")
    assert attempt.placed_at_ms > 0
    assert attempt.worker_id == "w1"


def test_an_attempt_that_was_lost_is_in_history_while_its_run_goes_on(store):
    """The core keeps only the newest one; its log may still be asked for."""
    term = store.open().term
    world = World({"w1": 1})
    world.submit(run("long", job("a")), run_id="long")
    world.running("long/a")
    world.ended("long/a", reason=ExitReason.LOST)
    store.commit(stories.events(world), term)
    first = store.attempts("long", "a")[0]
    assert (first.number, first.ended, first.reason) == (1, True, ExitReason.LOST)
    assert store.run("long") is None


def test_closing_at_any_record_loses_nothing_of_history(store):
    """However the events are divided among commits and lives of the store."""
    world = stories.a_day()
    for event in stories.events(world):
        store.commit((event,), store.open().term)
        store.close()
    store.open()
    assert [view.alias for view in store.runs("", 9).runs] == ["nightly-1", "etl-2", "etl-1"]
    pull = store.job("run1", "PULL")
    assert pull is not None
    assert (pull.attempt, pull.lost, pull.stdout_bytes) == (2, 1, 7)
    assert len(store.attempts("run1", "PULL")) == 2
    assert store.run("run2").counts == {"FAILED": 1, "SKIPPED": 1}


@pytest.mark.parametrize("reopened", [False, True], ids=["once", "at every record"])
def test_a_checkpoint_at_any_record_changes_nothing(store, reopened):
    """State and history are those of a store that never took one."""
    world = stories.a_day()
    term = store.open().term
    for event in stories.events(world):
        store.commit((event,), term)
        store.checkpoint()
        if reopened:
            store.close()
            term = store.open().term
    store.close()
    assert digest(store.open().state) == digest(world.state)
    plain = MemoryStore()
    plain.commit(stories.events(world), plain.open().term)
    assert store.runs("", 9).runs == plain.runs("", 9).runs
    for run_id in ("run1", "run2", "run3"):
        page = store.jobs(run_id, "", 9)
        assert page == plain.jobs(run_id, "", 9)
        for view in page.jobs:
            attempts = store.attempts(run_id, view.job_id)
            assert attempts == plain.attempts(run_id, view.job_id)


def test_work_goes_on_after_a_checkpoint_and_a_restart(store):
    """Of runs, attempts and services that it names, the ends find their place in history."""
    world = World({"w1": 4})
    world.submit(run("long", job("a"), job("s", service=True), job("b", "a")), run_id="long")
    world.running("long/a")
    world.running("long/s", healthy=True, port=80)
    world.submit(run("gone", job("s", service=True)), run_id="gone")
    world.running("gone/s", healthy=True, port=81)
    seen = len(world.journal)
    store.commit(stories.events(world), store.open().term)
    store.checkpoint()
    store.close()
    term = store.open().term
    world.ended("long/a")
    world.running("long/b")
    world.ended("long/b", 1)
    world.ended("gone/s", 7)
    world.ended("long/s", 8)
    store.commit(stories.events(world)[seen:], term)
    assert store.run("long").counts == {"SUCCEEDED": 2, "FAILED": 1}
    (first,) = store.attempts("long", "a")
    assert (first.worker_id, first.placed_at_ms > 0, first.started_at_ms > 0) == ("w1", True, True)
    assert [store.attempts(run_id, "s")[0].exit_code for run_id in ("gone", "long")] == [7, 8]
    assert store.job("gone", "s").port == 81
    store.close()
    assert digest(store.open().state) == digest(world.state)


def test_what_was_submitted_is_kept_for_runs_that_have_ended(day):
    """As it arrived; a live run's is the core's to know."""
    spec = msgspec.msgpack.decode(day.spec("run2"), type=RunSpec)
    assert [one.id for one in spec.jobs] == ["PULL", "CLEAN"]
    day.checkpoint()
    assert msgspec.msgpack.decode(day.spec("run2"), type=RunSpec) == spec
    assert day.spec("run4") is None
    assert day.spec("nobody") is None


def test_keeping_up_and_tidying_change_nothing_that_is_seen(store):
    """They may come at any time."""
    world = stories.a_day()
    term = store.open().term
    for event in stories.events(world):
        store.commit((event,), term)
        store.keep_up()
        store.tidy()
    store.close()
    assert digest(store.open().state) == digest(world.state)


def test_both_stores_give_the_same_history(tmp_path):
    """Every view of every run, field by field."""
    memory, sqlite = MemoryStore(), SqliteStore(tmp_path / "t.sqlite", connect=connect)
    events = stories.events(stories.a_day())
    for store in (memory, sqlite):
        store.commit(events, store.open().term)
    assert memory.runs("", 10).runs == sqlite.runs("", 10).runs
    for run_id in ("run1", "run2", "run3"):
        assert memory.run(run_id) == sqlite.run(run_id)
        one, other = memory.jobs(run_id, "", 10), sqlite.jobs(run_id, "", 10)
        assert one is not None
        assert one == other
        for view in one.jobs:
            attempts = memory.attempts(run_id, view.job_id)
            assert attempts == sqlite.attempts(run_id, view.job_id)
    sqlite.close()


def test_the_spec_of_a_run_that_ended_and_how_its_jobs_ended(day):
    """What running it again needs; of a live run history knows nothing."""
    spec = day.spec("run2")
    assert spec is not None
    assert [one.id for one in msgspec.msgpack.decode(spec, type=RunSpec).jobs] == ["PULL", "CLEAN"]
    assert day.ends("run2") == {"PULL": JobState.FAILED, "CLEAN": JobState.SKIPPED}
    assert (day.spec("nobody"), day.ends("nobody")) == (None, {})


def test_dead_jobs_are_listed_in_pages_the_newest_run_first(store):
    """Failed ones of ended runs, with why; skipped and cancelled ones are not dead."""
    term = store.open().term
    world = World({"w1": 9})
    for number in range(3):
        world.submit(run("r", job("a"), job("b"), job("c", "a")), run_id=f"run{number}")
        world.ended(f"run{number}/a", 3)
        world.ended(f"run{number}/b", reason=ExitReason.SIGNALLED, signal=9)
    world.submit(run("r", job("a"), job("b")), run_id="live")
    world.ended("live/a", 1)
    store.commit(stories.events(world), term)
    shown = []
    cursor = ""
    while True:
        page = store.dead(cursor, 4)
        shown += [(view.run_id, view.job_id, view.failures) for view in page.jobs]
        cursor = page.cursor
        if not cursor:
            break
    assert shown == [(f"run{n}", name, 1) for n in (2, 1, 0) for name in "ab"]


def test_an_attempt_before_the_newest_is_in_history_as_soon_as_the_next_may_come(store):
    """Of a live job the core shows only the newest attempt."""
    term = store.open().term
    world = World({"w1": 9})
    world.submit(run("r", job("a", retries=RetryPolicy(limit=1))), run_id="run1")
    world.running("run1/a")
    world.ended("run1/a", 3)
    for event in stories.events(world):
        store.commit((event,), term)
    (row,) = store.attempts("run1", "a")
    assert (row.number, row.ended, row.exit_code) == (1, True, 3)


def test_a_run_that_repeats_another_says_so_when_it_has_ended(store):
    """And what it took over is shown as succeeded, without an attempt of its own."""
    term = store.open().term
    world = World({"w1": 9})
    spec = run("r", job("a"), job("b", "a"))
    item = msgspec.structs.replace(
        world.submission(spec, run_id="again"),
        rerun_of="first",
        rerun_alias="r-1",
        taken_over=("a",),
    )
    world.turn(item)
    world.ended("again/b")
    store.commit(stories.events(world), term)
    view = store.run("again")
    assert view is not None
    assert (view.rerun_of, view.counts) == ("r-1", {"SUCCEEDED": 2})
    taken = store.job("again", "a")
    assert taken is not None
    assert (taken.state, taken.reason, taken.attempt) == (
        JobState.SUCCEEDED, ExitReason.TAKEN_OVER, 0,
    )  # fmt: skip


def test_services_that_have_ended_are_kept_with_how_they_ended(store):
    """The last to end first, also while the run goes on; one that is up is the core's to tell of."""
    term = store.open().term
    world = World({"w1": 9})
    jobs = [job(name, service=True) for name in ("API", "DB", "WEB")]
    world.submit(run("Day", *jobs, job("LONG")), run_id="day")
    for port, name in enumerate(("API", "DB", "WEB"), 4000):
        world.running(f"day/{name}", healthy=True, port=port)
    world.advance(1_000)
    store.commit(stories.events(world), term)
    assert store.services("", 10) == ()

    told = len(world.journal)
    world.ended("day/API", 3, message="out of memory")
    world.advance(500)
    world.ask(StopService(service="Day/DB"))
    world.ended("day/DB", reason=ExitReason.STOPPED)
    store.close()
    term = store.open().term  # what it knows of services that are up is taken from the journal
    store.commit(stories.events(world)[told:], term)

    db, api = store.services("", 10)
    assert api == ServiceView(
        name="Day/API",
        run_id="day",
        run_alias="day-1",
        job_id="API",
        attempt=1,
        state=ServiceState.FAILED,
        worker="host:8080",
        port=4000,
        healthy_at_ms=START_MS,
        ended_at_ms=START_MS + 1_000,
        reason=ExitReason.EXITED,
        exit_code=3,
        message="out of memory",
    )
    assert (db.job_id, db.state, db.reason) == ("DB", ServiceState.STOPPED, ExitReason.STOPPED)
    assert store.services("", 1) == (db,)
    assert store.services("day", 10) == (db, api)
    assert store.services("another", 10) == ()


def test_a_run_says_for_which_slot_it_was_begun_after_its_end_too(store):
    """And a store that is opened again knows the schedule, with all that has become of it."""
    term = store.open().term
    world = stories.a_schedule()
    store.commit(stories.events(world), term)
    told = [view.fired for view in store.runs("", 10).runs]
    slots = [START_MS + 10_000, START_MS + 5_000, START_MS + 5_000]
    assert [one.slot_at_ms for one in told] == slots
    assert [one.triggered for one in told] == [False, True, False]
    assert {(one.schedule, one.version) for one in told} == {("nightly", 1)}
    store.checkpoint()
    store.close()
    state = store.open().state
    again = state.schedules["nightly"]
    assert digest(state) == digest(world.state)
    assert (again.cursor_ms, again.fired, again.live) == (START_MS + 10_000, 2, {})


def test_what_was_decided_about_a_gate_is_shown_after_its_run(store):
    """Who, when, what was asked and what was said; a gate that nobody decided has none of it."""
    term = store.open().term
    world = stories.a_decision()
    store.commit(stories.events(world), term)
    yes, no, late, below = (store.job("asks", job) for job in ("YES", "NO", "LATE", "BELOW"))
    assert yes.gate == GateView(
        run_id="asks",
        run_alias="ask-1",
        job_id="YES",
        state=JobState.SUCCEEDED,
        message="Rows look right?",
        opened_at_ms=START_MS,
        expires_at_ms=START_MS + GATE_TIMEOUT_MS_DEFAULT,
        decided_at_ms=START_MS + 1_000,
        decided_by="bob",
        reason=ExitReason.APPROVED,
        comment="they do",
    )
    assert yes.message == "approved by bob: they do"
    assert (no.state, no.gate.decided_by, no.message) == (JobState.FAILED, "eve", "rejected by eve")
    assert no.gate.opened_at_ms == START_MS + 1_000
    assert (late.state, late.reason, late.gate.decided_by) == (
        JobState.FAILED,
        ExitReason.EXPIRED,
        "",
    )
    assert below.state is JobState.SKIPPED
    assert (below.gate.decided_at_ms, below.gate.reason) == (0, ExitReason.UNKNOWN)
    assert [job.gate is not None for job in store.jobs("asks", "", 10).jobs] == [True] * 4
    assert store.newest_with_gate("LATE") == "asks"
    assert store.newest_with_gate("BELOW") is None


def test_a_page_of_gates_that_say_much_fits_into_a_frame(store):
    """Questions and comments count: the page ends early, and a cursor goes on."""
    term = store.open().term
    world = World()
    many = [gate(f"g{n}", message="?" * GATE_MESSAGE_CHARS) for n in range(400)]
    world.submit(run("many", *many), run_id="many")
    for n in range(400):
        world.ask(DecideGate(gate=f"many/g{n}", approve=True, comment="!" * DECISION_CHARS))
    store.commit(stories.events(world), term)
    page = store.jobs("many", "", 1_000)
    if isinstance(store, SqliteStore):
        assert 0 < len(page.jobs) < 400
        assert page.cursor == str(len(page.jobs))
        assert len(msgspec.msgpack.encode(page)) < FRAME_PAYLOAD_BYTES


@pytest.mark.parametrize("reopened", [False, True])
def test_what_a_job_left_for_others_is_kept_live_and_ended(store, reopened):
    """In the state, over a checkpoint, while its run goes on; in history afterwards, and taken over."""
    world = Cluster({"w1": 9})
    world.submit(run("etl", job("a"), job("b", "a"), job("c", "b")), run_id="first")
    world.ended("first/a", outputs={"rows": "12", "day": "måndag"})
    world.ended("first/b")
    world.ended("first/c", 1)
    world.again(failed=True)
    term = store.open().term
    for event in stories.events(world):
        store.commit((event,), term)
        store.checkpoint()
        if reopened:
            store.close()
            term = store.open().term
    outputs = {"rows": "12", "day": "måndag"}
    store.close()
    found = store.open()
    live = found.state
    assert digest(live) == digest(world.state)
    assert live.runs["again"].jobs["a"].outputs == outputs
    assert [job_view.outputs for job_view in store.jobs("first", "", 9).jobs] == [outputs, {}, {}]
    assert store.job("first", "a").outputs == outputs
    assert store.outputs("first") == {"a": outputs}
    before = len(world.journal)
    world.ended("again/c")
    store.commit(stories.events(world)[before:], found.term)
    assert store.job("again", "a").outputs == outputs
    assert store.outputs("again") == {"a": outputs}


def test_a_page_of_jobs_that_left_much_fits_into_a_frame(store):
    """Outputs count: live and ended, the page ends early, and a cursor goes on."""
    term = store.open().term
    world = World({"w1": 400})
    world.submit(run("many", *(job(f"j{n}") for n in range(400)), job("last")), run_id="many")
    left = {f"k{n}": "å" * (OUTPUT_VALUE_BYTES // 2 - 64) for n in range(4)}
    for n in range(400):
        world.ended(f"many/j{n}", outputs=left)
    live = world.answer(ListJobs(run="many"))
    world.ended("many/last")
    store.commit(stories.events(world), term)
    pages = [live]
    if isinstance(store, SqliteStore):
        pages.append(store.jobs("many", "", 1_000))
    for page in pages:
        assert 0 < len(page.jobs) < 400
        assert page.cursor == str(len(page.jobs))
        assert len(msgspec.msgpack.encode(page)) < FRAME_PAYLOAD_BYTES
