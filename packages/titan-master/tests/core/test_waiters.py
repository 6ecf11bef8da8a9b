"""Waiting: answered in the turn in which it becomes true, dropped when nobody waits any more."""

from __future__ import annotations

import pytest
from core_world import World, effects, events, job, run

from titan_master.core.effects import Reply, ServeLog
from titan_master.core.waiters import CHANGES_AT_ONCE
from titan_proto.errors import ErrorCode
from titan_proto.messages import (
    CancelRun,
    JobMilestone,
    ReadLog,
    RunView,
    WaitJob,
    WaitRun,
    WatchRun,
)
from titan_proto.states import ExitReason


def replies(turn, *, link_id=None):
    return [
        effect
        for effect in turn.effects
        if isinstance(effect, Reply) and (link_id is None or effect.origin.link_id == link_id)
    ]


def news(turn):
    return [(one.message.job_id, str(one.message.state)) for one in replies(turn) if not one.end]


def nobody_waits(w):
    waiters = w.core._draft.waiters
    return not (waiters._of_run or waiters._of_job or waiters._by_link)


# -- the run's end --------------------------------------------------------------------------------
def test_who_waits_for_a_run_is_answered_in_the_turn_of_its_end():
    w = World({"w1": 2})
    w.submit(run("r", job("a"), job("b")))
    assert effects(w.ask(WaitRun(run="r"), link_id=5)) == []
    assert replies(w.ended("r/a")) == []
    w.now_ms += 10
    (reply,) = replies(w.ended("r/b", 1))
    assert reply.origin.link_id == 5
    assert reply.end
    assert reply.message == RunView(
        run_id="r",
        alias="r-1",
        name="r",
        state="FAILED",
        submitted_at_ms=1_000_000,
        ended_at_ms=1_000_010,
        jobs=2,
        counts={"SUCCEEDED": 1, "FAILED": 1},
    )
    assert nobody_waits(w)


def test_a_dropped_exchange_is_not_answered():
    w = World({"w1": 2})
    w.submit(run("r", job("a")))
    w.ask(WaitRun(run="r"))
    origin = w.origin()
    w.drop(type(origin)(1, origin.correlation - 1))
    assert nobody_waits(w)
    assert replies(w.ended("r/a")) == []


def test_dropping_what_does_not_wait_does_nothing():
    w = World()
    turn = w.drop(w.origin())
    assert (events(turn), effects(turn)) == ([], [])


def test_a_closed_link_takes_all_its_waiters_and_no_others():
    w = World({"w1": 2})
    w.submit(run("r", job("a"), job("b", "a")))
    for link_id in (5, 6):
        w.ask(WaitRun(run="r"), link_id=link_id)
        w.ask(WatchRun(run="r"), link_id=link_id)
        w.ask(WaitJob(run="r", job="b"), link_id=link_id)
        w.ask(ReadLog(run="r", job="b", follow=True), link_id=link_id)
    w.close_link(5)
    turn = w.ended("r/a", 1)
    assert replies(turn, link_id=5) == []
    # The watch has three pieces of news and an end; the rest one answer each.
    assert len(replies(turn, link_id=6)) == 2 + 1 + 1 + 1 + 1
    assert nobody_waits(w)


# -- a job ----------------------------------------------------------------------------------------
def test_a_milestone_already_reached_is_answered_at_once():
    w = World({"w1": 2})
    w.submit(run("r", job("a"), job("b")))
    w.running("r/a")
    view = w.answer(WaitJob(run="r", job="a", until=JobMilestone.STARTED))
    assert view.state == "RUNNING"
    w.ended("r/a")
    assert w.answer(WaitJob(run="r", job="a")).state == "SUCCEEDED"


def test_waiting_for_the_start_is_over_when_it_runs():
    w = World({"w1": 2})
    w.submit(run("r", job("a")))
    w.ask(WaitJob(run="r", job="a", until=JobMilestone.STARTED))
    (reply,) = replies(w.running("r/a"))
    assert reply.message.state == "RUNNING"


def test_waiting_for_the_start_is_over_when_it_will_never_come():
    w = World({"w1": 2})
    w.submit(run("r", job("a"), job("b", "a")))
    w.ask(WaitJob(run="r", job="b", until=JobMilestone.STARTED))
    (reply,) = replies(w.ended("r/a", 1))
    assert (reply.message.state, reply.message.reason) == ("SKIPPED", "PARENT_FAILED")


