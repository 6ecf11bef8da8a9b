"""Leaving with tasks under way: who may go on, for how long, and what is said of it."""

import pytest

from titan_proto.limits import DRAIN_TIMEOUT_MS
from titan_proto.messages import AttemptReports, Leave, WorkerStatus
from titan_proto.states import AttemptState, ExitReason
from titan_worker.core.attempts import SHUT_DOWN
from titan_worker.core.core import MOVE_UNHEARD_MS
from titan_worker.core.effects import Exit, Send, Terminate
from titan_worker.core.inputs import LinkDown, Started, StopRequested
from titan_worker.core.records import AttemptClosed, AttemptSpared, AttemptStopping

DRAIN_MS = 60_000


@pytest.fixture
def leaver(new_world):
    """A worker that lets its tasks go on for a minute."""
    return new_world(slots=3, drain_ms=DRAIN_MS)


def said(turn, kind):
    return [
        effect.message
        for effect in turn.effects
        if isinstance(effect, Send) and isinstance(effect.message, kind)
    ]


def ends(turn):
    return [
        (report.ref.job_id, report.reason)
        for message in said(turn, AttemptReports)
        for report in message.reports
        if report.state is AttemptState.ENDED
    ]


def signalled(turn):
    return [(e.ref.job_id, e.force) for e in turn.effects if isinstance(e, Terminate)]


def test_running_tasks_go_on_and_the_worker_leaves_when_the_last_one_has_ended(leaver):
    leaver.running_jobs(leaver.order("a"), leaver.order("b"))

    turn = leaver.turn(StopRequested())
    assert signalled(turn) == []
    (beat,) = said(turn, WorkerStatus)
    assert (beat.leaving, beat.running) == (True, 2)

    assert ends(leaver.turn(leaver.exited("a"), after_ms=20_000)) == [("a", ExitReason.EXITED)]
    turn = leaver.turn(leaver.exited("b"), after_ms=10_000)
    assert ends(turn) == [("b", ExitReason.EXITED)]
    assert not said(turn, Leave), "its last report is not heard yet"
    turn = leaver.turn(leaver.acks("a", "b"))
    assert turn.effects[-2:] == (Send(message=Leave()), Exit())


def test_what_has_not_begun_goes_back_at_once_and_nothing_new_begins(leaver):
    """One whose folder is being made, one that waits for a slot, one that comes too late."""
    orders = [leaver.order(name) for name in ("a", "b", "c", "waits", "young")]
    leaver.begin(leaver.start(*orders))
    for name in ("a", "b", "c"):
        leaver.turn(leaver.ready(name))
        leaver.turn(leaver.spawned(name))
    leaver.turn(leaver.ready("waits"))

    turn = leaver.turn(StopRequested())
    gone = [("waits", ExitReason.WORKER_LEFT), ("young", ExitReason.WORKER_LEFT)]
    assert sorted(ends(turn)) == gone
    assert all(not report.started_at_ms for report in said(turn, AttemptReports)[0].reports)
    late = leaver.turn(leaver.start(leaver.order("late")))
    assert ends(late) == [("late", ExitReason.WORKER_LEFT)]
    leaver.turn(leaver.exited("a"))  # its slot stays empty
    assert {ref.job_id for ref, held in leaver.core.state.held.items() if held.pid} >= {"b", "c"}


def test_one_that_is_just_being_started_may_go_on(leaver):
    leaver.begin(leaver.start(leaver.order("a")), leaver.ready("a"))
    assert ends(leaver.turn(StopRequested())) == []
    assert signalled(leaver.turn(leaver.spawned("a"))) == []
    assert ends(leaver.turn(leaver.exited("a"))) == [("a", ExitReason.EXITED)]


def test_what_is_not_done_in_time_is_stopped_killed_after_its_grace_and_goes_back(leaver):
    leaver.running_jobs(leaver.order("a", grace_ms=2_000))
    leaver.turn(StopRequested())
    assert leaver.core.next_deadline_ms() <= leaver.now_ms + DRAIN_MS
    assert signalled(leaver.turn(after_ms=DRAIN_MS - 1)) == []
    assert signalled(leaver.turn(after_ms=1)) == [("a", False)]
    assert signalled(leaver.turn(after_ms=2_000)) == [("a", True)]
    turn = leaver.turn(leaver.exited("a", signal=9))
    assert ends(turn) == [("a", ExitReason.WORKER_LEFT)]
    (closed,) = turn.records
    assert closed.report.message == SHUT_DOWN


