"""Trying again: after which failures, how often, after how long; and the time of a job as a whole."""

from __future__ import annotations

import pytest
from core_world import World, effects, events, job, kinds, run

from titan_master.core import retrying
from titan_master.core.core import CoreConfig
from titan_proto.ids import AttemptRef
from titan_proto.messages import CancelRun, GetJob
from titan_proto.specs import RetryCause, RetryPolicy
from titan_proto.states import ExitReason, JobState

ONCE = RetryPolicy(after_loss=False)
STEADY = RetryPolicy(limit=2, delay_ms=1_000, jitter=False)


def world(policy=STEADY, **options):
    w = World({"w1": 4}, options.pop("config", None))
    w.submit(run("r", job("a", retries=policy, **options), job("b", "a")))
    return w


# -- failures of its own ------------------------------------------------------------------------
def test_a_failure_is_tried_again_under_the_next_number_after_its_delay():
    w = world()
    w.running("r/a")
    turn = w.ended("r/a", 3)
    assert events(turn)[1:] == ["JobBackoff(run_id=r, job_id=a, until_ms=1001000, failures=1)"]
    assert w.job_states("r") == {"a": "BACKOFF", "b": "BLOCKED"}
    assert kinds(w.advance(999)) == []
    assert events(w.advance(1)) == [
        "JobsQueued(run_id=r, job_ids=[a])",
        "AttemptPlaced(run_id=r, job_id=a, number=2, worker_id=w1, incarnation=1, fence=2)",
    ]


def test_a_success_after_a_failure_is_a_success():
    w = world()
    w.ended("r/a", 3)
    w.advance(1_000)
    turn = w.ended("r/a")
    assert events(turn)[1] == (
        "JobEnded(run_id=r, job_id=a, state=SUCCEEDED, reason=EXITED, number=2, failures=1)"
    )
    assert "JobsQueued(run_id=r, job_ids=[b])" in events(turn)


def test_the_last_failure_ends_the_job_with_its_own_reason():
    w = world()
    for _ in range(2):
        w.ended("r/a", 3)
        w.advance(10_000)
    turn = w.ended("r/a", 4)
    assert events(turn)[1:] == [
        "JobEnded(run_id=r, job_id=a, state=FAILED, reason=EXITED, number=3, failures=3, exit_code=4)",
        "JobsDropped(run_id=r, job_ids=[b], state=SKIPPED, reason=PARENT_FAILED)",
        "RunEnded(run_id=r, state=FAILED)",
    ]


def test_lost_attempts_do_not_count_as_retries_and_are_tried_at_once():
    w = world(RetryPolicy(limit=1, delay_ms=1_000, jitter=False))
    w.ended("r/a", reason=ExitReason.LOST)
    w.ended("r/a", 1)
    w.advance(1_000)
    w.ended("r/a", reason=ExitReason.LOST)
    assert w.job_state("r/a") is JobState.PLACED
    view = w.answer(GetJob(run="r", job="a"))
    assert (view.attempt, view.lost, view.failures, view.retries) == (4, 2, 1, 1)
    assert "JobEnded" in kinds(w.ended("r/a", 1))


@pytest.mark.parametrize(
    ("cause", "reason", "fields"),
    [
        (RetryCause.EXIT, ExitReason.EXITED, {"code": 1}),
        (RetryCause.SIGNAL, ExitReason.SIGNALLED, {"signal": 11}),
        (RetryCause.SIGNAL, ExitReason.OOM_KILLED, {"signal": 9}),
        (RetryCause.TIMEOUT, ExitReason.TIMED_OUT, {"signal": 15}),
        (RetryCause.START, ExitReason.START_FAILED, {}),
        (RetryCause.START, ExitReason.PREPARE_FAILED, {}),
    ],
)
def test_each_cause_is_tried_again_only_where_the_policy_names_it(cause, reason, fields):
    named = world(RetryPolicy(limit=1, causes=(cause,)))
    assert "JobBackoff" in kinds(named.ended("r/a", reason=reason, **fields))
    others = tuple(one for one in RetryCause if one not in (cause, RetryCause.UNKNOWN))
    unnamed = world(RetryPolicy(limit=1, causes=others))
    assert "JobEnded" in kinds(unnamed.ended("r/a", reason=reason, **fields))


def test_an_exit_code_that_says_hopeless_is_not_tried_again():
    w = world(RetryPolicy(limit=5, not_exit_codes=(2, 64)))
    assert "JobBackoff" in kinds(w.ended("r/a", 1))
    w.advance(2_000)
    assert "JobEnded" in kinds(w.ended("r/a", 64))


def test_a_job_that_backs_off_is_cancelled_at_once_and_not_tried_again():
    w = world()
    w.ended("r/a", 1)
    turn = w.ask(CancelRun(run="r"))
    assert kinds(turn) == ["RunCancelRequested", "JobsDropped", "RunEnded"]
    assert kinds(w.advance(60_000)) == ["WorkerSilent", "WorkerLost"]


def test_a_restarted_master_waits_no_longer_and_no_shorter():
    w = world()
    w.ended("r/a", 1)
    w.advance(600)
    w.restart()
    w.join("w1", held=())
    assert kinds(w.advance(399)) == []
    assert kinds(w.advance(1)) == ["JobsQueued", "AttemptPlaced"]


