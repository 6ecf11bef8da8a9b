"""The life of jobs and attempts, as exact events and effects."""

from __future__ import annotations

import pytest
from core_world import World, effects, events, gate, job, kinds, placements, run

from titan_master.core.core import CoreConfig
from titan_master.core.inputs import Asked
from titan_proto.messages import CancelRun
from titan_proto.states import AttemptState, ExitReason


def last(turn):
    return events(turn)[-1]


def test_a_job_that_can_run_is_placed_in_the_turn_that_accepts_it():
    w = World({"w1": 4})
    turn = w.submit(run("r", job("a"), job("b", "a")))
    assert kinds(turn) == ["RunAccepted", "AttemptPlaced"]
    assert events(turn)[1] == (
        "AttemptPlaced(run_id=r, job_id=a, number=1, worker_id=w1, incarnation=1, fence=1)"
    )
    assert effects(turn) == [
        "Reply(origin=1.1, message=RunReceipt(run_id=r, alias=r-1))",
        "OpenLog(ref=r/a.1, worker_id=w1)",
        (
            "Tell(link_id=101, message=StartAttempts("
            "orders=[AttemptOrder(ref=r/a.1, fence=1, spec=a, run_name=r)]))"
        ),
    ]
    assert w.job_states("r") == {"a": "PLACED", "b": "BLOCKED"}


def test_a_started_attempt_makes_its_job_run():
    w = World({"w1": 4})
    w.submit(run("r", job("a")))
    turn = w.running("r/a", port=4000)
    assert events(turn) == ["AttemptStarted(run_id=r, job_id=a, number=1, port=4000)"]
    assert effects(turn) == []


def test_a_success_opens_the_next_job_in_the_same_turn():
    w = World({"w1": 4})
    w.submit(run("r", job("a"), job("b", "a")))
    turn = w.ended("r/a", stdout_bytes=10, stderr_bytes=2)
    assert events(turn) == [
        (
            "AttemptEnded(run_id=r, job_id=a, number=1, worker_id=w1, worker=host:8080,"
            " reason=EXITED, placed_at_ms=1000000, stdout_bytes=10, stderr_bytes=2)"
        ),
        "JobEnded(run_id=r, job_id=a, state=SUCCEEDED, reason=EXITED, number=1)",
        "JobsQueued(run_id=r, job_ids=[b])",
        "AttemptPlaced(run_id=r, job_id=b, number=1, worker_id=w1, incarnation=1, fence=2)",
    ]
    assert effects(turn) == [
        "CloseLog(ref=r/a.1, stdout_bytes=10, stderr_bytes=2, lost=False)",
        "OpenLog(ref=r/b.1, worker_id=w1)",
        "Tell(link_id=101, message=ReportAcks(refs=[r/a.1]))",
        (
            "Tell(link_id=101, message=StartAttempts("
            "orders=[AttemptOrder(ref=r/b.1, fence=2, spec=b, run_name=r)]))"
        ),
    ]


def test_a_job_waits_for_all_of_its_parents():
    w = World({"w1": 4})
    w.submit(run("r", job("a"), job("b"), job("c", "a", "b", "a")))
    assert "JobsQueued" not in kinds(w.ended("r/a"))
    assert "JobsQueued" in kinds(w.ended("r/b"))


def test_a_failure_skips_everything_below_it_in_one_event_and_spares_other_branches():
    w = World({"w1": 4})
    w.submit(
        run(
            "r",
            job("a"),
            job("b", "a"),
            job("c", "b"),
            job("d", "c", "other"),
            job("other"),
        )
    )
    turn = w.ended("r/a", 3, message="no such file")
    assert events(turn)[1:] == [
        (
            "JobEnded(run_id=r, job_id=a, state=FAILED, reason=EXITED, number=1, failures=1,"
            " exit_code=3, message='no such file')"
        ),
        "JobsDropped(run_id=r, job_ids=[b, c, d], state=SKIPPED, reason=PARENT_FAILED)",
    ]
    assert w.job_states("r")["other"] == "PLACED"
    assert last(w.ended("r/other")) == "RunEnded(run_id=r, state=FAILED)"


def test_the_last_end_ends_the_run_and_it_leaves_memory():
    w = World({"w1": 4})
    w.submit(run("r", job("a")))
    assert last(w.ended("r/a")) == "RunEnded(run_id=r, state=SUCCEEDED)"
    assert not w.state.runs
    assert not w.state.aliases
    assert sum(w.state.counts.values()) == 0
    assert not w.state.workers["w1"].held