@pytest.mark.parametrize("until", [JobMilestone.ENDED, JobMilestone.UNKNOWN])
def test_waiting_for_the_end_outlasts_the_start_and_lost_attempts(until):
    w = World({"w1": 2})
    w.submit(run("r", job("a")))
    w.ask(WaitJob(run="r", job="a", until=until))
    assert replies(w.running("r/a")) == []
    assert replies(w.ended("r/a", reason=ExitReason.LOST)) == []
    (reply,) = replies(w.ended("r/a", 7))
    assert (reply.message.state, reply.message.exit_code, reply.message.attempt) == (
        "FAILED",
        7,
        2,
    )


def test_a_started_job_that_is_being_cancelled_has_started():
    w = World({"w1": 2})
    w.submit(run("r", job("a"), job("b")))
    w.running("r/a")
    w.ask(CancelRun(run="r"))
    assert w.answer(WaitJob(run="r", job="a", until=JobMilestone.STARTED)).state == "CANCELLING"
    turn = w.ask(WaitJob(run="r", job="b", until=JobMilestone.STARTED))
    assert effects(turn) == []


# -- the log of a job that has not started --------------------------------------------------------
def test_following_a_job_waits_for_its_first_attempt():
    w = World()
    w.submit(run("r", job("a")))
    assert effects(w.ask(ReadLog(run="r", job="a", follow=True))) == []
    turn = w.join("w1")
    (served,) = [effect for effect in turn.effects if isinstance(effect, ServeLog)]
    assert (str(served.ref), served.ended) == ("r/a.1", False)
    kinds = [type(effect).__name__ for effect in turn.effects]
    assert kinds.index("OpenLog") < kinds.index("ServeLog")
    assert nobody_waits(w)


def test_following_a_job_that_will_never_start_ends_with_the_reason():
    w = World()
    w.submit(run("r", job("a"), job("b", "a")))
    w.ask(ReadLog(run="r", job="b", follow=True), link_id=5)
    (reply,) = replies(w.ask(CancelRun(run="r")), link_id=5)
    assert reply.message.code is ErrorCode.NOT_FOUND
    assert "CANCELLED" in reply.message.message


# -- watching -------------------------------------------------------------------------------------
def test_a_watcher_is_told_every_change_and_then_the_end():
    w = World({"w1": 1})
    w.submit(run("r", job("a"), job("b", "a"), job("c", "b")))
    assert news(w.ask(WatchRun(run="r"))) == [("a", "PLACED")]
    assert news(w.running("r/a")) == [("a", "RUNNING")]
    assert news(w.ended("r/a")) == [("a", "SUCCEEDED"), ("b", "QUEUED"), ("b", "PLACED")]
    turn = w.ended("r/b", 2)
    assert news(turn) == [("b", "FAILED"), ("c", "SKIPPED")]
    last = replies(turn)[-1]
    assert last.end
    assert (last.message.job_id, last.message.run_state) == ("", "FAILED")
    assert nobody_waits(w)


def test_news_carry_what_a_person_wants_to_know():
    w = World({"w1": 1})
    w.submit(run("r", job("a"), job("b")))
    w.ask(WatchRun(run="r"))
    turn = w.ended("r/a", 3, message="oh no")
    change = replies(turn)[0].message
    assert (change.worker, change.attempt, change.reason, change.exit_code, change.message) == (
        "host:8080",
        1,
        "EXITED",
        3,
        "oh no",
    )


def test_who_watches_late_is_told_where_the_moved_jobs_stand():
    w = World({"w1": 1})
    w.submit(run("r", job("a"), job("b"), job("c", "b")))
    w.ended("r/a")
    w.ended("r/b", reason=ExitReason.LOST)
    assert news(w.ask(WatchRun(run="r"))) == [("a", "SUCCEEDED"), ("b", "PLACED")]


def test_thousands_of_changes_of_one_moment_are_summed_up():
    w = World()
    w.submit(run("r", *(job(f"j{n}") for n in range(CHANGES_AT_ONCE + 500))))
    w.ask(WatchRun(run="r"), link_id=5)
    told = replies(w.ask(CancelRun(run="r")), link_id=5)
    assert len(told) == CHANGES_AT_ONCE + 2
    assert told[-2].message.message == "500 more jobs are CANCELLED"
    assert told[-1].end


def test_a_master_that_starts_again_knows_no_waiters():
    w = World({"w1": 1})
    w.submit(run("r", job("a")))
    w.ask(WaitRun(run="r"))
    w.restart()
    w.join("w1", held=[("r/a", "RUNNING")])
    assert replies(w.ended("r/a")) == []