def test_a_failed_service_start_is_not_a_matter_of_retries():
    w = World({"w1": 4})
    w.submit(run("r", job("api", service=True)))
    w.running("r/api")
    assert "JobEnded" in kinds(w.ended("r/api", 1))


def test_what_is_to_be_done_at_most_once_is_never_tried_again_after_a_loss():
    w = World({"w1": 4, "w2": 4})
    w.submit(run("r", job("pay", exclusive=True, retries=ONCE), job("b", "pay")))
    turn = w.ended("r/pay", reason=ExitReason.LOST)
    assert kinds(turn) == ["AttemptEnded", "JobEnded", "JobsDropped", "RunEnded"]
    assert "state=FAILED, reason=LOST" in events(turn)[1]


def test_an_order_that_was_never_taken_is_sent_again_also_for_what_is_done_at_most_once():
    """The same attempt under the same number: its worker never had it."""
    w = World({"w1": 4})
    w.submit(run("r", job("pay", exclusive=True, retries=ONCE)))
    w.cut("w1")
    assert "StartAttempts" in effects(w.join("w1"))[-1]


# -- how long -----------------------------------------------------------------------------------
def test_delays_grow_to_their_cap():
    policy = RetryPolicy(
        limit=9, delay_ms=1_000, backoff_percent=200, max_delay_ms=5_000, jitter=False
    )
    ref = AttemptRef("r", "a", 1)
    assert [retrying.delay_ms(policy, ref, n) for n in range(1, 6)] == [
        1_000, 2_000, 4_000, 5_000, 5_000,
    ]  # fmt: skip


def test_the_largest_policy_is_quick_to_compute_and_stays_at_its_cap():
    policy = RetryPolicy(limit=100, delay_ms=1, backoff_percent=1_000, max_delay_ms=86_400_000)
    assert retrying.delay_ms(policy, AttemptRef("r", "a", 1), 100) <= 86_400_000


def test_jitter_shifts_by_at_most_a_quarter_and_not_all_alike():
    policy = RetryPolicy(limit=1, delay_ms=10_000, max_delay_ms=60_000)
    delays = {retrying.delay_ms(policy, AttemptRef("r", f"j{n}", 1), 1) for n in range(200)}
    assert min(delays) >= 7_500
    assert max(delays) <= 12_500
    assert len(delays) > 100
    again = retrying.delay_ms(policy, AttemptRef("r", "j0", 1), 1)
    assert again == retrying.delay_ms(policy, AttemptRef("r", "j0", 1), 1)


# -- the job as a whole -------------------------------------------------------------------------
def test_a_job_out_of_time_is_stopped_and_fails_when_it_has_stopped():
    w = world(RetryPolicy(), job_timeout_ms=5_000)
    w.running("r/a")
    turn = w.advance(5_000)
    assert events(turn) == ["JobCancelling(run_id=r, job_id=a, reason=TIMED_OUT)"]
    assert "StopAttempts(refs=[r/a.1], reason=TIMED_OUT)" in " ".join(effects(turn))
    turn = w.ended("r/a", reason=ExitReason.TIMED_OUT, signal=15)
    assert events(turn)[1] == (
        "JobEnded(run_id=r, job_id=a, state=FAILED, reason=TIMED_OUT, number=1, signal=15,"
        " message='it took longer, all attempts together, than its job_timeout of 5 s')"
    )


def test_a_job_that_was_done_when_its_time_was_over_is_done():
    w = world(RetryPolicy(), job_timeout_ms=5_000)
    w.running("r/a")
    w.advance(5_000)
    assert "state=SUCCEEDED" in events(w.ended("r/a"))[1]


def test_time_over_between_two_attempts_ends_the_job_at_once():
    w = world(RetryPolicy(limit=9, delay_ms=9_000, jitter=False), job_timeout_ms=5_000)
    w.ended("r/a", 1)
    assert kinds(w.advance(5_000)) == ["JobEnded", "JobsDropped", "RunEnded"]


def test_the_time_of_a_job_begins_with_its_first_placement_and_survives_a_restart():
    w = World(config=CoreConfig(lost_after_ms=600_000))
    w.submit(run("r", job("a", job_timeout_ms=5_000)))
    assert kinds(w.advance(60_000)) == []
    w.join("w1")
    w.running("r/a")
    w.advance(3_000)
    w.restart()
    w.join("w1", held=[("r/a", "RUNNING")])
    assert kinds(w.advance(1_999)) == []
    assert kinds(w.advance(1)) == ["JobCancelling"]


def test_a_stop_order_for_time_over_is_repeated_with_its_reason_when_the_worker_comes_back():
    w = world(RetryPolicy(), job_timeout_ms=5_000)
    w.running("r/a")
    w.cut("w1")
    w.advance(5_000)
    turn = w.join("w1", held=[("r/a", "RUNNING")])
    assert "StopAttempts(refs=[r/a.1], reason=TIMED_OUT)" in " ".join(effects(turn))


def test_a_timer_of_a_job_that_has_ended_does_nothing():
    w = world(RetryPolicy(), job_timeout_ms=5_000)
    w.ended("r/a")
    w.ended("r/b")
    assert kinds(w.advance(6_000)) == []