@pytest.mark.parametrize(
    ("reason", "fields"),
    [
        (ExitReason.SIGNALLED, {"signal": 9}),
        (ExitReason.PREPARE_FAILED, {"message": "the archive is damaged"}),
        (ExitReason.START_FAILED, {"message": "java is not installed"}),
    ],
)
def test_whatever_ends_an_attempt_beside_a_clean_exit_fails_its_job(reason, fields):
    w = World({"w1": 4})
    w.submit(run("r", job("a")))
    turn = w.ended("r/a", reason=reason, **fields)
    assert turn.events[1].reason is reason
    assert turn.events[1].signal == fields.get("signal", 0)
    assert turn.events[1].message == fields.get("message", "")
    assert last(turn) == "RunEnded(run_id=r, state=FAILED)"


def test_a_lost_attempt_is_tried_again_under_a_new_number():
    w = World({"w1": 4})
    w.submit(run("r", job("a")))
    w.running("r/a")
    turn = w.ended("r/a", reason=ExitReason.LOST)
    assert kinds(turn) == ["AttemptEnded", "JobsQueued", "AttemptPlaced"]
    assert turn.events[-1].number == 2
    assert effects(turn)[0] == "CloseLog(ref=r/a.1, stdout_bytes=0, stderr_bytes=0, lost=True)"


def test_a_job_whose_attempts_keep_being_lost_is_quarantined_at_the_crash_limit():
    w = World({"w1": 4}, CoreConfig(crash_limit=2))
    w.submit(run("r", job("a"), job("b", "a")))
    w.ended("r/a", reason=ExitReason.LOST)
    turn = w.ended("r/a", reason=ExitReason.LOST)
    assert events(turn)[1:] == [
        (
            "JobEnded(run_id=r, job_id=a, state=FAILED, reason=QUARANTINED, number=2, lost=2,"
            " message='2 attempts were lost with their workers (crash_limit): it may be what kills"
            " them, and is not tried again')"
        ),
        "JobsDropped(run_id=r, job_ids=[b], state=SKIPPED, reason=PARENT_FAILED)",
        "RunEnded(run_id=r, state=FAILED)",
    ]


def test_a_report_counts_only_for_the_newest_attempt_and_is_acknowledged_anyway():
    w = World({"w1": 4})
    w.submit(run("r", job("a")))
    w.ended("r/a", reason=ExitReason.LOST)
    turn = w.report("w1", w.ended_report("r/a.1"))
    assert events(turn) == []
    assert effects(turn) == ["Tell(link_id=101, message=ReportAcks(refs=[r/a.1]))"]


def test_an_end_reported_twice_is_one_end():
    w = World({"w1": 4})
    w.submit(run("r", job("a"), job("b")))
    w.ended("r/a")
    turn = w.ended("r/a", 1)
    assert events(turn) == []
    assert effects(turn) == ["Tell(link_id=101, message=ReportAcks(refs=[r/a.1]))"]


def test_an_attempt_that_is_not_wanted_any_more_is_told_to_stop_when_it_starts():
    w = World({"w1": 4})
    w.submit(run("r", job("a")))
    w.ended("r/a", reason=ExitReason.LOST)
    turn = w.report("w1", w.running_report("r/a.1"))
    assert events(turn) == []
    assert effects(turn) == [
        "Tell(link_id=101, message=StopAttempts(refs=[r/a.1], reason=CANCELLED))"
    ]


def test_a_report_of_a_state_from_the_future_changes_nothing():
    w = World({"w1": 4})
    w.submit(run("r", job("a")))
    report = w.running_report("r/a")
    turn = w.report("w1", type(report)(ref=report.ref, state=AttemptState("NEWER")))
    assert (events(turn), effects(turn)) == ([], [])


def test_acknowledgements_and_orders_of_a_turn_leave_as_one_message_each():
    w = World({"w1": 2})
    w.submit(run("r", *(job(name) for name in "abcd")))
    turn = w.report("w1", w.ended_report("r/a"), w.ended_report("r/b"))
    assert effects(turn)[-2:] == [
        "Tell(link_id=101, message=ReportAcks(refs=[r/a.1, r/b.1]))",
        (
            "Tell(link_id=101, message=StartAttempts(orders=["
            "AttemptOrder(ref=r/c.1, fence=3, spec=c, run_name=r),"
            " AttemptOrder(ref=r/d.1, fence=4, spec=d, run_name=r)]))"
        ),
    ]