def test_services_answer_until_the_last_task_is_done_and_then_all_stop_at_once(leaver):
    leaver.running_jobs(
        leaver.order("a"), leaver.order("api", service=0), leaver.order("db", service=0)
    )
    assert signalled(leaver.turn(StopRequested())) == []
    turn = leaver.turn(leaver.exited("a"), after_ms=5_000)
    assert signalled(turn) == [("api", False), ("db", False)]


def test_a_worker_with_services_alone_waits_for_nobody(leaver):
    leaver.running_jobs(leaver.order("api", service=0))
    assert signalled(leaver.turn(StopRequested())) == [("api", False)]


def test_a_task_that_is_told_to_stop_already_holds_up_nobody(leaver):
    leaver.running_jobs(leaver.order("a"), leaver.order("api", service=0))
    leaver.turn(leaver.stop("a"))
    assert signalled(leaver.turn(StopRequested())) == [("api", False)]


def test_a_second_signal_ends_the_drain_with_reports_and_goodbye(leaver):
    leaver.running_jobs(leaver.order("a"))
    leaver.turn(StopRequested())
    assert signalled(leaver.turn(StopRequested(), after_ms=1_000)) == [("a", False)]
    assert signalled(leaver.turn(StopRequested())) == []
    assert ends(leaver.turn(leaver.exited("a", signal=15))) == [("a", ExitReason.WORKER_LEFT)]
    turn = leaver.turn(leaver.acks("a"))
    assert turn.effects[-2:] == (Send(message=Leave()), Exit())


def test_one_signal_may_say_that_nothing_is_waited_for(leaver):
    leaver.running_jobs(leaver.order("a"))
    assert signalled(leaver.turn(StopRequested(at_once=True))) == [("a", False)]


@pytest.mark.parametrize(
    ("asked", "gets"),
    [(None, DRAIN_MS), (5_000, 5_000), (90_000, 90_000), (2**60, DRAIN_TIMEOUT_MS)],
)
def test_a_master_may_say_for_how_long_or_leave_it_to_the_worker(leaver, asked, gets):
    leaver.running_jobs(leaver.order("a"))
    (beat,) = said(leaver.turn(leaver.shut_down(asked)), WorkerStatus)
    assert beat.leaving
    assert signalled(leaver.turn(after_ms=gets - 1)) == []
    assert signalled(leaver.turn(after_ms=1)) == [("a", False)]


@pytest.mark.parametrize("asked", [0, -5])
def test_a_master_may_have_it_at_once(leaver, asked):
    leaver.running_jobs(leaver.order("a"))
    assert signalled(leaver.turn(leaver.shut_down(asked))) == [("a", False)]


def test_told_twice_the_sooner_end_counts(leaver):
    leaver.running_jobs(leaver.order("a"))
    leaver.turn(leaver.shut_down(10_000))
    leaver.turn(leaver.shut_down(50_000))
    leaver.turn(leaver.shut_down(4_000), after_ms=1_000)
    assert signalled(leaver.turn(after_ms=3_999)) == []
    assert signalled(leaver.turn(after_ms=1)) == [("a", False)]


def test_a_signal_after_the_masters_order_means_now(leaver):
    leaver.running_jobs(leaver.order("a"))
    leaver.turn(leaver.shut_down())
    assert signalled(leaver.turn(StopRequested())) == [("a", False)]


def test_a_master_of_an_older_term_shuts_nobody_down(leaver):
    leaver.running_jobs(leaver.order("a"))
    leaver.turn(LinkDown())
    leaver.turn(leaver.link_up(term=2))
    leaver.turn(leaver.joined(term=2))
    leaver.turn(leaver.shut_down(term=1))
    assert not leaver.core.is_leaving


def test_a_drain_goes_on_without_a_link_and_its_ends_are_told_on_the_next(leaver):
    leaver.running_jobs(leaver.order("a"))
    leaver.turn(StopRequested())
    leaver.turn(LinkDown())
    leaver.turn(leaver.exited("a"))
    leaver.turn(leaver.link_up())
    turn = leaver.turn(leaver.joined())
    assert ends(turn) == [("a", ExitReason.EXITED)]
    assert said(turn, WorkerStatus)[0].leaving


def test_one_that_is_cancelled_in_the_drain_is_cancelled(leaver):
    leaver.running_jobs(leaver.order("a"))
    leaver.turn(StopRequested())
    assert signalled(leaver.turn(leaver.stop("a"))) == [("a", False)]
    assert ends(leaver.turn(leaver.exited("a", signal=15))) == [("a", ExitReason.CANCELLED)]


