"""How long an exclusive attempt may go on, when a silent link is given up, and when a job is late."""

import pytest

from titan_proto.messages import AttemptReports, HeartbeatAck, Joined, WorkerStatus
from titan_proto.states import AttemptState, ExitReason
from titan_worker.core.attempts import LEASE_ENDED
from titan_worker.core.effects import HangUp, LeaseEnd, RenewLease, Send, Spawn, Terminate
from titan_worker.core.inputs import LinkDown, Spawned, Started
from titan_worker.core.lease import UNHEARD_BEATS_MAX, Lease

LEASE_MS = 30_000
BEAT_MS = 5_000


def joined_lease(lost_after_ms=LEASE_MS, at_ms=1_000):
    lease = Lease()
    lease.join(at_ms)
    lease.joined(Joined(term=1, heartbeat_ms=BEAT_MS, lost_after_ms=lost_after_ms))
    return lease


def ends(lease, grace_ms=0):
    return lease.end_for(grace_ms).kill_at_ms


def exclusive(world, name="a", **fields):
    return world.order(name, exclusive=True, **fields)


def effects(turn, kind):
    return [effect for effect in turn.effects if isinstance(effect, kind)]


# -- the arithmetic ---------------------------------------------------------------------------------
def test_the_lease_counts_from_when_the_acknowledged_beat_was_sent():
    lease = joined_lease()
    first = lease.beat(6_000)
    lease.beat(11_000)
    before = ends(lease)
    assert before == 1_000 + LEASE_MS - LEASE_MS // 20

    assert lease.acked(HeartbeatAck(beat=first))

    assert ends(lease) - before == 5_000


def test_a_later_acknowledgement_covers_the_beats_before_it():
    lease = joined_lease()
    first, second = lease.beat(6_000), lease.beat(11_000)

    assert lease.acked(HeartbeatAck(beat=second))
    assert ends(lease) == 11_000 + LEASE_MS - LEASE_MS // 20
    assert not lease.acked(HeartbeatAck(beat=first))
    assert ends(lease) == 11_000 + LEASE_MS - LEASE_MS // 20


@pytest.mark.parametrize("beat", [0, 2, 10**9, -1])
def test_an_acknowledgement_of_what_was_never_said_renews_nothing(beat):
    lease = joined_lease()
    lease.beat(6_000)
    before = ends(lease)

    assert not lease.acked(HeartbeatAck(beat=beat))
    assert ends(lease) == before


def test_beats_of_an_earlier_link_are_not_acknowledged_on_this_one():
    lease = joined_lease()
    old = lease.beat(6_000)
    lease.join(7_000)

    assert not lease.acked(HeartbeatAck(beat=old))


def test_what_nobody_acknowledges_is_not_remembered_for_ever():
    lease = joined_lease()
    for number in range(10 * UNHEARD_BEATS_MAX):
        lease.beat(number)

    assert len(lease._unheard) == UNHEARD_BEATS_MAX


@pytest.mark.parametrize(
    ("grace_ms", "given_ms"), [(0, 0), (4_000, 4_000), (10_000, 10_000), (3_600_000, 10_000)]
)
def test_the_grace_inside_a_lease_is_a_third_of_it_at_most(grace_ms, given_ms):
    end = joined_lease().end_for(grace_ms)

    assert end.kill_at_ms - end.term_at_ms == given_ms
    assert end.kill_at_ms < 1_000 + LEASE_MS


def test_a_shorter_lease_of_the_next_master_counts_at_once():
    lease = joined_lease()
    lease.join(2_000)
    lease.joined(Joined(term=2, heartbeat_ms=100, lost_after_ms=600))

    assert ends(lease) == 2_000 + 600 - 30


# -- silence ------------------------------------------------------------------------------------------
def test_a_link_on_which_nothing_is_heard_is_given_up_within_the_lease(world):
    world.begin()
    world.turn(after_ms=BEAT_MS)
    world.turn(world.heard(1), after_ms=10)
    heard_ms = world.now_ms

    silent = None
    while silent is None:
        world.now_ms = world.core.next_deadline_ms()
        silent = next(iter(effects(world.turn(), HangUp)), None)

    assert world.now_ms - heard_ms == LEASE_MS * 2 // 3
    assert "20000 ms" in silent.reason
    assert world.core.next_deadline_ms() is None