def test_start_times_are_the_masters_and_only_durations_the_workers():
    w = World({"w1": 1})
    w.submit(run("r", job("a"), job("b")))
    w.now_ms += 500
    turn = w.ended("r/a", started_at_ms=77_000, ended_at_ms=77_200)
    assert turn.events[0].started_at_ms == w.now_ms - 200
    turn = w.ended("r/b", started_at_ms=1, ended_at_ms=9_999_999)
    assert turn.events[0].started_at_ms == turn.events[0].placed_at_ms


def test_what_a_worker_says_is_cut_to_a_length_that_fits_a_page():
    w = World({"w1": 1})
    w.submit(run("r", job("a")))
    turn = w.ended("r/a", 1, message="x" * 100_000)
    assert len(turn.events[0].message) == 4_000


# -- delays ---------------------------------------------------------------------------------------
def test_a_delay_begins_when_the_job_is_ready():
    w = World({"w1": 4})
    turn = w.submit(run("r", job("a", delay_ms=5_000), job("b", "a", delay_ms=1_000)))
    assert kinds(turn) == ["RunAccepted"]
    assert w.job_states("r") == {"a": "SCHEDULED", "b": "BLOCKED"}
    assert kinds(w.advance(4_999)) == []
    assert kinds(w.advance(1)) == ["JobsQueued", "AttemptPlaced"]
    turn = w.ended("r/a")
    assert events(turn)[-1] == f"JobsScheduled(run_id=r, job_ids=[b], until_ms=[{w.now_ms + 1000}])"
    assert kinds(w.advance(999)) == []
    assert kinds(w.advance(1)) == ["JobsQueued", "AttemptPlaced"]


def test_a_moment_counts_from_the_clock_and_its_delay_from_the_moment():
    w = World({"w1": 4})
    at_ms = w.now_ms + 5_000
    turn = w.submit(
        run(
            "r",
            job("a", at_ms=at_ms),
            job("b", at_ms=at_ms, delay_ms=1_000),
            job("past", at_ms=w.now_ms),
            job("c", "a", at_ms=w.now_ms + 8_000),
            job("d", "a", at_ms=at_ms, delay_ms=500),
            gate("g", at_ms=at_ms),
        )
    )
    assert kinds(turn) == ["RunAccepted", "AttemptPlaced"]
    assert placements(turn) == [("past", "w1")]
    assert kinds(w.advance(4_999)) == []
    turn = w.advance(1)
    assert kinds(turn) == ["JobsQueued", "GatesOpened", "AttemptPlaced"]
    assert events(turn)[0] == "JobsQueued(run_id=r, job_ids=[a])"
    w.now_ms += 100
    turn = w.ended("r/a")
    assert events(turn)[-1] == (
        f"JobsScheduled(run_id=r, job_ids=[c, d], until_ms=[{at_ms + 3_000}, {at_ms + 600}])"
    )
    assert placements(w.advance(899)) == [("d", "w1")]
    assert placements(w.advance(1)) == [("b", "w1")]
    assert placements(w.advance(2_000)) == [("c", "w1")]


def test_moments_survive_a_restart_of_the_master():
    w = World({"w1": 4})
    w.submit(run("r", job("a", at_ms=w.now_ms + 5_000)))
    w.now_ms += 1_000
    w.restart()
    w.join("w1")
    assert kinds(w.advance(3_999)) == []
    assert kinds(w.advance(1)) == ["JobsQueued", "AttemptPlaced"]


def test_jobs_due_at_one_moment_are_queued_in_one_event():
    w = World()
    w.submit(run("r", *(job(f"j{number}", delay_ms=1_000) for number in range(5))))
    turn = w.advance(1_000)
    assert events(turn) == ["JobsQueued(run_id=r, job_ids=[j0, j1, j2, j3, j4])"]


def test_delays_survive_a_restart_of_the_master():
    w = World({"w1": 4})
    w.submit(run("r", job("a", delay_ms=5_000)))
    w.now_ms += 1_000
    w.restart()
    w.join("w1")
    assert kinds(w.advance(3_999)) == []
    assert kinds(w.advance(1)) == ["JobsQueued", "AttemptPlaced"]