def test_a_worker_that_is_killed_in_its_drain_blames_no_job_and_says_that_it_had_begun(leaver):
    """systemd, docker and people send SIGKILL when a drain takes them too long."""
    leaver.running_jobs(leaver.order("a"))
    leaver.turn(leaver.start(leaver.order("b")))
    leaver.turn(leaver.ready("b"))  # being started: nobody will ever know whether it began
    leaver.turn(StopRequested())
    closed = leaver.crash().turn(Started(boot_id="boot")).records
    assert [type(record) for record in closed] == [AttemptClosed, AttemptClosed]
    assert [record.report.reason for record in closed] == [ExitReason.WORKER_LEFT] * 2
    assert all(record.report.started_at_ms for record in closed)


def test_who_goes_on_is_written_down_before_anything_else_happens(leaver):
    leaver.running_jobs(leaver.order("a"))
    turn = leaver.turn(StopRequested())
    assert turn.records == (AttemptSpared(ref=leaver.ref("a"), at_ms=1_000),)
    turn = leaver.turn(after_ms=DRAIN_MS)
    reason = ExitReason.WORKER_LEFT
    stopping = AttemptStopping(ref=leaver.ref("a"), reason=reason, at_ms=leaver.now_ms)
    assert turn.records == (stopping,)


def test_an_exclusive_one_whose_lease_ends_in_the_drain_is_not_blamed(leaver):
    leaver.running_jobs(leaver.order("a", exclusive=True))
    leaver.turn(StopRequested())
    turn = leaver.turn(leaver.exited("a", signal=15, lease_ended=True))
    assert ends(turn) == [("a", ExitReason.WORKER_LEFT)]


# -- services, of a master that moves them -----------------------------------------------------------
@pytest.fixture
def mover(leaver):
    """Likewise, and its master brings services up elsewhere."""
    leaver.is_moving = True
    return leaver


def test_a_service_stays_up_until_its_master_has_moved_it(mover):
    mover.running_jobs(mover.order("a", service=0))
    assert signalled(mover.turn(StopRequested())) == []
    assert signalled(mover.turn(after_ms=DRAIN_MS // 2)) == []
    assert signalled(mover.turn(mover.stop("a", reason=ExitReason.STOPPED))) == [("a", False)]
    assert ends(mover.turn(mover.exited("a", signal=15))) == [("a", ExitReason.STOPPED)]
    assert mover.turn(mover.acks("a")).effects[-2:] == (Send(message=Leave()), Exit())


def test_a_service_that_cannot_be_moved_goes_with_its_worker(mover):
    mover.running_jobs(mover.order("a", service=0))
    mover.turn(StopRequested())
    turn = mover.turn(mover.stop("a", reason=ExitReason.WORKER_LEFT))
    assert signalled(turn) == [("a", False)]
    assert ends(mover.turn(mover.exited("a", signal=15))) == [("a", ExitReason.WORKER_LEFT)]


def test_a_service_that_is_not_moved_in_time_is_stopped_anyway(mover):
    mover.running_jobs(mover.order("a", service=0))
    mover.turn(StopRequested())
    assert signalled(mover.turn(after_ms=DRAIN_MS - 1)) == []
    assert signalled(mover.turn(after_ms=1)) == [("a", False)]


def test_a_master_of_before_moves_nothing_and_is_not_waited_for(leaver):
    leaver.running_jobs(leaver.order("a", service=0))
    assert signalled(leaver.turn(StopRequested())) == [("a", False)]


def test_without_a_link_services_are_kept_up_for_a_moment_and_a_master_that_is_back_counts(mover):
    mover.running_jobs(mover.order("a", service=0))
    mover.turn(StopRequested())
    mover.turn(LinkDown())
    assert signalled(mover.turn(after_ms=MOVE_UNHEARD_MS - 1)) == []
    mover.turn(mover.link_up())
    mover.turn(mover.joined(moves=True))
    assert signalled(mover.turn(after_ms=MOVE_UNHEARD_MS)) == []
    mover.turn(LinkDown())
    assert mover.core.next_deadline_ms() <= mover.now_ms + MOVE_UNHEARD_MS
    assert signalled(mover.turn(after_ms=MOVE_UNHEARD_MS)) == [("a", False)]


def test_a_task_is_waited_for_though_no_master_is_there_and_nothing_spins(mover):
    mover.running_jobs(mover.order("a"), mover.order("b", service=0))
    mover.turn(StopRequested())
    mover.turn(LinkDown())
    assert signalled(mover.turn(after_ms=MOVE_UNHEARD_MS)) == []
    assert mover.core.next_deadline_ms() > mover.now_ms
    assert signalled(mover.turn(mover.exited("a"))) == [("b", False)]
