"""Deadlines: order, sharing, and that what time has overtaken does no harm."""

from __future__ import annotations

from core_world import START_MS, World, job, run

from titan_master.core.timers import (
    FORGOTTEN_KEPT,
    JobsDue,
    OvertimeDue,
    Timers,
    WorkerDue,
    still_due,
)
from titan_proto.messages import CancelRun


def test_deadlines_come_in_the_order_of_time_and_equal_ones_in_that_of_setting():
    timers = Timers()
    timers.delay_jobs("r", ("b", "a"), (20, 10))
    timers.watch_worker("w1", 10)
    assert timers.next_ms() == 10
    assert [timers.pop_due(30) for _ in range(4)] == [
        JobsDue("r", ("a",)),
        WorkerDue("w1"),
        JobsDue("r", ("b",)),
        None,
    ]
    assert timers.next_ms() is None


def test_jobs_of_one_moment_share_an_entry():
    timers = Timers()
    timers.delay_jobs("r", tuple("abc"), (10, 10, 10))
    assert timers.pop_due(10) == JobsDue("r", ("a", "b", "c"))
    assert timers.pop_due(10) is None


def test_nothing_is_due_before_its_time():
    timers = Timers()
    timers.watch_worker("w1", 10)
    assert timers.pop_due(9) is None


def test_of_a_workers_deadlines_the_earliest_counts_and_is_told_once():
    timers = Timers()
    for at_ms in (30, 10, 20, 10):
        timers.watch_worker("w1", at_ms)
    assert timers.pop_due(100) == WorkerDue("w1")
    assert timers.pop_due(100) is None


def test_jobs_dropped_meanwhile_are_not_due_any_more():
    w = World()
    w.submit(run("r", job("a", delay_ms=10), job("b", delay_ms=20)))
    due = JobsDue("r", ("a", "b"))
    assert still_due(w.state, due, START_MS + 9) == ()
    assert still_due(w.state, due, START_MS + 10) == ("a",)
    w.ask(CancelRun(run="r"))
    assert still_due(w.state, due, START_MS + 100) == ()


def test_a_run_that_has_ended_leaves_nothing_delayed_behind():
    w = World()
    w.submit(run("r", *(job(f"j{n}", delay_ms=10 + n) for n in range(5))))
    timers = w.core._draft.timers
    w.advance(11)
    assert list(timers._delayed) == ["r"]
    w.ask(CancelRun(run="r"))
    assert timers._delayed == {}
    assert w.advance(100).events == ()
    assert timers.next_ms() is None


def test_deadlines_of_ended_runs_do_not_pile_up():
    """A gate that was decided in a second has a deadline two days away."""
    timers = Timers()
    timers.watch_worker("w", 50)
    timers.delay_jobs("stays", ("j",), (10**9,))
    timers.watch_job("stays", "j", 10**9)
    for number in range(20 * FORGOTTEN_KEPT):
        run_id = f"r{number}"
        timers.delay_jobs(run_id, ("gate",), (10**8 + number,))
        timers.watch_job(run_id, "job", 10**8 + number)
        timers.forget_run(run_id)
    assert len(timers._heap) <= 2 * FORGOTTEN_KEPT + 4
    assert timers.pop_due(100) == WorkerDue("w")
    found = [timers.pop_due(10**9), timers.pop_due(10**9)]
    assert found == [JobsDue("stays", ("j",)), OvertimeDue("stays", "j")]
    assert timers.pop_due(10**12) is None


def test_a_run_that_is_forgotten_is_not_looked_at():
    timers = Timers()
    timers.delay_jobs("r", ("a", "b"), (10, 20))
    timers.watch_job("r", "a", 15)
    timers.watch_job("s", "a", 16)
    timers.forget_run("r")
    assert timers.pop_due(100) == OvertimeDue("s", "a")
    assert timers.pop_due(100) is None