def test_whatever_the_master_says_is_a_sign_of_life(world):
    world.begin()
    world.turn(after_ms=BEAT_MS)
    world.turn(world.heard(1))
    for _ in range(10):
        turn = world.turn(world.start(), after_ms=LEASE_MS * 2 // 3 - 1)
        assert effects(turn, HangUp) == []


def test_a_master_too_old_to_answer_heartbeats_is_not_given_up(world):
    world.begin()
    for number in range(1, 20):
        turn = world.turn(after_ms=BEAT_MS)
        (sent,) = effects(turn, Send)
        assert sent.message.beat == number
        assert effects(turn, HangUp) == []


def test_a_master_that_does_not_answer_join_is_given_up_after_a_lease(world):
    world.turn(Started(boot_id="boot"))
    world.turn(world.link_up())
    assert effects(world.turn(after_ms=LEASE_MS - 1), HangUp) == []

    assert len(effects(world.turn(after_ms=1), HangUp)) == 1


def test_after_a_silent_link_the_next_one_begins_afresh(world):
    world.begin()
    world.turn(after_ms=BEAT_MS)
    world.turn(world.heard(1))
    assert effects(world.turn(after_ms=LEASE_MS), HangUp)
    world.turn(LinkDown())
    world.turn(world.link_up())
    world.turn(world.joined())

    turn = world.turn(after_ms=BEAT_MS)

    assert [sent.message for sent in effects(turn, Send)] == [WorkerStatus(running=0, beat=1)]


# -- exclusive attempts -------------------------------------------------------------------------------
def test_an_exclusive_attempt_is_started_under_guard_and_an_ordinary_one_is_not(world):
    guarded, plain = exclusive(world, grace_ms=4_000), world.order("b")
    world.begin(world.start(guarded, plain))

    turn = world.turn(world.ready("a"), world.ready("b"))

    end = LeaseEnd(term_at_ms=25_500, kill_at_ms=29_500)
    assert turn.effects == (Spawn(order=guarded, lease_end=end), Spawn(order=plain))


def test_every_renewal_reaches_the_guard(world):
    world.running_jobs(exclusive(world, grace_ms=4_000), world.order("b"))
    world.turn(after_ms=BEAT_MS)

    turn = world.turn(world.heard(1), after_ms=300)

    end = LeaseEnd(term_at_ms=30_500, kill_at_ms=34_500)
    assert turn.effects == (RenewLease(ref=world.ref("a"), lease_end=end),)


def test_a_guard_hears_of_a_new_link_too(world):
    world.running_jobs(exclusive(world))
    world.turn(LinkDown())
    world.turn(world.link_up(), after_ms=3_000)

    (renewal,) = effects(world.turn(world.joined(), after_ms=5), RenewLease)

    assert renewal.lease_end.kill_at_ms == 4_000 + LEASE_MS - LEASE_MS // 20


def test_an_exclusive_attempt_is_not_started_while_the_lease_could_end_it_at_once(world):
    """And it holds up nobody: neither its slot nor its turn is lost."""
    first, second, plain = exclusive(world), exclusive(world, "b"), world.order("c")
    world.begin(world.start(first, second, plain))
    world.turn(LinkDown())
    world.turn(after_ms=LEASE_MS)

    turn = world.turn(world.ready("a"), world.ready("b"), world.ready("c"))
    assert turn.effects == (Spawn(order=plain),)
    assert world.turn(world.exited("c")).effects == ()

    world.turn(world.link_up())
    turn = world.turn(world.joined())
    assert [effect.order for effect in effects(turn, Spawn)] == [first, second]


def test_one_that_was_stopped_while_it_waited_for_the_lease_is_not_started(world):
    world.begin(world.start(exclusive(world)))
    world.turn(LinkDown())
    world.turn(world.ready("a"), after_ms=LEASE_MS)
    world.turn(world.link_up())

    turn = world.turn(world.joined(stop=[world.ref("a")]))

    assert effects(turn, Spawn) == []


def test_an_attempt_that_its_guard_stopped_is_lost_and_says_why(world):
    world.running_jobs(exclusive(world))

    (record,) = world.turn(world.exited("a", signal=15, lease_ended=True)).records

    assert record.report.reason is ExitReason.LOST
    assert record.report.message == LEASE_ENDED


def test_a_guard_that_comes_after_a_stop_does_not_change_its_reason(world):
    world.running_jobs(exclusive(world))
    world.turn(world.stop("a"))

    (record,) = world.turn(world.exited("a", signal=9, lease_ended=True)).records

    assert (record.report.reason, record.report.message) == (ExitReason.CANCELLED, "")


def test_another_clusters_master_does_not_renew_what_it_never_gave(world):
    world.running_jobs(exclusive(world))
    world.turn(LinkDown())
    world.turn(world.link_up(cluster="c2"))

    assert effects(world.turn(world.joined()), RenewLease) == []


# -- timeouts -----------------------------------------------------------------------------------------
def test_an_attempt_that_outlasts_its_timeout_is_stopped_and_has_timed_out(world):
    world.running_jobs(world.order("a", timeout_ms=700, grace_ms=300))
    assert world.core.next_deadline_ms() == 1_700
    assert world.turn(after_ms=699).effects == ()

    assert world.turn(after_ms=1).effects == (Terminate(ref=world.ref("a"), force=False),)
    assert world.core.next_deadline_ms() == 2_000
    assert world.turn(after_ms=300).effects == (Terminate(ref=world.ref("a"), force=True),)

    (record,) = world.turn(world.exited("a", signal=9)).records
    assert record.report.reason is ExitReason.TIMED_OUT
    assert "700 ms" in record.report.message


def test_one_that_ends_by_itself_in_its_grace_has_timed_out_all_the_same(world):
    world.running_jobs(world.order("a", timeout_ms=700))
    world.turn(after_ms=700)

    (record,) = world.turn(world.exited("a", code=0), after_ms=10).records

    assert record.report.reason is ExitReason.TIMED_OUT


def test_an_end_that_is_known_at_the_deadline_is_no_timeout(world):
    world.running_jobs(world.order("a", timeout_ms=700))

    (record,) = world.turn(world.exited("a", code=0), after_ms=700).records

    assert record.report.reason is ExitReason.EXITED
    assert world.core.next_deadline_ms() == 6_000  # the next heartbeat


def test_a_timeout_counts_from_the_start_of_the_process(world):
    world.begin(world.start(world.order("a", timeout_ms=700)))
    world.turn(world.ready("a"), after_ms=5_000)
    late = Spawned(ref=world.ref("a"), pid=42, start_ticks=7, at_ms=world.now_ms + 3)

    world.turn(late, after_ms=20)

    assert effects(world.turn(after_ms=682), Terminate) == []
    assert len(effects(world.turn(after_ms=1), Terminate)) == 1


def test_an_end_in_time_is_heard_before_a_worker_that_slept_looks_at_its_clock(world):
    """Found by the simulator, seed 278: a success was taken for a timeout."""
    world.running_jobs(world.order("a", timeout_ms=700))
    assert effects(world.turn(after_ms=60_000), Terminate) == []

    (record,) = world.turn(world.exited("a", code=0)).records
    assert record.report.reason is ExitReason.EXITED


def test_a_worker_that_slept_stops_what_really_is_overdue_a_moment_later(world):
    world.running_jobs(world.order("a", timeout_ms=700))
    world.turn(after_ms=60_000)

    assert effects(world.turn(after_ms=199), Terminate) == []
    assert effects(world.turn(after_ms=1), Terminate) == [
        Terminate(ref=world.ref("a"), force=False)
    ]


def test_a_stop_before_the_timeout_keeps_its_reason_and_its_grace(world):
    world.running_jobs(world.order("a", timeout_ms=700, grace_ms=400))
    world.turn(world.stop("a"), after_ms=600)

    assert effects(world.turn(after_ms=200), Terminate) == []
    (record,) = world.turn(world.exited("a", signal=15)).records
    assert record.report.reason is ExitReason.CANCELLED


def test_a_stop_for_the_jobs_time_does_not_blame_the_attempts_timeout(world):
    world.running_jobs(world.order("a", timeout_ms=60_000))
    world.turn(world.stop("a", reason=ExitReason.TIMED_OUT), after_ms=1_000)

    (record,) = world.turn(world.exited("a", signal=15)).records

    assert record.report.reason is ExitReason.TIMED_OUT
    assert "60000" not in record.report.message


def test_timeouts_go_on_without_a_link(world):
    world.running_jobs(world.order("a", timeout_ms=700))
    world.turn(LinkDown())

    assert len(effects(world.turn(after_ms=700), Terminate)) == 1


def test_a_timeout_does_not_survive_its_process(world):
    world.running_jobs(world.order("a", timeout_ms=700))
    world.crash()

    (record,) = world.turn(Started(boot_id="boot"), after_ms=10_000).records

    assert record.report.reason is ExitReason.LOST
    assert world.core.next_deadline_ms() is None


def test_a_late_report_of_a_timeout_is_told_on_the_next_link(world):
    world.running_jobs(world.order("a", timeout_ms=700))
    world.turn(LinkDown())
    world.turn(after_ms=700)
    world.turn(world.exited("a", signal=15))
    world.turn(world.link_up())

    (sent,) = effects(world.turn(world.joined()), Send)

    assert isinstance(sent.message, AttemptReports)
    (told,) = sent.message.reports
    assert (told.state, told.reason) == (AttemptState.ENDED, ExitReason.TIMED_OUT)