# -- cancelling -----------------------------------------------------------------------------------
def test_cancelling_drops_what_has_not_started_and_stops_what_has():
    w = World({"w1": 1})
    w.submit(run("r", job("a"), job("b"), job("c", "a"), job("d", delay_ms=9_000)))
    turn = w.ask(CancelRun(run="r"))
    assert events(turn) == [
        "RunCancelRequested(run_id=r)",
        "JobsDropped(run_id=r, job_ids=[b, c, d], state=CANCELLED, reason=CANCELLED)",
        "JobCancelling(run_id=r, job_id=a)",
    ]
    assert effects(turn) == [
        (
            "Reply(origin=1.2, message=RunView(run_id=r, alias=r-1, name=r, state=ACTIVE,"
            " submitted_at_ms=1000000, jobs=4, counts={CANCELLED: 3, CANCELLING: 1}))"
        ),
        "Tell(link_id=101, message=StopAttempts(refs=[r/a.1], reason=CANCELLED))",
    ]
    turn = w.ended("r/a", reason=ExitReason.CANCELLED)
    assert events(turn)[1:] == [
        "JobEnded(run_id=r, job_id=a, state=CANCELLED, reason=CANCELLED, number=1)",
        "RunEnded(run_id=r, state=CANCELLED)",
    ]


def test_cancelling_twice_repeats_the_stop_orders_and_nothing_else():
    w = World({"w1": 1})
    w.submit(run("r", job("a")))
    w.ask(CancelRun(run="r"))
    turn = w.ask(CancelRun(run="r"))
    assert events(turn) == []
    assert effects(turn)[1:] == [
        "Tell(link_id=101, message=StopAttempts(refs=[r/a.1], reason=CANCELLED))"
    ]


def test_a_run_of_which_nothing_has_started_is_cancelled_at_once():
    w = World()
    w.submit(run("r", job("a"), job("b", "a")))
    turn = w.ask(CancelRun(run="r"))
    assert kinds(turn) == ["RunCancelRequested", "JobsDropped", "RunEnded"]
    assert "state=CANCELLED" in effects(turn)[0]
    assert f"ended_at_ms={w.now_ms}" in effects(turn)[0]


def test_a_job_that_was_done_before_the_stop_order_came_has_succeeded():
    w = World({"w1": 1})
    w.submit(run("r", job("a"), job("b", "a")))
    w.ask(CancelRun(run="r"))
    turn = w.ended("r/a", 0)
    assert events(turn)[1:] == [
        "JobEnded(run_id=r, job_id=a, state=SUCCEEDED, reason=EXITED, number=1)",
        "RunEnded(run_id=r, state=CANCELLED)",
    ]


@pytest.mark.parametrize("reason", [ExitReason.LOST, ExitReason.SIGNALLED, ExitReason.EXITED])
def test_a_job_being_cancelled_is_cancelled_however_else_it_ends(reason):
    w = World({"w1": 1})
    w.submit(run("r", job("a")))
    w.running("r/a")
    w.ask(CancelRun(run="r"))
    turn = w.ended("r/a", 1, reason=reason)
    assert turn.events[1].state == "CANCELLED"
    assert last(turn) == "RunEnded(run_id=r, state=CANCELLED)"


def test_a_start_reported_while_the_job_is_being_cancelled_is_no_news():
    w = World({"w1": 1})
    w.submit(run("r", job("a", service=True)))
    w.ask(CancelRun(run="r"))
    turn = w.running("r/a", healthy=True)
    assert (events(turn), effects(turn)) == ([], [])


def test_a_failure_counts_more_than_a_cancellation():
    w = World({"w1": 4})
    w.submit(run("r", job("a"), job("b")))
    w.ended("r/a", 1)
    w.ask(CancelRun(run="r"))
    assert last(w.ended("r/b", reason=ExitReason.CANCELLED)) == "RunEnded(run_id=r, state=FAILED)"


def test_a_hundred_thousand_waiting_jobs_are_cancelled_in_one_event():
    w = World()
    w.core.handle(w.submission(run("r", *(job(f"j{n}") for n in range(100_000)))), w.now_ms)
    w.core.drain()
    w.core.handle(Asked(origin=w.origin(), request=CancelRun(run="r")), w.now_ms)
    turn = w.core.drain()
    assert kinds(turn) == ["RunCancelRequested", "JobsDropped", "RunEnded"]
    assert len(turn.events[1].job_ids) == 100_000
